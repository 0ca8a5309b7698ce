//! A relay with rules, its clients, and tokens.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use slotcast::access::Access;
use slotcast::access::keys::{Key, Keys};
use slotcast::access::pattern::Pattern;
use slotcast::access::rule::{Rule, Rules, Who};
use slotcast::access::verifier::{Ages, Verifier};
use slotcast::testing::{self, Client, Received, Reply, TestRequest};
use slotcast::{Config, Relay, Server};

pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A relay, its server, and what time it is there in Unix seconds.
pub struct Rig {
    pub server: Server,
    pub relay: Relay,
    pub now: u64,
}

impl Rig {
    pub fn new(rules: Vec<Rule>) -> Rig {
        let mut config = Config::default();
        config.limits.max_head = 32 * 1024;
        Rig::with(config, access(rules))
    }

    pub fn with(config: Config, access: Access) -> Rig {
        let mut rig = Rig::over(testing::server(config).unwrap());
        rig.relay.govern(&mut rig.server, access).unwrap();
        rig
    }

    /// Without rules yet.
    pub fn over(server: Server) -> Rig {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        Rig { server, relay: Relay::default(), now }
    }

    pub fn run(&mut self) {
        testing::run(&mut self.server, |server, event| self.relay.handle(server, event));
    }

    pub fn pass(&mut self, time: Duration) {
        testing::run_for(&mut self.server, time, |server, event| self.relay.handle(server, event));
    }

    /// Sends a request, and returns its answer; None if that goes on.
    pub fn ask(&mut self, request: TestRequest) -> Option<Reply> {
        let mut client = Client::connect(&mut self.server);
        client.request(request);
        self.run();
        client.reply()
    }

    /// A WebSocket, with the answer to its handshake.
    pub fn join(&mut self, request: TestRequest) -> (Client, Reply) {
        let mut client = Client::connect(&mut self.server);
        client.join(request);
        self.run();
        let reply = client.reply().expect("an answer");
        (client, reply)
    }

    /// A WebSocket that speaks JSON, and was let in.
    pub fn speak(&mut self, channel: &str, token: &str) -> Client {
        let request = TestRequest::get(channel).header("Sec-WebSocket-Protocol", "v1.slotcast.json");
        let (client, reply) = self.join(with_token(request, token));
        assert_eq!(reply.status(), 101, "{}", reply.text());
        client
    }

    /// The answer to a command.
    pub fn command(&mut self, client: &mut Client, command: &str) -> serde_json::Value {
        client.send(command);
        self.run();
        said(client).into_iter().find(|said| said["ref"] == 1).expect("an answer")
    }

    /// A token of this user with these claims below `slotcast`, good for `seconds`.
    pub fn token(&self, user: &str, seconds: u64, claims: &str) -> String {
        let (issued, expires) = (self.now - 10, self.now + seconds);
        let payload = format!(r#"{{"sub":"{user}","iat":{issued},"exp":{expires},"slotcast":{claims}}}"#);
        sign(r#"{"alg":"HS256","typ":"JWT"}"#, &payload, SECRET)
    }
}

/// Rules, and one key.
pub fn access(rules: Vec<Rule>) -> Access {
    let keys = Keys::new(vec![Key::hs256("", SECRET.as_bytes()).unwrap()]).unwrap();
    let ages = Ages { leeway: Duration::ZERO, ..Ages::default() };
    let rules = (!rules.is_empty()).then(|| Rules::new(rules).unwrap());
    Access::by_rules(rules, Verifier::new(keys, ages)).unwrap()
}

pub fn rule(matches: &str, subscribe: Who, publish: Who) -> Rule {
    Rule::new(Pattern::parse(matches).unwrap(), subscribe, publish)
}

/// A compact JWS (RFC 7515 §3.1) with HS256, made without our own code.
pub fn sign(header: &str, payload: &str, secret: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

pub fn with_token(request: TestRequest, token: &str) -> TestRequest {
    if token.is_empty() { request } else { request.header("Authorization", &format!("Bearer {token}")) }
}

/// The code of a refusal; empty if it is none.
pub fn code(reply: &Reply) -> String {
    let said: serde_json::Value = serde_json::from_slice(reply.body()).unwrap_or_default();
    said["code"].as_str().unwrap_or_default().to_owned()
}

/// All objects that have come.
pub fn said(client: &mut Client) -> Vec<serde_json::Value> {
    let mut all = Vec::new();
    while let Some(received) = client.receive() {
        match received {
            Received::Text(text) => all.push(serde_json::from_str(&text).unwrap()),
            Received::Close(code, reason) => all.push(serde_json::json!({ "close": code.0, "reason": reason })),
            Received::End => return all,
            other => panic!("{other:?}"),
        }
    }
    all
}
