//! What lies under `/-/`: the broker's own, and who gets to see it.
//!
//! How the broker is, everybody may ask. What goes on in it is for operators: on a listener of theirs, or, where there
//! is none, on one that only this machine reaches, and only as long as nothing suggests that others reach it through a
//! proxy or that pages of other origins may use it.

use crate::broker::event::Exchange;
use crate::broker::reason::{Cause, TOO_MANY_CONNECTIONS};
use crate::channel::name::is_own_path;
use crate::proto::http::{Refusal, Response, Status};
use crate::server::Server;

/// The methods that work here.
const METHODS: &str = "GET, HEAD";

/// The answer to what is no channel's business; None if it is a channel's.
pub(super) fn answer(server: &Server, exchange: &Exchange) -> Option<Response> {
    let request = exchange.request();
    if !is_own_path(request.path()) {
        // A listener for operators is not a second door to the channels, which other rules might guard.
        return exchange.is_admin().then(Response::not_found);
    }
    let found: Result<Response, Refusal> = match request.path() {
        "/-/health" | "/-/healthy" => Ok(ok()),
        "/-/ready" => ready(server, exchange),
        _ => return Some(Response::not_found()),
    };
    let is_read = matches!(request.method(), "GET" | "HEAD");
    let found = if is_read { found } else { Err(Refusal::method_not_allowed(METHODS)) };
    Some(found.unwrap_or_else(|refusal| Response::problem(&refusal)).with_header("Cache-Control", "no-store"))
}

fn ok() -> Response {
    Response::new(Status::OK).with_body("text/plain; charset=utf-8", "ok\n")
}

/// Whether new connections are welcome.
fn ready(server: &Server, exchange: &Exchange) -> Result<Response, Refusal> {
    let unavailable = |code, detail| Err(Refusal::new(Status::SERVICE_UNAVAILABLE, code, detail));
    if server.is_draining() {
        return unavailable(Cause::ShuttingDown.as_str(), "The broker shuts down; send new connections elsewhere.");
    }
    // Whoever asks by the door of everybody takes a place while it asks.
    let others = server.counted_connections().saturating_sub(usize::from(!exchange.is_admin()));
    if others >= server.limits().max_connections {
        return unavailable(TOO_MANY_CONNECTIONS, "The broker is full; send new connections elsewhere.");
    }
    Ok(ok())
}
