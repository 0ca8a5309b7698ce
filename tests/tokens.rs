//! The daemon as a child process with rules and keys: they hold, they change at SIGHUP, and no token is ever written.
#![cfg(all(feature = "daemon", unix))]

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::daemon::Daemon;
use common::{Peer, ask, post, upgrade_request};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const SECRET: &str = "a secret that is known to this test only, of enough bytes";

/// The secret of a second key.
const OTHER: &str = "a secret of another key, of as many bytes as it takes";

const ADMIN: &str = "0dc1a9e2f7b34c58864fd1a7e3b92c60";

const OPERATED: &str = "admin-listen = '127.0.0.1:0'\nadmin-token-file = 'admin'\nrevocations-file = 'revoked'\n";

const RULES: &str = "[[channel]]\nmatch = '/public/**'\nsubscribe = 'anyone'\npublish = 'granted'\n\
    [[channel]]\nmatch = '/users/{user}/**'\nsubscribe = 'user'\npublish = 'granted'\ntell-user = true\n\
    [[channel]]\nmatch = '/**'\nsubscribe = 'granted'\npublish = 'granted'\n";

/// A daemon with a key and rules in a folder of its own; both end with its test.
struct Guarded {
    daemon: Daemon,
    folder: PathBuf,
}

impl Guarded {
    fn start(name: &str, rules: &str) -> Guarded {
        let folder = std::env::temp_dir().join(format!("slotcast-tokens-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in [("key", SECRET), ("other", OTHER), ("admin", ADMIN)] {
            fs::write(folder.join(name), format!("{text}\n")).unwrap();
        }
        write(&folder, rules);
        Guarded { daemon: Daemon::of(&mut command(&folder)), folder }
    }

    /// Kills it and starts another in the same folder.
    fn restart(&mut self) {
        let _ = self.daemon.child.kill();
        let _ = self.daemon.child.wait();
        self.daemon = Daemon::of(&mut command(&self.folder));
    }

    /// Where it listens for operators. To be asked once, right after the start.
    fn operators(&mut self) -> SocketAddr {
        let line = self.daemon.wait_for_line("for operators on http://127.0.0.1:");
        assert!(line.ends_with("/-/revoke"), "{line}");
        let port = line.split("127.0.0.1:").nth(1).unwrap().split('/').next().unwrap();
        SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))
    }

    fn reload(&mut self, rules: &str) -> String {
        write(&self.folder, rules);
        self.daemon.signal("HUP");
        self.daemon.wait_for_line("reloaded")
    }

    fn get(&self, target: &str, fields: &str) -> common::Answer {
        ask(
            self.daemon.address,
            format!(
                "GET {target} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\n{fields}\r\n",
                self.daemon.address
            ),
        )
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotcast"));
    command.args(["--log", "trace", "--config"]).arg(folder.join("slotcast.toml"));
    command
}

fn write(folder: &Path, rules: &str) {
    let text = format!("listen = '127.0.0.1:0'\ntoken-key-file = 'key'\ntoken-cookie = 'jwt'\n{rules}");
    fs::write(folder.join("slotcast.toml"), text).unwrap();
}

fn token(user: &str, claims: &str) -> String {
    token_by(SECRET, user, claims)
}

fn token_by(secret: &str, user: &str, claims: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let payload = format!(r#"{{"sub":"{user}","iat":{now},"exp":{},"slotcast":{claims}}}"#, now + 600);
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(payload));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[test]
fn rules_of_a_file_hold_and_change() {
    let mut guarded = Guarded::start("change", RULES);
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
        let answer = guarded.get(target, fields);
        assert_eq!(answer.status, status, "{target} {fields}: {}", answer.text());
    }
    assert_eq!(post(guarded.daemon.address, "/public/a", "", b"x").status, 401);
    assert_eq!(post(guarded.daemon.address, "/public/a", &bearer, b"x").status, 200);

    let mut news = Peer::join(guarded.daemon.address, &format!("/news?token={token}"));
    let mut public = Peer::join(guarded.daemon.address, "/public/a");
    let line =
        guarded.reload(&RULES.replace("match = '/**'\nsubscribe = 'granted'", "match = '/**'\nsubscribe = 'nobody'"));
    assert!(line.ends_with(": changed rules"), "{line}");
    assert!(guarded.daemon.seen.contains("keys do not allow them any longer: 1\n"), "{}", guarded.daemon.seen);
    assert_eq!(news.expect_close(1008), "forbidden");
    assert_eq!(post(guarded.daemon.address, "/public/a", &bearer, b"still").status, 200);
    public.expect_text("still");
    let line = guarded.reload("[[channel]]\nmatch = '/a'\nsubscribe = 'all'\npublish = 'granted'");
    assert!(line.contains("not reloaded") && line.contains(":6:13: subscribe is one of anyone,"), "{line}");
    assert_eq!(guarded.get("/public/a", "").status, 200);
    public.close();
}

fn revoke(operators: SocketAddr, token: &str, body: &str) -> common::Answer {
    post(operators, "/-/revoke", &format!("Authorization: Bearer {token}\r\n"), body.as_bytes())
}

#[test]
fn a_revocation_outlives_the_process() {
    const ALL: &str = r#"{"publish":["/**"],"subscribe":["/**"]}"#;
    let mut guarded = Guarded::start("revoked", &format!("{OPERATED}{RULES}"));
    let operators = guarded.operators();
    let (ann, ben) = (token("ann", ALL), token("ben", ALL));
    let status =
        |guarded: &Guarded, token: &str| guarded.get("/a", &format!("Authorization: Bearer {token}\r\n")).status;
    let [mut of_ann, mut of_ben] = [&ann, &ben].map(|it| Peer::join(guarded.daemon.address, &format!("/a?token={it}")));
    assert!(revoke(operators, &ADMIN[1..], r#"{"user":"ann"}"#).is_problem(401, "unauthorized"));
    assert!(revoke(guarded.daemon.address, ADMIN, r#"{"user":"ann"}"#).is_problem(404, "not_found"));
    assert_eq!(
        (status(&guarded, &ann), fs::read_to_string(guarded.folder.join("revoked")).unwrap()),
        (200, String::new())
    );
    let answer = revoke(operators, ADMIN, r#"{"user":"ann"}"#);
    assert!(answer.status == 200 && answer.text().contains("\"closed\":1}"), "{}", answer.text());
    assert_eq!(of_ann.expect_close(1008), "revoked");
    // Nothing can be written when it is killed, so it has been written before.
    guarded.restart();
    assert_eq!([&ann, &ben].map(|token| status(&guarded, token)), [401, 200]);
    let operators = guarded.operators();
    assert_eq!(revoke(operators, ADMIN, r#"{"user":"ben"}"#).status, 200);
    assert!(guarded.reload(&format!("{OPERATED}{RULES}")).contains("nothing has changed"));
    assert_eq!([&ann, &ben].map(|token| status(&guarded, token)), [401, 401]);
    of_ben.expect_gone();

    // Another admin token at a reload.
    fs::write(guarded.folder.join("admin"), format!("{OTHER}\n").replace(' ', "-")).unwrap();
    assert!(guarded.reload(&format!("{OPERATED}{RULES}")).contains("changed admin tokens"));
    assert_eq!(revoke(operators, ADMIN, r#"{"user":"x"}"#).status, 401);
    assert_eq!(revoke(operators, &OTHER.replace(' ', "-"), r#"{"user":"x"}"#).status, 200);

    // A file that is damaged is not passed over: who was revoked would be back.
    let _ = guarded.daemon.child.kill();
    let path = guarded.folder.join("revoked");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{good}x\n")).unwrap();
    for check in [&["--check"][..], &[]] {
        let output = command(&guarded.folder).args(check).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let last = said.lines().last().unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            last.contains("--revocations-file: ") && last.contains("in line 4 it is no JSON object; mend"),
            "{said}"
        );
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{good}x\n"));
}

#[test]
fn what_a_key_has_let_in_ends_when_the_key_goes() {
    let second = "[[key]]\nid = 'b'\nalg = 'HS256'\nfile = 'other'\n";
    let mut guarded = Guarded::start("key", &format!("{second}{RULES}"));
    let claims = r#"{"publish":["/**"],"subscribe":["/**"]}"#;
    let (first, second) = (token("42", claims), token_by(OTHER, "42", claims));
    let [mut stays, mut goes] =
        [&first, &second].map(|it| Peer::join(guarded.daemon.address, &format!("/a?token={it}")));
    let line = guarded.reload(RULES);
    assert!(line.ends_with(": changed keys (b removed)"), "{line}");
    assert_eq!(goes.expect_close(1008), "token_invalid");
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    assert_eq!(guarded.get("/a", &bearer(&second)).status, 401);
    assert_eq!(post(guarded.daemon.address, "/a", &bearer(&first), b"still").status, 200);
    stays.expect_text("still");
    // Another secret in the same file is another key.
    fs::write(guarded.folder.join("key"), OTHER).unwrap();
    let line = guarded.reload(RULES);
    assert!(line.ends_with(": changed keys (one without id changed)"), "{line}");
    assert_eq!(stays.expect_close(1008), "token_invalid");
    let url = "[[key]]\nid = 'url'\nalg = 'HS256'\nfile = 'other'\nuse = 'url'\n";
    fs::write(guarded.folder.join("key"), SECRET).unwrap();
    guarded.reload(RULES);
    let line = guarded.reload(&format!("{url}{}", RULES.replace("'/public/**'", "'/open/**'")));
    assert!(line.ends_with(": changed rules, keys (url added)"), "{line}");
}

/// The operator is told which rule refuses, and the peer is not.
#[test]
fn the_log_names_the_rule_that_refuses() {
    let rules = "[[channel]]\nmatch = '/news'\nsubscribe = 'anyone'\npublish = 'nobody'\n\
        [[channel]]\nmatch = '/users/{user}'\nsubscribe = 'user'\npublish = 'granted'\n";
    let mut guarded = Guarded::start("refuses", rules);
    let address = guarded.daemon.address;
    let bearer = format!("Authorization: Bearer {}\r\n", token("42", r#"{"publish":["/**"]}"#));
    let mut refused = |head: String, expected: &str| {
        let mut peer = Peer::connect(address);
        peer.write(head.as_bytes());
        let head = peer.read_head();
        assert!(head.starts_with("HTTP/1.1 403 ") && !head.contains("rule"), "{head}");
        let line = guarded.daemon.wait_for_line("refused");
        assert!(line.ends_with(expected), "{expected}\n{line}");
    };
    refused(upgrade_request("/chat", ""), ": forbidden: no rule fits /chat");
    refused(upgrade_request("/users/43", &bearer), ": forbidden by rule 2 (/users/{user}): subscribe = \"user\"");
    let post = format!("POST /news HTTP/1.1\r\nHost: {address}\r\nContent-Length: 1\r\n{bearer}\r\nx");
    refused(post, ": forbidden by rule 1 (/news): publish = \"nobody\"");
    let get = format!("GET /a%20b HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\n{bearer}\r\n");
    refused(get, ": forbidden: no rule fits \"/a b\"");
}

/// RFC 6750 §5.3: a token is as good as a password. No eight bytes of one in a row are ever written.
#[test]
fn no_part_of_a_token_is_written_anywhere() {
    let mut guarded = Guarded::start("silent", &format!("{OPERATED}{RULES}"));
    let operators = guarded.operators();
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
            let answer = guarded.get(&target, &fields);
            if answer.status != 308 {
                written.push_str(&answer.text());
            }
            let mut peer = Peer::connect(guarded.daemon.address);
            peer.write(upgrade_request(&target, &fields).as_bytes());
            written.push_str(&peer.read_head());
        }
        for offered in ["v1.slotcast.json, ", "v1.slotcast.raw, ", "chat, ", ""] {
            let mut peer = Peer::connect(guarded.daemon.address);
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
    for listener in [operators, guarded.daemon.address] {
        for token in [ADMIN.to_owned(), format!("{ADMIN}x"), ADMIN.to_uppercase()] {
            written.push_str(&revoke(listener, &token, r#"{"user":"ann"}"#).text());
            written.push_str(&revoke(listener, &token, &format!("{{\"user\":1,\"token\":\"{ADMIN}\"}}")).text());
            written.push_str(&post(listener, &format!("/-/revoke?token={token}"), "", b"{}").text());
            written.push_str(&post(listener, &format!("/chat?token={token}"), "", b"{}").text());
        }
    }
    written.push_str(&fs::read_to_string(guarded.folder.join("revoked")).unwrap());
    written.push_str(&ask(operators, common::look(operators, "/-/metrics")).text());
    let _ = guarded.daemon.child.kill();
    let (_, rest) = guarded.daemon.wait();
    written.push_str(&guarded.daemon.seen);
    written.push_str(&rest);
    assert!(written.contains("token_invalid") && written.contains("ends: "), "{written}");
    assert!(written.contains("\"closed\":") && written.contains("\"unauthorized\""), "{written}");
    for secret in [good.as_str(), SECRET, ADMIN] {
        for window in secret.as_bytes().windows(8) {
            let window = std::str::from_utf8(window).unwrap();
            // Every token begins with this, also one that nobody knows.
            if !r#"eyJhbGciOiJIUzI1NiJ9"#.contains(window) {
                assert!(!written.contains(window), "{window:?} in:\n{written}");
            }
        }
    }
}
