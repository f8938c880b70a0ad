//! The protocol keeps its promises under every seed, and every planted bug is found. `godwit-ownership SEED` shows a run;
//! `godwit-ownership --many FROM COUNT` is the long form.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::sync::atomic::{AtomicU64, Ordering};

use godwit_ownership_simulation::{Bug, Kind, Outcome, form, form_after_dead_ones, run, run_in};

/// How many seeds a change is judged by.
const SEEDS: u64 = 2_000;

/// The first broken promise among `count` seeds, on all cores; `see` looks at every run.
fn search(kind: Kind, bug: Bug, count: u64, see: impl Fn(&Outcome) + Sync) -> Option<(u64, String)> {
    let next = AtomicU64::new(1);
    let found = std::sync::Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed > count || found.lock().unwrap().is_some() {
                        return;
                    }
                    let outcome = run_in(kind, seed, bug, false);
                    see(&outcome);
                    if let Some(why) = outcome.broken {
                        found.lock().unwrap().get_or_insert((seed, why));
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

fn found_within(bug: Bug, seeds: u64, promises: &[&str]) {
    found_in(Kind::Any, bug, seeds, promises);
}

fn found_in(kind: Kind, bug: Bug, seeds: u64, promises: &[&str]) {
    let (seed, why) =
        search(kind, bug, seeds, |_| {}).unwrap_or_else(|| panic!("{bug:?} was not found in {seeds} seeds"));
    println!("{bug:?}: seed {seed}: {why}");
    let by_the_right_one = promises.iter().any(|promise| why.starts_with(promise));
    assert!(
        by_the_right_one,
        "{bug:?} was expected to break one of {promises:?}, seed {seed}: {why}"
    );
}

#[test]
fn every_promise_is_kept_under_thousands_of_seeds() {
    if let Some((seed, why)) = search(Kind::Any, Bug::None, SEEDS, |_| {}) {
        panic!("seed {seed}: {why}");
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 77] {
        let (one, other) = (run(seed, Bug::None, true), run(seed, Bug::None, true));
        assert!(one.told > 0 && one.trace.len() > 50, "nothing happened");
        assert_eq!(one.trace, other.trace);
        assert_eq!(one.events, other.events);
    }
}

#[test]
fn confirming_without_reading_the_view_is_found() {
    found_within(Bug::ConfirmsUnread, 600, &["OWNER", "ACK", "SEQ", "ONCE", "TAIL"]);
}

#[test]
fn a_fence_at_the_first_append_is_found() {
    found_within(Bug::FencesAtFirstAppend, 1_500, &["OWNER", "ACK"]);
}

#[test]
fn a_fence_without_its_list_of_intervals_is_found() {
    found_within(Bug::FenceWithoutIntervals, 50, &["OWNER", "ACK", "ONCE"]);
}

#[test]
fn clearing_void_rows_is_found() {
    found_within(Bug::ClearsVoidRows, 1_500, &["ACK", "OWNER"]);
}

#[test]
fn letting_a_view_be_skipped_is_found() {
    found_within(Bug::SkipsViews, 200, &["HELD"]);
}

#[test]
fn a_view_number_used_again_after_a_restart_is_found() {
    found_within(Bug::ReusesView, 50, &["OWNER", "LEASE"]);
}

#[test]
fn forgetting_the_members_of_an_unsettled_view_is_found() {
    found_within(Bug::ForgetsUnsettled, 50, &["LEASE"]);
}

#[test]
fn a_timed_out_transaction_taken_for_a_failed_one_is_found() {
    found_within(Bug::TimedOutIsFailed, 50, &["FACT"]);
}

#[test]
fn offers_to_todays_members_are_found() {
    found_within(Bug::OffersToTodaysMembers, 50, &["ACK", "SCOPE"]);
}

#[test]
fn a_mailbox_without_marks_is_found() {
    found_within(Bug::NoMarks, 50, &["ONCE", "ORDER"]);
}

#[test]
fn a_floor_before_its_snapshot_is_confirmed_is_found() {
    found_within(Bug::FloorBeforeSnapshot, 300, &["ACK", "OWNER"]);
}

#[test]
fn who_was_stopped_for_three_leases_begins_no_write_that_is_confirmed() {
    let (late, told) = (AtomicU64::new(0), AtomicU64::new(0));
    let broken = search(Kind::Stops, Bug::None, 60, |outcome| {
        late.fetch_add(outcome.late, Ordering::SeqCst);
        told.fetch_add(outcome.told, Ordering::SeqCst);
    });
    if let Some((seed, why)) = broken {
        panic!("seed {seed}: {why}");
    }
    let (late, told) = (late.into_inner(), told.into_inner());
    println!("{late} writes begun after a lease, none confirmed, {told} told");
    assert!(late > 20 && told > 10_000, "nothing happened: {late}, {told}");
    found_in(Kind::Stops, Bug::ConfirmsUnread, 20, &["LATE", "OWNER"]);
}

#[test]
fn a_row_of_a_start_that_is_hidden_is_found() {
    found_in(Kind::Sleeper, Bug::HidesRows, 150, &["LEASE"]);
    if let Some((seed, why)) = search(Kind::Sleeper, Bug::None, 30, |_| {}) {
        panic!("seed {seed}: {why}");
    }
}

#[test]
fn fifty_nodes_form_a_view_at_once_and_one_by_one() {
    for (apart_ms, seeds, changes) in [(0, 3, 12), (100, 2, 60), (2_000, 1, 120)] {
        for seed in 1..=seeds {
            let formed = form(seed, 50, apart_ms)
                .unwrap_or_else(|| panic!("seed {seed}, {apart_ms} ms apart: no view within a minute"));
            println!("50 nodes, {apart_ms} ms apart, seed {seed}: {formed:?}");
            assert!(formed.settled_ms <= 10_000, "{formed:?}");
            assert!(formed.changes <= changes && formed.attempts <= 150, "{formed:?}");
        }
    }
}

#[test]
fn a_view_that_is_full_of_dead_starts_takes_in_who_lives_for_long_enough_to_see_it() {
    for seed in 1..=20 {
        let formed =
            form_after_dead_ones(seed).unwrap_or_else(|| panic!("seed {seed}: no view within a minute"));
        assert!(
            (4_000..=10_000).contains(&formed.settled_ms),
            "seed {seed}: {formed:?}"
        );
    }
}
