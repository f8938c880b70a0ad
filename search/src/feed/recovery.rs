//! How the feed's thread goes on after a failure of disk, store or index, how it builds the index anew, and how it ends.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering::SeqCst,
    time::Duration,
};

use super::{
    Source,
    walk::{Walk, What},
    work::UNKNOWN,
    worker::{Step, Worker},
};
use crate::{error::Error, index::CommitNote, progress::FeedState};

/// Pauses after failures.
pub(super) const FIRST_BACKOFF: Duration = Duration::from_millis(100);
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(5);

impl<S: Source> Worker<S> {
    /// The store did not answer, for some conversations or for all. What was added so far stays and is committed.
    pub(super) fn source_failed(&mut self, error: &Error, some_were_read: bool) -> Step {
        let progress = self.index.progress();
        progress.counters.failures.fetch_add(1, SeqCst);
        progress.set_state(FeedState::Stale {
            reason: error.to_string(),
        });
        if some_were_read {
            self.source_backoff = FIRST_BACKOFF;
        } else {
            tracing::warn!(%error, pause_ms = self.source_backoff.as_millis() as u64, "search cannot read the store");
        }
        let pause = self.source_backoff;
        self.source_backoff = (pause * 2).min(MAX_BACKOFF);
        Step::Wait(pause)
    }

    /// Throws away what is not committed; the next cycle begins from what the index holds.
    pub(super) fn recover(&mut self, error: &Error) -> Step {
        tracing::warn!(%error, pause_ms = self.backoff.as_millis() as u64, "search index stale, trying again");
        let progress = self.index.progress();
        progress.counters.failures.fetch_add(1, SeqCst);
        progress.set_state(FeedState::Stale {
            reason: error.to_string(),
        });
        self.drop_writer();
        let reopened = if error.is_damage() {
            self.rebuild()
        } else {
            self.index.reopen()
        };
        match reopened {
            Err(error) if error.is_damage() => self.control.ask_rebuild(),
            Err(error) => tracing::warn!(%error, "search index does not open yet"),
            Ok(()) => {}
        }
        let pause = self.backoff;
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
        Step::Wait(pause)
    }

    fn drop_writer(&mut self) {
        if let Some(writer) = self.writer.take()
            && catch_unwind(AssertUnwindSafe(|| drop(writer))).is_err()
        {
            tracing::warn!("the search index's writer panicked while it was closed");
        }
        self.work.rolled_back();
        self.uncommitted = 0;
    }

    pub(super) fn rebuild(&mut self) -> Result<(), Error> {
        if let Some(writer) = self.writer.take()
            && let Err(error) = writer.close()
        {
            tracing::warn!(%error, "a merge failed before the rebuild");
        }
        self.drop_writer();
        // Asked again until it succeeds.
        self.index.rebuild().inspect_err(|_| self.control.ask_rebuild())?;
        self.complete = false;
        self.note = CommitNote::default();
        if self.index.progress().shards().is_some() {
            self.walk = None;
            self.division.begin_again();
        } else {
            self.walk = Some(Walk {
                what: What::All,
                shards: None,
                after: None,
                since_ms: UNKNOWN,
            });
        }
        self.index.progress().set_state(FeedState::Rebuilding);
        Ok(())
    }

    pub(super) fn finish(&mut self, commit: bool) {
        if commit && (self.uncommitted > 0 || !self.removals.is_empty()) {
            match catch_unwind(AssertUnwindSafe(|| self.commit())) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "last commit of the search index failed"),
                Err(_) => tracing::warn!("last commit of the search index panicked"),
            }
        }
        self.drop_writer();
    }
}
