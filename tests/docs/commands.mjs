// What runs each command of a shell.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { until } from '../browser/harness.mjs'
import { ask, FOREIGN, post, shell, startBroker } from './children.mjs'
import { commands, exists, page, ROOT, shape, spans } from './documents.mjs'

/** The first row that matches a command runs it: a function, or the reason why it is not run here. */
const COMMANDS = [
  [/^slotcast bench( URL)?$|^curl -d$/, 'not a whole command'],
  [/^slotcast bench ws:/, putsALoad],
  [/^slotcast (token|sign|explain)$/, 'not a whole command'],
  [/^slotcast token --.* > token$/, ends],
  [/^slotcast token --|^slotcast sign \S+ --/, prints],
  [/^slotcast explain --config/, explains],
  [/^slotcast --config slotcast\.toml$/, servesAsConfigured],
  [/^slotcast --config \S+ --admin-listen /, 'the command after it asks it'],
  [/^curl .*\/-\/revoke$/, revokes],
  [/^slotcast (--check )?--config \/etc\//, 'no file of this machine'],
  [/^systemctl reload slotcast$|^journalctl -u slotcast /, 'no service of this machine'],
  [/^slotcast --check --config slotcast\.toml$/, checks],
  [/^curl .*\$\(slotcast token /, asksWithToken],
  [/^openssl rand |^chmod /, ends],
  [/^slotcast (bench )?(--help|--version|--check)$/, ends],
  [/^slotcast( --|$)/, serves],
  [/^curl -N |^websocat /, follows],
  [/^curl .*wait=/, waits],
  [/^curl /, asks],
  [/^head /, ends],
  [/^cargo install --locked --path \.$/, isLocked], // the build itself is that of every suite, and takes minutes
  [/^cargo run --example /, hasExample], // the suite `examples` runs each
  [/^(cargo run --release|cargo test|cargo doc --open|cargo tree)$/, 'the other suites run it'],
  [/^([A-Z_]+=1 )?cargo test --(lib|test) \S+( \S+)?$/, hasTests],
  [/^bash tests\/silence\/run\.sh /, 'it takes minutes'],
  [/^python3 \S+$/, async command => assert.ok(exists(command.split(' ')[1]), command)],
  [/^make$|^make help$/, listsTargets],
  [/^(?:[A-Z_]+=\S+ )*make \S+$/, hasTarget], // each takes minutes
]

const used = new Set

/** Rows that no command needed. */
export const idle = () => COMMANDS.map(([pattern]) => String(pattern)).filter(pattern => !used.has(pattern))

/** Runs the commands of a block, one after the other. The reasons, if none of them is run here. */
export async function runEach(list, place) {
  const reasons = []
  for (const command of list) {
    const row = COMMANDS.find(([pattern]) => pattern.test(command))
    assert.ok(row, `nothing here runs ${command}`)
    used.add(String(row[0]))
    if (typeof row[1] === 'string') reasons.push(`${command}: ${row[1]}`)
    else await row[1](command, place)
  }
  if (reasons.length === list.length) return reasons.join('; ')
}

/** A command that ends by itself, well. */
async function ends(command, place) {
  return shell(command, place).ended()
}

/** What is explained of a channel is what its rule says. */
async function explains(command, place) {
  const { stdout } = await shell(command, place).ended()
  assert.match(stdout, /^channel  \/users\/42\/inbox\nrule     1 of 1: match = "\/users\/\{user\}\/\*\*",/)
  assert.match(stdout, /^shown    a token of user "42", key "backend",/m)
  assert.match(stdout, /^join by WebSocket +yes$/m)
  assert.match(stdout, /^POST, PUT +no: 403 forbidden$/m)
}

/** `slotcast` with flags runs, does what the flags say, and ends when it is interrupted. */
async function serves(command, place) {
  if (/ token\b/.test(command)) {
    const [makes] = spans(page('docs/security.md').prose).filter(span => span.includes('> token'))
    await shell(makes, place).ended()
  }
  const token = await readFile(join(place.folder, 'token'), 'utf8').catch(() => undefined)
  const broker = await startBroker(command, place.home, place.folder)
  const shown = command.includes('--publish-token-file') ? { Authorization: `Bearer ${token}` } : {}
  try {
    assert.equal((await fetch(broker.base + '/-/health')).status, 200)
    assert.equal((await post(broker.base + '/chat', 'x', shown)).status, 200)
    if (shown.Authorization) assert.equal((await post(broker.base + '/chat', 'x')).status, 401)
    const origin = command.match(/--origin (\S+)/)?.[1]
    if (origin) {
      assert.equal((await ask(broker.port, '/chat', { Origin: origin })).status, 200)
      assert.equal((await ask(broker.port, '/chat', { Origin: FOREIGN })).status, 403)
      assert.equal((await ask(broker.port, '/chat', { Host: new URL(origin).host })).status, 200)
    }
    if (broker.admin) assert.equal((await ask(broker.admin, '/-/metrics')).status, 200)
    assert.equal((await ask(broker.port, '/-/metrics')).status, origin || broker.admin ? 404 : 200)
  } finally {
    await broker.stop()
  }
}

/** A token, or a signed URL. */
async function prints(command, place) {
  const { stdout } = await shell(command, place).ended()
  const form = command.includes(' sign ') ? /^https?:\S+&sig=[\w-]{43}\n$/ : /^eyJ[\w-]+\.[\w-]+\.[\w-]{43}\n$/
  assert.match(stdout, form)
}

/** The file that the page shows is good. */
async function checks(command, place) {
  const file = page(place.name).blocks.find(block => block.language === 'toml')
  await writeFile(join(place.folder, 'slotcast.toml'), file.text)
  await writeFile(join(place.folder, 'token'), 'secret')
  const { stdout } = await shell(command, place).ended()
  assert.equal(stdout, 'the configuration is good\n')
}

/** The file that the page has shown before. */
async function servesAsConfigured(command, place) {
  const broker = await startBroker(command, place.home, place.folder)
  try {
    assert.equal((await fetch(broker.base + '/users/42/inbox')).status, 401)
  } finally {
    await broker.stop()
  }
}

async function asksWithToken(command, place) {
  const broker = await startBroker('slotcast --config slotcast.toml', place.home, place.folder)
  try {
    const { stdout } = await shell(command, { ...place, broker }).ended()
    const answer = JSON.parse(stdout)
    // What is published is told its position, and what is read its channel.
    if (command.includes(' -d ')) assert.match(answer.position, /\.1$/)
    else assert.equal(answer.channel, '/users/42/inbox')
  } finally {
    await broker.stop()
  }
}

/** The broker that the page starts before takes the tokens of a user back. */
async function revokes(command, place) {
  const all = page(place.name).blocks.flatMap(block => commands(block.text))
  const broker = await startBroker(all.find(it => it.includes('--admin-token-file')), place.home, place.folder)
  try {
    const { stdout } = await shell(command.replace('localhost:9090', `localhost:${broker.admin}`), place).ended()
    const answer = JSON.parse(stdout)
    assert.deepEqual([Object.keys(answer).join(), answer.user, answer.closed], ['user,before,closed', '42', 0])
    assert.ok((await readFile(join(place.folder, 'revoked'), 'utf8')).startsWith('{"user":"42","before":'))
  } finally {
    await broker.stop()
  }
}

/** The load has ended, and nothing was lost. */
async function putsALoad(command, place) {
  const { stdout } = await shell(command + ' --duration 1s --warmup 100ms', place).ended(60_000)
  for (const words of [/deliveries/i, /latency/i, /CPU/i]) assert.match(stdout, words)
}

/** `curl` that gets an answer at once. A shown answer has the same fields. */
async function asks(command, place) {
  await writeFile(join(place.folder, 'notes'), 'a line\r\nanother\n')
  const before = command.includes('--data') ? 'a line\r\nanother\n' : command.match(/-d '(.*?)'/)?.[1]
  const { stdout } = await shell(positioned(command, place), place).ended()
  const saved = command.match(/-o (\S+)/)?.[1]
  if (saved) return importsInNode(join(place.folder, saved), place)
  const answer = JSON.parse(stdout)
  assert.equal(answer.channel, '/chat')
  place.position = answer.position
  if (before !== undefined) {
    const { messages } = await (await fetch(place.broker.base + '/chat?last=1')).json()
    assert.equal(messages[0].data, before)
    const shown = spans(place.prose).find(span => /^{"channel":.*"receivers":/.test(span))
    if (shown) assert.deepEqual(shape(answer), shape(JSON.parse(shown)))
  } else if (command.includes('since=all')) {
    assert.ok(answer.messages.length > 0, stdout)
  }
}

/** `curl` that waits: it is answered when something is published. */
async function waits(command, place) {
  const before = await seen(place)
  const asked = shell(positioned(command, place), place)
  await until('the poll to wait', async () => await seen(place) > before)
  await post(place.broker.base + '/chat', 'what it waited for')
  const { stdout } = await asked.ended()
  const { messages, lost } = JSON.parse(stdout)
  assert.deepEqual(messages.map(it => it.data), ['what it waited for'])
  assert.equal(lost, null)
}

/** A follower gets what is published, until it is ended. */
async function follows(command, place) {
  const before = await seen(place)
  const follower = shell(command, place)
  try {
    await until('one subscriber more', async () => await seen(place) > before)
    const { position } = await (await post(place.broker.base + '/chat', 'a message')).json()
    await until('the message', () => follower.told.includes('a message'))
    if (command.includes('event-stream')) {
      assert.ok(follower.told.includes(`id: ${position}\n`) || follower.told.includes(`id:${position}\n`), follower.told)
    } else {
      follower.stdin.write('a line that is typed\n')
      await until('its own line', () => follower.told.includes('a line that is typed'))
    }
  } finally {
    await follower.kill()
    await until('it has left', async () => await seen(place) <= before)
  }
}

/** The members of /chat, and those who wait for it. */
async function seen(place) {
  const { channels } = await (await fetch(place.broker.base + '/-/channels')).json()
  return channels.find(it => it.channel === '/chat')?.subscribers ?? 0
}

/** What the document says to put in, and the position that it shows, become that of the answer before. */
function positioned(command, place) {
  if (!/since=(POSITION|k3f9a2c1)/.test(command)) return command
  assert.ok(place.position, 'no answer before this one has a position')
  return command.replace(/since=(POSITION|k3f9a2c1[.\w]*)/, `since=${place.position}`)
}

/** `cargo install --locked` refuses a lock file that does not fit. */
async function isLocked(_, place) {
  await shell('cargo tree --locked --edges normal', { ...place, folder: ROOT }).ended(60_000)
  assert.match(await readFile(join(ROOT, 'Cargo.toml'), 'utf8'), /^\[\[bin\]\]\nname = "slotcast"$/m)
}

async function hasExample(command) {
  const name = command.split(' ')[3]
  assert.ok(exists(`examples/${name}.rs`), command)
  const suite = await readFile(join(ROOT, 'tests/browser/examples.mjs'), 'utf8')
  assert.ok(suite.includes(`'${name}'`), `tests/browser/examples.mjs does not run ${name}`)
}

async function hasTests(command) {
  const test = command.match(/--test (\S+)/)?.[1]
  assert.ok(!test || test === 'NAME' || exists(`tests/${test}.rs`), command)
}

async function listsTargets(command, place) {
  const { stdout } = await shell(command, { ...place, folder: ROOT }).ended()
  for (const target of ['test', 'bench', 'screenshot']) assert.match(stdout, new RegExp(`^ +${target} `, 'm'))
}

async function hasTarget(command, place) {
  await shell(command.replace('make', 'make -n'), { ...place, folder: ROOT }).ended()
}

/** The module, saved to a file, follows and publishes from Node. */
async function importsInNode(file, place) {
  const { base } = place.broker
  const flag = Number(process.versions.node.split('.')[0]) < 22 ? '--experimental-websocket' : ''
  const script = `import { join } from ${JSON.stringify(file)}
    let heard
    const hears = new Promise(resolve => { heard = resolve })
    const chat = join('${base}/chat', { onmessage: it => heard(it.data) })
    await chat.publish('from Node')
    console.log(await hears)
    chat.close()`
  await writeFile(join(place.folder, 'script.mjs'), script)
  const { stdout } = await shell(`'${process.execPath}' ${flag} script.mjs`, place).ended()
  assert.equal(stdout, 'from Node\n')
}
