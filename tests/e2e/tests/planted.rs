//! The oracle must be able to fail: with each planted bug switched on the same kill test must go red and name the rule.

mod common;

use std::time::Duration;

use common::{folder_beside_others, seed, small};
use godwit_e2e::groups::GroupsTest;
use godwit_e2e::killtest::{KillTest, PowerLoss};

/// Runs with the bug and requires one of the rules; up to a few times, for a bug may need a kill at the right moment.
fn goes_red(bug: &str, kills: u32, power_loss: Option<PowerLoss>, rules: &[&str]) {
    let mut seen = Vec::new();
    for _ in 0..5 {
        let folder = folder_beside_others("planted");
        let test = KillTest {
            folder: folder.path(),
            seed: seed(),
            kills,
            acknowledged: 500,
            gap_ms: (300, 1_500),
            limit: Duration::from_secs(60),
            size: small(),
            power_loss,
            planted: Some(bug.to_owned()),
        };
        eprintln!("{bug}: seed {}", test.seed);
        let report = test.run().expect("the run itself works");
        let verdict = &report.outcome.verdict;
        eprintln!("{bug}: exit {}, {:?}", verdict.exit, verdict.broken);
        if verdict.exit == 1 && rules.iter().any(|rule| verdict.names(rule)) {
            return;
        }
        assert!(verdict.exit != 2, "not judged: {}", verdict.examples);
        seen.push(verdict.broken.clone());
    }
    panic!("{bug}: none of {rules:?} in five runs, but {seen:?}");
}

#[test]
fn acknowledging_before_the_commit_is_caught() {
    // A kill loses only what was not written; between the write and its sync an acknowledgement is as early.
    let rules = ["ACK", "OWED", "TOPIC_LOSS", "SEQ", "INBOX", "PHANTOM"];
    goes_red("ack-before-commit", 12, Some(PowerLoss::Drop), &rules);
}

#[test]
fn skipping_one_mailbox_is_caught() {
    goes_red("skip-mailbox", 4, None, &["OWED"]);
}

#[test]
fn forgetting_a_cursor_is_caught() {
    goes_red("forget-cursor", 4, None, &["OWED", "INBOX", "TOPIC_LOSS"]);
}

#[test]
fn reusing_a_number_is_caught() {
    goes_red("reuse-number", 4, None, &["SEQ", "ONCE", "ACK", "INBOX"]);
}

#[test]
fn committing_without_a_sync_is_caught_by_the_power_loss() {
    goes_red(
        "no-sync",
        3,
        Some(PowerLoss::Drop),
        &["ACK", "OWED", "TOPIC_LOSS"],
    );
}

#[test]
fn forgetting_what_a_member_of_a_group_is_owed_is_caught() {
    for _ in 0..5 {
        let folder = folder_beside_others("planted-groups");
        let test = GroupsTest {
            folder: folder.path(),
            seed: seed(),
            kills: 3,
            gap_ms: (300, 1_200),
            publishers: 3,
            planted: Some("forget-cursor".to_owned()),
        };
        let report = test.run().expect("the run itself works");
        eprintln!("groups: seed {}, lost {}", test.seed, report.staying.lost);
        if report.staying.lost > 0 && !report.faults.is_empty() {
            return;
        }
    }
    panic!("nothing was lost in five runs");
}
