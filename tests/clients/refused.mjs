// Node's clients read why they are refused, however much they have on its way: ws and fetch.
//
//     node refused.mjs http://127.0.0.1:8080      the broker takes messages of 1 MiB at the most
//
// TRIES (default 3) messages of each client and size, of 1.1 to 64 MiB, plain and compressed. The last line is
// "N passed, N failed".

import { randomFillSync } from "node:crypto";

import WebSocket from "ws";

const TRIES = Number(process.env.TRIES ?? 3);
const MIB = 1 << 20;
const SIZES = [1.1, 1.5, 2, 8, 10, 64].map((mib) => Math.round(mib * MIB));
const base = new URL("/refused", process.argv[2] ?? "http://127.0.0.1:8080").href;
// Noise does not shrink, so that a compressed message is as long on its way.
const noise = Buffer.alloc(64 * MIB);
for (let at = 0; at < noise.length; at += MIB) randomFillSync(noise, at, MIB);

function bySocket(body, perMessageDeflate) {
  return new Promise((resolve) => {
    const socket = new WebSocket(base.replace("http", "ws"), { perMessageDeflate });
    socket.on("open", () => socket.send(body));
    socket.on("close", (code) => resolve(code));
    socket.on("error", () => {}); // "close" follows, with the code that is tested
  });
}

const kinds = {
  ws: [1009, (body) => bySocket(body, false)],
  "ws, compressed": [1009, (body) => bySocket(body, { threshold: 0 })],
  fetch: [413, async (body) => (await fetch(base, { method: "POST", body })).status],
};

let [passed, failed] = [0, 0];
for (const [name, [expected, run]] of Object.entries(kinds)) {
  for (const size of SIZES) {
    const others = [];
    for (let n = 0; n < TRIES; n++) {
      const told = await run(noise.subarray(0, size)).catch((error) => `${error} ${error.cause ?? ""}`);
      if (told !== expected) others.push(told);
    }
    others.length ? failed++ : passed++;
    const verdict = others.length ? "FAILED" : "ok    ";
    console.log(`${verdict} ${name}, ${(size / MIB).toFixed(1)} MiB: ${TRIES - others.length} of ${TRIES} see ${expected}${others.length ? `, not ${others[0]}` : ""}`);
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
