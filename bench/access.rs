//! What it costs to ask who may do what: `access LOAD TURNS`, over pipes in memory. bench/instructions.py counts the
//! instructions. Prints how many deliveries there were, or how many connections joined.

use std::hint::black_box;
use std::time::{SystemTime, UNIX_EPOCH};

use slotcast::access::Access;
use slotcast::access::issue::NewToken;
use slotcast::access::keys::{Key, Keys};
use slotcast::access::pattern::Pattern;
use slotcast::access::rule::{Right, Rule, Rules, Who};
use slotcast::access::time::UnixTime;
use slotcast::access::verifier::{Ages, Verifier};
use slotcast::testing::{self, Client, Received, TestRequest};
use slotcast::{Config, Relay, Server};

/// What is shown by those who join.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// Anyone may do anything.
    Nothing,
    /// Rules, by which anyone may do this.
    Rules,
    /// A token that all show.
    Remembered,
    /// A token each.
    New,
}

/// Name, what is shown, and whether messages are published, or else connections come and go.
const LOADS: [(&str, Shown, bool); 7] = [
    ("published", Shown::Nothing, true),
    ("published_by_rule", Shown::Rules, true),
    ("published_by_token", Shown::Remembered, true),
    ("joined", Shown::Nothing, false),
    ("joined_by_rule", Shown::Rules, false),
    ("joined_by_token", Shown::Remembered, false),
    ("joined_by_new_token", Shown::New, false),
];

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const CHANNEL: &str = "/rooms/7/chat";
/// Messages, or connections, of one turn.
const EACH: usize = 16;

struct Rig {
    server: Server,
    relay: Relay,
    shown: Shown,
    key: Key,
    now: u64,
    tokens: usize,
}

impl Rig {
    fn new(shown: Shown) -> Rig {
        let mut server = testing::server(Config::default()).expect("a server");
        let relay = Relay::default();
        let key = Key::hs256("", SECRET).expect("a key");
        if shown != Shown::Nothing {
            let keys = Keys::new(vec![key.clone()]).expect("keys");
            let rule = |of: &str, who| Rule::new(Pattern::parse(of).expect("a pattern"), who, who);
            let who = if shown == Shown::Rules { Who::Anyone } else { Who::Granted };
            let rules = [rule("/news", Who::Anyone), rule("/private/**", Who::Authenticated), rule("/rooms/*/**", who)];
            let rules = Rules::new(rules.to_vec()).expect("rules");
            let access = Access::by_rules(Some(rules), Verifier::new(keys, Ages::default())).expect("access");
            relay.govern(&mut server, access).expect("rules that fit");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        Rig { server, relay, shown, key, now, tokens: 0 }
    }

    /// All that the server does. Its own function, so that instructions are counted in it alone.
    #[inline(never)]
    fn run(&mut self) {
        testing::run(&mut self.server, |server, event| self.relay.handle(server, event));
    }

    /// A request to join, which shows what is to be shown.
    fn request(&mut self) -> TestRequest {
        let request = TestRequest::get(CHANNEL);
        if self.shown == Shown::Nothing || self.shown == Shown::Rules {
            return request;
        }
        self.tokens += usize::from(self.shown == Shown::New || self.tokens == 0);
        let pattern = |of: &str| Pattern::parse(of).expect("a pattern");
        let token = NewToken {
            subject: Some(format!("{:036}", self.tokens)),
            grants: vec![(Right::Subscribe, pattern("/rooms/7/**")), (Right::Publish, pattern("/rooms/7/*"))],
            issued: UnixTime::from_seconds(self.now),
            expires: UnixTime::from_seconds(self.now + 3600),
            ..NewToken::default()
        };
        request.header("Authorization", &format!("Bearer {}", token.sign(&self.key).expect("a token")))
    }

    fn join(&mut self) -> Client {
        let request = self.request();
        let mut client = Client::connect(&mut self.server);
        client.join(request);
        client
    }
}

/// One publishes to another. Returns how many messages arrived.
fn publish(rig: &mut Rig, turns: usize) -> usize {
    let (mut one, mut other) = (rig.join(), rig.join());
    rig.run();
    let mut arrived = 0;
    for client in [&mut one, &mut other] {
        assert_eq!(client.reply().map(|reply| reply.status()), Some(101));
    }
    for _ in 0..turns {
        (0..EACH).for_each(|_| one.send("0123456789abcdef0123456789abcdef"));
        rig.run();
        arrived += (0..EACH).filter(|_| matches!(other.receive(), Some(Received::Text(_)))).count();
        black_box(one.read());
    }
    assert_eq!(arrived, turns * EACH);
    arrived
}

/// Connections join and go. Returns how many did.
fn join(rig: &mut Rig, turns: usize) -> usize {
    let mut joined = 0;
    for _ in 0..turns {
        let mut clients: Vec<Client> = (0..EACH).map(|_| rig.join()).collect();
        rig.run();
        let is_in = |client: &mut Client| client.reply().is_some_and(|reply| reply.status() == 101);
        joined += clients.iter_mut().map(is_in).filter(|is_in| *is_in).count();
        drop(clients);
        rig.run();
    }
    assert_eq!(joined, turns * EACH);
    joined
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let named = arguments.get(1).and_then(|name| LOADS.iter().find(|load| load.0 == name));
    let loads = named.map_or(&LOADS[..], std::slice::from_ref);
    let turns: usize = arguments.get(2).and_then(|turns| turns.parse().ok()).unwrap_or(1);
    for &(name, shown, publishes) in loads {
        let mut rig = Rig::new(shown);
        let count = if publishes { publish(&mut rig, turns) } else { join(&mut rig, turns) };
        println!("{name} {count} deliveries");
    }
}
