//! The oracle's verdict on what a peer has received: in order, nothing twice, nothing that is not owed, nothing missing.

use slotcast::broker::event::ConnectionId;

use super::{Behind, Entry, Life, Oracle, Stream, View};

impl Oracle {
    pub fn received(&mut self, id: ConnectionId, data: &(bool, Vec<u8>)) {
        let View { streams, directs, lossy, .. } = self.views.get_mut(&id).expect("open");
        let lives = &self.lives;
        // What is published before something else comes before it, or was dropped.
        let pass = |streams: &mut [Stream], is_before: &dyn Fn(&Entry) -> bool| {
            let mut overtaken = false;
            for stream in streams.iter_mut().filter(|stream| !stream.behind) {
                while let Some((_, at)) =
                    peek(lives, stream, id).filter(|&(life, at)| is_before(&lives[life].entries[at]))
                {
                    overtaken |= !*lossy;
                    stream.next = at + 1;
                }
            }
            overtaken
        };
        if directs.front().is_some_and(|direct| direct.data == *data)
            && let Some(direct) = directs.pop_front()
        {
            assert!(!pass(streams, &|entry| entry.time < direct.time), "{id}: a send overtakes a publish");
            return;
        }
        let owes = |s: &Stream| {
            owed(lives, s, id)
                .take(if *lossy { usize::MAX } else { 1 })
                .find(|&at| lives[s.life].entries[at].data == *data)
        };
        let found = streams.iter().enumerate().find_map(|(index, stream)| Some((index, owes(stream)?)));
        let Some((found, at)) = found else { panic!("{id}: nobody owes it {}", brief(data)) };
        let entry = &lives[streams[found].life].entries[at];
        streams[found].next = at + 1;
        if !streams[found].behind {
            let early = directs.front().is_some_and(|direct| direct.time < entry.time);
            assert!(!early, "{id}: a publish overtakes a send");
            assert!(!pass(streams, &|other| other.turn < entry.turn), "{id}: a turn overtakes the one before");
        }
    }

    pub fn received_close(&mut self, id: ConnectionId, code: u16) {
        let (said, behind) = self.views.get(&id).and_then(|view| view.bye).expect("a Close that the embedder knows of");
        assert_eq!(said, Some(code), "{id}: another code than the embedder was told");
        self.assert_complete(id, behind);
        self.views.get_mut(&id).expect("open").closed = true;
    }

    pub fn is_closed(&self, id: ConnectionId) -> bool {
        self.views.get(&id).is_some_and(|view| view.closed)
    }

    /// All that it is owed has arrived.
    pub fn assert_complete(&self, id: ConnectionId, behind: Behind) {
        let Some(view) = self.views.get(&id).filter(|_| behind != Behind::Some) else { return };
        assert!(view.directs.is_empty(), "{id}: {} sent to it are missing", view.directs.len());
        let surely = |stream: &&Stream| !view.lossy && !stream.may_miss && (behind == Behind::All || !stream.behind);
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

/// The next message that a stream owes: its life and index.
pub(super) fn peek(lives: &[Life], stream: &Stream, id: ConnectionId) -> Option<(usize, usize)> {
    owed(lives, stream, id).next().map(|at| (stream.life, at))
}

/// The messages that a stream owes.
fn owed(lives: &[Life], stream: &Stream, id: ConnectionId) -> impl Iterator<Item = usize> {
    let entries = &lives[stream.life].entries;
    let end = stream.end.unwrap_or(entries.len());
    (stream.next..end).filter(move |&at| entries[at].except != Some(id))
}

fn brief((text, payload): &(bool, Vec<u8>)) -> String {
    let start = String::from_utf8_lossy(&payload[..payload.len().min(10)]);
    format!("{} of {} bytes: {start}…", if *text { "text" } else { "binary" }, payload.len())
}
