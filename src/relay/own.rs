//! What is below `/-/`: the broker's own paths, and who may see them.
//!
//! Everybody may ask how the broker is. What goes on in it is for operators. They ask on a listener of theirs. Where
//! there is none, they ask on a listener that only this machine reaches, and only if the request looks in every way
//! like one of a program on this machine that asks for itself.

use super::preflight::answer_options;
use super::{Relay, listing, metrics};
use crate::broker::event::Exchange;
use crate::broker::reason::Cause;
use crate::channel::name::is_own_path;
use crate::engine::EngineError;
use crate::page;
use crate::proto::http::{Refusal, Request, Response, Status};
use crate::proto::origin::is_same_origin;
use crate::server::Server;

/// The methods that work where something can be looked at.
const METHODS: &str = "GET, HEAD, OPTIONS";

/// The methods that work where an operator changes something.
const METHODS_OF_VERBS: &str = "OPTIONS, POST";

/// Revokes the tokens of a user: only on a listener for operators, and only with an admin token.
const REVOKE: &str = "/-/revoke";

/// Says whether new connections are welcome.
const READY: &str = "/-/ready";

/// The module for pages. They may keep it as long as they ask each time whether it is still the same.
const MODULE: &str = "/-/slotcast.js";

/// Whether a request asks to revoke tokens. Elsewhere than on a listener for operators there is no such path.
pub(super) fn revokes(exchange: &Exchange) -> bool {
    is_verb(exchange) && exchange.request().method() == "POST"
}

/// The methods that work at the path of a request, which is no channel's.
pub(super) fn methods(exchange: &Exchange) -> &'static str {
    if is_verb(exchange) { METHODS_OF_VERBS } else { METHODS }
}

fn is_verb(exchange: &Exchange) -> bool {
    exchange.is_admin() && exchange.path() == REVOKE
}

/// Whether a request does not come from a page of another site.
///
/// # Errors
/// 403 `origin_not_allowed`. A page that may use the channels is no operator, and neither is anything else that runs in
/// that browser.
pub(super) fn check_origin(request: &Request) -> Result<(), Refusal> {
    if is_same_origin(request) { Ok(()) } else { Err(foreign_page()) }
}

/// The answer for a path that is no channel's; None if it is a channel's.
pub(super) fn answer(relay: &Relay, server: &Server, exchange: &Exchange) -> Option<Response> {
    let request = exchange.request();
    let method = request.method();
    if !is_own_path(request.path()) {
        // A listener for operators must not be a second door to the channels: other rules may guard those.
        return exchange.is_admin().then(Response::not_found);
    }
    let found: Result<Response, Refusal> = match request.path() {
        "/-/health" | "/-/healthy" => Ok(ok()),
        READY => ready(server, exchange),
        // With CORS or without: everybody may know what it contains.
        MODULE => Ok(page::module(request).with_header("Cross-Origin-Resource-Policy", "cross-origin")),
        _ if !is_for_operators(server, exchange) => return Some(not_here()),
        _ if !is_same_origin(request) => Err(foreign_page()),
        _ if method == "OPTIONS" => Ok(ok()),
        _ if is_verb(exchange) => Err(Refusal::method_not_allowed(METHODS_OF_VERBS)),
        "/-/metrics" => Ok(metrics(relay, server)),
        "/-/channels" => listing::channels(server, request),
        path => match path.strip_prefix("/-/channels").filter(|name| name.starts_with('/')) {
            Some(name) => listing::channel(server, name),
            None => return Some(Response::not_found()),
        },
    };
    let is_read = matches!(method, "GET" | "HEAD");
    let found = match method {
        _ if is_read => found,
        // Some balancers check the health this way: HAProxy does unless told otherwise. They get the same status.
        "OPTIONS" => found.map(|_| answer_options(request, methods(exchange), server.allows_credentials(request))),
        _ => Err(Refusal::method_not_allowed(methods(exchange))),
    };
    let keeping = if is_read && request.path() == MODULE { "no-cache" } else { "no-store" };
    let response = found.unwrap_or_else(|refusal| match request.path() {
        // That the broker is not ready is an answer to the question, so it does not count as a refusal.
        READY => Response::problem(&refusal).into_answer(),
        _ => Response::problem(&refusal),
    });
    Some(response.with_header("Cache-Control", keeping))
}

fn ok() -> Response {
    Response::new(Status::OK).with_body("text/plain; charset=utf-8", "ok\n")
}

fn metrics(relay: &Relay, server: &Server) -> Response {
    let mut text = metrics::metrics_text(server);
    if let Some(super::MoreMetrics(write)) = &relay.more_metrics {
        write(server, &mut text);
    }
    Response::new(Status::OK).with_body(metrics::MEDIA_TYPE, text)
}

fn foreign_page() -> Refusal {
    let detail = "Only a page that comes from this very address may look here.";
    Refusal::new(Status::FORBIDDEN, "origin_not_allowed", detail)
}

/// Says whether new connections are welcome.
fn ready(server: &Server, exchange: &Exchange) -> Result<Response, Refusal> {
    let unavailable = |code, detail| Err(Refusal::new(Status::SERVICE_UNAVAILABLE, code, detail));
    if server.is_draining() {
        return unavailable(Cause::ShuttingDown.as_str(), "The broker shuts down; send new connections elsewhere.");
    }
    if server.is_engine_away() {
        let detail = "The broker's engine cannot be reached; send new connections elsewhere.";
        return unavailable(EngineError::Away.as_str(), detail);
    }
    // A request on the public listener takes a place itself while it asks.
    let others = server.counted_connections().saturating_sub(usize::from(!exchange.is_admin()));
    if others >= server.limits().max_connections {
        return unavailable(Cause::TooManyConnections.as_str(), "The broker is full; send new connections elsewhere.");
    }
    Ok(ok())
}

/// Whether this request may be told what goes on in the broker.
fn is_for_operators(server: &Server, exchange: &Exchange) -> bool {
    exchange.is_admin() || (!server.has_admin_listeners() && server.is_private() && is_direct(server, exchange))
}

/// The fields of a program that asks for itself: curl, wget, Prometheus, browsers, the HTTP libraries of Go, Python and
/// Node. Of `Sec-Fetch-` and `Sec-CH-` there are many.
const OF_CLIENTS: [&str; 22] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "cache-control",
    "connection",
    "content-length",
    "cookie",
    "dnt",
    "host",
    "if-modified-since",
    "if-none-match",
    "keep-alive",
    "origin",
    "pragma",
    "priority",
    "referer",
    "sec-gpc",
    "sec-purpose",
    "upgrade-insecure-requests",
    "user-agent",
    "x-prometheus-scrape-timeout-seconds",
];

/// Whether a program on this machine asks for itself. A proxy on this machine, or the end of a tunnel, makes everybody
/// look like that, and no list of what proxies add is ever complete. So this is a list of what is known to be harmless.
/// Everything else counts as a proxy: any other field, HTTP/1.0 (the default of nginx), `Connection: close` (which
/// nginx sends where it is told to speak 1.1 in the usual way), a host that is not this machine, or a port that is not
/// ours.
///
/// It cannot be complete either. A proxy that adds nothing, and passes a `Host` on or writes one that fits, looks the
/// same as a program. That is why these paths move to `--admin-listen` as soon as there is one, and are nowhere else.
/// It is also why `is_private` is false if an origin, a host or a proxy is allowed: few sites behind a proxy can do
/// without these.
fn is_direct(server: &Server, exchange: &Exchange) -> bool {
    let request = exchange.request();
    let is_ours = |port| server.local_addrs().iter().any(|address| Some(address.port()) == port);
    let names_us =
        request.authority().is_some_and(|target| target.host.is_loopback() && is_ours(target.port_or_default("http")));
    let known = |name: &str| OF_CLIENTS.iter().any(|known| name.eq_ignore_ascii_case(known)) || is_hint(name);
    !request.is_http10()
        && exchange.peer().ip().is_loopback()
        && names_us
        && request.fields().all(|(name, _)| known(name))
        && request.list("connection").all(|option| option.eq_ignore_ascii_case(b"keep-alive"))
}

/// A field that only browsers send, and no page can set (Fetch §2.2.2).
fn is_hint(name: &str) -> bool {
    let begins = |start: &str| name.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start));
    begins("sec-fetch-") || begins("sec-ch-")
}

/// The same for paths that exist and for those that do not. It contains only what every reader of the manual knows.
fn not_here() -> Response {
    let detail = "Here everybody may ask for /-/health, /-/ready and /-/slotcast.js. Anything else is answered on the listener for \
                  operators; without one, to programs on this machine that ask directly, by HTTP/1.1 and without fields \
                  that a proxy might add.";
    Response::problem(&Refusal::new(Status::NOT_FOUND, "not_found", detail))
}
