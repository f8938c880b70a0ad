//! What is left in the tables: buckets that go, ends, what former owners wrote beside.

use std::sync::{Arc, OnceLock};

use godwit_store::cql::fence::BUCKET;
use godwit_store::testsuite::tables;
use godwit_store::{Op, Outcome, Read, ReadAnswer, StoreError};
use uuid::Uuid;

use super::super::cql_common::{self, LostBelow, always, bytes, engine, fresh, options, wait};
use super::{append, contents, head, scope, take_up, text, under};

fn wait_session() -> &'static scylla::client::session::Session {
    static RUNTIME: OnceLock<(tokio::runtime::Runtime, scylla::client::session::Session)> = OnceLock::new();
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

/// An index that was made afterwards takes no values above 64 KiB, so the server refuses to copy one.
#[test]
fn a_take_up_whose_writes_are_refused_for_good_ends_as_unavailable_and_the_others_go_on() {
    let options = cql_common::options_of("refused");
    godwit_store::cql::schema::create(&options, &cql_common::TABLES).expect("made");
    let store =
        Arc::new(godwit_store::cql::Cql::open(&options, &cql_common::TABLES, always()).expect("opened"));
    let take_up_rows = |view, partition: &str| {
        under(&store, view).read(Read::TakeUpRows {
            table: tables::OWNED,
            partition: bytes(partition),
            scope: scope(view),
        })
    };
    for (partition, value) in [("large", "x".repeat(70_000)), ("small", "x".into())] {
        take_up_rows(1, partition).expect("taken up");
        let put = Op::Put {
            table: tables::OWNED,
            partition: bytes(partition),
            name: bytes("n"),
            view: 1,
            value: Some(bytes(&value)),
        };
        assert_eq!(
            under(&store, 1).write(vec![put]).expect("answered"),
            Outcome::Stored
        );
    }
    let index = format!(
        "CREATE INDEX ON {}.{} (value)",
        options.keyspace,
        tables::OWNED.name
    );
    wait(wait_session().query_unpaged(index, ())).expect("made");
    let refused = take_up_rows(2, "large");
    assert!(matches!(&refused, Err(e) if e.retryable()), "{refused:?}");
    take_up_rows(2, "small").expect("taken up");
}

#[test]
fn a_take_up_of_what_is_nowhere_writes_nothing_unless_something_is_to_be_made() {
    let store = engine(always());
    let (n, partition) = (fresh(), bytes(&fresh().to_string()));
    let of_rows = |view| Read::TakeUpRows {
        table: tables::OWNED,
        partition: partition.clone(),
        scope: scope(view),
    };
    let of_log = |view| Read::TakeUp {
        log: godwit_store::testsuite::log(n),
        scope: scope(view),
    };
    let if_any = |view, read: Read| {
        under(&store, view)
            .read(Read::IfAny(Box::new(read)))
            .expect("read")
    };
    for view in [2, 3] {
        // A fence of the first would be found by the second.
        assert_eq!(if_any(view, of_rows(view)), ReadAnswer::Nothing);
        assert_eq!(if_any(view, of_log(view)), ReadAnswer::Nothing);
    }
    under(&store, 3).read(of_rows(3)).expect("taken up");
    under(&store, 3).read(of_log(3)).expect("taken up");
    assert_eq!(if_any(4, of_rows(4)), ReadAnswer::TakenUp);
    assert!(matches!(if_any(4, of_log(4)), ReadAnswer::TakeUp { rows, .. } if rows.is_empty()));
}
