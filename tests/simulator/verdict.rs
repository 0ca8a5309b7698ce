//! The oracle's verdict on what a peer has received: in order, nothing twice, nothing that is not owed, nothing missing.

use slotcast::broker::event::ConnectionId;

use super::{Behind, Entry, Life, Losses, Oracle, Said, Stream, View};

impl Oracle {
    /// Takes a message that has arrived in the dialect *raw*: it is nothing but its payload.
    pub fn received(&mut self, id: ConnectionId, text: bool, payload: Vec<u8>) {
        let said = Said::Data(text, payload);
        if self.take_direct(id, &said).is_some() {
            return;
        }
        let Said::Data(text, payload) = said else { return };
        let data = (text, payload);
        let (view, lives) = (&self.views[&id], &self.lives);
        let most = if view.losses == Losses::Silent { usize::MAX } else { 1 };
        let owes = |s: &Stream| owed(lives, s, id).take(most).find(|&at| lives[s.life].entries[at].data == data);
        let found = view.streams.iter().enumerate().find_map(|(index, stream)| Some((index, owes(stream)?)));
        let Some((index, at)) = found else { panic!("{id}: not owed: {}", brief(&data)) };
        self.take_published(id, index, at);
    }

    /// Takes something if it is the next of those for this connection alone; returns when it was sent, in order.
    pub(super) fn take_direct(&mut self, id: ConnectionId, said: &Said) -> Option<u64> {
        let view = self.views.get_mut(&id).expect("open");
        let direct = view.directs.front().filter(|direct| direct.said == *said)?;
        let time = direct.time;
        view.directs.pop_front();
        let overtaken = pass(&self.lives, view, id, |entry| entry.time < time);
        assert!(!overtaken, "{id}: a send overtakes a publish");
        Some(time)
    }

    /// Takes the message at this index for this stream.
    pub(super) fn take_published(&mut self, id: ConnectionId, index: usize, at: usize) {
        let view = self.views.get_mut(&id).expect("open");
        let stream = &mut view.streams[index];
        let entry = &self.lives[stream.life].entries[at];
        stream.next = at + 1;
        assert!(at >= stream.doomed, "{id}: a publish after a later one");
        let first = view.directs.front().is_none_or(|direct| direct.time > stream.begins);
        assert!(first, "{id}: a publish before the stream's beginning is told");
        if !stream.behind {
            let early = view.directs.front().is_some_and(|direct| direct.time < entry.time);
            assert!(!early, "{id}: a publish overtakes a send");
            let overtaken = pass(&self.lives, view, id, |other| other.turn < entry.turn);
            assert!(!overtaken, "{id}: a turn overtakes the one before");
        }
    }

    pub fn received_close(&mut self, id: ConnectionId, code: u16) {
        let (said, behind) = self.views.get(&id).and_then(|view| view.bye).expect("a Close that the embedder knows of");
        assert_eq!(said, Some(code), "{id}: another code than the embedder was told");
        self.assert_complete(id, behind);
        self.views.get_mut(&id).expect("open").closed = true;
    }

    /// Takes the end of the stream from our side: everything that was queued must have arrived.
    pub fn received_end(&mut self, id: ConnectionId) {
        let Some(view) = self.views.get(&id).filter(|view| view.dialect.is_stream()) else { return };
        let (_, behind) = view.bye.expect("an end that the embedder knows of");
        self.assert_complete(id, behind);
    }

    pub fn is_closed(&self, id: ConnectionId) -> bool {
        self.views.get(&id).is_some_and(|view| view.closed)
    }

    /// Notes whether nothing was unsent after a flush.
    pub fn caught_up(&mut self, id: ConnectionId, is: bool) {
        if let Some(view) = self.views.get_mut(&id) {
            view.caught_up = is;
        }
    }

    /// Checks that everything owed has arrived.
    pub fn assert_complete(&self, id: ConnectionId, behind: Behind) {
        let Some(view) = self.views.get(&id).filter(|_| behind != Behind::Some) else { return };
        let next = view.directs.front().map(|direct| &direct.said);
        assert_eq!(next, None, "{id}: {} told to it alone are missing", view.directs.len());
        let silent = view.losses == Losses::Silent;
        let surely = |stream: &&Stream| !silent && !stream.may_miss && (behind == Behind::All || !stream.behind);
        for stream in view.streams.iter().filter(surely) {
            let missing = peek(&self.lives, stream, id).map(|(life, at)| brief(&self.lives[life].entries[at].data));
            assert_eq!(
                missing,
                None,
                "{id}: a published message is missing: {stream:?} of {}..{}",
                self.lives[stream.life].tail,
                self.lives[stream.life].entries.len()
            );
        }
    }
}

/// Drops messages that should have come before what has just come. Returns whether one of them was overtaken, and not
/// dropped.
fn pass(lives: &[Life], view: &mut View, id: ConnectionId, is_before: impl Fn(&Entry) -> bool) -> bool {
    for stream in view.streams.iter_mut().filter(|stream| !stream.behind) {
        let first = |stream: &Stream| owed(lives, stream, id).find(|&at| at >= stream.doomed);
        while let Some(at) = first(stream).filter(|&at| is_before(&lives[stream.life].entries[at])) {
            match view.losses {
                Losses::None => return true,
                Losses::Silent => stream.next = at + 1,
                Losses::Told => stream.doomed = at + 1,
            }
        }
    }
    false
}

/// The next message that a stream owes: its life and index.
pub(super) fn peek(lives: &[Life], stream: &Stream, id: ConnectionId) -> Option<(usize, usize)> {
    owed(lives, stream, id).next().map(|at| (stream.life, at))
}

/// The messages that a stream owes.
pub(super) fn owed(lives: &[Life], stream: &Stream, id: ConnectionId) -> impl Iterator<Item = usize> {
    let entries = &lives[stream.life].entries;
    let end = stream.end.unwrap_or(entries.len());
    (stream.next..end).filter(move |&at| entries[at].except != Some(id))
}

fn brief((text, payload): &(bool, Vec<u8>)) -> String {
    let start = String::from_utf8_lossy(&payload[..payload.len().min(10)]);
    format!("{} of {} bytes: {start}…", if *text { "text" } else { "binary" }, payload.len())
}
