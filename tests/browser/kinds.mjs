// One channel, all kinds at once: websocat, the JSON dialect, an EventSource, an NDJSON stream read by curl, a long
// poll and the page all get what websocat, the JSON dialect, curl -d and the page publish, in one order. All parts are
// real.
//
//   SLOTCAST_BIN=target/debug/slotcast WEBSOCAT=.tools/bin/websocat node kinds.mjs
//
// COUNT says how many each of the four publishes. CHROMIUM names the browser. The last line is `N passed, N failed`.

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { promisify } from 'node:util'
import { BIN, DEADLINE, finish, launch, runAll, startBroker, until } from './harness.mjs'

const WEBSOCAT = process.env.WEBSOCAT || 'websocat'
const COUNT = Number(process.env.COUNT || 40)
const ALL_DEADLINE = 60_000

const tests = {
  async 'every kind of follower gets what every kind of publisher says, in one order'(browser, base) {
    const page = await visit(browser, base + '/all')
    const other = await visit(browser, base + '/elsewhere')
    const websocat = lines(spawn(WEBSOCAT, ['-q', base.replace('http', 'ws') + '/all']))
    const curl = lines(spawn('curl', ['-sN', '-H', 'Accept: application/x-ndjson', base + '/all']))
    const poll = polls(base + '/all')
    try {
      await follow(other, base)
      await until('five members', async () => (await members(base)) === 5)
      await Promise.all([
        each(async i => { websocat.child.stdin.write(`websocat ${i}\n`) }),
        each(i => promisify(execFile)('curl', ['-sSf', '-d', `curl ${i}`, base + '/all'])),
        each(i => other.evaluate(text => publish(text), `dialect ${i}`)),
        each(async i => {
          await page.locator('#form textarea').fill(`page ${i}`)
          await page.locator('#form textarea').press('Enter')
        }),
      ])
      const total = 4 * COUNT
      const heard = {
        websocat: () => websocat.lines,
        dialect: () => other.evaluate(() => dialect),
        EventSource: () => other.evaluate(() => events),
        NDJSON: () => curl.lines.map(line => JSON.parse(line)).filter(it => it.type === 'message').map(it => it.data),
        'long poll': () => poll.messages,
        page: () => page.locator('#log .text p').allTextContents(),
      }
      // websocat sends its lines with their ends, and ends what it gets with one.
      const trimmed = async kind => (await heard[kind]()).map(text => text.trimEnd())
      for (const [kind, its] of Object.entries(heard)) {
        await until(`${total} messages at ${kind}`, async () => (await its()).length >= total, ALL_DEADLINE)
        assert.deepEqual(await trimmed(kind), await trimmed('websocat'), kind)
      }
      // The messages of each publisher are there once and in order; and the publishers did overlap.
      const order = await trimmed('websocat')
      const by = kind => order.filter(it => it.startsWith(kind + ' '))
      for (const kind of ['websocat', 'curl', 'dialect', 'page'])
        assert.deepEqual(by(kind), Array.from({ length: COUNT }, (_, i) => `${kind} ${i}`), kind)
      assert.equal(order.length, total)
    } finally {
      poll.stop()
      for (const { child } of [websocat, curl]) {
        child.kill()
        await child.gone
      }
    }
  },
}

// ---------------------------------------------------------------- publishers and followers

async function each(body) {
  for (let i = 0; i < COUNT; i++) await body(i)
}

/** The lines that a process prints. */
function lines(child) {
  const it = { child, lines: [] }
  let rest = ''
  child.gone = once(child, 'close')
  child.stdout.setEncoding('utf8').on('data', chunk => {
    const whole = (rest + chunk).split('\n')
    rest = whole.pop()
    it.lines.push(...whole)
  })
  return it
}

/** The messages that long polls bring, one poll after another. */
function polls(url) {
  const it = { messages: [] }
  const end = new AbortController
  it.stop = () => end.abort()
  const loop = async () => {
    for (let since = 'all'; !end.signal.aborted;) {
      const answer = await (await fetch(`${url}?since=${since}&wait=30`, { signal: end.signal })).json()
      assert.equal(answer.lost ?? 0, 0)
      it.messages.push(...answer.messages.map(message => message.data))
      since = answer.position
    }
  }
  loop().catch(error => end.signal.aborted || it.messages.push(String(error)))
  return it
}

/** Follows in that page: with the dialect on a WebSocket, and with an EventSource. */
async function follow(page, base) {
  await page.evaluate(base => new Promise((resolve, reject) => {
    Object.assign(window, { dialect: [], events: [], waiting: new Map, asked: 0 })
    const socket = new WebSocket(base.replace('http', 'ws') + '/all', 'v1.slotcast.json')
    window.publish = data => new Promise(resolve => {
      waiting.set(++asked, resolve)
      socket.send(JSON.stringify({ type: 'publish', channel: '/all', data, ref: asked }))
    })
    socket.onmessage = ({ data }) => {
      const event = JSON.parse(data)
      if (event.type === 'message') dialect.push(event.data)
      if (event.ref) waiting.get(event.ref)(event)
      if (event.type === 'welcome') {
        const source = new EventSource(base + '/all')
        source.onmessage = event => events.push(event.data)
        source.onopen = resolve
      }
    }
    socket.onerror = reject
  }), base)
}

async function visit(browser, url) {
  const context = await browser.newContext()
  browser.opened.push(context)
  const page = await context.newPage()
  page.on('pageerror', error => browser.complaints.push(String(error)))
  await page.goto(url, { timeout: DEADLINE })
  await until('the page', async () => (await page.locator('#status').textContent()) === 'Connected')
  return page
}

async function members(base) {
  const answer = await (await fetch(base + '/-/channels/all')).json()
  return answer.members
}

await finish(async () => {
  if (!BIN) throw new Error('set SLOTCAST_BIN')
  const broker = await startBroker(0, '--history-messages', '1000')
  const browser = await launch()
  try {
    await runAll(tests, browser, broker.url)
  } finally {
    await browser.close()
    await broker.stop()
  }
})
