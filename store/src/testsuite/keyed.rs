//! What every engine promises of small rows, sets and facts.

use std::sync::Arc;

use bytes::Bytes;

use super::tables::{FACTS, ROWS, SET};
use super::{bytes, client, insert, log, put, read, rows, stored};
use crate::{Op, Outcome, Read, ReadAnswer, Store};

/// Of a small row the highest view counts, and an ended one is absent.
pub fn of_a_small_row_the_highest_view_counts(store: Arc<dyn Store>) {
    let c = client(&store);
    let get = |name: &str| {
        let ReadAnswer::Row(v) = read(
            &c,
            Read::Row {
                table: ROWS,
                partition: bytes("p"),
                name: bytes(name),
            },
        ) else {
            panic!("not a row")
        };
        v
    };
    stored(
        &c,
        vec![put("p", "a", 5, Some("first")), put("p", "b", 5, Some("kept"))],
    );
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
        stored(
            &c,
            vec![
                put("p", &format!("{i:02}"), 1, Some("v")),
                put("p2", &format!("{i:02}"), 1, Some("w")),
            ],
        );
    }
    stored(&c, vec![put("p", "03", 2, None)]);
    let (mut after, mut names) = (None, Vec::new());
    loop {
        let asked = Read::Rows {
            table: ROWS,
            partition: bytes("p"),
            after: after.clone(),
            limit: 7,
        };
        let ReadAnswer::Rows { rows, more } = read(&c, asked) else {
            panic!("not rows")
        };
        assert!(rows.len() <= 7 && rows.iter().all(|(_, v)| v == "v"));
        after = rows.last().map(|(name, _)| name.clone());
        names.extend(rows.into_iter().map(|(name, _)| name));
        if !more {
            break;
        }
    }
    let want: Vec<_> = (0..30)
        .filter(|i| *i != 3)
        .map(|i| bytes(&format!("{i:02}")))
        .collect();
    assert_eq!(names, want);
}

/// Sets keep elements once, in order, and forget what is removed.
pub fn a_set_keeps_its_elements_in_order(store: Arc<dyn Store>) {
    let c = client(&store);
    stored(
        &c,
        vec![
            insert("p", "b", "1"),
            insert("p", "a", "2"),
            insert("p", "d", "3"),
            insert("p", "c", "4"),
        ],
    );
    stored(
        &c,
        vec![
            insert("p", "a", "5"),
            Op::Remove {
                table: SET,
                partition: bytes("p"),
                element: bytes("c"),
            },
        ],
    );
    stored(
        &c,
        vec![Op::Remove {
            table: SET,
            partition: bytes("p"),
            element: bytes("never there"),
        }],
    );
    let page = |after: Option<&str>, up_to: Option<&str>, limit| {
        let (after, up_to) = (after.map(bytes), up_to.map(bytes));
        let asked = Read::Set {
            table: SET,
            partition: bytes("p"),
            after,
            up_to,
            limit,
        };
        let ReadAnswer::Set { elements, more } = read(&c, asked) else {
            panic!("not a set")
        };
        let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
        (
            elements
                .iter()
                .map(|(e, v)| text(e) + &text(v))
                .collect::<Vec<_>>()
                .join(" "),
            more,
        )
    };
    assert_eq!(page(None, None, 10), ("a5 b1 d3".into(), false));
    assert_eq!(page(Some("a"), Some("c"), 10), ("b1".into(), false));
    assert_eq!(page(None, None, 2), ("a5 b1".into(), true));
}

/// A fact is written once; a repeat of the same is new, another value is told what is there.
pub fn a_fact_is_claimed_once(store: Arc<dyn Store>) {
    let c = client(&store);
    let claim = |value: &str| {
        vec![Op::Claim {
            table: FACTS,
            key: bytes("name"),
            value: bytes(value),
        }]
    };
    let fact = || {
        read(
            &c,
            Read::Fact {
                table: FACTS,
                key: bytes("name"),
            },
        )
    };
    assert_eq!(fact(), ReadAnswer::Fact(None));
    assert_eq!(c.write(claim("me")).expect("answered"), Outcome::Stored);
    assert_eq!(
        c.write(claim("you")).expect("answered"),
        Outcome::Taken(bytes("me"))
    );
    assert_eq!(c.write(claim("me")).expect("answered"), Outcome::Stored);
    assert_eq!(fact(), ReadAnswer::Fact(Some(bytes("me"))));
}

/// Names up to 64 KiB and rows up to 1 MiB come back whole.
pub fn long_names_and_large_rows_come_back_whole(store: Arc<dyn Store>) {
    let c = client(&store);
    let name = Bytes::from(vec![b'n'; 65_536]);
    let value = Bytes::from(vec![b'v'; 1 << 20]);
    let op = Op::Put {
        table: ROWS,
        partition: bytes("p"),
        name: name.clone(),
        view: 1,
        value: Some(value.clone()),
    };
    stored(&c, vec![op]);
    let row = read(
        &c,
        Read::Row {
            table: ROWS,
            partition: bytes("p"),
            name: name.clone(),
        },
    );
    assert_eq!(row, ReadAnswer::Row(Some(value.clone())));
    let page = read(
        &c,
        Read::Rows {
            table: ROWS,
            partition: bytes("p"),
            after: None,
            limit: 5,
        },
    );
    assert_eq!(
        page,
        ReadAnswer::Rows {
            rows: vec![(name, value.clone())],
            more: false
        }
    );
    stored(
        &c,
        vec![Op::Append {
            log: log(1),
            view: 1,
            seq: 1,
            row: value.clone(),
        }],
    );
    assert_eq!(rows(&*store, 1, 0).expect("read")[0].row, value);
}
