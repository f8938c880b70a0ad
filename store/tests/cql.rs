//! The CQL engine on a real Cassandra: the conformance suite, and what it promises beyond it: owners that follow each other, ends, buckets,
//! coordination rows. What happens when the server stops or dies is in `cql_faults.rs`.

#[path = "cql_common/apart.rs"]
mod apart;
mod cql_common;

use std::sync::Arc;

use apart::Apart;
use cql_common::{LostBelow, TABLES, always, bytes, engine, fresh, options, options_of, store, wait};
use godwit_store::blocking::Client;
use godwit_store::coordination::{Changed, Coordination, StartRow, StoredView};
use godwit_store::cql::fence::{BUCKET, LONG_FENCE};
use godwit_store::cql::{Cql, schema};
use godwit_store::testsuite::{log, rows, tables};
use godwit_store::{Head, Op, Outcome, Read, ReadAnswer, Scope, Store, StoreError};
use uuid::Uuid;

fn make() -> (Arc<dyn Store>, ()) {
    (Arc::new(Apart::new(store())), ())
}

godwit_store::conformance!(cql, super::make);

fn scope(view: u64) -> Scope {
    Scope { shard: 7, view }
}

fn append(n: u128, view: u64, seq: u64, row: &str) -> Op {
    let (log, row) = (log(n), bytes(row));
    Op::Append { log, view, seq, row }
}

fn head(n: u128, confirmed: u64, floor: u64) -> Op {
    let (log, head) = (log(n), Head { confirmed, floor });
    Op::Head { log, head }
}

fn under(store: &Arc<Cql>, view: u64) -> Client {
    Client::new(store.clone(), view as u16).under(scope(view))
}

fn take_up(client: &Client, n: u128, view: u64) -> (Head, Vec<String>) {
    let (log, scope) = (log(n), scope(view));
    match client.read(Read::TakeUp { log, scope }).expect("taken up") {
        ReadAnswer::TakeUp { head, rows } => (head, rows.iter().map(|r| text(&r.row)).collect()),
        other => panic!("{other:?}"),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn contents(store: &Arc<Cql>, n: u128) -> Vec<String> {
    rows(&**store, n, 0)
        .expect("read")
        .iter()
        .map(|r| text(&r.row))
        .collect()
}

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
fn buckets_below_the_floor_are_deleted_and_a_log_that_ended_is_empty() {
    let (n, store) = (fresh(), engine(always()));
    let client = under(&store, 1);
    take_up(&client, n, 1);
    let last = 2 * BUCKET + 5;
    for first in (1..=last).step_by(500) {
        let ops = (first..(first + 500).min(last + 1)).map(|seq| append(n, 1, seq, "row"));
        assert_eq!(client.write(ops.collect()).expect("answered"), Outcome::Stored);
    }
    assert_eq!(
        client.write(vec![head(n, last, BUCKET + 3)]).expect("answered"),
        Outcome::Stored
    );
    let count = |bucket: u64| {
        let session = wait_session();
        let asked = format!(
            "SELECT count(*) FROM {}.test_log WHERE id = {} AND bucket = {bucket}",
            options().keyspace,
            Uuid::from_u128(n)
        );
        let found = wait(session.query_unpaged(asked, ()))
            .expect("asked")
            .into_rows_result()
            .expect("rows");
        found.single_row::<(i64,)>().expect("a count").0
    };
    let begun = std::time::Instant::now();
    while count(0) > 0 && begun.elapsed() < cql_common::PATIENCE {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!((count(0), count(1), count(2)), (0, BUCKET as i64, 5));
    assert_eq!(contents(&store, n).len() as u64, last - BUCKET - 3);
    assert_eq!(
        client.write(vec![head(n, last - 2, BUCKET)]).expect("answered"),
        Outcome::Stored
    );
    let (found, _) = take_up(&under(&store, 2), n, 2);
    assert_eq!(
        (found.confirmed, found.floor),
        (last, BUCKET + 3),
        "heads only grow"
    );
    assert_eq!(
        under(&store, 2)
            .write(vec![head(n, 0, u64::MAX)])
            .expect("answered"),
        Outcome::Stored
    );
    assert_eq!(contents(&store, n), Vec::<String>::new());
    assert_eq!(take_up(&under(&store, 3), n, 3).0.floor, u64::MAX);
}

fn wait_session() -> &'static scylla::client::session::Session {
    static RUNTIME: std::sync::OnceLock<(tokio::runtime::Runtime, scylla::client::session::Session)> =
        std::sync::OnceLock::new();
    &RUNTIME
        .get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build();
            let runtime = runtime.expect("a runtime");
            let session = runtime
                .block_on(cql_common::cluster().session())
                .expect("a session");
            (runtime, session)
        })
        .1
}

#[test]
fn an_ended_row_and_its_lower_views_leave_one_row_that_says_so() {
    let store = engine(always());
    let partition = bytes(&fresh().to_string());
    let put = |view, value: Option<&str>| Op::Put {
        table: tables::ROWS,
        partition: partition.clone(),
        name: bytes("n"),
        view,
        value: value.map(bytes),
    };
    for (view, value) in [(1, Some("a")), (2, Some("b")), (3, None)] {
        assert_eq!(
            under(&store, view)
                .write(vec![put(view, value)])
                .expect("answered"),
            Outcome::Stored
        );
    }
    let asked = format!(
        "SELECT owner, value, ttl(value) FROM {}.test_rows WHERE partition = ?",
        options().keyspace
    );
    let found = wait(wait_session().query_unpaged(asked, (partition.to_vec(),))).expect("asked");
    let found = found.into_rows_result().expect("rows");
    let (view, value, ttl) = found
        .single_row::<(i64, Vec<u8>, Option<i32>)>()
        .expect("one row");
    assert_eq!((view, value), (3, vec![0]));
    assert!(ttl.is_some_and(|ttl| ttl > 9 * 86_400), "{ttl:?}");
}

#[test]
fn the_view_is_changed_by_who_saw_the_last_one_only() {
    let options = options_of("view");
    schema::create(&options, &TABLES).expect("made");
    schema::create(&options, &TABLES).expect("made again");
    let store = Cql::open(&options, &TABLES, always()).expect("opened");
    let rows = store.coordination();
    let view = |number, body: &str| StoredView {
        number,
        nonce: Uuid::new_v4(),
        body: bytes(body),
    };
    assert_eq!(wait(rows.shown_view()).expect("read"), None);
    assert_eq!(wait(rows.read_view()).expect("read"), None);
    let (first, second) = (view(1, "a"), view(2, "a b"));
    assert_eq!(wait(rows.change_view(None, first.clone())), Changed::Applied);
    assert_eq!(wait(rows.change_view(None, view(1, "b"))), Changed::Not);
    assert_eq!(
        wait(rows.change_view(Some(first.nonce), second.clone())),
        Changed::Applied
    );
    assert_eq!(
        wait(rows.change_view(Some(first.nonce), view(2, "c"))),
        Changed::Not
    );
    assert_eq!(
        wait(rows.change_view(Some(first.nonce), second.clone())),
        Changed::Applied,
        "it was, by its nonce"
    );
    assert_eq!(wait(rows.shown_view()).expect("read"), Some((2, second.nonce)));
    assert_eq!(wait(rows.read_view()).expect("read"), Some(second));
}

#[test]
fn starts_write_their_rows_and_the_dead_ones_are_deleted() {
    let options = options_of("starts");
    schema::create(&options, &TABLES).expect("made");
    let store = Cql::open(&options, &TABLES, always()).expect("opened");
    let rows = store.coordination();
    let row = |start, beat| StartRow {
        start: Uuid::from_u128(start),
        beat,
        confirmed: beat * 2,
        stamp: i64::MAX - 5,
        about: bytes("n1"),
    };
    for (start, beat) in [(1, 1), (2, 1), (1, 2)] {
        wait(rows.write_start(row(start, beat))).expect("written");
    }
    assert_eq!(wait(rows.read_starts()).expect("read"), [row(1, 2), row(2, 1)]);
    wait(rows.delete_start(Uuid::from_u128(1))).expect("deleted");
    assert_eq!(wait(rows.read_starts()).expect("read"), [row(2, 1)]);
    let ahead = rows.stamp() + 3_600_000_000;
    rows.raise_stamps(ahead);
    wait(rows.write_start(row(2, 9))).expect("written");
    assert!(rows.stamp() > ahead);
}

#[test]
fn a_schema_that_is_missing_or_made_for_another_consistency_is_refused() {
    let mut options = options_of("check");
    let opened = Cql::open(&options, &TABLES, always());
    assert!(matches!(opened.err(), Some(StoreError::Refused(why)) if why.contains("schema")));
    schema::create(&options, &TABLES).expect("made");
    schema::check(&options).expect("as made");
    options.datacenter = Some(godwit_cassandra::DATACENTER.into());
    let opened = Cql::open(&options, &TABLES, always());
    assert!(matches!(opened.err(), Some(StoreError::Refused(why)) if why.contains("consistency")));
    options.keyspace = "no; such".into();
    assert!(matches!(schema::check(&options), Err(StoreError::Refused(_))));
}

#[test]
fn a_backup_is_the_stores_own_business() {
    let store = engine(always());
    let folder = tempfile::TempDir::new().expect("folder");
    assert!(matches!(store.backup(folder.path()), Err(StoreError::Refused(why)) if why.contains("nodetool")));
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
    let next = || match done.recv_timeout(cql_common::PATIENCE).expect("completed") {
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
fn a_former_owners_removal_leaves_what_a_later_one_inserted() {
    let store = engine(always());
    let partition = bytes(&fresh().to_string());
    let (table, element) = (tables::SET, bytes("e"));
    let insert = |value| Op::Insert {
        table,
        partition: partition.clone(),
        element: element.clone(),
        value: bytes(value),
    };
    let remove = Op::Remove {
        table,
        partition: partition.clone(),
        element: element.clone(),
    };
    let found = || {
        let asked = Read::Set {
            table,
            partition: partition.clone(),
            after: None,
            up_to: None,
            limit: 9,
        };
        match under(&store, 9).read(asked).expect("read") {
            ReadAnswer::Set { elements, .. } => elements.iter().map(|(_, v)| text(v)).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    for (view, op, want) in [
        (1, insert("1"), vec!["1"]),
        (2, insert("2"), vec!["2"]),
        (1, remove.clone(), vec!["2"]),
        (1, insert("late"), vec!["2"]),
        (3, remove.clone(), vec![]),
        (2, insert("again"), vec!["again"]),
    ] {
        assert_eq!(
            under(&store, view).write(vec![op]).expect("answered"),
            Outcome::Stored
        );
        assert_eq!(found(), want);
    }
}

#[test]
fn rows_of_a_key_that_a_former_owner_still_writes_are_void_and_its_copy_is_deleted() {
    let (lost, store) = (Arc::new(LostBelow::default()), engine(always()));
    let former = engine(lost.clone());
    let partition = bytes(&fresh().to_string());
    let put = |view, name: &str| Op::Put {
        table: tables::OWNED,
        partition: partition.clone(),
        name: bytes(name),
        view,
        value: Some(bytes("v")),
    };
    let take_up = |view| Read::TakeUpRows {
        table: tables::OWNED,
        partition: partition.clone(),
        scope: scope(view),
    };
    let names = || {
        let asked = Read::Rows {
            table: tables::OWNED,
            partition: partition.clone(),
            after: None,
            limit: 9,
        };
        match under(&store, 9).read(asked).expect("read") {
            ReadAnswer::Rows { rows, .. } => rows.iter().map(|(n, _)| text(n)).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        under(&former, 1).write(vec![put(1, "before")]).expect("answered"),
        Outcome::Stored
    );
    assert_eq!(names(), Vec::<String>::new(), "nobody has taken it up");
    under(&former, 2).read(take_up(2)).expect("taken up");
    assert_eq!(
        under(&former, 2).write(vec![put(2, "two")]).expect("answered"),
        Outcome::Stored
    );
    under(&store, 3).read(take_up(3)).expect("taken up");
    assert_eq!(
        under(&former, 2).write(vec![put(2, "late")]).expect("answered"),
        Outcome::Stored
    );
    assert_eq!(names(), ["two"]);
    lost.set(3);
    assert_eq!(
        under(&former, 2).write(vec![put(2, "later")]).expect("answered"),
        Outcome::Lost
    );
    assert!(matches!(
        under(&former, 2).read(take_up(2)),
        Err(StoreError::Lost)
    ));
    assert!(
        matches!(under(&store, 2).read(take_up(2)), Err(StoreError::Lost)),
        "by the fence alone"
    );
    assert_eq!(names(), ["two"]);
}

#[test]
#[ignore = "measures: how many appends a second, and how long each takes"]
fn appends_per_second() {
    use godwit_store::Completion;
    use std::time::{Duration, Instant};
    const LOGS: u64 = 100;
    const RUN: Duration = Duration::from_secs(8);
    for under_way in [1, 64, 1_024] {
        let (store, base) = (engine(always()), fresh() & !0xff);
        let done = godwit_store::testsuite::Port::register(&*store, 1);
        let row = bytes(&"x".repeat(200));
        let (mut begun, mut took, mut sent) = (Vec::new(), Vec::new(), 0);
        let start = Instant::now();
        while start.elapsed() < RUN || took.len() < begun.len() {
            while start.elapsed() < RUN && begun.len() - took.len() < under_way {
                let append = Op::Append {
                    log: log(base + u128::from(sent % LOGS)),
                    view: 1,
                    seq: sent / LOGS + 1,
                    row: row.clone(),
                };
                let batch = godwit_store::Batch {
                    port: 1,
                    ticket: sent,
                    scope: scope(1),
                    ops: vec![append],
                };
                begun.push(Instant::now());
                godwit_store::testsuite::submit(&*store, batch);
                sent += 1;
            }
            match done.recv_timeout(cql_common::PATIENCE).expect("completed") {
                Completion::Written { ticket, .. } => took.push(begun[ticket as usize].elapsed()),
                other => panic!("{other:?}"),
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        took.sort_unstable();
        let at = |part: f64| took[(took.len() as f64 * part) as usize].as_secs_f64() * 1_000.0;
        eprintln!(
            "{under_way:5} under way: {:7.0} appends/s, p50 {:.1} ms, p99 {:.1} ms",
            took.len() as f64 / seconds,
            at(0.5),
            at(0.99)
        );
    }
}

#[test]
fn a_closed_engine_answers_each_read_once_with_an_error() {
    let store = engine(always());
    let done = godwit_store::testsuite::Port::register(&*store, 1);
    let asked = || Read::Fact {
        table: tables::FACTS,
        key: bytes("k"),
    };
    store.read(1, 1, vec![asked()]);
    store.close().expect("closed");
    store.read(1, 2, vec![asked()]);
    assert!(matches!(store.read_now(&[asked()]), Err(e) if e.retryable()));
    let mut answered = Vec::new();
    for _ in 0..2 {
        match done.recv_timeout(cql_common::PATIENCE).expect("completed") {
            godwit_store::Completion::Read { ticket, answers } => answered.push((ticket, answers.is_ok())),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answered, [(1, true), (2, false)]);
    assert!(done.try_recv().is_err());
}
