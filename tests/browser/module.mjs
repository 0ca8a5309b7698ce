// The module /-/slotcast.js: first alone, with a clock and WebSockets that the test makes; then on the page of a dev
// server in a real Chromium, against a real broker, over a wire that breaks.
//
//   SLOTCAST_BIN=target/debug/slotcast node module.mjs
//
// CHROMIUM names the browser, ONLY=words picks tests, SEED repeats the random ones. The last line is
// `N passed, N failed`.

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { BIN, DEADLINE, elsewhere, finish, launch, runAll, startBroker, startWire, until } from './harness.mjs'
import { mint, now, withTokens } from './tokens.mjs'

const RECONNECT_DEADLINE = 60_000
const SEED = Number(process.env.SEED ?? Date.now() % 1e9)
const source = await readFile(new URL('../../src/page/slotcast.min.js', import.meta.url))
const { join } = await import('data:text/javascript;base64,' + source.toString('base64'))

// ---------------------------------------------------------------- alone

const alone = {
  async 'where it connects to'() {
    for (const [url, options, expected] of [
      ['/chat', {}, 'ws://page.example:81/chat'],
      ['/chat', { name: 'Ann & Bob', since: 'all', last: 5 }, 'ws://page.example:81/chat?name=Ann+%26+Bob&since=all&last=5'],
      ['/chat', { name: '', since: undefined, last: null }, 'ws://page.example:81/chat'],
      ['chat?echo=0#here', {}, 'ws://page.example:81/at/chat?echo=0'],
      ['https://broker.example/chat', {}, 'wss://broker.example/chat'],
      ['http://[::1]:8080/chat', {}, 'ws://[::1]:8080/chat'],
      ['ws://broker.example/chat?name=Ann', { name: 'Bob' }, 'ws://broker.example/chat?name=Bob'],
      ['wss://broker.example:444/%2B', {}, 'wss://broker.example:444/%2B'],
    ]) {
      const world = new World()
      world.join(url, options)
      world.run(0)
      assert.deepEqual([world.socket.url, world.socket.protocols], [expected, ['v1.slotcast.json']])
    }
    assert.throws(() => new World().join('http://'), TypeError)
  },

  async 'nothing is told before join has returned'() {
    const world = new World()
    let seen
    const chat = world.join('/chat', { onwelcome: () => { seen = [chat.id, chat.channel, chat.position] } })
    assert.equal(world.sockets.length, 0)
    world.welcome('me1')
    assert.deepEqual(seen, ['me1', '/chat', 'e.0'])
  },

  async 'a publish is settled by its answer, whichever way it goes'() {
    const world = new World()
    const chat = world.join('/chat')
    const early = outcome(chat.publish('early'))
    world.welcome()
    assert.deepEqual(world.socket.sent, [{ channel: '/chat', type: 'publish', ref: 1, data: 'early' }], 'it has waited')
    const [late, direct, who] = [chat.publish('late'), chat.send('x7', 'psst'), chat.members()].map(outcome)
    assert.deepEqual(world.socket.sent.slice(1), [
      { channel: '/chat', type: 'publish', ref: 2, data: 'late' },
      { channel: '/chat', type: 'send', to: 'x7', ref: 3, data: 'psst' },
      { channel: '/chat', type: 'members', ref: 4 },
    ])
    world.socket.tell({ type: 'ack', ref: 1, channel: '/chat', position: 'e.1' })
    world.socket.tell({ type: 'members', ref: 4, channel: '/chat', count: 1, members: [{ id: 'me' }] })
    world.socket.tell({ type: 'error', ref: 3, code: 'unknown_receiver', message: 'There is nobody.' })
    world.socket.tell({ type: 'error', code: 'malformed', message: 'Send JSON.' })
    assert.equal((await early).position, 'e.1')
    assert.deepEqual((await who).members, [{ id: 'me' }])
    const error = await direct
    assert.deepEqual([error.message, error.cause.code], ['There is nobody.', 'unknown_receiver'])
    assert.equal(await settled(late), undefined)
    // Answers come to the caller only, and say nothing about what has been received.
    assert.deepEqual(world.told.map(([name]) => name), ['onwelcome', 'onerror'])
    assert.equal(chat.position, 'e.0')
    chat.close()
    assert.equal((await late).message, 'connection_lost')
  },

  async 'text and bytes go both ways'() {
    const world = new World()
    const chat = world.join('/chat')
    world.welcome()
    const bytes = new Uint8Array([0, 1, 127, 128, 254, 255])
    const base64 = 'AAF/gP7/'
    const big = new Uint8Array(1 << 20).fill(7)
    for (const [data, expected] of [
      ['', { data: '' }],
      ['grüße \u{1F980}\n"\\\u0000', { data: 'grüße \u{1F980}\n"\\\u0000' }],
      ['cut \ud83e', { data: 'cut \ufffd' }],
      [bytes, { data_base64: base64 }],
      [bytes.buffer, { data_base64: base64 }],
      [new Uint16Array(bytes.buffer), { data_base64: base64 }],
      [new DataView(bytes.buffer, 1, 2), { data_base64: 'AX8=' }],
      [bytes.subarray(2, 4), { data_base64: 'f4A=' }],
      [new Uint8Array(), { data_base64: '' }],
      [big, { data_base64: Buffer.from(big).toString('base64') }],
      // Any other object is sent unchanged, and the broker says why it does not take it.
      [{ a: 1 }, { data: { a: 1 } }],
      [7, { data: 7 }],
      [undefined, {}],
    ]) {
      chat.publish(data).catch(() => {})
      const { channel, type, ref, ...sent } = world.socket.sent.at(-1)
      assert.deepEqual(sent, expected)
    }
    world.message(1, { data: 'text' })
    world.message(2, { data: '' })
    world.message(3, { data_base64: base64 })
    world.message(4, { data_base64: '' })
    const got = world.told.filter(([name]) => name === 'onmessage').map(([, it]) => it.data)
    assert.deepEqual(got, ['text', '', bytes, new Uint8Array()])
    assert.ok(got[2] instanceof Uint8Array)
    chat.close()
  },

  async 'it goes on after the last position, and knows its own messages again'() {
    const world = new World()
    const chat = world.join('/chat', { since: 'all', last: 7 })
    const from = () => new URL(world.socket.url).searchParams.get('lastEventID')
    world.welcome('me1', 'e.4')
    assert.equal(from(), null)
    world.reconnect()
    assert.equal(from(), 'e.4', 'nothing has come, but it has a position')
    world.welcome('me2', 'e.4')
    world.message(5, { from: 'me1' })
    world.message(6, { from: 'me2' })
    world.message(7, { from: 'ann' })
    world.socket.tell({ type: 'message', time: 1, from: 'ann', data: 'to you alone' })
    world.socket.tell({ type: 'join', channel: '/chat', members: [{ id: 'me2' }] })
    assert.deepEqual(world.told.filter(([name]) => name === 'onmessage').map(([, it]) => it.mine), [true, true, false, false])
    world.reconnect()
    assert.equal(from(), 'e.7')
    world.welcome('me3', 'f.0')
    world.socket.tell({ type: 'lost', channel: '/chat', position: 'f.0', count: null, reason: 'epoch' })
    assert.deepEqual(world.told.at(-1)[1].reason, 'epoch')
    world.reconnect()
    assert.equal(from(), 'f.0')
    assert.equal(chat.position, 'f.0')
    assert.equal(new URL(world.socket.url).searchParams.getAll('lastEventID').length, 1)
    chat.close()
  },

  async 'what an old connection still says is not heard'() {
    const world = new World()
    const chat = world.join('/chat')
    world.welcome()
    const old = world.socket
    world.run(45_000)
    assert.ok(old.closed)
    world.run(1000)
    world.welcome('me2')
    assert.notEqual(old, world.socket)
    old.tell({ type: 'message', channel: '/chat', position: 'e.9', data: 'late' })
    old.shut(1000, '')
    assert.ok(!world.told.some(([name]) => name === 'onmessage'))
    assert.equal(chat.position, 'e.0')
    assert.ok(!world.socket.closed)
    chat.close()
  },

  async 'it waits longer each time, never for long, and never two the same'() {
    for (const [random, least, most] of [[0, 0.5, 0.5], [0.999, 0.999, 1], [0.5, 0.75, 0.75]]) {
      const world = new World({ random })
      const chat = world.join('/chat')
      world.run(0)
      for (const full of [1, 2, 4, 8, 16, 30, 30, 30]) {
        const before = world.sockets.length
        // Half of them never connect, half are closed at once.
        if (before % 2) world.socket.fail()
        else {
          world.welcome()
          world.socket.shut(1008, 'not_allowed')
        }
        const [, cause, wait] = world.told.at(-1)
        assert.ok(wait >= full * 1000 * least && wait <= full * 1000 * most, `${wait} of ${full}`)
        assert.equal(cause.code, before % 2 ? undefined : 1008)
        world.run(wait - 1)
        assert.equal(world.sockets.length, before)
        world.run(1)
        assert.equal(world.sockets.length, before + 1)
      }
      // A connection that lasted for a while is expected back soon.
      world.welcome()
      world.run(5001)
      world.socket.shut(1012, '')
      assert.ok(world.told.at(-1)[2] <= 1000)
      chat.close()
    }
  },

  async 'it does not wait when the network or the reader comes back'() {
    for (const wake of [world => world.dispatch('online'), world => world.dispatch('visibilitychange'), (_, chat) => chat.retry()]) {
      const world = new World()
      const chat = world.join('/chat')
      for (let i = 0; i < 8; i++) {
        world.run(30_000)
        world.socket.fail()
      }
      const before = world.sockets.length
      wake(world, chat)
      assert.equal(world.sockets.length, before + 1)
      wake(world, chat)
      assert.equal(world.sockets.length, before + 1, 'one at a time')
      world.welcome()
      wake(world, chat)
      assert.equal(world.socket.sent.length, 1, 'a connection that seems to live is asked')
      world.run(19_999)
      assert.ok(!world.socket.closed)
      world.run(1)
      assert.ok(world.sockets.at(before).closed)
      chat.close()
    }
  },

  async 'a connection that says nothing any more is given up'() {
    const world = new World()
    const chat = world.join('/chat')
    world.run(0)
    world.run(19_999)
    assert.ok(!world.socket.closed)
    world.run(1)
    assert.ok(world.socket.closed, 'no answer to the handshake')
    assert.deepEqual(world.told.at(-1).slice(0, 2), ['onclose', {}])
    world.run(1000)
    world.welcome()
    for (let i = 0; i < 10; i++) {
      world.run(24_999)
      assert.equal(world.socket.sent.length, 0, 'a connection that gets something need not ask')
      world.message(i + 1, { data: 'x' })
    }
    world.run(25_000)
    const [ask] = world.socket.sent
    assert.deepEqual([ask.type, ask.channel], ['members', '/~'], 'not about its own channel, which may be large')
    world.socket.tell({ type: 'members', ref: ask.ref, channel: '/~', count: 0, members: [] })
    assert.ok(!world.told.some(([name]) => name === 'onmembers'))
    world.run(25_000)
    assert.equal(world.socket.sent.length, 2)
    world.run(19_999)
    assert.ok(!world.socket.closed)
    world.run(1)
    assert.ok(world.socket.closed)
    // A command is a question, too; later commands do not put off the end.
    world.run(1000)
    world.welcome()
    const first = outcome(chat.publish('first'))
    for (let i = 0; i < 19; i++) {
      world.run(1000)
      chat.publish('more').catch(() => {})
    }
    assert.ok(!world.socket.closed)
    world.run(1000)
    assert.ok(world.socket.closed)
    assert.equal((await first).message, 'connection_lost')
    chat.close()
  },

  async 'what was sent and not answered fails with the connection, what was not sent goes with the next'() {
    const world = new World()
    const chat = world.join('/chat')
    world.welcome()
    const sent = outcome(chat.publish('sent'))
    world.socket.shut(1009, 'message_too_big')
    const unsent = outcome(chat.publish('unsent'))
    const error = await sent
    assert.deepEqual([error.message, error.cause.code, error.cause.reason], ['connection_lost', 1009, 'message_too_big'])
    world.run(1000)
    world.socket.fail()
    world.run(2000)
    assert.equal(await settled(unsent), undefined)
    world.welcome()
    assert.deepEqual(world.socket.sent.map(it => it.data), ['unsent'])
    world.socket.tell({ type: 'ack', ref: world.socket.sent[0].ref, channel: '/chat', position: 'e.1' })
    assert.equal((await unsent).position, 'e.1')
    chat.close()
  },

  async 'closed is closed'() {
    for (const when of ['before', 'connecting', 'open', 'waiting']) {
      const world = new World()
      const chat = world.join('/chat')
      const asked = outcome(chat.publish('x'))
      if (when !== 'before') world.run(0)
      if (when === 'open') world.welcome()
      if (when === 'waiting') world.socket.fail()
      const before = world.sockets.length
      chat.close()
      assert.equal((await asked).message, 'connection_lost', when)
      assert.equal((await outcome(chat.members())).message, 'connection_lost', when)
      chat.retry()
      world.dispatch('online')
      assert.equal(world.listening(), 0, when)
      if (world.socket) {
        world.socket.tell({ type: 'message', channel: '/chat', position: 'e.1', data: 'x' })
        assert.ok(world.socket.closed, when)
      }
      world.run(1e6)
      assert.equal(world.sockets.length, before, when)
      assert.deepEqual(world.told.filter(([name]) => name === 'onmessage'), [], when)
      // The last event, without a time for another try.
      assert.deepEqual([world.told.at(-1)[0], world.told.at(-1)[2]], ['onclose', undefined], when)
    }
  },

  async 'a token goes into the subprotocol, and into no address'() {
    for (const token of ['a.b.c', () => 'a.b.c', async () => 'a.b.c']) {
      const world = new World()
      const chat = world.join('/chat?last=1', { token })
      world.run(0)
      await world.settle()
      assert.deepEqual(world.socket.protocols, ['v1.slotcast.json', 'slotcast.token.a.b.c'])
      assert.equal(world.socket.url, 'ws://page.example:81/chat?last=1')
      world.socket.fail()
      await world.settle()
      assert.deepEqual(world.asked, [{ url: 'http://page.example:81/chat?last=1', accept: 'application/problem+json', authorization: 'Bearer a.b.c' }])
      chat.close()
    }
    for (const token of [undefined, '', () => undefined, async () => null]) {
      const world = new World()
      const chat = world.join('/chat', { token })
      world.run(0)
      await world.settle()
      assert.deepEqual(world.socket.protocols, ['v1.slotcast.json'])
      world.socket.fail()
      await world.settle()
      assert.deepEqual(Object.keys(world.asked[0]), ['url', 'accept'])
      chat.close()
    }
  },

  async 'a function is asked before every attempt, and one at a time'() {
    const world = new World()
    let asked = 0, give
    const chat = world.join('/chat', { token: () => new Promise((yes, no) => { give = { yes, no }; asked++ }) })
    world.run(0)
    await world.settle()
    assert.equal(world.sockets.length, 0, 'not before there is a token')
    chat.retry()
    world.dispatch('online')
    assert.equal(asked, 1)
    give.yes('one')
    await world.settle()
    assert.deepEqual(world.socket.protocols[1], 'slotcast.token.one')
    world.welcome()
    world.socket.shut(1006, '')
    world.run(1000)
    assert.equal(asked, 2)
    // What it throws is told, and counts as an attempt that failed.
    give.no(new Error('offline'))
    await world.settle()
    const [name, cause, wait] = world.told.at(-1)
    assert.deepEqual([name, cause.message, wait > 0], ['onclose', 'offline', true])
    assert.ok(!world.told.some(([name]) => name === 'onexpired'))
    // One that does not answer is waited for as long as a broker.
    world.run(wait)
    assert.equal(asked, 3)
    const late = give
    world.run(20_000)
    assert.equal(world.told.at(-1)[0], 'onclose')
    late.yes('late')
    await world.settle()
    assert.equal(world.sockets.length, 1)
    chat.close()
    world.run(1e6)
    assert.equal(asked, 3)
  },

  async 'a token is renewed on the open connection, before it expires'() {
    for (const [life, expected] of [[5, 2500], [100, 50_000], [3600, 3_540_000], [1, 1000], [1e8, 1e9], [-10, 60_000]]) {
      const world = new World()
      let count = 0
      const chat = world.join('/chat', { token: async () => `t${++count}` })
      world.run(0)
      await world.settle()
      world.welcome('me', 'e.0', { expires: world.seconds + life })
      for (let round = 2; round <= 4; round++) {
        // Something is heard now and then, or the connection would be asked for a sign of life.
        for (let waited = 0; waited < expected - 1; waited += 20_000) {
          world.message(1, { data: 'x' })
          world.run(Math.min(20_000, expected - 1 - waited))
          if (expected > 1e7 && waited === 0) break
        }
        if (expected > 1e7) break
        await world.settle()
        assert.equal(count, round - 1, `${life} s: not yet`)
        world.run(1)
        await world.settle()
        const sent = world.socket.sent.filter(it => it.type === 'token').at(-1)
        assert.deepEqual([sent.token, sent.type], [`t${round}`, 'token'], `${life} s`)
        world.socket.tell({ type: 'ack', ref: sent.ref, expires: world.seconds + life })
        await world.settle()
      }
      assert.equal(world.sockets.length, 1)
      chat.close()
      const before = count
      world.run(1e7)
      assert.equal(count, before, 'closed is closed')
    }
    // A string has no other.
    const world = new World()
    const chat = world.join('/chat', { token: 'a' })
    world.welcome('me', 'e.0', { expires: world.seconds + 5 })
    world.run(4999)
    assert.deepEqual(world.socket.sent, [])
    chat.close()
  },

  async 'a renewal that fails is tried again, until the token has expired'() {
    const world = new World()
    const answers = [async () => 'first', async () => { throw new Error('offline') }, () => { throw new Error('at once') }, async () => '', async () => 'refused', async () => 'good']
    let count = 0
    const chat = world.join('/chat', { token: () => answers[count++]() })
    world.run(0)
    await world.settle()
    const expires = world.seconds + 80
    world.welcome('me', 'e.0', { expires })
    const refuse = async code => {
      const { ref } = world.socket.sent.at(-1)
      world.socket.tell({ type: 'error', ref, code, message: 'No.' })
      await world.settle()
    }
    for (const wait of [20_000, 20_000, 20_000, 10_000, 5000]) {
      world.message(1, { data: 'x' })
      world.run(wait)
      await world.settle()
      // What is no token is refused like any other.
      if (count === 4) await refuse('malformed')
      if (count === 5) await refuse('token_invalid')
      world.message(1, { data: 'x' })
      await world.settle()
    }
    assert.equal(count, 5, 'after half of what is left, each time')
    world.run(2500)
    await world.settle()
    assert.equal(count, 6)
    const { ref, token } = world.socket.sent.at(-1)
    assert.equal(token, 'good')
    world.socket.tell({ type: 'ack', ref, expires: expires + 80 })
    await world.settle()
    assert.deepEqual(world.told.filter(([name]) => /onexpired|onclose/.test(name)), [])
    // A renewal that the end of the connection overtakes leaves nothing waiting.
    world.message(1, { data: 'x' })
    chat.close()
    await world.settle()
    world.run(1e7)
    assert.equal(count, 6)
  },

  async 'it stops where no other token helps'() {
    const functions = { token: async () => 'fresh' }
    for (const [options, reason, stops, expired] of [
      [{ token: 'a' }, 'token_expired', true, true],
      [{ token: 'a' }, 'forbidden', true, false],
      [{ token: 'a' }, 'revoked', true, false],
      [functions, 'token_expired', false, false],
      [functions, 'forbidden', true, false],
      [functions, 'revoked', true, false],
      [{}, 'token_expired', false, false],
      [{}, 'forbidden', true, false],
      [functions, 'not_allowed', false, false],
      [functions, 'forbidden_fruit', false, false],
    ]) {
      const world = new World()
      const chat = world.join('/chat', options)
      world.run(0)
      await world.settle()
      world.welcome()
      world.socket.shut(1008, reason)
      await world.settle()
      const what = `${typeof options.token} ${reason}`
      const [, cause, wait] = world.told.find(([name]) => name === 'onclose')
      assert.deepEqual([cause.code, cause.reason, wait === undefined], [1008, reason, stops], what)
      assert.equal(world.told.filter(([name]) => name === 'onexpired').length, Number(expired), what)
      world.run(1000)
      world.dispatch('online')
      await world.settle()
      assert.equal(world.sockets.length, stops ? 1 : 2, what)
      if (stops) assert.equal(world.listening(), 0)
      chat.close()
    }
  },

  async 'what the broker answers to the question why'() {
    const functions = () => ({ token: async () => 'fresh' })
    for (const [options, status, code, stops, expired] of [
      [{ token: 'a' }, 401, 'token_expired', true, true],
      [{ token: 'a' }, 401, 'token_invalid', true, true],
      [{}, 401, 'token_missing', true, true],
      [{ token: 'a' }, 403, 'forbidden', true, false],
      [functions(), 401, 'token_expired', false, true],
      [functions(), 401, 'token_invalid', false, true],
      [functions(), 403, 'forbidden', true, false],
      [functions(), 401, 'unauthorized', true, false],
      [functions(), 429, 'too_many_connections', false, false],
      [functions(), 503, 'channel_full', false, false],
      [functions(), 200, '', false, false],
    ]) {
      const world = new World()
      const chat = world.join('/chat', options)
      world.answer = [status, code]
      world.run(0)
      await world.settle()
      world.socket.fail()
      await world.settle()
      const what = `${typeof options.token} ${status} ${code}`
      const last = world.told.filter(([name]) => name === 'onclose').at(-1)
      assert.equal(last[2] === undefined, stops, what)
      if (stops || expired) assert.deepEqual(last[1], { code: status, reason: code + ': Because.' }, what)
      const why = world.told.filter(([name]) => name === 'onexpired').map(([, cause]) => cause)
      assert.deepEqual(why, expired ? [{ code: status, reason: code + ': Because.' }] : [], what)
      world.run(last[2] ?? 60_000)
      await world.settle()
      assert.equal(world.sockets.length, stops ? 1 : 2, what)
      chat.close()
    }
  },

  async 'a handler that throws gets no message twice'() {
    const world = new World()
    const seen = []
    const chat = world.join('/chat', { onmessage: it => { seen.push(it.data); throw new Error('on purpose') } })
    world.welcome()
    for (const data of ['a', 'b']) assert.throws(() => world.message(seen.length + 1, { data }), /on purpose/)
    world.reconnect()
    assert.equal(new URL(world.socket.url).searchParams.get('lastEventID'), 'e.2')
    assert.deepEqual(seen, ['a', 'b'])
    chat.close()
  },
}

/** The environment that the module runs in: a clock, timers, chance, WebSockets, an address and events. */
class World {
  sockets = []
  told = []
  asked = []
  answer
  #now = 1e12
  #timers = new Map
  #listeners = []
  #random

  constructor({ random = 0.5 } = {}) {
    this.#random = random
  }

  get socket() {
    return this.sockets.at(-1)
  }

  /** Joins, and records each event that has no handler. */
  join(url, options = {}) {
    const told = new Proxy(options, {
      get: (it, name) => it[name] ?? (/^on/.test(name) ? (...details) => this.told.push([name, ...details]) : undefined),
    })
    const chat = this.#within(() => join(url, told))
    const wrap = act => (...details) => this.#within(() => act(...details))
    for (const name of ['publish', 'send', 'members', 'retry', 'close']) chat[name] = wrap(chat[name])
    return chat
  }

  /** Lets time pass. */
  run(milliseconds) {
    const end = this.#now + milliseconds
    for (;;) {
      const due = [...this.#timers].filter(([, it]) => it.at <= end).sort(([, a], [, b]) => a.at - b.at)[0]
      if (!due) break
      this.#timers.delete(due[0])
      this.#now = due[1].at
      this.#within(due[1].act)
    }
    this.#now = end
  }

  /** Lets what is promised come true. */
  async settle() {
    const restore = this.#enter()
    for (let i = 0; i < 50; i++) await null
    restore()
  }

  /** What the world shows as its time, in Unix seconds. */
  get seconds() {
    return this.#now / 1000
  }

  dispatch(type) {
    for (const it of this.#live()) if (it.type === type) this.#within(() => it.act({ type }))
  }

  listening() {
    return this.#live().length
  }

  welcome(id = 'me', position = 'e.0', more = {}) {
    this.run(0)
    this.socket.tell({ type: 'welcome', id, channel: '/chat', position, members: 1, ...more })
  }

  message(offset, fields) {
    this.socket.tell({ type: 'message', channel: '/chat', position: `e.${offset}`, time: 1, ...fields })
  }

  /** The connection breaks, and the module opens the next. */
  reconnect() {
    const before = this.sockets.length
    this.socket.fail()
    while (this.sockets.length === before) this.run(100)
  }

  #live() {
    return this.#listeners.filter(it => !it.signal.aborted)
  }

  #within(act) {
    const restore = this.#enter()
    try {
      return act()
    } finally {
      restore()
    }
  }

  /** Puts this world in the place of the real one, until what it returns is called. */
  #enter() {
    const world = this
    const fakes = {
      location: new URL('http://page.example:81/at/page?x=1#there'),
      addEventListener: (type, act, { signal }) => world.#listeners.push({ type, act, signal }),
      setTimeout(act, milliseconds = 0, ...details) {
        const key = {}
        world.#timers.set(key, { at: world.#now + milliseconds, act: () => act(...details) })
        return key
      },
      clearTimeout(key) { world.#timers.delete(key) },
      // The module asks why a WebSocket has failed. Without `answer`, there is none.
      async fetch(url, { headers }) {
        world.asked.push({ url, ...headers })
        if (!world.answer) throw new TypeError('Failed to fetch')
        const [status, code] = world.answer
        return { status, ok: status === 200, json: async () => ({ code, detail: 'Because.' }) }
      },
      WebSocket: class {
        sent = []
        closed = false
        constructor(url, protocols) {
          Object.assign(this, { url: String(url), protocols })
          world.sockets.push(this)
        }
        send(text) { this.sent.push(JSON.parse(text)) }
        close() { this.closed = true }
        tell(event) { world.#within(() => this.onmessage({ data: JSON.stringify(event) })) }
        shut(code, reason) { world.#within(() => this.onclose({ type: 'close', code, reason })) }
        fail() {
          world.#within(() => this.onerror({ type: 'error' }))
          this.shut(1006, '')
        }
      },
    }
    const kept = Object.keys(fakes).map(name => [name, Object.getOwnPropertyDescriptor(globalThis, name)])
    const [now, random] = [Date.now, Math.random]
    for (const [name, value] of Object.entries(fakes)) Object.defineProperty(globalThis, name, { value, configurable: true })
    Date.now = () => this.#now
    Math.random = () => this.#random
    return () => {
      Object.assign(Date, { now })
      Object.assign(Math, { random })
      for (const [name, was] of kept) was ? Object.defineProperty(globalThis, name, was) : delete globalThis[name]
    }
  }
}

/** The result of a promise: its value, or its error. */
const outcome = promise => promise.then(it => it, error => error)

/** The same if it is settled by now, else undefined. */
const settled = promise => Promise.race([promise, new Promise(resolve => setImmediate(resolve))])

// ---------------------------------------------------------------- in a browser

const inBrowser = {
  async 'a page of a dev server imports it and uses all of it'(browser) {
    await withWire(browser, [], async (wire, broker) => {
      for (const host of ['localhost', '127.0.0.1']) {
        const [ann, bob] = [await open(browser, wire.url, host), await open(browser, wire.url, host)]
        await follow(ann, `${wire.url}/${host}`, { name: 'Ann' })
        await follow(bob, `${wire.url.replace('http', 'ws')}/${host}`, { name: 'Bob' })
        const ack = await ann.evaluate(() => chat.publish('hello'))
        assert.match(ack.position, /^\w+\.1$/)
        await bob.evaluate(() => chat.publish(new Uint8Array([0, 255])))
        await post(broker.url, 'by HTTP', '/' + host)
        for (const page of [ann, bob]) await heardAll(page, ['hello', [0, 255], 'by HTTP'])
        const [hello] = await heard(bob)
        assert.deepEqual([hello.name, hello.mine, hello.channel], ['Ann', false, '/' + host])
        assert.equal((await heard(ann))[0].mine, true)
        // Members, and a message to one member alone.
        const { count, members } = await ann.evaluate(() => chat.members())
        assert.deepEqual([count, members.map(it => it.name).sort()], [2, ['Ann', 'Bob']])
        await ann.evaluate(to => chat.send(to, 'psst'), members.find(it => it.name === 'Bob').id)
        await heardAll(bob, ['hello', [0, 255], 'by HTTP', 'psst'])
        assert.equal((await heard(bob))[3].position, undefined)
        const refused = await ann.evaluate(() => chat.send('zzz', 'x').catch(error => [error.message, error.cause.code]))
        assert.equal(refused[1], 'unknown_receiver')
        // A member that comes later gets what is kept; the others are told when one leaves.
        const eve = await open(browser, wire.url, host)
        await follow(eve, `${wire.url}/${host}?since=all`)
        await heardAll(eve, ['hello', [0, 255], 'by HTTP'])
        await bob.evaluate(() => chat.close())
        await until('that Bob has left', () => ann.evaluate(() => told.some(it => it.type === 'leave' && it.name === 'Bob')))
        assert.equal(await ann.evaluate(() => document.title), 'dev server')
      }
    })
  },

  async 'over a wire that breaks in mid-stream there is neither a gap nor a double'(browser) {
    console.log(`      SEED=${SEED}`)
    const random = generator(SEED)
    await withWire(browser, ['--history-messages', '2000', '--history-bytes', '16MiB'], async (wire, broker) => {
      const page = await open(browser, wire.url, 'localhost')
      await follow(page, wire.url + '/stream', { impatient: true })
      const sent = []
      for (let i = 0; i < 600; i++) {
        sent.push(`${i} ${'x'.repeat(random() * 2000)}`)
        await post(broker.url, sent.at(-1), '/stream')
        // Within a frame's head, within a message, between two, or before it has begun again.
        if (i % 40 === 20) random() < 0.3 ? wire.cut() : wire.cutAfter(Math.floor(random() * 6000))
        if (i % 40 === 30) await until('a connection', () => wire.count() > 0, RECONNECT_DEADLINE)
      }
      await heardAll(page, sent)
      const positions = (await heard(page)).map(it => Number(it.position.split('.')[1]))
      assert.deepEqual(positions, sent.map((_, i) => i + 1))
      const told = await page.evaluate(() => told.map(it => it.type))
      assert.ok(told.filter(it => it === 'welcome').length >= 5, 'it did break')
      assert.ok(!told.includes('lost'))
    })
  },

  async 'what was acknowledged is there once, what was not is there at most once'(browser) {
    const random = generator(SEED + 1)
    await withWire(browser, ['--history-messages', '2000'], async (wire, broker) => {
      const page = await open(browser, wire.url, 'localhost')
      await follow(page, wire.url + '/mine', { impatient: true })
      await page.evaluate(() => { window.outcomes = [] })
      for (let i = 0; i < 500; i++) {
        await page.evaluate(i => { chat.publish(String(i)).then(() => outcomes.push([i, true]), () => outcomes.push([i, false])) }, i)
        if (i % 50 === 25) random() < 0.5 ? wire.cut() : wire.cutAfter(Math.floor(random() * 1000))
      }
      await until('500 answers', () => page.evaluate(() => outcomes.length === 500), RECONNECT_DEADLINE)
      const kept = (await (await fetch(broker.url + '/mine')).json()).messages.map(it => it.data)
      await until('all that is kept', async () => (await heard(page)).length >= kept.length, RECONNECT_DEADLINE)
      assert.deepEqual((await heard(page)).map(it => it.data), kept)
      assert.equal(new Set(kept).size, kept.length, 'none twice')
      const outcomes = await page.evaluate(() => outcomes)
      for (const [i, done] of outcomes) if (done) assert.ok(kept.includes(String(i)), `${i} was acknowledged`)
      assert.ok(outcomes.some(([, done]) => done))
    })
  },

  async 'one connection lives on by renewed tokens, and nothing is lost or doubled meanwhile'(browser) {
    const LIFE = 5
    await withTokens(async broker => {
      const backend = { authorization: 'Bearer ' + mint() }
      const minted = []
      let renews = true
      const sockets = []
      const page = await open(browser, broker.url, 'localhost', async page => {
        page.on('websocket', socket => {
          const one = { url: socket.url(), sent: [], got: [] }
          sockets.push(one)
          socket.on('framesent', ({ payload }) => one.sent.push(JSON.parse(payload)))
          socket.on('framereceived', ({ payload }) => one.got.push(JSON.parse(payload)))
        })
        await page.exposeFunction('askToken', async () => {
          if (!renews) throw new Error('not any more')
          minted.push(now() + LIFE)
          return mint(LIFE)
        })
      })
      await follow(page, broker.url + '/tokens', { token: 'ask' })
      const published = []
      let goes = true
      const publishing = (async () => {
        for (let next = performance.now(); goes; next += 50) {
          published.push(String(published.length))
          await post(broker.url, published.at(-1), '/tokens', backend)
          await new Promise(resolve => setTimeout(resolve, next + 50 - performance.now()))
        }
      })()
      try {
        // Three renewals, each of which the broker has confirmed, and the token of the beginning is long over.
        const [first] = sockets
        const renewals = () => first.sent.filter(it => it.type === 'token')
          .map(({ ref }) => first.got.find(it => it.type === 'ack' && it.ref === ref)?.expires)
        await until('three renewals', () => renewals().filter(Boolean).length >= 3, 30_000)
        await until('the end of the first token', () => now() > minted[0], 30_000)
        const seen = (await heard(page)).length
        await until('more messages', async () => (await heard(page)).length >= seen + 20)
        const expiries = [first.got[0].expires, ...renewals()]
        assert.deepEqual(expiries.slice(0, 4), minted.slice(0, 4), 'each answer tells when the new one expires')
        assert.equal(sockets.length, 1, 'on one connection')
        assert.deepEqual((await page.evaluate(() => told.map(it => it.type))).filter(it => /down|lost|expired/.test(it)), [])
        // No more of it: the connection ends with the last token, and says why. Then there is no other one.
        renews = false
        await until('the end', () => page.evaluate(() => told.some(it => it.type === 'expired')), 30_000)
        const ends = await page.evaluate(() => told.filter(it => it.type === 'down' || it.type === 'expired'))
        assert.deepEqual([ends[0].type, ends[0].code, ends[0].reason], ['down', 1008, 'token_expired'])
        assert.ok(now() >= minted.at(-1), 'not before')
        const expired = ends.find(it => it.type === 'expired')
        assert.equal(expired.code, 401)
        assert.match(expired.reason, /^token_expired: /)
        // With a token again it goes on where it was.
        renews = true
        await until('another connection', async () => {
          await page.evaluate(() => chat.retry())
          return page.evaluate(() => told.filter(it => it.type === 'welcome').length === 2)
        }, RECONNECT_DEADLINE)
      } finally {
        goes = false
        await publishing
      }
      await heardAll(page, published)
      assert.ok(published.length > 200, `${published.length} messages`)
      for (const { url } of sockets) assert.match(url, /\/tokens(\?lastEventID=[\w.]+)?$/)
      await page.evaluate(() => chat.close())
    })
  },

  async 'a string is shown as long as it is good'(browser) {
    await withTokens(async broker => {
      const page = await open(browser, broker.url, 'localhost')
      await follow(page, broker.url + '/string', { token: mint(2) })
      await until('the end', () => page.evaluate(() => told.some(it => it.type === 'expired')))
      const ends = await page.evaluate(() => told.filter(it => it.type === 'down' || it.type === 'expired').map(it => [it.type, it.code, it.reason, it.wait]))
      assert.deepEqual(ends, ['down', 'expired'].map(type => [type, 1008, 'token_expired', undefined]))
      // It is over: nothing wakes it.
      await page.evaluate(() => chat.retry())
      assert.equal(await page.evaluate(() => told.at(-1).type), 'expired')
      // The reason of a refusal comes by HTTP, also to a page of another origin.
      for (const [token, code, reason] of [
        ['bogus', 401, /^token_invalid: /], [mint(-1), 401, /^token_expired: /],
        [mint(60, { slotcast: { subscribe: ['/other'] } }), 403, /^forbidden: /], [undefined, 401, /^token_missing: /],
      ]) {
        await page.evaluate(([url, token]) => {
          window.ended = undefined
          join(url, { token, onclose: (why, wait) => { if (!wait) window.ended = [why.code, why.reason] } })
        }, [broker.url + '/string', token])
        await until(reason, () => page.evaluate(() => window.ended))
        const ended = await page.evaluate(() => window.ended)
        assert.equal(ended[0], code)
        assert.match(ended[1], reason)
      }
    })
  },

  async 'a half-open connection is noticed, and nothing is missed'(browser) {
    await withWire(browser, [], async (wire, broker) => {
      const page = await open(browser, wire.url, 'localhost', page => page.clock.install())
      await follow(page, wire.url + '/half')
      await post(broker.url, 'before', '/half')
      await heardAll(page, ['before'])
      const expected = ['before']
      for (const [said, told] of [[true, true], [false, true]]) {
        wire.lose(said, told)
        await post(broker.url, 'meanwhile', '/half')
        await page.clock.runFor(25_000)
        await page.clock.runFor(20_000)
        await until('that it is given up', () => page.evaluate(() => told.at(-1).type === 'down'))
        wire.lose(false, false)
        await page.clock.runFor(1000)
        await until('another connection', () => page.evaluate(() => told.at(-1).type !== 'down'), RECONNECT_DEADLINE)
        await post(broker.url, 'after', '/half')
        // A message that is still under way when the next silence begins would put off its end.
        expected.push('meanwhile', 'after')
        await heardAll(page, expected)
      }
      assert.ok(!(await page.evaluate(() => told.some(it => it.type === 'lost'))))
    })
  },

  async 'after a restart of the broker it tells that something is lost, and goes on'(browser) {
    let broker = await startBroker()
    try {
      const page = await open(browser, broker.url, 'localhost')
      await follow(page, broker.url + '/chat')
      await post(broker.url, 'before', '/chat')
      await heardAll(page, ['before'])
      await broker.stop()
      broker = await startBroker(broker.port)
      await until('another welcome', () => page.evaluate(() => told.filter(it => it.type === 'welcome').length === 2), RECONNECT_DEADLINE)
      await post(broker.url, 'after', '/chat')
      await heardAll(page, ['before', 'after'])
      const lost = await page.evaluate(() => told.filter(it => it.type === 'lost'))
      assert.deepEqual(lost.map(it => [it.count, it.reason]), [[null, 'epoch']])
    } finally {
      await broker.stop()
    }
  },
}

// ---------------------------------------------------------------- pages of a dev server

/** A page with this host name and another port, which imports the module from the broker. */
async function open(browser, broker, host, before) {
  const context = await browser.newContext()
  browser.opened.push(context)
  const page = await context.newPage()
  page.on('pageerror', error => browser.complaints.push(String(error)))
  await before?.(page)
  const html = `<!doctype html><title>dev server</title><link rel="icon" href="data:,"><script type="module">
    import { join } from '${broker}/-/slotcast.js'
    window.join = join
  </script>`
  await elsewhere(html, host, url => page.goto(url, { timeout: DEADLINE }))
  await until('the module', () => page.evaluate(() => typeof join === 'function'))
  return page
}

/** Joins in that page and records events; connected when this returns. `impatient` does not wait to come back. */
async function follow(page, url, options = {}) {
  await page.evaluate(([url, options]) => {
    window.told = []
    const handlers = Object.fromEntries(['welcome', 'message', 'lost', 'join', 'leave', 'rejoin', 'members', 'error']
      .map(type => ['on' + type, event => told.push(event)]))
    if (options.token === 'ask') options.token = () => window.askToken()
    window.chat = join(url, {
      ...options, ...handlers,
      onexpired: ({ code, reason }) => told.push({ type: 'expired', code, reason }),
      onclose({ code, reason }, wait) {
        told.push({ type: 'down', wait, code, reason })
        if (wait && options.impatient) setTimeout(() => chat.retry(), 50)
      },
    })
  }, [url, options])
  await until('the welcome', () => page.evaluate(() => told.some(it => it.type === 'welcome')))
}

const heard = page => page.evaluate(() => told.filter(it => it.type === 'message')
  .map(it => ({ ...it, data: typeof it.data === 'string' ? it.data : [...it.data] })))

/** Waits for the last of `expected`; these and no others must have come, in this order. */
async function heardAll(page, expected) {
  await until(`${expected.length} messages`, async () => (await heard(page)).length >= expected.length, RECONNECT_DEADLINE)
  assert.deepEqual((await heard(page)).map(it => it.data), expected)
}

async function post(base, text, channel, headers = {}) {
  const answer = await fetch(base + channel, { method: 'POST', body: text, headers })
  assert.equal(answer.status, 200)
}

async function withWire(browser, args, body) {
  const broker = await startBroker(0, ...args)
  const wire = await startWire(broker.port, /^upgrade: websocket/im)
  try {
    await body(wire, broker)
  } finally {
    // Pages that try to reconnect to a broker that has gone would complain.
    for (const context of browser.opened.splice(0)) await context.close()
    wire.stop()
    await broker.stop()
  }
}

/** Numbers from 0 to 1, the same for the same seed. */
function generator(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let it = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    it = (it + Math.imul(it ^ (it >>> 7), 61 | it)) ^ it
    return ((it ^ (it >>> 14)) >>> 0) / 2 ** 32
  }
}

// ---------------------------------------------------------------- running

async function main() {
  await runAll(alone, {})
  if (!BIN) throw new Error('set SLOTCAST_BIN')
  const browser = await launch()
  try {
    await runAll(inBrowser, browser)
  } finally {
    await browser.close()
  }
}

await finish(main)
