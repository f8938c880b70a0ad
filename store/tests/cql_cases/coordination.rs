//! The coordination rows, the schema's check, and the engine's end.

use godwit_store::coordination::{Changed, Coordination, StartRow, StoredView};
use godwit_store::cql::{Cql, schema};
use godwit_store::testsuite::{Port, log, tables};
use godwit_store::{Batch, Read, Scope, Store, StoreError, Submission};
use uuid::Uuid;

use super::super::cql_common::{self, TABLES, always, bytes, engine, options_of, wait};

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
    wait(rows.delete_start(Uuid::from_u128(1), 1)).expect("deleted");
    assert_eq!(
        wait(rows.read_starts()).expect("read"),
        [row(1, 2), row(2, 1)],
        "it lives: a later beat is there"
    );
    wait(rows.delete_start(Uuid::from_u128(1), 2)).expect("deleted");
    assert_eq!(wait(rows.read_starts()).expect("read"), [row(2, 1)]);
    wait(rows.write_start(row(1, 3))).expect("written");
    assert_eq!(wait(rows.read_starts()).expect("read"), [row(1, 3), row(2, 1)]);
    let over = StartRow {
        confirmed: godwit_cluster::own::ENDED,
        ..row(1, 4)
    };
    wait(rows.write_start(over.clone())).expect("written");
    assert_eq!(
        wait(rows.read_starts()).expect("read"),
        [over, row(2, 1)],
        "that it is over is read as it was said"
    );
    let ahead = rows.stamp() + 3_600_000_000;
    rows.raise_stamps(ahead);
    wait(rows.write_start(row(2, 9))).expect("written");
    assert!(rows.stamp() >= ahead);
    assert!(
        wait(rows.read_starts()).expect("read").contains(&row(2, 9)),
        "a beat needs no clock"
    );
}

#[test]
fn nothing_is_written_above_the_stored_stamp_when_a_view_raises_the_timestamps() {
    let options = options_of("stamps");
    schema::create(&options, &TABLES).expect("made");
    let store = Cql::open(&options, &TABLES, always()).expect("opened");
    let done = Port::register(&store, 1);
    let rows = store.coordination();
    let beat = |beat| {
        let row = StartRow {
            start: Uuid::from_u128(1),
            beat,
            confirmed: 1,
            stamp: rows.stamp() + 10_000_000,
            about: bytes("n1"),
        };
        wait(rows.write_start(row)).expect("written");
    };
    let submitted = || {
        let batch = Batch {
            port: 1,
            ticket: 1,
            scope: Scope { shard: 1, view: 1 },
            ops: vec![],
        };
        matches!(store.submit(batch), Submission::Taken)
    };
    let taken_up = || {
        store.read_now(&[Read::TakeUp {
            log: log(7),
            scope: Scope { shard: 1, view: 1 },
        }])
    };
    beat(1);
    assert!(submitted());
    // A member whose heartbeat came after ours was faster.
    rows.raise_stamps(rows.stamp() + 10_500_000);
    assert!(!submitted());
    assert!(matches!(taken_up(), Err(e) if e.retryable()));
    beat(2);
    assert!(submitted() && taken_up().is_ok());
    for _ in 0..2 {
        done.recv_timeout(cql_common::PATIENCE).expect("completed");
    }
}

#[test]
fn a_schema_that_is_missing_or_made_for_another_consistency_is_refused() {
    let mut options = options_of("check");
    let opened = Cql::open(&options, &TABLES, always());
    assert!(matches!(opened.err(), Some(StoreError::Refused(why)) if why.contains("schema")));
    schema::create(&options, &TABLES).expect("made");
    schema::check(&options, &TABLES).expect("as made");
    options.datacenter = Some(godwit_cassandra::DATACENTER.into());
    let opened = Cql::open(&options, &TABLES, always());
    assert!(matches!(opened.err(), Some(StoreError::Refused(why)) if why.contains("consistency")));
    options.keyspace = "no; such".into();
    assert!(matches!(
        schema::check(&options, &TABLES),
        Err(StoreError::Refused(_))
    ));
}

#[test]
fn a_schema_is_made_once_told_what_it_lacks_and_one_clusters_alone() {
    let mut options = options_of("report");
    let all = 2 + 3 + 8;
    let made = schema::create(&options, &TABLES[1..]).expect("made");
    assert_eq!((made.made.len(), made.found), (all - 2, 0), "{made:?}");
    let lacking = schema::check(&options, &TABLES);
    assert!(matches!(lacking, Err(StoreError::Refused(why)) if why.contains(tables::LOG.name)));
    let made = schema::create(&options, &TABLES).expect("made");
    assert_eq!((made.made.len(), made.found), (2, all - 2), "{made:?}");
    let made = schema::create(&options, &TABLES).expect("made again");
    assert_eq!((made.made.len(), made.found), (0, all));
    assert!(made.copies.is_empty(), "{made:?}");
    assert_eq!(schema::check(&options, &TABLES).expect("as made"), made);
    options.cluster = "another".into();
    for refused in [
        schema::check(&options, &TABLES),
        schema::create(&options, &TABLES),
    ] {
        assert!(matches!(refused, Err(StoreError::Refused(why)) if why.contains("another")));
    }
}

#[test]
fn a_fact_of_the_whole_cluster_is_settled_once_whoever_holds_what() {
    let nobody = super::super::cql_common::LostBelow::default();
    nobody.set(u64::MAX);
    let (one, other) = (engine(std::sync::Arc::new(nobody)), engine(always()));
    let key = bytes(&Uuid::new_v4().to_string());
    let settled = |store: &Cql, value: &str| store.settle(tables::FACTS, &key, &bytes(value));
    assert_eq!(settled(&one, "first").expect("settled"), bytes("first"));
    assert_eq!(settled(&other, "second").expect("settled"), bytes("first"));
}

#[test]
fn a_backup_is_the_stores_own_business() {
    let store = engine(always());
    let folder = tempfile::TempDir::new().expect("folder");
    assert!(matches!(store.backup(folder.path()), Err(StoreError::Refused(why)) if why.contains("nodetool")));
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
