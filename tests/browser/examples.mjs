// Runs every example of the crate as a child process and uses it: those with a page in a real Chromium, the others with
// a WebSocket.
//
//   cargo build --examples && EXAMPLES=target/debug/examples node examples.mjs
//
// CHROMIUM names the browser, ONLY=words picks tests. Screenshots go to .screenshots/, which git ignores. The last line is
// `N passed, N failed`.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { DEADLINE, finish, launch, runAll, until } from './harness.mjs'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const EXAMPLES = path.resolve(process.env.EXAMPLES || `${ROOT}target/debug/examples`)
const SCREENSHOTS = `${ROOT}.screenshots/`
const RECONNECT_DEADLINE = 40_000
const PHONE = { width: 390, height: 844 }
const DESKTOP = { width: 1280, height: 800 }
/** What browsers log when a server is gone, which is what some tests are about. */
const GONE = /WebSocket connection to .* failed|ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET/

// ---------------------------------------------------------------- tests

const tests = {
  async 'chat: two people talk, and one who reloads gets what was said'(browser) {
    await running('chat', async chat => {
      const [ann, bob] = [await enter(browser, chat, 'lobby', 'Ann'), await enter(browser, chat, 'lobby', 'Bob')]
      await until('the note', async () => (await said(ann)).includes('Bob came in'))
      await say(ann, 'hello')
      await sees(bob, 'hello')
      await say(bob, 'hello yourself')
      await sees(ann, 'hello yourself')
      assert.deepEqual(await bob.locator('.said b').allTextContents(), ['Ann', 'Bob'])
      assert.match(await bob.locator('.said time').first().textContent(), /^\d\d:\d\d$/)
      assert.deepEqual(await people(bob), ['Ann', 'Bob'])
      await bob.reload()
      for (const text of ['hello', 'hello yourself']) await sees(bob, text)
      await until('both', async () => (await people(bob)).join() === 'Ann,Bob')
      const late = await enter(browser, chat, 'lobby', 'Zoë')
      for (const text of ['hello', 'hello yourself']) await sees(late, text)
      await late.close()
      await until('the note', async () => (await said(ann)).includes('Zoë left'))
      assert.ok(!(await said(ann)).includes('Bob left'), 'a reload is no leaving')
      assert.deepEqual(await people(ann), ['Ann', 'Bob'])
    })
  },

  async 'chat: what people type stays text'(browser) {
    await running('chat', async chat => {
      const name = '<b>Eve</b><script>document.title="owned"</script>'.slice(0, 40)
      const [eve, bob] = [await enter(browser, chat, 'lobby', name), await enter(browser, chat, 'lobby', 'Bob')]
      for (const text of ['<script>document.title="owned"</script>', '<img src=x onerror="document.title=\'owned\'">', 'a\n  b', '&amp;']) {
        await say(eve, text)
        for (const page of [eve, bob]) await sees(page, text)
      }
      for (const page of [eve, bob]) {
        assert.equal(await page.title(), 'lobby')
        assert.equal(await page.locator('#log :is(script, img), aside :is(script, img, b)').count(), 0)
        assert.ok((await people(page)).includes(name))
      }
    })
  },

  async 'chat: rooms by URL, and each name once in a room'(browser) {
    await running('chat', async chat => {
      const ann = await enter(browser, chat, '', 'Ann')
      assert.equal(new URL(ann.url()).pathname, '/lobby')
      const other = await enter(browser, chat, encodeURIComponent('größe & co'), 'Ann')
      const second = await enter(browser, chat, 'lobby', 'Ann')
      await until('another name', async () => (await people(second)).join() === 'Ann,Ann 2')
      assert.deepEqual(await people(other), ['Ann'])
      assert.equal(await other.locator('h1').textContent(), 'größe & co')
      await say(ann, 'only here')
      await sees(second, 'only here')
      await say(other, 'only there')
      await sees(other, 'only there')
      assert.ok(!(await said(ann)).includes('only there') && !(await said(other)).includes('only here'))
      await second.reload()
      await until('the rooms', async () => (await second.locator('#rooms span').allTextContents()).join() === 'größe & co,lobby')
      await second.locator('#rooms a', { hasText: 'größe' }).click()
      await sees(second, 'only there')
      await second.locator('#other').fill('a third')
      await second.locator('#other').press('Enter')
      await until('the third room', async () => (await second.locator('h1').textContent()) === 'a third')
    })
  },

  async 'chat: what is said to one person, nobody else gets'(browser) {
    await running('chat', async chat => {
      const [ann, bob, eve] = [await enter(browser, chat, 'lobby', 'Ann'), await enter(browser, chat, 'lobby', 'Bob'), await enter(browser, chat, 'lobby', 'Eve')]
      await until('everybody', async () => (await people(ann)).length === 3)
      await ann.locator('#people button', { hasText: 'Bob' }).click()
      await say(ann, 'a secret')
      for (const page of [ann, bob]) await sees(page, 'a secret')
      assert.equal(await bob.locator('.alone b').textContent(), 'Ann to you alone')
      assert.equal(await ann.locator('.alone b').textContent(), 'Ann to Bob alone')
      await ann.getByRole('button', { name: 'To everybody' }).click()
      await say(ann, 'for all')
      await sees(eve, 'for all')
      assert.ok(!(await said(eve)).includes('a secret'))
      const posted = await fetch(chat.url + '/lobby', { method: 'POST', body: 'from nobody' })
      assert.equal(posted.status, 403)
      assert.equal((await posted.json()).code, 'no_name')
    })
  },

  async 'chat: a server that goes is noticed, one that comes back is found'(browser) {
    await restarting('chat', async (chat, stop, start) => {
      const [ann, bob] = [await enter(browser, chat, 'lobby', 'Ann'), await enter(browser, chat, 'lobby', 'Bob')]
      await stop()
      for (const page of [ann, bob]) await status(page, 'Connection lost, trying again')
      await say(ann, 'meanwhile')
      await start()
      for (const page of [ann, bob]) await status(page, 'Connected', RECONNECT_DEADLINE)
      await sees(bob, 'meanwhile')
      await until('both again', async () => (await people(ann)).join() === 'Ann,Bob')
    })
  },

  async 'chat: screenshots'(browser) {
    await running('chat', async chat => {
      const ben = await enter(browser, chat, 'lobby', 'Ben')
      const names = ['Zoë', 'Милена', 'Priya', 'Otto von Langenscheidt']
      for (const name of names) await enter(browser, chat, 'lobby', name)
      await enter(browser, chat, 'deploys', 'Zoë')
      const ann = await enter(browser, chat, 'lobby', 'Ann', DESKTOP)
      for (const text of ['Has anybody seen the cable with the odd plug?', 'It was on the windowsill yesterday.']) await say(ben, text)
      await say(ann, 'The grey one? It is in my bag, sorry. I took it for mine and only noticed at home that the plug does not fit anything that I own.')
      await say(ben, 'Ha')
      await say(ben, '<script>alert("no harm done")</script>')
      await until('everybody', async () => (await people(ben)).length === 6)
      await ben.locator('#people button', { hasText: 'Ann' }).click()
      await say(ben, 'Bring it along at noon?')
      await sees(ann, 'Bring it along at noon?')
      await ann.locator('#people button', { hasText: 'Ben' }).click()
      await ann.locator('#text').fill('Will do')
      await both(ann, 'chat', async () => {
        await shoot(ann, 'example-chat-390-light')
        await ann.locator('#toggle').click()
        await shoot(ann, 'example-chat-390-light-people')
        await ann.locator('#toggle').click()
      })
      const page = await open(browser, chat.url + '/lobby', { ...PHONE, scheme: 'dark' })
      await shoot(page, 'example-chat-390-dark-name')
    })
  },
}

// ---------------------------------------------------------------- chat

async function enter(browser, chat, room, name, options) {
  const page = await open(browser, `${chat.url}/${room}`, { forgive: GONE, ...options })
  await page.getByLabel('Your name').fill(name)
  await page.getByRole('button', { name: 'Come in' }).click()
  await status(page, 'Connected')
  await until('oneself', async () => (await people(page)).length > 0)
  return page
}

async function say(page, text) {
  await page.locator('#text').fill(text)
  await page.locator('#text').press('Enter')
}

const said = page => page.locator('#log :is(.said p, .note)').allTextContents()
const people = page => page.locator('#people span').allTextContents()
const sees = (page, text) => until(JSON.stringify(text.slice(0, 60)), async () => (await said(page)).includes(text))

// ---------------------------------------------------------------- pages

/** Opens a tab of its own profile; whatever the browser complains about fails the test that opened it. */
async function open(browser, url, { width = 1000, height = 700, scheme, forgive } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme })
  browser.opened.push(context)
  const page = await context.newPage()
  page.on('pageerror', error => browser.complaints.push(`${url}: ${error}`))
  page.on('console', message => {
    if (message.type() !== 'error' && !/Content Security Policy/.test(message.text())) return
    if (!forgive?.test(message.text())) browser.complaints.push(`${url}: ${message.text()}`)
  })
  page.on('request', request => {
    if (!request.url().startsWith(new URL(url).origin) && !request.url().startsWith('data:'))
      browser.complaints.push(`${url}: asked for ${request.url()}`)
  })
  const answer = await page.goto(url, { timeout: DEADLINE })
  assert.equal(answer.status(), 200)
  return page
}

const status = (page, label, deadline) =>
  until(`status ${label}`, async () => (await page.locator('#status').textContent()) === label, deadline)

/** Screenshots of a page on a phone and on a desktop, light and dark; nothing may be wider than the phone. */
async function both(page, name, onPhone) {
  for (const scheme of ['light', 'dark'])
    for (const size of [DESKTOP, PHONE]) {
      await page.emulateMedia({ colorScheme: scheme })
      await page.setViewportSize(size)
      await shoot(page, `example-${name}-${size.width}-${scheme}`)
      if (size !== PHONE) continue
      if (scheme === 'light') await onPhone?.()
      const wide = await page.evaluate(() => [...document.querySelectorAll('body, body *')]
        .filter(it => it.getBoundingClientRect().right > innerWidth + 0.5).map(it => it.id || it.tagName))
      assert.deepEqual(wide, [], `wider than ${size.width} px`)
    }
}

async function shoot(page, name) {
  mkdirSync(SCREENSHOTS, { recursive: true })
  await page.screenshot({ path: `${SCREENSHOTS}${name}.png` })
}

// ---------------------------------------------------------------- examples, as child processes

/** An example, with its address last among the arguments. */
async function start(name, { port = 0, args = [], stdin = 'ignore' } = {}) {
  const child = spawn(path.join(EXAMPLES, name), [...args, `127.0.0.1:${port}`], { stdio: [stdin, 'pipe', 'pipe'] })
  const example = { name, child, output: '', errors: '', ended: false }
  const gone = new Promise(resolve => child.once('close', (code, signal) => {
    Object.assign(example, { ended: true, code, signal })
    resolve()
  }))
  child.once('error', error => { example.errors += error; example.ended = true })
  child.stdout.setEncoding('utf8').on('data', chunk => { example.output += chunk })
  child.stderr.setEncoding('utf8').on('data', chunk => { example.errors += chunk })
  example.stop = async (signal = 'SIGKILL') => {
    if (!example.ended) {
      child.kill(signal)
      await gone
    }
    assert.doesNotMatch(example.errors, /panicked/, name)
  }
  try {
    await until('the listening line', () => {
      assert.ok(!example.ended, `${name} ended:\n${example.errors}`)
      example.url = example.output.match(/listening on (http:\/\/127\.0\.0\.1:\d+)\//)?.[1]
      return example.url
    })
  } catch (error) {
    child.kill('SIGKILL')
    throw error
  }
  example.port = new URL(example.url).port
  return example
}

async function running(name, body, options) {
  const example = await start(name, options)
  try {
    return await body(example)
  } finally {
    await example.stop()
  }
}

/** While `body` runs, an example that can be stopped and started again, on the same port. */
async function restarting(name, body) {
  let example = await start(name)
  const { port } = example
  try {
    await body(example, () => example.stop(), async () => { example = await start(name, { port }) })
  } finally {
    await example.stop()
  }
}

// ---------------------------------------------------------------- running

async function main() {
  const browser = await launch()
  try {
    await runAll(tests, browser)
  } finally {
    await browser.close()
  }
}

await finish(main)
