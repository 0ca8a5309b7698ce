//! A strict reader of event streams, written from WHATWG HTML §9.2.6 and from nothing of the code under test.

/// An event, as a page would get it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The event's name.
    pub(super) kind: String,
    pub(super) data: String,
    /// The last event's id when it was dispatched.
    pub(super) id: String,
}

/// What an EventSource has after a whole stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) events: Vec<Told>,
    pub(super) id: String,
    pub(super) retry: Option<u64>,
    pub(super) comments: usize,
}

/// Reads a stream that ends right after a block.
pub(super) fn read(bytes: &[u8]) -> Stream {
    let text = std::str::from_utf8(bytes).expect("a stream is UTF-8");
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let mut stream = Stream::default();
    let (mut kind, mut data, mut id_buffer) = (String::new(), String::new(), String::new());
    for line in lines(text) {
        if line.is_empty() {
            stream.id.clone_from(&id_buffer);
            let name = std::mem::take(&mut kind);
            let mut data = std::mem::take(&mut data);
            if data.is_empty() {
                continue;
            }
            assert_eq!(data.pop(), Some('\n'));
            let kind = if name.is_empty() { "message".to_owned() } else { name };
            stream.events.push(Told { kind, data, id: stream.id.clone() });
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => stream.comments += 1,
            "event" => value.clone_into(&mut kind),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut id_buffer),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => stream.retry = value.parse().ok(),
            other => panic!("the broker never writes a field {other:?}"),
        }
    }
    assert!(kind.is_empty() && data.is_empty() && stream.id == id_buffer, "the stream ends inside a block");
    stream
}

fn lines(text: &str) -> Vec<&str> {
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(end) = rest.find(['\r', '\n']) {
        lines.push(&rest[..end]);
        rest = rest[end..].strip_prefix("\r\n").unwrap_or(&rest[end + 1..]);
    }
    assert!(rest.is_empty(), "the stream ends inside a line");
    lines
}
