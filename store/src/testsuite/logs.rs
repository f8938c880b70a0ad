//! What every engine promises of logs and their heads.

use std::sync::Arc;

use super::{append, client, log, read, rows, scope, stored};
use crate::{Head, Op, Read, ReadAnswer, Store};

/// A log gives back what was appended, in order, within the limits, and says whether there is more.
pub fn a_log_gives_pages_in_order(store: Arc<dyn Store>) {
    let c = client(&store);
    stored(&c, (1..=20).map(|s| append(1, s, &format!("row {s}"))).collect());
    stored(&c, vec![append(2, 1, "another log")]);
    let page = |after, up_to, max_rows, max_bytes| {
        let asked = Read::Log {
            log: log(1),
            after,
            up_to,
            max_rows,
            max_bytes,
        };
        let ReadAnswer::Log { rows, more } = read(&c, asked) else {
            panic!("not a log")
        };
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
    let none = ReadAnswer::TakeUp {
        head: Head::default(),
        rows: vec![],
    };
    assert_eq!(
        read(
            &c,
            Read::TakeUp {
                log: log(3),
                scope: scope(1)
            }
        ),
        none
    );
}

/// Head numbers only grow; take-up gives the rows above the confirmed one; nothing at or below the floor is read.
pub fn heads_only_grow_and_floors_hide_rows(store: Arc<dyn Store>) {
    let c = client(&store);
    stored(&c, (1..=10).map(|s| append(1, s, "x")).collect());
    let head = |confirmed, floor| Op::Head {
        log: log(1),
        head: Head { confirmed, floor },
    };
    stored(&c, vec![head(6, 2)]);
    stored(&c, vec![head(4, 3)]);
    let ReadAnswer::TakeUp {
        head: now,
        rows: above,
    } = read(
        &c,
        Read::TakeUp {
            log: log(1),
            scope: scope(2),
        },
    )
    else {
        panic!("not a take-up")
    };
    assert_eq!(
        now,
        Head {
            confirmed: 6,
            floor: 3
        }
    );
    assert_eq!(above.iter().map(|r| r.seq).collect::<Vec<_>>(), vec![7, 8, 9, 10]);
    assert_eq!(rows(&*store, 1, 0).expect("read").first().map(|r| r.seq), Some(4));
    stored(&c, vec![head(0, u64::MAX)]);
    assert!(rows(&*store, 1, 0).expect("read").is_empty(), "the log has ended");
    let ReadAnswer::TakeUp { rows: above, .. } = read(
        &c,
        Read::TakeUp {
            log: log(1),
            scope: scope(2),
        },
    ) else {
        panic!("not a take-up")
    };
    assert!(above.is_empty());
}

/// Take-up stops at the first missing position.
pub fn take_up_is_dense(store: Arc<dyn Store>) {
    let c = client(&store);
    stored(&c, vec![append(1, 1, "a"), append(1, 2, "b"), append(1, 4, "d")]);
    let ReadAnswer::TakeUp { rows, .. } = read(
        &c,
        Read::TakeUp {
            log: log(1),
            scope: scope(2),
        },
    ) else {
        panic!()
    };
    assert_eq!(rows.iter().map(|r| r.seq).collect::<Vec<_>>(), vec![1, 2]);
}
