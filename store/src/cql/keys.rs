//! One at a time for a key: two take-ups of one log, or two claims of one fact, in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;

/// A table's number and a key in it.
type Key = (u16, Bytes);

/// Bounded by what is under way: a key is forgotten with its last guard.
#[derive(Default)]
pub(super) struct Keys(Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>);

/// While it lives nobody else has the key.
pub(super) struct Guard<'a> {
    keys: &'a Keys,
    key: Key,
    held: Option<OwnedMutexGuard<()>>,
}

impl Keys {
    pub(super) async fn lock(&self, table: u16, key: Bytes) -> Guard<'_> {
        let key = (table, key);
        let lock = self.all().entry(key.clone()).or_default().clone();
        let mut guard = Guard {
            keys: self,
            key,
            held: None,
        };
        guard.held = Some(lock.lock_owned().await);
        guard
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<tokio::sync::Mutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let mut all = self.keys.all();
        self.held = None;
        if all
            .get(&self.key)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            all.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_key_is_held_by_one_and_forgotten_with_the_last() {
        let keys = Keys::default();
        let first = keys.lock(1, Bytes::from_static(b"k")).await;
        let _other_table = keys.lock(2, Bytes::from_static(b"k")).await;
        let second = tokio::time::timeout(Duration::from_millis(20), keys.lock(1, Bytes::from_static(b"k")));
        assert!(second.await.is_err());
        drop(first);
        drop(keys.lock(1, Bytes::from_static(b"k")).await);
        assert_eq!(keys.all().len(), 1);
    }
}
