// Runs the commands and programs of the documents, taken from the documents: against a real broker, with real curl,
// websocat, Chromium, Node and cargo. Only addresses, and what a reader is told to put in, are replaced. What a document
// shows as the answer is compared. A block or a command that nothing here can run fails; add a row for it.
//
//   SLOTCAST_BIN=target/debug/slotcast WEBSOCAT=.tools/bin/websocat node tests/docs/run.mjs
//
// CHROMIUM names the browser. ONLY=words picks tests. The last line is `N passed, N failed`.

import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { BIN, DEADLINE, finish, launch, runAll, until } from '../browser/harness.mjs'
import { BLOCKS, idle as idlePrograms, isAUnit } from './blocks.mjs'
import { context, endAll, shell, startBroker } from './children.mjs'
import { idle as idleCommands, runEach } from './commands.mjs'
import { commands, documents, flags, isCommand, page, parsed, ROOT, spans } from './documents.mjs'

const WEBSOCAT = process.env.WEBSOCAT || 'websocat'

// ---------------------------------------------------------------- tests

/** A test for each block, and two for the prose of each page. */
function tests(home) {
  const all = {}
  for (const { name, blocks, prose } of documents()) {
    const place = { name, home, prose, position: undefined }
    for (const block of blocks) {
      const title = block.lines.find(line => line.trim())?.trim().slice(0, 50)
      all[`${name}:${block.line} ${block.language}: ${title}`] = browser => run(block, place, browser)
    }
    const inline = [...new Set(spans(prose).filter(isCommand))]
    if (inline.length) all[`${name}: commands in the text`] = () => runAllOf(inline, place)
    if (flags(prose).length) all[`${name}: flags in the text`] = () => areFlags(flags(prose), place)
  }
  all['README.md: windows that show what a shell publishes'] = showsInWindows
  all['docs/operations.md: what may be added to the unit'] = addsToTheUnit
  all['every script tells with -h how it is used'] = tellsItsUsage
  all['every row of this suite is used'] = () => {
    if (process.env.ONLY) return 'only some ran'
    assert.deepEqual([...idleCommands(), ...idlePrograms()], [], 'no document needs these any more')
  }
  all['bites what nothing can run'] = async browser => {
    const { blocks } = parsed(
      '```sh\ncurl --nowhere\n```\n  ```sh\n  frobnicate now   # why not\n  ```\n```cobol\nSTOP RUN.\n```\n')
    const place = { name: 'a page', home }
    assert.deepEqual(blocks.map(block => [block.line, block.language, block.text]),
      [[1, 'sh', 'curl --nowhere'], [4, 'sh', 'frobnicate now   # why not'], [7, 'cobol', 'STOP RUN.']])
    const reasons = [/exit status 2/, /nothing here runs frobnicate now$/, /nothing here runs a block of cobol/]
    for (const [i, why] of reasons.entries()) await assert.rejects(async () => run(blocks[i], place, browser), why)
  }
  return all
}

async function runAllOf(list, place) {
  await settle(place)
  return runEach(list, place)
}

/** Each page has a broker of its own, and a folder. What its blocks do one after the other builds upon each other. */
async function settle(place) {
  place.broker ??= await startBroker('slotcast', place.home)
  place.folder = place.broker.folder
}

async function run(block, place, browser) {
  const runner = BLOCKS[block.language]
  assert.ok(runner, `nothing here runs a block of ${block.language || 'no language'}`)
  await settle(place)
  return runner(block, place, browser)
}

// ---------------------------------------------------------------- prose

/** Every flag is one of the command's, and takes the value that it has in the text. */
async function areFlags(list, place) {
  await settle(place)
  const commands = ['slotcast --help', ...['bench', 'token', 'sign', 'explain'].map(word => `slotcast ${word} --help`)]
  const help = await Promise.all(commands.map(command => shell(command, place).ended()))
  const [broker, ...others] = help.map(({ stdout }) => new Set(stdout.match(/--[a-z-]+/g)))
  const flags = [...new Set(list.flatMap(span => span.match(/--[a-z]+(?:-[a-z]+)*/g)))]
  const strange = flags.filter(flag => !broker.has(flag) && !others.some(it => it.has(flag)) && !OTHERS.has(flag))
  assert.deepEqual(strange, [], 'there are no such flags')
  // A token, a secret, and a configuration.
  await writeFile(join(place.folder, 'FILE'), '#' + 'secret'.repeat(8))
  const whole = list.filter(span => / /.test(span) && broker.has(span.split(' ')[0]))
  const isForm = span => / ([A-Z]+|HOST:PORT)$/.test(span) && !/(TOKEN|FILE)$/.test(span)
  const also = span => span.startsWith('--admin-token-file') ? ' --admin-listen 9090' : ''
  for (const span of new Set(whole.filter(span => !isForm(span))))
    await shell(`slotcast --check ${span}${also(span)}`, place).ended()
}

/** Flags of other programs than slotcast that the text names. */
const OTHERS = new Set(['--sizes', '--runs', '--turn-ms', '--steps', '--example', '--lib', '--release'])

/** The README's first thing to try, and its second: two windows talk, and show what a shell publishes. */
async function showsInWindows(browser, home) {
  const { prose, blocks } = page('README.md')
  assert.ok(prose.includes('Open http://localhost:8080/chat in two browser windows'))
  const publish = blocks.flatMap(block => commands(block.text)).find(command => command.startsWith('curl -d'))
  const broker = await startBroker('slotcast', home)
  try {
    const windows = []
    for (let i = 0; i < 2; i++) {
      const tab = await (await context(browser)).newPage()
      tab.on('pageerror', error => browser.complaints.push(String(error)))
      await tab.goto(`http://localhost:${broker.port}/chat`, { timeout: DEADLINE })
      await until('the page', async () => (await tab.locator('#status').textContent()) === 'Connected')
      windows.push(tab)
    }
    await windows[0].locator('#form textarea').fill('what is typed')
    await windows[0].locator('#form textarea').press('Enter')
    await shell(publish, { broker, home, folder: broker.folder }).ended()
    for (const tab of windows)
      for (const words of ['what is typed', 'deploy done'])
        await until(words, async () => (await tab.locator('#log .text p').allTextContents()).includes(words))
  } finally {
    await broker.stop()
  }
}

/** Lines that the text beside the unit offers: systemd takes them, and the broker takes the variables. */
async function addsToTheUnit(_, home) {
  const { prose, blocks } = page('docs/operations.md')
  const lines = spans(prose).filter(span => /^(Environment|LoadCredential)=/.test(span))
  assert.equal(lines.length, 3)
  const place = { home, folder: await mkdtemp(join(home, 'unit-')) }
  await writeFile(join(place.folder, 'token'), 'secret')
  const variables = lines.map(line => line.match(/^Environment=(.*)$/)?.[1].replace('%d', place.folder)).filter(Boolean)
  await shell(`${variables.join(' ')} slotcast --check`, place).ended()
  return isAUnit(blocks.find(block => block.language === 'ini'), place, undefined, lines.join('\n') + '\n')
}

/** Scripts that are run by hand: a sentence, the usage, and what the environment may say. */
async function tellsItsUsage(_, home) {
  const place = { home, folder: ROOT }
  for (const script of SCRIPTS) {
    const { stdout } = await shell(`bash ${script} -h`, place).ended()
    assert.match(stdout, /^[A-Z][^]*\.\n/, script)
    assert.ok(stdout.includes(script.split('/').pop()), `${script}:\n${stdout}`)
    assert.ok(!stdout.includes('set -'), stdout)
  }
}

const SCRIPTS = ['tests/run.sh', 'tests/planted/run.sh', 'tests/silence/run.sh', 'tests/figures/run.sh', 'tests/websocat/run.sh',
  'tests/ghosts.sh', 'tests/autobahn/run-autobahn.sh', 'bench/run.sh', 'bench/peers/install.sh', 'fuzz/run.sh']

// ---------------------------------------------------------------- all of it

await finish(async () => {
  if (!BIN) throw new Error('set SLOTCAST_BIN')
  const home = await mkdtemp(join(tmpdir(), 'slotcast-docs-'))
  // Chromium takes a page that a test makes up for one of the internet, which may not reach this machine.
  const browser = await launch('--disable-features=LocalNetworkAccessChecks')
  try {
    await mkdir(join(home, 'bin'))
    await symlink(resolve(BIN), join(home, 'bin/slotcast'))
    if (WEBSOCAT.includes('/')) await symlink(resolve(WEBSOCAT), join(home, 'bin/websocat'))
    // An answer that is an error fails, and nothing is told of progress.
    await writeFile(join(home, '.curlrc'), 'fail-with-body\nsilent\nshow-error\n')
    await runAll(tests(home), browser, home)
  } finally {
    await browser.close()
    endAll()
    await rm(home, { recursive: true, maxRetries: 5 })
  }
})
