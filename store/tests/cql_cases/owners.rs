//! Owners that follow each other on one log, over two engines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use godwit_store::coordination::{Changed, Coordination, StoredView};
use godwit_store::cql::fence::{BUCKET, LONG_FENCE};
use godwit_store::cql::{Cql, schema};
use godwit_store::testsuite::{Port, log, submit, tables};
use godwit_store::{
    Batch, Completion, Op, Outcome, Ownership, Read, Scope, Store, StoreError, Verdict, View,
};
use uuid::Uuid;

use super::super::cql_common::{LostBelow, PATIENCE, TABLES, always, bytes, engine, fresh, options_of, wait};
use super::{append, contents, head, scope, take_up, under};

#[test]
fn a_replaced_owner_is_told_so_and_what_it_still_writes_is_void() {
    let (n, lost) = (fresh(), Arc::new(LostBelow::default()));
    let (a, b) = (engine(lost.clone()), engine(always()));
    let former = under(&a, 1);
    take_up(&former, n, 1);
    let two = vec![append(n, 1, 1, "one"), append(n, 1, 2, "two")];
    assert_eq!(former.write(two).expect("answered"), Outcome::Stored);
    // A write of the first owner that nobody has confirmed is on its way while the second one takes over.
    assert_eq!(
        under(&b, 2)
            .write(vec![append(n, 1, 4, "never confirmed")])
            .expect("answered"),
        Outcome::Stored
    );
    let owner = under(&b, 2);
    assert_eq!(take_up(&owner, n, 2).1, ["one", "two"]);
    lost.set(2);
    assert_eq!(
        former.write(vec![append(n, 1, 3, "late")]).expect("answered"),
        Outcome::Lost
    );
    assert_eq!(
        former.write(vec![]).expect("answered"),
        Outcome::Lost,
        "an empty batch asks only that"
    );
    let asked = Read::TakeUp {
        log: log(n),
        scope: scope(1),
    };
    assert!(matches!(former.read(asked), Err(StoreError::Lost)));
    // The same from an engine that does not know yet: it lands, and is never read.
    assert_eq!(
        under(&b, 1)
            .write(vec![append(n, 1, 3, "late")])
            .expect("answered"),
        Outcome::Stored
    );
    assert_eq!(contents(&b, n), ["one", "two"]);
    assert_eq!(
        owner.write(vec![append(n, 2, 3, "three")]).expect("answered"),
        Outcome::Stored
    );
    assert_eq!(contents(&a, n), ["one", "two", "three"]);
    let third = under(&b, 3);
    assert_eq!(take_up(&third, n, 3).1, ["one", "two", "three"]);
    assert_eq!(take_up(&third, n, 3).1, ["one", "two", "three"], "and once more");
    let asked = Read::TakeUp {
        log: log(n),
        scope: scope(2),
    };
    assert!(
        matches!(owner.read(asked), Err(StoreError::Lost)),
        "by the fence alone"
    );
}

#[test]
fn a_log_of_many_owners_keeps_its_rows_when_its_fence_is_cut() {
    let (n, store) = (fresh(), engine(always()));
    let owners = LONG_FENCE as u64 + 3;
    let each = 2 * BUCKET / owners + 1;
    let mut want = Vec::new();
    for view in 1..=owners {
        let client = under(&store, view);
        let (found, _) = take_up(&client, n, view);
        assert_eq!(found.confirmed, want.len() as u64);
        let first = want.len() as u64 + 1;
        let ops = (first..first + each).map(|seq| append(n, view, seq, &format!("{seq} of {view}")));
        assert_eq!(client.write(ops.collect()).expect("answered"), Outcome::Stored);
        want.extend((first..first + each).map(|seq| format!("{seq} of {view}")));
        let late = append(n, view.saturating_sub(1), want.len() as u64, "late");
        assert_eq!(
            client
                .write(vec![late, head(n, want.len() as u64, 0)])
                .expect("answered"),
            Outcome::Stored
        );
    }
    let last = under(&store, owners + 1);
    assert_eq!(take_up(&last, n, owners + 1).1, Vec::<String>::new());
    assert_eq!(contents(&store, n), want);
    // The fence is cut behind the answer; whoever reads in between reads the same.
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(contents(&store, n), want);
    assert_eq!(
        take_up(&under(&store, owners + 2), n, owners + 2).0.confirmed,
        want.len() as u64
    );
    assert_eq!(contents(&store, n), want);
}

#[test]
fn a_completion_waits_until_its_owner_knows_the_view_and_order_is_kept() {
    #[derive(Default)]
    struct Knows(std::sync::atomic::AtomicBool);
    impl godwit_store::Ownership for Knows {
        fn verdict(&self, scope: Scope, _shown: u64) -> godwit_store::Verdict {
            match (scope.shard, self.0.load(std::sync::atomic::Ordering::SeqCst)) {
                (7, false) => godwit_store::Verdict::Later,
                _ => godwit_store::Verdict::Held,
            }
        }
    }
    let (n, knows) = (fresh(), Arc::new(Knows::default()));
    let store = engine(knows.clone());
    let done = godwit_store::testsuite::Port::register(&*store, 1);
    let batch = |ticket, shard| godwit_store::Batch {
        port: 1,
        ticket,
        scope: Scope { shard, view: 1 },
        ops: vec![append(n + u128::from(shard), 1, ticket, "row")],
    };
    for ticket in 1..=20 {
        godwit_store::testsuite::submit(&*store, batch(ticket, 7));
    }
    godwit_store::testsuite::submit(&*store, batch(1, 8));
    let next = || match done.recv_timeout(PATIENCE).expect("completed") {
        godwit_store::Completion::Written { ticket, outcome } => (ticket, outcome),
        other => panic!("{other:?}"),
    };
    assert_eq!(next(), (1, Outcome::Stored), "another shard does not wait");
    assert_eq!(contents(&store, n + 7).len(), 20, "they are written");
    assert!(done.try_recv().is_err(), "and nobody is told");
    knows.0.store(true, std::sync::atomic::Ordering::SeqCst);
    for ticket in 1..=20 {
        assert_eq!(next(), (ticket, Outcome::Stored));
    }
}

#[test]
fn nobody_is_told_anything_when_the_lease_ended_while_the_view_was_read() {
    /// Whether it lasts.
    #[derive(Default)]
    struct Lease(std::sync::atomic::AtomicBool);
    impl Ownership for Lease {
        fn verdict(&self, _scope: Scope, _shown: View) -> Verdict {
            Verdict::Held
        }
        fn acts(&self) -> bool {
            self.0.load(std::sync::atomic::Ordering::SeqCst)
        }
    }
    let (n, lease) = (fresh(), Arc::new(Lease::default()));
    let store = engine(lease.clone());
    let done = Port::register(&*store, 1);
    let batch = Batch {
        port: 1,
        ticket: 1,
        scope: scope(1),
        ops: vec![append(n, 1, 1, "row")],
    };
    submit(&*store, batch);
    store.read(
        1,
        2,
        vec![Read::TakeUp {
            log: log(n + 1),
            scope: scope(1),
        }],
    );
    assert_eq!(contents_soon(&store, n), ["row"], "it is written");
    assert!(
        done.recv_timeout(std::time::Duration::from_millis(300)).is_err(),
        "and nobody is told"
    );
    lease.0.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut told: Vec<bool> = (0..2)
        .map(|_| match done.recv_timeout(PATIENCE).expect("completed") {
            Completion::Written { outcome, .. } => outcome == Outcome::Stored,
            Completion::Read { answers, .. } => answers.is_ok(),
        })
        .collect();
    told.dedup();
    assert_eq!(told, [true]);
}

/// As soon as there are any.
fn contents_soon(store: &Arc<Cql>, n: u128) -> Vec<String> {
    let begun = std::time::Instant::now();
    loop {
        let found = contents(store, n);
        if !found.is_empty() || begun.elapsed() > PATIENCE {
            return found;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// The shard changes hands with every view.
struct Turns;

impl Ownership for Turns {
    fn verdict(&self, scope: Scope, shown: View) -> Verdict {
        match shown.cmp(&scope.view) {
            std::cmp::Ordering::Less => Verdict::Later,
            std::cmp::Ordering::Equal => Verdict::Held,
            std::cmp::Ordering::Greater => Verdict::Lost,
        }
    }
}

#[test]
fn whatever_an_owner_was_told_is_stored_is_found_by_the_next_one_who_takes_over_in_the_middle() {
    const OWNERS: u64 = 12;
    const EACH: u64 = 150;
    let options = options_of("turns");
    schema::create(&options, &TABLES).expect("made");
    let engines: Vec<Arc<Cql>> = (0..2)
        .map(|_| Arc::new(Cql::open(&options, &TABLES, Arc::new(Turns)).expect("opened")))
        .collect();
    let coordination = engines[0].coordination();
    let (n, mut seen) = (fresh(), None);
    let mut dice = n as u64;
    eprintln!("seed {dice}");
    // What was told, by position.
    let mut told: BTreeMap<u64, String> = BTreeMap::new();
    let mut former: Option<(Receiver<Completion>, u64)> = None;
    for view in 1..=OWNERS {
        let new = StoredView {
            number: view,
            nonce: Uuid::new_v4(),
            body: bytes(""),
        };
        assert_eq!(
            wait(coordination.change_view(seen, new.clone())),
            Changed::Applied
        );
        seen = Some(new.nonce);
        let store = &engines[view as usize % 2];
        let (_, found) = take_up(&under(store, view), n, view);
        let send = |store: &Arc<Cql>, view: View, seq| {
            let batch = Batch {
                port: 1_000 + view as u16,
                ticket: seq,
                scope: scope(view),
                ops: vec![append(n, view, seq, &format!("{seq} of {view}"))],
            };
            submit(&**store, batch);
        };
        if let Some((done, mut left)) = former.take() {
            let last = view - 1;
            // It goes on, as one that does not know yet.
            let first_late = 1_000_000;
            (first_late..first_late + 20).for_each(|seq| send(&engines[last as usize % 2], last, seq));
            left += 20;
            for _ in 0..left {
                match done.recv_timeout(PATIENCE).expect("completed") {
                    Completion::Written {
                        ticket,
                        outcome: Outcome::Stored,
                    } => {
                        assert!(ticket < first_late, "submitted after the view had changed");
                        told.insert(ticket, format!("{ticket} of {last}"));
                    }
                    Completion::Written {
                        outcome: Outcome::Lost,
                        ..
                    } => {}
                    other => panic!("{other:?}"),
                }
            }
            for (seq, row) in &told {
                assert_eq!(found.get(*seq as usize - 1), Some(row), "view {view}");
            }
        }
        let done = Port::register(&**store, 1_000 + view as u16);
        let first = found.len() as u64 + 1;
        (first..first + EACH).for_each(|seq| send(store, view, seq));
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let stop = (dice >> 33) % EACH;
        for _ in 0..stop {
            match done.recv_timeout(PATIENCE).expect("completed") {
                Completion::Written {
                    ticket,
                    outcome: Outcome::Stored,
                } => drop(told.insert(ticket, format!("{ticket} of {view}"))),
                other => panic!("{other:?}"),
            }
        }
        former = Some((done, EACH - stop));
    }
    let all = contents(&engines[0], n);
    assert!(told.len() > EACH as usize && told.iter().all(|(seq, row)| all[*seq as usize - 1] == *row));
}

/// Dropped, it ends who writes under the view in it.
struct Ends<'a>(&'a std::sync::atomic::AtomicU64);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(0, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn what_a_former_owner_writes_together_is_taken_over_together_or_not_at_all() {
    taken_over_together(1_500, 1, 1, 60);
}

/// One page of rows, which takes several statements to read.
#[test]
fn what_a_former_owner_writes_together_is_taken_over_together_also_from_few_large_rows() {
    taken_over_together(300, 8_000, 20, 600);
}

/// A former owner writes the first and the last row in one batch, so often in a row and then not for a while (milliseconds); so many rows of so
/// many bytes are between.
fn taken_over_together(rows: usize, bytes_each: usize, burst: usize, pause: u64) {
    let (a, b) = (engine(always()), engine(always()));
    let partition = bytes(&fresh().to_string());
    let put = |view, name: &str, value: &str| Op::Put {
        table: tables::OWNED,
        partition: partition.clone(),
        name: bytes(name),
        view,
        value: Some(bytes(value)),
    };
    let take_up = |view| Read::TakeUpRows {
        table: tables::OWNED,
        partition: partition.clone(),
        scope: scope(view),
    };
    under(&a, 1).read(take_up(1)).expect("taken up");
    let value = "v".repeat(bytes_each);
    let between = (0..rows).map(|i| put(1, &format!("1 {i:04}"), &value));
    assert_eq!(
        under(&a, 1).write(between.collect()).expect("answered"),
        Outcome::Stored
    );
    // The former owner's view; 0 ends it.
    let former = std::sync::atomic::AtomicU64::new(1);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for count in 0.. {
                let view = former.load(relaxed);
                if view == 0 {
                    return;
                }
                let both = vec![
                    put(view, "0", &count.to_string()),
                    put(view, "2", &count.to_string()),
                ];
                if count % burst == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(pause));
                }
                assert_eq!(under(&a, 100).write(both).expect("answered"), Outcome::Stored);
            }
        });
        // Also when this fails.
        let _ends = Ends(&former);
        let mut taken_up = 0;
        for view in 2..12 {
            let taken = under(&b, view).read(take_up(view));
            let of = |name| Read::Row {
                table: tables::OWNED,
                partition: partition.clone(),
                name: bytes(name),
            };
            let found: Vec<_> = ["0", "2"]
                .map(|name| under(&b, view).read(of(name)).expect("read"))
                .into();
            // A former owner that never rests may keep the next one waiting; it is told so.
            match taken {
                Ok(_) => {
                    taken_up += 1;
                    assert_eq!(found[0], found[1]);
                }
                Err(e) => assert!(e.retryable(), "{e}"),
            }
            former.store(view, relaxed);
        }
        assert!(taken_up > 1, "of ten");
    });
}
