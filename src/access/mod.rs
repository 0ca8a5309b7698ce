//! What a connection may do. Pure: who asks, what was shown, and what that allows; never who is connected.

/// What a connection was allowed when it was let in, beside what everybody may. Only who authorizes can make one that allows
/// anything: it is no number that an embedder could set by accident.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Grants {
    publish: bool,
}

impl Grants {
    /// Allows to publish, and to send to members.
    pub(crate) fn publishing() -> Grants {
        Grants { publish: true }
    }

    /// Whether it may publish, and send to members.
    pub fn may_publish(self) -> bool {
        self.publish
    }
}
