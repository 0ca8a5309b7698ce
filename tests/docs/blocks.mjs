// What runs each block of code that is not for a shell.

import assert from 'node:assert/strict'
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { BIN, DEADLINE, elsewhere, until } from '../browser/harness.mjs'
import { ask, context, FOREIGN, freePort, here, post, replaced, shell, sockets, startBroker } from './children.mjs'
import { runEach } from './commands.mjs'
import { commands, documents, page, ROOT, shape } from './documents.mjs'
import { isConfigured, isSigned, isVector, servesTokens } from './rights.mjs'

/** By language. */
export const BLOCKS = {
  sh: (block, place) => isRecipe(block) ? isSigned(block, place) : runEach(commands(block.text), place),
  html: fromElsewhere,
  js: (block, place, browser) => block.text.includes("'node:")
    ? (isRecipe(block) ? isSigned : servesTokens)(block, place) : inAPage(block, place, browser),
  python: (block, place) => (isRecipe(block) ? isSigned : servesTokens)(block, place),
  php: isSigned,
  go: isSigned,
  json: isAnswered,
  toml: (block, place) => /^\[\[(channel|key)\]\]$/m.test(block.text) ? isConfigured(block, place) : dependsOn(block, place),
  rust: servesAsProgram,
  ini: isAUnit,
  text: isLogged,
  nginx: inProxies,
  caddy: inProxies,
  haproxy: inProxies,
}

/** A program that signs a token and a URL. */
const isRecipe = ({ text }) => text.includes('slotcast-url-v1')

/** What Rust programs of the documents answer: words that tell a program, and what shows that it runs. */
const PROGRAMS = [
  ['verify_with', async ({ base }) => {
    for (const [path, headers, status] of [
      ['/users/42/inbox', {}, 401],
      ['/users/42/inbox', { Authorization: 'Bearer b7f1' }, 200],
      ['/users/42/inbox', { Authorization: 'Bearer other' }, 401],
      ['/users/43/inbox', { Authorization: 'Bearer b7f1' }, 403],
      ['/users/42/inbox', { Cookie: 'session=b7f1', 'Sec-Fetch-Site': 'same-origin' }, 200],
      ['/users/42/inbox', { Cookie: 'session=b7f1', 'Sec-Fetch-Site': 'cross-site' }, 403],
    ]) assert.equal((await ask(new URL(base).port, path, headers)).status, status, path + JSON.stringify(headers))
  }],
  ['read_only', async ({ base }) => {
    assert.equal((await post(base + '/news/today', 'x')).status, 403)
    assert.equal((await (await post(base + '/elsewhere', 'x')).json()).receivers, 0)
  }],
  ['members_only', async ({ base, socket }) => {
    const asked = await socket(base, 'v1.slotcast.json')
    await asked.say({ type: 'members', channel: '/chat', ref: 1 }, { type: 'publish', channel: '/chat', data: 'x', ref: 2 })
    await asked.hears(it => it.type === 'members' && it.ref === 1)
    await asked.hears(it => it.code === 'members_only' && it.ref === 2)
  }],
  ['thought about', async ({ base }) => assert.equal(await (await fetch(base + '/x')).text(), 'thought about /x')],
  ['server.send(id, message)', async ({ base, socket }) => {
    const echo = await socket(base)
    await echo.say('as it was')
    await echo.hears(it => it === 'as it was')
    assert.equal((await fetch(base + '/x')).status, 404)
  }],
  ['relay.handle(&mut server, event)', async ({ base }) => {
    assert.equal((await (await post(base + '/chat', 'x')).json()).receivers, 0)
  }],
]

const used = new Set

/** Programs that no document has. */
export const idle = () => PROGRAMS.map(([words]) => words).filter(words => !used.has(words))

/** A page of another server on this machine: it says its own words back. */
async function fromElsewhere(block, place, browser) {
  const said = []
  const context = await browser.newContext()
  browser.opened.push(context)
  const tab = await context.newPage()
  tab.on('pageerror', error => browser.complaints.push(String(error)))
  tab.on('console', message => said.push(message.text()))
  await elsewhere(`<!doctype html><meta charset=utf-8>${here(block.text, place)}`, 'localhost', async url => {
    await tab.goto(url, { timeout: DEADLINE })
    await until('its own words', () => said.includes('hello'))
  })
}

/** A script in a page. `show` is the page's own. */
async function inAPage(block, place, browser) {
  if (block.text.includes('/my-backend/')) return 'a part of a page with a backend: tests/browser/module.mjs renews tokens'
  const isModule = block.text.includes('import ')
  const base = `http://localhost:${place.broker.port}`
  const script = here(block.text, place)
  const tab = await (await context(browser)).newPage()
  const said = []
  tab.on('pageerror', error => browser.complaints.push(String(error)))
  tab.on('console', message => said.push(message.text()))
  const ready = isModule ? '' : ';chat.onopen = () => chat.send("hello")'
  await tab.route(base + '/of-the-manual', route => route.fulfill({
    contentType: 'text/html',
    body: `<!doctype html><script>const show = (...words) => console.log(words.join(' '))</script>
      <script type="${isModule ? 'module' : 'text/javascript'}">${script}${ready}</script>`,
  }))
  await tab.goto(base + '/of-the-manual', { timeout: DEADLINE })
  const expected = isModule ? ['connected', 'Ann hello'] : ['hello']
  for (const words of expected) await until(words, () => said.includes(words))
}

/** JSON that is shown: each object has the fields of a real one, in their order; commands are answered. */
async function isAnswered(block, place, browser) {
  if (block.text.includes('"exp":')) return void JSON.parse(block.text) // claims, which tests/outside verifies
  const examples = block.text.split(/\n(?=\S)/).map(object => JSON.parse(object))
  const real = await told(examples, place, browser)
  for (const example of examples) {
    const name = example.type ?? 'answer'
    const fits = real.some(it => isLike(shape(example), shape(it)))
    const others = real.filter(it => it.type === example.type).map(it => JSON.stringify(it)).join('\n')
    assert.ok(fits, `no ${name} is like\n${JSON.stringify(example)}\nbut\n${others}`)
  }
}

async function told(examples, place, browser) {
  if (examples.every(it => !it.type)) {
    const { base } = place.broker
    await post(base + '/chat', 'hi')
    return [await (await fetch(base + '/chat?last=1')).json()]
  }
  const open = await sockets(browser)
  if (examples.every(it => ['publish', 'subscribe', 'unsubscribe', 'members', 'send'].includes(it.type))) {
    const ann = await open(place.broker.base + '/chat', 'v1.slotcast.json')
    const { id } = await ann.hears(it => it.type === 'welcome')
    for (const example of examples) {
      await ann.say(example.to ? { ...example, to: id, ref: 'sent' } : example)
      await ann.hears(it => it.type === 'ack' && it.ref === (example.to ? 'sent' : example.ref))
    }
    return examples
  }
  return [...await usual(open, place), ...await crowded(open, place)]
}

/** Events of a channel in which somebody comes, speaks, goes and comes back. */
async function usual(open, place) {
  const broker = await startBroker('slotcast --leave-grace 1s --history-messages 2', place.home)
  try {
    const ben = await open(broker.base + '/chat', 'v1.slotcast.json')
    await ben.hears(it => it.type === 'welcome')
    let ann = await open(broker.base + '/chat?name=Ann', 'v1.slotcast.json')
    await ben.hears(it => it.type === 'join' && it.name === 'Ann')
    await ann.say({ type: 'publish', channel: '/chat', data: 'hi', ref: 7 })
    const { position } = await ann.hears(it => it.type === 'ack')
    await ben.hears(it => it.type === 'message')
    await ann.say({ type: 'nonsense', ref: 8 })
    await ann.hears(it => it.type === 'error')
    await ann.close()
    const again = await open(broker.base + '/chat?name=Ann', 'v1.slotcast.json')
    await ben.hears(it => it.type === 'rejoin')
    for (let i = 0; i < 5; i++) await post(broker.base + '/chat', String(i))
    const eve = await open(`${broker.base}/chat?since=${position}`, 'v1.slotcast.json')
    await eve.hears(it => it.type === 'lost')
    await again.close()
    await ben.hears(it => it.type === 'leave')
    return (await Promise.all([ann, ben, eve].map(it => it.heard()))).flat()
  } finally {
    await broker.stop()
  }
}

/** Events of a channel that has more members than are told by name. */
async function crowded(open, place) {
  const broker = await startBroker('slotcast --max-presence 1', place.home)
  try {
    const ann = await open(broker.base + '/chat', 'v1.slotcast.json')
    await ann.hears(it => it.type === 'welcome')
    await open(broker.base + '/chat', 'v1.slotcast.json')
    return [await ann.hears(it => it.type === 'members')]
  } finally {
    await broker.stop()
  }
}

/** Whether the example has fields of the real one, in its order. An example with several members shows more of them. */
function isLike(example, real) {
  if (Array.isArray(example)) return Array.isArray(real) && example.length > 0 && isLike(example[0], real[0])
  if (typeof example !== 'object' || example === null) return example === real
  if (typeof real !== 'object' || real === null) return false
  const keys = Object.keys(real).filter(key => key in example)
  const many = Array.isArray(example.members) && example.members.length > 1
  if (!many && Object.keys(real).length !== keys.length) return false
  return Object.keys(example).join() === keys.join() && keys.every(key => isLike(example[key], real[key]))
}

/** A dependency as the document has it, in a crate with the page's programs. */
async function dependsOn(block, place) {
  if (block.text.startsWith('# /etc/slotcast/')) return 'a command of the page checks it'
  // It was put beside the dependencies that come before it: programs that need it were built with it.
  if (block.text.startsWith('[dev-dependencies]')) return assert.ok(place.crate?.manifest.includes(block.text), 'not built with it')
  assert.match(block.text, /^\[dependencies\]\nslotcast = /, `nothing here runs\n${block.text}`)
  place.crate = await crate(block.text, place)
}

async function crate(manifest, place) {
  const folder = join(place.folder, 'crate')
  const programs = page(place.name).blocks.filter(block => block.language === 'rust')
  await mkdir(join(folder, 'src/bin'), { recursive: true })
  await mkdir(join(folder, 'examples'), { recursive: true })
  const others = page(place.name).blocks.filter(({ text }) => text.startsWith('[dev-dependencies]')).map(({ text }) => text)
  manifest = [manifest, ...others].join('\n')
  const name = `of-${place.name.replace(/\W+/g, '-').toLowerCase()}`
  await writeFile(join(folder, 'Cargo.toml'), `[package]\nname = "${name}"\nedition = "2024"\n\n[workspace]\n\n` +
    manifest.replaceAll('path = "../slotcast"', `path = ${JSON.stringify(ROOT)}`))
  await copyFile(join(ROOT, 'tests/outside/Cargo.lock'), join(folder, 'Cargo.lock'))
  const ports = {}
  for (const { line, text } of programs) {
    ports[line] = await freePort()
    await writeFile(join(folder, `${isTest(text) ? 'examples' : 'src/bin'}/at_${line}.rs`),
      text.replace(/listen_on\("\d+"\)/, `listen_on("127.0.0.1:${ports[line]}")`))
  }
  // Where tests/outside is built, with the same features: what it has built is not built again.
  const target = join(resolve(ROOT, process.env.CARGO_TARGET_DIR || 'target'), 'outside')
  await shell(`cargo build --quiet --bins --examples --target-dir '${target}'`, { ...place, folder }).ended(600_000)
  return { ports, manifest, program: (line, text) => join(target, `debug/${isTest(text) ? 'examples/' : ''}at_${line}`) }
}

/** Whether a program is a test: it needs what only tests depend on, and ends by itself. */
const isTest = text => text.includes('slotcast::testing')

/** A program of a document answers as it should. It is built with the dependency that its page has. */
async function servesAsProgram(block, place, browser) {
  if (isTest(block.text)) return shell(`'${place.crate.program(block.line, block.text)}'`, place).ended()
  const row = PROGRAMS.find(([words]) => block.text.includes(words))
  assert.ok(row, 'nothing here knows what this program answers')
  used.add(row[0])
  assert.ok(place.crate, 'the page has no [dependencies] before its programs, or they were not built')
  const base = `http://localhost:${place.crate.ports[block.line]}`
  const program = shell(`exec '${place.crate.program(block.line, block.text)}'`, place)
  try {
    await until('the program to answer', () => fetch(base + '/').then(() => true, () => !program.running()))
    assert.ok(program.running(), program.told)
    await row[1]({ base, socket: await sockets(browser) })
  } finally {
    await program.kill()
  }
}

/** The unit is one that systemd takes. */
export async function isAUnit(block, place, _, added = '') {
  const timeout = Number(block.text.match(/^TimeoutStopSec=(\d+)s$/m)[1])
  const { stdout } = await shell('slotcast --help', place).ended()
  assert.ok(timeout > Number(stdout.match(/--shutdown-timeout .*\[(\d+)s\]/)[1]), 'TimeoutStopSec is too short')
  const text = replaced(block.text, '/usr/local/bin/slotcast', BIN).replace('[Service]\n', `[Service]\n${added}`)
  await writeFile(join(place.folder, 'slotcast.service'), text)
  const { stderr } = await shell('systemd-analyze verify --man=no ./slotcast.service', place).ended()
  assert.ok(!stderr.includes('slotcast.service:'), stderr)
}

/** A line of the log that is shown is in the log. */
async function isLogged(block, place) {
  if (/─/.test(block.text)) return 'a drawing'
  if (block.text.startsWith('eyJ')) return isVector(block, place)
  assert.ok(block.text.startsWith('refused ws /chat '), `nothing here runs\n${block.text}`)
  const upgrade = { 'Connection': 'Upgrade', 'Upgrade': 'websocket', 'Sec-WebSocket-Version': 13 }
  const headers = { ...upgrade, 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==', 'Origin': FOREIGN }
  assert.equal((await ask(place.broker.port, '/chat', headers)).status, 403)
  const portless = text => text.replaceAll(/(127\.0\.0\.1):\d+/g, '$1:PORT')
  await until('the line in the log', () => portless(place.broker.log()).includes(portless(block.text.trim())))
}

/** tests/proxies runs the configurations of proxies: all that there are. */
async function inProxies(block) {
  const suite = await readFile(join(ROOT, 'tests/proxies/proxies.py'), 'utf8')
  const calls = [...suite.matchAll(/snippet\("(\w+)"(?:, (\d+))?\)/g)]
  const run = new Set(calls.map(([, language, number = 0]) => `${language} ${number}`))
  const all = documents().filter(({ name }) => /^(README|docs\/)/.test(name)).flatMap(({ blocks }) => blocks)
  const number = all.filter(({ language }) => language === block.language).length
  for (let i = 0; i < number; i++)
    assert.ok(run.has(`${block.language} ${i}`), `tests/proxies does not run ${block.language} ${i}`)
}
