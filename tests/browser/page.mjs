// Drives the built-in page in a real Chromium, against a real broker.
//
//   SLOTCAST_BIN=target/debug/slotcast node page.mjs          starts the broker itself
//   SLOTCAST_URL=http://127.0.0.1:8080 node page.mjs          uses one that runs; the restart tests are skipped
//
// Both may be given: then the binary serves the restart tests only. CHROMIUM names the browser, ONLY=words picks tests.
// Screenshots go to .screenshots/ at the top of the repository. The last line is `N passed, N failed`.

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { BIN, DEADLINE, finish, launch, runAll, startBroker, until } from './harness.mjs'

const RECONNECT_DEADLINE = 30_000
const MAX_LINES = 1000
const SCREENSHOTS = fileURLToPath(new URL('../../.screenshots/', import.meta.url))

// ---------------------------------------------------------------- tests

const tests = {
  async 'the page comes with its content security policy'(browser, base) {
    const page = await open(browser, base + '/chat')
    const policy = page.answer.headers()['content-security-policy'] ?? ''
    assert.match(policy, /default-src 'none'/)
    assert.match(policy, /script-src 'sha256-/)
    assert.match(policy, /style-src 'sha256-/)
    assert.doesNotMatch(policy, /unsafe/)
    assert.match(await page.title(), /\/chat/)
    assert.equal(await page.locator('h1').textContent(), '/chat')
  },

  async 'two tabs talk both ways and another channel hears nothing'(browser, base) {
    const [ann, bob, other] = [await open(browser, base + '/chat'), await open(browser, base + '/chat'), await open(browser, base + '/other')]
    await say(ann, 'hello from ann')
    await sees(bob, 'hello from ann')
    await sees(ann, 'hello from ann')
    await say(bob, 'hello from bob')
    await sees(ann, 'hello from bob')
    // What /other gets after them shows that it would have had them by now.
    await say(other, 'only here')
    await sees(other, 'only here')
    assert.deepEqual(await texts(other), ['only here'])
    assert.deepEqual(await texts(ann), ['hello from ann', 'hello from bob'])
  },

  async 'markup stays text'(browser, base) {
    const page = await open(browser, base + '/markup')
    const hostile = ['<script>alert(1)</script>', '<img src=x onerror=alert(1)>', '</div><b>bold</b>&amp;']
    let dialogs = 0
    page.on('dialog', dialog => { dialogs++; dialog.dismiss() })
    for (const text of hostile) await say(page, text)
    await sees(page, hostile.at(-1))
    assert.deepEqual(await texts(page), hostile)
    assert.equal(await page.locator('#log script, #log img, #log b').count(), 0)
    assert.equal(dialogs, 0)
  },

  async 'text arrives untouched'(browser, base) {
    const page = await open(browser, base + '/text')
    const exact = ['  spaces  kept  ', 'привет, 世界 🦀', '{"json": [1, 2]}', 'a "quote" and a \\ backslash']
    for (const text of exact) await say(page, text)
    await sees(page, exact.at(-1))
    assert.deepEqual(await texts(page), exact)
  },

  async 'a binary message shows its size and its first bytes'(browser, base) {
    const page = await open(browser, base + '/binary')
    await peer(page, [[0xde, 0xad, 0xbe, 0xef, 0x00]])
    await until('the binary line', async () => (await page.locator('#log .binary').count()) === 1)
    assert.equal(await page.locator('#log .binary p').textContent(), 'binary, 5 Bde ad be ef 00')
    await peer(page, [Array(5000).fill(0x61)])
    await until('the long binary line', async () => (await page.locator('#log .binary').count()) === 2)
    const long = await page.locator('#log .binary p').nth(1).textContent()
    assert.match(long, /^binary, 5000 B61 61 .* …$/)
    assert.ok(long.length < 120, 'short hex only')
  },

  async 'Enter sends, Shift+Enter breaks the line, the button sends'(browser, base) {
    const page = await open(browser, base + '/box')
    const box = page.getByLabel('Message', { exact: true })
    await box.fill('')
    await box.press('Enter')
    await box.pressSequentially('first')
    await box.press('Shift+Enter')
    await box.pressSequentially('second')
    await box.press('Enter')
    await sees(page, 'first\nsecond')
    assert.equal(await box.inputValue(), '')
    await box.fill('by button')
    await page.getByRole('button', { name: 'Send' }).click()
    await sees(page, 'by button')
    assert.deepEqual(await texts(page), ['first\nsecond', 'by button'])
  },

  async 'it follows at the bottom, and only there'(browser, base) {
    const page = await open(browser, base + '/scroll')
    const log = page.locator('#log')
    const gap = () => log.evaluate(it => it.scrollHeight - it.scrollTop - it.clientHeight)
    await peer(page, Array.from({ length: 100 }, (_, i) => `line ${i}`))
    await sees(page, 'line 99')
    await until('the bottom', async () => (await gap()) < 2)
    await log.evaluate(it => new Promise(done => {
      it.addEventListener('scroll', done, { once: true })
      it.scrollTop = 0
    }))
    await peer(page, ['one more'])
    await sees(page, 'one more')
    assert.ok((await gap()) > 500, 'a reader further up stays there')
    await page.getByRole('button', { name: 'New messages' }).click()
    await until('the bottom again', async () => (await gap()) < 2)
    await until('the button to go', async () => !(await page.locator('#jump').isVisible()))
  },

  async 'it keeps at most a thousand lines, and little of a huge one'(browser, base) {
    const page = await open(browser, base + '/many')
    await peer(page, Array.from({ length: MAX_LINES + 200 }, (_, i) => `line ${i}`))
    await sees(page, `line ${MAX_LINES + 199}`)
    const shown = await texts(page)
    assert.equal(shown.length, MAX_LINES)
    assert.equal(shown[0], 'line 200')
    await peer(page, ['x'.repeat(200_000)])
    await until('the huge line', async () => /^first 10000 of 200000 characters/.test((await texts(page)).at(-1)))
    assert.ok((await texts(page)).at(-1).length < 11_000)
  },

  async 'the address\'s parameters go to the WebSocket'(browser, base) {
    const page = await open(browser, base + '/chat?last=20&name=Ann', { wait: false })
    const url = page.sockets[0] ?? (await page.waitForEvent('websocket', { timeout: DEADLINE })).url()
    assert.equal(url, base.replace('http', 'ws') + '/chat?last=20&name=Ann')
    assert.match(await page.locator('#websocat').textContent(), /^websocat 'ws:.*\/chat\?last=20&name=Ann'$/)
    assert.doesNotMatch(await page.locator('#curl').textContent(), /last=/)
    assert.match(await page.locator('#follow').textContent(), / '?http:.*\/chat\?last=20'?$/)
  },

  async 'the commands can be copied'(browser, base) {
    const page = await open(browser, base + '/chat', { permissions: ['clipboard-read', 'clipboard-write'] })
    await showCommands(page)
    const host = new URL(base).host
    for (const [name, command] of [
      ['Copy the websocat command', `websocat ws://${host}/chat`],
      ['Copy the curl command', `curl -d 'hello' http://${host}/chat`],
      ['Copy the follow command', `curl -N -H 'Accept: text/event-stream' http://${host}/chat`],
    ]) {
      await page.getByRole('button', { name }).click()
      await until(name, async () => (await page.evaluate(() => navigator.clipboard.readText())) === command)
    }
    // Without the clipboard interface, as on plain http elsewhere.
    await page.evaluate(() => Object.defineProperty(navigator, 'clipboard', { value: undefined }))
    const button = page.getByRole('button', { name: 'Copy the JavaScript snippet' })
    await button.click()
    await until('an answer', async () => /Copied|Ctrl/.test(await button.textContent()))
    assert.match(await page.evaluate(() => String(getSelection())), /new WebSocket\("ws:/)
  },

  async 'the curl command is safe in a shell, whatever the channel'(browser, base) {
    const odd = '/' + encodeURIComponent("it's [a] {b} & $(echo pwned) `id` ; \"50%\" ! * привет")
    const page = await open(browser, base + odd + "?name=O'Neil&last=1")
    const command = await page.locator('#curl').textContent()
    await promisify(execFile)('sh', ['-c', command.replace(/^curl/, 'curl -sS --noproxy "*" --max-time 10')], { cwd: '/' })
    await sees(page, 'hello')
    assert.equal(await page.locator('h1').textContent(), decodeURIComponent(odd))
  },

  async 'the follow command follows, whatever the channel'(browser, base) {
    const page = await open(browser, base + '/' + encodeURIComponent("it's {a} $(b) привет") + '?last=5&name=Ann')
    await say(page, 'kept')
    await sees(page, 'kept')
    const command = (await page.locator('#follow').textContent()).replace(/^curl/, 'exec curl -sS --noproxy "*" --max-time 30')
    const curl = spawn('sh', ['-c', command], { stdio: ['ignore', 'pipe', 'inherit'], cwd: '/' })
    const ended = new Promise(resolve => curl.once('close', resolve))
    try {
      let heard = ''
      curl.stdout.setEncoding('utf8').on('data', chunk => { heard += chunk })
      await until('what is kept', () => /^data: kept\n\n/m.test(heard))
      await say(page, 'live')
      await until('what comes', () => /^data: live\n\n/m.test(heard))
    } finally {
      curl.kill()
      await ended
    }
  },

  async 'the JavaScript snippet joins and sends'(browser, base) {
    const page = await open(browser, base + '/snippet')
    await page.evaluate(code => { new Function('console', code)({ log() {} }) }, await page.locator('#javascript').textContent())
    await sees(page, 'hello')
  },

  async 'every control is named and can be reached by keyboard'(browser, base) {
    const page = await open(browser, base + '/chat', { width: 1280, height: 800 })
    const names = await page.locator('button:visible, textarea:visible').evaluateAll(all =>
      all.map(it => it.getAttribute('aria-label') || it.labels?.[0]?.textContent || it.textContent))
    assert.ok(names.length >= 5 && names.every(Boolean), names.join(', '))
    assert.equal(await page.locator('[role=status]').first().textContent(), 'Connected')
    assert.equal(await page.locator('[role=log]').getAttribute('aria-label'), 'Messages')
    const reached = new Set()
    for (let i = 0; i < 12; i++) {
      await page.keyboard.press('Tab')
      const [id, ring] = await page.evaluate(() => {
        const it = document.activeElement
        return [it.id || it.tagName, it.id === 'text' || getComputedStyle(it).outlineStyle !== 'none']
      })
      if (id !== 'BODY') assert.ok(ring, `${id} shows its focus`)
      reached.add(id)
    }
    for (const id of ['log', 'text', 'SUMMARY', 'BUTTON']) assert.ok(reached.has(id), `${id} reached`)
  },

  async 'nothing is wider than a phone'(browser, base) {
    for (const width of [320, 375]) {
      const page = await open(browser, base + '/' + 'a-long-channel-name/'.repeat(5) + 'x', { width, height: 568 })
      await showCommands(page)
      await say(page, 'unbroken'.repeat(80))
      await sees(page, 'unbroken'.repeat(80))
      const wide = await page.evaluate(() => [...document.querySelectorAll('body, body *')]
        .filter(it => it.getBoundingClientRect().right > innerWidth + 0.5).map(it => it.id || it.tagName))
      assert.deepEqual(wide, [], `at ${width} px`)
      assert.ok(await page.getByRole('button', { name: 'Send' }).isVisible())
      assert.ok((await page.locator('#log').boundingBox()).height > 60, 'messages stay visible beside the open commands')
    }
  },

  async 'waiting ends at once when the network or the reader comes back'(browser, base) {
    for (const event of ['online', 'visibilitychange']) {
      const page = await open(browser, base + '/wake', {
        wait: false,
        // No broker, and the longest delays that the backoff allows.
        before: async page => {
          await page.addInitScript(() => { Math.random = () => 0.999 })
          await page.routeWebSocket(/./, socket => { page.tries = (page.tries ?? 0) + 1; socket.close() })
        },
      })
      await until('a long delay', async () => /in [4-9] s/.test(await page.locator('#why').textContent()))
      const tries = page.tries
      const began = performance.now()
      await page.evaluate(event => (event === 'online' ? window : document).dispatchEvent(new Event(event)), event)
      await until('another try', () => page.tries > tries)
      assert.ok(performance.now() - began < 2500, `${event} did not wait`)
    }
  },

  async 'a connection that breaks at once is not tried in a hot loop'(browser, base) {
    const page = await open(browser, base + '/hot', {
      wait: false,
      before: async page => {
        await page.addInitScript(() => { Math.random = () => 0.999 })
        // Accepted, then closed: as a broker does whose policy refuses.
        await page.routeWebSocket(/./, socket => {
          page.tries = (page.tries ?? 0) + 1
          setImmediate(() => socket.close({ code: 1008, reason: 'not_allowed' }))
        })
      },
    })
    await until('growing delays', async () => /\(1008 not_allowed\).*in [4-9] s/.test(await page.locator('#why').textContent()))
    assert.ok(page.tries <= 5, `${page.tries} tries`)
  },

  async 'what was not confirmed returns to the box'(browser, base) {
    const page = await open(browser, base + '/unconfirmed', {
      before: page => page.routeWebSocket(/./, socket => socket.onMessage(() => socket.close({ code: 1009, reason: 'message_too_big' }))),
    })
    await say(page, 'precious')
    await until('the text', async () => (await page.locator('#text').inputValue()) === 'precious')
    assert.match(await page.locator('#notice').textContent(), /Send this again/)
    assert.match((await texts(page, '.note')).join(), /1009 message_too_big/)
  },

  async 'a broker that goes is noticed, one that comes back is found'(browser) {
    if (!BIN) return 'no SLOTCAST_BIN'
    let broker = await startBroker()
    try {
      const options = { forgive: /WebSocket connection to .* failed/ }
      const [ann, bob] = [await open(browser, broker.url + '/chat', options), await open(browser, broker.url + '/chat', options)]
      await say(ann, 'before')
      await sees(bob, 'before')
      await broker.stop()
      for (const page of [ann, bob]) await status(page, 'Disconnected')
      await until('the banner', () => ann.locator('#banner').isVisible())
      assert.match(await ann.locator('#why').textContent(), /Connection lost/)
      await say(ann, 'typed while away')
      assert.match(await ann.locator('#notice').textContent(), /Waiting.*: 1$/)
      await shoot(ann, 'page-disconnected')
      broker = await startBroker(broker.port)
      for (const page of [ann, bob]) await status(page, 'Connected', RECONNECT_DEADLINE)
      await sees(ann, 'typed while away')
      assert.equal(await ann.locator('#notice').textContent(), '')
      assert.ok(!(await ann.locator('#banner').isVisible()))
      await say(bob, 'after')
      await sees(ann, 'after')
      await say(ann, 'after too')
      await sees(bob, 'after too')
      assert.equal((await texts(ann)).filter(text => text === 'typed while away').length, 1)
    } finally {
      await broker.stop()
    }
  },

  async 'screenshots'(browser, base) {
    for (const scheme of ['light', 'dark'])
      for (const [width, height] of [[320, 568], [375, 812], [1280, 800]]) {
        const name = `page-${width}-${scheme}`
        const page = await open(browser, `${base}/deploys/${scheme}-${width}`, { width, height, scheme })
        await shoot(page, name + '-empty')
        if (width < 960) {
          await showCommands(page)
          await shoot(page, name + '-commands')
          await page.locator('summary').click()
        }
        await peer(page, [
          'build 4812 started',
          'tests: 318 passed, 0 failed',
          '{"event":"deploy","service":"checkout","version":"2.14.0","region":"eu-central"}',
          'Ann: looks good to me, shipping it after lunch. If anything is odd, say so here and I will roll it back.',
          [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d],
          'deploy done ✓',
          'Zoë: danke! · спасибо · ευχαριστώ',
        ])
        await sees(page, 'deploy done ✓')
        await page.locator('#text').fill('on my way')
        await shoot(page, name)
      }
  },
}

// ---------------------------------------------------------------- the page, as its reader sees it

/** Opens a tab of its own profile; whatever the browser complains about fails the test that opened it. */
async function open(browser, url, { width = 375, height = 700, scheme, permissions, forgive, before, wait = true } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, permissions })
  browser.opened.push(context)
  const page = await context.newPage()
  page.sockets = []
  page.on('websocket', socket => page.sockets.push(socket.url()))
  page.on('pageerror', error => browser.complaints.push(`${url}: ${error}`))
  page.on('console', message => {
    if (message.type() !== 'error' && !/Content Security Policy/.test(message.text())) return
    if (!forgive?.test(message.text())) browser.complaints.push(`${url}: ${message.text()}`)
  })
  page.on('request', request => {
    if (!request.url().startsWith(new URL(url).origin) && !request.url().startsWith('data:'))
      browser.complaints.push(`${url}: asked for ${request.url()}`)
  })
  await context.exposeFunction('violated', what => browser.complaints.push(`${url}: CSP ${what}`))
  await page.addInitScript(() => document.addEventListener('securitypolicyviolation', event =>
    window.violated(`${event.violatedDirective} ${event.blockedURI}`)))
  await before?.(page)
  page.answer = await page.goto(url, { timeout: DEADLINE })
  assert.equal(page.answer.status(), 200)
  if (wait) await status(page, 'Connected')
  return page
}

async function say(page, text) {
  await page.locator('#text').fill(text)
  await page.locator('#text').press('Enter')
}

/** Sends through another connection to the page's channel: strings as text, arrays of bytes as binary. */
async function peer(page, messages) {
  await page.evaluate(messages => new Promise((done, fail) => {
    const socket = new WebSocket(location.href.replace('http', 'ws'))
    let left = messages.length
    socket.onerror = () => fail(new Error('no connection'))
    socket.onmessage = () => { if (!--left) { socket.close(); done() } }
    socket.onopen = () => { for (const it of messages) socket.send(typeof it === 'string' ? it : new Uint8Array(it)) }
  }), messages)
}

const texts = (page, kind = '.text') => page.locator(`#log ${kind} p`).allTextContents()

const sees = (page, text) => until(JSON.stringify(text.slice(0, 60)), async () => (await texts(page)).includes(text))

const status = (page, label, deadline) =>
  until(`status ${label}`, async () => (await page.locator('#status').textContent()) === label, deadline)

async function showCommands(page) {
  if (!(await page.locator('#join').evaluate(it => it.open))) await page.locator('summary').click()
}

async function shoot(page, name) {
  mkdirSync(SCREENSHOTS, { recursive: true })
  await page.screenshot({ path: `${SCREENSHOTS}${name}.png` })
}

// ---------------------------------------------------------------- running

async function main() {
  if (!BIN && !process.env.SLOTCAST_URL) throw new Error('set SLOTCAST_BIN or SLOTCAST_URL')
  const broker = process.env.SLOTCAST_URL ? undefined : await startBroker()
  const base = broker?.url ?? process.env.SLOTCAST_URL.replace(/\/+$/, '')
  let browser
  try {
    browser = await launch()
    await runAll(tests, browser, base)
  } finally {
    await browser?.close()
    await broker?.stop()
  }
}

await finish(main)
