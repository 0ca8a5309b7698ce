// Resumes with a polyfill that names the position in its own way: event-source-polyfill sends `?lastEventId=`.
//
//     node resume.mjs http://127.0.0.1:8080
//
// Each of its connections is cut after one message, and the next message is published before it is back: none may be
// lost. The last line is "N passed, N failed".

import http from "node:http";
import net from "node:net";

import { EventSourcePolyfill } from "event-source-polyfill";

const MESSAGES = 5;
const SECONDS = 60;
const broker = new URL(process.argv[2] ?? "http://127.0.0.1:8080");

// A proxy between the two, so that connections can be cut; and the requests that it saw.
const asked = [];
const through = new Set();
const proxy = net.createServer((peer) => {
  const there = net.connect(Number(broker.port), broker.hostname);
  peer.once("data", (head) => asked.push(String(head).split("\r\n")[0]));
  peer.pipe(there).pipe(peer);
  through.add(peer);
  for (const socket of [peer, there]) {
    socket.on("error", () => {}); // the connections are cut
    socket.on("close", () => (peer.destroy(), there.destroy(), through.delete(peer)));
  }
});
await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));

const publish = (text) => fetch(new URL("/resume", broker), { method: "POST", body: text }).then((answer) => answer.json());
const verdict = (error) => {
  console.log(`${error ? "FAILED" : "ok    "} event-source-polyfill: ${MESSAGES} messages over ${asked.length} connections${error ? `: ${error}` : ""}`);
  console.log(error ? "0 passed, 1 failed" : "1 passed, 0 failed");
  process.exit(error ? 1 : 0);
};
setTimeout(() => verdict(`not finished within ${SECONDS} s`), SECONDS * 1000);

const seen = [];
const source = new EventSourcePolyfill(`http://127.0.0.1:${proxy.address().port}/resume`, { headers: { Host: broker.host } });
let begun = false;
source.addEventListener("open", async () => {
  if (begun) return;
  begun = true;
  await publish("message 0");
});
source.addEventListener("lost", (event) => verdict(`lost: ${event.data}`));
source.addEventListener("message", async (event) => {
  seen.push(event.data);
  if (event.data !== `message ${seen.length - 1}`) return verdict(`${event.data} after ${seen.length - 1} messages`);
  if (seen.length === MESSAGES) return verdict(asked.length < MESSAGES ? "it was never cut" : undefined);
  for (const peer of through) peer.destroy();
  await publish(`message ${seen.length}`);
});
