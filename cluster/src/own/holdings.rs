//! What this node holds, for all its threads: lock-free to read. `member.rs` alone writes it, but for the calendar.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use godwit_store::{Ownership, Scope, Verdict, View};
use tokio::sync::Notify;

use super::Millis;
use super::calendar::Calendar;
use super::map::Layout;

/// Shards held by this node: slot → view of take-up; the view it acts in; until when it should act.
#[derive(Debug)]
pub struct Holdings {
    layout: Layout,
    current: AtomicU64,
    act_until: AtomicU64,
    /// View of take-up by slot; 0: not held.
    since: Box<[AtomicU64]>,
    /// The largest view that a confirmation has shown.
    hinted: AtomicU64,
    hint: Notify,
    /// Read once a turn by each worker, written every two seconds.
    calendar: Mutex<Calendar>,
}

impl Holdings {
    /// Nothing is held.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            current: AtomicU64::new(0),
            act_until: AtomicU64::new(0),
            since: (0..layout.slots()).map(|_| AtomicU64::new(0)).collect(),
            hinted: AtomicU64::new(0),
            hint: Notify::new(),
            calendar: Mutex::default(),
        }
    }

    /// How slots are numbered.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The view in which this node acts; 0: in none.
    pub fn current(&self) -> View {
        self.current.load(Ordering::SeqCst)
    }

    /// The view in which a slot was taken up; `None`: it is not held, or not yet.
    pub fn held(&self, slot: u16) -> Option<View> {
        let since = self.since.get(usize::from(slot))?.load(Ordering::SeqCst);
        (since != 0).then_some(since)
    }

    /// Whether the node should act: its last confirmed heartbeat is younger than the lease. `now` is CLOCK_BOOTTIME in
    /// milliseconds, as given to `Member`. Who may not act gives no answers and reads no clients; it keeps its shards.
    pub fn may_act(&self, now: Millis) -> bool {
        now < self.act_until.load(Ordering::SeqCst)
    }

    /// How long ago the request was begun that stored this start's last confirmed heartbeat; `None`: there is none that counts, since the
    /// start has just begun or is over.
    pub fn silence(&self, now: Millis) -> Option<Millis> {
        let until = self.act_until.load(Ordering::SeqCst);
        let begun = until.checked_sub(super::LEASE_MS)?;
        Some(now.saturating_sub(begun))
    }

    /// What time it is for this node.
    pub fn calendar(&self) -> Calendar {
        *self.locked_calendar()
    }

    /// A comparison has shown this; what was known before.
    pub fn set_calendar(&self, calendar: Calendar) -> Calendar {
        std::mem::replace(&mut *self.locked_calendar(), calendar)
    }

    fn locked_calendar(&self) -> MutexGuard<'_, Calendar> {
        self.calendar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer or a confirmation named this view: if it is later than the node's, the node reads the view at once.
    pub fn hint(&self, view: View) {
        if self.hinted.fetch_max(view, Ordering::SeqCst) < view && view > self.current() {
            self.hint.notify_one();
        }
    }

    /// The largest view hinted at.
    pub fn hinted(&self) -> View {
        self.hinted.load(Ordering::SeqCst)
    }

    /// A peer has let go of what a view takes: who waits for that reads the rows at once.
    pub fn look(&self) {
        self.hint.notify_one();
    }

    /// Waits for a hint at a later view, or at rows worth a look.
    pub async fn until_hinted(&self) {
        self.hint.notified().await;
    }

    pub(super) fn let_go(&self, slot: u16) {
        if let Some(since) = self.since.get(usize::from(slot)) {
            since.store(0, Ordering::SeqCst);
        }
    }

    pub(super) fn take(&self, slot: u16, view: View) {
        if let Some(since) = self.since.get(usize::from(slot)) {
            since.store(view, Ordering::SeqCst);
        }
    }

    /// After everything that this view takes was let go, before anything that it gives is taken.
    pub(crate) fn move_to(&self, view: View) {
        self.current.store(view, Ordering::SeqCst);
    }

    pub(crate) fn act_until(&self, until: Millis) {
        self.act_until.store(until, Ordering::SeqCst);
    }
}

impl Ownership for Holdings {
    fn verdict(&self, scope: Scope, shown: View) -> Verdict {
        // The view first: a slot that this view takes was let go before, so what is read after it is not older.
        let current = self.current();
        let held = self.held(scope.shard) == Some(scope.view);
        if !held {
            return Verdict::Lost;
        }
        if shown > current {
            self.hint(shown);
            return Verdict::Later;
        }
        // A read that began after the take-up shows no view before it; if a store did, it must be asked again.
        if shown < scope.view {
            Verdict::Later
        } else {
            Verdict::Held
        }
    }
}
