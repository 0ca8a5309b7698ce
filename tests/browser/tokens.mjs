// Tokens and signed URLs, made as a backend would make them, and brokers that verify them.

import { createHmac } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startBroker } from './harness.mjs'

const SECRET = '0123456789abcdef0123456789abcdef'
const EVERYTHING = { subscribe: ['/**'], publish: ['/**'], presence: ['/**'], send: ['/**'] }

export const now = () => Math.floor(Date.now() / 1000)

/** A JWT with HS256 (RFC 7515 §3.1), good for `seconds`. */
export function mint(seconds = 3600, claims = {}) {
  const encode = it => Buffer.from(JSON.stringify(it)).toString('base64url')
  const payload = { sub: 'ann', iat: now(), exp: now() + seconds, slotcast: EVERYTHING, ...claims }
  const signed = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(payload)}`
  return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`
}

/** The parameters of a signed URL of this channel, whose key is `k1`. */
export function signUrl(channel, seconds = 3600) {
  const values = { can: 'sub,pub', exp: now() + seconds, iat: now(), key: 'k1', user: 'ann' }
  const lines = ['slotcast-url-v1', channel, ...Object.entries(values).map(([name, value]) => `${name}=${value}`)]
  const sig = createHmac('sha256', SECRET).update(lines.join('\n')).digest('base64url')
  return new URLSearchParams({ ...values, sig })
}

/**
 * Runs `body` with a broker that verifies tokens, without leeway; with `signs`, it has a key for signed URLs in place of
 * that.
 */
export async function withTokens(body, { signs = false, args = [] } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'slotcast-tokens-'))
  const [key, config] = [join(folder, 'key'), join(folder, 'slotcast.toml')]
  writeFileSync(key, SECRET, { mode: 0o600 })
  writeFileSync(config, `[[key]]\nid = "k1"\nalg = "HS256"\nuse = "url"\nfile = ${JSON.stringify(key)}\n`)
  let broker
  try {
    broker = await startBroker(0, ...signs ? ['--config', config] : ['--token-key-file', key], '--token-leeway', '0s', ...args)
    await body(broker)
  } finally {
    await broker?.stop()
    rmSync(folder, { recursive: true })
  }
}
