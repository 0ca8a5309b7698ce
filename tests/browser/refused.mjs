// A page in a real Chromium reads why it is refused, however much it has on its way: the Close of a WebSocket, the
// answer of a fetch.
//
//   SLOTCAST_BIN=target/release/slotcast node refused.mjs
//
// TRIES (default 3) of each and size, of 1.1 to 64 MiB, compressed and not. The last line is `N passed, N failed`.

import { finish, launch, runAll, startBroker } from './harness.mjs'

const TRIES = Number(process.env.TRIES ?? 3)
const MIB = 1 << 20
const SIZES = [1.1, 1.5, 2, 8, 10, 64].map(mib => Math.round(mib * MIB))

const kinds = {
  // Chromium compresses every message where it may.
  'a WebSocket, compressed': { flags: [], expected: 1009, in: bySocket },
  'a WebSocket': { flags: ['--no-compression'], expected: 1009, in: bySocket },
  'a fetch': { flags: [], expected: 413, in: byFetch },
}

const tests = {}
for (const [name, kind] of Object.entries(kinds)) {
  for (const size of SIZES) tests[`${name} of ${(size / MIB).toFixed(1)} MiB is told ${kind.expected}, ${TRIES} times`] = browser => check(browser, kind, size)
}

async function check(browser, { flags, expected, in: run }, size) {
  const broker = await startBroker(0, ...flags)
  try {
    const context = await browser.newContext()
    browser.opened.push(context)
    const page = await context.newPage()
    await page.goto(broker.url + '/refused')
    const told = await page.evaluate(run, [size, TRIES])
    const others = told.filter(it => it !== expected)
    if (others.length) throw new Error(`${others.length} of ${TRIES} are told ${[...new Set(others)]}`)
  } finally {
    await broker.stop()
  }
}

// ---------------------------------------------------------------- in the page

/** The close codes of sockets that send this much at once, one socket after the other. */
async function bySocket([size, tries]) {
  // Noise does not shrink, so that a compressed message is as long on its way.
  const noise = new Uint8Array(size)
  for (let at = 0; at < size; at += 65536) crypto.getRandomValues(noise.subarray(at, at + 65536))
  const codes = []
  for (let n = 0; n < tries; n++) {
    codes.push(await new Promise(resolve => {
      const socket = new WebSocket(location.href.replace('http', 'ws'))
      socket.onopen = () => socket.send(noise)
      socket.onclose = event => resolve(event.code)
    }))
  }
  return codes
}

/** The statuses that answer posts of this size. */
async function byFetch([size, tries]) {
  const [body, statuses] = [new Blob([new Uint8Array(size)]), []]
  for (let n = 0; n < tries; n++) {
    statuses.push(await fetch(location.href, { method: 'POST', body }).then(answer => answer.status, String))
  }
  return statuses
}

await finish(async () => {
  const browser = await launch()
  try {
    await runAll(tests, browser)
  } finally {
    await browser.close()
  }
})
