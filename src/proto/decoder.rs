//! Turns bytes of an open connection into messages and control frames (RFC 6455 §5). Every limit is checked at the
//! header; the payload is unmasked while it is copied into the message's own memory.

use bytes::Bytes;

use super::close::CloseCode;
use super::deflate::MOST_GROWTH;
use super::frame::{Failure, Header, MAX_HEADER, Opcode, Start, protocol_error};
use super::message::{Kind, Message};
use super::pieces::Pieces;
use super::{mask, utf8};
use crate::limits::Limits;

/// The outcome of one call of `decode`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// All input was taken, and the frame goes on.
    Incomplete,
    /// A fragment ended, and it is not the last.
    Fragment,
    /// A message is whole.
    Message(Message),
    /// A compressed message is whole, and not inflated yet (RFC 7692 §7.2.2).
    Compressed(Kind, Vec<u8>),
    /// A Ping frame with its payload.
    Ping(Vec<u8>),
    /// A Pong frame; its payload means nothing to us.
    Pong,
    /// A Close frame with its payload, not checked yet.
    Close(Vec<u8>),
}

/// The frame and message state machine of one connection. At rest it owns no heap memory.
///
/// Invariant: `header[..have]` is a prefix of a frame header that was not refused so far; `have` is 0 while a frame's
/// payload is under way.
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; MAX_HEADER],
    have: u8,
    deflates: bool,
    progress: Option<Box<Progress>>,
}

/// What is unfinished; exists only while something is.
#[derive(Debug, Default)]
struct Progress {
    message: Option<Unfinished>,
    frame: Option<Partial>,
}

#[derive(Debug)]
struct Unfinished {
    kind: Kind,
    compressed: bool,
    fragments: u32,
    payload: Pieces,
    text: utf8::Validator,
}

#[derive(Debug)]
struct Partial {
    header: Header,
    done: u64,
    /// The payload so far of a control frame, at most 125 bytes.
    control: Vec<u8>,
}

impl Decoder {
    /// A decoder; `deflates` says whether permessage-deflate was negotiated.
    pub fn new(deflates: bool) -> Decoder {
        Decoder { deflates, ..Decoder::default() }
    }

    /// Takes bytes up to the end of at most one frame; returns how many it took, and the outcome. Call it again with
    /// the rest, unless that is empty.
    ///
    /// # Errors
    /// The failure to close with: 1002, 1007, 1008 or 1009. Do not use the decoder any further.
    pub fn decode(&mut self, input: &[u8], limits: &Limits) -> Result<(usize, Step), Failure> {
        if self.progress.as_ref().is_some_and(|progress| progress.frame.is_some()) {
            return self.go_on(input);
        }
        let (taken, header) = self.take_header(input)?;
        let Some(header) = header else { return Ok((taken, Step::Incomplete)) };
        let input = input.get(taken..).unwrap_or_default();
        self.check_limits(&header, limits)?;
        if let Some(payload) = usize::try_from(header.length).ok().and_then(|length| input.get(..length))
            && (header.opcode.is_control() || header.fin && header.opcode != Opcode::Continuation)
        {
            return Ok((taken + payload.len(), whole(&header, payload)?));
        }
        self.begin(header);
        let (more, step) = self.go_on(input)?;
        Ok((taken + more, step))
    }

    /// Whether a frame or a message is under way.
    pub fn is_unfinished(&self) -> bool {
        self.have > 0 || self.progress.is_some()
    }

    /// Bytes of heap memory held for what is unfinished.
    pub fn held(&self) -> usize {
        let Some(progress) = &self.progress else { return 0 };
        let message = progress.message.as_ref().map_or(0, |message| message.payload.held());
        size_of::<Progress>() + message + progress.frame.as_ref().map_or(0, |frame| frame.control.capacity())
    }

    fn message(&self) -> Option<&Unfinished> {
        self.progress.as_ref().and_then(|progress| progress.message.as_ref())
    }

    fn take_header(&mut self, input: &[u8]) -> Result<(usize, Option<Header>), Failure> {
        if let (0, [first, second, ..]) = (self.have, input) {
            // This is the order in which single bytes are checked, so that a failure does not depend on the cut.
            let (fin, opcode) = Start::first(*first, self.deflates)?;
            self.check_sequence(opcode)?;
            let start = Start::second((fin, opcode), *first, *second)?;
            if let Some(bytes) = input.get(..start.header_length()) {
                return Ok((bytes.len(), Some(start.finish(bytes)?)));
            }
        }
        for (i, byte) in input.iter().enumerate() {
            if let Some(header) = self.push_header_byte(*byte)? {
                self.have = 0;
                return Ok((i + 1, Some(header)));
            }
        }
        Ok((input.len(), None))
    }

    fn push_header_byte(&mut self, byte: u8) -> Result<Option<Header>, Failure> {
        if let Some(place) = self.header.get_mut(usize::from(self.have)) {
            *place = byte;
            self.have += 1;
        }
        let [first, second, ..] = self.header;
        if self.have == 1 {
            let (_, opcode) = Start::first(first, self.deflates)?;
            self.check_sequence(opcode)?;
            return Ok(None);
        }
        let start = Start::parse(first, second, self.deflates)?;
        match self.header.get(..start.header_length()) {
            Some(bytes) if usize::from(self.have) == bytes.len() => start.finish(bytes).map(Some),
            _ => Ok(None),
        }
    }

    /// RFC 6455 §5.4: a continuation continues something, and nothing else begins meanwhile.
    fn check_sequence(&self, opcode: Opcode) -> Result<(), Failure> {
        match (opcode, self.message()) {
            (Opcode::Continuation, None) => Err(protocol_error("continuation of no message")),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(protocol_error("new message inside a fragmented one")),
            _ => Ok(()),
        }
    }

    fn check_limits(&self, header: &Header, limits: &Limits) -> Result<(), Failure> {
        if header.opcode.is_control() {
            return Ok(());
        }
        let of = |m: &Unfinished| (m.payload.len(), m.fragments, m.compressed);
        let (used, fragments, compressed) = self.message().map_or((0, 0, header.compressed), of);
        // The length of a compressed message shows when it is inflated. Data that does not shrink may become a little
        // longer.
        let most = if compressed { limits.max_message + MOST_GROWTH } else { limits.max_message };
        if header.length > most.saturating_sub(used) as u64 {
            return Err(Failure { code: CloseCode::TOO_BIG, what: "message longer than max_message" });
        }
        // An empty last fragment only says that the message is over: some libraries append one.
        if fragments >= limits.max_fragments && !(header.fin && header.length == 0) {
            return Err(Failure { code: CloseCode::POLICY, what: "more fragments than max_fragments" });
        }
        Ok(())
    }

    fn begin(&mut self, header: Header) {
        let progress = self.progress.get_or_insert_default();
        let kind = match header.opcode {
            Opcode::Text => Some(Kind::Text),
            Opcode::Binary => Some(Kind::Binary),
            _ => None,
        };
        if let Some(kind) = kind {
            let (payload, text) = (Pieces::default(), utf8::Validator::default());
            let compressed = header.compressed;
            progress.message = Some(Unfinished { kind, compressed, fragments: 0, payload, text });
        }
        if let (false, Some(message)) = (header.opcode.is_control(), &mut progress.message) {
            message.fragments += 1;
        }
        progress.frame = Some(Partial { header, done: 0, control: Vec::new() });
    }

    fn go_on(&mut self, input: &[u8]) -> Result<(usize, Step), Failure> {
        let Some(progress) = &mut self.progress else { return Ok((0, Step::Incomplete)) };
        let Progress { message, frame: Some(frame) } = &mut **progress else { return Ok((0, Step::Incomplete)) };
        let left = frame.header.length - frame.done;
        let taken = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let payload = input.get(..taken).unwrap_or_default();
        let phase = (frame.done % 4) as usize;
        let control = frame.header.opcode.is_control();
        match message {
            Some(message) if !control => message.take(payload, left, frame.header.mask, phase)?,
            _ => mask::extend_unmasked(&mut frame.control, payload, frame.header.mask, phase),
        }
        frame.done += taken as u64;
        if frame.done < frame.header.length {
            return Ok((taken, Step::Incomplete));
        }
        let (header, payload) = (frame.header, std::mem::take(&mut frame.control));
        progress.frame = None;
        if control {
            if progress.message.is_none() {
                self.progress = None;
            }
            return Ok((taken, control_step(header.opcode, payload)));
        }
        if !header.fin {
            return Ok((taken, Step::Fragment));
        }
        match self.progress.take().and_then(|progress| progress.message) {
            Some(message) => Ok((taken, message.finish()?)),
            None => Ok((taken, Step::Fragment)),
        }
    }
}

impl Unfinished {
    fn take(&mut self, arrived: &[u8], left: u64, key: [u8; 4], phase: usize) -> Result<(), Failure> {
        let (mut rest, mut phase) = (arrived, phase);
        let ahead = usize::try_from(left).unwrap_or(usize::MAX) - arrived.len();
        while !rest.is_empty() {
            let target = self.payload.room(rest.len(), ahead);
            let start = target.len();
            let (part, after) = rest.split_at(rest.len().min(target.capacity() - start));
            mask::extend_unmasked(target, part, key, phase);
            // A compressed text is checked once it is inflated.
            if self.kind == Kind::Text && !self.compressed {
                self.text.push(target.get(start..).unwrap_or_default()).map_err(|_| invalid_text())?;
            }
            (rest, phase) = (after, phase.wrapping_add(part.len()));
        }
        Ok(())
    }

    fn finish(self) -> Result<Step, Failure> {
        if self.compressed {
            return Ok(Step::Compressed(self.kind, self.payload.join().into_vec()));
        }
        if self.kind == Kind::Text && !self.text.is_complete() {
            return Err(invalid_text());
        }
        // A message that is kept costs its length, and not the room that was reserved for fragments.
        Ok(Step::Message(Message::of_pieces(self.kind, self.payload)))
    }
}

/// Reads a frame that lies in the input as a whole, and is a whole message or a control frame: no state is needed.
fn whole(header: &Header, payload: &[u8]) -> Result<Step, Failure> {
    let mut buffer = Vec::with_capacity(payload.len());
    mask::extend_unmasked(&mut buffer, payload, header.mask, 0);
    let kind = match header.opcode {
        Opcode::Text | Opcode::Binary if header.compressed => {
            let kind = if header.opcode == Opcode::Text { Kind::Text } else { Kind::Binary };
            return Ok(Step::Compressed(kind, buffer));
        }
        Opcode::Text => {
            utf8::check(&buffer).map_err(|_| invalid_text())?;
            Kind::Text
        }
        Opcode::Binary => Kind::Binary,
        opcode => return Ok(control_step(opcode, buffer)),
    };
    Ok(Step::Message(Message::checked(kind, Bytes::from(buffer))))
}

fn control_step(opcode: Opcode, payload: Vec<u8>) -> Step {
    match opcode {
        Opcode::Ping => Step::Ping(payload),
        Opcode::Close => Step::Close(payload),
        _ => Step::Pong,
    }
}

/// The failure for a text message that is not UTF-8 (RFC 6455 §8.1).
pub(crate) fn invalid_text() -> Failure {
    Failure { code: CloseCode::INVALID_PAYLOAD, what: "text that is not UTF-8" }
}

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "decoder_property_tests.rs"]
mod property_tests;

#[cfg(test)]
#[path = "decoder_compressed_tests.rs"]
mod compressed_tests;
