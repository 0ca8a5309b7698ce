//! Who may do what, as all clones of a relay share it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::access::Access;

/// Who may do what. Invariant: `is_open` and `confines` say what the access says.
#[derive(Debug)]
pub(super) struct Rights {
    /// Anyone may do anything. It is asked for each message, and a lock would cost more.
    is_open: AtomicBool,
    /// Some rule says whether connections stay in its channels. It is asked for each command.
    confines: AtomicBool,
    access: Mutex<Access>,
}

impl Rights {
    pub(super) fn new(access: Access) -> Rights {
        let (is_open, confines) = (AtomicBool::new(access.is_open()), AtomicBool::new(confines(&access)));
        Rights { is_open, confines, access: Mutex::new(access) }
    }

    /// Whether anyone may do anything.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Whether some rule says whether connections stay in its channels.
    pub(super) fn confines(&self) -> bool {
        self.confines.load(Ordering::Relaxed)
    }

    /// The rules, and the tokens that were verified.
    pub(super) fn access(&self) -> MutexGuard<'_, Access> {
        // Nothing is left half done in it where something panics.
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets who may do what from now on. Who was revoked stays so.
    pub(super) fn set(&self, access: Access) {
        let mut current = self.access();
        let mut revoked = current.revoked().clone();
        revoked.merge(access.revoked().clone());
        let access = access.with_revoked(revoked);
        self.is_open.store(access.is_open(), Ordering::Relaxed);
        self.confines.store(confines(&access), Ordering::Relaxed);
        *current = access;
    }
}

fn confines(access: &Access) -> bool {
    access.rules().is_some_and(|rules| rules.iter().any(|rule| rule.single_channel.is_some()))
}

impl Default for Rights {
    fn default() -> Rights {
        Rights::new(Access::default())
    }
}
