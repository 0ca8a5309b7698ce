//! Why a token is not accepted. Nothing here repeats any part of a token.

use std::fmt;

use super::json::WrongType;
use super::pattern::PatternError;

/// Why a token, or a signed URL, is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// It never was, is not yet, or is no more what it should be.
    Invalid(Reason),
    /// It was accepted until now.
    Expired,
}

/// What is wrong with a token: for the operator's log, and not for its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is longer than 8 KiB.
    TooLong,
    /// It is not three parts of base64url.
    Form,
    /// Its header is no JSON object, or has a member that is not what it should be.
    Header,
    /// Its header wants something of its reader that this one does not do: `crit`, `b64`, `zip`, or encryption.
    Critical,
    /// It is a token of another kind, or has another in it.
    Kind,
    /// Its `kid` names no key.
    UnknownKey,
    /// The program that embeds the broker, and verifies tokens itself, does not know it.
    Unknown,
    /// Its issuer has no key here.
    Issuer,
    /// It names another algorithm than its key has.
    Algorithm,
    /// No key of its issuer has signed it.
    Signature,
    /// Its payload is no JSON object, or has a member twice.
    Payload,
    /// A claim is not what it should be.
    WrongType(&'static str),
    /// A claim is longer than it may be, or holds characters that cannot be seen.
    Text(&'static str),
    /// A date is before 1970, or after 9999.
    Date(&'static str),
    /// It has more than 64 patterns.
    TooManyPatterns,
    /// One of its patterns is none.
    Pattern(&'static str, PatternError),
    /// It has no `exp`.
    NoExpiry,
    /// It is for another audience.
    Audience,
    /// Its `nbf` has not come yet.
    NotYet,
    /// Its `iat` has not come yet.
    IssuedLater,
    /// It may be used for longer than a token may.
    TooOld,
    /// All tokens of its user that are as old were revoked.
    Revoked,
    /// What was shown is no text, or was shown twice.
    Unreadable,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = match self {
            Reason::TooLong => "it is longer than 8 KiB",
            Reason::Form => "it is not three parts of base64url without padding",
            Reason::Header => "its header is not what RFC 7515 says",
            Reason::Critical => "its header wants an extension that is not known here",
            Reason::Kind => "it is a token of another kind",
            Reason::UnknownKey => "its kid names no key that is known here",
            Reason::Unknown => "the verifier of this program does not know it",
            Reason::Issuer => "its issuer has no key here",
            Reason::Algorithm => "its alg is not that of the key",
            Reason::Signature => "no key of its issuer has signed it",
            Reason::Payload => "its payload is not one JSON object in which no member comes twice",
            Reason::WrongType(claim) => return write!(f, "its {claim} is of the wrong type"),
            Reason::Text(claim) => return write!(f, "its {claim} is too long, or has characters that cannot be seen"),
            Reason::Date(claim) => return write!(f, "its {claim} is no date from 1970 to 9999"),
            Reason::TooManyPatterns => "it has more than 64 patterns",
            Reason::Pattern(claim, error) => return write!(f, "a pattern of its {claim} is none: {error}"),
            Reason::NoExpiry => "it has no exp",
            Reason::Audience => "its aud names others",
            Reason::NotYet => "its nbf is in the future",
            Reason::IssuedLater => "its iat is in the future",
            Reason::TooOld => "it may be used for longer than the greatest age of a token",
            Reason::Revoked => "it was revoked",
            Reason::Unreadable => "it is not readable, or came twice",
        };
        f.write_str(said)
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::Invalid(reason) => write!(f, "the token is not valid: {reason}"),
            TokenError::Expired => f.write_str("the token has expired"),
        }
    }
}

impl std::error::Error for TokenError {}

impl From<Reason> for TokenError {
    fn from(reason: Reason) -> TokenError {
        TokenError::Invalid(reason)
    }
}

impl From<WrongType> for Reason {
    fn from(WrongType(claim): WrongType) -> Reason {
        Reason::WrongType(claim)
    }
}

impl TokenError {
    /// What the peer is told: the same in an answer, the dialect, the log and the metrics.
    pub fn code(self) -> &'static str {
        match self {
            TokenError::Invalid(_) => "token_invalid",
            TokenError::Expired => "token_expired",
        }
    }
}
