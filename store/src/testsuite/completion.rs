//! What every engine promises of submissions and completions.

use std::collections::HashMap;
use std::sync::Arc;

use super::tables::{FACTS, SET};
use super::{PATIENCE, Port, append, bytes, client, insert, rows, stored, submit};
use crate::{Batch, Completion, Op, Outcome, Read, ReadAnswer, Scope, Store, Submission};

/// Of claims that are under way together one wins.
pub fn of_claims_under_way_together_one_wins(store: Arc<dyn Store>) {
    let done = Port::register(&*store, 3);
    for ticket in 0..50 {
        let op = Op::Claim {
            table: FACTS,
            key: bytes("k"),
            value: bytes(&ticket.to_string()),
        };
        submit(
            &*store,
            Batch {
                port: 3,
                ticket,
                scope: Scope::default(),
                ops: vec![op],
            },
        );
    }
    let mut won = 0;
    for _ in 0..50 {
        if let Completion::Written {
            outcome: Outcome::Stored,
            ..
        } = done.recv_timeout(PATIENCE).expect("completed")
        {
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
                    submit(
                        &*store,
                        Batch {
                            port,
                            ticket,
                            scope: Scope::default(),
                            ops,
                        },
                    );
                }
                for i in 0..PER_PORT {
                    let Completion::Written { ticket, outcome } =
                        done.recv_timeout(PATIENCE).expect("completed")
                    else {
                        panic!("a read was never asked for")
                    };
                    assert_eq!(outcome, Outcome::Stored);
                    let expected = next.entry(ticket % 10).or_insert(ticket % 10);
                    assert_eq!(ticket, *expected, "one log's completions in order");
                    *expected += 10;
                    if i % 97 == 0 {
                        let seen = rows(&*store, n(ticket), ticket / 10).expect("read");
                        assert_eq!(
                            seen.first().map(|r| r.row.clone()),
                            Some(bytes(&ticket.to_string()))
                        );
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
    let fact = Read::Fact {
        table: FACTS,
        key: bytes("none"),
    };
    let set = Read::Set {
        table: SET,
        partition: bytes("p"),
        after: None,
        up_to: None,
        limit: 9,
    };
    store.read(5, 77, vec![fact, set]);
    let Completion::Read { ticket: 77, answers } = done.recv_timeout(PATIENCE).expect("completed") else {
        panic!("not the read")
    };
    let answers = answers.expect("answered");
    assert_eq!(answers[0], ReadAnswer::Fact(None));
    assert_eq!(
        answers[1],
        ReadAnswer::Set {
            elements: vec![(bytes("e"), bytes("v"))],
            more: false
        }
    );
}

/// After `close` nothing is taken any more.
pub fn a_closed_store_takes_nothing(store: Arc<dyn Store>) {
    stored(&client(&store), vec![append(1, 1, "a")]);
    store.close().expect("closed");
    let batch = Batch {
        port: 7,
        ticket: 9,
        scope: Scope::default(),
        ops: vec![append(1, 2, "b")],
    };
    assert!(matches!(store.submit(batch), Submission::Busy(b) if b.ticket == 9));
}
