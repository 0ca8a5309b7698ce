//! The publish token: anyone who publishes needs it, over any protocol; those who only listen do not.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::hint::black_box;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::shown::by_subprotocol;
use crate::proto::http::Request;

/// The longest token, in bytes: it has to fit into a request's target.
pub const MAX_TOKEN: usize = 1024;

/// A secret that peers show. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct PublishToken(Arc<[u8]>);

/// Why a text is not a [`PublishToken`]. It does not repeat the text, which may be most of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishTokenError {
    /// It is empty, or longer than 1,024 bytes. It has this many.
    Length(usize),
    /// A character is no visible one of ASCII.
    Character,
}

impl fmt::Display for PublishTokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishTokenError::Length(length) => write!(f, "a token has 1 to {MAX_TOKEN} characters, not {length}"),
            PublishTokenError::Character => {
                f.write_str("a token has only visible ASCII characters: leave out all others")
            }
        }
    }
}

impl std::error::Error for PublishTokenError {}

/// `InvalidInput`, for a `main` that returns `io::Result`.
impl From<PublishTokenError> for io::Error {
    fn from(error: PublishTokenError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

/// Names a token without containing it: tokens that are equal have equal marks. A connection keeps the mark of the token
/// that it has shown, so that it may publish no longer once that token is taken back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mark(NonZeroU32);

/// Whether a request shows a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Nothing,
    Another,
    Ours(Mark),
}

impl PublishToken {
    /// A token of 1 to 1,024 visible ASCII characters, which can stand in a header as they are.
    ///
    /// # Errors
    /// If it is something else. The error does not repeat the token.
    pub fn new(token: &str) -> Result<PublishToken, PublishTokenError> {
        if !(1..=MAX_TOKEN).contains(&token.len()) {
            return Err(PublishTokenError::Length(token.len()));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(PublishTokenError::Character);
        }
        Ok(PublishToken(token.as_bytes().into()))
    }

    /// What stands for this token where the token itself must not be kept.
    pub(super) fn mark(&self) -> Mark {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        Mark(NonZeroU32::new(hasher.finish() as u32).unwrap_or(NonZeroU32::MIN))
    }

    /// Compares in a time that depends only on the length of what is given, and not on the secret.
    fn is(&self, given: &[u8]) -> bool {
        let mut difference = self.0.len() ^ given.len();
        for (byte, expected) in given.iter().zip(self.0.iter().cycle()) {
            difference |= usize::from(black_box(byte ^ expected));
        }
        black_box(difference) == 0
    }

    /// Whether the request shows one of these tokens: in `Authorization: Bearer TOKEN` (RFC 6750 §2.1), in the subprotocol
    /// `slotcast.token.TOKEN`, or in `?token=TOKEN`; any is enough. Another scheme of `Authorization` is ignored: a proxy
    /// in front of us uses it.
    pub(super) fn shown_in(tokens: &[PublishToken], request: &Request) -> Shown {
        let bearers = request.headers("authorization").filter_map(|value| {
            let (scheme, token) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
        });
        let query = match request.query().get("token") {
            Ok(token) => token,
            Err(_) => Some("".into()),
        };
        let carried = by_subprotocol(request).unwrap_or(Some(""));
        let shown = bearers.chain(carried.map(str::as_bytes)).chain(query.as_deref().map(str::as_bytes));
        shown.fold(Shown::Nothing, |earlier, given| match (earlier, one_of(tokens, given)) {
            (Shown::Ours(mark), _) | (_, Some(mark)) => Shown::Ours(mark),
            _ => Shown::Another,
        })
    }
}

/// Compares with each token, whichever it is, so that the time does not tell which one it was.
fn one_of(tokens: &[PublishToken], given: &[u8]) -> Option<Mark> {
    tokens.iter().fold(None, |found, token| if token.is(given) { Some(token.mark()) } else { found })
}

/// It comes from a secret, so it is not shown.
impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mark(…)")
    }
}

impl fmt::Debug for PublishToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublishToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;
    use crate::limits::Limits;

    #[test]
    fn what_may_be_a_token() {
        for good in ["x", "c2VjcmV0LQ==", "~!-", &"x".repeat(MAX_TOKEN)] {
            assert!(PublishToken::new(good).is_ok(), "{good}");
        }
        for (bad, error) in [
            ("", PublishTokenError::Length(0)),
            (" ", PublishTokenError::Character),
            ("a b", PublishTokenError::Character),
            ("a\n", PublishTokenError::Character),
            ("\ta", PublishTokenError::Character),
            ("gr\u{fc}n", PublishTokenError::Character),
            ("a\0", PublishTokenError::Character),
            (&"x".repeat(MAX_TOKEN + 1), PublishTokenError::Length(1025)),
        ] {
            assert_eq!(PublishToken::new(bad), Err(error), "{bad:?}");
            let said = error.to_string();
            assert!(bad.len() < 2 || !said.contains(bad), "{said}");
        }
        assert_eq!(PublishTokenError::Length(1025).to_string(), "a token has 1 to 1024 characters, not 1025");
        let shown = format!("{:?}", Access::publish_tokens(PublishToken::new("hush").ok()));
        assert!(shown.contains("PublishToken(…)") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn only_the_whole_token_is_accepted() {
        let token = PublishToken::new("abcabc").unwrap();
        assert!(token.is(b"abcabc"));
        for other in ["", "a", "abc", "abcab", "abcabcabc", "abcabca", "abcabd", "Abcabc", "abcabcabcabc", "\0"] {
            assert!(!token.is(other.as_bytes()), "{other}");
        }
        for place in 0..6 {
            for bit in 0..8 {
                let mut other = *b"abcabc";
                other[place] ^= 1 << bit;
                assert!(!token.is(&other), "{other:?}");
            }
        }
    }

    #[test]
    fn where_it_may_be_shown() {
        use Shown::{Another, Nothing};
        let tokens = ["old", "a+b"].map(|token| PublishToken::new(token).unwrap());
        let (ours, old) = (|| Shown::Ours(tokens[1].mark()), || Shown::Ours(tokens[0].mark()));
        assert_ne!(ours(), old());
        for (target, fields, expected) in [
            ("/", "", Nothing),
            ("/?tokens=a%2Bb", "", Nothing),
            ("/?token=a%2Bb", "", ours()),
            ("/?x&token=a%2Bb&token=x", "", ours()),
            ("/?token=x&token=a%2Bb", "", Another),
            ("/?token=a+b", "", Another),
            ("/?token=", "", Another),
            ("/?token", "", Another),
            ("/?token=%zz", "", Another),
            ("/", "Authorization: Bearer a+b\r\n", ours()),
            ("/", "authorization: bEARER   a+b \r\n", ours()),
            ("/", "Authorization: Bearer A+b\r\n", Another),
            ("/", "Authorization: Bearer\r\n", Nothing),
            ("/", "Authorization: Bearera+b\r\n", Nothing),
            ("/", "Authorization: a+b\r\n", Nothing),
            ("/", "Authorization: Basic a+b\r\n", Nothing),
            ("/?token=a%2Bb", "Authorization: Basic eDp5\r\n", ours()),
            ("/?token=a%2Bb", "Authorization: Bearer other\r\n", ours()),
            ("/?token=x", "Authorization: Bearer a+b\r\n", ours()),
            ("/?token=x", "Authorization: Bearer y\r\n", Another),
            ("/?token=old", "", old()),
            ("/", "Authorization: Bearer old\r\n", old()),
            ("/?token=ol", "", Another),
            ("/", "Sec-WebSocket-Key: x\r\nSec-WebSocket-Protocol: v1.slotcast.json, slotcast.token.a+b\r\n", ours()),
            ("/", "Sec-WebSocket-Key: x\r\nSec-WebSocket-Protocol: v1.slotcast.json, slotcast.token.a\r\n", Another),
            ("/", "Sec-WebSocket-Key: x\r\nSec-WebSocket-Protocol: slotcast.token.a+b\r\n", Another),
            ("/", "Sec-WebSocket-Protocol: v1.slotcast.json, slotcast.token.a+b\r\n", Nothing),
            ("/?token=old", "Sec-WebSocket-Key: x\r\nSec-WebSocket-Protocol: chat\r\n", old()),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let request = Request::parse(head.as_bytes(), &Limits::default()).unwrap();
            assert_eq!(PublishToken::shown_in(&tokens, &request), expected, "{target} {fields}");
        }
    }
}
