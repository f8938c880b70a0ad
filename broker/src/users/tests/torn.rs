//! Batches that are there by halves, as on CQL when their writer dies: what is due is in another partition than what it is
//! about. Whichever half landed, a will fires and a session ends.

use bytes::Bytes;
use godwit_store::Op;

use super::clients::*;
use super::rig::*;
use crate::packet::{Connect, Version, Will};
use crate::tables::{DUE, USER_ROWS};

const V5: Version = Version::V5;

fn with_will(mut connect: Connect, delay: u32) -> Connect {
    connect.will = Some(Box::new(Will {
        topic: "iot/alice/gone".into(),
        payload: Bytes::from_static(b"gone"),
        qos: 1,
        retain: false,
        delay,
        message_expiry: None,
        properties: None,
    }));
    connect
}

fn is_due_row(op: &Op) -> bool {
    matches!(op, Op::Insert { table, .. } | Op::Remove { table, .. } if table.id == DUE.id)
}

/// Everything else of the batch, or the due rows alone.
const HALVES: [fn(&Op) -> bool; 2] = [|op| !is_due_row(op), is_due_row];

#[test]
fn a_will_that_was_moved_by_half_is_published_all_the_same() {
    for (half, keeps) in HALVES.into_iter().enumerate() {
        let mut rig = Rig::new();
        let alice = user("alice");
        rig.pass(31_000);
        let conn = rig.connect(&alice, with_will(persistent(V5, "c"), 5));
        rig.pass(1_000);
        rig.hold(true);
        rig.vanish(conn);
        rig.store.tear(keeps);
        rig.crash();
        rig.pass(120_000);
        assert_eq!(rig.published.len(), 1, "half {half}");
    }
}

#[test]
fn a_session_whose_end_was_moved_by_half_ends_all_the_same() {
    let rows_gone = |keeps: fn(&Op) -> bool| {
        let mut rig = Rig::new();
        let alice = user("alice");
        rig.pass(31_000);
        rig.connect(&alice, persistent(V5, "c"));
        let connected = rig.store.rows_of_table(USER_ROWS.id);
        rig.pass(3_500_000);
        rig.hold(true);
        // Its row comes up, and is moved, since its client is there.
        rig.pass(200_000);
        rig.store.tear(keeps);
        rig.crash();
        rig.pass(3 * 3_600_000);
        assert_eq!(rig.store.rows_of_table(DUE.id), 0);
        connected - rig.store.rows_of_table(USER_ROWS.id)
    };
    let gone = rows_gone(|_| true);
    assert!(gone > 0);
    for (half, keeps) in HALVES.into_iter().enumerate() {
        assert_eq!(rows_gone(keeps), gone, "half {half}");
    }
}
