//! What is published to a channel, and what is kept of it.

use std::sync::Arc;

use super::event::ConnectionId;
use super::makers::maker_of;
use super::{Broker, Published, cost};
#[cfg(feature = "inside")]
use crate::channel::log::Start;
use crate::channel::log::{Entry, MemberId};
use crate::channel::position::Position;
use crate::channel::settings::{ChannelRules, ChannelSettings, Telling};
use crate::channel::store::NotHeld;
#[cfg(feature = "inside")]
use crate::channel::store::Reading;
use crate::limits::LimitsError;
use crate::proto::message::Message;

/// What is told of who sent a message.
#[derive(Debug, Default)]
pub(super) struct Sender {
    pub from: Option<MemberId>,
    pub name: Option<Arc<str>>,
    pub user: Option<Arc<str>>,
}

impl Broker {
    /// Publishes to all members of a channel, but for `except`. Polls are not members, and are not left out. A
    /// channel that does not exist is made: its history is for those who come later, and its position is remembered
    /// for at least `position_age`.
    pub fn publish(
        &mut self,
        channel: &str,
        message: Message,
        from: Option<ConnectionId>,
        except: Option<ConnectionId>,
    ) -> Published {
        self.publish_as(channel, message, from, None, except)
    }

    /// Publishes to a channel, as a sender that calls itself `name`. Without a name, that of the connection is told.
    pub fn publish_as(
        &mut self,
        channel: &str,
        message: Message,
        from: Option<ConnectionId>,
        name: Option<Arc<str>>,
        except: Option<ConnectionId>,
    ) -> Published {
        self.publish_on_behalf(channel, message, (from, from), name, except)
    }

    /// Publishes to a channel because this connection asks for it, but does not tell it as the sender. The message
    /// counts as received. If channels have to make way for it, those that the connection has made go first. Without
    /// an asker, a publish from nobody is the embedder's own.
    pub fn publish_for(
        &mut self,
        asker: ConnectionId,
        channel: &str,
        message: Message,
        name: Option<Arc<str>>,
        except: Option<ConnectionId>,
    ) -> Published {
        self.journal.count().messages_received += 1;
        self.publish_on_behalf(channel, message, (None, Some(asker)), name, except)
    }

    fn publish_on_behalf(
        &mut self,
        channel: &str,
        message: Message,
        (from, asker): (Option<ConnectionId>, Option<ConnectionId>),
        name: Option<Arc<str>>,
        except: Option<ConnectionId>,
    ) -> Published {
        if message.len() > self.limits.max_message {
            return Published::TooBig;
        }
        if self.outlet.has_engine() {
            return self.publish_one_by_engine(channel, message, (from, asker), name, except);
        }
        let key = match self.hold_for(channel, from, asker) {
            Ok(key) => key,
            Err(NotHeld::TooMany) => return Published::TooManyChannels,
            Err(NotHeld::BadName(error)) => return Published::BadName(error),
        };
        let except = except.filter(|&id| self.is_member(id, key));
        self.make_room(key, message.len(), except);
        let unix_ms = self.timers.unix_ms();
        let (sender, telling) = (from, self.channels.telling(key));
        let Sender { from, name, user } = self.sender(telling, (from, asker), name);
        let entry = Entry { unix_ms, message, from, name, user, except: except.map(|id| id.0) };
        let is_owed = self.append(key, entry, except);
        if self.flush.is_walking()
            && let Some(id) = sender
        {
            self.park_publisher(id, key);
        }
        let channel = &self.channels[key as usize];
        let (position, members) = (channel.log.position(), channel.receivers());
        if is_owed {
            self.flush.touch(key, &mut self.channels[key as usize]);
        } else {
            self.release_if_idle(key);
        }
        Published::Done { position, receivers: members - usize::from(except.is_some()) }
    }

    /// What a message tells of its sender in a channel.
    #[inline(always)]
    pub(super) fn sender(
        &mut self,
        telling: Telling,
        (from, asker): (Option<ConnectionId>, Option<ConnectionId>),
        name: Option<Arc<str>>,
    ) -> Sender {
        if !telling.names() {
            return Sender::default();
        }
        let name = name.or_else(|| from.and_then(|id| self.name(id)).cloned());
        let user = if telling.user { from.or(asker).and_then(|id| self.user(id)) } else { None };
        Sender { from: from.map(|id| self.secrets.sender(id)), name, user }
    }

    /// Makes room for a message of that length in a channel that is held to be published to. `except` is a member
    /// that does not get it.
    #[inline]
    pub(super) fn make_room(&mut self, key: u32, length: usize, except: Option<ConnectionId>) {
        if let Some(id) = except {
            self.settle(id.slot());
        }
        if !self.channels[key as usize].has_room(length + 64, &self.batches) {
            self.settle_channel(key);
        }
    }

    /// Appends to a channel in which there is room, and tells its members, but for `except`, which is also in the
    /// entry. Returns whether the channel owes it to anybody: then the caller is to flush it.
    #[inline]
    pub(super) fn append(&mut self, key: u32, entry: Entry, except: Option<ConnectionId>) -> bool {
        let now = self.timers.milliseconds();
        let grown = self.channels.publish(key, entry, now, &mut self.batches, self.encoded.encoder(), &self.limits);
        self.effort.make(grown);
        self.effort.spend(cost::TELL + self.encoded.encoder().take_cost());
        let encodings = self.channels[key as usize].open_batches();
        self.journal.count().messages_encoded += encodings as u64;
        if let Some(id) = except {
            self.skip_newest(id.slot(), key);
        }
        encodings > 0
    }

    /// Holds a channel to publish to. Most connections publish to the only channel that they are in: it need not be
    /// looked up.
    fn hold_for(
        &mut self,
        name: &str,
        from: Option<ConnectionId>,
        asker: Option<ConnectionId>,
    ) -> Result<u32, NotHeld> {
        let now = self.timers.milliseconds();
        let cold = from.and_then(|id| self.slots.live(id)).and_then(|slot| self.slots.cold(slot));
        if let Some([only]) = cold.map(|cold| cold.memberships.as_slice())
            && **self.channels[only.channel as usize].name() == *name
        {
            let key = only.channel;
            let maker = || maker_of(&self.slots, asker, &self.secrets);
            self.channels.hold_joined(key, maker, now, &self.limits)?;
            return Ok(key);
        }
        let (seed, maker) = (self.secrets.draw(), maker_of(&self.slots, asker, &self.secrets));
        self.channels.hold_to_publish(name, maker, seed, now, &self.limits)
    }

    /// Sets what one channel keeps, now and whenever it exists. The default is what all keep.
    ///
    /// # Errors
    /// If it would keep more, or longer, than the limits of all channels allow for.
    pub fn configure(&mut self, channel: &str, settings: ChannelSettings) -> Result<(), LimitsError> {
        self.channels.configure(channel, settings, self.timers.milliseconds(), &self.limits)?;
        if settings.slow_consumer.is_some() {
            self.judge_backlogs();
        }
        Ok(())
    }

    /// Sets what channels keep whose names begin with `prefix`, and that have no settings of their own.
    ///
    /// # Errors
    /// The same as those of `configure`.
    pub fn configure_prefix(&mut self, prefix: &str, settings: ChannelSettings) -> Result<(), LimitsError> {
        self.channels.configure_prefix(prefix, settings, &self.limits)
    }

    /// Sets what channels keep and tell that have no settings by name or prefix, at once also for those that exist.
    ///
    /// # Errors
    /// The same as those of `configure`.
    pub fn configure_by_rules(&mut self, rules: Option<ChannelRules>) -> Result<(), LimitsError> {
        self.channels.set_rules(rules, self.timers.milliseconds(), &self.limits)?;
        self.judge_backlogs();
        Ok(())
    }

    /// The position of a channel: `0.0` if it does not exist. To ask does not make it.
    pub fn position_of(&self, channel: &str) -> Position {
        self.channels.position_of(channel)
    }

    /// What is kept of a channel. To ask does not make it.
    #[cfg(feature = "inside")]
    pub fn read(&mut self, channel: &str, from: Start) -> Reading<'_> {
        self.channels.read(channel, from, self.timers.milliseconds(), &self.limits)
    }

    /// A connection's id as everybody may know it.
    pub fn member_id(&self, id: ConnectionId) -> MemberId {
        self.secrets.member(id)
    }
}
