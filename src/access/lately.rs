//! Who was lately allowed to publish where. Most connections publish to one channel, message after message; to search the
//! rules and the patterns of a token anew each time would cost more than to publish.

use super::grants::Grants;

/// How many are remembered, each in a place that all connections share whose numbers are alike modulo this. One that takes
/// the place of another is judged anew. What was allowed to a connection that has ended stays until then.
const REMEMBERED: usize = 1024;

/// What was allowed lately. It is right as long as neither the rules nor who is revoked changes; then it is to be
/// [forgotten](Lately::forget).
#[derive(Debug, Clone, Default)]
pub(super) struct Lately(Vec<Option<Allowed>>);

#[derive(Debug, Clone)]
struct Allowed {
    grants: Grants,
    channel: Box<str>,
    rule: usize,
}

impl Lately {
    /// The number of the rule by which this was allowed, if it was. `place` is the same for one who asks again.
    #[inline]
    pub(super) fn rule(&self, place: usize, grants: &Grants, channel: &str) -> Option<usize> {
        let allowed = self.0.get(place % REMEMBERED)?.as_ref()?;
        (allowed.grants.is_same(grants) && *allowed.channel == *channel).then_some(allowed.rule)
    }

    /// Notes the number of the rule by which this is allowed.
    pub(super) fn note(&mut self, place: usize, grants: &Grants, channel: &str, rule: usize) {
        let place = place % REMEMBERED;
        if place >= self.0.len() {
            self.0.resize(place + 1, None);
        }
        self.0[place] = Some(Allowed { grants: grants.clone(), channel: channel.into(), rule });
    }

    /// Forgets all.
    pub(super) fn forget(&mut self) {
        self.0 = Vec::new();
    }
}
