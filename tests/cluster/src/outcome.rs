//! What came of a run, and what of it makes a test fail. Nothing is done to nodes here.

use std::time::Duration;

use godwit_e2e::judge::Verdict;
use serde::Serialize;

use crate::frames::Counts;
use crate::served::Without;

/// A fault that was done, or came to its end.
#[derive(Debug, Clone, Serialize)]
pub struct Mark {
    /// What, and to whom.
    pub what: String,
    /// When it began, on the records' clock.
    #[serde(skip)]
    pub t: u64,
    /// What clients felt of it.
    pub felt: Without,
    /// More for 99 in 100 of the affected makes the run fail.
    #[serde(skip)]
    pub limit: Duration,
    /// How long it took from here until every client was served; `None`: not asked.
    pub back_ms: Option<u64>,
    /// More makes the run fail.
    #[serde(skip)]
    pub back_limit: Duration,
}

impl Mark {
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if u128::from(self.felt.p99_ms) > self.limit.as_millis() {
            faults.push(format!(
                "{}: without service for {} ms, more than {:?}",
                self.what, self.felt.p99_ms, self.limit
            ));
        }
        if self
            .back_ms
            .is_some_and(|back| u128::from(back) > self.back_limit.as_millis())
        {
            faults.push(format!(
                "{}: all served after {:?} ms only, more than {:?}",
                self.what, self.back_ms, self.back_limit
            ));
        }
        faults
    }
}

/// What came of a run.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Of the run.
    pub seed: u64,
    /// Sends acknowledged.
    pub acknowledged: u64,
    /// Arrivals.
    pub delivered: u64,
    /// Messages in all histories.
    pub messages: u64,
    /// Messages delivered to a session that had got them.
    pub duplicates: u64,
    /// Of sending, seconds.
    pub seconds: f64,
    /// The faults.
    pub marks: Vec<Mark>,
    /// Lightweight transactions and what became of their answers, where a proxy saw them.
    pub claims: Option<Counts>,
    /// How often nodes were asked which shards they have taken up.
    pub looks_at_owners: usize,
    /// What scenarios measured besides.
    pub notes: Vec<String>,
    /// How often clients were told no, by code.
    pub told_no: std::collections::BTreeMap<String, u64>,
    /// What no client should ever see.
    pub problems: Vec<String>,
    /// The checker's.
    pub verdict: Verdict,
    /// How long sessions took to get what they were owed, ms.
    pub drain_ms: u64,
}

impl Outcome {
    /// What makes the test fail: a broken rule, or clients without service for longer than a fault's limit.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.problems.clone();
        if self.verdict.exit != 0 {
            faults.push(format!(
                "the checker says {} {:?}\n{}",
                self.verdict.exit, self.verdict.broken, self.verdict.examples
            ));
        }
        faults.extend(self.marks.iter().flat_map(Mark::faults));
        faults
    }
}
