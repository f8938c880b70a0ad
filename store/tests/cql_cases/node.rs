//! What a node of the product does with the engine: `godwit schema`, the secrets that all nodes share, joining and leaving. Its workers are not
//! here.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use godwit_cluster::own::{Homes, Layout, Standing};
use godwit_server::cluster::{self, Driver, Membership, Opened};
use godwit_server::config::Engine;
use godwit_server::{Config, Settings, Shutdown};
use godwit_store::coordination::Asked;
use godwit_store::{Store, View};
use uuid::Uuid;

use super::super::cql_common::{PATIENCE, cluster as cassandra, wait};

fn nodes() -> String {
    let nodes = cassandra().contact_points().iter().map(ToString::to_string);
    nodes.collect::<Vec<_>>().join(",")
}

fn keyspace() -> String {
    format!("node_{:08x}", Uuid::new_v4().as_fields().0)
}

fn schema(more: &[&str]) -> u8 {
    godwit_server::cli::run([&["godwit", "schema"], more].concat())
}

#[test]
fn the_schema_command_makes_it_once_and_says_when_it_is_missing_or_anothers() {
    let (nodes, keyspace) = (nodes(), keyspace());
    let of = [
        "--cql-nodes",
        &nodes,
        "--cql-keyspace",
        &keyspace,
        "--cql-replication",
        "1",
    ];
    let with = |more: &[&'static str]| schema(&[&of, more].concat());
    assert_eq!(with(&["--check"]), 1, "not made yet");
    assert_eq!(with(&[]), 0);
    assert_eq!(with(&[]), 0, "again");
    assert_eq!(with(&["--check"]), 0);
    assert_eq!(with(&["--cluster", "another"]), 1, "it is one cluster's");
    assert_eq!(with(&["--check", "--cql-datacenter", "elsewhere"]), 1);
    assert_eq!(schema(&[]), 2, "no store is named");
    assert_eq!(schema(&["--cql-nodes", "127.0.0.1:1"]), 1, "nobody answers there");
}

/// Nothing lives on the shards.
struct Nobody;

impl Homes for Nobody {
    fn let_go(&self, _view: View, _slots: Vec<u16>) -> Asked<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn take_up(&self, _view: View, _slots: Vec<u16>) {}

    fn moved(&self, _standing: Arc<Standing>) {}
}

fn open(keyspace: &str, name: &str) -> Opened {
    let mut config = Config::on(Path::new("/nowhere")).expect("the defaults");
    config.store = Engine::Cql;
    config.cql_nodes = nodes().split(',').map(str::to_owned).collect();
    config.cql_keyspace = keyspace.to_owned();
    config.node_name = Some(name.to_owned());
    // Nothing listens there.
    config.peer = "127.0.0.1:7883".parse().expect("an address");
    let settings = Settings::of(config).expect("a configuration");
    cluster::open(&settings.cluster.expect("a cluster"), &Shutdown::default()).expect("opened")
}

fn join(opened: Opened) -> (Membership, Driver) {
    opened.join(Arc::new(Nobody)).expect("a thread")
}

fn held(member: &Membership) -> Vec<u16> {
    let slots = 0..Layout::PRODUCT.slots() as u16;
    slots
        .filter(|slot| member.holdings().held(*slot).is_some())
        .collect()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nodes_share_secrets_and_all_slots_and_one_leaves_when_another_is_asked_for_that() {
    let (nodes, keyspace) = (nodes(), keyspace());
    let of = [
        "--cql-nodes",
        &nodes,
        "--cql-keyspace",
        &keyspace,
        "--cql-replication",
        "1",
    ];
    assert_eq!(schema(&of), 0);
    let all = Layout::PRODUCT.slots();
    let (one, two) = (open(&keyspace, "n1"), open(&keyspace, "n2"));
    let user = godwit_wire::ids::UserId::fresh();
    let (token, _) = one
        .tokens
        .issue(user, Uuid::now_v7(), 1_800_000_000_000)
        .expect("a token");
    assert!(
        two.tokens.check(&token.0, 1_800_000_000_000).is_some(),
        "one key signs for all"
    );
    assert!(one.peer_key.is_some() && one.peer_key == two.peer_key);

    let stores = [one.store.clone(), two.store.clone()];
    let (one, _driver) = join(one);
    until("the first has all", || held(&one).len() == all);
    let (two, driver) = join(two);
    until("they share", || {
        let (here, there) = (held(&one), held(&two));
        !there.is_empty() && here.len() + there.len() == all && !there.iter().any(|slot| here.contains(slot))
    });
    assert_eq!(stores[0].start_view(), 1);
    assert!(stores[1].start_view() > 1);

    let starts = [*one.start().borrow(), *two.start().borrow()].map(|start| start.expect("joined"));
    until("they know each other's addresses", || {
        let known = one.peers().borrow().clone();
        starts.iter().all(|start| {
            known
                .get(start)
                .is_some_and(|about| about.peer == "127.0.0.1:7883")
        })
    });
    let listed = wait(one.nodes()).expect("read");
    assert!(listed.acts && listed.this == "n1" && listed.cluster == "godwit");
    let names: Vec<(&str, &str, bool)> = listed
        .nodes
        .iter()
        .map(|node| {
            (
                node.name.as_str(),
                node.state.as_str(),
                node.heartbeat_ms.is_some(),
            )
        })
        .collect();
    assert_eq!(names, [("n1", "member", true), ("n2", "member", true)]);
    assert_eq!(
        listed.nodes.iter().flat_map(|node| node.shards).sum::<usize>(),
        all
    );
    assert_eq!(listed.nodes[0].held, Some(held(&one).len()));
    let shards = one.shards().expect("a view").shards;
    let of_two: Vec<bool> = shards
        .iter()
        .map(|shard| shard.node.as_deref() == Some("n2"))
        .collect();
    let held_by_two = held(&two);
    for (slot, is_two) in of_two.into_iter().enumerate() {
        assert_eq!(held_by_two.contains(&(slot as u16)), is_two, "slot {slot}");
    }

    assert!(!one.drain_node("n3").expect("asked"), "there is none");
    assert!(one.drain_node("n2").expect("asked"));
    until("it has left", || *two.left().borrow());
    until("the first has all again", || held(&one).len() == all);
    assert!(held(&two).is_empty());
    drop(driver);
    assert!(!*one.left().borrow());
    one.drain();
    until("the last one leaves, too", || *one.left().borrow());
}
