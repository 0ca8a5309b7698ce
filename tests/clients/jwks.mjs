// An identity provider made with jose, and the real broker with its key set: who gets in, and how its keys change.
//
//     node jwks.mjs slotcast      the broker's binary
//
// The last line is "N passed, N failed".

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { SignJWT, exportJWK, generateKeyPair } from "jose";
import WebSocket from "ws";

const ISSUER = "https://id.example.com/realms/shop";
const AUDIENCE = "https://live.example.com";
const SECONDS = 20;

const CONFIG = `listen = "127.0.0.1:0"
[[key]]
jwks = "keys.json"
issuer = "${ISSUER}"
audience = "${AUDIENCE}"
[[channel]]
match = "/users/{user}/**"
subscribe = "user"
publish = "user"
tell-user = true
[[channel]]
match = "/rooms/*"
subscribe = "granted"
publish = "granted"
`;

/** A key of the provider, as it stands in its key set, with more members that providers write. */
async function made(kid, alg) {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
  return { kid, alg, privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: "sig", x5t: "not looked at" } };
}

/** A token of the provider for user 42. */
function token(key, { audience = AUDIENCE, issuer = ISSUER, seconds = 600, header = {} } = {}) {
  const claims = { email: "ann@example.com", scope: "openid", slotcast: { subscribe: ["/rooms/7"] } };
  const now = Math.floor(Date.now() / 1000);
  const jwt = new SignJWT(claims).setProtectedHeader({ alg: key.alg, kid: key.kid, typ: "JWT", ...header });
  return jwt.setIssuer(issuer).setAudience(audience).setSubject("42").setIssuedAt(now - 300).setExpirationTime(now + seconds).sign(key.privateKey);
}

const folder = mkdtempSync(join(tmpdir(), "slotcast-jwks-"));
const publish = (...keys) => writeFileSync(join(folder, "keys.json"), JSON.stringify({ keys: keys.map((key) => key.jwk ?? key) }));

async function until(what, condition) {
  const end = Date.now() + SECONDS * 1000;
  while (!(await condition())) {
    assert.ok(Date.now() < end, `waited ${SECONDS} s until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

let broker, log = "", base;
async function start() {
  writeFileSync(join(folder, "slotcast.toml"), CONFIG);
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(SLOTCAST_|PORT$|RUST_LOG$)/.test(name)));
  broker = spawn(process.argv[2], ["--config", join(folder, "slotcast.toml")], { stdio: ["ignore", "ignore", "pipe"], env });
  broker.stderr.setEncoding("utf8").on("data", (chunk) => (log += chunk));
  await until("the broker listens", () => {
    assert.equal(broker.exitCode, null, log);
    base = log.match(/listening on (http:\/\/127\.0\.0\.1:\d+)/)?.[1];
    return base;
  });
}

/** Changes the key set, has the broker read it, and returns what it says of that. */
async function rotate(...keys) {
  publish(...keys);
  const before = log.length;
  broker.kill("SIGHUP");
  await until("the broker has reloaded", () => /reloaded.*\n/.test(log.slice(before)));
  return log.slice(before);
}

/** What a request is answered with: its status, and the code if it is a refusal. */
async function asked(channel, jwt, method = "GET") {
  const body = method === "POST" ? "x" : undefined;
  const answer = await fetch(base + channel, { method, body, headers: { Authorization: `Bearer ${jwt}` } });
  return answer.ok ? "200" : `${answer.status} ${(await answer.json()).code}`;
}

/** A WebSocket that shows a token as browsers do: what it is told, and how it ends. */
function socket(channel, jwt) {
  const it = { told: [] };
  const ws = new WebSocket(base.replace("http", "ws") + channel, ["v1.slotcast.json", `slotcast.token.${jwt}`]);
  ws.on("message", (data) => it.told.push(JSON.parse(data)));
  ws.on("unexpected-response", (_, answer) => ((it.refused = answer.statusCode), ws.terminate()));
  ws.on("close", (code, reason) => (it.closed = `${code} ${reason}`));
  ws.on("error", () => {}); // "close" follows
  it.close = () => ws.close();
  it.settled = () => until("an answer", () => it.told.length || it.refused || it.closed);
  return it;
}

const keys = await Promise.all([made("r1", "RS256"), made("e1", "ES256"), made("o1", "EdDSA")]);
const [rsa, ec] = keys;
const INVALID = "401 token_invalid";

const tests = {
  async "tokens of each algorithm get in, and say who that is"() {
    for (const key of keys) {
      const jwt = await token(key);
      const ann = socket("/users/42/inbox", jwt);
      await ann.settled();
      assert.equal(ann.told[0]?.type, "welcome", key.alg);
      assert.equal(await asked("/users/42/inbox", jwt, "POST"), "200", key.alg);
      await until("the message", () => ann.told.some((it) => it.type === "message" && it.user === "42"));
      assert.equal(await asked("/rooms/7", jwt), "200");
      assert.equal(await asked("/rooms/7", jwt, "POST"), "403 forbidden");
      assert.equal(await asked("/users/43/inbox", jwt), "403 forbidden");
      ann.close();
    }
  },

  async "a token that the same provider has made for another service is refused"() {
    for (const audience of ["https://shop.example.com", [], ["https://shop.example.com", "account"], "slotcast", `${AUDIENCE}/`]) {
      const jwt = await token(rsa, { audience });
      assert.equal(await asked("/users/42/inbox", jwt), INVALID, JSON.stringify(audience));
      const other = socket("/users/42/inbox", jwt);
      await other.settled();
      assert.equal(other.refused, 401, JSON.stringify(audience));
    }
    assert.equal(await asked("/users/42/inbox", await token(rsa, { audience: ["account", AUDIENCE] })), "200");
    assert.equal(await asked("/users/42/inbox", await token(rsa, { issuer: "https://id.example.com/realms/other" })), INVALID);
    assert.equal(await asked("/users/42/inbox", await token(rsa, { seconds: -120 })), "401 token_expired");
  },

  async "a key that is not in the set, under whatever name, is no key"() {
    const strange = await made("x1", "RS256");
    assert.equal(await asked("/users/42/inbox", await token(strange)), INVALID);
    assert.equal(await asked("/users/42/inbox", await token({ ...strange, kid: "r1" })), INVALID);
    // The algorithm is the key's: not that of another, and no secret made of a public key.
    assert.equal(await asked("/users/42/inbox", await token({ ...ec, kid: "r1" })), INVALID);
    const secret = new TextEncoder().encode(JSON.stringify(rsa.jwk));
    assert.equal(await asked("/users/42/inbox", await token({ kid: "r1", alg: "HS256", privateKey: secret })), INVALID);
    // A key that the token brings along counts for nothing.
    const header = { jwk: strange.jwk, jku: "https://evil.example/keys.json" };
    assert.equal(await asked("/users/42/inbox", await token(strange, { header })), INVALID);
  },

  async "keys change at a signal, and only those of a key that goes notice"() {
    const next = await made("r2", "RS256");
    const [old, newer] = [await token(rsa), await token(next)];
    const ann = socket("/users/42/inbox", old);
    await ann.settled();
    assert.equal(await asked("/users/42/inbox", newer), INVALID);
    // Both at a time, as providers do.
    assert.match(await rotate(...keys, next), /reloaded/);
    assert.deepEqual([await asked("/users/42/inbox", newer), await asked("/users/42/inbox", old)], ["200", "200"]);
    const bob = socket("/users/42/inbox", newer);
    await bob.settled();
    // The old one is taken away: no token of it gets in any more, not even one that was verified before, and what it
    // has let in ends. All others stay.
    await rotate(next);
    assert.deepEqual([await asked("/users/42/inbox", newer), await asked("/users/42/inbox", old)], ["200", INVALID]);
    await until("the end", () => ann.closed);
    assert.match(String(ann.closed), /token_invalid/);
    assert.equal(await asked("/users/42/inbox", newer, "POST"), "200");
    await until("the message", () => bob.told.some((it) => it.type === "message"));
    assert.equal(bob.closed, undefined);
    bob.close();
    // A file that is no key set changes nothing.
    assert.match(await rotate("not a key"), /not reloaded/);
    assert.equal(await asked("/users/42/inbox", newer), "200");
  },
};

let [passed, failed] = [0, 0];
try {
  publish(...keys);
  await start();
  for (const [name, test] of Object.entries(tests)) {
    try {
      await test();
      console.log(`ok     ${name}`);
      passed++;
    } catch (error) {
      console.log(`FAILED ${name}: ${error.stack}\n${log}`);
      failed++;
    }
  }
} finally {
  broker?.kill("SIGKILL");
  rmSync(folder, { recursive: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
