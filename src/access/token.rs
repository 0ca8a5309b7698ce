//! Tokens that are a shared secret. The publish token: anyone who publishes needs it, over any protocol; those who only
//! listen do not. The admin token: operators who change something need it.

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

/// The shortest admin token, in characters: nobody guesses one that is drawn at random.
pub const MIN_ADMIN_TOKEN: usize = 32;

/// A secret that peers show. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct PublishToken(Arc<[u8]>);

/// A secret that operators show who change something. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(Arc<[u8]>);

/// A text is not an [`AdminToken`]. It does not repeat the text, which may be most of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminTokenError;

impl fmt::Display for AdminTokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "an admin token has {MIN_ADMIN_TOKEN} to {MAX_TOKEN} visible ASCII characters, such as those that openssl \
             rand -hex 32 prints"
        )
    }
}

impl std::error::Error for AdminTokenError {}

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

    fn is(&self, given: &[u8]) -> bool {
        is_same(&self.0, given)
    }

    /// Whether the request shows one of these tokens: in `Authorization: Bearer TOKEN` (RFC 6750 §2.1), in the subprotocol
    /// `slotcast.token.TOKEN`, or in `?token=TOKEN`; any is enough. Another scheme of `Authorization` is ignored: a proxy
    /// in front of us uses it.
    pub(super) fn shown_in(tokens: &[PublishToken], request: &Request) -> Shown {
        let query = match request.query().get("token") {
            Ok(token) => token,
            Err(_) => Some("".into()),
        };
        let carried = by_subprotocol(request).unwrap_or(Some(""));
        let shown = bearers(request).chain(carried.map(str::as_bytes)).chain(query.as_deref().map(str::as_bytes));
        shown.fold(Shown::Nothing, |earlier, given| match (earlier, one_of(tokens, given)) {
            (Shown::Ours(mark), _) | (_, Some(mark)) => Shown::Ours(mark),
            _ => Shown::Another,
        })
    }
}

impl AdminToken {
    /// A token of 32 to 1,024 visible ASCII characters.
    ///
    /// # Errors
    /// If it is something else. The error does not repeat the token.
    pub fn new(token: &str) -> Result<AdminToken, AdminTokenError> {
        let is_good = (MIN_ADMIN_TOKEN..=MAX_TOKEN).contains(&token.len());
        if is_good && token.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(AdminToken(token.as_bytes().into()))
        } else {
            Err(AdminTokenError)
        }
    }

    /// Whether the request shows one of these tokens in `Authorization: Bearer TOKEN` (RFC 6750 §2.1). It compares with
    /// all of them, so that the time does not tell which one it was.
    pub(super) fn is_shown_in(tokens: &[AdminToken], request: &Request) -> bool {
        let is_one = |given| tokens.iter().fold(false, |found, token| is_same(&token.0, given) | found);
        bearers(request).fold(false, |found, given| is_one(given) | found)
    }
}

/// What `Authorization: Bearer` carries.
fn bearers(request: &Request) -> impl Iterator<Item = &[u8]> {
    request.headers("authorization").filter_map(|value| {
        let (scheme, token) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
    })
}

/// Compares in a time that depends only on the length of what is given, and not on the secret.
fn is_same(secret: &[u8], given: &[u8]) -> bool {
    let mut difference = secret.len() ^ given.len();
    for (byte, expected) in given.iter().zip(secret.iter().cycle()) {
        difference |= usize::from(black_box(byte ^ expected));
    }
    black_box(difference) == 0
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

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
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

    #[test]
    fn only_a_bearer_is_an_operator() {
        let [one, other] = ["a", "b"].map(|letter| letter.repeat(MIN_ADMIN_TOKEN));
        let access = Access::default().admin_tokens([&one, &other].map(|token| AdminToken::new(token).unwrap()));
        let code = |target: &str, fields: &str| {
            let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let request = Request::parse(head.as_bytes(), &Limits::default()).unwrap();
            let none = Access::default().operate(&request).unwrap_err();
            assert_eq!((none.refusal.status.0, none.refusal.code), (403, "no_admin_token"));
            access.operate(&request).map_err(|denied| (denied.refusal.status.0, denied.refusal.code))
        };
        for token in [&one, &other] {
            assert_eq!(code("/", &format!("Authorization: Bearer {token}\r\n")), Ok(()));
            for (target, fields) in [
                ("/".to_owned(), String::new()),
                (format!("/?token={token}"), String::new()),
                ("/".to_owned(), format!("Authorization: Basic {token}\r\n")),
                ("/".to_owned(), format!("Authorization: Bearer {token}a\r\n")),
                ("/".to_owned(), format!("Authorization: Bearer {}\r\n", &token[1..])),
                ("/".to_owned(), format!("Cookie: jwt={token}\r\n")),
            ] {
                assert_eq!(code(&target, &fields), Err((401, "unauthorized")), "{target} {fields}");
            }
        }
        assert!(!format!("{access:?}").contains(&one[..8]));
    }

    #[test]
    fn an_admin_token_is_long() {
        for bad in ["", &"x".repeat(31), &"x".repeat(1025), &" ".repeat(40), &format!("{}\n", "x".repeat(40))] {
            assert_eq!(AdminToken::new(bad), Err(AdminTokenError), "{bad:?}");
        }
        assert!(AdminToken::new(&"x".repeat(32)).is_ok());
        assert!(AdminTokenError.to_string().starts_with("an admin token has 32 to 1024 visible "));
    }
}
