//! The wiring as tests use it: several nodes in one process, ports of their own, ended and started again.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::TcpListener;

use godwit_server::{Config, Listeners, Shutdown, StartError, serve};
use support::get;

#[test]
fn several_nodes_live_in_one_process_and_end_on_their_own() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let start = |folder: &tempfile::TempDir| {
        let config = Config::on(&folder.path().join("data")).unwrap();
        serve(config, Some(Listeners::any_port().unwrap()), Shutdown::default()).unwrap()
    };
    let ready = |port: u16| get(&format!("http://127.0.0.1:{port}/readyz")).map(|(status, _)| status);
    let (one, other) = (start(&folders[0]), start(&folders[1]));
    let port = |node: &godwit_server::Running| node.addresses().http.unwrap().port();
    let (port_one, port_other) = (port(&one), port(&other));
    assert_eq!((ready(port_one), ready(port_other)), (Some(200), Some(200)));
    one.stop();
    assert_eq!((ready(port_one), ready(port_other)), (None, Some(200)));
    let again = start(&folders[0]);
    assert_eq!(ready(port(&again)), Some(200));
}

#[test]
fn a_start_that_fails_leaves_nothing_running() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = Config::on(&folder.path().join("data")).unwrap();
    for listen in [&mut config.mqtt, &mut config.admin, &mut config.http] {
        *listen = godwit_server::config::Listen::Off;
    }
    config.http = taken.local_addr().unwrap().to_string().parse().unwrap();
    let error = serve(config.clone(), None, Shutdown::default()).err().unwrap();
    assert!(
        matches!(&error, StartError::Listen { option: "http", .. }),
        "{error}"
    );
    let node = serve(config, Some(Listeners::any_port().unwrap()), Shutdown::default()).unwrap();
    node.stop();
}

#[test]
fn the_crates_mean_the_same_table_by_the_same_number_and_share_no_other() {
    use godwit_accounts::tables as accounts;
    use godwit_broker::tables as broker;
    use godwit_ingest as ingest;
    assert_eq!(broker::CONVERSATION_LOG, ingest::CONVERSATION_LOG);
    let tables = [
        accounts::USER_NAMES,
        accounts::USER_EMAILS,
        accounts::USERS,
        accounts::DEVICE_TOKENS,
        accounts::USER_CONVERSATIONS,
        broker::MAILBOX,
        broker::SESSION_LOG,
        broker::USER_ROWS,
        broker::DUE,
        ingest::CONVERSATION_LOG,
        ingest::CLIENT_IDS,
        ingest::CONVERSATION_ROWS,
        ingest::MESSAGE_IDS,
        ingest::OPEN_TAILS,
        ingest::CONVERSATIONS,
    ];
    let ids: std::collections::HashSet<u16> = tables.iter().map(|table| table.id).collect();
    assert_eq!(ids.len(), tables.len());
}
