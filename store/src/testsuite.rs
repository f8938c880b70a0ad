//! The conformance suite: what every engine must do, one function a promise. Use it by one line in an engine's tests:
//! `godwit_store::conformance!(embedded, make_store);`, where `make_store` returns a fresh store and what keeps it alive.
//! Not here: what one engine alone promises (recovery, disk faults).

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::blocking::Client;
use crate::{
    Batch, Completion, CompletionPort, Head, Kind, LogId, LogRow, Op, Outcome, PortId, Read, ReadAnswer, Store,
    StoreError, Submission, Table,
};

/// A table of each kind, for tests.
pub mod tables {
    use super::{Kind, Table};
    /// Logs.
    pub const LOG: Table = Table { id: 90, kind: Kind::Log, name: "test_log" };
    /// Small rows.
    pub const ROWS: Table = Table { id: 91, kind: Kind::Rows, name: "test_rows" };
    /// Sets.
    pub const SET: Table = Table { id: 92, kind: Kind::Set, name: "test_set" };
    /// Facts.
    pub const FACTS: Table = Table { id: 93, kind: Kind::Facts, name: "test_facts" };
}
use tables::{FACTS, LOG, ROWS, SET};

/// How long a completion may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A log by number.
pub fn log(n: u128) -> LogId {
    LogId { table: LOG, id: Uuid::from_u128(n) }
}

/// An append of `row` at `seq`.
pub fn append(n: u128, seq: u64, row: &str) -> Op {
    Op::Append { log: log(n), view: 1, seq, row: Bytes::copy_from_slice(row.as_bytes()) }
}

/// A port that hands its completions to a channel.
pub struct Port(Mutex<Sender<Completion>>);

impl Port {
    /// Registers a port and returns where its completions come out.
    pub fn register(store: &dyn Store, port: PortId) -> Receiver<Completion> {
        let (sender, receiver) = channel();
        store.register(port, Arc::new(Self(Mutex::new(sender))));
        receiver
    }
}

impl CompletionPort for Port {
    fn complete(&self, batch: &mut Vec<Completion>) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        batch.drain(..).for_each(|c| {
            // A test that has ended does not listen any more.
            let _ = sender.send(c);
        });
    }
}

/// Submits, waiting out `Busy`.
pub fn submit(store: &dyn Store, mut batch: Batch) {
    loop {
        match store.submit(batch) {
            Submission::Taken => return,
            Submission::Busy(back) => {
                batch = back;
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// Rows of a log after `after`.
pub fn rows(store: &dyn Store, n: u128, after: u64) -> Result<Vec<LogRow>, StoreError> {
    let read = Read::Log { log: log(n), after, up_to: u64::MAX, max_rows: 100_000, max_bytes: 1 << 30 };
    match store.read_now(&[read])?.pop() {
        Some(ReadAnswer::Log { rows, .. }) => Ok(rows),
        _ => Err(StoreError::Misuse("another answer than asked for")),
    }
}

fn client(store: &Arc<dyn Store>) -> Client {
    Client::new(store.clone(), 7)
}

fn stored(client: &Client, ops: Vec<Op>) {
    assert_eq!(client.write(ops).expect("answered"), Outcome::Stored);
}

fn read(client: &Client, read: Read) -> ReadAnswer {
    client.read(read).expect("read")
}

fn bytes(s: &str) -> Bytes {
    Bytes::copy_from_slice(s.as_bytes())
}

fn put(partition: &str, name: &str, view: u64, value: Option<&str>) -> Op {
    Op::Put { table: ROWS, partition: bytes(partition), name: bytes(name), view, value: value.map(bytes) }
}

fn insert(partition: &str, element: &str, value: &str) -> Op {
    Op::Insert { table: SET, partition: bytes(partition), element: bytes(element), value: bytes(value) }
}

/// A log gives back what was appended, in order, within the limits, and says whether there is more.
pub fn a_log_gives_pages_in_order(store: Arc<dyn Store>) {
    let c = client(&store);
    stored(&c, (1..=20).map(|s| append(1, s, &format!("row {s}"))).collect());
    stored(&c, vec![append(2, 1, "another log")]);
    let page = |after, up_to, max_rows, max_bytes| {
        let asked = Read::Log { log: log(1), after, up_to, max_rows, max_bytes };
        let ReadAnswer::Log { rows, more } = read(&c, asked) else { panic!("not a log") };
        (rows.iter().map(|r| r.seq).collect::<Vec<_>>(), more)
    };
    assert_eq!(page(0, 20, 100, 1 << 20), ((1..=20).collect(), false));
    assert_eq!(page(5, 9, 100, 1 << 20), ((6..=9).collect(), false));
    assert_eq!(page(5, u64::MAX, 3, 1 << 20), (vec![6, 7, 8], true));
    assert_eq!(page(0, 20, 100, 1).0.first(), Some(&1), "one row is always given");
    assert!(page(0, 20, 100, 1).1);
    assert_eq!(page(20, 30, 10, 1 << 20), (vec![], false));
    let all = rows(&*store, 1, 0).expect("read");
    assert_eq!((all[4].row.as_ref(), all[4].view), (&b"row 5"[..], 1));
}

/// The same append again, and a log that never was.
pub fn a_repeated_append_changes_nothing(store: Arc<dyn Store>) {
    let c = client(&store);
    stored(&c, vec![append(1, 1, "a"), append(1, 2, "b")]);
    stored(&c, vec![append(1, 2, "b")]);
    assert_eq!(rows(&*store, 1, 0).expect("read").len(), 2);
    assert!(rows(&*store, 3, 0).expect("read").is_empty());
    let none = ReadAnswer::TakeUp { head: Head::default(), rows: vec![] };
    assert_eq!(read(&c, Read::TakeUp { log: log(3), view: 1 }), none);
}

/// Head numbers only grow; take-up gives the rows above the confirmed one; nothing at or below the floor is read.
pub fn heads_only_grow_and_floors_hide_rows(store: Arc<dyn Store>) {
    let c = client(&store);
    stored(&c, (1..=10).map(|s| append(1, s, "x")).collect());
    let head = |confirmed, floor| Op::Head { log: log(1), head: Head { confirmed, floor } };
    stored(&c, vec![head(6, 2)]);
    stored(&c, vec![head(4, 3)]);
    let ReadAnswer::TakeUp { head: now, rows: above } = read(&c, Read::TakeUp { log: log(1), view: 2 }) else {
        panic!("not a take-up")
    };
    assert_eq!(now, Head { confirmed: 6, floor: 3 });
    assert_eq!(above.iter().map(|r| r.seq).collect::<Vec<_>>(), vec![7, 8, 9, 10]);
    assert_eq!(rows(&*store, 1, 0).expect("read").first().map(|r| r.seq), Some(4));
    stored(&c, vec![head(0, u64::MAX)]);
    assert!(rows(&*store, 1, 0).expect("read").is_empty(), "the log has ended");
    let ReadAnswer::TakeUp { rows: above, .. } = read(&c, Read::TakeUp { log: log(1), view: 2 }) else {
        panic!("not a take-up")
    };
    assert!(above.is_empty());
}

/// Take-up stops at the first missing position.
pub fn take_up_is_dense(store: Arc<dyn Store>) {
    let c = client(&store);
    stored(&c, vec![append(1, 1, "a"), append(1, 2, "b"), append(1, 4, "d")]);
    let ReadAnswer::TakeUp { rows, .. } = read(&c, Read::TakeUp { log: log(1), view: 2 }) else { panic!() };
    assert_eq!(rows.iter().map(|r| r.seq).collect::<Vec<_>>(), vec![1, 2]);
}

/// Of a small row the highest view counts, and an ended one is absent.
pub fn of_a_small_row_the_highest_view_counts(store: Arc<dyn Store>) {
    let c = client(&store);
    let get = |name: &str| {
        let ReadAnswer::Row(v) = read(&c, Read::Row { table: ROWS, partition: bytes("p"), name: bytes(name) }) else {
            panic!("not a row")
        };
        v
    };
    stored(&c, vec![put("p", "a", 5, Some("first")), put("p", "b", 5, Some("kept"))]);
    stored(&c, vec![put("p", "a", 4, Some("late write of a former owner"))]);
    assert_eq!(get("a"), Some(bytes("first")));
    stored(&c, vec![put("p", "a", 5, Some("same view, later"))]);
    assert_eq!(get("a"), Some(bytes("same view, later")));
    stored(&c, vec![put("p", "a", 6, None)]);
    assert_eq!((get("a"), get("b"), get("c")), (None, Some(bytes("kept")), None));
    stored(&c, vec![put("p", "empty", 6, Some(""))]);
    assert_eq!(get("empty"), Some(Bytes::new()), "an empty value is a value");
}

/// Small rows come in pages in name order, of their partition only.
pub fn small_rows_come_in_pages(store: Arc<dyn Store>) {
    let c = client(&store);
    for i in 0..30 {
        stored(&c, vec![put("p", &format!("{i:02}"), 1, Some("v")), put("p2", &format!("{i:02}"), 1, Some("w"))]);
    }
    stored(&c, vec![put("p", "03", 2, None)]);
    let (mut after, mut names) = (None, Vec::new());
    loop {
        let asked = Read::Rows { table: ROWS, partition: bytes("p"), after: after.clone(), limit: 7 };
        let ReadAnswer::Rows { rows, more } = read(&c, asked) else { panic!("not rows") };
        assert!(rows.len() <= 7 && rows.iter().all(|(_, v)| v == "v"));
        after = rows.last().map(|(name, _)| name.clone());
        names.extend(rows.into_iter().map(|(name, _)| name));
        if !more {
            break;
        }
    }
    let want: Vec<_> = (0..30).filter(|i| *i != 3).map(|i| bytes(&format!("{i:02}"))).collect();
    assert_eq!(names, want);
}

/// Sets keep elements once, in order, and forget what is removed.
pub fn a_set_keeps_its_elements_in_order(store: Arc<dyn Store>) {
    let c = client(&store);
    stored(&c, vec![insert("p", "b", "1"), insert("p", "a", "2"), insert("p", "d", "3"), insert("p", "c", "4")]);
    stored(&c, vec![insert("p", "a", "5"), Op::Remove { table: SET, partition: bytes("p"), element: bytes("c") }]);
    stored(&c, vec![Op::Remove { table: SET, partition: bytes("p"), element: bytes("never there") }]);
    let page = |after: Option<&str>, up_to: Option<&str>, limit| {
        let (after, up_to) = (after.map(bytes), up_to.map(bytes));
        let asked = Read::Set { table: SET, partition: bytes("p"), after, up_to, limit };
        let ReadAnswer::Set { elements, more } = read(&c, asked) else { panic!("not a set") };
        let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
        (elements.iter().map(|(e, v)| text(e) + &text(v)).collect::<Vec<_>>().join(" "), more)
    };
    assert_eq!(page(None, None, 10), ("a5 b1 d3".into(), false));
    assert_eq!(page(Some("a"), Some("c"), 10), ("b1".into(), false));
    assert_eq!(page(None, None, 2), ("a5 b1".into(), true));
}

/// A fact is written once; a repeat of the same is new, another value is told what is there.
pub fn a_fact_is_claimed_once(store: Arc<dyn Store>) {
    let c = client(&store);
    let claim = |value: &str| vec![Op::Claim { table: FACTS, key: bytes("name"), value: bytes(value) }];
    let fact = || read(&c, Read::Fact { table: FACTS, key: bytes("name") });
    assert_eq!(fact(), ReadAnswer::Fact(None));
    assert_eq!(c.write(claim("me")).expect("answered"), Outcome::Stored);
    assert_eq!(c.write(claim("you")).expect("answered"), Outcome::Taken(bytes("me")));
    assert_eq!(c.write(claim("me")).expect("answered"), Outcome::Stored);
    assert_eq!(fact(), ReadAnswer::Fact(Some(bytes("me"))));
}

/// Of claims that are under way together one wins.
pub fn of_claims_under_way_together_one_wins(store: Arc<dyn Store>) {
    let done = Port::register(&*store, 3);
    for ticket in 0..50 {
        let op = Op::Claim { table: FACTS, key: bytes("k"), value: bytes(&ticket.to_string()) };
        submit(&*store, Batch { port: 3, ticket, ops: vec![op] });
    }
    let mut won = 0;
    for _ in 0..50 {
        if let Completion::Written { outcome: Outcome::Stored, .. } = done.recv_timeout(PATIENCE).expect("completed") {
            won += 1;
        }
    }
    assert_eq!(won, 1);
}

/// Each taken batch is completed once, on its port, in the order of submission for one log; and is visible then.
pub fn completions_come_once_in_order_and_after_them_rows_are_visible(store: Arc<dyn Store>) {
    const PER_PORT: u64 = 2_000;
    std::thread::scope(|scope| {
        for port in 0..3u16 {
            let store = store.clone();
            scope.spawn(move || {
                let done = Port::register(&*store, port);
                let mut next: HashMap<u64, u64> = HashMap::new();
                let n = |ticket: u64| u128::from(port) * 1000 + u128::from(ticket % 10);
                for ticket in 0..PER_PORT {
                    let ops = vec![append(n(ticket), ticket / 10 + 1, &ticket.to_string())];
                    submit(&*store, Batch { port, ticket, ops });
                }
                for i in 0..PER_PORT {
                    let Completion::Written { ticket, outcome } = done.recv_timeout(PATIENCE).expect("completed") else {
                        panic!("a read was never asked for")
                    };
                    assert_eq!(outcome, Outcome::Stored);
                    let expected = next.entry(ticket % 10).or_insert(ticket % 10);
                    assert_eq!(ticket, *expected, "one log's completions in order");
                    *expected += 10;
                    if i % 97 == 0 {
                        let seen = rows(&*store, n(ticket), ticket / 10).expect("read");
                        assert_eq!(seen.first().map(|r| r.row.clone()), Some(bytes(&ticket.to_string())));
                    }
                }
                assert!(done.try_recv().is_err(), "one completion a batch");
            });
        }
    });
}

/// A read through a port is completed with an answer for each read, in order.
pub fn a_read_is_completed_with_all_answers(store: Arc<dyn Store>) {
    let done = Port::register(&*store, 5);
    stored(&client(&store), vec![append(1, 1, "a"), insert("p", "e", "v")]);
    let fact = Read::Fact { table: FACTS, key: bytes("none") };
    let set = Read::Set { table: SET, partition: bytes("p"), after: None, up_to: None, limit: 9 };
    store.read(5, 77, vec![fact, set]);
    let Completion::Read { ticket: 77, answers } = done.recv_timeout(PATIENCE).expect("completed") else {
        panic!("not the read")
    };
    let answers = answers.expect("answered");
    assert_eq!(answers[0], ReadAnswer::Fact(None));
    assert_eq!(answers[1], ReadAnswer::Set { elements: vec![(bytes("e"), bytes("v"))], more: false });
}

/// Names up to 64 KiB and rows up to 1 MiB come back whole.
pub fn long_names_and_large_rows_come_back_whole(store: Arc<dyn Store>) {
    let c = client(&store);
    let name = Bytes::from(vec![b'n'; 65_536]);
    let value = Bytes::from(vec![b'v'; 1 << 20]);
    let op = Op::Put { table: ROWS, partition: bytes("p"), name: name.clone(), view: 1, value: Some(value.clone()) };
    stored(&c, vec![op]);
    let row = read(&c, Read::Row { table: ROWS, partition: bytes("p"), name: name.clone() });
    assert_eq!(row, ReadAnswer::Row(Some(value.clone())));
    let page = read(&c, Read::Rows { table: ROWS, partition: bytes("p"), after: None, limit: 5 });
    assert_eq!(page, ReadAnswer::Rows { rows: vec![(name, value.clone())], more: false });
    stored(&c, vec![Op::Append { log: log(1), view: 1, seq: 1, row: value.clone() }]);
    assert_eq!(rows(&*store, 1, 0).expect("read")[0].row, value);
}

/// After `close` nothing is taken any more.
pub fn a_closed_store_takes_nothing(store: Arc<dyn Store>) {
    stored(&client(&store), vec![append(1, 1, "a")]);
    store.close().expect("closed");
    let batch = Batch { port: 7, ticket: 9, ops: vec![append(1, 2, "b")] };
    assert!(matches!(store.submit(batch), Submission::Busy(b) if b.ticket == 9));
}

/// Makes a test of every function of the suite. `$make` is called for each and returns `(store, guard)`.
#[macro_export]
macro_rules! conformance {
    ($engine:ident, $make:expr) => {
        $crate::conformance!(@ $engine, $make,
            a_log_gives_pages_in_order a_repeated_append_changes_nothing heads_only_grow_and_floors_hide_rows
            take_up_is_dense of_a_small_row_the_highest_view_counts small_rows_come_in_pages
            a_set_keeps_its_elements_in_order a_fact_is_claimed_once of_claims_under_way_together_one_wins
            completions_come_once_in_order_and_after_them_rows_are_visible a_read_is_completed_with_all_answers
            long_names_and_large_rows_come_back_whole a_closed_store_takes_nothing);
    };
    (@ $engine:ident, $make:expr, $($case:ident)*) => {
        mod $engine {
            $(#[test]
            fn $case() {
                let (store, _guard) = $make();
                $crate::testsuite::$case(store);
            })*
        }
    };
}
