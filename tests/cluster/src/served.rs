//! When clients were served and through which node, and from it how long a fault left them without service. No clients and no verdict here.

use std::sync::{Mutex, PoisonError};

use godwit_e2e::record::now;
use serde::Serialize;

/// A pause between two acknowledgements above which a client counts as affected: far above what a loaded machine needs for one send.
const AFFECTED_NS: u64 = 1_000_000_000;

/// One client's acknowledged sends: when, on the records' clock, and the number of the node that it was connected to.
#[derive(Debug, Default)]
pub struct Served(Mutex<Vec<(u64, usize)>>);

impl Served {
    /// A send was acknowledged on a connection to this node.
    pub fn now(&self, node: usize) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.push((now(), node));
    }

    /// How many were acknowledged on connections to a node between two moments.
    pub fn through(&self, node: usize, from: u64, until: u64) -> usize {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let inside = |(t, through): &&(u64, usize)| *through == node && (from..until).contains(t);
        times.iter().filter(inside).count()
    }

    /// Whether a send was acknowledged since then.
    pub fn since(&self, from: u64) -> bool {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.last().is_some_and(|(last, _)| *last >= from)
    }

    /// The longest time without an acknowledgement that has a part between two moments: also before the first and after the last one.
    fn longest(&self, from: u64, until: u64) -> u64 {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = times.iter().map(|(t, _)| *t);
        let ends = ends.filter(|t| *t < until).chain([until]);
        let mut before = from;
        let mut longest = 0;
        for end in ends {
            if end > from {
                longest = longest.max(end - before);
            }
            before = end;
        }
        longest
    }
}

/// What clients felt of one fault, milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Without {
    /// Clients that sent.
    pub clients: usize,
    /// Clients that waited over a second for an acknowledgement.
    pub affected: usize,
    /// Of these: the longest pause of half of them is at most this.
    pub p50_ms: u64,
    /// The same for 99 in 100.
    pub p99_ms: u64,
    /// And of all.
    pub max_ms: u64,
}

/// What all clients felt between a fault and the next, or the end of sending.
pub fn without<'a>(all: impl Iterator<Item = &'a Served>, from: u64, until: u64) -> Without {
    let longest: Vec<u64> = all.map(|served| served.longest(from, until)).collect();
    let clients = longest.len();
    let mut affected: Vec<u64> = longest.into_iter().filter(|gap| *gap > AFFECTED_NS).collect();
    affected.sort_unstable();
    let rank = |percent: usize| {
        let at = (affected.len() * percent).div_ceil(100).max(1) - 1;
        affected.get(at).map_or(0, |gap| gap / 1_000_000)
    };
    Without {
        clients,
        affected: affected.len(),
        p50_ms: rank(50),
        p99_ms: rank(99),
        max_ms: rank(100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(seconds: &[u64]) -> Served {
        Served(Mutex::new(
            seconds.iter().map(|second| (second * 1_000_000_000, 0)).collect(),
        ))
    }

    #[test]
    fn a_pause_counts_from_the_last_acknowledgement_before_the_fault_also_if_no_other_follows() {
        let second = 1_000_000_000;
        let clients = [
            served(&[1, 9, 10, 17, 30]),
            served(&[1, 8, 40]),
            served(&[10, 11, 12, 13, 14, 15, 16, 17, 18, 19]),
        ];
        let felt = without(clients.iter(), 10 * second, 20 * second);
        assert_eq!((felt.clients, felt.affected), (3, 2));
        assert_eq!((felt.p50_ms, felt.p99_ms, felt.max_ms), (7_000, 12_000, 12_000));
    }

    #[test]
    fn acknowledgements_count_for_the_node_that_gave_them_and_the_time_between() {
        let one = Served(Mutex::new(vec![(5, 0), (6, 1), (7, 1), (8, 1), (9, 0)]));
        assert_eq!(
            (one.through(1, 7, 9), one.through(0, 6, 9), one.through(0, 0, 10)),
            (2, 0, 2)
        );
    }

    #[test]
    fn nobody_affected_is_no_time() {
        let clients = [served(&[1, 2, 3])];
        let second = 1_000_000_000;
        assert_eq!(without(clients.iter(), second, 3 * second).p99_ms, 0);
    }
}
