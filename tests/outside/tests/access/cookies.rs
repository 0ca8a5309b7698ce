//! A token in a cookie: which pages may send it, and read the answer.

use slotcast::Config;
use slotcast::access::rule::Who;
use slotcast::testing::{Client, Reply, TestRequest};

use super::rig::{Rig, access, code, rule};

/// Listed as an operator writes it; browsers write the same without the port and in lower case.
const LISTED: &str = "https://App.example:443";
const SENT: &str = "https://app.example";
const LOOPBACK: &str = "http://localhost:5173";

fn rig(cookie: bool) -> Rig {
    let mut config = Config::default();
    config.origins = [LISTED, "http://localhost:4000", "null", "file://"].map(str::to_owned).into();
    let rules = vec![
        rule("/public", Who::Anyone, Who::Nobody),
        rule("/quiet", Who::Nobody, Who::Nobody),
        rule("/**", Who::Authenticated, Who::Authenticated),
    ];
    Rig::with(config, access(rules).cookie(cookie.then_some("jwt")))
}

/// The status of an answer and its fields, a line each; also of one that goes on.
fn ask(rig: &mut Rig, request: TestRequest) -> (u16, String) {
    const FIELDS: [&str; 6] = [
        "Access-Control-Allow-Origin",
        "Access-Control-Allow-Credentials",
        "Access-Control-Allow-Headers",
        "Access-Control-Allow-Methods",
        "Content-Type",
        "Vary",
    ];
    let mut client = Client::connect(&mut rig.server);
    client.request(request);
    rig.run();
    if let Some(reply) = client.reply() {
        let fields = FIELDS.iter().filter_map(|name| Some(format!("{name}: {}", reply.header(name)?)));
        return (reply.status(), fields.collect::<Vec<_>>().join("\n"));
    }
    let text = String::from_utf8(client.read()).unwrap();
    let (head, _) = text.split_once("\r\n\r\n").expect("a head");
    (head[9..12].parse().unwrap(), head.to_owned())
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn whose_pages_may_read_with_cookies() {
    for cookie in [false, true] {
        let mut rig = rig(cookie);
        let token = rig.token("7", 60, "{}");
        let preflight = |channel: &str| {
            TestRequest::new("OPTIONS", channel)
                .header("Access-Control-Request-Method", "PUT")
                .header("Access-Control-Request-Headers", "authorization, x-mine")
        };
        for (sent, allowed, is_listed) in [
            (Some(SENT), Some(SENT), true),
            (Some("HTTPS://APP.example:443"), Some(SENT), true),
            (Some("http://localhost:4000"), Some("http://localhost:4000"), true),
            (Some(LOOPBACK), Some(LOOPBACK), false),
            (Some("null"), Some("null"), false),
            (Some("file://"), Some("file://"), false),
            (Some("https://evil.example"), None, false),
            (Some("https://app.example.evil"), None, false),
            (Some("http://app.example"), None, false),
            (None, None, false),
        ] {
            let is_refused = sent.is_some() && allowed.is_none();
            let gets_in = cookie && is_listed;
            let with = |request: TestRequest| match sent {
                Some(origin) => request.header("Origin", origin).header("Cookie", &format!("jwt={token}")),
                None => request.header("Cookie", &format!("jwt={token}")),
            };
            for (what, request, status) in [
                ("public", TestRequest::get("/public"), 200),
                ("get", TestRequest::get("/private"), if gets_in { 200 } else { 401 }),
                ("head", TestRequest::new("HEAD", "/private"), if gets_in { 200 } else { 401 }),
                ("post", TestRequest::post("/private", "x"), if gets_in { 200 } else { 401 }),
                ("forbidden", TestRequest::get("/quiet"), 403),
                ("no channel", TestRequest::get("/a//b"), 400),
                ("stream", TestRequest::get("/public").header("Accept", "text/event-stream"), 200),
                (
                    "ndjson",
                    TestRequest::get("/private").header("Accept", "application/x-ndjson"),
                    if gets_in { 200 } else { 401 },
                ),
                ("preflight", preflight("/private"), 204),
                ("preflight of another's", preflight("/quiet"), 204),
            ] {
                let status = if is_refused { 403 } else { status };
                let (got, head) = ask(&mut rig, with(request));
                let case = format!("{what} from {sent:?}, {cookie}: {head}");
                assert_eq!(got, status, "{case}");
                assert_eq!(field(&head, "Access-Control-Allow-Origin"), allowed, "{case}");
                let credentials = field(&head, "Access-Control-Allow-Credentials");
                assert_eq!(credentials, gets_in.then_some("true"), "{case}");
                assert!(field(&head, "Vary").is_some_and(|vary| vary.contains("Origin")), "{case}");
                let headers = field(&head, "Access-Control-Allow-Headers");
                let expected = match status {
                    204 if gets_in => {
                        Some("Authorization, Content-Type, Last-Event-ID, Prefer, If-Match, If-None-Match")
                    }
                    204 => Some("authorization, x-mine"),
                    _ => None,
                };
                assert_eq!(headers, expected, "{case}");
                let methods = field(&head, "Access-Control-Allow-Methods");
                assert_eq!(methods.is_some(), status == 204, "{case}");
            }
        }
    }
}

/// A page on another port of the victim's machine, with the victim's cookie: it is let in by the loopback rule, and is nobody.
#[test]
fn a_page_on_another_port_with_the_cookie_of_somebody() {
    let mut rig = rig(true);
    let token = rig.token("7", 60, r#"{"subscribe":["/**"],"publish":["/**"]}"#);
    let cookie = format!("a=b; jwt={token}");
    let told = |reply: &Reply| (reply.status(), code(reply));
    let foreign = |request: TestRequest| {
        request.header("Host", "localhost:8080").header("Cookie", &cookie).header("Sec-Fetch-Site", "same-site")
    };
    let missing = (401, "token_missing".to_owned());
    let (_, reply) = rig.join(foreign(TestRequest::get("/private")).header("Origin", LOOPBACK));
    assert_eq!(told(&reply), missing, "a WebSocket");
    for request in
        [TestRequest::get("/private"), TestRequest::post("/private", "x"), TestRequest::new("PUT", "/private")]
    {
        let reply = rig.ask(foreign(request.clone()).header("Origin", LOOPBACK)).unwrap();
        assert_eq!(told(&reply), missing, "{request:?}");
        assert_eq!(reply.header("Access-Control-Allow-Credentials"), None);
    }
    // What no-cors sends: a GET without Origin, and a POST that the browser needs not ask for.
    let reply = rig.ask(foreign(TestRequest::get("/private")).header("Sec-Fetch-Mode", "no-cors")).unwrap();
    assert_eq!(told(&reply), (403, "origin_not_allowed".to_owned()));
    let post = foreign(TestRequest::post("/private", "x")).header("Sec-Fetch-Mode", "no-cors");
    let reply = rig.ask(post.header("Content-Type", "text/plain").header("Origin", LOOPBACK)).unwrap();
    assert_eq!(told(&reply), missing);

    // The same with its own page: an EventSource sends no Origin there.
    let own = TestRequest::get("/private").header("Accept", "text/event-stream").header("Host", "localhost:8080");
    let (status, head) = ask(&mut rig, own.clone().header("Cookie", &cookie).header("Sec-Fetch-Site", "same-origin"));
    assert_eq!((status, field(&head, "Content-Type")), (200, Some("text/event-stream; charset=utf-8")), "{head}");
    assert_eq!(ask(&mut rig, own.header("Cookie", &cookie)).0, 401, "some program");
}

/// With other rules the cookie counts, or counts no longer, at once.
#[test]
fn a_reload_changes_who_may_send_cookies() {
    let mut rig = rig(false);
    for cookie in [None, Some("jwt"), Some("other"), None] {
        let rules = vec![rule("/**", Who::Anyone, Who::Anyone)];
        rig.relay.govern(&mut rig.server, access(rules).cookie(cookie)).unwrap();
        let (_, head) = ask(&mut rig, TestRequest::get("/a").header("Origin", SENT));
        assert_eq!(field(&head, "Access-Control-Allow-Credentials").is_some(), cookie.is_some(), "{cookie:?}");
    }
}
