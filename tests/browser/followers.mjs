// Follows channels from pages in a real Chromium, against a real broker: EventSource and fetch, on the broker's own
// page, on that of a dev server on this machine, and on a foreign one.
//
//   SLOTCAST_BIN=target/debug/slotcast node followers.mjs
//
// CHROMIUM names the browser, ONLY=words picks tests. The last line is `N passed, N failed`.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import net from 'node:net'
import { BIN, DEADLINE, elsewhere, finish, launch, runAll, startBroker, startWire, until } from './harness.mjs'

const RECONNECT_DEADLINE = 30_000
const ROOM = 16
const EVIL = 'evil.example'

// ---------------------------------------------------------------- tests

const tests = {
  async 'an EventSource on the broker\'s own page gets what is posted'(browser) {
    await withBroker(async broker => {
      const page = await open(browser, broker.url + '/chat')
      await follow(page, '/chat')
      const exact = ['hello', 'two\nlines', '  привет, 世界 🦀 ', '{"a":[1,2]}', '']
      for (const text of exact) assert.equal((await post(broker.url, text)).receivers, 2, 'the page and its EventSource')
      await heardAll(page, exact)
      await fetch(broker.url + '/chat', { method: 'POST', body: Buffer.from([0, 255]), headers: { 'Content-Type': 'application/octet-stream' } })
      await until('the binary event', async () => (await events(page)).some(it => it.type === 'binary' && it.data === 'AP8='))
    })
  },

  async 'compressed messages of any length go there and back'(browser) {
    await withBroker(async broker => {
      const page = await open(browser, broker.url + '/chat')
      const seed = Math.floor(Math.random() * 2 ** 32)
      const result = await page.evaluate(echo, [broker.url.replace('http', 'ws') + '/deflate', seed, 1000])
      assert.deepEqual(result, { extensions: 'permessage-deflate; server_no_context_takeover; client_no_context_takeover', same: 1000 }, `seed ${seed}`)
    })
  },

  async 'after a restart it comes back by itself, is told that something is lost, and goes on'(browser) {
    let broker = await startBroker()
    try {
      const page = await open(browser, broker.url + '/chat')
      await follow(page, '/chat')
      await post(broker.url, 'before')
      await heardAll(page, ['before'])
      const [{ id }] = await messages(page)
      await broker.stop()
      await until('an error', async () => (await events(page)).some(it => it.type === 'error'))
      broker = await startBroker(broker.port)
      await until('another open', async () => (await opens(page)) === 2, RECONNECT_DEADLINE)
      await post(broker.url, 'after')
      await post(broker.url, 'after too')
      await heardAll(page, ['before', 'after', 'after too'])
      const heard = (await events(page)).filter(it => it.type !== 'error')
      assert.deepEqual(heard.map(it => it.type), ['open', 'message', 'open', 'lost', 'message', 'message'])
      const lost = JSON.parse(heard[3].data)
      assert.deepEqual([lost.type, lost.channel, lost.count, lost.reason], ['lost', '/chat', null, 'epoch'])
      assert.notEqual(epoch(heard[4].id), epoch(id))
      // It knows the new epoch now, so it is not told again.
      assert.equal(epoch(heard[5].id), epoch(heard[4].id))
      assert.equal(await page.evaluate(() => source.readyState), 1)
    } finally {
      await broker.stop()
    }
  },

  async 'when only its connection is cut it resumes without a gap and without a double'(browser) {
    await withWire(async (wire, broker) => {
      const page = await open(browser, wire.url + '/chat')
      await follow(page, '/chat')
      const sent = []
      const publish = async count => {
        for (let i = 0; i < count; i++) {
          sent.push(`${sent.length} ${'x'.repeat(1000)}`)
          await post(broker.url, sent.at(-1))
        }
      }
      await publish(5)
      await heardAll(page, sent)
      // Within the first event, within a later one, and between two.
      for (const bytes of [40, 2500, 0]) {
        const before = await opens(page)
        bytes ? wire.cutAfter(bytes) : wire.cut()
        await publish(20)
        await until('another open', async () => (await opens(page)) > before, RECONNECT_DEADLINE)
        await publish(5)
        await heardAll(page, sent)
      }
      const heard = await events(page)
      assert.equal(heard.filter(it => it.type === 'open').length, 4)
      assert.equal(heard.filter(it => it.type === 'lost').length, 0)
      assert.equal(new Set((await messages(page)).map(it => it.id)).size, sent.length)
      const resumed = wire.exchanges().filter(it => /^accept: text\/event-stream/im.test(it.head))
      const from = resumed.map(it => it.head.match(/^last-event-id: (\S+)/im)?.[1])
      assert.equal(from[0], undefined)
      assert.equal(from.slice(1).filter(Boolean).length, 3, `Last-Event-ID: ${from}`)
    })
  },

  async 'when the broker has no room it comes again until there is some, and has missed nothing'(browser) {
    await withWire(async (wire, broker) => {
      const page = await open(browser, wire.url + '/chat')
      await follow(page, '/chat')
      const sent = []
      const publisher = new http.Agent({ keepAlive: true, maxSockets: 1 })
      const publish = async () => {
        sent.push(`message ${sent.length}`)
        await postOver(publisher, broker.port, sent.at(-1))
      }
      await publish()
      await heardAll(page, sent)
      wire.cut()
      const fillers = await fill(broker.port)
      // It has come in vain at least twice: an answer of another status would have been the end.
      const inVain = () => wire.exchanges().filter(it => /^last-event-id:/im.test(it.head) && it.status === 200)
      await until('attempts in vain', async () => {
        await publish()
        return inVain().length >= 2
      }, RECONNECT_DEADLINE)
      for (const filler of fillers) filler.destroy()
      await until('the messages', async () => (await messages(page)).length === sent.length, RECONNECT_DEADLINE)
      await heardAll(page, sent)
      assert.equal((await events(page)).filter(it => it.type === 'lost').length, 0)
      publisher.destroy()
    }, '--max-connections', String(ROOM), '--history-messages', '10000')
  },

  async 'a page of a dev server on this machine may follow, read and post'(browser) {
    await withWire(async (wire, broker) => {
      for (const host of ['localhost', '127.0.0.1']) {
        const page = await openElsewhere(browser, host)
        const channel = wire.url + '/' + host
        await follow(page, channel)
        const posted = await page.evaluate(async channel => {
          const answer = await fetch(channel, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{"a":1}' })
          return { status: answer.status, body: await answer.json() }
        }, channel)
        assert.equal(posted.status, 200)
        assert.equal(posted.body.receivers, 1)
        await heardAll(page, ['{"a":1}'])
        await post(broker.url, 'from elsewhere', '/' + host)
        await heardAll(page, ['{"a":1}', 'from elsewhere'])
        const read = await page.evaluate(async channel => {
          const answer = await fetch(channel)
          return { status: answer.status, position: answer.headers.get('Slotcast-Position'), body: await answer.json() }
        }, channel)
        assert.equal(read.status, 200)
        assert.deepEqual(read.body.messages.map(it => it.data), ['{"a":1}', 'from elsewhere'])
        assert.equal(read.position, read.body.position)
        const asked = wire.exchanges().filter(it => it.head.includes(`Origin: http://${host}:`))
        assert.ok(asked.some(it => it.method === 'OPTIONS'), 'the browser asked first')
        assert.ok(asked.length >= 4 && asked.every(it => it.status < 300), JSON.stringify(asked))
      }
    })
  },

  async 'a foreign page is refused by every method'(browser) {
    await withWire(async (wire, broker) => {
      const page = await openElsewhere(browser, EVIL)
      const channel = wire.url + '/chat'
      const json = { 'Content-Type': 'application/json' }
      for (const options of [
        {}, { method: 'HEAD' }, { method: 'POST', body: 'evil' }, { method: 'POST', body: 'evil', mode: 'no-cors' },
        { method: 'POST', body: '{}', headers: json }, { method: 'PUT', body: 'evil' }, { method: 'DELETE' },
        { headers: { 'Last-Event-ID': '0.0' } },
      ]) {
        const outcome = await page.evaluate(([url, options]) => fetch(url, options).then(it => it.type, it => it.name), [channel, options])
        assert.equal(outcome, options.mode ? 'opaque' : 'TypeError', JSON.stringify(options))
      }
      for (const door of ['EventSource', 'WebSocket']) {
        const state = await page.evaluate(([door, url]) => new Promise(resolve => {
          const it = new window[door](door === 'WebSocket' ? url.replace('http', 'ws') : url)
          it.onopen = () => resolve('open')
          it.onerror = () => resolve(it.readyState)
        }), [door, channel])
        assert.ok(state === 2 || state === 3, `${door}: ${state}`)
      }
      await page.evaluate(url => {
        document.body.innerHTML = `<form method="post" enctype="text/plain" action="${url}"><input name="a" value="evil"></form>`
        document.querySelector('form').submit()
      }, channel)
      // The browser also asks for an icon of the page that the form led to.
      const asked = () => wire.exchanges().filter(it => / \/chat /.test(it.head))
      const count = () => Object.fromEntries(['GET', 'HEAD', 'POST', 'OPTIONS'].map(method => [method, asked().filter(it => it.method === method).length]))
      await until('the form', () => asked().length >= 11 && asked().every(it => it.status))
      // Requests that need a preflight end with the preflight.
      assert.deepEqual(count(), { GET: 3, HEAD: 1, POST: 3, OPTIONS: 4 })
      for (const it of asked()) {
        assert.equal(it.status, 403, it.head)
        assert.match(it.head, /^Origin: http:\/\/evil\.example:/im)
      }
      const kept = await (await fetch(broker.url + '/chat')).json()
      assert.deepEqual([kept.position, kept.messages], ['0.0', []])
    })
  },

  async 'a foreign name that leads here gets nothing'(browser) {
    await withBroker(async broker => {
      const page = await newPage(browser)
      const answer = await page.goto(broker.url.replace('127.0.0.1', EVIL) + '/chat', { timeout: DEADLINE })
      assert.equal(answer.status(), 421)
    })
  },
}

// ---------------------------------------------------------------- pages

async function newPage(browser) {
  const context = await browser.newContext()
  browser.opened.push(context)
  const page = await context.newPage()
  page.on('pageerror', error => browser.complaints.push(String(error)))
  return page
}

async function open(browser, url) {
  const page = await newPage(browser)
  assert.equal((await page.goto(url, { timeout: DEADLINE })).status(), 200)
  await until('the page', async () => (await page.locator('#status').textContent()) === 'Connected')
  return page
}

/** An empty page of another server on this machine, with this host name. */
async function openElsewhere(browser, host) {
  const page = await newPage(browser)
  await elsewhere('<!doctype html><title>elsewhere</title><body>', host, url => page.goto(url, { timeout: DEADLINE }))
  return page
}

/** Opens an EventSource in that page and records its events; it is open when this returns. */
async function follow(page, url) {
  await page.evaluate(url => {
    window.heard = []
    window.source = new EventSource(url)
    for (const type of ['open', 'error', 'message', 'binary', 'lost'])
      source.addEventListener(type, event => heard.push({ type, data: event.data, id: event.lastEventId }))
  }, url)
  await until('the EventSource', async () => (await opens(page)) === 1)
}

const events = page => page.evaluate(() => heard)
const messages = async page => (await events(page)).filter(it => it.type === 'message')
const opens = page => page.evaluate(() => heard.filter(it => it.type === 'open').length)
const epoch = id => id.split('.')[0]

/** Waits for the last of `texts`; these and no others must have come, in this order. */
async function heardAll(page, texts) {
  await until(`${texts.length} messages`, async () => (await messages(page)).length >= texts.length, RECONNECT_DEADLINE)
  assert.deepEqual((await messages(page)).map(it => it.data), texts)
}

async function post(base, text, channel = '/chat') {
  const answer = await fetch(base + channel, { method: 'POST', body: text })
  assert.equal(answer.status, 200)
  return answer.json()
}

// ---------------------------------------------------------------- the broker, and a wire to it

async function withBroker(body, ...args) {
  const broker = await startBroker(0, ...args)
  try {
    await body(broker)
  } finally {
    await broker.stop()
  }
}

async function withWire(body, ...args) {
  await withBroker(async broker => {
    const wire = await startWire(broker.port, /^accept: text\/event-stream/im)
    try {
      await body(wire, broker)
    } finally {
      wire.stop()
    }
  }, ...args)
}

/** Posts over this agent's only connection, which is one that a full broker already has. */
async function postOver(agent, port, body) {
  const request = http.request({ agent, port, host: '127.0.0.1', path: '/chat', method: 'POST' })
  const [answer] = await once(request.end(body), 'response')
  answer.resume()
  await once(answer, 'end')
  assert.equal(answer.statusCode, 200)
}

/** Opens connections until there is no room for others. */
async function fill(port) {
  const fillers = []
  for (let i = 0; i < ROOM; i++) {
    const filler = net.connect(port, '127.0.0.1')
    filler.on('error', () => {})
    filler.write('GET /other HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'
      + 'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n')
    await once(filler, 'readable')
    fillers.push(filler)
  }
  return fillers
}

// ---------------------------------------------------------------- running

async function main() {
  if (!BIN) throw new Error('set SLOTCAST_BIN')
  const browser = await launch(`--host-resolver-rules=MAP ${EVIL} 127.0.0.1`)
  try {
    await runAll(tests, browser)
  } finally {
    await browser.close()
  }
}

// Runs in the page: sends `count` messages of 0 B to 1 MiB to a channel where nobody else is, and reads them back.
async function echo([url, seed, count]) {
  const random = below => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32 * below | 0
  const words = ['broker', 'ß', '🦀', ' ', '{"x":', '0', '1']
  const message = () => {
    const length = random(25) === 0 ? random(2 ** 20) : random([2, 300, 5000][random(3)])
    if (random(3) === 0) return Uint8Array.from({ length }, (_, i) => i % 5000 < 2000 ? random(256) : i)
    let text = ''
    while (text.length < length / 4) text += words[random(words.length)]
    return text
  }
  const socket = new WebSocket(url)
  socket.binaryType = 'arraybuffer'
  const next = () => new Promise((resolve, reject) => {
    socket.onmessage = event => resolve(event.data)
    socket.onclose = event => reject(new Error(`closed with ${event.code} ${event.reason}`))
  })
  await new Promise((resolve, reject) => Object.assign(socket, { onopen: resolve, onerror: reject }))
  let same = 0
  for (let i = 0; i < count; i++) {
    const sent = message()
    const got = next()
    socket.send(sent)
    const back = await got
    const equal = typeof sent === 'string' ? back === sent
      : back.byteLength === sent.length && new Uint8Array(back).every((byte, at) => byte === sent[at])
    if (equal) same++
  }
  const { extensions } = socket
  socket.onclose = null
  socket.close()
  return { extensions, same }
}

await finish(main)
