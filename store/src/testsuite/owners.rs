//! What every engine promises to owners that follow each other. An engine on which nothing lands late shows the same: the cases are
//! written so that they hold on both kinds.

use std::sync::Arc;

use super::tables::{OWNED, SINGLE};
use super::{PATIENCE, Port, bytes, client, log, read, rows, scope, stored, submit};
use crate::blocking::Client;
use crate::{Batch, Completion, Op, Outcome, Read, ReadAnswer, Store, Table, View};

fn put(table: Table, name: &str, view: View, value: Option<&str>) -> Op {
    Op::Put {
        table,
        partition: bytes("p"),
        name: bytes(name),
        view,
        value: value.map(bytes),
    }
}

fn owner(store: &Arc<dyn Store>, view: View) -> Client {
    client(store).under(scope(view))
}

fn take_up_rows(view: View) -> Read {
    Read::TakeUpRows {
        table: OWNED,
        partition: bytes("p"),
        scope: scope(view),
    }
}

fn get(c: &Client, table: Table, name: &str) -> Option<String> {
    let asked = Read::Row {
        table,
        partition: bytes("p"),
        name: bytes(name),
    };
    let ReadAnswer::Row(value) = read(c, asked) else {
        panic!("not a row")
    };
    value.map(|v| String::from_utf8_lossy(&v).into_owned())
}

fn page(after: Option<&str>, limit: u32) -> Read {
    Read::Rows {
        table: OWNED,
        partition: bytes("p"),
        after: after.map(bytes),
        limit,
    }
}

fn names(answer: ReadAnswer) -> (Vec<String>, bool) {
    let ReadAnswer::Rows { rows, more } = answer else {
        panic!("not rows")
    };
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    (rows.iter().map(|(name, _)| text(name)).collect(), more)
}

/// The rows of one key go from owner to owner; what a former one writes over a later one's is void.
pub fn rows_of_one_key_go_from_owner_to_owner(store: Arc<dyn Store>) {
    let first = owner(&store, 1);
    assert_eq!(read(&first, take_up_rows(1)), ReadAnswer::TakenUp);
    let all = [
        put(OWNED, "a", 1, Some("1")),
        put(OWNED, "b", 1, Some("1")),
        put(OWNED, "c", 1, Some("1")),
        put(OWNED, "b", 1, None),
    ];
    stored(&first, all.to_vec());
    assert_eq!(
        (get(&first, OWNED, "a"), get(&first, OWNED, "b")),
        (Some("1".into()), None)
    );
    let second = owner(&store, 2);
    assert_eq!(read(&second, take_up_rows(2)), ReadAnswer::TakenUp);
    assert_eq!(
        names(read(&second, page(None, 10))),
        (vec!["a".into(), "c".into()], false)
    );
    stored(
        &second,
        vec![put(OWNED, "a", 2, Some("2")), put(OWNED, "c", 2, Some("2"))],
    );
    // Whatever becomes of it, it changes nothing.
    let _ = owner(&store, 1).write(vec![
        put(OWNED, "a", 1, Some("late")),
        put(OWNED, "c", 1, Some("late")),
    ]);
    let second = owner(&store, 2);
    assert_eq!(
        (get(&second, OWNED, "a"), get(&second, OWNED, "c")),
        (Some("2".into()), Some("2".into()))
    );
    assert_eq!(read(&second, take_up_rows(2)), ReadAnswer::TakenUp, "once more");
    assert_eq!(get(&second, OWNED, "a"), Some("2".into()));
}

/// A read of the same call sees the rows taken up; they come in pages, by name.
pub fn rows_that_are_taken_up_are_there_in_the_same_call(store: Arc<dyn Store>) {
    let first = owner(&store, 1);
    assert_eq!(read(&first, take_up_rows(1)), ReadAnswer::TakenUp);
    let all = (0..700).map(|i| put(OWNED, &format!("{i:03}"), 1, Some("v")));
    stored(&first, all.collect());
    stored(&first, vec![put(OWNED, "123", 1, None)]);
    let mut answers = store
        .read_now(&[page(None, 1_000), take_up_rows(2), page(Some("098"), 3)])
        .expect("read");
    assert_eq!(
        names(answers.remove(2)),
        (["099", "100", "101"].map(String::from).to_vec(), true)
    );
    assert_eq!(answers.remove(1), ReadAnswer::TakenUp);
    let want: Vec<_> = (0..700)
        .filter(|i| *i != 123)
        .map(|i| format!("{i:03}"))
        .collect();
    assert_eq!(names(answers.remove(0)), (want, false));
}

/// Rows that are read one by one: the highest view counts, an end is absence, and it may begin again.
pub fn single_rows_are_read_one_by_one(store: Arc<dyn Store>) {
    let c = owner(&store, 3);
    assert_eq!(get(&c, SINGLE, "a"), None);
    stored(
        &c,
        vec![put(SINGLE, "a", 3, Some("3")), put(SINGLE, "b", 3, Some("3"))],
    );
    stored(&owner(&store, 2), vec![put(SINGLE, "a", 2, Some("late"))]);
    let c = owner(&store, 4);
    assert_eq!(get(&c, SINGLE, "a"), Some("3".into()));
    stored(
        &c,
        vec![put(SINGLE, "a", 4, None), put(SINGLE, "", 4, Some("of no name"))],
    );
    assert_eq!(
        (get(&c, SINGLE, "a"), get(&c, SINGLE, "b")),
        (None, Some("3".into()))
    );
    assert_eq!(get(&c, SINGLE, ""), Some("of no name".into()));
    stored(&c, vec![put(SINGLE, "a", 4, Some("again"))]);
    assert_eq!(get(&c, SINGLE, "a"), Some("again".into()));
}

/// A batch of nothing is completed like others, once.
pub fn an_empty_batch_is_completed(store: Arc<dyn Store>) {
    let done = Port::register(&*store, 4);
    for ticket in [8, 9] {
        let batch = Batch {
            port: 4,
            ticket,
            scope: scope(1),
            ops: Vec::new(),
        };
        submit(&*store, batch);
    }
    let mut tickets = Vec::new();
    for _ in 0..2 {
        match done.recv_timeout(PATIENCE).expect("completed") {
            Completion::Written {
                ticket,
                outcome: Outcome::Stored,
            } => tickets.push(ticket),
            other => panic!("{other:?}"),
        }
    }
    tickets.sort_unstable();
    assert_eq!(tickets, [8, 9]);
    assert!(done.try_recv().is_err());
}

/// What a former owner had under way behind a gap is never read, nor what it still writes where the next one goes on.
pub fn what_a_former_owner_left_behind_a_gap_is_never_read(store: Arc<dyn Store>) {
    let append = |view, seq, row: &str| Op::Append {
        log: log(1),
        view,
        seq,
        row: bytes(row),
    };
    let take_up = |view| Read::TakeUp {
        log: log(1),
        scope: scope(view),
    };
    let texts = || {
        let all = rows(&*store, 1, 0).expect("read");
        all.iter()
            .map(|r| String::from_utf8_lossy(&r.row).into_owned())
            .collect::<Vec<_>>()
    };
    let first = owner(&store, 1);
    read(&first, take_up(1));
    stored(
        &first,
        vec![append(1, 1, "a1"), append(1, 2, "a2"), append(1, 4, "a4")],
    );
    let second = owner(&store, 2);
    let ReadAnswer::TakeUp { rows: found, .. } = read(&second, take_up(2)) else {
        panic!("not a take-up")
    };
    assert_eq!(
        found.iter().map(|r| (r.seq, r.view)).collect::<Vec<_>>(),
        [(1, 1), (2, 1)]
    );
    stored(&second, vec![append(2, 3, "b3")]);
    let _ = owner(&store, 1).write(vec![append(1, 5, "late")]);
    let second = owner(&store, 2);
    stored(&second, vec![append(2, 4, "b4"), append(2, 5, "b5")]);
    assert_eq!(texts(), ["a1", "a2", "b3", "b4", "b5"]);
    let ReadAnswer::TakeUp { rows: found, .. } = read(&owner(&store, 3), take_up(3)) else {
        panic!("not a take-up")
    };
    assert_eq!(
        found.iter().map(|r| (r.seq, r.view)).collect::<Vec<_>>(),
        [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]
    );
}
