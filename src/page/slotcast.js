// Follows a channel of slotcast, and comes back. How to use it: docs/page.md.
//
// Served at /-/slotcast.js is slotcast.min.js, which a test in minify.rs makes of this: the same statements without
// comments and spaces, at most 2.5 KiB. So names are short, and nothing is here that can be left out. It needs a global
// WebSocket and nothing of a page: it runs in workers and in Node, too.

export function join(url, on = {}) {
  // `up`: since when we are connected, undefined if not. `owed`: whether the broker owes us a word. `timer`: the only one;
  // there is always one thing that is waited for. `asks`: commands without an answer, by `ref`. `ids`: who we are, and who
  // we were before we came back.
  let ws, up, owed, timer, over, ref = 0, pace = 500, asks = new Map, ids = new Set, end = new AbortController,
  to = new URL(url, globalThis.location),
  set = (key, it) => it && to.searchParams.set(key, it),
  after = (ms, act) => timer = setTimeout(act, ms, clearTimeout(timer)),

  connect = () => {
    // What an older one still says does not count: those messages come again.
    let me = ws = new WebSocket(to, 'v1.slotcast.json')
    me.onmessage = e => me == ws && hear(JSON.parse(e.data))
    me.onclose = me.onerror = e => me == ws && drop(e)
    after(2e4, drop)
  },

  hear = e => {
    let { type, ref, data_base64: raw } = e, it = asks.get(ref)
    owed = after(25e3, ping) && 0
    if (ref != null) return asks.delete(ref) && (type == 'error' ? it.no(Error(e.message, { cause: e })) : it.yes(e))
    // Where to go on. This parameter counts before whatever the address says about the beginning.
    set('lastEventID', e.position && (chat.position = e.position))
    if (raw != null) e.data = Uint8Array.from(atob(raw), c => c.charCodeAt())
    if (type == 'welcome') {
      up = Date.now()
      ids.add(chat.id = e.id)
      chat.channel = e.channel
      asks.forEach(say)
    }
    e.mine = ids.has(e.from)
    on['on' + type]?.(e)
  },

  say = it => {
    ws.send(JSON.stringify({ channel: chat.channel, ...it }))
    it.sent = owed ||= after(2e4, drop)
  },
  // A half-open connection tells nothing by itself, and scripts do not see the broker's pings. So after a silence the
  // broker is asked for something small: who is in a channel that nobody uses.
  ping = () => say({ type: 'members', channel: '/~', ref: 0 }),
  wake = () => up ? ping() : ws || over || connect(),

  drop = (cause = {}, wait) => {
    clearTimeout(timer)
    if (ws && !up && !over) why().catch(() => {})
    ws?.close()
    // One that did not live long counts like one that failed, or what is refused at once would be tried in a hot loop.
    pace = Date.now() - up > 5e3 ? 1e3 : Math.min(2 * pace, 3e4)
    ws = up = owed = void 0
    asks.forEach(it => (it.sent || over) && asks.delete(it.ref) && it.no(Error('connection_lost', { cause })))
    over || after(wait = pace * (1 + Math.random()) / 2, connect)
    on.onclose?.(cause, wait)
  },

  // Browsers hide why a WebSocket was refused; so the broker is asked. Where it says that the fault is ours, it is of no
  // use to try again.
  why = async () => {
    let it = await fetch(('' + to).replace('ws', 'http'), { headers: { accept: 'application/problem+json' } }),
    { code, detail } = !it.ok && await it.json()
    if (/^4(?!08|29)/.test(it.status) && code && !up && !over) quit({ code: it.status, reason: code + ': ' + detail })
  },
  quit = cause => {
    over = 1
    end.abort()
    drop(cause)
  },

  // What is not sent yet waits for the connection.
  ask = (type, data, to) => new Promise((yes, no) => {
    let it = { type, to, ref: ++ref, yes, no }
    if (data?.byteLength == null) it.data = data?.toWellFormed?.() ?? data
    else it.data_base64 = btoa(new Uint8Array(data.buffer ?? data, data.byteOffset, data.byteLength).reduce((s, b) => s + String.fromCharCode(b), ''))
    asks.set(ref, it)
    up ? say(it) : over && drop()
  }),

  chat = {
    publish: it => ask('publish', it),
    send: (to, it) => ask('send', it, to),
    members: () => ask('members'),
    retry: wake,
    close: () => quit()
  }

  to.protocol = to.protocol.replace('http', 'ws')
  to.hash = ''
  for (let key of ['name', 'since', 'last']) set(key, on[key])
  // A controller has the `signal` that is looked for among the options.
  for (let type of ['online', 'visibilitychange']) globalThis.addEventListener?.(type, wake, end)
  after(0, connect)
  return chat
}
