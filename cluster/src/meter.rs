//! How long a worker's turns last: what of a turn its sockets and its requests may have, and the counts for whoever asks. The turn
//! itself is in `worker`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// After so long the sockets that are ready wait for the next turn, and so do requests: what a message does takes several turns
/// (its sender's, the conversation's, the store's answer, the recipient's), and each is as long as all that is done in it.
const PART: Duration = Duration::from_millis(1);

/// From here on a turn is long, and the log says at level debug what it was spent on.
pub(crate) const LONG: Duration = Duration::from_millis(10);

/// A part of a turn.
pub(crate) struct Part(Instant);

impl Part {
    pub(crate) fn begins() -> Self {
        Self(Instant::now())
    }

    /// Whether what was done is enough.
    pub(crate) fn is_over(&self) -> bool {
        self.0.elapsed() >= PART
    }
}

/// What a turn consisted of: for whoever looks why one was long.
pub(crate) struct Spent {
    last: Instant,
    parts: [(&'static str, Duration, usize); 7],
    used: usize,
}

impl Spent {
    pub(crate) fn begins() -> Self {
        Self {
            last: Instant::now(),
            parts: [("", Duration::ZERO, 0); 7],
            used: 0,
        }
    }

    /// So many of these were done since the last time.
    pub(crate) fn on(&mut self, what: &'static str, count: usize) {
        let now = Instant::now();
        if let Some(part) = self.parts.get_mut(self.used) {
            *part = (what, now - self.last, count);
        }
        self.used += 1;
        self.last = now;
    }
}

impl fmt::Debug for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parts.iter().take(self.used)).finish()
    }
}

/// Turns so far, of one worker or of all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turns {
    /// How many.
    pub count: u64,
    /// How long in all, microseconds. Sleep is not in it.
    pub micros: u64,
    /// The longest since the start, microseconds.
    pub longest: u64,
    /// By length, each counted once: up to the bound of [`Turns::BUCKETS_MICROS`] and above the one before. Longer ones are in none.
    pub buckets: [u64; 12],
}

impl Turns {
    /// Upper bounds of the buckets, microseconds.
    pub const BUCKETS_MICROS: [u64; 12] = [
        100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    ];
}

/// Counts the turns of a worker.
#[derive(Default)]
pub(crate) struct Meter {
    count: AtomicU64,
    micros: AtomicU64,
    longest: AtomicU64,
    buckets: [AtomicU64; 12],
}

impl Meter {
    pub(crate) fn turn(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // Nobody else writes.
        let add = |to: &AtomicU64, by: u64| to.store(to.load(Relaxed).wrapping_add(by), Relaxed);
        add(&self.count, 1);
        add(&self.micros, micros);
        if micros > self.longest.load(Relaxed) {
            self.longest.store(micros, Relaxed);
        }
        let at = Turns::BUCKETS_MICROS.iter().position(|bound| micros <= *bound);
        if let Some(bucket) = at.and_then(|at| self.buckets.get(at)) {
            add(bucket, 1);
        }
    }

    /// Adds its counts.
    pub(crate) fn add_to(&self, turns: &mut Turns) {
        turns.count += self.count.load(Relaxed);
        turns.micros += self.micros.load(Relaxed);
        turns.longest = turns.longest.max(self.longest.load(Relaxed));
        for (to, from) in turns.buckets.iter_mut().zip(&self.buckets) {
            *to += from.load(Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_counted_once_in_the_bucket_that_it_fits_in() {
        let meter = Meter::default();
        for micros in [100, 101, 2_000_000] {
            meter.turn(Duration::from_micros(micros));
        }
        let mut turns = Turns::default();
        meter.add_to(&mut turns);
        assert_eq!(
            (turns.count, turns.micros, turns.longest),
            (3, 2_000_201, 2_000_000)
        );
        assert_eq!(turns.buckets[..3], [1, 1, 0]);
        assert_eq!(turns.buckets.iter().sum::<u64>(), 2, "the longest is in none");
    }
}
