//! Offline users cost no memory, in a short form: some hundred users and short rests, with a slack that small numbers need.
//! The long form is `godwit-memtest`.

mod common;

use std::time::Duration;

use common::folder;
use godwit_e2e::memory::MemoryTest;

/// What the short form allows beside the 5 %: caches warm up, and small numbers show every page.
const SLACK: u64 = 24 << 20;

#[test]
fn users_that_went_offline_leave_no_memory_behind_and_get_what_they_are_owed_in_order() {
    let folder = folder("memory");
    let test = MemoryTest {
        folder: folder.path(),
        users: 200,
        messages: 100,
        rest: Duration::from_secs(8),
        caches: SLACK,
    };
    let report = match test.run() {
        Ok(report) => report,
        Err(error) => panic!("kept {}: {error:#}", folder.keep()),
    };
    eprintln!("{}", serde_json::to_string(&report).unwrap());
    if !report.faults.is_empty() {
        panic!("kept {}:\n{}", folder.keep(), report.faults.join("\n"));
    }
}
