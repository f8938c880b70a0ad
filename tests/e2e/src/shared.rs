//! What all clients of a run share: the records, the word to stop, the counts that the test waits on, and a list of what
//! no client should ever see.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::record::{Recorder, now};

/// Problems kept; the first ones say enough.
const PROBLEMS: usize = 40;

/// See the module.
#[derive(Debug)]
pub struct Shared {
    /// The records.
    pub recorder: Recorder,
    stop: AtomicBool,
    answers_late: AtomicBool,
    numbers: AtomicU64,
    in_flight: AtomicI64,
    acknowledged: AtomicU64,
    delivered: AtomicU64,
    last_acknowledged: AtomicU64,
    last_delivered: AtomicU64,
    failures: Mutex<BTreeMap<String, u64>>,
    problems: Mutex<Vec<String>>,
}

impl Shared {
    /// With nothing counted.
    pub fn new(recorder: Recorder) -> Self {
        Self {
            recorder,
            stop: AtomicBool::new(false),
            answers_late: AtomicBool::new(false),
            numbers: AtomicU64::new(0),
            in_flight: AtomicI64::new(0),
            acknowledged: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            last_acknowledged: AtomicU64::new(0),
            last_delivered: AtomicU64::new(0),
            failures: Mutex::default(),
            problems: Mutex::default(),
        }
    }

    /// A number that nobody else in the run has, from 1.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// No new sends from now on; what is not acknowledged goes on being retried.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether to begin nothing new.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// A send begins.
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
    }

    /// A send is acknowledged.
    pub fn acknowledge(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.acknowledged.fetch_add(1, Ordering::AcqRel);
        self.last_acknowledged.store(now(), Ordering::Release);
    }

    /// A send is given up; `code` says why.
    pub fn give_up(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    /// From now on an answer may be on its way for so long that its client takes it for lost, or not any more.
    pub fn let_answers_be_late(&self, late: bool) {
        self.answers_late.store(late, Ordering::Release);
    }

    /// Whether that is so.
    pub fn answers_may_be_late(&self) -> bool {
        self.answers_late.load(Ordering::Acquire)
    }

    /// A client was told no.
    pub fn told_no(&self, code: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures.entry(code.to_owned()).or_default() += 1;
    }

    /// Something arrived.
    pub fn deliver(&self) {
        self.delivered.fetch_add(1, Ordering::AcqRel);
        self.last_delivered.store(now(), Ordering::Release);
    }

    /// What must not happen, has.
    pub fn problem(&self, what: String) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.len() < PROBLEMS {
            problems.push(what);
        }
    }

    /// Sends begun and neither acknowledged nor given up.
    pub fn in_flight(&self) -> i64 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Sends acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Arrivals, repeats among them.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Acquire)
    }

    /// When the last acknowledgement was read, on the records' clock.
    pub fn last_acknowledged(&self) -> u64 {
        self.last_acknowledged.load(Ordering::Acquire)
    }

    /// When something last arrived, on the records' clock.
    pub fn last_delivered(&self) -> u64 {
        self.last_delivered.load(Ordering::Acquire)
    }

    /// How often clients were told no, by code.
    pub fn failures(&self) -> BTreeMap<String, u64> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.clone()
    }

    /// What must not happen and did.
    pub fn problems(&self) -> Vec<String> {
        let problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.clone()
    }
}
