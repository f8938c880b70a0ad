//! Timestamps of writes: microseconds, growing, never below a floor that a view carries. Not here: what a view is.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The one generator of a start. Later writes get larger timestamps, whichever thread asks, and whatever the machine's clock does.
#[derive(Debug, Default)]
pub struct Clock {
    last: AtomicI64,
}

impl Clock {
    /// The next timestamp: now, or one more than the last.
    pub fn next(&self) -> i64 {
        let now = now();
        let grown = |last: i64| Some(now.max(last + 1));
        match self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown)
        {
            Ok(last) | Err(last) => now.max(last + 1),
        }
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
}
