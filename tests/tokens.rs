//! The daemon as a child process with rules and keys: they hold, they change at SIGHUP, and no token is ever written.
#![cfg(all(feature = "daemon", unix))]

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Peer, ask, post, upgrade_request};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const SECRET: &str = "a secret that is known to this test only, of enough bytes";

const RULES: &str = "[[channel]]\nmatch = '/public/**'\nsubscribe = 'anyone'\npublish = 'granted'\n\
    [[channel]]\nmatch = '/users/{user}/**'\nsubscribe = 'user'\npublish = 'granted'\ntell-user = true\n\
    [[channel]]\nmatch = '/**'\nsubscribe = 'granted'\npublish = 'granted'\n";

struct Daemon {
    child: Child,
    log: BufReader<ChildStderr>,
    seen: String,
    address: SocketAddr,
    folder: PathBuf,
}

impl Daemon {
    fn start(name: &str, rules: &str) -> Daemon {
        let folder = std::env::temp_dir().join(format!("slotcast-tokens-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("key"), format!("{SECRET}\n")).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut command = Command::new(env!("CARGO_BIN_EXE_slotcast"));
        command.env_clear().arg("--log").arg("trace").arg("--config").arg(folder.join("slotcast.toml"));
        write(&folder, rules);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut daemon = Daemon { child, log, seen: String::new(), address, folder };
        let line = daemon.wait_for_line("listening on http://127.0.0.1:");
        let port = line.split("127.0.0.1:").nth(1).unwrap().split_whitespace().next().unwrap();
        daemon.address.set_port(port.parse().unwrap());
        daemon
    }

    #[track_caller]
    fn wait_for_line(&mut self, needle: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "no {needle:?}:\n{}", self.seen);
            self.seen.push_str(&line);
            if line.contains(needle) {
                return line.trim_end().to_owned();
            }
        }
    }

    fn reload(&mut self, rules: &str) -> String {
        write(&self.folder, rules);
        let kill = format!("kill -HUP {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        self.wait_for_line("reloaded")
    }

    fn get(&self, target: &str, fields: &str) -> common::Answer {
        ask(
            self.address,
            format!("GET {target} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\n{fields}\r\n", self.address),
        )
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn write(folder: &std::path::Path, rules: &str) {
    let text = format!("listen = '127.0.0.1:0'\ntoken-key-file = 'key'\ntoken-cookie = 'jwt'\n{rules}");
    fs::write(folder.join("slotcast.toml"), text).unwrap();
}

fn token(user: &str, claims: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let payload = format!(r#"{{"sub":"{user}","iat":{now},"exp":{},"slotcast":{claims}}}"#, now + 600);
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(payload));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[test]
fn rules_of_a_file_hold_and_change() {
    let mut daemon = Daemon::start("change", RULES);
    let token = token("42", r#"{"publish":["/public/*","/users/42/*"],"subscribe":["/news"]}"#);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    for (target, fields, status) in [
        ("/public/a", "", 200),
        ("/public", "", 200),
        ("/users/42/a", "", 401),
        ("/users/42/a", &*bearer, 200),
        ("/users/43/a", &*bearer, 403),
        ("/Users/42/a", &*bearer, 403),
        ("/users/42%2Fa", &*bearer, 400),
        ("/users/4%32/a", &*bearer, 200),
        ("/news", &*bearer, 200),
        ("/news/a", &*bearer, 403),
        ("/other", "", 401),
    ] {
        let answer = daemon.get(target, fields);
        assert_eq!(answer.status, status, "{target} {fields}: {}", answer.text());
    }
    assert_eq!(post(daemon.address, "/public/a", "", b"x").status, 401);
    assert_eq!(post(daemon.address, "/public/a", &bearer, b"x").status, 200);

    let mut news = Peer::join(daemon.address, &format!("/news?token={token}"));
    let mut public = Peer::join(daemon.address, "/public/a");
    let line =
        daemon.reload(&RULES.replace("match = '/**'\nsubscribe = 'granted'", "match = '/**'\nsubscribe = 'nobody'"));
    assert!(line.contains("reloaded"), "{line}");
    assert_eq!(news.expect_close(1008), "forbidden");
    assert_eq!(post(daemon.address, "/public/a", &bearer, b"still").status, 200);
    public.expect_text("still");
    let line = daemon.reload("[[channel]]\nmatch = '/a'\nsubscribe = 'all'\npublish = 'granted'");
    assert!(line.contains("not reloaded") && line.contains(":6:13: subscribe is one of anyone,"), "{line}");
    assert_eq!(daemon.get("/public/a", "").status, 200);
    public.close();
}

/// RFC 6750 §5.3: a token is as good as a password. No eight bytes of one in a row are ever written.
#[test]
fn no_part_of_a_token_is_written_anywhere() {
    let mut daemon = Daemon::start("silent", RULES);
    let good = token("42", r#"{"publish":["/**"],"subscribe":["/**"]}"#);
    let bad = format!("{good}x");
    let mut written = String::new();
    for token in [&good, &bad] {
        for (target, fields) in [
            (format!("/a?token={token}"), String::new()),
            ("/a".to_owned(), format!("Authorization: Bearer {token}\r\n")),
            ("/a".to_owned(), format!("Cookie: jwt={token}\r\nSec-Fetch-Site: same-origin\r\n")),
            (format!("/-/channels?token={token}"), String::new()),
            (format!("/favicon.ico?token={token}"), String::new()),
            (format!("/a/?token={token}x"), format!("Authorization: Basic {token}\r\n")),
        ] {
            // A redirect to the name without a slash repeats the query, for the one who has sent it.
            let answer = daemon.get(&target, &fields);
            if answer.status != 308 {
                written.push_str(&answer.text());
            }
            let mut peer = Peer::connect(daemon.address);
            peer.write(upgrade_request(&target, &fields).as_bytes());
            written.push_str(&peer.read_head());
        }
        for offered in ["v1.slotcast.json, ", "v1.slotcast.raw, ", "chat, ", ""] {
            let mut peer = Peer::connect(daemon.address);
            let field = format!("Sec-WebSocket-Protocol: {offered}slotcast.token.{token}\r\n");
            peer.write(upgrade_request("/a", &field).as_bytes());
            let head = peer.read_head();
            if head.contains(" 101 ") && offered.contains("json") {
                peer.send(common::TEXT, format!(r#"{{"type":"token","token":"{token}","ref":1}}"#).as_bytes());
                peer.send(common::TEXT, format!(r#"{{"type":"token","token":"{token}y","ref":"{token}"}}"#).as_bytes());
            }
            written.push_str(&head);
        }
    }
    written.push_str(&ask(daemon.address, common::look(daemon.address, "/-/metrics")).text());
    let _ = daemon.child.kill();
    let mut rest = String::new();
    daemon.log.read_to_string(&mut rest).unwrap();
    written.push_str(&daemon.seen);
    written.push_str(&rest);
    assert!(written.contains("token_invalid") && written.contains("ends: "), "{written}");
    for secret in [good.as_str(), SECRET] {
        for window in secret.as_bytes().windows(8) {
            let window = std::str::from_utf8(window).unwrap();
            // Every token begins with this, also one that nobody knows.
            if !r#"eyJhbGciOiJIUzI1NiJ9"#.contains(window) {
                assert!(!written.contains(window), "{window:?} in:\n{written}");
            }
        }
    }
}
