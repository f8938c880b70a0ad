//! Which shards' conversations this index is to have, on a node that is one of several, and which of them it has wholly.
//! Written by whoever takes shards up and by the feed, read by searches without a lock. Holds no files.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// How an index stands to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is another node's: what is left of it here is not to be shown.
    Away,
    /// It is this node's, and what was stored before it came may be missing.
    Catching,
    /// It is this node's, and all that was stored before it came is here; what is confirmed since comes as ever.
    Whole,
}

const WHOLE: u64 = 1;

/// By shard: 0 if it is away, else twice the number of its coming, and one more once it is whole.
#[derive(Debug)]
pub(crate) struct Shards {
    states: Box<[AtomicU64]>,
    comings: AtomicU64,
}

/// A shard as it came: if it went and came again it is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Come {
    pub(crate) shard: u32,
    state: u64,
}

impl Shards {
    /// All of them are away.
    pub(crate) fn new(count: u32) -> Self {
        Self {
            states: (0..count).map(|_| AtomicU64::new(0)).collect(),
            comings: AtomicU64::new(0),
        }
    }

    fn state(&self, shard: u32) -> u64 {
        let state = usize::try_from(shard).ok().and_then(|at| self.states.get(at));
        state.map_or(0, |state| state.load(SeqCst))
    }

    pub(crate) fn standing(&self, shard: u32) -> Standing {
        match self.state(shard) {
            0 => Standing::Away,
            state if state & WHOLE != 0 => Standing::Whole,
            _ => Standing::Catching,
        }
    }

    fn next(&self) -> u64 {
        2 * (self.comings.fetch_add(1, SeqCst) + 1)
    }

    pub(crate) fn hold(&self, shard: u32) {
        let state = self.next();
        if let Some(of) = usize::try_from(shard).ok().and_then(|at| self.states.get(at)) {
            // Held already: what is known of it stays.
            let _ = of.compare_exchange(0, state, SeqCst, SeqCst);
        }
    }

    pub(crate) fn let_go(&self, shard: u32) {
        if let Some(of) = usize::try_from(shard).ok().and_then(|at| self.states.get(at)) {
            of.store(0, SeqCst);
        }
    }

    /// Those that are held, in order.
    pub(crate) fn held(&self) -> Vec<u32> {
        self.numbers().filter(|shard| self.state(*shard) != 0).collect()
    }

    /// Those that are away, in order.
    pub(crate) fn away(&self) -> Vec<u32> {
        self.numbers().filter(|shard| self.state(*shard) == 0).collect()
    }

    /// Those that are held and not whole, in order.
    pub(crate) fn catching(&self) -> Vec<Come> {
        let come = |shard| Come {
            shard,
            state: self.state(shard),
        };
        let catching = |come: &Come| come.state != 0 && come.state & WHOLE == 0;
        self.numbers().map(come).filter(catching).collect()
    }

    /// It is whole, if it has not gone since.
    pub(crate) fn set_whole(&self, come: Come) {
        if let Some(of) = usize::try_from(come.shard)
            .ok()
            .and_then(|at| self.states.get(at))
        {
            // It has gone: who comes next is told anew.
            let _ = of.compare_exchange(come.state, come.state | WHOLE, SeqCst, SeqCst);
        }
    }

    /// The index was emptied: none is whole.
    pub(crate) fn restart(&self) {
        for of in &self.states {
            let state = of.load(SeqCst);
            if state & WHOLE != 0 {
                // If it went meanwhile it stays away.
                let _ = of.compare_exchange(state, self.next(), SeqCst, SeqCst);
            }
        }
    }

    fn numbers(&self) -> impl Iterator<Item = u32> + use<> {
        0..u32::try_from(self.states.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_went_and_came_again_is_not_whole_by_what_was_read_before() {
        let shards = Shards::new(4);
        assert_eq!(shards.standing(2), Standing::Away);
        shards.hold(2);
        let [before] = shards.catching()[..] else {
            panic!("one")
        };
        shards.let_go(2);
        shards.hold(2);
        shards.set_whole(before);
        assert_eq!(shards.standing(2), Standing::Catching);
        let [now] = shards.catching()[..] else {
            panic!("one")
        };
        shards.set_whole(now);
        assert_eq!((shards.standing(2), shards.held()), (Standing::Whole, vec![2]));
        // Held already.
        shards.hold(2);
        assert_eq!(shards.standing(2), Standing::Whole);
        shards.restart();
        assert_eq!(shards.standing(2), Standing::Catching);
        assert_eq!(
            (shards.standing(9), shards.away()),
            (Standing::Away, vec![0, 1, 3])
        );
    }
}
