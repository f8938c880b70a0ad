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
    /// The mark with whose time it is compared: twice that is no failure, however much it is.
    #[serde(skip)]
    pub like: Option<usize>,
    /// How long it took from here until every client was served; `None`: not asked.
    pub back_ms: Option<u64>,
    /// More makes the run fail.
    #[serde(skip)]
    pub back_limit: Duration,
}

impl Mark {
    fn faults(&self, all: &[Self]) -> Vec<String> {
        let mut faults = Vec::new();
        let like = self.like.and_then(|like| all.get(like));
        let like = Duration::from_millis(like.map_or(0, |like| 2 * like.felt.max_ms));
        let limit = self.limit.max(like);
        if u128::from(self.felt.p99_ms) > limit.as_millis() {
            faults.push(format!(
                "{}: without service for {} ms, more than {limit:?}",
                self.what, self.felt.p99_ms
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
        faults.extend(self.marks.iter().flat_map(|mark| mark.faults(&self.marks)));
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(felt_ms: u64, back_ms: Option<u64>, like: Option<usize>) -> Mark {
        let second = Duration::from_secs(1);
        Mark {
            what: "fault".to_owned(),
            t: 0,
            felt: Without {
                p99_ms: felt_ms,
                max_ms: felt_ms,
                ..Without::default()
            },
            limit: second,
            like,
            back_ms,
            back_limit: second,
        }
    }

    #[test]
    fn what_took_longer_than_its_limit_is_a_fault_and_what_is_like_before_is_none() {
        let all = [
            mark(800, Some(900), None),
            mark(1_500, None, Some(0)),
            mark(1_700, None, Some(0)),
        ];
        let faults: Vec<usize> = all.iter().map(|mark| mark.faults(&all).len()).collect();
        assert_eq!(faults, [0, 0, 1]);
        assert_eq!(mark(1_500, Some(1_001), None).faults(&all).len(), 2);
    }
}
