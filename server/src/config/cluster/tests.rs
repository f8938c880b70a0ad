//! What a node of a cluster must say, may say and must not.

use std::path::Path;

use super::*;
use crate::Settings;

/// The least that a node of a cluster says.
fn options() -> Config {
    let mut config = Config::on(Path::new("/tmp/x")).unwrap();
    config.store = Engine::Cql;
    config.cql_nodes = vec!["127.0.0.1".into()];
    config.node_name = Some("n1".into());
    config.peer = "127.0.0.1:7883".parse().unwrap();
    config
}

fn cluster(config: Config) -> Cluster {
    Settings::of(config).unwrap().cluster.unwrap()
}

#[test]
fn a_node_tells_where_it_is_reached_unless_it_listens_everywhere() {
    let mut config = options();
    config.mqtt = "0.0.0.0:1883".parse().unwrap();
    let about = cluster(config.clone()).about;
    let told = [about.peer.as_str(), &about.mqtt, &about.http];
    assert_eq!(told, ["127.0.0.1:7883", "", "127.0.0.1:8080"]);
    assert_eq!((about.name.as_str(), about.roles), ("n1", Roles::ALL));
    config.peer = "[::]:7883".parse().unwrap();
    let error = Settings::of(config.clone()).unwrap_err().to_string();
    assert!(error.contains("peer_advertise"), "{error}");
    config.peer_advertise = Some("n1.example.org:7883".into());
    config.advertise_mqtt = Some("n1.example.org:1883".into());
    let about = cluster(config).about;
    assert_eq!(
        [&about.peer[..], &about.mqtt],
        ["n1.example.org:7883", "n1.example.org:1883"]
    );
}

#[test]
fn nodes_know_each_other_by_the_stores_key_or_a_given_one_or_certificates() {
    let mut config = options();
    assert_eq!(cluster(config.clone()).trust, PeerTrust::Stored);
    config.peer_key = Some(Hidden("sixteen letters!".into()));
    assert!(matches!(cluster(config.clone()).trust, PeerTrust::Key(_)));
    config.peer_key = None;
    config.peer_tls_cert = Some("a".into());
    config.peer_tls_key = Some("b".into());
    config.peer_tls_ca = Some("c".into());
    assert!(matches!(cluster(config).trust, PeerTrust::Tls { .. }));
}

#[test]
fn copies_are_a_number_or_numbers_by_data_centre() {
    let read = |text: &str| text.parse::<Copies>().map(|copies| copies.0);
    assert_eq!(read("3").unwrap(), cql::Replication::Simple(3));
    let two = vec![("dc1".to_owned(), 3), ("dc2".to_owned(), 2)];
    assert_eq!(read("dc1:3, dc2:2").unwrap(), cql::Replication::Datacenters(two));
    for bad in [
        "",
        "0",
        "16",
        "many",
        "dc1",
        "dc1:",
        ":3",
        "dc1:3,dc1:3",
        "dc1:3,2",
        "a:b:3",
    ] {
        assert!(read(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn what_a_cluster_needs_and_what_a_node_alone_must_not_have_is_named() {
    type Change = (&'static str, fn(&mut Config));
    let changes: [Change; 22] = [
        ("node_name", |c| c.node_name = None),
        ("node_name", |c| c.node_name = Some("a b".into())),
        ("node_name", |c| c.node_name = Some("n".repeat(65))),
        ("needs peer", |c| c.peer = Listen::Off),
        ("cql_nodes", |c| c.cql_nodes.clear()),
        ("cql_nodes", |c| c.cql_nodes = vec!["http://a".into()]),
        ("cql_keyspace", |c| c.cql_keyspace = "Godwit".into()),
        ("cql_password", |c| c.cql_user = Some("u".into())),
        ("cql_tls_ca", |c| {
            c.cql_tls_cert = Some("x".into());
            c.cql_tls_key = Some("y".into());
        }),
        ("need each other", |c| {
            c.cql_tls_ca = Some("x".into());
            c.cql_tls_key = Some("y".into());
        }),
        ("cluster", |c| c.cluster = String::new()),
        ("roles", |c| c.roles.clear()),
        ("peer_key", |c| c.peer_key = Some(Hidden("short".into()))),
        ("peer_tls_ca", |c| c.peer_tls_cert = Some("x".into())),
        ("exclude", |c| {
            c.peer_key = Some(Hidden("sixteen letters!".into()));
            c.peer_tls_ca = Some("x".into());
        }),
        ("advertise_mqtt", |c| c.advertise_mqtt = Some("host".into())),
        ("advertise_http", |c| c.advertise_http = Some("host:0".into())),
        ("cql_nodes needs store", |c| c.store = Engine::Embedded),
        ("peer needs store", |c| {
            c.store = Engine::Embedded;
            c.cql_nodes.clear();
            c.node_name = None;
        }),
        ("roles needs store", |c| {
            *c = Config::on(Path::new("/tmp/x")).unwrap();
            c.roles = vec![NodeRole::Broker];
        }),
        ("cql_tls_ca needs store", |c| {
            *c = Config::on(Path::new("/tmp/x")).unwrap();
            c.cql_tls_ca = Some("x".into());
        }),
        ("peer_key needs store", |c| {
            *c = Config::on(Path::new("/tmp/x")).unwrap();
            c.peer_key = Some(Hidden("sixteen letters!".into()));
        }),
    ];
    for (named, change) in changes {
        let mut config = options();
        change(&mut config);
        let error = Settings::of(config).unwrap_err().to_string();
        assert!(error.contains(named) && !error.contains('\n'), "{named}: {error}");
    }
    assert!(
        "brocker"
            .parse::<NodeRole>()
            .unwrap_err()
            .to_string()
            .contains("brocker")
    );
}
