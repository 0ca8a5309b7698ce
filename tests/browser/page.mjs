// Drives the built-in page in a real Chromium, against a real broker.
//
//   SLOTCAST_BIN=target/debug/slotcast node page.mjs          starts the broker itself
//   SLOTCAST_URL=http://127.0.0.1:8080 node page.mjs          uses one that runs; the restart tests are skipped
//
// Both may be given: then the binary serves the restart tests only. CHROMIUM names the browser, ONLY=words picks tests.
// Screenshots go to .screenshots/ at the top of the repository. The last line is `N passed, N failed`.

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { mkdirSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { BIN, DEADLINE, GONE, elsewhere, finish, launch, runAll, startBroker, startWire, until } from './harness.mjs'
import { mint, signUrl, withTokens } from './tokens.mjs'

const RECONNECT_DEADLINE = 30_000
const MAX_LINES = 1000
const SCREENSHOTS = fileURLToPath(new URL('../../.screenshots/', import.meta.url))

// ---------------------------------------------------------------- tests

const tests = {
  async 'the page comes with its content security policy'(browser, base) {
    const page = await open(browser, base + '/chat')
    const policy = page.answer.headers()['content-security-policy'] ?? ''
    assert.match(policy, /default-src 'none'/)
    assert.match(policy, /script-src 'self' 'sha256-[^']+';/)
    assert.match(policy, /style-src 'sha256-/)
    assert.doesNotMatch(policy, /unsafe/)
    assert.match(await page.title(), /\/chat/)
    assert.equal(await page.locator('h1').textContent(), '/chat')
  },

  async 'two tabs talk both ways and another channel hears nothing'(browser, base) {
    const [ann, bob, other] = [await open(browser, base + '/talk'), await open(browser, base + '/talk'), await open(browser, base + '/other')]
    await call(ann, 'Ann')
    await call(bob, 'Bob')
    await say(ann, 'hello from ann')
    await sees(bob, 'hello from ann')
    await sees(ann, 'hello from ann')
    await say(bob, 'hello from bob')
    for (const page of [ann, bob]) await sees(page, 'hello from bob')
    // If /other has this message, it would also have the ones before by now.
    await say(other, 'only here')
    await sees(other, 'only here')
    assert.deepEqual(await texts(other), ['only here'])
    assert.deepEqual(await texts(ann), ['hello from ann', 'hello from bob'])
    assert.deepEqual(await said(ann), [['You', 'hello from ann'], ['Bob', 'hello from bob']])
    assert.deepEqual(await said(bob), [['Ann', 'hello from ann'], ['You', 'hello from bob']])
  },

  async 'who said what, by whatever door'(browser, base) {
    const page = await open(browser, base + '/doors')
    await post(base, 'by curl', '/doors')
    await post(base, 'by a script', '/doors?name=CI')
    // A name is shown once for several messages in a row.
    await post(base, 'and more', '/doors?name=CI')
    await sees(page, 'and more')
    assert.equal(await page.locator('#log b').count(), 2)
    await peer(page, ['by websocat'])
    await peer(page, ['by a named one'], '?name=Zo%C3%AB')
    await sees(page, 'by a named one')
    const people = await said(page)
    assert.match(people[3][0], /^guest [0-9a-z]{1,4}$/)
    people[3][0] = 'guest'
    assert.deepEqual(people, [['HTTP', 'by curl'], ['CI', 'by a script'], ['CI', 'and more'], ['guest', 'by websocat'], ['Zoë', 'by a named one']])
    const times = await page.locator('#log .text time').allTextContents()
    assert.ok(times.length === 5 && times.every(time => /^\d\d:\d\d:\d\d$/.test(time)), times.join())
  },

  async 'a reload brings what was said, with its time, and the name'(browser, base) {
    const page = await open(browser, base + '/history')
    await call(page, 'Ann')
    for (const text of ['one', 'two', 'three']) await say(page, text)
    await sees(page, 'three')
    await peer(page, [[1, 2, 3]])
    await until('the binary line', async () => (await page.locator('#log .binary').count()) === 1)
    const times = await page.locator('#log .text time').allTextContents()
    await new Promise(resolve => setTimeout(resolve, 1100))
    await page.reload()
    await status(page, 'Connected')
    await sees(page, 'three')
    await until('the binary line', async () => (await page.locator('#log .binary').count()) === 1)
    assert.deepEqual(await texts(page), ['one', 'two', 'three'])
    assert.deepEqual(await page.locator('#log .text time').allTextContents(), times)
    assert.equal(await page.getByLabel('Your name').inputValue(), 'Ann')
    assert.deepEqual(await said(page), [['Ann', 'one'], ['Ann', 'two'], ['Ann', 'three']])
    await say(page, 'four')
    await sees(page, 'four')
    // After a new name, the page goes on from where it was.
    await call(page, 'Anna')
    await say(page, 'five')
    await sees(page, 'five')
    assert.deepEqual(await texts(page), ['one', 'two', 'three', 'four', 'five'])
    // Fewer, if the address says so.
    const late = await open(browser, base + '/history?last=3')
    await sees(late, 'five')
    assert.deepEqual(await texts(late), ['four', 'five'])
    assert.equal(await late.locator('#log .binary').count(), 1)
  },

  async 'who is there, who comes and who goes'(browser, base) {
    const ann = await open(browser, base + '/people?name=Ann')
    await here(ann, ['Ann (you)'])
    const bob = await open(browser, base + '/people')
    await until('a guest', async () => /^guest \w{1,4}$/.test((await people(ann))[1]))
    assert.equal(await ann.locator('#count').textContent(), '2 here')
    await call(bob, 'Bob')
    await here(bob, ['Bob (you)', 'Ann'])
    await here(ann, ['Ann (you)', 'Bob'])
    await notes(ann, ['Bob joined'])
    await visit('Eve', ann, bob)
    await notes(ann, ['Bob joined', 'Eve joined', 'Eve left'])
    await call(bob, 'Rob')
    await notes(ann, ['Bob joined', 'Eve joined', 'Eve left', 'Rob joined', 'Bob left'])
    await here(ann, ['Ann (you)', 'Rob'])
    // A member that comes later is told who is there, not who came, and is told nothing about itself.
    await notes(bob, ['Eve joined', 'Eve left'])
    await bob.context().close()
    await notes(ann, ['Bob joined', 'Eve joined', 'Eve left', 'Rob joined', 'Bob left', 'Rob left'])
    await here(ann, ['Ann (you)'])
  },

  async 'a reload and a second tab are no news'(browser, base) {
    const ann = await open(browser, base + '/quick?name=Ann')
    await here(ann, ['Ann (you)'])
    const bob = await open(browser, base + '/quick?name=Bob')
    await notes(ann, ['Bob joined'])
    for (let i = 0; i < 3; i++) {
      await bob.reload()
      await status(bob, 'Connected')
    }
    const second = await open(browser, base + '/quick?name=Bob')
    await here(ann, ['Ann (you)', 'Bob', 'Bob'])
    await second.context().close()
    await here(ann, ['Ann (you)', 'Bob'])
    // Somebody else's leaving is told later than Bob's would have been, so Bob's is not told.
    await visit('Eve', ann)
    await notes(ann, ['Bob joined', 'Eve joined', 'Eve left'])
  },

  async 'with --leave-grace who comes back is still the one that one writes to'(browser) {
    await withBroker(['--leave-grace', '20s'], async broker => {
      const ann = await open(browser, broker.url + '/grace?name=Ann')
      await here(ann, ['Ann (you)'])
      const bob = await open(browser, broker.url + '/grace?name=Bob')
      await here(ann, ['Ann (you)', 'Bob'])
      await showPeople(ann)
      await ann.locator('#members button', { hasText: 'Bob' }).click()
      await bob.reload()
      await status(bob, 'Connected')
      // Until the page is told that Bob has another id now, the message comes back to the box.
      await until('that Bob hears it', async () => {
        if ((await texts(bob)).length) return true
        const before = (await texts(ann)).length
        await say(ann, 'still you?')
        // A message that comes back later would get between the next words that are typed.
        await until('an answer', async () => (await texts(ann)).length > before || await ann.locator('#text').inputValue())
      })
      assert.equal((await texts(bob))[0], 'to you alonestill you?')
      await here(ann, ['Ann (you)', 'Bob'])
      assert.deepEqual(await texts(ann, '.note'), ['Bob joined'])
    })
  },

  async 'above --max-presence there is only a number'(browser) {
    await withBroker(['--max-presence', '3'], async broker => {
      const ann = await open(browser, broker.url + '/crowd?name=Ann')
      await here(ann, ['Ann (you)'])
      const crowd = []
      for (const name of ['Bob', 'Cid', 'Dan', 'Eve']) crowd.push(await open(browser, `${broker.url}/crowd?name=${name}`))
      const count = async number => until(`${number} here`, async () => (await ann.locator('#count').textContent()) === `${number} here`)
      await count(5)
      await until('no names', async () => (await ann.locator('#members').textContent()) === 'Too many to list.')
      const late = await open(browser, broker.url + '/crowd?name=Fay')
      await until('6 here', async () => (await late.locator('#count').textContent()) === '6 here')
      await count(6)
      for (const page of [...crowd.splice(1), late]) await page.context().close()
      await count(2)
      await here(ann, ['Ann (you)', 'Bob'])
    })
  },

  async 'a message for one alone'(browser, base) {
    const [ann, bob, eve] = [await open(browser, base + '/alone?name=Ann'), await open(browser, base + '/alone?name=Bob'), await open(browser, base + '/alone?name=Eve')]
    await here(ann, ['Ann (you)', 'Bob', 'Eve'])
    await showPeople(ann)
    await ann.locator('#members button', { hasText: 'Bob' }).click()
    assert.match(await ann.locator('#to').textContent(), /^To Bob alone/)
    await say(ann, 'psst')
    await sees(bob, 'to you alonepsst')
    await sees(ann, 'to Bob alonepsst')
    assert.deepEqual(await said(bob), [['Ann', 'to you alonepsst']])
    await ann.getByRole('button', { name: 'To everybody' }).click()
    assert.ok(!(await ann.locator('#to').isVisible()))
    await say(ann, 'for all')
    for (const page of [ann, eve]) await sees(page, 'for all')
    assert.deepEqual(await texts(eve), ['for all'])
    // To a member that has gone: back to the box, with the reason.
    await ann.locator('#members button', { hasText: 'Bob' }).click()
    await bob.context().close()
    await here(ann, ['Ann (you)', 'Eve'])
    await say(ann, 'too late')
    await until('the text', async () => (await ann.locator('#text').inputValue()) === 'too late')
    assert.match(await ann.locator('#notice').textContent(), /\w/)
    assert.deepEqual(await texts(ann), ['to Bob alonepsst', 'for all'])
  },

  async 'names are cut and cleaned, and kept for the next channel'(browser, base) {
    const page = await open(browser, base + '/names')
    for (const [typed, called] of [
      ['  Ann\u202e\u0007 Lee ', 'Ann Lee'], ['é'.repeat(40), 'é'.repeat(32)], ['🦀'.repeat(17), '🦀'.repeat(16)], ['', ''], ['Zoë & Co. 🦀', 'Zoë & Co. 🦀'],
    ]) {
      await call(page, typed, called)
      assert.equal(await page.getByLabel('Your name').inputValue(), called)
    }
    await page.goto(base + '/names-too')
    await status(page, 'Connected')
    await here(page, ['Zoë & Co. 🦀 (you)'])
    // The name in the address goes first; whatever it says is changed into one that the broker takes.
    await page.goto(base + '/names-too?name=' + encodeURIComponent('\u2066Eve\n' + 'x'.repeat(80)))
    await status(page, 'Connected')
    await here(page, ['Eve' + 'x'.repeat(61) + ' (you)'])
  },

  async 'markup stays text, in messages and in names'(browser, base) {
    const hostile = ['<script>alert(1)</script>', '<img src=x onerror=alert(1)>', '</div><b>bold</b>&amp;']
    const page = await open(browser, base + '/markup')
    let dialogs = 0
    page.on('dialog', dialog => { dialogs++; dialog.dismiss() })
    for (const text of hostile) {
      const name = text + '!'
      await call(page, name)
      await say(page, text)
      await sees(page, text)
      await peer(page, [text + '?'], '?name=' + encodeURIComponent(name))
    }
    await sees(page, hostile.at(-1) + '?')
    await page.reload()
    await status(page, 'Connected')
    await sees(page, hostile.at(-1) + '?')
    assert.deepEqual(await said(page), hostile.flatMap(text => [[text + '!', text], [text + '!', text + '?']]))
    await here(page, [hostile.at(-1) + '! (you)'])
    assert.equal(await page.locator('#log script, #log img, #log p b, #members script, #members img, #members b').count(), 0)
    assert.equal(dialogs, 0)
    // The same in a channel's name.
    const odd = await open(browser, base + '/' + encodeURIComponent('<img src=x onerror=alert(1)>'))
    assert.equal(await odd.locator('h1').textContent(), '/<img src=x onerror=alert(1)>')
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
    assert.ok(long.length < 120, 'long bytes must be shortened')
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
    await page.getByRole('button', { name: 'Send', exact: true }).click()
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
    // The note that the peer has gone is painted too, and a reader at the bottom stays at the bottom.
    await until('oneself alone', async () => (await people(page)).length === 1)
    await log.evaluate(it => new Promise(done => {
      it.addEventListener('scroll', done, { once: true })
      it.scrollTop = 0
    }))
    await peer(page, ['one more'])
    await sees(page, 'one more')
    assert.ok((await gap()) > 500, 'a reader further up must stay there')
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
    assert.match(await command(page, 'websocat'), /^websocat 'ws:.*\/chat\?last=20&name=Ann'$/)
    assert.doesNotMatch(await command(page, 'Send with curl'), /last=/)
    assert.match(await command(page, 'Follow'), / '?http:.*\/chat\?last=20'?$/)
  },

  async 'the commands can be copied'(browser, base) {
    const page = await open(browser, base + '/chat', { permissions: ['clipboard-read', 'clipboard-write'] })
    await showCommands(page)
    const host = new URL(base).host
    for (const [name, command] of [
      ['Copy: Listen and talk with websocat', `websocat ws://${host}/chat`],
      ['Copy: Send with curl', `curl -d 'hello' http://${host}/chat`],
      ['Copy: Follow with curl', `curl -N -H 'Accept: text/event-stream' http://${host}/chat`],
    ]) {
      await page.getByRole('button', { name }).click()
      await until(name, async () => (await page.evaluate(() => navigator.clipboard.readText())) === command)
    }
    // Without the clipboard interface, as on plain http elsewhere.
    await page.evaluate(() => Object.defineProperty(navigator, 'clipboard', { value: undefined }))
    const button = page.getByRole('button', { name: 'Copy: JavaScript' })
    await button.click()
    await until('an answer', async () => /Copied|Ctrl/.test(await button.textContent()))
    assert.match(await page.evaluate(() => String(getSelection())), /join\("ws:/)
  },

  async 'the curl command is safe in a shell, whatever the channel'(browser, base) {
    const odd = '/' + encodeURIComponent("it's [a] {b} & $(echo pwned) `id` ; \"50%\" ! * привет")
    const page = await open(browser, base + odd + "?name=O'Neil&last=1")
    const send = await command(page, 'Send with curl')
    await promisify(execFile)('sh', ['-c', send.replace(/^curl/, 'curl -sS --noproxy "*" --max-time 10')], { cwd: '/' })
    await sees(page, 'hello')
    assert.equal(await page.locator('h1').textContent(), decodeURIComponent(odd))
  },

  async 'the follow command follows, whatever the channel'(browser, base) {
    const page = await open(browser, base + '/' + encodeURIComponent("it's {a} $(b) привет") + '?last=5&name=Ann')
    await say(page, 'kept')
    await sees(page, 'kept')
    const follow = (await command(page, 'Follow with curl')).replace(/^curl/, 'exec curl -sS --noproxy "*" --max-time 30')
    const curl = spawn('sh', ['-c', follow], { stdio: ['ignore', 'pipe', 'inherit'], cwd: '/' })
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

  async 'the JavaScript snippet joins and sends, on any page of this machine'(browser, base) {
    const page = await open(browser, base + '/snippet?name=Snip')
    const snippet = await command(page, 'JavaScript')
    const other = await (await browser.newContext()).newPage()
    browser.opened.push(other.context())
    const heard = []
    other.on('console', message => heard.push(message.text()))
    await elsewhere(`<!doctype html><link rel="icon" href="data:,"><script type="module">${snippet}</script>`, 'localhost', async url => {
      await other.goto(url, { timeout: DEADLINE })
      await sees(page, 'hello')
      await until('its echo', () => heard.includes('hello'))
    })
    assert.deepEqual(heard, ['hello'])
  },

  async 'every control is named and can be reached by keyboard'(browser, base) {
    const page = await open(browser, base + '/chat', { width: 1280, height: 800 })
    const names = await page.locator('button:visible, textarea:visible, input:visible').evaluateAll(all =>
      all.map(it => it.getAttribute('aria-label') || it.labels?.[0]?.textContent || it.textContent))
    assert.ok(names.length >= 7 && names.every(Boolean), names.join(', '))
    assert.equal(await page.locator('[role=status]').first().textContent(), 'Connected')
    assert.equal(await page.locator('[role=log]').getAttribute('aria-label'), 'Messages')
    const reached = new Set()
    for (let i = 0; i < 14; i++) {
      await page.keyboard.press('Tab')
      const [id, ring] = await page.evaluate(() => {
        const it = document.activeElement
        return [it.id || it.tagName, it.id === 'text' || getComputedStyle(it).outlineStyle !== 'none']
      })
      if (id !== 'BODY') assert.ok(ring, `${id} shows its focus`)
      reached.add(id)
    }
    for (const id of ['log', 'text', 'name', 'count', 'SUMMARY', 'BUTTON']) assert.ok(reached.has(id), `${id} reached`)
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
      assert.ok(await page.getByRole('button', { name: 'Send', exact: true }).isVisible())
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
      await page.evaluate(event => (event === 'online' ? window : document).dispatchEvent(new Event(event, { bubbles: true })), event)
      await until('another try', () => page.tries > tries)
      assert.ok(performance.now() - began < 2500, `${event} did not wait`)
    }
  },

  async 'a connection that breaks at once is not tried in a hot loop'(browser, base) {
    const page = await open(browser, base + '/hot', {
      wait: false,
      before: async page => {
        await page.addInitScript(() => { Math.random = () => 0.999 })
        // Accepted, then closed, as by a broker whose policy refuses.
        await page.routeWebSocket(/./, socket => {
          page.tries = (page.tries ?? 0) + 1
          setImmediate(() => socket.close({ code: 1008, reason: 'not_allowed' }))
        })
      },
    })
    await until('growing delays', async () => /\(1008 not_allowed\).*in [4-9] s/.test(await page.locator('#why').textContent()))
    assert.ok(page.tries <= 5, `${page.tries} tries`)
  },

  async 'what was not confirmed returns to the box, even if it did arrive'(browser) {
    await withWire([], async (wire, broker) => {
      const page = await open(browser, wire.url + '/unconfirmed', { forgive: GONE })
      await say(page, 'confirmed')
      await sees(page, 'confirmed')
      // The broker gets it, and its answer gets lost.
      wire.lose(false, true)
      for (const text of ['precious', 'and more']) await say(page, text)
      await until('both at the broker', async () => (await kept(broker.url + '/unconfirmed')).length === 3)
      await page.locator('#text').fill('in the making')
      wire.cut()
      await until('the text', async () => (await page.locator('#text').inputValue()) === 'precious\nand more\nin the making')
      assert.match(await page.locator('#notice').textContent(), /Send this again if it did not arrive/)
      wire.lose(false, false)
      await back(page)
      // It did arrive, as the page now shows; the hint stays until something is sent.
      await sees(page, 'and more')
      assert.deepEqual(await said(page), [['You', 'confirmed'], ['You', 'precious'], ['You', 'and more']])
      assert.match(await page.locator('#notice').textContent(), /Send this again/)
      await say(page, 'done')
      await sees(page, 'done')
      assert.equal(await page.locator('#notice').textContent(), '')
    })
  },

  async 'what the broker does not take returns to the box, with the reason'(browser) {
    await withBroker(['--max-message', '1KiB'], async broker => {
      const page = await open(browser, broker.url + '/big')
      const long = 'x'.repeat(2000)
      await say(page, long)
      await until('the text', async () => (await page.locator('#text').inputValue()) === long)
      await until('the reason', async () => /1009 message_too_big/.test((await texts(page, '.note')).join()))
      assert.match(await page.locator('#notice').textContent(), /too long/)
      await status(page, 'Connected', RECONNECT_DEADLINE)
      await say(page, 'short')
      await sees(page, 'short')
      assert.deepEqual(await texts(page), ['short'])
    })
  },

  async 'a refusal is told, once, and not tried again'(browser) {
    await withBroker(['--publish-token', 'right'], async broker => {
      for (const [query, reason] of [
        ['?token=wrong', /^Refused: unauthorized: Show the broker's publish token/],
        ['?since=bogus', /^Refused: bad_parameter: The query parameter since /],
        ['?lossy=perhaps', /^Refused: bad_parameter: .*lossy/],
      ]) {
        const page = await open(browser, broker.url + '/refused' + query, { wait: false, forgive: /WebSocket connection|Failed to load resource/ })
        await until(query, async () => reason.test(await page.locator('#why').textContent()))
        assert.equal(await page.locator('#status').textContent(), 'Disconnected')
        const before = page.sockets.length
        await page.evaluate(() => dispatchEvent(new Event('online')))
        await new Promise(resolve => setTimeout(resolve, 2500))
        assert.equal(page.sockets.length, before, 'it is not tried again')
        // Unless the user asks for it.
        await page.getByRole('button', { name: 'Try now' }).click()
        await until('another try', () => page.sockets.length > before)
      }
      const page = await open(browser, broker.url + '/refused?token=right')
      await say(page, 'let in')
      await sees(page, 'let in')
      assert.equal(new URL(page.url()).search, '')
    })
  },

  async 'where a token is missing or bad, one can be given, and it stays in memory'(browser) {
    await withTokens(async broker => {
      const good = mint()
      const page = await open(browser, broker.url + '/private', { wait: false, forgive: REFUSED })
      const field = page.getByLabel('Token')
      await refusedBy(page, 'token_missing')
      assert.equal(await field.getAttribute('type'), 'password')
      assert.ok(await field.evaluate(it => it === document.activeElement), 'it can be typed at once')
      for (const [token, reason] of [
        ['bogus', 'token_invalid'], [mint(-1), 'token_expired'], ['what no subprotocol may be: "ä"', 'token_invalid'],
        [mint(3600, { slotcast: { subscribe: ['/other'] } }), 'forbidden'],
      ]) {
        await field.fill(token)
        await field.press('Enter')
        assert.equal(await field.inputValue(), '')
        // One that is given before the other is answered counts.
        if (token === 'bogus') continue
        await refusedBy(page, reason)
      }
      await field.fill(` ${good}\n`)
      await page.getByRole('button', { name: 'Try now' }).click()
      await status(page, 'Connected')
      assert.ok(!(await field.isVisible()))
      await say(page, 'let in')
      await sees(page, 'let in')
      await call(page, 'Ann')
      await say(page, 'still in')
      await sees(page, 'still in')
      assert.ok(page.sockets.every(url => !holds(url, good)))
      assert.ok(!holds(await everythingOf(page), good))
      await page.reload()
      await refusedBy(page, 'token_missing')
    })
  },

  async 'the token of the address is used, and nothing that can be seen or copied has it'(browser) {
    await withTokens(async broker => {
      const good = mint()
      for (const [query, left] of [
        [`?token=${good}`, ''], [`?name=Ann&token=${good}&last=7`, '?name=Ann&last=7'], [`?last=7&%74oken=${good}#here`, '?last=7#here'],
        [`?token=${good}&token=${good}&user=ann&user=bob&sig&can=a&exp&iat=1&key&x=a+b%20c`, '?x=a+b%20c'],
      ]) {
        const page = await open(browser, broker.url + '/private' + query, { forgive: REFUSED })
        assert.equal(page.url(), broker.url + '/private' + left)
        assert.equal(await page.evaluate(() => history.length), 2, 'in place of what was there')
        assert.deepEqual(page.sockets.filter(url => /token|sig/.test(url)), [])
        await say(page, 'hello')
        await sees(page, 'hello')
        assert.ok(!holds(await everythingOf(page), good))
        for (const part of ['sig', 'can=', 'exp', 'iat', 'key=', 'user=']) {
          const commands = await page.locator('#join pre').allTextContents()
          assert.deepEqual(commands.filter(it => it.includes(part)), [], part)
        }
      }
    })
  },

  async 'a signed address lets in, and nothing that can be copied has the signature'(browser) {
    await withTokens(async broker => {
      const signed = signUrl('/signed/é')
      const page = await open(browser, `${broker.url}/signed/%C3%A9?last=3&${signed}&name=Ann`, { forgive: REFUSED })
      assert.equal(page.url(), `${broker.url}/signed/%C3%A9?last=3&name=Ann`)
      await say(page, 'let in')
      await sees(page, 'let in')
      assert.ok(!holds(await everythingOf(page), signed.get('sig')))
      await page.reload()
      await refusedBy(page, 'token_missing')
      // One that is not good any more says so.
      const late = await open(browser, `${broker.url}/signed/%C3%A9?${signUrl('/signed/é', -1)}`, { wait: false, forgive: REFUSED })
      await refusedBy(late, 'token_expired')
    }, { signs: true })
  },

  async 'when its token expires it says so, and goes on with another where it was'(browser) {
    await withTokens(async broker => {
      const page = await open(browser, `${broker.url}/expires?token=${mint(3)}`, { forgive: REFUSED })
      const backend = { authorization: 'Bearer ' + mint() }
      const publish = async body => assert.equal((await fetch(broker.url + '/expires', { method: 'POST', body, headers: backend })).status, 200)
      await publish('before')
      await sees(page, 'before')
      await refusedBy(page, 'token_expired')
      assert.match((await texts(page, '.bad')).at(-1), /token_expired/)
      await publish('meanwhile')
      await page.getByLabel('Token').fill(mint())
      await page.getByLabel('Token').press('Enter')
      await status(page, 'Connected')
      await publish('after')
      await sees(page, 'after')
      assert.deepEqual(await texts(page), ['before', 'meanwhile', 'after'])
    })
  },

  async 'the field for the token has its place on a phone, in both schemes and in forced colours'(browser) {
    await withTokens(async broker => {
      for (const [width, scheme, forcedColors] of [[320, 'light'], [390, 'dark'], [390, 'light', 'active'], [1280, 'light'], [1280, 'dark', 'active']]) {
        const page = await open(browser, broker.url + '/private/' + 'x'.repeat(40), { width, height: 700, scheme, wait: false, forgive: REFUSED,
          before: page => page.emulateMedia({ forcedColors: forcedColors ?? 'none' }) })
        await refusedBy(page, 'token_missing')
        const field = page.getByLabel('Token')
        const box = await field.boundingBox(), button = await page.getByRole('button', { name: 'Try now' }).boundingBox()
        for (const it of [box, button]) assert.ok(it.x >= 0 && it.x + it.width <= width && it.height >= 40, JSON.stringify({ width, it }))
        assert.ok(box.width >= 120, `${width}: ${box.width}`)
        assert.ok(box.x + box.width <= button.x && box.y === button.y, 'side by side')
        const look = await field.evaluate(it => {
          const { borderTopWidth, borderTopStyle, borderTopColor, backgroundColor, color } = getComputedStyle(it)
          return { borderTopWidth, borderTopStyle, borderTopColor, backgroundColor, color }
        })
        assert.equal(look.borderTopWidth, '1px')
        assert.notEqual(look.color, look.backgroundColor)
        if (forcedColors) {
          assert.notEqual(look.borderTopColor, look.backgroundColor)
          assert.equal(await page.locator('#now').evaluate(it => getComputedStyle(it).borderTopWidth), '1px')
        }
        assert.ok(await field.evaluate(it => getComputedStyle(it).outlineStyle !== 'none'), 'its focus is shown')
        await shoot(page, `page-token-${width}-${scheme}${forcedColors ? '-forced' : ''}`)
      }
    })
  },

  async 'Enter of an input method, spaces alone, and Escape'(browser, base) {
    const [ann, bob] = [await open(browser, base + '/keys?name=Ann'), await open(browser, base + '/keys?name=Bob')]
    await here(ann, ['Ann (you)', 'Bob'])
    // Safari reports the Enter that ends a composition after its end, with the code of one that is under way.
    await ann.locator('#text').fill('かん')
    for (const composing of [{ keyCode: 229 }, { isComposing: true }])
      await ann.locator('#text').evaluate((it, more) => it.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true, ...more })), composing)
    await say(ann, '漢字')
    await say(ann, ' \n ')
    await showPeople(ann)
    await ann.locator('#members button', { hasText: 'Bob' }).click()
    assert.ok(await ann.locator('#to').isVisible())
    await ann.keyboard.press('Escape')
    assert.ok(!(await ann.locator('#to').isVisible()))
    await say(ann, 'for all')
    await sees(bob, 'for all')
    assert.deepEqual(await texts(bob), ['漢字', 'for all'])
  },

  async 'addresses are links, long messages fold, and all can be copied or saved'(browser, base) {
    const page = await open(browser, base + '/links?name=Ann', { permissions: ['clipboard-read', 'clipboard-write'] })
    await say(page, 'see https://a.example/x?y=1#z, (http://b.example/). javascript:alert(1)')
    await sees(page, 'see https://a.example/x?y=1#z, (http://b.example/). javascript:alert(1)')
    const links = await page.locator('#log p a').evaluateAll(all => all.map(it => [it.getAttribute('href'), it.rel, it.target]))
    assert.deepEqual(links, [['https://a.example/x?y=1#z', 'noreferrer', '_blank'], ['http://b.example/', 'noreferrer', '_blank']])
    const long = Array.from({ length: 60 }, (_, i) => `line ${i}`).join('\n')
    await say(page, long)
    await sees(page, long)
    const p = page.locator('#log p').last()
    const height = async () => (await p.boundingBox()).height
    assert.ok((await height()) < 300, `folded: ${await height()}`)
    await page.getByRole('button', { name: 'Show all' }).click()
    assert.ok((await height()) > 600, `open: ${await height()}`)
    await page.locator('#log div').last().hover()
    await page.locator('#log .copy').last().click()
    await until('the copy', async () => (await page.evaluate(() => navigator.clipboard.readText())) === long)
    await page.getByRole('button', { name: 'Show less' }).click()
    assert.ok((await height()) < 300)
    await peer(page, [[0xde, 0xad, 0xbe, 0xef], 'x'.repeat(20_000)])
    await until('two to save', async () => (await page.locator('#log button', { hasText: 'Save' }).count()) === 2)
    for (const [index, size] of [[0, 4], [1, 20_000]]) {
      const [download] = await Promise.all([page.waitForEvent('download', { timeout: DEADLINE }), page.locator('#log button', { hasText: 'Save' }).nth(index).click()])
      assert.match(download.suggestedFilename(), /^-links-/)
      assert.equal(statSync(await download.path()).size, size)
    }
  },

  async 'the title counts what is unread'(browser, base) {
    const page = await open(browser, base + '/unread')
    const hide = hidden => page.evaluate(hidden => {
      Object.defineProperty(document, 'hidden', { value: hidden, configurable: true })
      document.dispatchEvent(new Event('visibilitychange'))
    }, hidden)
    await hide(true)
    await peer(page, ['one', 'two'])
    await until('two', async () => (await page.title()) === '(2) /unread · slotcast')
    await hide(false)
    assert.equal(await page.title(), '/unread · slotcast')
    await peer(page, ['three'])
    await sees(page, 'three')
    assert.equal(await page.title(), '/unread · slotcast')
  },

  async 'a long name stays in its place'(browser, base) {
    for (const width of [390, 1280]) {
      const page = await open(browser, `${base}/long-${width}?name=${'W'.repeat(64)}`, { width, height: 800 })
      await here(page, ['W'.repeat(64) + ' (you)'])
      await showPeople(page)
      const [panel, name] = [await page.locator('#people').boundingBox(), await page.locator('#members button').boundingBox()]
      assert.ok(name.x + name.width <= panel.x + panel.width, JSON.stringify({ panel, name }))
      await page.getByLabel('Your name').fill('')
      assert.ok(await page.locator('#name').evaluate(it => {
        const pen = document.createElement('canvas').getContext('2d'), style = getComputedStyle(it)
        pen.font = style.font
        return pen.measureText(it.placeholder).width <= it.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)
      }), 'the placeholder is whole')
    }
  },

  async 'a connection that is cut in mid-stream leaves neither a gap nor a double'(browser) {
    await withWire(['--history-messages', '2000', '--history-bytes', '4MiB'], async (wire, broker) => {
      const page = await open(browser, wire.url + '/stream?name=Ann', { forgive: GONE })
      const sent = []
      let cuts = 0
      const isBack = async () => (await texts(page, '.note')).filter(it => it === 'Connected again.').length >= cuts
      for (let i = 0; i < 560; i++) {
        sent.push(`${i} ${'x'.repeat(i % 7 * 100)}`)
        await post(broker.url, sent.at(-1), '/stream')
        // Now, or within what comes next: a frame's head, its payload, something far after it.
        if (i % 80 === 40) i % 160 === 40 ? wire.cut() : wire.cutAfter(i * 13 % 3000)
        if (i % 80 === 40) cuts++
        if (i % 80 === 60) await back(page, isBack)
      }
      await until('the last', async () => {
        await page.evaluate(() => dispatchEvent(new Event('online')))
        return (await texts(page)).includes(sent.at(-1))
      }, RECONNECT_DEADLINE)
      assert.deepEqual(await texts(page), sent)
      const said = await texts(page, '.note')
      assert.ok(said.filter(it => it === 'Connected again.').length >= 4, said.join())
      assert.ok(said.every(it => /^Connected again\.$|^Connection lost/.test(it)), said.join())
      await here(page, ['Ann (you)'])
    })
  },

  async 'what is gone is said in the stream, where it is missing'(browser) {
    await withWire(['--history-messages', '5'], async (wire, broker) => {
      const page = await open(browser, wire.url + '/gone', { forgive: GONE })
      let next = 1
      for (const [missed, expected] of [[8, '3 messages are gone.'], [6, '1 message is gone.']]) {
        await post(broker.url, `${next++}`, '/gone')
        await sees(page, `${next - 1}`)
        wire.lose(true, true)
        wire.cut()
        await status(page, 'Disconnected')
        for (let i = 0; i < missed; i++) await post(broker.url, `${next++}`, '/gone')
        wire.lose(false, false)
        await back(page)
        await sees(page, `${next - 1}`)
        await until(expected, async () => (await texts(page, '.bad')).includes(expected))
      }
      const lines = await page.locator('#log > div').evaluateAll(all => all.map(it => it.querySelector('p').textContent))
      assert.deepEqual(lines.filter(it => !/^Conn/.test(it)),
        ['1', '3 messages are gone.', '5', '6', '7', '8', '9', '10', '1 message is gone.', '12', '13', '14', '15', '16'])
    })
  },

  async 'a broker that goes is noticed, one that comes back is found'(browser) {
    if (!BIN) return 'no SLOTCAST_BIN'
    let broker = await startBroker()
    try {
      const options = { forgive: GONE }
      const [ann, bob] = [await open(browser, broker.url + '/chat', options), await open(browser, broker.url + '/chat', options)]
      await say(ann, 'before')
      for (const page of [ann, bob]) await sees(page, 'before')
      await broker.stop()
      for (const page of [ann, bob]) await status(page, 'Disconnected')
      await until('the banner', () => ann.locator('#banner').isVisible())
      assert.equal(await ann.locator('#count').textContent(), 'Who was here')
      assert.match(await ann.locator('#why').textContent(), /Connection lost/)
      await say(ann, 'typed while away')
      assert.match(await ann.locator('#notice').textContent(), /Waiting.*: 1$/)
      await shoot(ann, 'page-disconnected')
      broker = await startBroker(broker.port)
      // By then the page may have reconnected by itself, and the button may be gone.
      await ann.locator('#now').evaluate(it => it.click())
      for (const page of [ann, bob]) await status(page, 'Connected', RECONNECT_DEADLINE)
      await sees(ann, 'typed while away')
      assert.equal(await ann.locator('#notice').textContent(), '')
      assert.ok(!(await ann.locator('#banner').isVisible()))
      await say(bob, 'after')
      await sees(ann, 'after')
      await say(ann, 'after too')
      for (const page of [ann, bob]) await sees(page, 'after too')
      // The log has another life: how much is missing is unknown, and both pages say so.
      for (const page of [ann, bob]) {
        assert.deepEqual(await texts(page), ['before', 'typed while away', 'after', 'after too'])
        assert.match((await texts(page, '.bad')).at(-1), /Messages may be gone/)
      }
    } finally {
      await broker.stop()
    }
  },

  async 'screenshots'(browser, base) {
    for (const scheme of ['light', 'dark'])
      for (const [width, height] of [[320, 568], [390, 844], [1280, 800]]) {
        const name = `page-${width}-${scheme}`, channel = `/deploys/${scheme}-${width}`
        const page = await open(browser, `${base}${channel}?name=Ann`, { width, height, scheme })
        await shoot(page, name + '-empty')
        if (width < 960) {
          await showCommands(page)
          await shoot(page, name + '-commands')
          await page.locator('#join summary').click()
        }
        const zoe = await open(browser, `${base}${channel}?name=Zoë`)
        const bob = await open(browser, `${base}${channel}?name=Bob`)
        await here(zoe, ['Zoë (you)', 'Ann', 'Bob'])
        await post(base, 'build 4812 started', channel + '?name=ci')
        await post(base, 'tests: 318 passed, 0 failed', channel + '?name=ci')
        await post(base, '{"event":"deploy","service":"checkout","version":"2.14.0","region":"eu-central"}', channel)
        await say(bob, 'looks good to me, shipping it after lunch. If anything is odd, say so here and I will roll it back.')
        await peer(bob, [[0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d]])
        await say(zoe, 'danke! · спасибо · ευχαριστώ')
        await sees(page, 'danke! · спасибо · ευχαριστώ')
        await say(page, 'deploy done ✓')
        await zoe.locator('#members button', { hasText: 'Ann' }).evaluate(it => it.click())
        await say(zoe, 'lunch?')
        await sees(page, 'to you alonelunch?')
        await page.locator('#text').fill('on my way')
        await shoot(page, name)
        if (width < 960) await showPeople(page)
        await page.locator('#members button', { hasText: 'Zoë' }).click()
        await shoot(page, name + '-people')
        for (const other of [zoe, bob]) await other.context().close()
      }
  },
}

// ---------------------------------------------------------------- the page, as its reader sees it

/** Opens a tab with its own profile. Any complaint of the browser fails the test that opened it. */
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

/** Takes this name, and waits until the page shows it. */
async function call(page, name, shown = name) {
  await page.getByLabel('Your name').fill(name)
  await page.getByLabel('Your name').press('Enter')
  await until(`the name ${shown}`, async () => {
    const [me = ''] = await people(page)
    return shown ? me === `${shown} (you)` : /^guest \w+ \(you\)$/.test(me)
  })
}

/** Sends through another connection to the page's channel: strings as text, arrays of bytes as binary. */
async function peer(page, messages, query = '') {
  await page.evaluate(([messages, query]) => new Promise((done, fail) => {
    const socket = new WebSocket((location.origin + location.pathname).replace('http', 'ws') + query)
    let left = messages.length
    socket.onerror = () => fail(new Error('no connection'))
    socket.onmessage = () => { if (!--left) { socket.close(); done() } }
    socket.onopen = () => { for (const it of messages) socket.send(typeof it === 'string' ? it : new Uint8Array(it)) }
  }), [messages, query])
}

/** A visitor with this name comes, is noticed by these pages, and goes. */
async function visit(name, ...pages) {
  await pages[0].evaluate(name => { window.visitor = new WebSocket((location.origin + location.pathname).replace('http', 'ws') + '?name=' + name) }, name)
  for (const page of pages) await until(name, async () => (await people(page)).includes(name))
  await pages[0].evaluate(() => visitor.close())
  for (const page of pages) await until(`${name} to leave`, async () => (await texts(page, '.note')).includes(name + ' left'))
}

async function post(base, text, target) {
  const answer = await fetch(base + target, { method: 'POST', body: text })
  assert.equal(answer.status, 200)
}

/** What browsers log of a WebSocket that is refused. */
const REFUSED = /WebSocket connection|Failed to load resource/

/** Waits until the page says that it was refused with this code, and has a field for another token. */
async function refusedBy(page, code) {
  await until(code, async () => (await page.locator('#why').textContent()).startsWith(`Refused: ${code}`))
  assert.equal(await page.locator('#status').textContent(), 'Disconnected')
  assert.ok(await page.getByLabel('Token').isVisible())
}

/** Whether a text has 8 bytes in a row of a secret. */
const holds = (text, secret) => Array.from({ length: secret.length - 7 }, (_, i) => secret.slice(i, i + 8)).some(part => text.includes(part))

/** All that a page shows, keeps and could hand on. */
const everythingOf = async page => await page.content() + page.url() + JSON.stringify(await page.evaluate(() => [
  { ...localStorage }, { ...sessionStorage }, document.cookie, history.state, document.title,
  [...document.querySelectorAll('input, textarea')].map(it => it.value),
]))

const kept = async url => (await (await fetch(url)).json()).messages

/** Reconnects the cut connection at once. `isBack` is for a page that may not know yet that it is cut. */
async function back(page, isBack = async () => (await page.locator('#status').textContent()) === 'Connected') {
  await until('that it is back', async () => {
    if (await isBack()) return true
    await page.evaluate(() => dispatchEvent(new Event('online')))
  }, RECONNECT_DEADLINE)
}

const texts = (page, kind = '.text') => page.locator(`#log ${kind} p`).allTextContents()

/** The messages with their senders: pairs of names and texts. */
const said = page => page.locator('#log .text').evaluateAll(lines => {
  const all = [...document.querySelectorAll('#log > div')]
  return lines.map(line => {
    let at = all.indexOf(line)
    while (at >= 0 && !all[at].querySelector('b')) at--
    return [all[at]?.querySelector('b').textContent, line.querySelector('p').textContent]
  })
})

const people = page => page.locator('#members button').allTextContents()

/** Waits until these names are there, the page's own first. */
const here = (page, names) => until(`${names} there`, async () => {
  const there = await people(page)
  return there.length === names.length && there.every((name, i) => name === names[i]) &&
    (await page.locator('#count').textContent()) === `${names.length} here`
})

/** Waits until these notes of coming and going are shown, and no others. */
async function notes(page, expected) {
  await until(expected.at(-1), async () => (await texts(page, '.note')).includes(expected.at(-1)))
  assert.deepEqual(await texts(page, '.note'), expected)
}

/** The command under a heading that begins or ends with `title`. */
const command = (page, title) => page.locator('#join h2', { hasText: title }).locator('+ pre').textContent()

const sees = (page, text) => until(JSON.stringify(text.slice(0, 60)), async () => (await texts(page)).includes(text))

const status = (page, label, deadline) =>
  until(`status ${label}`, async () => (await page.locator('#status').textContent()) === label, deadline)

async function showCommands(page) {
  if (!(await page.locator('#join').evaluate(it => it.open))) await page.locator('#join summary').click()
}

async function showPeople(page) {
  if (!(await page.locator('#people').evaluate(it => it.open))) await page.locator('#count').click()
}

async function shoot(page, name) {
  mkdirSync(SCREENSHOTS, { recursive: true })
  await page.screenshot({ path: `${SCREENSHOTS}${name}.png` })
}

// ---------------------------------------------------------------- brokers of one's own

async function withBroker(args, body) {
  const broker = await startBroker(0, ...args)
  try {
    await body(broker)
  } finally {
    await broker.stop()
  }
}

async function withWire(args, body) {
  await withBroker(args, async broker => {
    const wire = await startWire(broker.port, /^upgrade: websocket/im)
    try {
      await body(wire, broker)
    } finally {
      wire.stop()
    }
  })
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
