//! Groups of shared subscriptions and kill -9, in a short form. `GODWIT_GROUPS_LONG=1` is the long one; `GODWIT_SEED` repeats
//! a run.

mod common;

use common::{folder, seed};
use godwit_e2e::groups::GroupsTest;

#[test]
fn every_acknowledged_publish_reaches_a_member_of_each_group_though_members_come_and_go_and_the_server_is_killed()
 {
    let long = std::env::var_os("GODWIT_GROUPS_LONG").is_some();
    let folder = folder("groups");
    let test = GroupsTest {
        folder: folder.path(),
        seed: seed(),
        kills: if long { 40 } else { 3 },
        gap_ms: if long { (200, 4_000) } else { (300, 1_200) },
        publishers: 3,
        planted: None,
    };
    eprintln!("groups: seed {}", test.seed);
    let report = match test.run() {
        Ok(report) => report,
        Err(error) => panic!("seed {}, kept {}: {error:#}", test.seed, folder.keep()),
    };
    eprintln!("{}", serde_json::to_string(&report).unwrap_or_default());
    if !report.faults.is_empty() {
        let (seed, kept) = (test.seed, folder.keep());
        panic!("seed {seed}, kept {kept}:\n{}", report.faults.join("\n"));
    }
    let going = report.sessions_ended + report.unsubscribed > 0;
    assert!(report.acknowledged > 300 && going, "too little happened");
}
