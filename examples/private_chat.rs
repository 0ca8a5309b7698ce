//! A chat for those who are logged in: each room is for two. `cargo run --example private_chat [ADDRESS [SECONDS]]`,
//! or PORT in the environment
//!
//! Two parts that do not know each other. The backend knows passwords and sessions, and gives each user a token that
//! counts for a minute, or for SECONDS. The broker knows one rule, and verifies what is shown. The page fetches the next
//! token before one ends, so nobody notices. In a site of yours, the backend is your own server, in any language.

mod common;
use std::collections::HashMap;
use std::io::{Error, Read};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use slotcast::access::Access;
use slotcast::access::issue::NewToken;
use slotcast::access::keys::{Key, Keys};
use slotcast::access::pattern::Pattern;
use slotcast::access::rule::{Right, Rule, Rules, Who};
use slotcast::access::time::UnixTime;
use slotcast::access::verifier::{Ages, Verifier};
use slotcast::{Config, Event, Exchange, Relay, Request, Response, Server, Status};

/// FOR THIS EXAMPLE ONLY: who may log in, with which password. Yours are in a database, as slow and salted hashes.
const USERS: [(&str, &str); 3] = [("ann", "apple"), ("bob", "banana"), ("cleo", "cherry")];

/// The rooms, and the two whom each is for.
const ROOMS: [(&str, [&str; 2]); 2] =
    [("/rooms/ann-and-bob", ["ann", "bob"]), ("/rooms/bob-and-cleo", ["bob", "cleo"])];

const PAGE: &str = include_str!("private_chat.html");

fn main() -> std::process::ExitCode {
    let about = "A chat for those who are logged in: each room is for two. SECONDS is how long a token counts [60].";
    common::start("private_chat [ADDRESS [SECONDS]]", about, 8090, run)
}

fn run(mut config: Config, arguments: &[String]) -> std::io::Result<()> {
    let seconds = arguments.get(1).map_or(Ok(60), |it| it.parse()).map_err(|_| Error::other("SECONDS is a number"))?;
    config.limits.history_messages = 50;
    let mut server = Server::bind(config)?;
    println!("listening on http://{}/", server.local_addrs()[0]);

    // The broker: who has a token that grants a room may be there, and others are told who that is.
    let secret = random()?;
    let key = Key::hs256("", secret.as_bytes()).map_err(Error::other)?;
    let mut rule = Rule::new(Pattern::parse("/rooms/*").map_err(Error::other)?, Who::Granted, Who::Granted);
    rule.tell_user = true;
    let keys = Keys::new(vec![key.clone()]).map_err(Error::other)?;
    let verifier = Verifier::new(keys, Ages { leeway: Duration::ZERO, ..Ages::default() });
    let access = Access::by_rules(Some(Rules::new(vec![rule]).map_err(Error::other)?), verifier);
    let relay = Relay::default().own_page(PAGE);
    relay.govern(&mut server, access.map_err(Error::other)?).map_err(Error::other)?;

    let mut backend = Backend { key, age: Duration::from_secs(seconds), sessions: HashMap::new() };
    while let Some(event) = server.poll()? {
        match event {
            Event::Http(exchange) if !exchange.path().starts_with("/rooms/") && !exchange.path().starts_with("/-/") => {
                let answer = backend.answer(&exchange)?;
                server.respond(exchange, answer.with_header("Cache-Control", "no-store"));
            }
            event => relay.handle(&mut server, event),
        }
    }
    Ok(())
}

/// What a site has anyway, and one thing more: `/token`.
struct Backend {
    key: Key,
    age: Duration,
    /// By the random text in the cookie: whose session it is.
    sessions: HashMap<String, &'static str>,
}

impl Backend {
    fn answer(&mut self, exchange: &Exchange) -> std::io::Result<Response> {
        let request = exchange.request();
        let session = session_of(request).unwrap_or_default();
        let user = self.sessions.get(&session).copied();
        Ok(match (request.method(), request.path(), user) {
            ("GET", "/", _) => Response::new(Status::OK).with_body("text/html; charset=utf-8", PAGE),
            ("GET", "/me", _) => {
                let rooms: Vec<&str> = user.into_iter().flat_map(rooms_of).collect();
                let body = serde_json::json!({ "user": user, "rooms": rooms }).to_string();
                Response::new(Status::OK).with_body("application/json", body)
            }
            ("GET", "/token", Some(user)) => Response::new(Status::OK).with_body("text/plain", self.token(user)?),
            ("POST", "/login", _) => match login(exchange.body()) {
                Some(user) => {
                    let session = random()?;
                    let cookie = format!("session={session}; Path=/; HttpOnly; SameSite=Strict");
                    self.sessions.insert(session, user);
                    Response::new(Status::NO_CONTENT).with_header("Set-Cookie", cookie)
                }
                None => Response::new(Status::UNAUTHORIZED),
            },
            ("POST", "/logout", _) => {
                self.sessions.remove(&session);
                Response::new(Status::NO_CONTENT)
            }
            ("GET", "/token", None) => Response::new(Status::UNAUTHORIZED),
            _ => Response::not_found(),
        })
    }

    /// A token that lets a user into the rooms that are theirs, and says who that is.
    fn token(&self, user: &str) -> std::io::Result<String> {
        let issued = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let issued = UnixTime::from_seconds(issued.as_secs());
        let mut token = NewToken { issued, expires: issued.after(self.age), ..NewToken::default() };
        token.subject = Some(user.to_owned());
        for room in rooms_of(user) {
            let room = Pattern::parse(room).map_err(Error::other)?;
            token.grants.extend([Right::Subscribe, Right::Publish, Right::Presence].map(|right| (right, room.clone())));
        }
        token.sign(&self.key).map_err(|reason| Error::other(reason.to_string()))
    }
}

fn rooms_of(user: &str) -> impl Iterator<Item = &'static str> {
    ROOMS.iter().filter(move |(_, two)| two.contains(&user)).map(|(room, _)| *room)
}

/// The user whom a login names, if the password is right: `{"user": …, "password": …}`.
fn login(body: &[u8]) -> Option<&'static str> {
    let said: serde_json::Value = serde_json::from_slice(body).ok()?;
    USERS.iter().find(|(user, password)| said["user"] == *user && said["password"] == *password).map(|(user, _)| *user)
}

fn session_of(request: &Request) -> Option<String> {
    let cookies = request.header_str("cookie")?;
    cookies.split(';').find_map(|it| it.trim().strip_prefix("session=")).map(str::to_owned)
}

/// 256 bits that nobody can guess.
fn random() -> std::io::Result<String> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
