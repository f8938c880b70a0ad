//! From operations to rows of the journal. Not here: the order of commits.

use super::layout::{clustering, kind, long_name, push_pkey};
use super::overlay::head_bytes;
use super::record::{Act, push_row};
use crate::types::{Op, View};

/// Writes the row of one operation into the record. A claim is written as if its key were new.
pub(super) fn push_op(record: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Append { log, view, seq, row } => {
            let key = |out: &mut Vec<u8>| push_pkey(out, kind::LOG, log.table.id, log.id.as_bytes());
            push_row(
                record,
                Act::Put,
                key,
                &seq.to_be_bytes(),
                &[&view.to_be_bytes(), row],
            );
        }
        Op::Head { log, head } => {
            let key = |out: &mut Vec<u8>| push_pkey(out, kind::LOG, log.table.id, log.id.as_bytes());
            push_row(record, Act::Head, key, b"", &[&head_bytes(*head)]);
        }
        Op::Put {
            table,
            partition,
            name,
            view,
            value,
        } => {
            let key = |out: &mut Vec<u8>| push_pkey(out, kind::ROWS, table.id, partition);
            match value {
                Some(value) => push_named(record, key, name, &[&view.to_be_bytes(), value]),
                None => push_row(record, Act::Delete, key, &clustering(name), &[]),
            }
        }
        Op::Insert {
            table,
            partition,
            element,
            value,
        } => {
            let key = |out: &mut Vec<u8>| push_pkey(out, kind::SET, table.id, partition);
            push_named(record, key, element, &[value]);
        }
        Op::Remove {
            table,
            partition,
            element,
        } => {
            let key = |out: &mut Vec<u8>| push_pkey(out, kind::SET, table.id, partition);
            push_row(record, Act::Delete, key, &clustering(element), &[]);
        }
        Op::Claim { table, key, value } => {
            let pkey = |out: &mut Vec<u8>| push_pkey(out, kind::FACTS, table.id, key);
            push_row(record, Act::Put, pkey, b"", &[value]);
        }
    }
}

fn push_named(record: &mut Vec<u8>, key: impl FnOnce(&mut Vec<u8>) -> usize, name: &[u8], value: &[&[u8]]) {
    match long_name(name) {
        None => push_row(record, Act::Put, key, name, value),
        Some(len) => {
            let mut pieces: Vec<&[u8]> = vec![&len, name];
            pieces.extend_from_slice(value);
            push_row(record, Act::Put, key, &clustering(name), &pieces);
        }
    }
}

/// The view of a write that is ordered by views.
pub(super) fn view_of(op: &Op) -> Option<View> {
    match op {
        Op::Put { view, .. } => Some(*view),
        _ => None,
    }
}
