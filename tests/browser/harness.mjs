// The parts that all suites in a real Chromium share: a broker as a child process, the browser, and the counting.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import net from 'node:net'
import { chromium } from 'playwright-core'

export const DEADLINE = 10_000
export const BIN = process.env.SLOTCAST_BIN

let passed = 0
let failed = 0

/** What browsers log when a server, or the way to it, is gone: it depends on how far the answer has come. */
export const GONE = new RegExp('WebSocket connection to .* failed|net::ERR_(CONNECTION_(REFUSED|RESET|CLOSED|ABORTED)|' +
  'EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING|CONTENT_LENGTH_MISMATCH|SOCKET_NOT_CONNECTED)')

/** A page that was being left while it was looked at. */
const LEFT = /Execution context was destroyed|Cannot find context with specified id/

/**
 * Polls a condition until it holds; after the deadline it fails, and names what it waited for. A page that is just being
 * left for another is looked at again.
 */
export async function until(what, condition, deadline = DEADLINE) {
  const end = performance.now() + deadline
  const holds = async () => {
    try {
      return await condition()
    } catch (error) {
      if (!LEFT.test(error.message)) throw error
    }
  }
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`waited ${deadline} ms for ${what}`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

// ---------------------------------------------------------------- the broker, as a child process

/** Starts a broker on this port, or on a free one, with any other arguments. */
export async function startBroker(port = 0, ...args) {
  // SLOTCAST_* would configure it.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('SLOTCAST_') && name !== 'PORT'))
  const child = spawn(BIN, ['--listen', `127.0.0.1:${port}`, ...args], { stdio: ['ignore', 'ignore', 'pipe'], env })
  let log = ''
  let ended = false
  const gone = new Promise(resolve => child.once('close', resolve)).then(() => { ended = true })
  child.once('error', error => { log += error; ended = true })
  child.stderr.setEncoding('utf8').on('data', chunk => { log = (log + chunk).slice(-20_000) })
  const stop = async () => {
    if (!ended) child.kill('SIGKILL')
    await gone
  }
  let url
  try {
    await until('the listening line', () => {
      assert.ok(!ended, `the broker ended:\n${log}`)
      // A line may come in pieces: the space after the port shows that the port is whole.
      url = log.match(/listening on (http:\/\/\S+:\d+)\s/)?.[1]
      return url
    })
  } catch (error) {
    if (!ended) await stop()
    throw error
  }
  return { url, port: new URL(url).port, stop }
}

// ---------------------------------------------------------------- a wire to it that can be cut, and pages from elsewhere

/** A TCP proxy in front of the broker that records what goes through it. It cuts connections whose requests match. */
export async function startWire(port, which) {
  const pairs = new Set()
  const past = []
  let deaf = false, mute = false
  const server = net.createServer(near => {
    const far = net.connect(port, '127.0.0.1')
    const pair = { near, far, asked: '', told: '', left: Infinity }
    pairs.add(pair)
    past.push(pair)
    pair.cut = () => {
      pairs.delete(pair)
      near.destroy()
      far.destroy()
    }
    near.on('data', chunk => {
      pair.asked += chunk.toString('latin1')
      if (!deaf) far.write(chunk)
    })
    far.on('data', chunk => {
      if (mute) return
      pair.told += chunk.toString('latin1')
      if (chunk.length < pair.left) {
        near.write(chunk)
        pair.left -= chunk.length
      } else {
        pairs.delete(pair)
        far.destroy()
        near.write(chunk.subarray(0, pair.left), () => near.destroy())
      }
    })
    for (const [one, other] of [[near, far], [far, near]]) {
      one.on('end', () => other.end())
      one.on('error', pair.cut)
      one.on('close', pair.cut)
    }
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const chosen = () => [...pairs].filter(pair => which.test(pair.asked))
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    /** Breaks connections: now, or within what they get next. */
    cut: () => chosen().forEach(pair => pair.cut()),
    cutAfter: bytes => chosen().forEach(pair => { pair.left = bytes }),
    /** How many such connections there are. */
    count: () => chosen().length,
    /** Whether what peers send, and what they are sent, gets lost. Nobody notices: that is what half-open means. */
    lose: (said, told) => { [deaf, mute] = [said, told] },
    /** Requests, each with the status of its answer. */
    exchanges: () => past.flatMap(({ asked, told }) => {
      const heads = [...asked.matchAll(/(GET|HEAD|POST|PUT|DELETE|OPTIONS) \S+ HTTP\/1\.1\r\n[^]*?\r\n\r\n/g)]
      const statuses = [...told.matchAll(/HTTP\/1\.1 (\d{3}) /g)]
      return heads.map(([head, method], i) => ({ method, head, status: Number(statuses[i]?.[1]) }))
    }),
    stop() {
      server.close()
      for (const pair of pairs) pair.cut()
    },
  }
}

/** Runs `body` while another server on this machine, with this host name, serves this page. */
export async function elsewhere(html, host, body) {
  const server = http.createServer((_, answer) => answer.setHeader('Content-Type', 'text/html').end(html))
  await once(server.listen(0, '127.0.0.1'), 'listening')
  try {
    return await body(`http://${host}:${server.address().port}/`)
  } finally {
    server.close()
    server.closeAllConnections()
  }
}

// ---------------------------------------------------------------- running

export function launch(...args) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync', ...args],
  })
}

/** Runs tests by name. After each, closes `browser.opened`; `browser.complaints` fail it. ONLY=words picks some. */
export async function runAll(tests, browser, ...rest) {
  const only = process.env.ONLY
  for (const [name, body] of Object.entries(tests)) if (!only || name.includes(only)) await run(name, body, browser, ...rest)
}

async function run(name, body, browser, ...rest) {
  browser.opened = []
  browser.complaints = []
  try {
    const skipped = await body(browser, ...rest)
    assert.deepEqual(browser.complaints, [], 'the browser complained')
    if (skipped) return console.log(`skip  ${name}: ${skipped}`)
    passed++
    console.log(`ok    ${name}`)
  } catch (error) {
    failed++
    console.log(`FAIL  ${name}\n${error.stack}`)
    if (browser.complaints.length) console.log(browser.complaints.join('\n'))
  } finally {
    for (const context of browser.opened) await context.close()
  }
}

/** Runs all of it; the last line is `N passed, N failed`. */
export async function finish(main) {
  await main().catch(error => {
    failed++
    console.log(`FAIL  what is beside the tests\n${error.stack}`)
  })
  console.log(`${passed} passed, ${failed} failed`)
  process.exitCode = failed || !passed ? 1 : 0
}
