//! Whether a node of a cluster is to be sent clients, and if not why, in one line: what `/readyz` says beside what it says of any node.

use std::sync::atomic::{AtomicU8, Ordering};

use godwit_cluster::own::{LEASE_MS, Millis};

const OUTSIDE: u8 = 0;
const MEMBER: u8 = 1;
const SETTLED: u8 = 2;

/// How far the present start has come. Views that are unsettled later do not set it back: then others come and go, and this node serves.
#[derive(Debug, Default)]
pub(super) struct Ready(AtomicU8);

impl Ready {
    /// Another start of the node: in no view yet.
    pub(super) fn begins(&self) {
        self.0.store(OUTSIDE, Ordering::SeqCst);
    }

    /// It stands in a view before which so many are unsettled. Said by one thread, as [`Ready::begins`] is.
    pub(super) fn stands(&self, unsettled: usize) {
        let now = if unsettled == 0 { SETTLED } else { MEMBER };
        self.0.fetch_max(now, Ordering::SeqCst);
    }

    /// `silence`: how long ago its last stored heartbeat began; `None`: it has none that counts.
    pub(super) fn why_not(&self, drains: bool, silence: Option<Millis>) -> Option<String> {
        if drains {
            return Some("draining: this node gives its shards up".to_owned());
        }
        let come = self.0.load(Ordering::SeqCst);
        match silence {
            _ if come == OUTSIDE => Some("no view yet".to_owned()),
            None => Some("no view: this node joins again as a new start".to_owned()),
            Some(silence) if silence >= LEASE_MS => {
                let seconds = silence / 1_000;
                Some(format!("no lease: the store was not reached for {seconds} s"))
            }
            Some(_) if come == MEMBER => {
                Some("the view is not settled yet: shards are waited for".to_owned())
            }
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_from_its_first_settled_view_while_its_lease_lasts_and_it_does_not_drain() {
        let ready = Ready::default();
        let why = |silence| ready.why_not(false, silence).unwrap_or_default();
        assert_eq!(why(None), "no view yet");
        assert_eq!(why(Some(100)), "no view yet");
        ready.stands(2);
        assert!(why(Some(100)).contains("not settled"));
        ready.stands(0);
        assert_eq!(ready.why_not(false, Some(LEASE_MS - 1)), None);
        assert_eq!(why(Some(7_900)), "no lease: the store was not reached for 7 s");
        assert!(ready.why_not(true, Some(100)).unwrap().starts_with("draining"));
        // Another node joins: this one goes on.
        ready.stands(1);
        assert_eq!(ready.why_not(false, Some(100)), None);
    }

    #[test]
    fn a_start_that_the_others_took_for_dead_is_not_ready_until_the_next_one_stands_in_a_settled_view() {
        let ready = Ready::default();
        ready.stands(0);
        assert!(ready.why_not(false, None).unwrap().starts_with("no view"));
        ready.begins();
        assert_eq!(ready.why_not(false, Some(0)).unwrap(), "no view yet");
        ready.stands(0);
        assert_eq!(ready.why_not(false, Some(0)), None);
    }
}
