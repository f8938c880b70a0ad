//! What the CQL engine promises beyond the conformance suite, and the words that the cases share.

mod coordination;
mod measure;
mod node;
mod owners;
mod rows;

use std::sync::Arc;

use godwit_store::blocking::Client;
use godwit_store::cql::Cql;
use godwit_store::testsuite::{log, rows as rows_of};
use godwit_store::{Head, Op, Read, ReadAnswer, Scope};

use super::cql_common::bytes;

pub(crate) fn scope(view: u64) -> Scope {
    Scope { shard: 7, view }
}

pub(crate) fn append(n: u128, view: u64, seq: u64, row: &str) -> Op {
    let (log, row) = (log(n), bytes(row));
    Op::Append { log, view, seq, row }
}

pub(crate) fn head(n: u128, confirmed: u64, floor: u64) -> Op {
    let (log, head) = (log(n), Head { confirmed, floor });
    Op::Head { log, head }
}

pub(crate) fn under(store: &Arc<Cql>, view: u64) -> Client {
    Client::new(store.clone(), view as u16).under(scope(view))
}

pub(crate) fn take_up(client: &Client, n: u128, view: u64) -> (Head, Vec<String>) {
    let (log, scope) = (log(n), scope(view));
    match client.read(Read::TakeUp { log, scope }).expect("taken up") {
        ReadAnswer::TakeUp { head, rows } => (head, rows.iter().map(|r| text(&r.row)).collect()),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn contents(store: &Arc<Cql>, n: u128) -> Vec<String> {
    rows_of(&**store, n, 0)
        .expect("read")
        .iter()
        .map(|r| text(&r.row))
        .collect()
}
