// Every kind of client on one channel of the real broker, with Node's own: ws, eventsource, fetch.
//
//     node clients.mjs http://127.0.0.1:8080      the broker must keep 1,000 messages and 8 MiB of them
//
// MESSAGES messages (default 3,000) of random text and bytes are published through four doors at once: raw WebSocket,
// the JSON dialect, POST, and NDJSON lines in one POST. Five kinds of follower hang up at random and resume by
// position: raw WebSocket, the JSON dialect, EventSource, the NDJSON stream and long polls. All must see the same
// messages in the same order, and each door's messages in the order in which they were sent. SEED=n repeats a run. The
// last line is "N passed, N failed".

import { EventSource } from "eventsource";
import WebSocket from "ws";

const MESSAGES = Number(process.env.MESSAGES ?? 3000);
// How far the doors may be ahead of the slowest follower: less than the broker keeps.
const WINDOW = 600;
const SECONDS = Number(process.env.SECONDS ?? 150);
const base = new URL(process.argv[2] ?? "http://127.0.0.1:8080");
const url = new URL("/kinds", base).href;
const socketUrl = url.replace(/^http/, "ws");
const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 32));
console.log(`SEED=${seed} MESSAGES=${MESSAGES}`);

// mulberry32
let state = seed >>> 0;
function random(below) {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = Math.imul(state ^ (state >>> 15), state | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) % below;
}

// Text must differ from binary. An EventSource cannot tell CR LF from LF, so that does not count.
const text = (string) => `t${string.replace(/\r\n?/g, "\n")}`;
const bytes = (buffer) => `b${Buffer.from(buffer).toString("base64")}`;

const LETTERS = ["a", "ß", "🦀", "\n", "\r\n", '"', "\\", "\u2028", "<", "\0", " "];
function message(door, number) {
  const tail = Array.from({ length: random(40) }, () => LETTERS[random(LETTERS.length)]).join("");
  return `${door} ${number} ${tail}`;
}

const total = { sent: 0, positions: new Map() };
const followers = [];
let waiting = [];
const slowest = () => Math.min(...followers.map((follower) => follower.seen.length));

// A follower has seen one more message: the doors may go on.
function progress() {
  if (total.sent - slowest() < WINDOW) {
    for (const go of waiting.splice(0)) go();
  }
}
async function room() {
  while (total.sent - slowest() >= WINDOW) await new Promise((resolve) => waiting.push(resolve));
}

class Follower {
  constructor(name, run) {
    Object.assign(this, { name, run, seen: [], rounds: 0, position: null, error: null });
    this.ready = new Promise((resolve) => (this.isReady = resolve));
    followers.push(this);
  }

  // The next round begins after this one. It hangs up after `enough` messages, and none may be lost in between.
  async follow() {
    try {
      while (this.seen.length < MESSAGES) {
        this.rounds++;
        this.enough = Math.min(MESSAGES, this.seen.length + 1 + random(Math.min(1000, MESSAGES / 6)));
        await this.run(this);
      }
    } catch (error) {
      this.error = error;
      this.isReady();
    }
  }

  // Returns whether this round has enough.
  see(value, position) {
    if (this.seen.length >= this.enough) return true; // it was under way while we hung up: it comes again
    this.seen.push(value);
    this.position = position;
    progress();
    return this.seen.length >= this.enough;
  }

  since(more = "") {
    return this.position ? `?since=${this.position}${more}` : `?${more.slice(1)}`;
  }
}

function lost(follower, what) {
  throw new Error(`${follower.name} is told of a loss: ${what}`);
}

// A WebSocket of one round: `onmessage` returns whether it has enough.
function socketRound(follower, protocols, onmessage) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(socketUrl + follower.since(), protocols);
    socket.on("upgrade", (response) => {
      const header = response.headers["slotcast-lost"];
      if (header) reject(new Error(`Slotcast-Lost: ${header}`));
      follower.position ??= response.headers["slotcast-position"];
      follower.isReady();
    });
    socket.on("message", (data, isBinary) => {
      try {
        if (onmessage(data, isBinary)) socket.terminate();
      } catch (error) {
        reject(error);
      }
    });
    socket.on("error", reject);
    socket.on("close", resolve);
  });
}

new Follower("raw", (follower) =>
  socketRound(follower, [], (data, isBinary) => {
    // A raw one counts: each message is one further than the last.
    const [epoch, offset] = follower.position.split(".");
    return follower.see(isBinary ? bytes(data) : text(data.toString()), `${epoch}.${Number(offset) + 1}`);
  }));

function seeObject(follower, it) {
  if (it.type === "lost") lost(follower, JSON.stringify(it));
  if (it.type === "welcome") follower.position ??= it.position;
  if (it.type !== "message") return false;
  return follower.see("data" in it ? text(it.data) : bytes(Buffer.from(it.data_base64, "base64")), it.position);
}

new Follower("json", (follower) => {
  let first = true;
  return socketRound(follower, ["v1.slotcast.json"], (data) => {
    const it = JSON.parse(data);
    if (first && it.type !== "welcome") throw new Error(`${it.type} before the welcome`);
    first = false;
    return seeObject(follower, it);
  });
});

new Follower("eventsource", (follower) =>
  new Promise((resolve, reject) => {
    const source = new EventSource(follower.position ? `${url}?lastEventID=${follower.position}` : url);
    const done = (settle, value) => {
      source.close();
      settle(value);
    };
    const see = (value, event) => follower.see(value, event.lastEventId) && done(resolve);
    source.addEventListener("open", () => follower.isReady());
    source.addEventListener("message", (event) => see(text(event.data), event));
    source.addEventListener("binary", (event) => see(bytes(Buffer.from(event.data, "base64")), event));
    source.addEventListener("lost", (event) => done(reject, new Error(`lost: ${event.data}`)));
    source.addEventListener("error", (event) => done(reject, new Error(`error: ${event.code} ${event.message}`)));
  }));

new Follower("ndjson", async (follower) => {
  const hangUp = new AbortController();
  const headers = { Accept: "application/x-ndjson" };
  const answer = await fetch(url + follower.since(), { headers, signal: hangUp.signal });
  if (answer.status !== 200) throw new Error(`status ${answer.status}`);
  follower.isReady();
  let rest = "";
  try {
    for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop();
      if (lines.some((line) => seeObject(follower, JSON.parse(line)))) return hangUp.abort();
    }
    throw new Error("the stream ended by itself");
  } finally {
    hangUp.abort();
  }
});

new Follower("poll", async (follower) => {
  follower.enough = MESSAGES; // each poll hangs up by itself
  const position = follower.position ?? (await (await fetch(url)).json()).position;
  follower.isReady();
  const answer = await fetch(`${url}?since=${position}&wait=20`);
  const told = await answer.json();
  if (told.lost) lost(follower, JSON.stringify(told.lost));
  for (const it of told.messages) {
    follower.see("data" in it ? text(it.data) : bytes(Buffer.from(it.data_base64, "base64")), it.position);
  }
  follower.position = told.position;
});

// ------------------------------------------------------------------ doors

const opened = (socket) =>
  new Promise((resolve, reject) => {
    socket.on("open", () => resolve(socket));
    socket.on("error", reject);
  });

// Takes up to `most` numbers of the messages to be sent.
function take(most) {
  const count = Math.min(most, MESSAGES - total.sent);
  total.sent += count;
  return count;
}

const sent = {};
function note(door, value) {
  (sent[door] ??= []).push(value);
  return value;
}

async function throughRaw() {
  const socket = await opened(new WebSocket(`${socketUrl}?echo=0`));
  for (let n = 0; (await room(), take(1)); n++) {
    const it = message("raw", n);
    const binary = random(2) === 0;
    note("raw", binary ? bytes(it) : text(it));
    socket.send(binary ? Buffer.from(it) : it);
    if (n % 8 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  socket.close();
}

async function throughJson() {
  const socket = await opened(new WebSocket(socketUrl, ["v1.slotcast.json"]));
  const pending = new Map();
  socket.on("message", (data) => {
    const it = JSON.parse(data);
    if (it.ref === undefined) return;
    pending.get(it.ref)(it);
    pending.delete(it.ref);
  });
  for (let n = 0; (await room(), take(1)); n++) {
    const it = message("json", n);
    const binary = random(2) === 0;
    note("json", binary ? bytes(it) : text(it));
    const data = binary ? { data_base64: Buffer.from(it).toString("base64") } : { data: it };
    socket.send(JSON.stringify({ type: "publish", channel: "/kinds", ref: n, ...data }));
    const answer = new Promise((resolve) => pending.set(n, resolve));
    if (n % 16 === 0) {
      const ack = await answer;
      if (ack.type !== "ack" || !ack.position) throw new Error(JSON.stringify(ack));
    }
  }
  while (pending.size) await new Promise((resolve) => setTimeout(resolve, 5));
  socket.close();
}

async function post(body, type) {
  const answer = await fetch(url, { method: "POST", body, headers: { "Content-Type": type } });
  if (answer.status !== 200) throw new Error(`${answer.status} ${await answer.text()}`);
  return answer.json();
}

async function throughPost() {
  for (let n = 0; (await room(), take(1)); n++) {
    const it = message("post", n);
    const binary = random(2) === 0;
    note("post", binary ? bytes(it) : text(it));
    await post(binary ? Buffer.from(it) : it, binary ? "application/octet-stream" : "text/plain");
  }
}

async function throughLines() {
  let n = 0;
  for (let count; (await room(), (count = take(1 + random(10)))); ) {
    const lines = Array.from({ length: count }, () => message("lines", n++).replace(/[\r\n]/g, " "));
    lines.forEach((line) => note("lines", text(line)));
    const told = await post(`\n${lines.join("\n\n")}\n`, "application/x-ndjson");
    if (told.count !== count) throw new Error(`${told.count} of ${count} lines`);
  }
}

// ------------------------------------------------------------------ verdict

let [passed, failed] = [0, 0];
function check(what, error) {
  error ? failed++ : passed++;
  console.log(`${error ? "FAILED" : "ok    "} ${what}${error ? `: ${error}` : ""}`);
}

function difference(got, expected) {
  const index = expected.findIndex((value, i) => value !== got[i]);
  if (index < 0 && got.length === expected.length) return null;
  const at = index < 0 ? expected.length : index;
  return `${got.length} of ${expected.length}; message ${at} is ${got[at]?.slice(0, 80)}, not ${expected[at]?.slice(0, 80)}`;
}

const giveUp = setTimeout(() => {
  for (const follower of followers) console.log(`    ${follower.name}: ${follower.seen.length} of ${total.sent} sent`);
  console.log(`FAILED not finished within ${SECONDS} s\n${passed} passed, ${failed + 1} failed`);
  process.exit(1);
}, SECONDS * 1000);

const following = followers.map((follower) => follower.follow());
await Promise.all(followers.map((follower) => follower.ready));
try {
  await Promise.all([throughRaw(), throughJson(), throughPost(), throughLines()]);
  await Promise.race([Promise.all(following), new Promise((resolve) => setTimeout(resolve, 30_000))]);
} catch (error) {
  check("all is published", error);
}
clearTimeout(giveUp);

const reference = followers.find((follower) => follower.name === "poll").seen;
for (const follower of followers) {
  const error = follower.error ?? difference(follower.seen, reference);
  check(`${follower.name}: the same ${reference.length} messages in the same order over ${follower.rounds} rounds`, error);
  if (follower.rounds < 2) check(`${follower.name} has hung up in between`, `${follower.rounds} rounds`);
}
for (const [door, messages] of Object.entries(sent)) {
  // The first word of a message names its door.
  const decoded = (value) => (value[0] === "t" ? value.slice(1) : Buffer.from(value.slice(1), "base64").toString());
  const of = reference.filter((value) => decoded(value).startsWith(`${door} `));
  check(`${door}: all ${messages.length} arrive in the order in which they were sent`, difference(of, messages));
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
