//! Public keys as they are written in files: PEM (RFC 7468 §13) and JWK (RFC 7517). Only what verifies signatures is
//! read; a private key is refused, since it has no business here.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::json::Object;
use super::keys::Algorithm;

/// A SubjectPublicKeyInfo (RFC 5280 §4.1) up to the key itself: Ed25519 (RFC 8410 §4), P-256 (RFC 5480 §2.1.1), and the
/// algorithm of RSA (RFC 3279 §2.3.1).
const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 3,
    0x42, 0,
];
const RSA: [u8; 13] = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 2;
const BIT_STRING: u8 = 3;

/// The length of an RSA modulus, in bits: less is weak, and more takes too long.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// A public key, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PublicKey {
    Ed25519([u8; 32]),
    /// An uncompressed point (SEC 1 §2.3.3): 4, x, y.
    P256(Box<[u8; 65]>),
    /// Modulus and exponent, big-endian, without zeros before them.
    Rsa {
        modulus: Box<[u8]>,
        exponent: Box<[u8]>,
    },
}

impl PublicKey {
    /// Reads a file's text: one PEM block, or one JWK.
    ///
    /// # Errors
    /// What is wrong with it and how to mend it, as the end of a sentence.
    pub(super) fn parse(text: &str) -> Result<PublicKey, &'static str> {
        let text = text.trim();
        if text.starts_with('{') {
            let jwk = Object::parse(text.as_bytes()).ok_or("is not JSON, or has a member twice")?;
            return PublicKey::from_jwk(&jwk);
        }
        if text.contains("PRIVATE KEY-----") {
            return Err("is a private key: give the public one, as openssl pkey -pubout writes it");
        }
        let block = text
            .strip_prefix("-----BEGIN PUBLIC KEY-----")
            .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"))
            .ok_or("is neither a JWK nor PEM with one PUBLIC KEY, as openssl pkey -pubout writes it")?;
        let digits: String = block.split_ascii_whitespace().collect();
        let der = STANDARD.decode(digits).map_err(|_| "is PEM that is damaged")?;
        PublicKey::from_der(&der)
    }

    fn from_der(der: &[u8]) -> Result<PublicKey, &'static str> {
        if let Some(key) = der.strip_prefix(&ED25519) {
            return key.try_into().map(PublicKey::Ed25519).map_err(|_| "is an Ed25519 key of a wrong length");
        }
        if let Some(point) = der.strip_prefix(&P256) {
            let point: [u8; 65] = point.try_into().map_err(|_| "is a P-256 key of a wrong length")?;
            return PublicKey::from_point(point);
        }
        let (modulus, exponent) =
            rsa_of(der).ok_or("has a key of a kind that is not known here: use Ed25519, P-256 or RSA")?;
        PublicKey::from_rsa(modulus, exponent)
    }

    /// Reads a JWK (RFC 7518 §6, RFC 8037 §2).
    pub(super) fn from_jwk(jwk: &Object) -> Result<PublicKey, &'static str> {
        let text = |name| jwk.text(name).map_err(|_| "is a JWK with a member of a wrong type");
        if jwk.has("d") {
            return Err("is a private JWK: give the public one, without d");
        }
        let bytes = |name| {
            let digits = text(name)?.ok_or("is a JWK that lacks a member of its kind")?;
            URL_SAFE_NO_PAD.decode(digits).map_err(|_| "is a JWK with a member that is not base64url")
        };
        match (text("kty")?, text("crv")?) {
            (Some("OKP"), Some("Ed25519")) => {
                bytes("x")?.try_into().map(PublicKey::Ed25519).map_err(|_| "is an Ed25519 key of a wrong length")
            }
            (Some("EC"), Some("P-256")) => {
                let point = [vec![4], bytes("x")?, bytes("y")?].map(|part| (part.len(), part));
                let is_whole = matches!(point, [_, (32, _), (32, _)]);
                let point: Vec<u8> = point.into_iter().flat_map(|(_, part)| part).collect();
                let point = point.try_into().ok().filter(|_| is_whole);
                point.map_or(Err("is a P-256 key of a wrong length"), PublicKey::from_point)
            }
            (Some("RSA"), None) => PublicKey::from_rsa(&bytes("n")?, &bytes("e")?),
            (Some("oct"), _) => Err("is a secret: it is for HS256, and no public key"),
            _ => Err("is a JWK of a kind that is not known here: use OKP with Ed25519, EC with P-256, or RSA"),
        }
    }

    fn from_point(point: [u8; 65]) -> Result<PublicKey, &'static str> {
        // A compressed point has another length.
        if point.first() == Some(&4) {
            Ok(PublicKey::P256(Box::new(point)))
        } else {
            Err("is a P-256 key in no known form")
        }
    }

    fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<PublicKey, &'static str> {
        let strip = |mut bytes: &[u8]| {
            while let [0, rest @ ..] = bytes {
                bytes = rest;
            }
            Box::<[u8]>::from(bytes)
        };
        let (modulus, exponent) = (strip(modulus), strip(exponent));
        let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err("is an RSA key that has not 2048 to 4096 bits");
        }
        let is_odd = exponent.last().is_some_and(|last| last & 1 == 1);
        if !is_odd || *exponent == [1] || exponent.len() > 4 {
            return Err("is an RSA key with an exponent that nobody uses");
        }
        Ok(PublicKey::Rsa { modulus, exponent })
    }

    /// What it verifies.
    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            PublicKey::Ed25519(_) => Algorithm::EdDsa,
            PublicKey::P256(_) => Algorithm::Es256,
            PublicKey::Rsa { .. } => Algorithm::Rs256,
        }
    }
}

/// Modulus and exponent in a SubjectPublicKeyInfo of RSA.
fn rsa_of(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let whole = only(SEQUENCE, der)?;
    let (algorithm, rest) = element(SEQUENCE, whole)?;
    let key = only(BIT_STRING, rest)?.strip_prefix(&[0])?;
    let (modulus, rest) = element(INTEGER, only(SEQUENCE, key)?)?;
    let exponent = only(INTEGER, rest)?;
    let is_positive = |integer: &[u8]| integer.first().is_some_and(|first| first & 0x80 == 0);
    (algorithm == RSA && is_positive(modulus) && is_positive(exponent)).then_some((modulus, exponent))
}

/// The content of the only element of DER (X.690 §8.1) in `der`, if it has this tag.
fn only(tag: u8, der: &[u8]) -> Option<&[u8]> {
    element(tag, der).filter(|(_, rest)| rest.is_empty()).map(|(content, _)| content)
}

/// The content of the first element, and what comes after it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.strip_prefix(&[tag])?.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 | 0x82 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 3))?;
            (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";

    /// RFC 8037 appendix A.2, the same key as JWK.
    const ED_JWK: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    #[test]
    fn pem_and_jwk_say_the_same() {
        let key = PublicKey::parse(ED).unwrap();
        assert_eq!((PublicKey::parse(ED_JWK).unwrap(), key.algorithm()), (key, Algorithm::EdDsa));
        let crlf = ED.replace('\n', "\r\n");
        assert!(PublicKey::parse(&crlf).is_ok() && PublicKey::parse(&format!("\n {ED} \n")).is_ok());
    }

    #[test]
    fn what_is_no_public_key() {
        let body = ED.lines().nth(1).unwrap();
        let pem = |body: &str| format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
        let (x, x31) = ("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "A".repeat(42));
        let short = "AQAB".repeat(64);
        let n = "_____".repeat(80);
        for (text, says) in [
            ("", "neither a JWK nor PEM"),
            ("secret", "neither a JWK nor PEM"),
            (&format!("{ED}{ED}"), "damaged"),
            (&ED.replace("PUBLIC", "PRIVATE"), "private key"),
            (&ED.replace("PUBLIC", "EC PRIVATE"), "private key"),
            (&ED.replace("PUBLIC KEY", "CERTIFICATE"), "neither a JWK nor PEM"),
            (&pem(&body[1..]), "damaged"),
            (&pem(&body.replace('=', "")), "damaged"),
            (&pem(&STANDARD.encode([&ED25519[..], &[0; 31]].concat())), "wrong length"),
            (&pem(&STANDARD.encode([&P256[..], &[4; 64]].concat())), "wrong length"),
            (&pem(&STANDARD.encode([&P256[..], &[5; 65]].concat())), "no known form"),
            (&pem("MAA="), "not known here"),
            (&pem("MIP//w=="), "not known here"),
            (&pem(""), "not known here"),
            ("{", "not JSON"),
            (r#"{"kty":"RSA","kty":"EC"}"#, "twice"),
            ("{}", "not known here"),
            (r#"{"kty":1}"#, "wrong type"),
            (r#"{"kty":"oct","k":"AAAA"}"#, "secret"),
            (r#"{"kty":"EC","crv":"P-384","x":"","y":""}"#, "not known here"),
            (r#"{"kty":"OKP","crv":"X25519","x":""}"#, "not known here"),
            (r#"{"kty":"OKP","crv":"Ed25519"}"#, "lacks a member"),
            (&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}="}}"#), "base64url"),
            (&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x31}"}}"#), "wrong length"),
            (&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","d":"{x}"}}"#), "private JWK"),
            (&format!(r#"{{"kty":"EC","crv":"P-256","x":"{x31}AA","y":"{x31}"}}"#), "wrong length"),
            (&format!(r#"{{"kty":"RSA","n":"{short}","e":"AQAB"}}"#), "2048 to 4096"),
            (&format!(r#"{{"kty":"RSA","n":"{n}{n}","e":"AQAB"}}"#), "2048 to 4096"),
            (&format!(r#"{{"kty":"RSA","n":"{n}","e":"AQ"}}"#), "exponent"),
            (&format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAA"}}"#), "exponent"),
            (&format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAAAAAB"}}"#), "exponent"),
            (r#"{"kty":"RSA","n":"","e":""}"#, "2048 to 4096"),
        ] {
            let said = PublicKey::parse(text).map_err(|said| said.to_owned());
            assert!(said.as_ref().is_err_and(|said| said.contains(says)), "{text}: {said:?}");
        }
        assert!(PublicKey::parse(&format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB"}}"#)).is_ok());
    }
}
