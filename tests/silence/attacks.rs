//! The attacks: which peers come, and what they send.

use crate::crowd::{Answers, End, Group};
use crate::wire::{
    BINARY, CLOSE, DEFLATE, FIN, JSON, NDJSON, PING, TEXT, chunked, commands, deflated, fragments, frame, get, history,
    large_head, lines, long_head, noise, post, repeated, request, text, upgrade,
};

const MIB: usize = 1 << 20;

/// The limit of `Limits::default` that attacks go up to.
const MAX_MESSAGE: usize = MIB;
const MAX_FRAGMENTS: usize = 4096;

/// The query of publishers where the broker has a token.
pub const TOKEN: &str = "publish-token=sesame";
pub const BEARER: &str = "Authorization: Bearer sesame\r\n";

/// Reasons for which peers that do not read may be closed.
const SLOW: &[&str] = &["slow_consumer", "outbound_total", "write_timeout"];

/// Reasons for which peers may be closed that together send more than `max_inbound_total`: some hundreds of a MiB each.
const UPLOADS: &[&str] = &["inbound_total"];

/// Small budgets, so that memory shows that is in none of them.
const TIGHT: &[&str] =
    &["max-inbound-total=2097152", "max-outbound-total=8388608", "history-total=262144", "max-head=65535"];

pub struct Attack {
    pub name: &'static str,
    /// More settings of the broker.
    pub settings: &'static [&'static str],
    /// Requests before anything is measured. `groups` gets the position in the last answer.
    pub prepare: fn(usize) -> Vec<Vec<u8>>,
    /// The attackers, by their number and that position.
    pub groups: fn(usize, &str) -> Vec<Group>,
    /// The reasons for which attackers may be closed, besides those of peers that leave by themselves.
    pub allows: &'static [&'static str],
    /// Whether there are channels of other peers, whose histories and positions must stay as they were.
    pub has_victims: bool,
}

const PLAIN: Attack = Attack {
    name: "",
    settings: &[],
    prepare: |_| Vec::new(),
    groups: |_, _| Vec::new(),
    allows: &[],
    has_victims: false,
};

/// A raw WebSocket in a channel of its own.
fn alone(i: usize) -> String {
    format!("/alone/{i}")
}

/// How many large answers one attacker asks for at a time, so that all of them together can be sent in some seconds.
fn shared(n: usize, most: usize) -> usize {
    (4000 / n).clamp(2, most)
}

/// Listeners to what is published, with compression.
fn with_deflate(count: usize, target: &'static str) -> Group {
    Group::opened(count, move |_, _| upgrade(target, DEFLATE))
}

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "histories",
        prepare: |_| vec![history("/history", "")],
        groups: |n, _| vec![Group::asking(n, 8, repeated(8, &get("/history"))).deaf().times(1)],
        allows: SLOW,
        ..PLAIN
    },
    Attack {
        name: "histories read",
        prepare: |_| vec![history("/history", "")],
        groups: |n, _| {
            let count = shared(n, 8);
            vec![Group::asking(n, count as u64, repeated(count, &get("/history")))]
        },
        ..PLAIN
    },
    Attack {
        name: "since",
        prepare: |_| vec![history("/history", "")],
        groups: |n, position| {
            let count = shared(n, 8) as u64;
            let epoch = position.split('.').next().unwrap_or_default().to_owned();
            let burst = move |i: usize, k: u64| {
                let one = |j| get(&format!("/history?since={epoch}.{}", (i as u64 * 7 + k * count + j) % 100));
                (0..count).flat_map(one).collect()
            };
            vec![Group::asking_for(n, count, burst)]
        },
        ..PLAIN
    },
    Attack {
        name: "deflate posts",
        groups: |n, _| {
            let post = post("/deflate", "", &noise(1, MAX_MESSAGE));
            vec![with_deflate(4, "/deflate"), Group::asking(n, 1, post)]
        },
        allows: UPLOADS,
        ..PLAIN
    },
    Attack {
        name: "listings",
        prepare: |_| (0..99_000).map(|i| post(&format!("/many/{i}"), "", b"x")).collect(),
        groups: |n, _| vec![Group::asking(n, 256, repeated(256, &get("/-/channels?limit=1")))],
        ..PLAIN
    },
    Attack {
        name: "big to deaf",
        groups: |n, _| {
            let deaf = Group::opened(n, |_, _| upgrade("/big", "")).deaf();
            vec![deaf, Group::asking(1, 1, post("/big", "", &noise(2, MAX_MESSAGE))).pace(100)]
        },
        allows: SLOW,
        ..PLAIN
    },
    Attack {
        name: "since=all",
        prepare: |_| (0..60).map(|i| history(&format!("/all/{i}"), "")).collect(),
        groups: |n, _| {
            let subscribe =
                |i| format!("{{\"type\":\"subscribe\",\"channel\":\"/all/{i}\",\"since\":\"all\",\"ref\":{i}}}");
            let joined = Group::opened(n, |i, _| upgrade(&alone(i), JSON));
            vec![joined.says(commands(0..60, subscribe)).times(1)]
        },
        ..PLAIN
    },
    Attack {
        name: "members",
        groups: |n, _| {
            let crowd = Group::opened(900, |i, _| upgrade(&format!("/crowd?name=member{i}"), ""));
            let ask = |i| format!("{{\"type\":\"members\",\"channel\":\"/crowd\",\"ref\":{i}}}");
            let asking = Group::opened(n, |i, _| upgrade(&alone(i), JSON));
            let count = shared(n, 64);
            vec![crowd, asking.says(commands(0..count, ask)).each(count as u64)]
        },
        ..PLAIN
    },
    Attack {
        name: "bombs",
        groups: |n, _| {
            let joined = Group::opened(n, |i, _| upgrade(&alone(i), DEFLATE));
            vec![joined.says(deflated(&vec![0; MAX_MESSAGE])).each(1)]
        },
        ..PLAIN
    },
    Attack {
        name: "tiny messages",
        groups: |n, _| {
            let joined = Group::opened(n, |i, _| upgrade(&alone(i), ""));
            vec![joined.says(repeated(1000, &text("x"))).each(1000)]
        },
        ..PLAIN
    },
    Attack {
        name: "fragments",
        groups: |n, _| {
            let joined = Group::opened(n, |i, _| upgrade(&alone(i), ""));
            vec![joined.says(fragments(MAX_FRAGMENTS, b"x")).each(1)]
        },
        ..PLAIN
    },
    Attack {
        name: "big fragments",
        groups: |n, _| {
            let joined = Group::opened(n, |i, _| upgrade(&alone(i), ""));
            vec![joined.says(fragments(MAX_FRAGMENTS, &[b'x'; MAX_MESSAGE / MAX_FRAGMENTS])).each(1)]
        },
        allows: UPLOADS,
        ..PLAIN
    },
    Attack {
        name: "tiny posts",
        groups: |n, _| vec![Group::asking_for(n, 64, |i, _| repeated(64, &post(&alone(i), "", b"x")))],
        ..PLAIN
    },
    Attack {
        name: "roster",
        groups: |n, _| {
            let command = |kind: &str| text(&format!("{{\"type\":\"{kind}\",\"channel\":\"/room\"}}"));
            let both = [command("subscribe"), command("unsubscribe")].concat();
            let room = Group::opened(4, |_, _| upgrade("/room", JSON)).watched();
            let joined = Group::opened(n, |i, _| upgrade(&format!("{}?name={}{i:04}", alone(i), "n".repeat(60)), JSON));
            // If a member came while somebody asked for the members, its leaving has to be told.
            vec![room, joined.says([command("members"), repeated(128, &both)].concat()).each(1)]
        },
        ..PLAIN
    },
    Attack {
        name: "&+&+",
        groups: |n, _| {
            // The most parameters allowed, none of which is known.
            let target = format!("/query?{}", "&%61+%61+%61+%61+%61+%61+%61+%61+%61+%61=+".repeat(63));
            vec![Group::asking(n, 16, repeated(16, &get(&target)))]
        },
        ..PLAIN
    },
    Attack {
        name: "evict subs",
        settings: &[TOKEN, "max-channels=5000"],
        groups: |n, _| {
            let joined = Group::opened(n, |i, _| upgrade(&alone(i), JSON));
            let burst = |i: usize, k: u64| {
                let (kind, life) = (["subscribe", "unsubscribe"][k as usize % 2], k / 2);
                let command = |j| format!("{{\"type\":\"{kind}\",\"channel\":\"/new/{i}/{life}/{j}\",\"ref\":1}}");
                commands(0..127, command)
            };
            vec![joined.says_each(burst).each(127).returning()]
        },
        // A peer that is refused very often, and a peer that comes again when the limit of channels is reached.
        allows: &["control_rate", "too_many_channels"],
        has_victims: true,
        ..PLAIN
    },
    Attack {
        name: "evict polls",
        settings: &[TOKEN, "max-channels=150"],
        groups: |n, _| {
            let ask = |i, k| get(&format!("/new/{i}/{k}?wait=60&since=0.0"));
            vec![Group::asking_for(n, 1, ask).held().returning()]
        },
        allows: &["too_many_channels"],
        has_victims: true,
        ..PLAIN
    },
    Attack {
        name: "evict posts",
        groups: |n, _| {
            let one = |i: usize, k: u64, j: u64| post(&format!("/new/{i}/{k}/{j}"), "", b"x");
            vec![Group::asking_for(n, 256, move |i, k| (0..256).flat_map(|j| one(i, k, j)).collect())]
        },
        has_victims: true,
        ..PLAIN
    },
    Attack {
        name: "slow heads",
        groups: |n, _| {
            let head = large_head(64, 8000);
            vec![Group::coming(n, |_, _| Vec::new()).times(7000).says_each(move |_, k| vec![head[k as usize]]).pace(10)]
        },
        ..PLAIN
    },
    Attack {
        name: "slow bodies",
        groups: |n, _| {
            let head = |i, _| request("POST", &alone(i), "Content-Length: 1000000\r\n");
            vec![Group::coming(n, head).times(u64::MAX).says(b"x".to_vec()).pace(10)]
        },
        ..PLAIN
    },
    Attack {
        name: "held heads",
        settings: TIGHT,
        groups: |n, _| {
            let head = |i, _| [long_head("POST", &alone(i), "Content-Length: 1000000\r\n"), vec![b'x']].concat();
            vec![Group::coming(n, head)]
        },
        allows: &["inbound_total"],
        ..PLAIN
    },
    Attack {
        name: "held polls",
        settings: TIGHT,
        groups: |n, _| vec![Group::coming(n, |i, _| long_head("GET", &format!("/held/{i}?wait=60"), ""))],
        allows: &["inbound_total"],
        ..PLAIN
    },
    Attack { name: "connects", groups: |n, _| vec![Group::coming(n, |_, _| Vec::new()).ends(End::Goes)], ..PLAIN },
    Attack {
        name: "handshakes",
        groups: |n, _| vec![Group::coming(n, |i, _| upgrade(&alone(i), "")).after(1).ends(End::Resets)],
        ..PLAIN
    },
    Attack {
        name: "shake, close",
        groups: |n, _| {
            let both = |i, _| [upgrade(&alone(i), ""), frame(FIN | CLOSE, &1000_u16.to_be_bytes())].concat();
            vec![Group::coming(n, both)]
        },
        ..PLAIN
    },
    Attack {
        name: "pings",
        groups: |n, _| {
            let pings = |i, _| [upgrade(&alone(i), ""), repeated(4000, &frame(FIN | PING, b"ping"))].concat();
            vec![Group::coming(n, pings)]
        },
        allows: &["control_rate"],
        ..PLAIN
    },
    Attack {
        name: "unmasked",
        groups: |n, _| vec![Group::coming(n, |i, _| [upgrade(&alone(i), ""), b"\x81\x01x".to_vec()].concat())],
        allows: &["protocol_error"],
        ..PLAIN
    },
    Attack {
        name: "ndjson",
        groups: |n, _| {
            let hearing = Group::opened(4, |_, _| upgrade("/lines", ""));
            vec![hearing, Group::asking(n, 1, post("/lines", NDJSON, &lines(500, 500)))]
        },
        allows: UPLOADS,
        ..PLAIN
    },
    Attack {
        name: "ndjson deflate",
        groups: |n, _| {
            let post = post("/lines", NDJSON, &lines(500, 500));
            vec![with_deflate(4, "/lines"), Group::asking(n, 1, post)]
        },
        allows: UPLOADS,
        ..PLAIN
    },
    Attack {
        name: "polls",
        groups: |n, _| {
            let polling = Group::asking(n, 1, get("/poll?wait=30")).held();
            vec![polling, Group::asking(1, 1, post("/poll", "", &noise(3, 1000))).pace(5)]
        },
        ..PLAIN
    },
    Attack {
        name: "deaf sse",
        groups: |n, _| {
            let deaf =
                Group::opened(n, |_, _| request("GET", "/sse", "Accept: text/event-stream\r\n")).deaf().returning();
            vec![deaf, Group::asking(1, 1, post("/sse", "", &noise(4, 16 * 1024))).pace(2)]
        },
        allows: SLOW,
        ..PLAIN
    },
    Attack {
        name: "rejoin",
        prepare: |_| vec![history("/history", "")],
        groups: |n, _| {
            let join = |_, _| upgrade("/history?since=all", "");
            vec![Group::coming(n, join).after(260_000).ends(End::Resets)]
        },
        ..PLAIN
    },
    Attack { name: "not found", groups: |n, _| vec![Group::asking(n, 64, repeated(64, &get("/-/nothing")))], ..PLAIN },
    Attack {
        name: "bad names",
        groups: |n, _| vec![Group::asking(n, 64, repeated(64, &get("/a//b/%01"))).returning()],
        ..PLAIN
    },
    Attack {
        name: "refused",
        groups: |n, _| vec![Group::coming(n, |i, _| upgrade(&alone(i), "Origin: http://elsewhere.example\r\n"))],
        ..PLAIN
    },
    Attack {
        name: "fan-out",
        groups: |n, _| {
            let hearing = Group::opened(n, |_, _| upgrade("/room?echo=0", ""));
            let saying = Group::opened(1, |_, _| upgrade("/room", ""));
            vec![hearing, saying.says(repeated(8, &text(&"x".repeat(512)))).each(8)]
        },
        allows: &["slow_consumer"],
        ..PLAIN
    },
    Attack {
        name: "echo 64k",
        groups: |n, _| {
            let joined = Group::opened(n, |i, _| upgrade(&alone(i), ""));
            vec![joined.says(frame(FIN | BINARY, &[b'x'; 65_536])).each(1)]
        },
        ..PLAIN
    },
    Attack {
        name: "send",
        groups: |n, _| {
            let joined = Group::opened(n, |i, _| upgrade(&alone(i), JSON));
            let to_itself = |id: &str| {
                commands(0..64, |i| format!("{{\"type\":\"send\",\"to\":\"{id}\",\"data\":\"x\",\"ref\":{i}}}"))
            };
            vec![joined.says_by_id(to_itself).each(128)]
        },
        ..PLAIN
    },
    Attack {
        name: "json publish",
        groups: |n, _| {
            let joined = Group::opened(n, |i, _| upgrade(&alone(i), JSON));
            let burst = |i: usize, k: u64| {
                commands(0..128, |j| {
                    format!("{{\"type\":\"publish\",\"channel\":\"/new/{i}/{k}/{j}\",\"data\":\"x\",\"ref\":1}}")
                })
            };
            vec![joined.says_each(burst).each(128)]
        },
        ..PLAIN
    },
    Attack {
        name: "bad commands",
        groups: |n, _| {
            let bad = |i, _| [upgrade(&alone(i), JSON), repeated(500, &text("{\"type\":"))].concat();
            vec![Group::coming(n, bad)]
        },
        allows: &["control_rate"],
        ..PLAIN
    },
    Attack {
        name: "heads",
        groups: |n, _| {
            let both =
                [request("HEAD", "/chat", ""), request("OPTIONS", "/chat", "Origin: http://localhost\r\n")].concat();
            vec![Group::asking(n, 64, repeated(32, &both)).answers(Answers::Heads)]
        },
        ..PLAIN
    },
    Attack { name: "chunks", groups: |n, _| vec![Group::asking_for(n, 1, |i, _| chunked(&alone(i), 8000))], ..PLAIN },
    Attack {
        name: "methods",
        groups: |n, _| {
            let both = [request("DELETE", "/chat", ""), request("BREW", "/chat", "")].concat();
            vec![Group::asking(n, 64, repeated(32, &both)).returning()]
        },
        ..PLAIN
    },
    Attack {
        name: "large heads",
        groups: |n, _| vec![Group::asking(n, 8, repeated(8, &large_head(64, 8192)))],
        ..PLAIN
    },
    Attack {
        name: "uploads",
        groups: |n, _| {
            let part = |i, _| [request("POST", &alone(i), "Content-Length: 1000000\r\n"), noise(5, 260_000)].concat();
            let innocent = Group::coming(1, |_, _| request("POST", "/innocent", "Content-Length: 900000\r\n"));
            let innocent = innocent.times(60).says(noise(6, 15_000)).pace(12).watched();
            vec![innocent, Group::coming(n, part)]
        },
        allows: &["inbound_total"],
        ..PLAIN
    },
    Attack {
        name: "wide",
        groups: |n, _| {
            let subscribe = |i| format!("{{\"type\":\"subscribe\",\"channel\":\"/wide/{i}\"}}");
            let joined = Group::opened(n, |_, _| upgrade("/wide/x", JSON));
            let posts = (0..127).flat_map(|i| post(&format!("/wide/{i}"), "", b"hello")).collect();
            vec![joined.says(commands(0..127, subscribe)).times(1), Group::asking(1, 127, posts)]
        },
        allows: &["slow_consumer"],
        ..PLAIN
    },
    Attack { name: "metrics", groups: |n, _| vec![Group::asking(n, 32, repeated(32, &get("/-/metrics")))], ..PLAIN },
    Attack {
        name: "pages",
        groups: |n, _| vec![Group::asking(n, 32, repeated(32, &request("GET", "/chat", "Accept: text/html\r\n")))],
        ..PLAIN
    },
    Attack {
        name: "one byte writes",
        groups: |n, _| {
            let message = frame(FIN | TEXT, &[b'x'; 100]);
            let joined = Group::opened(n, |i, _| upgrade(&alone(i), ""));
            vec![joined.says_each(move |_, k| vec![message[k as usize % message.len()]])]
        },
        ..PLAIN
    },
];
