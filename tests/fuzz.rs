//! The bodies of the fuzz targets, for a while in every run: examples that mean something, damaged at random. `make fuzz` runs
//! them with libFuzzer, which finds its way by itself.
//!
//! Environment: SLOTCAST_SEED     begins with that seed, which a failure prints
//!              FUZZ_SECONDS      how long, all bodies together (default 8; with CI=true 60)

use std::hash::{BuildHasher, RandomState};
use std::panic;
use std::time::{Duration, Instant};

use slotcast::fuzz::BODIES;

/// What each body is to begin with. The first byte says how the rest arrives, see there.
fn examples(name: &str) -> Vec<&'static [u8]> {
    match name {
        "frames" => vec![
            b"\x01\x81\x85\0\0\0\0hello\x89\x80\0\0\0\0\x88\x82\0\0\0\0\x03\xe8",
            b"\x13\xc1\x87\0\0\0\0\xf2H\xcd\xc9\xc9\x07\0\x01\x83\0\0\0\0abc\x80\x81\0\0\0\0d",
            b"\x00\x82\xfe\x01\x00\0\0\0\0\x02\xff\0\0\0\0\0\0\x01\0",
        ],
        "head" => vec![
            b"\x03GET /chat?since=all&last=5 HTTP/1.1\r\nHost: localhost:8080\r\nAccept: text/html, */*;q=0.1\r\n\r\n",
            b"\x00POST /a%20b/c HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 5\r\nOrigin: http://localhost\r\n\r\nhello",
            b"\x07GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
        ],
        "body" => vec![b"\x11\x05hello", b"\x03\x005\r\nhello\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n", b"\x00\x00A\r\n0123456789\r\n0\r\n\r\n"],
        "dialect" => vec![
            br#" {"type":"publish","ref":7,"channel":"/chat","data":"hi \u00e4"}"#,
            br#" {"type":"subscribe","channel":"/a","since":"abc.5"}"#,
            br#" {"type":"send","to":"0123456789abcdef","data_base64":"aGk=","ref":"x"}"#,
            br#" {"type":"members","channel":"/a","more":[1,{"deep":[null,true,1e9]}]}"#,
        ],
        "deflate" => vec![b"\x01\xf2H\xcd\xc9\xc9\x07\0", b"\x00\xcaH\xcd\xc9\xc9W(\xcf/\xcaI\x01\0", b"\x05\0\x05\0\xfa\xffhello\0"],
        "negotiate" => vec![
            b"text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
            b"permessage-deflate; server_max_window_bits=9; client_no_context_takeover, x-webkit-deflate-frame",
            b"\"abc.5\", W/\"x\", *",
            b"http://localhost:8080",
        ],
        "token" => vec![
            b"\x00eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjEwMDAxMDB9.AA",
            br#"0{"exp":1000100,"iat":999000.5,"sub":"7","aud":["slotcast"],"slotcast":{"send":["/a/*"]}}"#,
            b"\x10{\"exp\":1000100,\"nbf\":1,\"iss\":\"x\",\"name\":\"Ann\",\"slotcast\":{\"subscribe\":[\"/{user}/**\",\"/**\"]}}",
            b"\x10{\"exp\":1000001}",
        ],
        "pattern" => vec![b"/a/*/**\n/a/b/c\n", b"/users/{user}/**\n/users/7\n7", b"/**\n/\n", b"/*/b\n/{user}/b\n{user}"],
        "signed" => vec![
            b"\x00can=sub,pub&exp=1000000&iat=999999&key=k1&user=7&sig=2AHOJoMyldNBbeQrbanh_8MTti_WH1K3zTINYkra0TU",
            b"\x10since=all&x=%20",
            b"\x10%63an=sub",
        ],
        "position" => vec![b"0.0", b"k3jh2k1a.17", b"zzzzzzzz.9007199254740991"],
        _ => vec![
            b"\x23\x81\x9b\0\0\0\0{\"type\":\"members\",\"ref\":1}\x89\x80\0\0\0\0",
            b"\x20\xc1\x87\0\0\0\0\xf2H\xcd\xc9\xc9\x07\0\x88\x82\0\0\0\0\x03\xe8",
            b"\x03GET /a HTTP/1.1\r\nHost: localhost\r\n\r\nPOST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi",
        ],
    }
}

/// A small generator (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound.max(1)
    }

    /// One of the examples with up to eight changes: a byte, a bit, a piece taken out, put in, doubled, or of another example.
    fn input(&mut self, examples: &[&[u8]]) -> Vec<u8> {
        let mut input = examples[self.below(examples.len())].to_vec();
        for _ in 0..self.below(9) {
            let (from, to) = (self.below(input.len() + 1), self.below(input.len() + 1));
            let (from, to) = (from.min(to), from.max(to));
            match self.below(7) {
                0 if from < input.len() => input[from] = self.below(256) as u8,
                1 if from < input.len() => input[from] ^= 1 << self.below(8),
                2 => drop(input.drain(from..to.min(from + 8))),
                3 => input.insert(from, self.below(256) as u8),
                4 if input.len() < 4096 => {
                    let piece = input[from..to].to_vec();
                    input.splice(to..to, piece);
                }
                5 if input.len() < 4096 => {
                    let other = examples[self.below(examples.len())];
                    let start = self.below(other.len());
                    input.splice(from..from, other[start..].iter().copied());
                }
                6 => input.truncate(to),
                _ => {}
            }
        }
        input
    }
}

#[test]
fn whatever_arrives() {
    let given = std::env::var("SLOTCAST_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| RandomState::new().hash_one(0)) | 1;
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let each = Duration::from_secs(seconds.unwrap_or(if in_ci { 60 } else { 8 })) / BODIES.len() as u32;
    for (name, body) in BODIES {
        let (mut random, examples, begun, mut cases) = (Random(seed), examples(name), Instant::now(), 0);
        examples.iter().for_each(|example| body(example));
        while begun.elapsed() < each {
            let input = random.input(&examples);
            if let Err(panic) = panic::catch_unwind(|| body(&input)) {
                eprintln!("SLOTCAST_SEED={seed}: {name} after {cases} cases: {}", input.escape_ascii());
                panic::resume_unwind(panic);
            }
            cases += 1;
        }
        println!("{name}: {cases} cases");
        assert!(cases > 0, "{name} was never run");
    }
}
