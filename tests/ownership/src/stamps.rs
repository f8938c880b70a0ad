//! Timestamps of one process of the model, as the engine gives them out.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use crate::exec::{Sim, lock};

/// Timestamps of one process: its wall clock, growing.
pub(crate) struct Stamps {
    sim: Sim,
    /// How far the node's wall clock is off, in microseconds.
    offset: Arc<AtomicI64>,
    last: Mutex<i64>,
}

impl Stamps {
    pub(crate) fn new(sim: Sim, offset: Arc<AtomicI64>) -> Self {
        Self {
            sim,
            offset,
            last: Mutex::new(0),
        }
    }

    fn wall(&self) -> i64 {
        1_000_000_000_000_000 + self.sim.now() as i64 + self.offset.load(Ordering::SeqCst)
    }

    pub(crate) fn next(&self) -> i64 {
        let mut last = lock(&self.last);
        *last = self.wall().max(*last + 1);
        *last
    }

    pub(crate) fn largest(&self) -> i64 {
        self.wall().max(*lock(&self.last))
    }

    pub(crate) fn raise(&self, floor: i64) {
        let mut last = lock(&self.last);
        *last = (*last).max(floor);
    }
}
