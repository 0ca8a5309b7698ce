// What runs: children of this suite, which end with it; requests; and WebSockets of a browser.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp } from 'node:fs/promises'
import http from 'node:http'
import net from 'node:net'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { DEADLINE, elsewhere, until } from '../browser/harness.mjs'

/** Of a page that may not connect, as docs/security.md has it. */
export const FOREIGN = 'http://x:5173'

/** Every child is a group of its own, and ends with the suite. */
const groups = new Set

export const endAll = () => groups.forEach(group => process.kill(-group, 'SIGKILL'))
process.once('exit', endAll)
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.once(signal, () => process.exit(1))

/** Runs a command as it stands, with the address of this place's broker in it. */
export function shell(command, place, more = {}) {
  const bare = Object.entries(process.env).filter(([name]) => !/^(SLOTCAST_|PORT$|RUST_LOG$|MAKE)/.test(name))
  const env = {
    ...Object.fromEntries(bare),
    PATH: `${join(place.home, 'bin')}:${process.env.PATH}:${process.env.CARGO_HOME || homedir() + '/.cargo'}/bin`,
    CURL_HOME: place.home,
    ...more,
  }
  const child = spawn('bash', ['-c', here(command, place)], { cwd: place.folder, env, detached: true })
  groups.add(child.pid)
  let stdout = '', stderr = '', status
  child.stdout.setEncoding('utf8').on('data', chunk => { stdout += chunk })
  child.stderr.setEncoding('utf8').on('data', chunk => { stderr += chunk })
  child.stdin.on('error', () => {})
  const closed = once(child, 'close').then(([code, signal]) => {
    groups.delete(child.pid)
    status = code ?? signal
  })
  const it = {
    stdin: child.stdin,
    pid: child.pid,
    get told() { return stdout + stderr },
    running: () => status === undefined,
    signal: name => status === undefined && process.kill(-child.pid, name),
    /** Waits until it has ended well. */
    async ended(deadline = DEADLINE) {
      child.stdin.end()
      try {
        await until(`the end of ${command}`, () => status !== undefined, deadline)
      } finally {
        await it.kill()
      }
      assert.equal(status, 0, `exit status ${status} of ${command}\n${stdout}${stderr}`)
      return { stdout, stderr }
    },
    async kill() {
      it.signal('SIGKILL')
      await closed
      return status
    },
    closed,
  }
  return it
}

/** Runs a `slotcast` command on a free port of this machine: PORT is in the environment, and addresses are replaced. */
export async function startBroker(command, home, folder) {
  folder ??= await mkdtemp(join(home, 'place-'))
  const port = await freePort()
  const admin = command.includes('--admin-listen') ? await freePort() : undefined
  const child = shell('exec ' + command
    .replace(/--listen :?(\d+)\b/, `--listen 127.0.0.1:${port}`)
    .replace(/--admin-listen 9090/, `--admin-listen 127.0.0.1:${admin}`), { home, folder }, { PORT: String(port) })
  await until('the broker to listen', () => {
    assert.ok(child.running(), `the broker ended:\n${child.told}`)
    return child.told.includes(`:${port} `) || new RegExp(`listening on http://\\S+:${port}\\s`).test(child.told)
  })
  return {
    base: `http://localhost:${port}`,
    port,
    admin,
    folder,
    child,
    log: () => child.told,
    async stop() {
      child.signal('SIGINT')
      try {
        await until('the broker to end', () => !child.running())
      } finally {
        const status = await child.kill()
        assert.equal(status, 0, `the broker's exit status: ${child.told}`)
      }
    },
  }
}

/** The address of the documents becomes that of the broker. */
export function here(text, place) {
  if (!place.broker) return text
  const { port, child } = place.broker
  return text
    .replaceAll('localhost:8080', `localhost:${port}`)
    .replace('$(pidof -s slotcast)', child.pid)
}

export function replaced(text, old, now) {
  assert.ok(text.includes(old), `there is no ${old} in\n${text}`)
  return text.replace(old, now)
}

export async function freePort() {
  const server = net.createServer()
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

// ---------------------------------------------------------------- HTTP and WebSockets

export const post = (url, body, headers = {}) => fetch(url, { method: 'POST', body, headers })

/** A GET as curl sends it, with any header field, also those that `fetch` does not let one set. */
export function ask(port, path, headers = {}) {
  return new Promise((resolve, reject) => {
    const fields = { Connection: 'keep-alive', ...headers }
    const request = http.get({ port, host: '127.0.0.1', path, headers: fields, agent: false }, answer => {
      request.destroy()
      resolve({ status: answer.statusCode })
    })
    request.on('upgrade', (answer, socket) => {
      socket.destroy()
      resolve({ status: answer.statusCode })
    })
    request.on('error', reject)
  })
}

export async function context(browser) {
  const context = await browser.newContext()
  browser.opened.push(context)
  return context
}

/** Opens WebSockets in a page of another server on this machine. */
export async function sockets(browser) {
  const tab = await (await context(browser)).newPage()
  await elsewhere('<!doctype html>', 'localhost', url => tab.goto(url, { timeout: DEADLINE }))
  await tab.evaluate(() => { window.all = [] })
  return async (base, ...protocols) => {
    const number = await tab.evaluate(([url, protocols]) => new Promise((resolve, reject) => {
      const socket = new WebSocket(url, protocols)
      const heard = []
      socket.onmessage = event => heard.push(event.data)
      socket.onopen = () => resolve(all.push({ socket, heard }) - 1)
      socket.onerror = () => reject(new Error(`no WebSocket to ${url}`))
    }), [base.replace('http', 'ws'), protocols])
    const heard = async () => {
      const all = await tab.evaluate(number => window.all[number].heard, number)
      return protocols.length ? all.map(text => JSON.parse(text)) : all
    }
    return {
      heard,
      say: (...all) => tab.evaluate(([number, all]) => all.forEach(text => window.all[number].socket.send(text)),
        [number, all.map(it => typeof it === 'string' ? it : JSON.stringify(it))]),
      close: () => tab.evaluate(number => window.all[number].socket.close(), number),
      async hears(which) {
        let found
        await until(`what ${which} wants`, async () => (found = (await heard()).find(which)) !== undefined)
        return found
      },
    }
  }
}
