//! The conformance suite: what every engine must do, one function a promise. Use it by one line in an engine's tests:
//! `godwit_store::conformance!(embedded, make_store);`, where `make_store` returns a fresh store and what keeps it alive.
//! Not here: what one engine alone promises (recovery, disk faults).

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::blocking::Client;
use crate::{
    Batch, Completion, CompletionPort, Kind, LogId, LogRow, Op, Outcome, PortId, Read, ReadAnswer, Scope,
    Store, StoreError, Submission, Table, View,
};

/// A table of each kind, for tests.
pub mod tables {
    use super::{Kind, Table};
    /// Logs.
    pub const LOG: Table = Table {
        id: 90,
        kind: Kind::Log,
        name: "test_log",
    };
    /// Small rows.
    pub const ROWS: Table = Table {
        id: 91,
        kind: Kind::Rows,
        name: "test_rows",
    };
    /// Rows of one key, taken up together.
    pub const OWNED: Table = Table {
        id: 94,
        kind: Kind::Owned,
        name: "test_owned",
    };
    /// Rows read one by one.
    pub const SINGLE: Table = Table {
        id: 95,
        kind: Kind::Single,
        name: "test_single",
    };
    /// Sets.
    pub const SET: Table = Table {
        id: 92,
        kind: Kind::Set,
        name: "test_set",
    };
    /// Facts.
    pub const FACTS: Table = Table {
        id: 93,
        kind: Kind::Facts,
        name: "test_facts",
    };
}
use tables::{LOG, ROWS, SET};

pub use completion::*;
pub use keyed::*;
pub use logs::*;
pub use owners::*;

mod completion;
mod keyed;
mod logs;
mod owners;

/// How long a completion may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A log by number.
pub fn log(n: u128) -> LogId {
    LogId {
        table: LOG,
        id: Uuid::from_u128(n),
    }
}

/// Of a new owner in this view.
pub fn scope(view: View) -> Scope {
    Scope { shard: 0, view }
}

/// An append of `row` at `seq`.
pub fn append(n: u128, seq: u64, row: &str) -> Op {
    Op::Append {
        log: log(n),
        view: 1,
        seq,
        row: Bytes::copy_from_slice(row.as_bytes()),
    }
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

/// All rows of a log after `after`, however many.
pub fn rows(store: &dyn Store, n: u128, after: u64) -> Result<Vec<LogRow>, StoreError> {
    let mut all: Vec<LogRow> = Vec::new();
    loop {
        let read = Read::Log {
            log: log(n),
            after: all.last().map_or(after, |row| row.seq),
            up_to: u64::MAX,
            max_rows: 50_000,
            max_bytes: 1 << 30,
        };
        match store.read_now(&[read])?.pop() {
            Some(ReadAnswer::Log { rows, .. }) if rows.is_empty() => return Ok(all),
            Some(ReadAnswer::Log { rows, .. }) => all.extend(rows),
            _ => return Err(StoreError::Misuse("another answer than asked for")),
        }
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
    Op::Put {
        table: ROWS,
        partition: bytes(partition),
        name: bytes(name),
        view,
        value: value.map(bytes),
    }
}

fn insert(partition: &str, element: &str, value: &str) -> Op {
    Op::Insert {
        table: SET,
        partition: bytes(partition),
        element: bytes(element),
        value: bytes(value),
    }
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
            long_names_and_large_rows_come_back_whole a_closed_store_takes_nothing
            rows_of_one_key_go_from_owner_to_owner rows_that_are_taken_up_are_there_in_the_same_call
            single_rows_are_read_one_by_one an_empty_batch_is_completed
            what_a_former_owner_left_behind_a_gap_is_never_read);
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
