//! Makes tokens, for a program that has the secret: to try out rules, and for scripts.

use super::claims::Claims;
use super::error::Reason;
use super::json::Object;
use super::jws::{self, MAX_JWT};
use super::keys::Key;
use super::pattern::Pattern;
use super::rule::Right;
use super::time::UnixTime;
use crate::proto::text::push_json_string;

/// What a token is to say. Dates are told in whole seconds.
#[derive(Debug, Clone, Default)]
pub struct NewToken {
    /// `sub`: the user.
    pub subject: Option<String>,
    /// `name`: what the user is called.
    pub name: Option<String>,
    /// `iss`.
    pub issuer: Option<String>,
    /// `aud`.
    pub audience: Option<String>,
    /// What it grants. A right may come several times.
    pub grants: Vec<(Right, Pattern)>,
    /// `iat`.
    pub issued: UnixTime,
    /// `exp`.
    pub expires: UnixTime,
}

impl NewToken {
    /// The token, signed with HS256. An id of the key is its `kid`. Members are in the order of the alphabet, so that
    /// equal claims are equal tokens.
    ///
    /// # Errors
    /// What would be wrong with the token for its reader; [`Reason::Algorithm`] if the key is not for HS256.
    pub fn sign(&self, key: &Key) -> Result<String, Reason> {
        let claims = self.claims();
        Object::parse(claims.as_bytes()).ok_or(Reason::Payload).and_then(|object| Claims::read(&object))?;
        let mut header = Members::default();
        header.text("alg", Some("HS256"));
        header.text("kid", Some(key.id()).filter(|id| !id.is_empty()));
        header.text("typ", Some("JWT"));
        let token = jws::sign(key, &header.end(), &claims).ok_or(Reason::Algorithm)?;
        if token.len() > MAX_JWT { Err(Reason::TooLong) } else { Ok(token) }
    }

    fn claims(&self) -> String {
        let mut claims = Members::default();
        claims.text("aud", self.audience.as_deref());
        claims.raw("exp", &self.expires.seconds().to_string());
        claims.raw("iat", &self.issued.seconds().to_string());
        claims.text("iss", self.issuer.as_deref());
        claims.text("name", self.name.as_deref());
        if !self.grants.is_empty() {
            claims.raw("slotcast", &self.granted());
        }
        claims.text("sub", self.subject.as_deref());
        claims.end()
    }

    fn granted(&self) -> String {
        let mut rights = Right::ALL;
        rights.sort_by_key(|right| right.as_str());
        let mut granted = Members::default();
        for right in rights {
            let patterns = self.grants.iter().filter(|(of, _)| *of == right).map(|(_, pattern)| pattern);
            let list: Vec<String> = patterns.map(|pattern| quoted(pattern.as_str())).collect();
            if !list.is_empty() {
                granted.raw(right.as_str(), &format!("[{}]", list.join(",")));
            }
        }
        granted.end()
    }
}

/// A JSON object that is written member by member.
#[derive(Default)]
struct Members(String);

impl Members {
    fn raw(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        push_json_string(&mut self.0, name);
        self.0.push(':');
        self.0.push_str(value);
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.raw(name, &quoted(value));
        }
    }

    fn end(self) -> String {
        self.0 + "}"
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    push_json_string(&mut quoted, text);
    quoted
}

#[cfg(test)]
mod tests {
    use super::super::keys::{Algorithm, Keys, tests::ED25519_JWK};
    use super::super::verifier::{Ages, Verifier};
    use super::*;

    const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

    fn token() -> NewToken {
        let pattern = |text| Pattern::parse(text).unwrap();
        NewToken {
            subject: Some("42".to_owned()),
            name: Some("Ann \"ü\"".to_owned()),
            grants: vec![
                (Right::Subscribe, pattern("/a/**")),
                (Right::Publish, pattern("/a")),
                (Right::Subscribe, pattern("/b")),
            ],
            issued: UnixTime::from_ms(1_000_999),
            expires: UnixTime::from_seconds(1_060),
            ..NewToken::default()
        }
    }

    #[test]
    fn what_it_says_is_what_is_read() {
        let claims = r#"{"exp":1060,"iat":1000,"name":"Ann \"ü\"","slotcast":{"publish":["/a"],"subscribe":["/a/**","/b"]},"sub":"42"}"#;
        assert_eq!(token().claims(), claims);
        let key = Key::hs256("k", SECRET).unwrap();
        let signed = token().sign(&key).unwrap();
        assert_eq!(signed, jws::sign(&key, r#"{"alg":"HS256","kid":"k","typ":"JWT"}"#, claims).unwrap());
        let mut verifier = Verifier::new(Keys::new(vec![key]).unwrap(), Ages::default());
        let grants = verifier.verify(&signed, UnixTime::from_seconds(1_000)).unwrap();
        assert_eq!((grants.user(), grants.expires()), (Some("42"), Some(UnixTime::from_seconds(1_060))));
        assert!(grants.claims(Right::Subscribe, "/a/x") && !grants.claims(Right::Publish, "/b"));
        // Without any of that there is neither a member nor a `kid`.
        let least = NewToken { issuer: Some("i".into()), audience: Some("a".into()), ..NewToken::default() };
        assert_eq!(least.claims(), r#"{"aud":"a","exp":0,"iat":0,"iss":"i"}"#);
        let key = Key::hs256("", SECRET).unwrap();
        assert_eq!(
            least.sign(&key).unwrap(),
            jws::sign(&key, r#"{"alg":"HS256","typ":"JWT"}"#, &least.claims()).unwrap()
        );
    }

    #[test]
    fn what_a_reader_refuses_is_not_signed() {
        let key = Key::hs256("", SECRET).unwrap();
        let many = vec![(Right::Send, Pattern::everything()); 65];
        let long = (0..40).map(|at| (Right::Send, Pattern::parse(&format!("/{at}/{}", "x".repeat(200))).unwrap()));
        for (token, reason) in [
            (NewToken { subject: Some("x".repeat(256)), ..token() }, Reason::Text("sub")),
            (NewToken { name: Some("a\nb".to_owned()), ..token() }, Reason::Text("name")),
            (NewToken { grants: many, ..token() }, Reason::TooManyPatterns),
            (NewToken { grants: long.collect(), ..token() }, Reason::TooLong),
            (NewToken { expires: UnixTime::from_seconds(u64::MAX), ..token() }, Reason::Date("exp")),
        ] {
            assert_eq!(token.sign(&key), Err(reason));
        }
        let public = Key::public("e", Algorithm::EdDsa, ED25519_JWK).unwrap();
        assert_eq!(token().sign(&public), Err(Reason::Algorithm));
    }
}
