//! Plain MQTT over three real nodes: every client is at a node that is not its home. Filters with wildcards in their first levels, retained
//! messages, QoS 2 both ways, a shared subscription, TLS and WebSocket; then a node is killed by which a client with a will and a member came.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use godwit_cassandra::Cluster;
use godwit_cluster_tests::around::Around;
use godwit_cluster_tests::nodes::Nodes;
use godwit_e2e::node::Ports;
use godwit_e2e::rest::Api;
use godwit_e2e::world::{User, make_users};
use godwit_wire::ids::{Key, UserId};
use rustls::pki_types::CertificateDer;

use crate::plain::{Came, Client, PATIENCE, Way};
use crate::{beside_another, cassandra};

/// Topics, so that each node is home of some.
const TOPICS: usize = 12;
/// Messages for the group in each part.
const SHARED: usize = 40;
/// A payload of more than a window between nodes.
const LARGE: usize = 150_000;

/// The node that has taken a user's, or a topic's, shard up.
fn holder(nodes: &Nodes, key: &Key) -> Option<usize> {
    (0..nodes.count()).find(|&one| {
        let said = nodes.shards(one);
        said.is_some_and(|said| {
            let mut held = said.shards.iter().filter(|shard| shard.since.is_some());
            held.any(|shard| shard.group == "users" && shard.shard == key.shard())
        })
    })
}

/// A user of each node.
fn users(nodes: &Nodes) -> Result<[User; 3]> {
    let api = Api::new(&nodes.http(0));
    let mut found = [None, None, None];
    for round in 0..10 {
        for user in make_users(&api, 3, &format!("t{round}-"))? {
            let id: UserId = user.id.parse().ok().context("an id")?;
            if let Some(home) = holder(nodes, &Key::User(id)) {
                found[home].get_or_insert(user);
            }
        }
        if let [Some(zero), Some(one), Some(two)] = &found {
            return Ok([zero.clone(), one.clone(), two.clone()]);
        }
    }
    bail!("a node is nobody's home")
}

/// A pair of first levels whose home is not the node that is killed.
fn topic(nodes: &Nodes, name: &str) -> Result<String> {
    let mut names = (0..64).map(|n| format!("{name}/{n}"));
    let stays = |topic: &String| matches!(holder(nodes, &Key::of_topic(topic)), Some(0 | 1));
    names.find(stays).context("no topic has its home at n0 or n1")
}

fn texts(came: &[Came]) -> Vec<String> {
    let mut texts: Vec<String> = came
        .iter()
        .map(|one| String::from_utf8_lossy(&one.payload).into_owned())
        .collect();
    texts.sort();
    texts
}

/// The certificate of a listener of TLS at n0, and where it is.
fn with_tls(folder: &Path, nodes: &mut Nodes) -> Result<Way> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let (certificate, key) = (folder.join("tls.pem"), folder.join("tls.key"));
    std::fs::write(&certificate, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    let at = format!("127.0.0.1:{}", Ports::free()?.mqtt);
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    nodes.add_arguments(
        0,
        &[
            "--mqtts",
            &at,
            "--https",
            "off",
            "--tls-cert",
            &certificate,
            "--tls-key",
            &key,
        ],
    );
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(made.cert.der().to_vec()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Way::Tls(at.parse()?, Arc::new(config)))
}

fn wildcards_and_retained(a: &mut Client, b: &mut Client, late: &mut Client) -> Result<()> {
    a.subscribe("a/+/x", 1)?;
    for n in 0..TOPICS {
        ensure!(b.publish(&format!("a/{n}/x"), format!("{n:02}").as_bytes(), 1, false)? == 0);
    }
    let all: Vec<String> = (0..TOPICS).map(|n| format!("{n:02}")).collect();
    ensure!(texts(&a.next(TOPICS)?) == all, "through a wildcard in the key");

    for n in 0..TOPICS {
        ensure!(b.publish(&format!("r/{n}/v"), format!("{n:02}").as_bytes(), 1, true)? < 0x80);
    }
    late.subscribe("r/+/v", 1)?;
    let got = late.next(TOPICS)?;
    ensure!(
        texts(&got) == all && got.iter().all(|one| one.retain),
        "retained: {got:?}"
    );
    for n in 0..TOPICS {
        ensure!(b.publish(&format!("r/{n}/v"), b"", 1, true)? < 0x80);
    }
    let cleared = late.next(TOPICS)?;
    ensure!(cleared.iter().all(|one| one.payload.is_empty() && !one.retain));
    a.subscribe("r/+/v", 1)?;
    a.subscribe("r/3/#", 1)?;
    b.publish("r/3/v", b"new", 1, false)?;
    // Overlapping filters may bring it once or twice; nothing that was cleared comes first.
    let got = a.next(1)?;
    ensure!(texts(&got) == ["new"] && !got[0].retain, "cleared: {got:?}");
    a.came(Duration::from_millis(200))?;
    late.came(Duration::from_millis(200))?;
    Ok(())
}

fn twice_never(a: &mut Client, b: &mut Client) -> Result<()> {
    for (from, to, name) in [(0, 1, "q/1"), (1, 0, "q/2")] {
        let both = [&mut *a, &mut *b];
        both[to].subscribe(&format!("{name}/#"), 2)?;
        for n in 0..10 {
            let reason = both[from].publish(&format!("{name}/z"), format!("{n}").as_bytes(), 2, false)?;
            ensure!(reason == 0, "PUBREC {reason:#x}");
        }
        let mut got = both[to].next(10)?;
        got.extend(both[to].came(Duration::from_millis(300))?);
        let once: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        ensure!(
            texts(&got) == once && got.iter().all(|one| one.qos == 2),
            "QoS 2: {got:?}"
        );
    }
    Ok(())
}

/// What two members got between them, once there is so much.
fn of_both(one: &mut Client, other: &mut Client, count: usize) -> Result<(Vec<Came>, Vec<Came>)> {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    let until = Instant::now() + PATIENCE;
    while ones.len() + others.len() < count && Instant::now() < until {
        ones.extend(one.came(Duration::from_millis(50))?);
        others.extend(other.came(Duration::from_millis(50))?);
    }
    ones.extend(one.came(Duration::from_millis(100))?);
    others.extend(other.came(Duration::from_millis(100))?);
    Ok((ones, others))
}

fn large(way: &str, client: &mut Client, b: &mut Client) -> Result<()> {
    let topic = format!("l/{way}/x");
    client.subscribe(&topic, 1)?;
    b.subscribe(&format!("l/{way}/back"), 1)?;
    let payload = vec![7; LARGE];
    ensure!(b.publish(&topic, &payload, 1, false)? == 0);
    ensure!(client.next(1)?[0].payload == payload, "to a client by {way}");
    ensure!(client.publish(&format!("l/{way}/back"), &payload, 1, false)? == 0);
    ensure!(b.next(1)?[0].payload == payload, "of a client by {way}");
    Ok(())
}

fn run(folder: &Path, cassandra: &Cluster) -> Result<()> {
    let keyspace = format!("t{:x}", std::process::id());
    let rule = ["--acl", "allow both users #"];
    let mut nodes = Nodes::new(folder, cassandra, &keyspace, 3, Around::default(), &rule)?;
    let tls = with_tls(folder, &mut nodes)?;
    let began = Instant::now();
    let passed = |what: &str| eprintln!("{:6.1} s: {what}", began.elapsed().as_secs_f64());
    nodes.start_all()?;
    passed("formed");
    let [zero, one, two] = users(&nodes)?;
    passed("users");
    let at = |node: usize| Way::Tcp(nodes.mqtt_of(node));
    let mut a = Client::connect(&at(1), 5, &zero, "a", None)?;
    let mut b = Client::connect(&at(0), 4, &one, "b", None)?;
    let mut late = Client::connect(&at(0), 4, &two, "late", None)?;
    wildcards_and_retained(&mut a, &mut b, &mut late)?;
    passed("wildcards, retained");
    twice_never(&mut a, &mut b)?;
    passed("QoS 2");
    let http = nodes.http(1);
    let http = http.trim_start_matches("http://").trim_end_matches('/').parse()?;
    let mut by_web = Client::connect(&Way::WebSocket(http), 5, &two, "web", None)?;
    large("web", &mut by_web, &mut b)?;
    let mut by_tls = Client::connect(&tls, 4, &two, "tls", None)?;
    large("tls", &mut by_tls, &mut b)?;
    drop((by_web, by_tls, late));
    passed("TLS, WebSocket");

    // A group of which one member, and a client with a will, come by n2.
    let (shared, last) = (topic(&nodes, "s")?, topic(&nodes, "w")?);
    let filter = format!("$share/g/{shared}/#");
    let mut member = Client::connect(&at(1), 5, &zero, "member", None)?;
    let mut gone = Client::connect(&at(2), 5, &one, "gone", None)?;
    member.subscribe(&filter, 1)?;
    gone.subscribe(&filter, 1)?;
    let willing = Client::connect(
        &at(2),
        4,
        &zero,
        "willing",
        Some((&format!("{last}/x"), "farewell")),
    )?;
    a.subscribe(&format!("{last}/#"), 1)?;
    let mut from = Client::connect(&at(0), 5, &one, "from", None)?;
    let mut give = |numbers: std::ops::Range<usize>| -> Result<Vec<String>> {
        for n in numbers.clone() {
            from.publish_at_last(&format!("{shared}/x"), format!("{n:03}").as_bytes())?;
        }
        Ok(numbers.map(|n| format!("{n:03}")).collect())
    };
    let given = give(0..SHARED)?;
    let (ones, others) = of_both(&mut member, &mut gone, SHARED)?;
    ensure!(!ones.is_empty() && !others.is_empty(), "both are members");
    ensure!(texts(&[ones, others].concat()) == given, "each to one of both");
    gone.acknowledges = false;
    let given = give(SHARED..2 * SHARED)?;
    let (ones, others) = of_both(&mut member, &mut gone, SHARED)?;
    ensure!(
        texts(&[&ones[..], &others].concat()) == given,
        "each to one of both"
    );
    ensure!(!others.is_empty(), "the one that does not acknowledge has some");
    passed("shared");
    nodes.kill(2)?;
    let left = texts(&others);
    ensure!(
        texts(&member.next(left.len())?) == left,
        "what it had not acknowledged comes to the other"
    );
    ensure!(
        texts(&a.next(1)?) == ["farewell"],
        "the will of who came by the node that died"
    );
    let given: BTreeSet<String> = give(2 * SHARED..2 * SHARED + 10)?.into_iter().collect();
    let got: BTreeSet<String> = texts(&member.next(10)?).into_iter().collect();
    ensure!(
        got.is_subset(&given) && !got.is_empty(),
        "what comes later goes to it too"
    );
    passed("without n2");
    drop((gone, willing));
    Ok(())
}

#[test]
fn plain_clients_at_other_nodes_than_their_homes_have_everything_and_a_group_and_a_will_outlive_a_node() {
    let _beside = beside_another();
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    if let Err(error) = run(folder.path(), cassandra()) {
        panic!("{error:#}\nkept {}", folder.keep().display());
    }
    eprintln!("took {:?}", began.elapsed());
}
