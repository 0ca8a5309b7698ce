//! The oracle's verdict on what a peer has received: in order, nothing twice, nothing that is not owed, nothing missing.

use slotcast::broker::event::ConnectionId;

use super::{Behind, Entry, Life, Oracle, Said, Stream, View};

impl Oracle {
    /// A message has arrived that is nothing but its payload.
    pub fn received(&mut self, id: ConnectionId, text: bool, payload: Vec<u8>) {
        let said = Said::Data(text, payload);
        if self.take_direct(id, &said).is_some() {
            return;
        }
        let Said::Data(text, payload) = said else { return };
        let data = (text, payload);
        let (view, lives) = (&self.views[&id], &self.lives);
        let owes = |s: &Stream| peek(lives, s, id).is_some_and(|(l, at)| lives[l].entries[at].data == data);
        let found = view.streams.iter().position(owes);
        let Some(found) = found else { panic!("{id}: nobody owes it {}", brief(&data)) };
        self.take_published(id, found);
    }

    /// Takes it if it is the next of what is told to it alone; returns when that was, in order.
    pub(super) fn take_direct(&mut self, id: ConnectionId, said: &Said) -> Option<u64> {
        let View { streams, directs, .. } = self.views.get_mut(&id).expect("open");
        let direct = directs.front().filter(|direct| direct.said == *said)?;
        let time = direct.time;
        directs.pop_front();
        let is_before = |entry: &Entry| entry.time < time;
        assert!(!overtaken(&self.lives, streams, id, is_before), "{id}: a send overtakes a publish");
        Some(time)
    }

    /// The next message of that stream has arrived.
    pub(super) fn take_published(&mut self, id: ConnectionId, index: usize) {
        let View { streams, directs, .. } = self.views.get_mut(&id).expect("open");
        let lives = &self.lives;
        let (life, at) = peek(lives, &streams[index], id).expect("owed");
        let entry = &lives[life].entries[at];
        streams[index].next = at + 1;
        let first = directs.front().is_none_or(|direct| direct.time > streams[index].begins);
        assert!(first, "{id}: a publish before it is told where it begins");
        if !streams[index].behind {
            let early = directs.front().is_some_and(|direct| direct.time < entry.time);
            assert!(!early, "{id}: a publish overtakes a send");
            let is_before = |other: &Entry| other.turn < entry.turn;
            assert!(!overtaken(lives, streams, id, is_before), "{id}: a turn overtakes the one before");
        }
    }

    pub fn received_close(&mut self, id: ConnectionId, code: u16) {
        let (said, behind) = self.views.get(&id).and_then(|view| view.bye).expect("a Close that the embedder knows of");
        assert_eq!(said, Some(code), "{id}: another code than the embedder was told");
        self.assert_complete(id, behind);
        self.views.get_mut(&id).expect("open").closed = true;
    }

    /// A stream has ended from our side, behind all that was queued.
    pub fn received_end(&mut self, id: ConnectionId) {
        let Some(view) = self.views.get(&id).filter(|view| view.dialect.is_stream()) else { return };
        let (_, behind) = view.bye.expect("an end that the embedder knows of");
        self.assert_complete(id, behind);
    }

    pub fn is_closed(&self, id: ConnectionId) -> bool {
        self.views.get(&id).is_some_and(|view| view.closed)
    }

    /// Whether nothing was unsent after a flush.
    pub fn caught_up(&mut self, id: ConnectionId, is: bool) {
        if let Some(view) = self.views.get_mut(&id) {
            view.caught_up = is;
        }
    }

    /// All that it is owed has arrived.
    pub fn assert_complete(&self, id: ConnectionId, behind: Behind) {
        let Some(view) = self.views.get(&id).filter(|_| behind != Behind::Some) else { return };
        let next = view.directs.front().map(|direct| &direct.said);
        assert_eq!(next, None, "{id}: {} told to it alone are missing", view.directs.len());
        for stream in view.streams.iter().filter(|stream| !stream.may_miss && (behind == Behind::All || !stream.behind))
        {
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

/// Whether something that should have come before has not.
fn overtaken(lives: &[Life], streams: &[Stream], id: ConnectionId, is_before: impl Fn(&Entry) -> bool) -> bool {
    let live = streams.iter().filter(|stream| !stream.behind);
    live.filter_map(|stream| peek(lives, stream, id)).any(|at| is_before(&lives[at.0].entries[at.1]))
}

/// The next message that a stream owes: its life and index.
pub(super) fn peek(lives: &[Life], stream: &Stream, id: ConnectionId) -> Option<(usize, usize)> {
    let entries = &lives[stream.life].entries;
    let end = stream.end.unwrap_or(entries.len());
    (stream.next..end).find(|&at| entries[at].except != Some(id)).map(|at| (stream.life, at))
}

fn brief((text, payload): &(bool, Vec<u8>)) -> String {
    let start = String::from_utf8_lossy(&payload[..payload.len().min(10)]);
    format!("{} of {} bytes: {start}…", if *text { "text" } else { "binary" }, payload.len())
}
