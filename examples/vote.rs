//! A vote with live results: by WebSocket, by long polling and by plain polling, to compare them on one page.
//! `cargo run --example vote [ADDRESS [CANDIDATE…]]`, or PORT in the environment
//!
//! One channel, two directions: what somebody publishes there is a vote, and becomes the new result before the relay
//! publishes it. The channel keeps one message, so anyone who comes gets the present result, through any door.

mod common;
use std::time::Duration;

use slotcast::{Config, Event, Intent, Message, Refusal, Relay, Request, Response, Server, Status};

const CHANNEL: &str = "/votes";
const CANDIDATES: [&str; 5] = ["Coffee", "Tea", "Water", "Juice", "Mate"];

fn main() -> std::process::ExitCode {
    common::start(
        "vote [ADDRESS [CANDIDATE…]]",
        "A vote with live results, and what each way to get them costs.",
        8084,
        run,
    )
}

fn run(mut config: Config, arguments: &[String]) -> std::io::Result<()> {
    config.limits.history_messages = 1;
    config.limits.history_age = Duration::from_secs(366 * 24 * 3600);
    let mut server = Server::bind(config)?;
    println!("listening on http://{}/", server.local_addrs()[0]);

    let mut ballot = Ballot::new(arguments.iter().skip(1).cloned());
    server.publish(CHANNEL, ballot.result());
    let relay = Relay::default().own_page(include_str!("vote.html"));
    while let Some(event) = server.poll()? {
        match event {
            Event::Http(exchange) if exchange.path() == "/-/head-size" => {
                let bytes = head_size(exchange.request()).to_string();
                server.respond(exchange, Response::new(Status::OK).with_body("text/plain", bytes));
            }
            event => {
                let mut intent = relay.read(&server, event);
                let came = if let Intent::Join { handshake, .. } = &intent {
                    Some((handshake.id(), head_size(handshake.request())))
                } else {
                    None
                };
                match ballot.check(&mut intent) {
                    Ok(()) => relay.perform(&mut server, intent),
                    Err(refusal) => relay.veto(&mut server, intent, refusal),
                }
                // The page cannot see how many bytes opening a WebSocket took.
                if let Some((id, bytes)) = came {
                    server.send(id, format!(r#"{{"handshake":{bytes}}}"#));
                }
            }
        }
    }
    Ok(())
}

/// The candidates, each with its number of votes.
struct Ballot(Vec<(String, u64)>);

impl Ballot {
    fn new(names: impl Iterator<Item = String>) -> Ballot {
        let names: Vec<String> = names.collect();
        let names = if names.is_empty() { CANDIDATES.map(str::to_owned).to_vec() } else { names };
        Ballot(names.into_iter().map(|name| (name, 0)).collect())
    }

    /// Refuses what is no vote here. Counts a vote, and puts the result in its place.
    fn check(&mut self, intent: &mut Intent) -> Result<(), Refusal> {
        match intent {
            Intent::Publish { channel, .. } | Intent::Join { channel, .. } | Intent::Subscribe { channel, .. }
                if **channel != *CHANNEL =>
            {
                Err(Refusal::new(Status::NOT_FOUND, "not_here", "The vote is in /votes."))
            }
            Intent::Publish { message, more, .. } => {
                let votes: Option<Vec<usize>> = [&*message].into_iter().chain(&*more).map(|it| self.find(it)).collect();
                let unknown = || Refusal::bad_request("unknown_candidate", "Send the name of a candidate alone.");
                for at in votes.ok_or_else(unknown)? {
                    self.0[at].1 += 1;
                }
                (*message, *more) = (self.result(), Vec::new());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn find(&self, vote: &Message) -> Option<usize> {
        let vote = vote.as_text()?.trim();
        self.0.iter().position(|(name, _)| name == vote)
    }

    fn result(&self) -> Message {
        let of = |(name, votes): &(String, u64)| serde_json::json!({ "name": name, "votes": votes });
        let candidates: Vec<_> = self.0.iter().map(of).collect();
        Message::text(serde_json::json!({ "candidates": candidates }).to_string())
    }
}

/// How many bytes a request had, without its body.
fn head_size(request: &Request) -> usize {
    let line = request.method().len() + request.target().len() + "  HTTP/1.1\r\n\r\n".len();
    line + request.fields().map(|(name, value)| name.len() + value.len() + ": \r\n".len()).sum::<usize>()
}
