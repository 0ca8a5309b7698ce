// Makes docs/chat.webp, the picture of the README: the page in two windows of a real Chromium, and a message of a shell.
//
//   SLOTCAST_BIN=target/release/slotcast node tests/browser/screenshot.mjs
//
// CHROMIUM names the browser. A picture of more than 60 KiB fails, and is not written.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { BIN, DEADLINE, launch, startBroker, until } from './harness.mjs'

const PICTURE = new URL('../../docs/chat.webp', import.meta.url).pathname
const LARGEST = 60 << 10
const WINDOW = { width: 520, height: 480 }
const GAP = 24

/** Who says what. Without a name it comes from a shell. */
const TALK = [
  ['Ann', 'Is the new version out?'],
  ['Ben', 'It is on its way, I look at the tests'],
  ['', 'deploy done'],
  ['Ann', 'There it is. Thanks!'],
]

async function open(browser, base, name) {
  const context = await browser.newContext({ viewport: WINDOW, colorScheme: 'light', deviceScaleFactor: 1 })
  const page = await context.newPage()
  await page.goto(`${base}/chat?name=${name}`, { timeout: DEADLINE })
  await until('the page', async () => (await page.locator('#status').textContent()) === 'Connected')
  return page
}

/** The windows side by side, as WebP. */
async function together(browser, shots) {
  const width = shots.length * (WINDOW.width + GAP) + GAP
  const page = await browser.newPage({ viewport: { width, height: WINDOW.height + 2 * GAP } })
  const images = shots.map(shot => `<img src="data:image/png;base64,${shot.toString('base64')}">`)
  await page.setContent(`<style>body { display: flex; gap: ${GAP}px; margin: ${GAP}px; background: #dfe6e5 }
    img { border-radius: 12px; box-shadow: 0 4px 18px #0003 }</style>${images.join('')}`)
  const session = await page.context().newCDPSession(page)
  const { data } = await session.send('Page.captureScreenshot', { format: 'webp', quality: 80 })
  return Buffer.from(data, 'base64')
}

if (!BIN) throw new Error('set SLOTCAST_BIN')
const broker = await startBroker()
const browser = await launch()
try {
  const base = broker.url.replace('127.0.0.1', 'localhost')
  const windows = { Ann: await open(browser, base, 'Ann'), Ben: await open(browser, base, 'Ben') }
  const pages = Object.values(windows)
  for (const [i, [name, text]] of TALK.entries()) {
    if (name) {
      await windows[name].locator('#form textarea').fill(text)
      await windows[name].locator('#form textarea').press('Enter')
    } else {
      await fetch(base + '/chat', { method: 'POST', body: text })
    }
    for (const page of pages) await until(text, async () => (await page.locator('#log .text p').count()) > i)
  }
  // No cursor that blinks.
  for (const page of pages) await page.evaluate(() => document.activeElement.blur())
  const shots = await Promise.all(pages.map(page => page.screenshot({ animations: 'disabled' })))
  const picture = await together(browser, shots)
  assert.ok(picture.length <= LARGEST, `the picture has ${picture.length} bytes, more than ${LARGEST}`)
  writeFileSync(PICTURE, picture)
  console.log(`docs/chat.webp: ${picture.length} bytes`)
} finally {
  await browser.close()
  await broker.stop()
}
