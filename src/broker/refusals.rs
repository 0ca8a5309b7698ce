//! How followers and readers are refused when a channel has no place for them.

use super::Broker;
use super::ending::End;
use super::event::Exchange;
use super::followers::StreamFormat;
use super::reason::Cause;
use crate::channel::dialect::sse;
use crate::channel::store::NotHeld;
use crate::proto::http::{Refusal, Request, Response, Status};

impl Broker {
    /// Refuses a request that cannot be answered with what a channel keeps.
    pub(super) fn refuse_reader(&mut self, slot: u32, exchange: &Exchange, channel: &str, error: NotHeld) {
        match error {
            NotHeld::BadName(error) => self.refuse_bad_name(slot, &exchange.request, channel, error),
            NotHeld::TooMany => self.refuse_for_room(exchange, StreamFormat::Ndjson),
        }
    }

    /// Refuses a follower because there are as many channels as there may be: see `refuse_follower`.
    pub(super) fn refuse_for_room(&mut self, exchange: &Exchange, format: StreamFormat) {
        let refusal = self.no_room_for_channels();
        self.refuse_follower(exchange, format, Cause::TooManyChannels, &refusal);
    }

    /// A 503 for one who would listen to one channel more.
    pub(super) fn no_room_for_channels(&mut self) -> Refusal {
        let detail = "The broker has as many channels as it may have; try again later.";
        let seconds = self.secrets.jittered_seconds().to_string();
        Refusal::new(Status(503), Cause::TooManyChannels.as_str(), detail).with_header("Retry-After", seconds)
    }

    /// Refuses a request for a stream, or one that would wait. An EventSource is refused in a way that makes it come
    /// back.
    pub(super) fn refuse_follower(
        &mut self,
        exchange: &Exchange,
        format: StreamFormat,
        cause: Cause,
        refusal: &Refusal,
    ) {
        let Some(slot) = self.slots.asked(exchange.id) else { return };
        let response = match format {
            StreamFormat::Sse => self.try_again_later(&exchange.request),
            StreamFormat::Ndjson => {
                let cors = self.trust.cors(&exchange.request);
                let response = Response::problem(refusal).closing().with_cors(cors).dated(self.timers.date());
                response.encode_for(&exchange.request)
            }
        };
        self.end(slot, cause, End::Response(&response));
    }

    /// The whole answer to an EventSource for which there is no room. After a status other than 200 it would never
    /// come back. So it is told when to try again, and the stream ends.
    pub(super) fn try_again_later(&mut self, request: &Request) -> Vec<u8> {
        let mut body = Vec::new();
        sse::opening(&mut body, self.retry_ms() * 3, None);
        Response::new(Status::OK)
            .with_body(StreamFormat::Sse.media_type(), body)
            .with_header("Cache-Control", "no-store, no-transform")
            .with_cors(self.trust.cors(request))
            .closing()
            .dated(self.timers.date())
            .encode_for(request)
    }
}
