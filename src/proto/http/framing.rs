//! How the body of a request is delimited (RFC 9112 §6).

use super::{Refusal, Request, Status};

/// How long the body after a request head is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body: neither `Content-Length` nor `Transfer-Encoding` (RFC 9112 §6.3, rule 7).
    None,
    /// This many bytes. It is only the peer's claim: compare it with the limit, and allocate as bytes arrive.
    Length(u64),
    /// The chunked transfer coding (RFC 9112 §7.1).
    Chunked,
}

/// Decides how a request's body is delimited, and refuses every request that two recipients could read differently.
///
/// # Errors
/// 400 (`bad_transfer_encoding`, `bad_content_length`, `conflicting_framing`) and, for a length beyond 64 bits, 413
/// (`message_too_big`). The connection has to be closed after the answer.
pub fn framing(request: &Request) -> Result<Framing, Refusal> {
    let mut lengths = request.headers("content-length");
    let length = lengths.next();
    let mut encodings = request.headers("transfer-encoding");
    let Some(encoding) = encodings.next() else {
        let Some(length) = length else { return Ok(Framing::None) };
        if lengths.next().is_some() {
            return Err(bad_content_length());
        }
        return content_length(length).map(Framing::Length);
    };
    if length.is_some() {
        return Err(Refusal::bad_request(
            "conflicting_framing",
            "The request has both Content-Length and Transfer-Encoding; send one of them.",
        ));
    }
    // RFC 9112 §6.1: an HTTP/1.0 sender cannot mean it, so its framing is faulty.
    let only_chunked = encodings.next().is_none() && encoding.eq_ignore_ascii_case(b"chunked");
    if request.is_http10() || !only_chunked {
        return Err(Refusal::bad_request(
            "bad_transfer_encoding",
            "Send the body with Content-Length, or over HTTP/1.1 with Transfer-Encoding: chunked alone.",
        ));
    }
    Ok(Framing::Chunked)
}

/// RFC 9110 §8.6: digits and nothing else, neither a sign nor a list of equal lengths.
fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(bad_content_length());
    }
    value
        .iter()
        .try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .ok_or_else(|| Refusal::new(Status::CONTENT_TOO_LARGE, "message_too_big", "Send a smaller body."))
}

fn bad_content_length() -> Refusal {
    Refusal::bad_request("bad_content_length", "Send Content-Length once, as a decimal number without a sign.")
}
