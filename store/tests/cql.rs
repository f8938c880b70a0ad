//! The CQL engine on a real Cassandra: the conformance suite, and in `cql_cases` what it promises beyond it. What happens when the server
//! stops or dies is in `cql_faults.rs`.

#[path = "cql_common/apart.rs"]
mod apart;
mod cql_cases;
mod cql_common;

use std::sync::Arc;

use apart::Apart;
use cql_common::store;
use godwit_store::Store;

fn make() -> (Arc<dyn Store>, ()) {
    (Arc::new(Apart::new(store())), ())
}

godwit_store::conformance!(cql, super::make);
