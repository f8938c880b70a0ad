//! A node whose store does not answer, on a real Cassandra behind a proxy: it waits for it at its start, is not ready while it lacks its lease, and ends at
//! once when it is asked to.

use std::time::{Duration, Instant};

use godwit_cluster_tests::around::Around;
use godwit_cluster_tests::nodes::Nodes;
use serde_json::Value;

use crate::{beside_another, cassandra};

/// What a busy machine may take for something that is a matter of seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// `GET /readyz`: the status, and what the problem says; `None`: nobody answers.
fn asked(nodes: &Nodes, path: &str) -> Option<(u16, String)> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(2)))
        .build()
        .into();
    let mut answer = agent.get(format!("{}{path}", nodes.http(0))).call().ok()?;
    let body: Value = serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()?;
    let detail = body["detail"].as_str().unwrap_or_default().to_owned();
    Some((answer.status().as_u16(), detail))
}

fn until(nodes: &mut Nodes, what: &str, mut holds: impl FnMut(&mut Nodes) -> bool) {
    let began = Instant::now();
    while !holds(nodes) {
        nodes.check().unwrap();
        assert!(
            began.elapsed() < PATIENCE,
            "{what} does not come, the node says {:?}\n{}",
            asked(nodes, "/readyz"),
            nodes.tails()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_ready(nodes: &Nodes) -> bool {
    asked(nodes, "/readyz").is_some_and(|(status, _)| status == 200)
}

#[test]
fn a_node_waits_for_its_store_at_the_start_and_is_not_ready_while_it_does_not_reach_it() {
    let _beside = beside_another();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cassandra = cassandra();
    let folder = tempfile::tempdir().unwrap();
    let keyspace = format!("s{:x}", std::process::id());
    let around = Around {
        proxies: true,
        ..Around::default()
    };
    let mut nodes = Nodes::new(folder.path(), cassandra, &keyspace, 1, around, &[]).unwrap();

    // The schema, on a store that takes 9 s for a table: longer than any write may take.
    let session = runtime.block_on(cassandra.session()).unwrap();
    let drop = format!("DROP TABLE {keyspace}_own.drains");
    runtime.block_on(session.query_unpaged(drop, ())).unwrap();
    nodes.around.claims.delay_schema(Duration::from_secs(9));
    let began = Instant::now();
    nodes.repeat_schema(0, &keyspace).unwrap();
    assert!(
        began.elapsed() >= Duration::from_secs(9),
        "no answer was late: nothing was tested"
    );

    // No answer to a lightweight transaction, or to a read of what became of one, comes: it is waited for.
    nodes.around.claims.mute(true);
    nodes.spawn(0).unwrap();
    until(&mut nodes, "a word about the store", |nodes| {
        nodes.tail(0).contains("cannot start yet")
    });
    assert_eq!(asked(&nodes, "/readyz"), None);
    // Who asks it to end is heard, though the store is not.
    let took = nodes.stop(0).unwrap();
    assert!(took < Duration::from_secs(5), "{took:?}");
    nodes.spawn(0).unwrap();
    std::thread::sleep(Duration::from_secs(6));
    nodes.check().unwrap();
    nodes.around.claims.mute(false);
    until(&mut nodes, "a start", |nodes| is_ready(nodes));

    // What it asks the store comes too late for a lease.
    nodes.around.pace.slow(Duration::from_secs(5), 0);
    until(&mut nodes, "the end of the lease", |nodes| {
        asked(nodes, "/readyz").is_some_and(|(status, why)| status == 503 && why.starts_with("no lease"))
    });
    assert_eq!(asked(&nodes, "/healthz").map(|(status, _)| status), Some(200));
    nodes.around.pace.fast();
    until(&mut nodes, "a lease", |nodes| is_ready(nodes));
    nodes.stop(0).unwrap();
}
