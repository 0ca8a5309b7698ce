//! Keys that verify tokens and signed URLs. The algorithm is the key's, never the token's (RFC 8725 §3.1), and a key
//! belongs to one issuer.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use ed25519_compact::{PublicKey as Ed25519, Signature};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::grants::{Grants, Origin};
use super::json::{Json, Object};
use super::public_key::PublicKey;
use super::rule::Rules;
use crate::proto::text::{escape, is_hidden};

/// The shortest secret, in bytes: as long as the hash (RFC 7518 §3.2).
pub const MIN_SECRET: usize = 32;

/// Most keys, those of all issuers together.
pub const MAX_KEYS: usize = 256;

/// How many keys are tried for a token that names none.
const MAX_TRIED: usize = 4;

/// The longest id, issuer, audience and prefix, in bytes.
const MAX_TEXT: usize = 255;

/// What a secret signs to make its fingerprint: no token and no signed URL is like that.
const FINGERPRINT: &[u8] = b"slotcast-key-fingerprint";

/// The audience that a token has to name, if it names any, where a key says no other.
pub const AUDIENCE: &str = "slotcast";

/// How a key verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256 (RFC 7518 §3.2).
    Hs256,
    /// Ed25519 (RFC 8037 §3.1).
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 §3.3); only with the feature `rs256-es256`.
    Rs256,
    /// ECDSA with P-256 and SHA-256 (RFC 7518 §3.4); only with the feature `rs256-es256`.
    Es256,
}

impl Algorithm {
    /// All that there are.
    pub const ALL: [Algorithm; 4] = [Algorithm::Hs256, Algorithm::EdDsa, Algorithm::Rs256, Algorithm::Es256];

    /// Its name in the header of a token.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::EdDsa => "EdDSA",
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
        }
    }

    /// Whether this build has it.
    pub fn is_built(self) -> bool {
        matches!(self, Algorithm::Hs256 | Algorithm::EdDsa) || cfg!(feature = "rs256-es256")
    }

    /// RFC 9864 §2.2 gives EdDSA with Ed25519 a name of its own.
    fn is_named(self, name: &str) -> bool {
        name == self.as_str() || self == Algorithm::EdDsa && name == "Ed25519"
    }
}

/// What a key is for: none is for both, since what one signs must mean one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Usage {
    /// Tokens.
    Token,
    /// Signed URLs.
    Url,
}

/// A key, and what it may vouch for. `Debug` does not show it.
#[derive(Clone)]
pub struct Key {
    origin: Arc<Origin>,
    audience: Option<Box<str>>,
    user_prefix: Box<str>,
    usage: Usage,
    material: Material,
}

#[derive(Clone)]
enum Material {
    /// Has hashed the secret already.
    Hs256(Box<Hmac<Sha256>>),
    EdDsa(Ed25519),
    #[cfg(feature = "rs256-es256")]
    Rs256 {
        modulus: Box<[u8]>,
        exponent: Box<[u8]>,
    },
    #[cfg(feature = "rs256-es256")]
    Es256(Box<[u8; 65]>),
}

/// Why a key cannot be used: one sentence that names it and says how to mend it. It shows nothing of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyError {
    said: String,
    number: Option<usize>,
}

impl KeyError {
    fn new(id: &str, what: &str) -> KeyError {
        match id {
            "" => KeyError::saying(format!("the key {what}")),
            id => KeyError::saying(format!("the key {} {what}", escape(id.as_bytes()))),
        }
    }

    fn saying(said: String) -> KeyError {
        KeyError { said, number: None }
    }

    fn at(self, index: usize) -> KeyError {
        KeyError { number: Some(index + 1), ..self }
    }

    /// Which of several keys it is about, counted from 1; None if the key is wrong by itself.
    pub fn number(&self) -> Option<usize> {
        self.number
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

impl std::error::Error for KeyError {}

impl Key {
    /// A key for HS256 from the bytes of a file, of which a final line end does not count. An empty `id` is one that no
    /// `kid` names.
    ///
    /// # Errors
    /// If fewer than 32 bytes are left, or they are a key of another kind: a public key that is used as a secret lets
    /// everybody sign.
    pub fn hs256(id: &str, secret: &[u8]) -> Result<Key, KeyError> {
        let secret = secret.strip_suffix(b"\n").map_or(secret, |rest| rest.strip_suffix(b"\r").unwrap_or(rest));
        if secret.len() < MIN_SECRET {
            let what = "is too short for HS256: use at least 32 random bytes, as openssl rand -base64 48 writes them";
            return Err(KeyError::new(id, what));
        }
        let is_json = secret.trim_ascii_start().starts_with(b"{") && Object::parse(secret).is_some();
        if secret.trim_ascii_start().starts_with(b"-----BEGIN ") || is_json {
            let what = "is PEM or JSON and not a secret for HS256: name the algorithm that it is for";
            return Err(KeyError::new(id, what));
        }
        let hmac = Hmac::new_from_slice(secret).map_err(|_| KeyError::new(id, "cannot be used for HS256"))?;
        Key::new(id, Material::Hs256(Box::new(hmac)))
    }

    /// A public key from the text of a file: PEM (`PUBLIC KEY`) or a JWK.
    ///
    /// # Errors
    /// If it is not a key for that algorithm, or this build does not have it.
    pub fn public(id: &str, algorithm: Algorithm, text: &str) -> Result<Key, KeyError> {
        if algorithm == Algorithm::Hs256 {
            return Err(KeyError::new(id, "is for HS256 and so a secret: no public key has that algorithm"));
        }
        let key = PublicKey::parse(text).map_err(|what| KeyError::new(id, what))?;
        if key.algorithm() != algorithm {
            let what = format!("is for {}, not for {}", key.algorithm().as_str(), algorithm.as_str());
            return Err(KeyError::new(id, &what));
        }
        Key::of_public(id, key)
    }

    fn of_public(id: &str, key: PublicKey) -> Result<Key, KeyError> {
        let algorithm = key.algorithm();
        match key {
            PublicKey::Ed25519(bytes) => {
                let key = Ed25519::new(bytes);
                key.validate().map_err(|_| KeyError::new(id, "is no point of Ed25519: it is damaged"))?;
                Key::new(id, Material::EdDsa(key))
            }
            #[cfg(feature = "rs256-es256")]
            PublicKey::P256(point) => Key::new(id, Material::Es256(point)),
            #[cfg(feature = "rs256-es256")]
            PublicKey::Rsa { modulus, exponent } => Key::new(id, Material::Rs256 { modulus, exponent }),
            #[cfg(not(feature = "rs256-es256"))]
            _ => Err(KeyError::new(id, &format!("is for {}, which this build does not have", algorithm.as_str()))),
        }
        .inspect(|key| debug_assert_eq!(key.algorithm(), algorithm))
    }

    /// All keys of a JWK set (RFC 7517 §5) that sign, of one issuer and for one audience. Keys of other kinds, and for
    /// other purposes, are left out, as the RFC says.
    ///
    /// # Errors
    /// If it is no JWK set, if it has a secret in it, or if none of its keys can be used.
    pub fn from_jwks(text: &str, issuer: &str, audience: &str) -> Result<Vec<Key>, KeyError> {
        let error = |what: &str| KeyError::saying(format!("the JWK set of {} {what}", escape(issuer.as_bytes())));
        let set = Object::parse(text.as_bytes());
        let Some(Json::List(list)) = set.as_ref().and_then(|set| set.get("keys")) else {
            return Err(error("is not one: it has no list of keys, or a member twice"));
        };
        let mut keys = Vec::new();
        for jwk in list {
            let Json::Object(jwk) = jwk else { return Err(error("has a key that is no object")) };
            let text = |name| jwk.text(name).map_err(|_| error("has a key with a member of a wrong type"));
            let (kind, usage, algorithm, id) = (text("kty")?, text("use")?, text("alg")?, text("kid")?);
            if kind == Some("oct") || jwk.has("d") {
                return Err(error("has a secret in it: a set of public keys has none"));
            }
            let verifies = match jwk.get("key_ops") {
                None => true,
                Some(Json::List(uses)) => uses.iter().any(|one| matches!(one, Json::Text(one) if one == "verify")),
                Some(_) => return Err(error("has a key with a member of a wrong type")),
            };
            if !verifies || usage.is_some_and(|usage| usage != "sig") {
                continue;
            }
            let Ok(key) = PublicKey::from_jwk(jwk) else { continue };
            let is_other = algorithm.is_some_and(|name| !key.algorithm().is_named(name));
            if is_other || !key.algorithm().is_built() {
                continue;
            }
            let key = Key::of_public(id.unwrap_or_default(), key)?;
            keys.push(key.issuer(issuer)?.audience(audience)?);
        }
        if keys.is_empty() {
            return Err(error("has no key that can be used here"));
        }
        Ok(keys)
    }

    fn new(id: &str, material: Material) -> Result<Key, KeyError> {
        check_text(id, "id", id, true)?;
        Ok(Key {
            origin: Arc::new(Origin { key: id.into(), issuer: None, fingerprint: 0 }),
            audience: None,
            user_prefix: Box::default(),
            usage: Usage::Token,
            material,
        })
    }

    /// The issuer that it belongs to: tokens of others are refused. Without this, `iss` is not looked at.
    ///
    /// # Errors
    /// If that is empty, too long, or has characters that cannot be seen. So for the others.
    pub fn issuer(self, issuer: &str) -> Result<Key, KeyError> {
        check_text(self.id(), "issuer", issuer, false)?;
        let origin = Origin { issuer: Some(issuer.into()), ..Origin::clone(&self.origin) };
        Ok(Key { origin: Arc::new(origin), ..self })
    }

    /// The audience that its tokens must name. Without this, a token that names any must name `slotcast` (RFC 7519
    /// §4.1.3).
    ///
    /// # Errors
    /// As for the issuer.
    pub fn audience(self, audience: &str) -> Result<Key, KeyError> {
        check_text(self.id(), "audience", audience, false)?;
        Ok(Key { audience: Some(audience.into()), ..self })
    }

    /// What the users of its tokens begin with, so that two issuers do not mean the same user by chance.
    ///
    /// # Errors
    /// As for the issuer; but it may be empty.
    pub fn user_prefix(self, prefix: &str) -> Result<Key, KeyError> {
        check_text(self.id(), "user-prefix", prefix, true)?;
        Ok(Key { user_prefix: prefix.into(), ..self })
    }

    /// What it is for. Default: tokens.
    ///
    /// # Errors
    /// If it is to be for URLs and is not for HS256, or has no id.
    pub fn usage(self, usage: Usage) -> Result<Key, KeyError> {
        if usage == Usage::Url && self.algorithm() != Algorithm::Hs256 {
            return Err(KeyError::new(self.id(), "is for URLs, which are signed with HS256 only: use a secret"));
        }
        if usage == Usage::Url && self.id().is_empty() {
            return Err(KeyError::new("", "is for URLs, which name their key: give it an id"));
        }
        Ok(Key { usage, ..self })
    }

    /// Notes what stands for it and for what it vouches for. That tells nothing about a secret.
    fn with_fingerprint(self) -> Key {
        let material: Cow<'_, [u8]> = match &self.material {
            Material::Hs256(_) => self.sign(FINGERPRINT).unwrap_or_default().to_vec().into(),
            Material::EdDsa(key) => key[..].into(),
            #[cfg(feature = "rs256-es256")]
            Material::Rs256 { modulus, exponent } => [&modulus[..], &exponent[..]].concat().into(),
            #[cfg(feature = "rs256-es256")]
            Material::Es256(point) => point[..].into(),
        };
        let text = |text: Option<&str>| text.map_or(Vec::new(), |text| [b"=", text.as_bytes()].concat());
        let mut hash = Sha256::new();
        for part in [
            self.algorithm().as_str().as_bytes(),
            &material,
            &text(self.origin.issuer.as_deref()),
            &text(self.audience.as_deref()),
            self.user_prefix.as_bytes(),
            if self.usage == Usage::Url { b"url" } else { b"token" },
        ] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
        let fingerprint = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        Key { origin: Arc::new(Origin { fingerprint, ..Origin::clone(&self.origin) }), ..self }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.origin.key
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Hs256(_) => Algorithm::Hs256,
            Material::EdDsa(_) => Algorithm::EdDsa,
            #[cfg(feature = "rs256-es256")]
            Material::Rs256 { .. } => Algorithm::Rs256,
            #[cfg(feature = "rs256-es256")]
            Material::Es256(_) => Algorithm::Es256,
        }
    }

    pub(super) fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    pub(super) fn prefix(&self) -> &str {
        &self.user_prefix
    }

    pub(super) fn is_for(&self, audience: Option<&[String]>) -> bool {
        let names = |wanted: &str| audience.is_some_and(|audience| audience.iter().any(|one| one == wanted));
        match &self.audience {
            Some(wanted) => names(wanted),
            None => audience.is_none() || names(AUDIENCE),
        }
    }

    pub(super) fn has_algorithm(&self, name: &str) -> bool {
        self.algorithm().is_named(name)
    }

    /// Whether the signature is one of these bytes by this key. Secrets are compared in constant time, by `hmac`.
    pub(super) fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Hs256(hmac) => {
                let mut hmac = hmac.clone();
                hmac.update(signed);
                hmac.verify_slice(signature).is_ok()
            }
            Material::EdDsa(key) => {
                Signature::from_slice(signature).is_ok_and(|signature| key.verify(signed, &signature).is_ok())
            }
            #[cfg(feature = "rs256-es256")]
            Material::Rs256 { modulus, exponent } => {
                let key = ring::signature::RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(&ring::signature::RSA_PKCS1_2048_8192_SHA256, signed, signature).is_ok()
            }
            #[cfg(feature = "rs256-es256")]
            Material::Es256(point) => {
                let key =
                    ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, &point[..]);
                key.verify(signed, signature).is_ok()
            }
        }
    }

    /// Signs with HS256; `None` if it is not for that.
    pub(super) fn sign(&self, signed: &[u8]) -> Option<[u8; 32]> {
        let Material::Hs256(hmac) = &self.material else { return None };
        let mut hmac = hmac.clone();
        hmac.update(signed);
        Some(hmac.finalize().into_bytes().into())
    }
}

fn check_text(id: &str, name: &str, text: &str, may_be_empty: bool) -> Result<(), KeyError> {
    let is_good = text.len() <= MAX_TEXT && !text.chars().any(is_hidden) && (may_be_empty || !text.is_empty());
    if is_good {
        return Ok(());
    }
    Err(KeyError::new(
        id,
        &format!("has an {name} that is empty, longer than 255 bytes, or not visible: write another"),
    ))
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.algorithm().as_str())
    }
}

/// All keys.
#[derive(Debug, Clone, Default)]
pub struct Keys(Arc<[Key]>);

impl Keys {
    /// Keys of which each can be named.
    ///
    /// # Errors
    /// If there are more than [`MAX_KEYS`], or two that have id, issuer and usage in common, so that no token could
    /// name one of them. Any number of keys may have no id.
    pub fn new(keys: Vec<Key>) -> Result<Keys, KeyError> {
        if let Some(key) = keys.get(MAX_KEYS) {
            return Err(KeyError::new(key.id(), "is one too many: there may be 256").at(MAX_KEYS));
        }
        for (at, key) in keys.iter().enumerate() {
            let is_same = |other: &&Key| {
                let (one, two) = (&other.origin, &key.origin);
                (&one.key, &one.issuer, other.usage) == (&two.key, &two.issuer, key.usage) && !key.id().is_empty()
            };
            if keys.iter().take(at).any(|other| is_same(&other)) {
                return Err(KeyError::new(key.id(), "is there twice: give each of an issuer another id").at(at));
            }
        }
        Ok(Keys(keys.into_iter().map(Key::with_fingerprint).collect()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    /// Checks that, where a rule names a user, no two issuers can mean the same one.
    ///
    /// # Errors
    /// For the first key whose prefix is missing, or begins like that of another issuer.
    pub fn check_users(&self, rules: &Rules) -> Result<(), KeyError> {
        let is_for_tokens = |key: &&Key| key.usage == Usage::Token;
        for (at, key) in self.iter().enumerate().filter(|(_, key)| is_for_tokens(key) && rules.name_users()) {
            let clashes = |other: &Key| {
                let (one, two) = (&*key.user_prefix, &*other.user_prefix);
                key.origin.issuer != other.origin.issuer && (one.starts_with(two) || two.starts_with(one))
            };
            if self.iter().take(at).filter(is_for_tokens).any(clashes) {
                let what = "needs a user-prefix, since a rule names a user and there are several issuers: give each \
                            issuer one, none of which begins like another";
                return Err(KeyError::new(key.id(), what).at(at));
            }
        }
        Ok(())
    }

    /// Those of which others have none that has the same id and vouches for the same.
    pub fn missing_in<'a>(&'a self, others: &'a Keys) -> impl Iterator<Item = &'a Key> {
        let is_same = |one: &Key, two: &Key| (one.id(), one.origin.fingerprint) == (two.id(), two.origin.fingerprint);
        self.iter().filter(move |key| !others.iter().any(|other| is_same(key, other)))
    }

    /// A key for tokens and one for URLs that have the same secret, if there are two such.
    pub fn with_one_secret(&self) -> Option<(&Key, &Key)> {
        let urls = self.iter().filter(|key| key.usage == Usage::Url);
        let mut pairs = urls.flat_map(|url| self.tokens().map(move |token| (token, url)));
        // A public key signs nothing, and one for URLs is never that.
        pairs.find(|(token, url)| token.sign(FINGERPRINT) == url.sign(FINGERPRINT))
    }

    /// Whether the key that has signed what was shown is one of these, and vouches for the same as before. Its id does
    /// not matter. Where no key has signed anything, none is missing.
    pub(super) fn vouch_for(&self, grants: &Grants) -> bool {
        grants.fingerprint().is_none_or(|wanted| self.iter().any(|key| key.origin.fingerprint == wanted))
    }

    /// The key of a signed URL.
    pub(super) fn of_url(&self, id: &str) -> Option<&Key> {
        self.iter().find(|key| key.usage == Usage::Url && key.id() == id)
    }

    /// Whether `kid` names a key for tokens.
    pub(super) fn has(&self, kid: &str) -> bool {
        self.tokens().any(|key| key.id() == kid && !kid.is_empty())
    }

    /// The keys that may have signed a token of this issuer with this `kid`, not more than are tried.
    pub(super) fn candidates<'a>(
        &'a self,
        kid: Option<&'a str>,
        issuer: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Key> {
        self.tokens()
            .filter(move |key| kid.is_none_or(|kid| key.id() == kid))
            .filter(move |key| key.origin.issuer.is_none() || key.origin.issuer.as_deref() == issuer)
    }

    fn tokens(&self) -> impl Iterator<Item = &Key> {
        self.iter().filter(|key| key.usage == Usage::Token)
    }

    /// The one of them that has signed these bytes.
    pub(super) fn signer<'a>(
        candidates: impl Iterator<Item = &'a Key>,
        signed: &[u8],
        signature: &[u8],
    ) -> Option<&'a Key> {
        candidates.take(MAX_TRIED).find(|key| key.verifies(signed, signature))
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
pub(crate) mod tests;
