// A token in a cookie, which a real Chromium sends by itself: which pages get anything by it.

import assert from 'node:assert/strict'
import { elsewhere, finish, launch, runAll } from './harness.mjs'
import { mint, withTokens } from './tokens.mjs'

const tests = {
  async 'a page on another port has the cookie of somebody, and is nobody'(browser) {
    await withCookie(browser, [], async (page, channel) => {
      const told = await page.evaluate(ask, channel)
      assert.deepEqual(told, {
        socket: 'closed', stream: 'closed', read: 'TypeError', unread: 0, written: 'TypeError', blind: 0,
        strange: 'TypeError', open: 401,
      })
      assert.deepEqual(await kept(channel), [], 'something was published')
    })
  },

  async 'a page that is listed reads and writes'(browser) {
    await withCookie(browser, ['--origin'], async (page, channel) => {
      const told = await page.evaluate(ask, channel)
      assert.deepEqual(told, {
        socket: 'open', stream: 'open', read: 200, unread: 0, written: 200, blind: 0, strange: 'TypeError', open: 401,
      })
      assert.deepEqual((await kept(channel)).sort(), ['blind', 'written'])
      const refused = await page.evaluate(async url => {
        const answer = await fetch(url, { method: 'POST', body: 'x', credentials: 'include' })
        return [answer.status, (await answer.json()).code]
      }, channel.replace(/\w+$/, 'other'))
      assert.deepEqual(refused, [403, 'forbidden'])
    })
  },

  async 'an EventSource of the own page sends the cookie and no Origin'(browser) {
    await withCookie(browser, [], async (page, channel) => {
      await page.goto(channel)
      assert.equal(await page.evaluate(url => new Promise(resolve => {
        const stream = new EventSource(url)
        stream.onopen = () => { stream.close(); resolve('open') }
        stream.onerror = () => { stream.close(); resolve('closed') }
      }), channel), 'open')
    })
  },
}

/** A page on another port of this machine, in a browser with a cookie: cookies do not tell ports apart. */
async function withCookie(browser, flags, body) {
  await elsewhere('<title>elsewhere</title>', 'localhost', async url => {
    const origins = flags.flatMap(flag => [flag, new URL(url).origin])
    await withTokens(async broker => {
      const context = await browser.newContext()
      browser.opened.push(context)
      const slotcast = { subscribe: ['/**'], publish: ['/private'] }
      await context.addCookies([{ name: 'jwt', value: mint(3600, { slotcast }), domain: 'localhost', path: '/' }])
      const page = await context.newPage()
      await page.goto(url)
      await body(page, `http://localhost:${broker.port}/private`)
    }, { args: ['--token-cookie', 'jwt', ...origins] })
  })
}

/** What is kept of a channel. */
async function kept(channel) {
  const answer = await fetch(channel, { headers: { Authorization: `Bearer ${mint()}` } })
  return (await answer.json()).messages.map(message => message.data)
}

/** In the page: what comes of each way to a channel. */
async function ask(channel) {
  const opens = it => new Promise(resolve => {
    it.onopen = () => { it.close(); resolve('open') }
    it.onerror = () => { it.close(); resolve('closed') }
  })
  const get = options => fetch(channel, options).then(answer => answer.status, error => error.name)
  const include = { credentials: 'include' }
  const post = { ...include, method: 'POST', headers: { 'Content-Type': 'text/plain' } }
  return {
    socket: await opens(new WebSocket(channel.replace('http', 'ws'))),
    stream: await opens(new EventSource(channel, { withCredentials: true })),
    read: await get(include),
    unread: await get({ ...include, mode: 'no-cors' }),
    written: await get({ ...post, body: 'written' }),
    blind: await get({ ...post, body: 'blind', mode: 'no-cors' }),
    strange: await get({ ...include, headers: { 'X-Mine': '1' } }),
    open: await get({ credentials: 'omit' }),
  }
}

await finish(async () => {
  const browser = await launch()
  try {
    await runAll(tests, browser)
  } finally {
    await browser.close()
  }
})
