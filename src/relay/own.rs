//! What lies under `/-/`: the broker's own, and who gets to see it.
//!
//! How the broker is, everybody may ask. What goes on in it is for operators: on a listener of theirs, or, where there
//! is none, on one that only this machine reaches, and only as long as nothing suggests that others reach it through a
//! proxy or that pages of other origins may use it.

use super::{Relay, listing, metrics};
use crate::broker::event::Exchange;
use crate::broker::reason::{Cause, TOO_MANY_CONNECTIONS};
use crate::channel::name::is_own_path;
use crate::page;
use crate::proto::http::{Refusal, Request, Response, Status};
use crate::proto::origin::is_same_origin;
use crate::server::Server;

/// The methods that work here.
const METHODS: &str = "GET, HEAD";

/// The module for pages, which they may keep as long as they ask whether it is still the same.
const MODULE: &str = "/-/slotcast.js";

/// The answer to what is no channel's business; None if it is a channel's.
pub(super) fn answer(relay: &Relay, server: &Server, exchange: &Exchange) -> Option<Response> {
    let request = exchange.request();
    if !is_own_path(request.path()) {
        // A listener for operators is not a second door to the channels, which other rules might guard.
        return exchange.is_admin().then(Response::not_found);
    }
    let found: Result<Response, Refusal> = match request.path() {
        "/-/health" | "/-/healthy" => Ok(ok()),
        "/-/ready" => ready(server, exchange),
        // With CORS or without: there is nothing in it that not everybody may know.
        MODULE => Ok(page::module(request).with_header("Cross-Origin-Resource-Policy", "cross-origin")),
        _ if !is_for_operators(server, exchange) => return Some(Response::not_found()),
        // A page that is allowed to use the channels is no operator, and neither is whatever else runs here.
        _ if !is_same_origin(request) => Err(foreign_page()),
        "/-/metrics" => Ok(metrics(relay, server)),
        "/-/channels" => listing::channels(server, request),
        path => match path.strip_prefix("/-/channels").filter(|name| name.starts_with('/')) {
            Some(name) => listing::channel(server, name),
            None => return Some(Response::not_found()),
        },
    };
    let is_read = matches!(request.method(), "GET" | "HEAD");
    let found = if is_read { found } else { Err(Refusal::method_not_allowed(METHODS)) };
    let keeping = if is_read && request.path() == MODULE { "no-cache" } else { "no-store" };
    Some(found.unwrap_or_else(|refusal| Response::problem(&refusal)).with_header("Cache-Control", keeping))
}

fn ok() -> Response {
    Response::new(Status::OK).with_body("text/plain; charset=utf-8", "ok\n")
}

fn metrics(relay: &Relay, server: &Server) -> Response {
    let mut text = metrics::of(server);
    if let Some(write) = relay.more_metrics {
        write(&mut text);
    }
    Response::new(Status::OK).with_body(metrics::MEDIA_TYPE, text)
}

fn foreign_page() -> Refusal {
    let detail = "Only a page that comes from this very address may look here.";
    Refusal::new(Status::FORBIDDEN, "origin_not_allowed", detail)
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

/// Whether what goes on in the broker may be told in answer to this request, and told to whom.
fn is_for_operators(server: &Server, exchange: &Exchange) -> bool {
    exchange.is_admin()
        || (!server.has_admin_listeners() && server.is_private() && !came_through_a_proxy(exchange.request()))
}

/// A proxy in front makes everybody look like this machine.
fn came_through_a_proxy(request: &Request) -> bool {
    request.fields().any(|(name, _)| {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let forwarded = name.get(..12).is_some_and(|start| start.eq_ignore_ascii_case("x-forwarded-"));
        forwarded || is("forwarded") || is("via") || is("x-real-ip")
    })
}
