//! Timestamps of writes: microseconds, growing, never below a floor that a view carries, and below what this start's stored row says of
//! them. Not here: what a view is.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// How far below the stored stamp the machine's clock is followed, in microseconds: what is above is for one more than the last, and more than
/// can be under way (4,096 statements) before the next heartbeat is stored.
const SPARE: i64 = 1_000_000;

/// The one generator of a start. Later writes get larger timestamps, whichever thread asks, and whatever the machine's clock does.
#[derive(Debug)]
pub struct Clock {
    last: AtomicI64,
    /// The stamp of the start's row, or of the one that is being written if it is lower: the next view's floor counts on it. The largest number
    /// before the first.
    stamp: AtomicI64,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            last: AtomicI64::new(0),
            stamp: AtomicI64::new(i64::MAX),
        }
    }
}

impl Clock {
    /// The next timestamp: now, or one more than the last. The latter, too, when the machine's clock was set to beyond the stored stamp: until a
    /// heartbeat with a later one is stored.
    pub fn next(&self) -> i64 {
        self.next_at(now())
    }

    fn next_at(&self, now: i64) -> i64 {
        let now = if now < self.stamp.load(Ordering::Relaxed).saturating_sub(SPARE) {
            now
        } else {
            0
        };
        let grown = |last: i64| Some(now.max(last + 1));
        match self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown)
        {
            Ok(last) | Err(last) => now.max(last + 1),
        }
    }

    /// A row of this start with this stamp is being written: whether it is stored or not, timestamps stay below it.
    pub(super) fn stamping(&self, stamp: i64) {
        self.stamp.fetch_min(stamp, Ordering::Relaxed);
    }

    /// It is stored. One at a time, in order.
    pub(super) fn stamped(&self, stamp: i64) {
        self.stamp.store(stamp, Ordering::Relaxed);
    }

    /// Whether the next timestamps would be above the stored stamp: a view has raised them, and the heartbeat that says so is not stored yet.
    pub(super) fn is_ahead(&self) -> bool {
        self.last().saturating_add(SPARE / 2) >= self.stamp.load(Ordering::Relaxed)
    }

    /// Everything from now on is above `micros`: the floor that a view carries, so that a new owner's write beats those of the
    /// former one, whose clock may have been ahead.
    pub fn raise_to(&self, micros: i64) {
        self.last.fetch_max(micros, Ordering::Relaxed);
    }

    /// At or above every timestamp given out so far, and the machine's clock.
    pub fn stamp(&self) -> i64 {
        now().max(self.last())
    }

    /// The largest that was given out, or the floor; 0 before the first.
    pub fn last(&self) -> i64 {
        self.last.load(Ordering::Relaxed)
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX / 2)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_grow_and_stay_above_the_floor() {
        let clock = Clock::default();
        assert!(
            clock.stamp() > 1_700_000_000_000_000,
            "also of a start that has written nothing"
        );
        let first = clock.next();
        assert!(first > 1_700_000_000_000_000, "microseconds of today");
        assert!(clock.next() > first);
        let ahead = first + 3_600_000_000;
        clock.raise_to(ahead);
        assert_eq!(clock.next(), ahead + 1);
        clock.raise_to(first);
        assert_eq!((clock.next(), clock.last()), (ahead + 2, ahead + 2));
    }

    #[test]
    fn a_clock_that_is_set_forward_is_followed_when_the_stamp_that_says_so_is_stored() {
        const HOUR: i64 = 3_600_000_000;
        let (clock, now) = (Clock::default(), 1_800_000_000_000_000);
        clock.stamping(now + 10_000_000);
        clock.stamped(now + 10_000_000);
        assert_eq!(clock.next_at(now), now);
        // Set forward: counted on from the last.
        assert_eq!(clock.next_at(now + HOUR), now + 1);
        assert_eq!(clock.next_at(now + HOUR + 5), now + 2);
        // A row that may or may not be stored does not raise it.
        clock.stamping(now + HOUR + 10_000_000);
        assert_eq!(clock.next_at(now + HOUR + 6), now + 3);
        clock.stamped(now + HOUR + 10_000_000);
        assert_eq!(clock.next_at(now + HOUR + 7), now + HOUR + 7);
        // And set back: the stamp that is being written is lower, and counts at once.
        clock.stamping(now + HOUR + 500_000);
        assert_eq!(clock.next_at(now + HOUR + 8), now + HOUR + 8);
        assert_eq!(clock.next_at(now + HOUR + 900_000), now + HOUR + 9);
    }

    #[test]
    fn a_floor_above_the_stored_stamp_is_waited_for_until_a_heartbeat_says_so() {
        let (clock, now) = (Clock::default(), 1_800_000_000_000_000);
        clock.raise_to(now);
        assert!(!clock.is_ahead(), "before there is a row");
        clock.stamping(now + 10_000_000);
        clock.stamped(now + 10_000_000);
        assert!(!clock.is_ahead());
        assert_eq!(clock.next_at(now + 9_999_999), now + 1);
        assert!(!clock.is_ahead(), "whatever the machine's clock does");
        clock.raise_to(now + 10_400_000);
        assert!(clock.is_ahead());
        clock.stamping(now + 20_400_000);
        assert!(clock.is_ahead(), "not stored yet");
        clock.stamped(now + 20_400_000);
        assert!(!clock.is_ahead());
    }
}
