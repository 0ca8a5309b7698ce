// Clients of other protocols, as npm has them, against the real broker: each must fail, soon and for a reason, and the
// broker's log must say which protocol it was and what to do.
//
//     node foreign.mjs http://127.0.0.1:8080 LOG
//
// LOG is what the broker writes to stderr. The last line is "N passed, N failed".

import { readFileSync } from "node:fs";
import { Centrifuge } from "centrifuge";
import Pusher from "pusher-js";
import { io } from "socket.io-client";
import WebSocket from "ws";

const base = new URL(process.argv[2] ?? "http://127.0.0.1:8080");
const log = process.argv[3];
const ws = base.href.replace(/^http/, "ws");

// Settles with the first thing that a client reports: `begin` gets the functions `fails` and `works` to call.
function first(begin, seconds = 20) {
  return new Promise((resolve) => {
    const late = setTimeout(() => resolve("says nothing"), seconds * 1000);
    const say = (word) => (detail) => (clearTimeout(late), resolve(`${word}${detail ? ` ${detail}` : ""}`));
    begin(say("works"), say("fails"));
  });
}

const clients = {
  "Centrifugo, JSON": () => first((works, fails) => {
    const client = new Centrifuge(`${ws}connection/websocket`, { websocket: WebSocket });
    client.on("connected", () => (client.disconnect(), works()));
    client.on("connecting", ({ code, reason }) => code && (client.disconnect(), fails(reason)));
    client.on("error", ({ error }) => (client.disconnect(), fails(error.message)));
    client.connect();
  }),
  "Centrifugo, its subprotocol": () => first((works, fails) => {
    const socket = new WebSocket(`${ws}chat`, ["centrifuge-protobuf"]);
    socket.on("open", () => works());
    socket.on("error", (error) => fails(error.message));
  }),
  "Socket.IO, polling": () => socketIo(["polling"]),
  "Socket.IO, WebSocket": () => socketIo(["websocket"]),
  "Pusher, WebSocket": () => first((works, fails) => {
    const pusher = new Pusher("KEY", {
      cluster: "", wsHost: base.hostname, wsPort: base.port, httpHost: base.hostname, httpPort: base.port,
      forceTLS: false, enableStats: false, enabledTransports: ["ws"],
    });
    // It waits 10 s before it reports this.
    pusher.connection.bind("state_change", ({ current }) => {
      if (current === "connecting") return;
      pusher.disconnect();
      (current === "connected" ? works : fails)(current);
    });
  }),
  "STOMP": () => first((works, fails) => {
    const socket = new WebSocket(`${ws}chat`, ["v12.stomp", "v11.stomp"]);
    socket.on("open", () => works());
    socket.on("error", (error) => fails(error.message));
  }),
  "SignalR": async () => {
    const answer = await fetch(`${base}hub/negotiate?negotiateVersion=1`, { method: "POST" });
    return `${answer.ok ? "works" : "fails"} ${answer.status} ${(await answer.json()).code}`;
  },
};

function socketIo(transports) {
  return first((works, fails) => {
    const socket = io(base.origin, { transports, reconnection: false });
    socket.on("connect", () => (socket.close(), works()));
    socket.on("connect_error", (error) => (socket.close(), fails(error.message)));
  });
}

// Our own channels, with names like theirs.
const ours = {
  "/app/x": () => plain(`${ws}app/x`),
  "/socket.io": () => plain(`${ws}socket.io?last=1`),
  "/connection/websocket in our dialect": () => plain(`${ws}connection/websocket`, ["v1.slotcast.json"]),
};

function plain(url, protocols = []) {
  return first((works, fails) => {
    const socket = new WebSocket(url, protocols);
    socket.on("open", () => (socket.close(), works()));
    socket.on("error", (error) => fails(error.message));
  });
}

let [passed, failed] = [0, 0];
function check(what, right, said) {
  right ? passed++ : failed++;
  console.log(`${right ? "ok    " : "FAILED"} ${what}: ${said}`);
}

// pusher-js itself warns that there is no cluster.
console.warn = () => {};
for (const [name, run] of Object.entries(clients)) {
  const before = readFileSync(log, "utf8").length;
  const said = await run();
  check(`${name} fails`, said.startsWith("fails"), said);
  const protocol = name.split(",")[0];
  const told = () => readFileSync(log, "utf8").slice(before);
  const find = () => told().split("\n").find((it) => it.includes(`clients of ${protocol} begin`) && it.includes("Connect with"));
  for (let tries = 0; !find() && tries < 500; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const line = find();
  check(`${name} is named in the log`, line !== undefined, line ?? told());
}
for (const [name, run] of Object.entries(ours)) {
  const said = await run();
  check(`${name} is a channel`, said.startsWith("works"), said);
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
