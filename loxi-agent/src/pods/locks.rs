//! One operation at a time per interface.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::Key;

/// A lock per interface, made when it is wanted.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<BTreeMap<Key, Arc<AsyncMutex<()>>>>);

impl Locks {
    /// Waits for an interface's turn.
    pub(super) async fn lock(&self, key: &Key) -> OwnedMutexGuard<()> {
        self.of(key).lock_owned().await
    }

    /// The lock, if nobody has it.
    pub(super) fn try_lock(&self, key: &Key) -> Option<OwnedMutexGuard<()>> {
        self.of(key).try_lock_owned().ok()
    }

    fn of(&self, key: &Key) -> Arc<AsyncMutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that nobody else has is nobody's: whoever holds or awaits a lock has a handle to it.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(key.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lock_is_one_per_interface_and_goes_with_its_users() {
        let locks = Locks::default();
        let [a, b] = ["eth0", "eth1"].map(|ifname| Key::new("c1", ifname).unwrap());
        let held = locks.lock(&a).await;
        assert!(locks.try_lock(&a).is_none());
        assert!(locks.try_lock(&b).is_some());
        drop(held);
        assert!(locks.try_lock(&a).is_some());
        drop(locks.try_lock(&b));
        assert_eq!(locks.0.lock().unwrap().len(), 1);
    }
}
