//! What channels there are, and what they are like: for operators.

use std::sync::Arc;

use super::Broker;
use crate::channel::Channel;
use crate::channel::position::Position;

/// What a channel is like.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelState {
    /// Its name.
    pub name: Arc<str>,
    /// Its position.
    pub position: Position,
    /// Its members. Polls are not members.
    pub members: usize,
    /// Its subscribers, of whatever kind.
    pub subscribers: usize,
    /// Messages that are kept.
    pub messages: usize,
    /// Bytes of payload and names that are kept.
    pub bytes: usize,
}

impl ChannelState {
    fn of(channel: &Channel) -> ChannelState {
        ChannelState {
            name: channel.name().clone(),
            position: channel.position(),
            members: channel.members(),
            subscribers: channel.subscribers(),
            messages: channel.log.kept(),
            bytes: channel.log.bytes(),
        }
    }
}

impl Broker {
    /// How many connections count for `max_connections`: all but those of operators.
    pub fn counted_connections(&self) -> usize {
        self.admission.counted(self.slots.len())
    }

    /// Up to `most` channels, the first by name after `after`, of those that have members or history. It looks at no
    /// others, however many there are.
    pub fn channels_after(&self, after: &str, most: usize) -> Vec<ChannelState> {
        self.channels.awake_after(after).take(most).map(ChannelState::of).collect()
    }

    /// What a channel is like; None if it does not exist. A tombstone has a position, and nothing else.
    pub fn channel_state(&self, name: &str) -> Option<ChannelState> {
        if let Some(channel) = self.channels.find(name).and_then(|key| self.channels.get(key)) {
            return Some(ChannelState::of(channel));
        }
        let position = self.position_of(name);
        let tombstone = ChannelState { name: name.into(), position, members: 0, subscribers: 0, messages: 0, bytes: 0 };
        (position != Position::NONE).then_some(tombstone)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::broker::timers::Now;
    use crate::limits::Limits;
    use crate::proto::message::Message;
    use crate::proto::origin::OriginRules;

    #[test]
    fn pages_are_in_order_and_miss_nobody() {
        let mut broker = broker(&Limits::default());
        let mut names: Vec<String> = (0..1000).map(|i| format!("/{}", i * 7919 % 1000)).collect();
        for name in &names {
            broker.publish(name, Message::text("hi"), None, None);
        }
        names.sort();
        for most in [1, 3, 999, 1000, 1001] {
            let (mut after, mut listed) = (String::new(), Vec::new());
            loop {
                let page = broker.channels_after(&after, most);
                assert!(page.len() <= most);
                let Some(last) = page.last() else { break };
                after = last.name.to_string();
                listed.extend(page.into_iter().map(|state| state.name.to_string()));
            }
            assert_eq!(listed, names, "{most}");
        }
        assert!(broker.channels_after("", 0).is_empty() && broker.channels_after("0", 9).is_empty());
        assert_eq!(broker.channels_after("/99", 2)[0].name.as_ref(), "/990");
        assert_eq!(broker.channels_after("/", 1)[0].name.as_ref(), "/0");
    }

    #[test]
    fn what_a_channel_is_like() {
        let limits = Limits { history_messages: 2, ..Limits::default() };
        let mut broker = broker(&limits);
        for text in ["a", "bc", "def"] {
            broker.publish("/chat", Message::text(text), None, None);
        }
        let position = broker.position_of("/chat");
        let expected =
            ChannelState { name: "/chat".into(), position, members: 0, subscribers: 0, messages: 2, bytes: 5 };
        assert_eq!(broker.channel_state("/chat"), Some(expected.clone()));
        assert_eq!(broker.channels_after("", 9), [expected]);
        assert_eq!(broker.channel_state("/cha"), None);
        let none = Limits { history_messages: 0, ..Limits::default() };
        let mut forgetful = self::broker(&none);
        forgetful.publish("/chat", Message::text("a"), None, None);
        let state = forgetful.channel_state("/chat").unwrap();
        assert_eq!((state.position.offset, state.messages, state.bytes), (1, 0, 0));
        forgetful.flush(&mut crate::broker::tests::rig::Wire::default());
        assert_eq!(forgetful.channel_state("/chat"), Some(state), "a tombstone is known");
        assert!(forgetful.channels_after("", 9).is_empty(), "and not listed");
    }

    fn broker(limits: &Limits) -> Broker {
        let now = Now { instant: Instant::now(), unix_ms: 0 };
        Broker::new(limits.clone(), OriginRules::default(), 1, now)
    }
}
