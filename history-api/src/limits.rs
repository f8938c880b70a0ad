//! How often somebody may: one limiter for requests and for guesses at secrets (generic cell rate algorithm), bounded in
//! memory whatever comes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// Keys that one limiter knows at a time, about 100 bytes each; when all of them are in use, new ones share one
/// allowance, so that an attacker with many addresses cannot make room for more.
pub const LIMITER_KEYS: usize = 64 * 1024;

/// So many at once, and one more every so often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At once; 0: no limit.
    pub burst: u32,
    /// One more each, microseconds.
    pub every_us: u64,
}

impl Rate {
    /// No limit.
    pub const NONE: Self = Self {
        burst: 0,
        every_us: 0,
    };

    /// `per_second` for ever, `burst` at once.
    pub const fn per_second(per_second: u32, burst: u32) -> Self {
        Self {
            burst,
            every_us: 1_000_000 / if per_second == 0 { 1 } else { per_second as u64 },
        }
    }
}

/// Counts per key.
#[derive(Debug)]
pub struct Limiter<K> {
    rate: Rate,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    /// When all of the key's allowance is back, microseconds.
    full_at: HashMap<K, u64>,
    shared_full_at: u64,
}

impl<K: Eq + Hash> Limiter<K> {
    /// A limiter that has seen nobody.
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            state: Mutex::new(State {
                full_at: HashMap::new(),
                shared_full_at: 0,
            }),
        }
    }

    /// Takes one of the key's allowance. `Err`: none is left; in so many seconds there is one. `now_ms` is of a clock that only goes forward: one that
    /// is set back would lock everybody out for as long.
    pub fn take(&self, key: K, now_ms: u64) -> Result<(), u64> {
        if self.rate.burst == 0 {
            return Ok(());
        }
        let now_us = now_ms.saturating_mul(1_000);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State {
            full_at,
            shared_full_at,
        } = &mut *state;
        if full_at.len() >= LIMITER_KEYS && !full_at.contains_key(&key) {
            full_at.retain(|_, full| *full > now_us);
        }
        let full = if full_at.len() >= LIMITER_KEYS && !full_at.contains_key(&key) {
            shared_full_at
        } else {
            full_at.entry(key).or_insert(0)
        };
        let next = (*full).max(now_us) + self.rate.every_us;
        let allowed = now_us + u64::from(self.rate.burst) * self.rate.every_us;
        if next > allowed {
            return Err((next - allowed).div_ceil(1_000_000));
        }
        *full = next;
        Ok(())
    }

    /// Gives one back: what was taken turned out to be allowed without limit.
    pub fn give_back(&self, key: &K) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full) = state.full_at.get_mut(key) {
            *full = full.saturating_sub(self.rate.every_us);
        }
    }
}

/// Wrong guesses at one secret: ten at once, then one in 10 s.
pub const FAILED_OF_NAME: Rate = Rate {
    burst: 10,
    every_us: 10_000_000,
};
/// Wrong guesses from one address, behind which there may be many people: 100 at once, then one a second.
pub const FAILED_OF_ADDRESS: Rate = Rate {
    burst: 100,
    every_us: 1_000_000,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_at_a_time_and_the_wait_is_told() {
        let limiter = Limiter::new(Rate {
            burst: 3,
            every_us: 2_000_000,
        });
        for _ in 0..3 {
            assert_eq!(limiter.take("a", 10_000), Ok(()));
        }
        assert_eq!(limiter.take("a", 10_000), Err(2));
        assert_eq!(limiter.take("b", 10_000), Ok(()), "others are not concerned");
        assert_eq!(limiter.take("a", 12_000), Ok(()));
        assert_eq!(limiter.take("a", 12_000), Err(2));
        limiter.give_back(&"a");
        assert_eq!(limiter.take("a", 12_000), Ok(()));
    }

    #[test]
    fn rates_above_a_thousand_a_second_are_kept() {
        let limiter = Limiter::new(Rate::per_second(5_000, 10));
        let taken = (0..1_000)
            .flat_map(|ms| [ms; 20])
            .filter(|ms| limiter.take("a", *ms).is_ok());
        assert_eq!(taken.count(), 10 + 5 * 999);
    }

    #[test]
    fn the_memory_is_bounded_and_the_surplus_shares_one_allowance() {
        let limiter = Limiter::new(Rate {
            burst: 1,
            every_us: 1_000_000,
        });
        for key in 0..LIMITER_KEYS as u64 {
            assert_eq!(limiter.take(key, 0), Ok(()));
        }
        assert_eq!(limiter.take(u64::MAX, 0), Ok(()));
        assert_eq!(limiter.take(u64::MAX - 1, 0), Err(1), "the shared one is used up");
        assert_eq!(limiter.state.lock().unwrap().full_at.len(), LIMITER_KEYS);
        assert_eq!(limiter.take(u64::MAX, 5_000), Ok(()));
        assert_eq!(
            limiter.state.lock().unwrap().full_at.len(),
            1,
            "what is full again is forgotten"
        );
    }
}
