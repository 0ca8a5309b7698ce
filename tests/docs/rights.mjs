// What runs the blocks about rights: the configuration of rules, backends that give tokens, and recipes that sign.

import assert from 'node:assert/strict'
import { mkdtemp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { until } from '../browser/harness.mjs'
import { freePort, replaced, shell, startBroker } from './children.mjs'
import { page } from './documents.mjs'

// ---------------------------------------------------------------- rules

/** By words that tell a block: requests, the arguments of `slotcast token` for each, if there is one, and the status. */
const RULES = [
  ['match = "/users/{user}/**"', [
    ['GET', '/users/42/inbox', undefined, 401],
    ['GET', '/users/42/inbox', '--sub 42', 200],
    ['GET', '/users/42/inbox', '--sub 43', 403],
    ['GET', '/elsewhere', '--sub 42', 403],
    ['POST', '/users/42/inbox', '--sub 42', 403],
    ['POST', '/users/42/inbox', "--publish '/users/**'", 200],
  ]],
  ['match = "/private/**"', [
    ['GET', '/private/a', undefined, 401],
    ['GET', '/private/a', '--sub 42', 200],
    ['POST', '/private', undefined, 401],
    ['POST', '/private', '--sub 42', 200],
  ]],
  ['match = "/news"', [
    ['GET', '/news', undefined, 200],
    ['POST', '/news', undefined, 401],
    ['POST', '/news', '--sub 42', 403],
    ['POST', '/news', '--publish /news', 200],
  ]],
  // A key alone: the rest of the page signs with it.
  ['use = "url"', []],
]

/** A file with these tables lets in whom it should. A block without a key gets the first one of its page. */
export async function isConfigured({ text }, place) {
  const row = RULES.find(([words]) => text.includes(words))
  assert.ok(row, `nothing here knows what these rules let in\n${text}`)
  const first = page(place.name).blocks.find(block => block.text.startsWith('[[key]]')).text
  const folder = await mkdtemp(join(place.home, 'rules-'))
  const secrets = await Promise.all(['token.key', 'url.key'].map(name =>
    shell(`openssl rand -base64 48 >${name}`, { ...place, folder }).ended()))
  assert.equal(secrets.length, 2)
  await writeFile(join(folder, 'slotcast.toml'), text.includes('[[key]]') ? text : `${first}\n${text}`)
  if (text === first) await writeFile(join(place.folder, 'slotcast.toml'), text)
  const broker = await startBroker('slotcast --config slotcast.toml', place.home, folder)
  try {
    for (const [method, path, who, status] of row[1]) {
      const token = who && (await shell(`slotcast token --key-file token.key ${who}`, { ...place, folder }).ended()).stdout
      const headers = token ? { Authorization: `Bearer ${token.trim()}` } : {}
      const answer = await fetch(broker.base + path, { method, headers, body: method === 'POST' ? 'x' : undefined })
      assert.equal(answer.status, status, `${method} ${path} ${who ?? 'without a token'}: ${await answer.text()}`)
    }
  } finally {
    await broker.stop()
  }
}

// ---------------------------------------------------------------- backends

/** A backend gives a token to its user alone, and that opens the channels of this user alone. */
export async function servesTokens({ language, text }, place) {
  const port = await freePort()
  const name = language === 'js' ? 'backend.mjs' : 'backend.py'
  await writeFile(join(place.folder, name), replaced(text, '3000', String(port)))
  const backend = shell(`exec ${language === 'js' ? `'${process.execPath}'` : 'python3'} ${name}`, place)
  const broker = await startBroker('slotcast --config slotcast.toml', place.home, place.folder)
  try {
    const ask = headers => fetch(`http://localhost:${port}/token`, { headers })
    await until('the backend to answer', () => ask({}).then(() => true, () => !backend.running()))
    assert.ok(backend.running(), backend.told)
    for (const cookie of [undefined, 'session=other', 'x=b7f1']) {
      const answer = await ask(cookie ? { cookie } : {})
      assert.deepEqual([answer.status, await answer.text()], [401, ''], cookie)
    }
    const answer = await ask({ cookie: 'a=b; session=b7f1' })
    assert.equal(answer.status, 200)
    const headers = { Authorization: `Bearer ${await answer.text()}` }
    for (const [path, status] of [['/users/42/inbox', 200], ['/users/43/inbox', 403], ['/other', 403]])
      assert.equal((await fetch(broker.base + path, { headers })).status, status, path)
  } finally {
    await backend.kill()
    await broker.stop()
  }
}

// ---------------------------------------------------------------- recipes

const SECRET = 'a secret of at least thirty-two bytes\n'
const TIME = '1767225600'

/** By language: how a recipe asks for the time, the file that it stands in, and the program that runs it. */
const RECIPES = {
  sh: ['$(date +%s)', 'recipe.sh', 'bash'],
  js: ['Math.floor(Date.now() / 1000)', 'recipe.mjs', `'${process.execPath}'`],
  python: ['int(time.time())', 'recipe.py', 'python3'],
  php: ['time()', 'recipe.php', 'php'],
  go: ['time.Now().Unix()', 'recipe.go', 'go run'],
}

/** The two lines that the page shows. */
const shown = ({ text }) => text.replaceAll('\n ', '') + '\n'

/** The two lines that recipes print. tests/outside verifies them. */
export async function isVector(block) {
  assert.match(shown(block), /^eyJ\S+\nhttps:\S+\n$/)
  assert.ok(shown(block).includes(`&iat=${TIME}&`), 'the URL is of another time than the recipes are run at')
}

/** With the secret and the time of the page a recipe prints what the page shows. */
export async function isSigned({ language, text }, place) {
  const [clock, name, program] = RECIPES[language]
  const folder = await mkdtemp(join(place.home, 'recipe-'))
  const found = await shell(`command -v ${program.split(' ')[0]} || true`, { ...place, folder }).ended()
  if (!found.stdout) return `there is no ${program} here`
  for (const file of ['token.key', 'url.key']) await writeFile(join(folder, file), SECRET)
  const fixed = replaced(text, clock, TIME)
  await writeFile(join(folder, name), language === 'go' ? fixed.replace('var now =', 'var _ = time.Now\nvar now int64 =') : fixed)
  const { stdout } = await shell(`${program} ${name}`, { ...place, folder }).ended(60_000)
  const vector = page(place.name).blocks.find(block => block.language === 'text' && block.text.startsWith('eyJ'))
  assert.equal(stdout, shown(vector))
}
