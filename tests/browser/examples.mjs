// Runs every example of the crate as a child process and uses it: those with a page in a real Chromium, the others with
// the WebSocket of ../clients.
//
//   cargo build --examples && EXAMPLES=target/debug/examples node examples.mjs
//
// CHROMIUM names the browser, ONLY=words picks tests. Screenshots go to .screenshots/, which git ignores. The last line
// is `N passed, N failed`.

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import dgram from 'node:dgram'
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { DEADLINE, GONE, finish, launch, runAll, until } from './harness.mjs'

const WebSocket = createRequire(new URL('../clients/', import.meta.url))('ws')
const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const EXAMPLES = path.resolve(process.env.EXAMPLES || `${ROOT}target/debug/examples`)
const SCREENSHOTS = `${ROOT}.screenshots/`
const RECONNECT_DEADLINE = 40_000
const PHONE = { width: 390, height: 844 }
const DESKTOP = { width: 1280, height: 800 }

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
      await sees(bob, 'hello yourself')
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
      assert.ok(!(await said(ann)).includes('Bob left'), 'a reload does not count as leaving')
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
      await until('that it waits', async () => (await ann.locator('#waits').textContent()) === 'Sent as soon as the connection is back: “meanwhile”')
      await start()
      for (const page of [ann, bob]) await status(page, 'Connected', RECONNECT_DEADLINE)
      await sees(bob, 'meanwhile')
      await until('both again', async () => (await people(ann)).join() === 'Ann,Bob')
      assert.equal(await ann.locator('#waits').textContent(), '')
    })
  },

  async 'chat: one sees what one says, and half a word is not sent'(browser) {
    await running('chat', async chat => {
      const ann = await enter(browser, chat, 'lobby', 'Ann')
      for (let i = 0; i < 60; i++) await say(ann, `line ${i}`)
      await sees(ann, 'line 59')
      await ann.locator('#log').evaluate(it => new Promise(done => {
        it.addEventListener('scroll', done, { once: true })
        it.scrollTop = 0
      }))
      await say(ann, 'mine')
      await sees(ann, 'mine')
      await until('the bottom', () => ann.locator('#log').evaluate(it => it.scrollHeight - it.scrollTop - it.clientHeight < 3))
      // Safari reports the Enter that ends a composition after its end, with the code of one that is under way.
      await ann.locator('#text').fill('かん')
      await ann.locator('#text').evaluate(it => it.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', keyCode: 229, bubbles: true, cancelable: true })))
      await say(ann, '漢字')
      await sees(ann, '漢字')
      assert.ok(!(await said(ann)).includes('かん'))
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

  async 'private_chat: two may join a room, and see who says what'(browser) {
    await running('private_chat', async chat => {
      const room = `${chat.url}/rooms/ann-and-bob`
      const ann = await open(browser, room)
      await status(ann, 'Not logged in')
      assert.ok(await ann.getByRole('heading', { name: 'Log in' }).isVisible())
      for (const id of ['say', 'refused', 'rooms']) assert.ok(await ann.locator('#' + id).isHidden(), id)
      const bob = await logIn(browser, room, 'bob', 'banana')
      await logIn(ann, room, 'ann', 'apple')
      for (const page of [ann, bob]) await status(page, 'Connected')
      assert.deepEqual(await bob.locator('#rooms a').allTextContents(), ['ann-and-bob', 'bob-and-cleo'])
      for (const [page, words] of [[ann, 'for you alone'], [bob, '<b>bold</b> of you'], [ann, 'bob']]) {
        await say(page, words)
        for (const it of [ann, bob]) await until(words, async () => (await lines(it)).at(-1)?.endsWith(words))
      }
      for (const page of [ann, bob])
        assert.deepEqual(await lines(page), ['annfor you alone', 'bob<b>bold</b> of you', 'annbob'])
      // Who says it is proven: a name that somebody gives itself is not shown.
      const token = await ann.evaluate(() => fetch('/token').then(it => it.text()))
      const posted = await fetch(`${room}?name=bob`, { method: 'POST', body: 'who?', headers: { Authorization: `Bearer ${token}` } })
      assert.equal(posted.status, 200)
      await until('the post', async () => (await lines(bob)).at(-1) === 'annwho?')
      // One who logs out is asked to log in, and one who logs in reads what was said.
      await ann.locator('#out').click()
      await status(ann, 'Not logged in')
      await logIn(ann, room, 'ann', 'apple')
      await until('what was said', async () => (await lines(ann)).length === 4)
    })
  },

  async 'private_chat: a third is refused, and so is one who is not logged in'(browser) {
    await running('private_chat', async chat => {
      const room = `${chat.url}/rooms/ann-and-bob`
      const cleo = await logIn(browser, room, 'cleo', 'cherry', { forgive: /403/ })
      await status(cleo, 'Not connected')
      assert.equal(await cleo.locator('#refused').textContent(), 'This room is not for cleo.')
      assert.deepEqual([await cleo.locator('#say').isHidden(), await lines(cleo)], [true, []])
      const token = await cleo.evaluate(() => fetch('/token').then(it => it.text()))
      for (const [headers, method, expected] of [
        [{ Authorization: `Bearer ${token}` }, 'GET', [403, 'forbidden']],
        [{ Authorization: `Bearer ${token}` }, 'POST', [403, 'forbidden']],
        [{}, 'GET', [401, 'token_missing']],
        [{}, 'POST', [401, 'token_missing']],
      ]) {
        const answer = await fetch(room, { method, headers: { Accept: 'application/json', ...headers } })
        assert.deepEqual([answer.status, (await answer.json()).code], expected)
      }
      // The room that is for cleo.
      await cleo.locator('#rooms a', { hasText: 'bob-and-cleo' }).click()
      await status(cleo, 'Connected')
      assert.ok(await cleo.locator('#refused').isHidden())
      // A wrong password, and no session at all.
      const nobody = await open(browser, chat.url, { forgive: /401/ })
      await status(nobody, 'Not logged in')
      await fillLogin(nobody, 'ann', 'banana')
      await until('the answer', () => nobody.getByText('That is not the password of this user.').isVisible())
      assert.equal((await fetch(`${chat.url}/token`, { headers: { Cookie: 'session=x' } })).status, 401)
    })
  },

  async 'private_chat: a token is renewed on the open connection, for as long as one is logged in'(browser) {
    const seconds = 4
    await running('private_chat', async chat => {
      const room = `${chat.url}/rooms/ann-and-bob`
      const ann = await open(browser, room, { forgive: /401/ })
      const sockets = [], renewals = []
      ann.on('websocket', ws => {
        sockets.push(ws)
        ws.on('framesent', ({ payload }) => JSON.parse(payload).type === 'token' && renewals.push(Date.now()))
      })
      await logIn(ann, room, 'ann', 'apple')
      await status(ann, 'Connected')
      const began = Date.now()
      // With the first token alone it would have ended by then.
      await until('some renewals', () => renewals.length >= 3 && Date.now() - began > seconds * 1500, 30_000)
      await say(ann, 'still here')
      await until('the message', async () => (await lines(ann)).at(-1) === 'annstill here')
      assert.deepEqual([sockets.length, sockets[0].isClosed()], [1, false])
      // The session ends elsewhere: there is no next token, and the page asks to log in.
      await ann.evaluate(() => fetch('/logout', { method: 'POST' }))
      await status(ann, 'Not logged in', 30_000)
      await until('its end', () => sockets[0].isClosed())
    }, { args: address => [address, String(seconds)] })
  },

  async 'private_chat: screenshots'(browser) {
    await running('private_chat', async chat => {
      const room = `${chat.url}/rooms/ann-and-bob`
      const ann = await open(browser, room)
      await status(ann, 'Not logged in')
      await both(ann, 'private_chat-login')
      await logIn(ann, room, 'ann', 'apple')
      const bob = await logIn(browser, room, 'bob', 'banana')
      for (const page of [ann, bob]) await status(page, 'Connected')
      await say(ann, 'The parcel is at my place. It is the size of a fridge, and I cannot say that it is light.')
      await say(bob, 'I bring the cart')
      await until('both', async () => (await lines(ann)).length === 2)
      await both(ann, 'private_chat')
    })
  },

  async 'vote: the three modes agree, and one sees what each costs'(browser) {
    await running('vote', async vote => {
      const pages = []
      for (const mode of ['WebSocket', 'Long polling', 'Polling']) pages.push(await ballot(browser, vote, mode))
      const expected = { Coffee: 3, Tea: 3, Water: 3, Juice: 0, Mate: 0 }
      for (const page of pages) for (const name of ['Coffee', 'Tea', 'Water']) await page.getByRole('button', { name }).click()
      for (const page of pages) await shows(page, expected)
      assert.equal(await pages[0].locator('#total').textContent(), '9 votes')
      // A quiet time, in which the page that polls asks again and again.
      const before = await costs(pages[2], 'plain')
      await until('two more requests', async () => (await costs(pages[2], 'plain')).requests >= before.requests + 2)
      assert.equal((await costs(pages[2], 'plain')).results, before.results, 'an unchanged result is 304')
      const [socket, long, plain] = [await costs(pages[0], 'socket'), await costs(pages[1], 'long'), await costs(pages[2], 'plain')]
      assert.equal(socket.requests, 1)
      assert.equal(socket.results, 10, 'each vote, and the state before')
      assert.ok(long.requests > long.results - 1 && long.results > 1, JSON.stringify(long))
      assert.ok(socket.bytes > 1000 && socket.bytes < long.bytes && socket.bytes < plain.bytes, JSON.stringify({ socket, long, plain }))
      assert.deepEqual(await costs(pages[0], 'plain'), { requests: 0, results: 0, bytes: 0 })
    })
  },

  async 'vote: one page switches between the modes, disconnects and connects'(browser) {
    await running('vote', async vote => {
      const [page, other] = [await ballot(browser, vote), await ballot(browser, vote)]
      let votes = 0
      for (const mode of ['Long polling', 'Polling', 'WebSocket']) {
        await choose(page, mode)
        await page.getByRole('button', { name: 'Mate' }).click()
        for (const it of [page, other]) await shows(it, { Mate: votes + 1 })
        await other.getByRole('button', { name: 'Mate' }).click()
        votes += 2
        for (const it of [page, other]) await shows(it, { Mate: votes })
      }
      for (const mode of ['socket', 'long', 'plain']) assert.ok((await costs(page, mode)).requests > 0, mode)
      await page.getByRole('button', { name: 'Disconnect' }).click()
      await status(page, 'Not connected')
      assert.ok(await page.getByRole('button', { name: 'Tea' }).isDisabled())
      await other.getByRole('button', { name: 'Tea' }).click()
      await shows(other, { Tea: 1 })
      await shows(page, { Tea: 0 })
      await page.getByRole('button', { name: 'Connect', exact: true }).click()
      await shows(page, { Tea: 1, Mate: votes })
      await page.getByRole('button', { name: 'Begin again' }).click()
      assert.deepEqual(await costs(page, 'plain'), { requests: 0, results: 0, bytes: 0 })
    })
  },

  async 'vote: what is no vote is refused, and names stay text'(browser) {
    const name = '<script>document.title="owned"</script>'
    const args = address => [address, name, 'Tea']
    await running('vote', async vote => {
      const page = await ballot(browser, vote)
      await page.getByRole('button', { name: 'script' }).click()
      await shows(page, { [name]: 1, Tea: 0 })
      assert.equal(await page.title(), 'Vote')
      for (const [target, body, code] of [['/votes', 'Nobody', 'unknown_candidate'], ['/votes', '', 'unknown_candidate'], ['/elsewhere', 'Tea', 'not_here']]) {
        const answer = await fetch(vote.url + target, { method: 'POST', body })
        assert.equal((await answer.json()).code, code)
      }
      const lines = (...them) => fetch(vote.url + '/votes', { method: 'POST', body: them.join('\n'), headers: { 'Content-Type': 'application/x-ndjson' } })
      assert.equal((await lines('Tea', 'Nobody')).status, 400)
      assert.equal((await lines('Tea', 'Tea')).status, 200)
      await shows(page, { [name]: 1, Tea: 2 })
      assert.equal((await closing(vote.url + '/votes', ['Nobody'])).code, 1008)
    }, { args })
  },

  async 'vote: a server that goes is noticed in every mode, one that comes back is found'(browser) {
    await restarting('vote', async (vote, stop, start) => {
      const pages = []
      for (const mode of ['WebSocket', 'Long polling', 'Polling']) pages.push(await ballot(browser, vote, mode))
      await pages[0].getByRole('button', { name: 'Tea' }).click()
      for (const page of pages) await shows(page, { Tea: 1 })
      await stop()
      for (const page of pages) await status(page, 'Connection lost, trying again')
      await start()
      for (const page of pages) await status(page, 'Connected', RECONNECT_DEADLINE)
      await pages[1].getByRole('button', { name: 'Water' }).click()
      for (const page of pages) await shows(page, { Tea: 0, Water: 1 })
    })
  },

  async 'vote: screenshots'(browser) {
    await running('vote', async vote => {
      const page = await ballot(browser, vote, 'WebSocket')
      for (const [name, votes] of [['Coffee', 12], ['Tea', 17], ['Water', 4], ['Juice', 9], ['Mate', 1]])
        for (let i = 0; i < votes; i++) await page.getByRole('button', { name }).click()
      for (const mode of ['Long polling', 'Polling', 'WebSocket']) {
        await choose(page, mode)
        await page.getByRole('button', { name: 'Coffee' }).click()
      }
      await shows(page, { Coffee: 15, Tea: 17 })
      await both(page, 'vote')
    })
  },

  async 'clock: everybody gets the time each second'(browser) {
    await running('clock', async clock => {
      const pages = [await watch(browser, clock, 'kitchen'), await watch(browser, clock, '<script>hall</script>')]
      for (const page of pages) {
        const seen = new Set()
        await until('three seconds', async () => seen.add(await page.locator('#time').textContent()).size >= 3)
        for (const it of seen) assert.match(it, /^\d\d:\d\d:\d\d$/)
        const shown = new Date(await page.locator('#time').getAttribute('datetime'))
        assert.ok(Math.abs(shown - Date.now()) < DEADLINE, String(shown))
        assert.deepEqual(await clients(page), ['<script>hall</script>', 'kitchen'])
      }
      const guest = await open(browser, clock.url)
      await until('a name of its own', async () => /\?id=guest-/.test(guest.url()))
      await until('three', async () => (await clients(pages[0])).length === 3)
      await guest.close()
      await until('two', async () => (await clients(pages[0])).length === 2)
    })
  },

  async 'clock: a second connection of one id replaces the first'(browser) {
    await running('clock', async clock => {
      const first = await watch(browser, clock, 'kitchen')
      const second = await watch(browser, clock, 'kitchen')
      await until('the end', () => first.locator('#replaced').isVisible())
      assert.match(await first.locator('#replaced p').textContent(), /4001 replaced: this id has connected again/)
      await until('another second', async () => (await clients(second)).join() === 'kitchen')
      await first.getByRole('button', { name: 'Take it back' }).click()
      await status(first, 'Connected as kitchen')
      await until('the end', () => second.locator('#replaced').isVisible())
      const ended = closing(clock.url + '/time?id=a%20b', [])
      const other = closing(clock.url + '/time?id=a%20b', [])
      const one = await Promise.race([ended, other])
      assert.deepEqual([one.code, one.reason], [4001, 'replaced: this id has connected again'])
      for (const query of ['', '?id=', '?id=%20', '?id=%ff', '?id=' + 'x'.repeat(33)])
        await assert.rejects(closing(clock.url + '/time' + query, []), /400/, query)
      clock.child.kill('SIGINT')
      await Promise.all([ended, other])
    })
  },

  async 'clock: one that stops is noticed, one that comes back is found'(browser) {
    await restarting('clock', async (clock, stop, start) => {
      const page = await watch(browser, clock, 'kitchen')
      clock.child.kill('SIGSTOP')
      await status(page, 'Connection lost, trying again')
      clock.child.kill('SIGCONT')
      await status(page, 'Connected as kitchen', RECONNECT_DEADLINE)
      await stop()
      await status(page, 'Connection lost, trying again')
      await start()
      await status(page, 'Connected as kitchen', RECONNECT_DEADLINE)
    })
  },

  async 'clock: screenshots'(browser) {
    await running('clock', async clock => {
      const page = await watch(browser, clock, 'kitchen')
      for (const name of ['hall', 'workshop', 'Ann’s phone']) await watch(browser, clock, name)
      await until('four', async () => (await clients(page)).length === 4)
      await both(page, 'clock')
      await watch(browser, clock, 'kitchen')
      await until('the end', () => page.locator('#replaced').isVisible())
      await shoot(page, 'example-clock-390-dark-replaced')
    })
  },

  async 'monitor: a growing file, for everybody, and from where it was on'(browser) {
    await followed(async (file, monitor) => {
      appendFileSync(file, 'third\n')
      const pages = [await look(browser, monitor), await look(browser, monitor)]
      for (const page of pages) {
        await logs(page, ['first <script>document.title="owned"</script>', '  second', 'third'])
        await heading(page, path.basename(file))
      }
      await until('two', async () => (await pages[0].locator('#watching').textContent()) === '2 watching')
      appendFileSync(file, 'ERROR no such')
      appendFileSync(file, ' thing\nwarning: \xff\n\n')
      for (const page of pages) await logs(page, ['ERROR no such thing', 'warning: ÿ', ' '], 3)
      assert.equal(await pages[0].locator('#log .error').textContent(), 'ERROR no such thing')
      await pages[0].getByLabel('Only lines with').fill('NO SUCH')
      assert.deepEqual(await pages[0].locator('#log p:visible').allTextContents(), ['ERROR no such thing'])
      assert.equal(await pages[0].locator('#lines').textContent(), '1 of 6 lines')
      await pages[1].reload()
      await logs(pages[1], ['first <script>document.title="owned"</script>', '  second', 'third', 'ERROR no such thing', 'warning: ÿ', ' '])
      // Another file takes its name, and then that one is cut short.
      renameSync(file, file + '.1')
      writeFileSync(file, 'rotated\n')
      await logs(pages[1], ['rotated'], 1)
      writeFileSync(file, 'cut\n')
      await logs(pages[1], ['cut'], 1)
      appendFileSync(file, Array.from({ length: 3000 }, (_, i) => `line ${i}\n`).join(''))
      for (const page of pages) await logs(page, ['line 2998', 'line 2999'], 2)
      assert.ok((await pages[0].locator('#log p').count()) <= 2000)
      assert.equal((await fetch(monitor.url + '/log', { method: 'POST', body: 'forged' })).status, 403)
    })
  },

  async 'monitor: standard input, and charts that are there on load'(browser) {
    await running('monitor', async monitor => {
      const write = text => monitor.child.stdin.write(text)
      write('one\ntwo\n')
      const page = await look(browser, monitor)
      await logs(page, ['one', 'two'])
      write('\x1b[1;31merror\x1b[0m: \x1b]8;;file:x\x07red\x1b]8;;\x07 \x1b[38;5;12mblue\x1b[m\n')
      await logs(page, ['error: red blue'], 1)
      write('x'.repeat(5000) + '\nthree')
      await until('a long line in two pieces', async () => (await page.locator('#log p').allTextContents()).map(it => it.length).join() === '3,3,15,4096,904')
      await heading(page, 'Standard input')
      await until('three points', async () => (await page.locator('.line').first().getAttribute('d'))?.split('L').length >= 3)
      const late = await look(browser, monitor)
      await until('as many on load', async () => (await late.locator('.line').first().getAttribute('d'))?.split('L').length >= 3)
      assert.match((await late.locator('#gauges p').allTextContents()).join(), /^\d+ %,\d+ %,\d+\.\d\d$/)
      write(' and four\n')
      monitor.child.stdin.end()
      await until('the rest', async () => (await page.locator('#log p').allTextContents()).at(-1) === 'three and four')
      await status(late, 'Connected')
    }, { args: address => ['-', address], stdin: 'pipe' })
  },

  async 'monitor: one that goes is noticed, one that comes back is found'(browser) {
    const args = address => ['tests/browser/package.json', address]
    await restarting('monitor', async (monitor, stop, start) => {
      const page = await look(browser, monitor)
      await logs(page, ['}'], 1)
      await stop()
      await status(page, 'Connection lost, trying again')
      await start()
      await status(page, 'Connected', RECONNECT_DEADLINE)
      // The log begins again with the monitor: no line is there twice.
      await until('the new beginning', async () => (await page.locator('#log p').allTextContents())[0] === 'The monitor was started again.')
      await logs(page, ['}'], 1)
      const lines = await page.locator('#log p').allTextContents()
      assert.equal(lines[0], 'The monitor was started again.')
      assert.equal(lines.length, 1 + readFileSync(`${ROOT}tests/browser/package.json`, 'utf8').trimEnd().split('\n').length)
      assert.equal(await page.locator('#lines').textContent(), `${lines.length - 1} lines`)
    }, { args })
  },

  async 'monitor: screenshots'(browser) {
    await followed(async (file, monitor) => {
      const page = await look(browser, monitor)
      await look(browser, monitor)
      const at = i => `2026-03-14T09:${String(10 + Math.floor(i / 4)).padStart(2, '0')}:${String(i * 13 % 60).padStart(2, '0')}Z`
      const lines = ['INFO  GET /basket 200 in 12 ms', 'INFO  GET /basket/items?page=2&sort=price 200 in 31 ms', 'DEBUG cache: 412 hits, 9 misses', 'INFO  POST /orders 201 in 84 ms',
        'WARN  payment provider answered after 2,140 ms, trying another', 'INFO  order 88213 paid', 'ERROR cannot send the receipt of order 88213: connection refused', 'INFO  receipt of order 88213 sent']
      for (let i = 0; i < 24; i++) appendFileSync(file, `${at(i)} ${lines[i % lines.length]}\n`)
      await until('some points', async () => (await page.locator('.line').first().getAttribute('d'))?.split('L').length >= 12, 20_000)
      await both(page, 'monitor')
    })
  },

  async 'echo: it says back what it hears'() {
    await running('echo', async echo => {
      const { heard } = await talk(echo.url, ['hello', '<b>', Buffer.from([0, 255])], 3)
      assert.deepEqual(heard, ['You said: hello', 'You said: <b>', 'You said: something binary'])
      assert.match(echo.output, /listening on ws:/, 'an example without a page prints no address of one')
      await until('the end told', () => / has left: /.test(echo.output))
    })
  },

  async 'callbacks: on_open, on_message and on_close'() {
    await running('callbacks', async callbacks => {
      const ann = talk(callbacks.url + '/ann', ['one', 'two'], 5)
      await until('two', async () => (await ann.heard()).length === 3)
      const bob = await closing(callbacks.url + '/bob', ['bye'])
      assert.deepEqual(bob, { code: 1000, reason: 'bye', heard: ['welcome to /bob, 2 here; say bye to leave'] })
      const { code } = await closing(callbacks.url + '/eve', [Buffer.from([1])])
      assert.equal(code, 1003)
      const { heard } = await ann
      assert.deepEqual(heard.slice(0, 3), ['welcome to /ann, 1 here; say bye to leave', '/ann says: one (1)', '/ann says: two (2)'])
      assert.match(heard.slice(3).join(), /^\/bob has left after 0: \S+,\/eve has left after 0: \S+$/)
    })
  },

  async 'own_loop: datagrams become messages'() {
    await running('own_loop', async host => {
      const listener = talk(host.url + '/udp', [], 20)
      await listener.open
      const socket = dgram.createSocket('udp4')
      try {
        const answers = []
        socket.on('message', answer => answers.push(String(answer)))
        for (let i = 0; i < 20; i++) {
          socket.send(`datagram ${i}`, Number(host.port), '127.0.0.1')
          await until('an answer', () => answers.length === i + 1)
        }
        assert.deepEqual([...new Set(answers)], ['1 got it\n'])
      } finally {
        socket.close()
      }
      assert.deepEqual((await listener).heard, Array.from({ length: 20 }, (_, i) => `datagram ${i}`))
    })
  },

  async 'threads: ten count, each in its order'() {
    await running('threads', async threads => {
      const { heard } = await talk(threads.url + '/threads?since=all', [], 40)
      const last = new Map()
      for (const text of heard) {
        const [, number, count] = text.match(/^thread (\d+) counts (\d+)$/)
        assert.equal(Number(count), (last.get(number) ?? Number(count) - 1) + 1, text)
        last.set(number, Number(count))
      }
      assert.equal(last.size, 10)
    })
  },

  async 'frames: what passes is shown byte by byte'() {
    await running('frames', async frames => {
      const long = 'x'.repeat(300)
      const { heard } = await talk(frames.url + '/chat', ['Hello', Buffer.from([1, 2]), long, '\x1b[31mred'], 4)
      assert.deepEqual(heard.map(String), ['Hello', '\x01\x02', long, '\x1b[31mred'])
      await until('both closes', () => frames.output.match(/ Close, /g)?.length === 2)
      const shown = frames.output.slice(frames.output.indexOf('1 →'))
      assert.match(shown, /^1 → head, \d+ bytes\n {6}GET \/chat HTTP\/1\.1\n/)
      assert.match(shown, /1 ← head, \d+ bytes\n {6}HTTP\/1\.1 101 Switching Protocols\n/)
      const sent = shown.match(/1 → text, final, 5 bytes, masked with (.*)\n {6}header   (.*)\n {6}payload  (.*)\n {6}reads    (.*)\n/)
      assert.deepEqual([sent[2], sent[4]], [`81 85 ${sent[1]}`, '"Hello"'])
      const [key, payload] = [sent[1], sent[3]].map(it => it.split(' ').map(byte => parseInt(byte, 16)))
      assert.equal(String.fromCharCode(...payload.map((byte, i) => byte ^ key[i % 4])), 'Hello')
      assert.match(shown, /1 ← text, final, 5 bytes, not masked\n {6}header   81 05\n {6}payload  48 65 6c 6c 6f\n {6}reads    "Hello"\n/)
      assert.match(shown, /1 ← binary, final, 2 bytes, not masked\n {6}header   82 02\n {6}payload  01 02\n/)
      assert.match(shown, /1 ← text, final, 300 bytes, not masked\n {6}header   81 7e 01 2c\n {6}payload  (78 ){48}…\n/)
      assert.match(shown, /1 → Close, final, 2 bytes, .*\n.*\n.*\n {6}reads    1000 ""\n/)
      assert.ok(!shown.includes('\x1b'), 'peers cannot write escapes to the terminal')
      assert.match(shown, /Host: /)
      assert.ok(!shown.includes('\\"'), 'quotation marks are not escaped')
      const posted = await fetch(frames.url + '/chat', { method: 'POST', body: 'by "POST"\n', headers: { 'X-Quoted': '"a"' } })
      assert.equal(posted.status, 200)
      await until('its body', () => /→ body, 10 bytes\n {6}reads {4}by "POST"\\n\n/.test(frames.output))
      assert.match(frames.output, /\n {6}x-quoted: "a"\n/i)
      await until('the answer', () => /← body, \d+ bytes\n {6}reads {4}\{"channel":"\/chat"/.test(frames.output))
    })
  },

  async 'each takes its port from the environment, ends at a signal, and says what is wrong with an address'() {
    const port = await freePort()
    for (const name of ['callbacks', 'chat', 'clock', 'echo', 'frames', 'monitor', 'own_loop', 'private_chat', 'threads', 'vote']) {
      const example = await start(name, { args: () => [], env: { ...process.env, PORT: String(port) } })
      try {
        assert.equal(example.port, String(port), name)
        await example.stop('SIGINT')
        assert.equal(example.signal, 'SIGINT', name)
      } finally {
        await example.stop()
      }
      const args = () => name === 'monitor' ? ['-', 'http://x/'] : ['http://x/']
      await assert.rejects(start(name, { args }), /ended:[^]*is not an address/, name)
      // The port is taken by another server: one line, which says what to do.
      const taken = net.createServer()
      await new Promise(resolve => taken.listen(0, '127.0.0.1', resolve))
      const { port: held } = taken.address()
      await assert.rejects(start(name, { port: held, args: address => name === 'monitor' ? ['-', address] : [address] }),
        error => error.message.includes(`${name}: cannot listen on 127.0.0.1:${held}: address already in use; choose another, as in PORT=9000`) &&
          !/Custom|Os \{/.test(error.message), name)
      taken.close()
      const { stdout } = await promisify(execFile)(path.join(EXAMPLES, name), ['--help'])
      assert.match(stdout, new RegExp(`cargo run --example ${name} .*ADDRESS[^]*localhost:80(8[1-9]|90)`))
      await assert.rejects(start(name, { args: () => ['--prot'] }), /there is no --prot; see --help/)
    }
  },
}

// ---------------------------------------------------------------- monitor

async function look(browser, monitor) {
  const page = await open(browser, monitor.url, { forgive: GONE })
  await status(page, 'Connected')
  return page
}

/** Waits until these are the last `count` lines, or all. */
const logs = (page, lines, count = 0) => until(JSON.stringify(lines), async () =>
  JSON.stringify((await page.locator('#log p').allTextContents()).slice(-count)) === JSON.stringify(lines))

/** Waits for the heading: it comes over another connection than the lines. */
const heading = (page, text) => until(`the heading ${text}`, async () => (await page.locator('h1').textContent()) === text)

/** Runs `body` with a log file that has two lines, and the monitor on it. */
async function followed(body) {
  const folder = mkdtempSync(path.join(tmpdir(), 'slotcast-'))
  const file = path.join(folder, 'app.log')
  writeFileSync(file, 'first <script>document.title="owned"</script>\n  second\r\n')
  try {
    await running('monitor', monitor => body(file, monitor), { args: address => [file, address] })
  } finally {
    rmSync(folder, { recursive: true })
  }
}

// ---------------------------------------------------------------- clock

async function watch(browser, clock, id) {
  const page = await open(browser, `${clock.url}/?id=${encodeURIComponent(id)}`, { forgive: GONE })
  await status(page, `Connected as ${id}`)
  return page
}

const clients = page => page.locator('#clients li').allTextContents()

// ---------------------------------------------------------------- vote

async function ballot(browser, vote, mode) {
  const page = await open(browser, vote.url, { forgive: GONE })
  await status(page, 'Connected')
  if (mode) await choose(page, mode)
  return page
}

async function choose(page, mode) {
  await page.getByText(mode, { exact: true }).first().click()
  await status(page, 'Connected')
}

const shows = (page, votes) => until(JSON.stringify(votes), async () => {
  const names = await page.locator('#vote button').allTextContents()
  const numbers = await page.locator('#chart text').allTextContents()
  return Object.entries(votes).every(([name, number]) => numbers[names.indexOf(name)] === String(number))
})

async function costs(page, mode) {
  const numbers = (await page.locator(`#${mode} td`).allTextContents()).map(it => Number(it.replaceAll(',', '')))
  return { requests: numbers[0], results: numbers[1], bytes: numbers[2] }
}

// ---------------------------------------------------------------- chat

async function enter(browser, chat, room, name, options) {
  const page = await open(browser, `${chat.url}/${room}`, { forgive: GONE, ...options })
  await page.getByLabel('Your name').fill(name)
  await page.getByRole('button', { name: 'Come in' }).click()
  await status(page, 'Connected')
  await until('oneself', async () => (await people(page)).length > 0)
  // The rooms are asked for when it is known who else is there.
  await until('the rooms', async () => (await page.locator('#rooms span').count()) > 0)
  return page
}

async function say(page, text) {
  await page.locator('#text').fill(text)
  await page.locator('#text').press('Enter')
}

const said = page => page.locator('#log :is(.said p, .note)').allTextContents()
const people = page => page.locator('#people span').allTextContents()
const sees = (page, text) => until(JSON.stringify(text.slice(0, 60)), async () => (await said(page)).includes(text))

// ---------------------------------------------------------------- private_chat

async function fillLogin(page, user, password) {
  await page.getByLabel('User').fill(user)
  await page.getByLabel('Password').fill(password)
  await page.getByRole('button', { name: 'Log in', exact: true }).click()
}

/** Logs in on a page that asks for it, or on one of a new tab. */
async function logIn(place, url, user, password, options) {
  const page = place.goto ? place : await open(place, url, options)
  await status(page, 'Not logged in')
  await fillLogin(page, user, password)
  await until('the login', () => page.locator('#login').isHidden())
  return page
}

const lines = page => page.locator('#log p').allTextContents()

// ---------------------------------------------------------------- pages

/** Opens a tab with its own profile. Any complaint of the browser fails the test that opened it. */
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

/** Takes screenshots of a page on a phone and on a desktop, light and dark; nothing may be wider than the phone. */
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
  await page.screenshot({ path: `${SCREENSHOTS}${name}.png`, animations: 'disabled' })
}

// ---------------------------------------------------------------- without a browser

/** Sends `messages`, waits for `count` answers, closes: `{ code, reason, heard }`. Also before: `open`, `heard()`. */
function talk(url, messages, count) {
  const heard = []
  const ws = new WebSocket(url.replace('http', 'ws'))
  const open = new Promise(resolve => ws.once('open', resolve))
  const ended = new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      ws.terminate()
      reject(new Error(`${url}: waited ${DEADLINE} ms; heard ${JSON.stringify(heard)}`))
    }, DEADLINE)
    ws.on('message', (data, binary) => {
      heard.push(binary ? data : String(data))
      if (heard.length === count) ws.close(1000)
    })
    ws.on('error', error => {
      clearTimeout(timer)
      reject(new Error(`${url}: ${error.message}`))
    })
    ws.on('close', (code, reason) => {
      clearTimeout(timer)
      resolve({ code, reason: String(reason), heard })
    })
  })
  open.then(() => messages.forEach(it => ws.send(it)))
  return Object.assign(ended, { open, heard: () => heard })
}

/** Sends `messages`, and waits until the server closes. */
const closing = (url, messages) => talk(url, messages, Infinity)

async function freePort() {
  const server = net.createServer()
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address()
  await new Promise(resolve => server.close(resolve))
  return port
}

// ---------------------------------------------------------------- examples, as child processes

/** Starts an example on this port, or on a free one. */
async function start(name, { port = 0, args = address => [address], stdin = 'ignore', env } = {}) {
  const child = spawn(path.join(EXAMPLES, name), args(`127.0.0.1:${port}`), { stdio: [stdin, 'pipe', 'pipe'], cwd: ROOT, env })
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
      example.url = example.output.match(/listening on (?:http|ws)(:\/\/127\.0\.0\.1:\d+)\//)?.[1].replace(/^/, 'http')
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

/** Runs `body` with an example that can be stopped and started again, on the same port. */
async function restarting(name, body, options) {
  let example = await start(name, options)
  const { port } = example
  try {
    await body(example, () => example.stop(), async () => { example = await start(name, { ...options, port }) })
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
