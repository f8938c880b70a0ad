//! What others ask of the feed's thread besides notifying it: stop, rebuild, remove; and how they wake it.

use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::Thread,
};

use crate::writer::Removal;

/// Removals waiting at most; beyond, the caller keeps them.
const MAX_REMOVALS: usize = 1_024;

#[derive(Default)]
pub(super) struct Control {
    thread: OnceLock<Thread>,
    stop: AtomicBool,
    commit_first: AtomicBool,
    rebuild: AtomicBool,
    moved: AtomicBool,
    removals: Mutex<Vec<(Removal, Done)>>,
}

/// A callback that is called exactly once, with false if nobody called it before it is dropped.
pub(super) struct Done(Option<Box<dyn FnOnce(bool) + Send>>);

impl Control {
    pub(super) fn set_thread(&self, thread: Thread) {
        // Set once, right after the thread was started.
        let _ = self.thread.set(thread);
    }

    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    pub(super) fn ask_stop(&self, commit: bool) {
        self.commit_first.store(commit, SeqCst);
        self.stop.store(true, SeqCst);
        self.wake();
    }

    /// `Some(commit first)` once the thread is to end.
    pub(super) fn stopping(&self) -> Option<bool> {
        self.stop.load(SeqCst).then(|| self.commit_first.load(SeqCst))
    }

    pub(super) fn ask_rebuild(&self) {
        self.rebuild.store(true, SeqCst);
        self.wake();
    }

    pub(super) fn take_rebuild(&self) -> bool {
        self.rebuild.swap(false, SeqCst)
    }

    /// Shards came or went.
    pub(super) fn shards_moved(&self) {
        self.moved.store(true, SeqCst);
        self.wake();
    }

    pub(super) fn take_moved(&self) -> bool {
        self.moved.swap(false, SeqCst)
    }

    pub(super) fn push_removal(&self, removal: Removal, done: Done) -> Result<(), Removal> {
        {
            let mut waiting = self.removals.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= MAX_REMOVALS {
                done.forget();
                return Err(removal);
            }
            waiting.push((removal, done));
        }
        self.wake();
        Ok(())
    }

    pub(super) fn take_removals(&self) -> Vec<(Removal, Done)> {
        std::mem::take(&mut *self.removals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether something was asked that the thread has not taken yet.
    pub(super) fn asked(&self) -> bool {
        self.stop.load(SeqCst)
            || self.rebuild.load(SeqCst)
            || self.moved.load(SeqCst)
            || !self
                .removals
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_empty()
    }
}

impl Done {
    pub(super) fn new(call: impl FnOnce(bool) + Send + 'static) -> Self {
        Self(Some(Box::new(call)))
    }

    pub(super) fn tell(mut self) {
        if let Some(call) = self.0.take() {
            call(true);
        }
    }

    /// Nobody waits for it.
    pub(super) fn nobody() -> Self {
        Self(None)
    }

    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call(false);
        }
    }
}
