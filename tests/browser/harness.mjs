// What the suites in a real Chromium share: a broker as a child process, the browser, and the counting.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { chromium } from 'playwright-core'

export const DEADLINE = 10_000
export const BIN = process.env.SLOTCAST_BIN

let passed = 0
let failed = 0

/** Polls a condition until it holds; past the deadline it fails, naming what it waited for. */
export async function until(what, condition, deadline = DEADLINE) {
  const end = performance.now() + deadline
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`waited ${deadline} ms for ${what}`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

// ---------------------------------------------------------------- the broker, as a child process

/** A broker on that port, or on a free one. */
export async function startBroker(port = 0) {
  // SLOTCAST_* would configure it.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('SLOTCAST_') && name !== 'PORT'))
  const child = spawn(BIN, ['--listen', `127.0.0.1:${port}`], { stdio: ['ignore', 'ignore', 'pipe'], env })
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
      url = log.match(/listening on (http:\/\/\S+:\d+)/)?.[1]
      return url
    })
  } catch (error) {
    if (!ended) await stop()
    throw error
  }
  return { url, port: new URL(url).port, stop }
}

// ---------------------------------------------------------------- running

export function launch(...args) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync', ...args],
  })
}

/** Runs tests by name: contexts in `browser.opened` end with each, `browser.complaints` fail it. ONLY=words picks some. */
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
    console.log(error.stack)
  })
  console.log(`${passed} passed, ${failed} failed`)
  process.exitCode = failed || !passed ? 1 : 0
}
