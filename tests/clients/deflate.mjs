// permessage-deflate with Node's ws, in every way that it can be asked for, against the real broker.
//
//     node deflate.mjs http://127.0.0.1:8080      the broker lets a few keep their window (--client-takeover 4)
//
// MESSAGES messages (default 1,000) of 0 B to 1 MiB go there and back, text and bytes, and are compared. SEED=n
// repeats a run. The last line is "N passed, N failed".

import { deflateRawSync } from "node:zlib";

import WebSocket from "ws";

const MESSAGES = Number(process.env.MESSAGES ?? 1000);
const MOST = 1 << 20;
const WINDOW = 4 * MOST;
const base = new URL("/deflate", process.argv[2] ?? "http://127.0.0.1:8080").href.replace(/^http/, "ws");
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

const WORDS = ["broker", "channel", "ß", "🦀", " ", "\n", '{"x":', "0", "1", "2"];
function message() {
  const length = random(20) === 0 ? random(MOST + 1) : random([2, 300, 5000, 20000][random(4)]);
  if (random(3) === 0) return Buffer.from(Array.from({ length: Math.min(length, 4000) }, () => random(256)));
  let text = "";
  while (text.length < length / 2) text += WORDS[random(WORDS.length)];
  text = text.repeat(2);
  while (Buffer.byteLength(text) > MOST) text = text.slice(0, text.length / 2);
  return random(2) ? text : Buffer.from(text);
}

// Empty messages in forms that no library writes but RFC 7692 §7.2 allows: without a byte, and with last blocks.
const NOTHING = ["", "00", "01", "0300", "030000", "010000ffff00"];

// Rewrites empty messages into these forms. Where each message is for itself, others become whole streams with a last
// block.
function writeOddly(socket) {
  const extension = Object.values(socket._extensions)[0];
  const compress = extension.compress.bind(extension);
  extension.compress = (data, fin, done) => {
    if (data.length === 0) return compress(data, fin, (error) => done(error, Buffer.from(NOTHING[random(NOTHING.length)], "hex")));
    const alone = extension.params.client_no_context_takeover && random(3) === 0;
    if (!alone) return compress(data, fin, done);
    done(null, Buffer.concat([deflateRawSync(data), Buffer.alloc(random(2))]));
  };
}

function run(name, { oddly, ...options }, agreed) {
  const perMessageDeflate = Object.keys(options).length > 0 && options;
  return new Promise((resolve) => {
    const expected = Array.from({ length: MESSAGES }, message);
    const socket = new WebSocket(`${base}-${name.replace(/ /g, "-")}`, { perMessageDeflate, maxPayload: MOST });
    let [sent, got, ahead] = [0, 0, 0];
    const giveUp = setTimeout(() => end(`${got} of ${sent} sent after 60 s`), 60_000);
    function end(error) {
      clearTimeout(giveUp);
      socket.terminate();
      resolve(error);
    }
    // A few at a time: a peer that only sends and never reads is slow.
    function more() {
      for (; sent < MESSAGES && ahead < WINDOW; sent++) {
        ahead += expected[sent].length + 1000;
        socket.send(expected[sent]);
      }
    }
    socket.on("upgrade", (response) => {
      const told = response.headers["sec-websocket-extensions"] ?? "";
      if (told !== agreed) end(`agreed to ${told}`);
    });
    socket.on("open", () => {
      if (oddly) writeOddly(socket);
      more();
    });
    socket.on("message", (data, isBinary) => {
      const wanted = expected[got++];
      if (isBinary !== Buffer.isBuffer(wanted) || !data.equals(Buffer.from(wanted))) return end(`message ${got} differs`);
      ahead -= wanted.length + 1000;
      if (got === MESSAGES) end(null);
      else more();
    });
    socket.on("error", (error) => end(error.message));
    socket.on("close", (code, reason) => end(`closed with ${code} ${reason}`));
  });
}

const ALONE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
let [passed, failed] = [0, 0];
for (const [name, options, agreed] of [
  ["no context takeover", { clientNoContextTakeover: true, serverNoContextTakeover: true }, ALONE],
  ["context takeover", { threshold: 1024 }, "permessage-deflate; server_no_context_takeover"],
  ["context takeover, whatever the length", { threshold: 0 }, "permessage-deflate; server_no_context_takeover"],
  ["context takeover, with last blocks", { threshold: 0, oddly: true }, "permessage-deflate; server_no_context_takeover"],
  ["no context takeover, with last blocks", { clientNoContextTakeover: true, threshold: 0, oddly: true }, ALONE],
  ["a window of 9 bits", { serverMaxWindowBits: 9, clientMaxWindowBits: 9, clientNoContextTakeover: true }, `${ALONE}; server_max_window_bits=9`],
  ["a window of 15 bits", { serverMaxWindowBits: 15, clientNoContextTakeover: true, threshold: 0 }, `${ALONE}; server_max_window_bits=15`],
  ["none", {}, ""],
]) {
  const error = await run(name, options, agreed);
  error === null ? passed++ : failed++;
  console.log(`${error === null ? "ok    " : "FAILED"} ${name}${error === null ? "" : `: ${error}`}`);
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
