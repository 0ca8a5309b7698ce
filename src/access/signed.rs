//! Signed URLs: for clients that can carry nothing but a URL.
//!
//! `/rooms/7?can=sub,pub&exp=…&iat=…&key=k1&user=42&sig=…`. `sig` is the base64url, without padding, of HMAC-SHA256 with
//! the key over these lines, with a line feed between them and none at the end; names and values are decoded:
//!
//! ```text
//! slotcast-url-v1
//! /rooms/7
//! can=sub,pub
//! exp=1767229200
//! iat=1767225600
//! key=k1
//! user=42
//! ```
//!
//! The parameters may come in any order, and others may stand between them, which are not signed. `user` may be empty.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::claims::MAX_SUBJECT;
use super::error::{Reason, TokenError};
use super::grants::{Grants, Proof};
use super::keys::{Key, Keys};
use super::rule::Right;
use super::time::UnixTime;
use super::verifier::Ages;
use crate::channel::name::{ChannelName, NameError};
use crate::proto::http::Refusal;
use crate::proto::target::{Parameters, Query, percent_encode_value};
use crate::proto::text::is_hidden;

/// The first line of what is signed: no other kind of text can be taken for it.
const VERSION: &str = "slotcast-url-v1";

/// The parameters that are signed, in the order of their lines.
const SIGNED: [&str; 5] = ["can", "exp", "iat", "key", "user"];

const SIG: &str = "sig";

/// What cannot stand beside `sig`: another proof, and other channels.
const NEVER_BESIDE: [&str; 2] = ["token", "also"];

/// The longest date, in digits.
const MAX_DIGITS: usize = 12;

/// What a signed URL gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Can {
    /// GET and WebSocket; who is in the channel as well, where those who subscribe are told.
    Subscribe,
    /// POST, PUT, and to publish and send on a WebSocket.
    Publish,
    /// Both.
    Both,
}

impl Can {
    /// Reads `sub`, `pub`, `sub,pub` or `pub,sub`; anything else is `None`.
    pub fn parse(text: &str) -> Option<Can> {
        match text {
            "sub" => Some(Can::Subscribe),
            "pub" => Some(Can::Publish),
            "sub,pub" | "pub,sub" => Some(Can::Both),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Can::Subscribe => "sub",
            Can::Publish => "pub",
            Can::Both => "sub,pub",
        }
    }

    fn rights(self) -> u8 {
        let subscribe = Right::Subscribe.bit() | Right::Presence.bit();
        let publish = Right::Publish.bit() | Right::Send.bit();
        match self {
            Can::Subscribe => subscribe,
            Can::Publish => publish,
            Can::Both => subscribe | publish,
        }
    }
}

/// A URL with a signature, not verified. `Debug` shows nothing of it.
pub struct SignedUrl {
    can: Can,
    expires: UnixTime,
    issued: UnixTime,
    key: String,
    user: String,
    signed: String,
    signature: String,
}

/// Whether a query has a signature.
///
/// # Errors
/// 400 if its value cannot be decoded.
pub fn is_signed(query: Query<'_>) -> Result<bool, Refusal> {
    query.get(SIG).map(|sig| sig.is_some())
}

impl SignedUrl {
    /// Reads the query of a request for this channel.
    ///
    /// # Errors
    /// 400 `bad_signed_url` if one of the parameters is missing, comes twice, however it is encoded, has a character
    /// in it that cannot be seen, or is not what it should be; or if `token` or `also` stands beside them.
    pub fn read(query: Query<'_>, channel: &str) -> Result<SignedUrl, Refusal> {
        let mut values: [Option<String>; SIGNED.len()] = Default::default();
        let mut signature = None;
        for parameter in query.iter() {
            let (name, value) = parameter.map_err(|_| refusal("Percent-encode the parameters of a signed URL."))?;
            if NEVER_BESIDE.contains(&&*name) {
                return Err(refusal("A signed URL is for one channel and its own proof: leave out token and also."));
            }
            let place = if name == SIG {
                &mut signature
            } else {
                let Some(place) = SIGNED.iter().position(|known| *known == name).and_then(|at| values.get_mut(at))
                else {
                    continue;
                };
                place
            };
            // A line end in a value would make two lines of it.
            if place.is_some() || value.chars().any(is_hidden) {
                return Err(refusal("Each parameter of a signed URL comes once, and is visible text."));
            }
            *place = Some(value.into_owned());
        }
        let ([Some(can), Some(expires), Some(issued), Some(key), Some(user)], Some(signature)) = (values, signature)
        else {
            return Err(refusal("A signed URL has the parameters can, exp, iat, key, user and sig."));
        };
        let can_be = Can::parse(&can).ok_or_else(|| refusal("In a signed URL, can is sub, pub, or sub,pub."))?;
        let bad_date = || refusal("In a signed URL, exp and iat are seconds since 1970, in digits.");
        let signed = text([VERSION, channel], [&can, &expires, &issued, &key, &user]);
        let expires = date(&expires).ok_or_else(bad_date)?;
        let issued = date(&issued).ok_or_else(bad_date)?;
        if user.len() > MAX_SUBJECT {
            return Err(refusal("In a signed URL, user has at most 255 bytes."));
        }
        Ok(SignedUrl { can: can_be, expires, issued, key, user, signed, signature })
    }

    /// What it gives in the channel that it was read for.
    ///
    /// # Errors
    /// As for a token.
    pub fn verify(&self, channel: &str, keys: &Keys, ages: &Ages, now: UnixTime) -> Result<Grants, TokenError> {
        let key = keys.of_url(&self.key).ok_or(Reason::UnknownKey)?;
        let signature = URL_SAFE_NO_PAD.decode(&self.signature).map_err(|_| Reason::Signature)?;
        if !key.verifies(self.signed.as_bytes(), &signature) {
            return Err(Reason::Signature.into());
        }
        let ends = ages.check(self.expires, None, Some(self.issued), now)?;
        let proof = Proof {
            origin: key.origin().clone(),
            user: Some((key.prefix(), &*self.user)).filter(|(_, user)| !user.is_empty()),
            expires: self.expires,
            ends,
            issued: self.issued,
        };
        Ok(Grants::of_signed_url(proof, channel, self.can.rights()))
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedUrl(…)")
    }
}

/// The query of a signed URL for a channel, whose name is decoded: whole, with `sig`. `None` if the key does not sign, or
/// the user is no visible text of up to 255 bytes.
pub fn sign(key: &Key, channel: &str, can: Can, issued: UnixTime, expires: UnixTime, user: &str) -> Option<String> {
    if user.len() > MAX_SUBJECT || user.chars().any(is_hidden) {
        return None;
    }
    let (expires, issued) = (expires.seconds().to_string(), issued.seconds().to_string());
    let values = [can.as_str(), &expires, &issued, key.id(), user];
    let signature = URL_SAFE_NO_PAD.encode(key.sign(text([VERSION, channel], values).as_bytes())?);
    let mut query = String::new();
    for (name, value) in SIGNED.into_iter().zip(values) {
        query.push_str(&format!("{name}={}&", percent_encode_value(value)));
    }
    Some(query + SIG + "=" + &signature)
}

/// Signs the target of a URL: its path, still encoded, and its query, if there is one. Parameters that are there stay.
///
/// # Errors
/// If the path is no channel, or a parameter is there that is one of a signed URL or cannot stand beside them; or as
/// [`sign`].
pub fn sign_target(
    key: &Key,
    target: &str,
    can: Can,
    issued: UnixTime,
    expires: UnixTime,
    user: &str,
) -> Result<String, SignError> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let channel = ChannelName::from_path(path).map_err(SignError::Name)?;
    let parameters = Parameters::scan(query).map_err(|_| SignError::Query)?;
    for parameter in Query::new(query, &parameters).iter() {
        let (name, _) = parameter.map_err(|_| SignError::Query)?;
        let named = SIGNED.iter().chain(&[SIG]).chain(&NEVER_BESIDE).find(|known| **known == name);
        if let Some(named) = named {
            return Err(SignError::Parameter(named));
        }
    }
    let signed = sign(key, &channel, can, issued, expires, user).ok_or(SignError::User)?;
    let between = if query.is_empty() { "" } else { "&" };
    Ok(format!("{path}?{query}{between}{signed}"))
}

/// Why a URL is not signed. It repeats nothing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignError {
    /// The path is no channel's name.
    Name(NameError),
    /// The query has more parameters than a request may have, or one that is not percent-encoded.
    Query,
    /// The query has this parameter already, or must not have it.
    Parameter(&'static str),
    /// The user is no visible text of up to 255 bytes, or the key does not sign.
    User,
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignError::Name(error) => write!(f, "its path is no channel: {error}"),
            SignError::Query => f.write_str("its query cannot be read: percent-encode its at most 64 parameters"),
            SignError::Parameter(name) => write!(f, "its query has {name} already: leave that out"),
            SignError::User => f.write_str("a user is visible text of at most 255 bytes"),
        }
    }
}

impl std::error::Error for SignError {}

/// What is signed.
fn text(first: [&str; 2], values: [&str; SIGNED.len()]) -> String {
    let mut text = first.join("\n");
    for (name, value) in SIGNED.into_iter().zip(values) {
        text.push('\n');
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
    text
}

fn date(digits: &str) -> Option<UnixTime> {
    let is_short = (1..=MAX_DIGITS).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = digits.parse().ok().filter(|seconds| is_short && *seconds <= UnixTime::LAST_SECOND)?;
    Some(UnixTime::from_seconds(seconds))
}

fn refusal(detail: &'static str) -> Refusal {
    Refusal::bad_request("bad_signed_url", detail)
}

#[cfg(test)]
#[path = "signed_tests.rs"]
mod tests;
