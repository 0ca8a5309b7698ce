//! `/-/channels` and `/-/channels/PATH`: what goes on, for operators.

use std::fmt::Write as _;

use crate::broker::listing::ChannelState;
use crate::channel::name::ChannelName;
use crate::proto::http::{Refusal, Request, Response, Status};
use crate::proto::target::bad_parameter;
use crate::proto::text::push_json_string;
use crate::server::Server;

/// The most channels that one answer lists; it is also the default.
const MOST: usize = 1000;

/// One page of the channels that have members or history, by name.
pub(super) fn channels(server: &Server, request: &Request) -> Result<Response, Refusal> {
    let (after, limit) = (request.query().get("after")?.unwrap_or_default(), limit(request)?);
    let mut states = server.channels_after(&after, limit + 1);
    let more = states.len() > limit;
    states.truncate(limit);
    let mut json = String::from("{\"channels\":[");
    for (i, state) in states.iter().enumerate() {
        json.push_str(if i == 0 { "{" } else { ",{" });
        push_state(&mut json, state);
        json.push('}');
    }
    // Writing to a String cannot fail.
    let _ = write!(json, "],\"count\":{},\"tombstones\":{},\"next\":", server.channels(), server.tombstones());
    match states.last().filter(|_| more) {
        Some(last) => push_json_string(&mut json, &last.name),
        None => json.push_str("null"),
    }
    json.push_str("}\n");
    Ok(answer(json))
}

/// One channel and its members. `path` is the part after `/-/channels`, still percent-encoded.
pub(super) fn channel(server: &Server, path: &str) -> Result<Response, Refusal> {
    let name = ChannelName::from_path(path)?;
    let state = server.channel_state(&name).ok_or_else(|| {
        let detail = "There is no such channel now; see /-/channels for those that have members or history.";
        Refusal::new(Status::NOT_FOUND, "no_such_channel", detail)
    })?;
    let mut json = String::from("{");
    push_state(&mut json, &state);
    json.push_str(",\"who\":");
    match server.members_for_operators(&name) {
        None => json.push_str("null"),
        Some(mut members) => {
            members.sort_by(|one, two| {
                (one.name.is_none(), &one.name, one.id).cmp(&(two.name.is_none(), &two.name, two.id))
            });
            json.push('[');
            for (i, member) in members.iter().enumerate() {
                let _ = write!(json, "{}\"id\":\"{}\"", if i == 0 { "{" } else { ",{" }, member.id);
                if let Some(name) = &member.name {
                    json.push_str(",\"name\":");
                    push_json_string(&mut json, name);
                }
                if let Some(user) = &member.user {
                    json.push_str(",\"user\":");
                    push_json_string(&mut json, user);
                }
                json.push('}');
            }
            json.push(']');
        }
    }
    json.push_str("}\n");
    Ok(answer(json))
}

fn limit(request: &Request) -> Result<usize, Refusal> {
    let Some(text) = request.query().get("limit")? else { return Ok(MOST) };
    let digits = Some(&*text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let limit = digits.and_then(|text| text.parse().ok()).filter(|limit| (1..=MOST).contains(limit));
    limit.ok_or_else(|| bad_parameter("limit", "a number from 1 to 1000"))
}

fn push_state(json: &mut String, state: &ChannelState) {
    json.push_str("\"channel\":");
    push_json_string(json, &state.name);
    let _ = write!(
        json,
        ",\"position\":\"{}\",\"members\":{},\"subscribers\":{},\"messages\":{},\"bytes\":{}",
        state.position, state.members, state.subscribers, state.messages, state.bytes
    );
}

fn answer(json: String) -> Response {
    Response::new(Status::OK).with_body("application/json", json)
}
