//! Nodes that each do a part: one REST and search, two the rest. Who does not do a thing takes no shards of it and opens no door for it; together
//! they serve everything.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use godwit_cassandra::Cluster;
use godwit_cluster_tests::around::Around;
use godwit_cluster_tests::nodes::Nodes;
use godwit_e2e::rest::Api;
use godwit_e2e::world::{User, make_users};
use serde_json::Value;

use crate::{beside_another, cassandra};

/// A message is findable within two seconds; the rest is for a slow machine.
const FINDABLE: Duration = Duration::from_secs(20);

/// Kinds of shards that a node has taken up.
fn kinds(nodes: &Nodes, number: usize) -> Vec<String> {
    let said = nodes.shards(number).map(|said| said.shards).unwrap_or_default();
    let held = said.into_iter().filter(|shard| shard.since.is_some());
    let mut kinds: Vec<String> = held.map(|shard| shard.group).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// A client of mosquitto's at a node; gives what it printed.
fn mosquitto(tool: &str, at: SocketAddr, user: &User, client: &str, more: &[&str]) -> Result<String> {
    let output = Command::new(tool)
        .args([
            "-h",
            &at.ip().to_string(),
            "-p",
            &at.port().to_string(),
            "-q",
            "1",
        ])
        .args(["-u", &user.name, "-P", &user.token, "-i", client])
        .args(more)
        .output()?;
    ensure!(
        output.status.success(),
        "{tool} {more:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run(folder: &Path, cassandra: &Cluster) -> Result<()> {
    let keyspace = format!("r{:x}", std::process::id());
    let mut nodes = Nodes::new(folder, cassandra, &keyspace, 3, Around::default(), &[])?;
    nodes.add_arguments(0, &["--roles", "api,search"]);
    nodes.add_arguments(1, &["--roles", "broker,ingest"]);
    nodes.add_arguments(2, &["--roles", "broker,ingest"]);
    nodes.start_all()?;
    let (rest, mqtt) = (Api::new(&nodes.http(0)), nodes.mqtt());

    ensure!(kinds(&nodes, 0) == ["index"], "n0 holds {:?}", kinds(&nodes, 0));
    for number in [1, 2] {
        let kinds = kinds(&nodes, number);
        ensure!(
            !kinds.is_empty() && !kinds.contains(&"index".to_owned()),
            "n{number} holds {kinds:?}"
        );
    }
    ensure!(TcpStream::connect(mqtt[0]).is_err(), "n0 listens for MQTT");
    let users = make_users(&rest, 2, "r")?;
    let [alice, bob] = &users[..] else {
        bail!("two users")
    };
    let elsewhere = Api::new(&nodes.http(1)).get("/users/me", &alice.token);
    ensure!(
        elsewhere.is_err_and(|refused| refused.status == 404),
        "n1 serves REST"
    );

    // Wherever they live, it is at a node that lets them in.
    let (_, told) = rest.get("/connect", &alice.token)?;
    let home = told["mqtt"].as_str().context("where to go by MQTT")?;
    ensure!(
        told.get("http").is_none() && mqtt[1..].iter().any(|at| at.to_string() == home),
        "{told}"
    );
    mosquitto(
        "mosquitto_sub",
        mqtt[2],
        bob,
        "phone",
        &["-c", "-t", "me/inbox/text", "-E"],
    )?;
    let topic = format!("c/@{}/send/text", bob.name);
    mosquitto(
        "mosquitto_pub",
        mqtt[1],
        alice,
        "laptop",
        &["-t", &topic, "-m", "a heron by the river"],
    )?;
    let got = mosquitto(
        "mosquitto_sub",
        mqtt[2],
        bob,
        "phone",
        &["-c", "-t", "me/inbox/text", "-C", "1", "-W", "20"],
    )?;
    ensure!(got.contains("a heron by the river"), "{got:?}");

    let (_, conversations) = rest.get("/conversations", &bob.token)?;
    let id = conversations["conversations"][0]["conversation_id"].as_str();
    let history = rest.history(&bob.token, id.context("a conversation")?)?;
    ensure!(history.len() == 1, "{history:?}");
    let since = Instant::now();
    loop {
        let (_, found) = rest.get("/search?query=heron", &bob.token)?;
        if found["results"]
            .as_array()
            .is_some_and(|results| results.len() == 1)
            && found["partial"] == Value::Bool(false)
        {
            return Ok(());
        }
        ensure!(since.elapsed() < FINDABLE, "not found: {found}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn nodes_with_different_roles_take_no_shards_and_open_no_doors_of_others_and_serve_everything_together() {
    let _beside = beside_another();
    let folder = tempfile::Builder::new()
        .prefix("godwit-roles-")
        .tempdir()
        .expect("a temporary folder");
    if let Err(error) = run(folder.path(), cassandra()) {
        panic!("kept {}: {error:#}", folder.keep().display());
    }
}
