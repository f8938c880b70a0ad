//! A failing disk under the embedded engine: nothing acknowledged is lost, nothing is said too early, and it goes on by itself.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use common::disk::{Call, Disk};
use common::{fill, killed, seqs};
use godwit_store::blocking::Client;
use godwit_store::embedded::{Embedded, Options};
use godwit_store::testsuite::{Port, append, rows, submit, tables};
use godwit_store::{Batch, Completion, Health, Op, Outcome, Scope, Store, Submission};
use tempfile::TempDir;

fn open(dir: &Path, disk: &Arc<Disk>, segment_bytes: u64) -> Arc<dyn Store> {
    let options = Options {
        segment_bytes,
        faults: disk.clone(),
        ..Options::default()
    };
    Arc::new(Embedded::open(dir, options).expect("opened"))
}

fn segment(dir: &Path, n: u64) -> PathBuf {
    dir.join("journal").join(format!("{n:020}.seg"))
}

/// Waits until the tree has all that is sealed.
fn settled(dir: &Path) {
    let begun = Instant::now();
    while std::fs::read_dir(dir.join("journal")).expect("listed").count() > 1 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(50));
}

/// What the head of a segment says about where the one before it ends.
fn end_of_the_one_before(dir: &Path, n: u64) -> usize {
    let data = std::fs::read(segment(dir, n)).expect("read");
    u64::from_le_bytes(data[32..40].try_into().expect("8")) as usize
}

#[test]
fn after_a_failed_write_or_sync_the_same_file_is_never_used_again_and_nothing_is_lost() {
    for (call, errno) in [
        (Call::Write, 5),
        (Call::Write, 28),
        (Call::Sync, 5),
        (Call::Sync, 28),
    ] {
        let (dir, disk) = (TempDir::new().expect("folder"), Arc::new(Disk::default()));
        let store = open(dir.path(), &disk, 64 << 20);
        fill(&store, 1, 5);
        disk.calls.lock().expect("lock").clear();
        disk.fail_next(call, errno);
        fill(&store, 6, 10);
        let calls = disk.calls.lock().expect("lock").clone();
        let failed = calls.iter().position(|(_, ok)| !ok).expect("it failed");
        assert_eq!(
            calls[failed + 1],
            (Call::Create, true),
            "{call:?} {errno}: {calls:?}"
        );
        assert_eq!(seqs(&store), (1..=10).collect::<Vec<_>>());
        assert_eq!((store.stats().reopened, store.health()), (1, Health::Serving));
        settled(dir.path());
        let copy = killed(dir.path());
        let again = open(copy.path(), &Arc::default(), 64 << 20);
        assert_eq!(seqs(&again), (1..=10).collect::<Vec<_>>(), "{call:?} {errno}");
    }
}

#[test]
fn what_a_failed_sync_has_left_may_vanish_later_without_harm() {
    let (dir, disk) = (TempDir::new().expect("folder"), Arc::new(Disk::default()));
    disk.tree_broken.store(true, SeqCst);
    let store = open(dir.path(), &disk, 64 << 20);
    fill(&store, 1, 5);
    disk.fail_next(Call::Sync, 5);
    fill(&store, 6, 6);
    let copy = killed(dir.path());
    let (first, end) = (segment(copy.path(), 1), end_of_the_one_before(copy.path(), 2));
    let mut data = std::fs::read(&first).expect("read");
    assert!(
        data[end..].iter().any(|b| *b != 0),
        "the record whose sync failed is in the file"
    );
    data[end..].fill(0);
    std::fs::write(&first, &data).expect("written");
    assert_eq!(seqs(&open(copy.path(), &Arc::default(), 64 << 20)).len(), 6);
}

#[test]
fn the_last_record_of_a_killed_process_is_written_again_before_it_counts() {
    let (dir, disk) = (TempDir::new().expect("folder"), Arc::new(Disk::default()));
    disk.tree_broken.store(true, SeqCst);
    let store = open(dir.path(), &disk, 64 << 20);
    fill(&store, 1, 5);
    // The process dies after the write and before the sync; the next one finds the record in the page cache.
    let copy = killed(dir.path());
    let second = open(copy.path(), &disk, 64 << 20);
    assert_eq!(seqs(&second).len(), 5);
    let copy = killed(copy.path());
    // Then the power goes: the unsynced page of the first segment was never on the disk.
    let (first, end) = (segment(copy.path(), 1), end_of_the_one_before(copy.path(), 2));
    let mut data = std::fs::read(&first).expect("read");
    data[end..].fill(0);
    std::fs::write(&first, &data).expect("written");
    assert_eq!(seqs(&open(copy.path(), &disk, 64 << 20)).len(), 5);
}

#[test]
fn while_the_disk_is_broken_nothing_is_confirmed_and_afterwards_everything_is() {
    let (dir, disk) = (TempDir::new().expect("folder"), Arc::new(Disk::default()));
    let store = open(dir.path(), &disk, 64 << 20);
    fill(&store, 1, 3);
    let done = Port::register(&*store, 2);
    disk.broken.store(true, SeqCst);
    for seq in 4..=50u64 {
        submit(
            &*store,
            Batch {
                port: 2,
                ticket: seq,
                scope: Scope::default(),
                ops: vec![append(1, seq, "x")],
            },
        );
    }
    assert!(
        done.recv_timeout(Duration::from_millis(700)).is_err(),
        "nothing is said while it is broken"
    );
    assert_eq!(store.health(), Health::Failing);
    assert_eq!(seqs(&store), vec![1, 2, 3], "nor shown");
    let killed_meanwhile = killed(dir.path());
    disk.broken.store(false, SeqCst);
    let back = Instant::now();
    for seq in 4..=50u64 {
        let completion = done.recv_timeout(Duration::from_secs(10)).expect("completed");
        assert!(
            matches!(completion, Completion::Written { ticket, outcome: Outcome::Stored } if ticket == seq)
        );
    }
    assert!(back.elapsed() < Duration::from_secs(5));
    assert_eq!((store.health(), seqs(&store).len()), (Health::Serving, 50));
    let again = open(killed_meanwhile.path(), &Arc::default(), 64 << 20);
    assert!(seqs(&again).len() >= 3);
}

#[test]
fn closing_while_the_disk_is_broken_says_unknown() {
    let (dir, disk) = (TempDir::new().expect("folder"), Arc::new(Disk::default()));
    let store = open(dir.path(), &disk, 64 << 20);
    let done = Port::register(&*store, 2);
    disk.broken.store(true, SeqCst);
    submit(
        &*store,
        Batch {
            port: 2,
            ticket: 1,
            scope: Scope::default(),
            ops: vec![append(1, 1, "x")],
        },
    );
    std::thread::sleep(Duration::from_millis(100));
    store.close().expect("closed");
    let completion = done.recv_timeout(Duration::from_secs(5)).expect("completed");
    assert!(
        matches!(
            completion,
            Completion::Written {
                outcome: Outcome::Unknown,
                ..
            }
        ),
        "{completion:?}"
    );
}

#[test]
fn when_one_batch_is_unknown_at_closing_none_behind_it_is_written() {
    let (dir, disk) = (TempDir::new().expect("folder"), Arc::new(Disk::default()));
    let store = open(dir.path(), &disk, 64 << 20);
    let done = Port::register(&*store, 2);
    let send = |seq: u64| {
        let ops = vec![append(1, seq, "x")];
        let (port, ticket) = (2, seq);
        submit(
            &*store,
            Batch {
                port,
                ticket,
                scope: Scope::default(),
                ops,
            },
        );
    };
    // One write fails and no segment can be made; a write to the old file would succeed.
    (0..1000).for_each(|_| disk.fail_next(Call::Create, 28));
    disk.fail_next(Call::Write, 5);
    send(1);
    std::thread::sleep(Duration::from_millis(100));
    send(2);
    store.close().expect("closed");
    for seq in 1..=2u64 {
        let completion = done.recv_timeout(Duration::from_secs(5)).expect("completed");
        assert!(
            matches!(completion, Completion::Written { ticket, outcome: Outcome::Unknown } if ticket == seq),
            "{completion:?}"
        );
    }
    let calls = disk.calls.lock().expect("lock").clone();
    let failed = calls
        .iter()
        .position(|c| *c == (Call::Write, false))
        .expect("failed");
    assert!(
        calls[failed + 1..].iter().all(|(c, _)| *c != Call::Write),
        "{calls:?}"
    );
}

fn claim(value: &'static str) -> Op {
    Op::Claim {
        table: tables::FACTS,
        key: "name".into(),
        value: value.into(),
    }
}

#[test]
fn a_claim_whose_look_up_fails_waits_until_it_can_be_decided() {
    let (dir, disk) = (TempDir::new().expect("folder"), Arc::new(Disk::default()));
    let store = open(dir.path(), &disk, 64 << 20);
    (0..3).for_each(|_| disk.fail_next(Call::LookUp, 5));
    let client = Client::new(store.clone(), 2);
    assert_eq!(client.write(vec![claim("a")]).expect("answered"), Outcome::Stored);
    disk.fail_next(Call::LookUp, 5);
    let taken = client
        .write(vec![append(1, 1, "x"), claim("b")])
        .expect("answered");
    assert_eq!(taken, Outcome::Taken("a".into()));
    assert_eq!(store.health(), Health::Serving);
}

#[test]
fn a_claim_that_cannot_be_decided_at_closing_is_unknown_and_so_is_what_follows() {
    let (dir, disk) = (TempDir::new().expect("folder"), Arc::new(Disk::default()));
    let store = open(dir.path(), &disk, 64 << 20);
    let done = Port::register(&*store, 2);
    (0..1000).for_each(|_| disk.fail_next(Call::LookUp, 5));
    for (ticket, ops) in [
        (1, vec![append(1, 1, "x")]),
        (2, vec![claim("a")]),
        (3, vec![append(1, 2, "x")]),
    ] {
        submit(
            &*store,
            Batch {
                port: 2,
                ticket,
                scope: Scope::default(),
                ops,
            },
        );
    }
    let next = |time| match done.recv_timeout(time) {
        Ok(Completion::Written { ticket, outcome }) => Some((ticket, outcome)),
        _ => None,
    };
    let long = Duration::from_secs(5);
    assert_eq!(
        next(long),
        Some((1, Outcome::Stored)),
        "what came before does not wait"
    );
    assert_eq!(next(Duration::from_millis(300)), None);
    assert_eq!(store.health(), Health::Failing);
    store.close().expect("closed");
    assert_eq!(next(long), Some((2, Outcome::Unknown)));
    assert_eq!(next(long), Some((3, Outcome::Unknown)));
}

#[test]
fn an_idle_engine_serves_again_after_a_failed_merge() {
    let (dir, disk) = (TempDir::new().expect("folder"), Arc::new(Disk::default()));
    let store = open(dir.path(), &disk, 64 << 20);
    let waits_for = |health| {
        let begun = Instant::now();
        while store.health() != health {
            assert!(begun.elapsed() < Duration::from_secs(10), "never {health:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    disk.fail_next(Call::Merge, 5);
    waits_for(Health::Failing);
    waits_for(Health::Serving);
}

#[test]
fn a_tree_that_cannot_be_written_holds_writers_back_and_loses_nothing() {
    let (dir, disk) = (TempDir::new().expect("folder"), Arc::new(Disk::default()));
    let store = open(dir.path(), &disk, 1 << 20);
    let done = Port::register(&*store, 2);
    disk.tree_broken.store(true, SeqCst);
    let (row, mut taken, begun) = ("x".repeat(20_000), 0u64, Instant::now());
    let mut busy = 0;
    while busy < 20 && begun.elapsed() < Duration::from_secs(20) {
        match store.submit(Batch {
            port: 2,
            ticket: taken + 1,
            scope: Scope::default(),
            ops: vec![append(1, taken + 1, &row)],
        }) {
            Submission::Taken => taken += 1,
            Submission::Busy(_) => {
                busy += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    assert_eq!(busy, 20, "what waits is bounded");
    assert_eq!(store.health(), Health::Failing);
    // Three sealed and one open segment of 1 MiB, and at most a group of 4 MiB with each.
    assert!(
        store.stats().overlay_bytes < 20 << 20,
        "{}",
        store.stats().overlay_bytes
    );
    disk.tree_broken.store(false, SeqCst);
    for _ in 0..taken {
        let completion = done.recv_timeout(Duration::from_secs(20)).expect("completed");
        assert!(matches!(
            completion,
            Completion::Written {
                outcome: Outcome::Stored,
                ..
            }
        ));
    }
    assert_eq!(seqs(&store).len() as u64, taken);
    store.close().expect("closed");
    assert_eq!(store.health(), Health::Serving);
}

#[test]
fn at_random_faults_each_batch_is_completed_once_in_order_and_is_there_after_a_kill() {
    const PORTS: u64 = 3;
    const EACH: u64 = 1_500;
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |d| d.as_nanos() as u64);
    println!("seed {seed}");
    let (dir, disk) = (TempDir::new().expect("folder"), Arc::new(Disk::default()));
    let store = open(dir.path(), &disk, 256 << 10);
    disk.dice.store(seed, SeqCst);
    disk.chance.store(20, SeqCst);
    std::thread::scope(|scope| {
        for port in 1..=PORTS {
            let store = store.clone();
            scope.spawn(move || {
                let done = Port::register(&*store, port as u16);
                let (mut sent, mut got) = (0, BTreeSet::new());
                while (got.len() as u64) < EACH {
                    while sent < EACH && sent - (got.len() as u64) < 20 {
                        sent += 1;
                        let ops = vec![append(
                            u128::from(port),
                            sent,
                            &format!("{port} {sent} {}", "y".repeat(300)),
                        )];
                        submit(
                            &*store,
                            Batch {
                                port: port as u16,
                                ticket: sent,
                                scope: Scope::default(),
                                ops,
                            },
                        );
                    }
                    let Completion::Written { ticket, outcome } =
                        done.recv_timeout(Duration::from_secs(30)).expect("completed")
                    else {
                        panic!("a read")
                    };
                    assert_eq!(
                        (ticket, outcome),
                        (got.len() as u64 + 1, Outcome::Stored),
                        "in order, once"
                    );
                    got.insert(ticket);
                }
            });
        }
    });
    assert!(store.stats().reopened > 0, "something went wrong at all");
    let check = |store: &Arc<dyn Store>| {
        for port in 1..=PORTS {
            let found = rows(&**store, u128::from(port), 0).expect("read");
            assert_eq!(
                found.iter().map(|r| r.seq).collect::<Vec<_>>(),
                (1..=EACH).collect::<Vec<_>>()
            );
            assert!(
                found
                    .iter()
                    .all(|r| r.row.starts_with(format!("{port} {} ", r.seq).as_bytes()))
            );
        }
    };
    check(&store);
    disk.chance.store(0, SeqCst);
    drop(store);
    check(&open(killed(dir.path()).path(), &Arc::default(), 256 << 10));
}
