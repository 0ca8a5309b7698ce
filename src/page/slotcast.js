// Follows a channel of slotcast, and comes back. How to use it: docs/page.md.
//
// Served at /-/slotcast.js is slotcast.min.js, which tests/page.rs makes of this: the same statements without
// comments and spaces, at most 3 KiB. So names are short, and nothing is here that can be left out. It needs a global
// WebSocket and nothing of a page: it runs in workers and in Node, too.

export function join(url, on = {}) {
  // `up`: since when we are connected, undefined if not. `owed`: whether the broker owes us a word. `timer`: for the one
  // thing that is waited for. `later`: the timer for the next token. `used`: the token of the last attempt. `more`:
  // whether there is a function that has others. `asks`: commands without an answer, by `ref`. `ids`: who we are, and who we
  // were before we came back.
  let ws, up, owed, timer, later, used, more = on.token?.call, over, ref = 0, pace = 500, asks = new Map, ids = new Set, end = new AbortController,
  to = new URL(url, globalThis.location),
  set = (key, it) => it && to.searchParams.set(key, it),
  after = (ms, act) => timer = setTimeout(act, ms, clearTimeout(timer)),

  get = (use, fail) => more ? new Promise(yes => yes(on.token())).then(use).catch(fail) : use(on.token),

  connect = () => {
    // What an older one still says does not count: those messages come again. Until there is a token, there is no socket.
    let me = ws = { close() {} }, bye = e => me == ws && drop(e)
    after(2e4, drop)
    get(token => {
      if (me != ws) return
      me = ws = new WebSocket(to, ['v1.slotcast.json'].concat((used = token) ? 'slotcast.token.' + token : []))
      me.onmessage = e => me == ws && hear(JSON.parse(e.data))
      me.onclose = me.onerror = bye
    }, bye)
  },

  // The next token is shown a minute before this one expires, or after half of what is left. Where nothing is left, our
  // clock is wrong: the broker has just taken it.
  plan = (expires, left = expires * 1e3 - Date.now()) => {
    clearTimeout(later)
    if (up && left && more) later = setTimeout(get, left > 0 ? Math.min(Math.max(left / 2, left - 6e4, 1e3), 1e9) : 6e4,
      token => up && ask('token', { token }).then(it => plan(it.expires)), () => plan(expires))
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
      plan(e.expires)
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
    let { code, reason } = cause, ours = /^4..$/.test(code), auth = /^token_/.test(reason)
    clearTimeout(timer)
    plan()
    // Whether it is of no use to try again: with a token, if there will be no other.
    over ||= auth ? !more && (ours || on.token) : ours || /^(forbidden|revoked)$/.test(reason)
    over ? end.abort() : ws && !up && why().catch(() => {})
    ws?.close()
    // One that did not live long counts like one that failed, or what is refused at once would be tried in a hot loop.
    pace = Date.now() - up > 5e3 ? 1e3 : Math.min(2 * pace, 3e4)
    ws = up = owed = void 0
    asks.forEach(it => (it.sent || over) && asks.delete(it.ref) && it.no(Error('connection_lost', { cause })))
    over || after(wait = pace * (1 + Math.random()) / 2, connect)
    on.onclose?.(cause, wait)
    if (auth && (over || ours)) on.onexpired?.(cause)
  },

  // Browsers hide why a WebSocket was refused; so the broker is asked whether the fault is ours.
  why = async () => {
    let it = await fetch(('' + to).replace('ws', 'http'), { headers: { accept: 'application/problem+json', ...used && { authorization: 'Bearer ' + used } } }),
    { code, detail } = !it.ok && await it.json()
    if (/^4(?!08|29)/.test(it.status) && code && !up && !over) drop({ code: it.status, reason: code + ': ' + detail })
  },

  // What is not sent yet waits for the connection.
  ask = (type, its, data) => new Promise((yes, no) => {
    let it = { type, ...its, ref: ++ref, yes, no }
    if (data?.byteLength == null) it.data = data?.toWellFormed?.() ?? data
    else it.data_base64 = btoa(new Uint8Array(data.buffer ?? data, data.byteOffset, data.byteLength).reduce((s, b) => s + String.fromCharCode(b), ''))
    asks.set(ref, it)
    up ? say(it) : over && drop()
  }),

  chat = {
    publish: it => ask('publish', {}, it),
    send: (to, it) => ask('send', { to }, it),
    members: () => ask('members'),
    retry: wake,
    close: () => drop(over = {})
  }

  to.protocol = to.protocol.replace('http', 'ws')
  to.hash = ''
  for (let key of ['name', 'since', 'last']) set(key, on[key])
  // A controller has the `signal` that is looked for among the options.
  for (let type of ['online', 'visibilitychange']) globalThis.addEventListener?.(type, wake, end)
  after(0, connect)
  return chat
}
