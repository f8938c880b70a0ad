//! What operators of a cluster ask for: the schema of its store, its nodes, its shards.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use godwit_store::cql::schema;

use super::{ask_admin, call_admin, load, say};
use crate::cli::Options;
use crate::cluster::admin::{Drain, Nodes, OneNode, Shards};
use crate::config::Config;

/// How long a running node may take to answer: it reads the store.
const ANSWER_TIME: Duration = Duration::from_secs(10);

pub(super) fn schema(check: bool, options: Options) -> anyhow::Result<()> {
    let options = load(options)?.cql()?;
    let tables = crate::cluster::tables();
    let report = if check {
        schema::check(&options, &tables)?
    } else {
        schema::create(&options, &tables)?
    };
    for name in &report.made {
        say(&format!("made {name}"))?;
    }
    for copies in &report.copies {
        say(&format!(
            "copies are not those of cql_replication in {copies}; to change them: ALTER KEYSPACE, then nodetool repair"
        ))?;
    }
    say(&format!(
        "the schema of cluster {} in keyspace {} is version {}: {} made, {} there before",
        options.cluster,
        options.keyspace,
        report.version,
        report.made.len(),
        report.found
    ))
}

pub(super) fn nodes(options: Options) -> anyhow::Result<()> {
    let config = load(options)?;
    let Some(nodes) = ask_admin::<Nodes>(&config, "/nodes", ANSWER_TIME)? else {
        return nobody(&config);
    };
    let mut out = std::io::stdout().lock();
    write!(out, "{}", table(&nodes)).context("standard output")
}

/// A head line about the view, one of titles, and a line a node.
fn table(nodes: &Nodes) -> String {
    let acts = if nodes.acts {
        ""
    } else {
        ", which may not act: its lease has ended"
    };
    let unsettled = match nodes.unsettled {
        0 => String::new(),
        count => format!(", {count} views before it not settled"),
    };
    let mut lines = format!(
        "cluster {}, view {}{unsettled}, as seen by {}{acts}\n",
        nodes.cluster, nodes.view, nodes.this
    );
    let mut rows = vec![
        [
            "NAME",
            "STATE",
            "ROLES",
            "SHARDS",
            "HELD",
            "VIEW",
            "HEARTBEAT",
            "PEER",
            "MQTT",
            "HTTP",
            "START",
        ]
        .map(str::to_owned),
    ];
    rows.extend(nodes.nodes.iter().map(row));
    let widths: [usize; 11] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].len()).max().unwrap_or(0));
    for row in &rows {
        let cells: Vec<String> = (row.iter().zip(widths))
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        lines.push_str(cells.join("  ").trim_end());
        lines.push('\n');
    }
    lines
}

fn row(node: &OneNode) -> [String; 11] {
    let or_none = |text: &str| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text.to_owned()
        }
    };
    let [users, conversations, index] = node.shards;
    let confirmed = match node.confirmed {
        // Of a start that has let go of everything for ever.
        godwit_cluster::own::ENDED => "ended".to_owned(),
        view => view.to_string(),
    };
    [
        or_none(&node.name),
        node.state.clone(),
        or_none(&node.roles.join(",")),
        format!("{users}/{conversations}/{index}"),
        node.held.map_or("-".to_owned(), |held| held.to_string()),
        confirmed,
        node.heartbeat_ms.map_or("-".to_owned(), |ms| {
            format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
        }),
        or_none(&node.peer),
        or_none(&node.mqtt),
        or_none(&node.http),
        node.start.to_string(),
    ]
}

pub(super) fn drain(name: Option<String>, options: Options) -> anyhow::Result<()> {
    let config = load(options)?;
    let request = Drain { name };
    let Some(drained) = call_admin::<_, Drain>(&config, "/nodes/drain", &request, ANSWER_TIME)? else {
        return nobody(&config);
    };
    say(&format!(
        "{} was asked to leave; `godwit node ls` says when it has",
        drained.name.unwrap_or_default()
    ))
}

pub(super) fn shards(options: Options) -> anyhow::Result<()> {
    let config = load(options)?;
    let Some(shards) = ask_admin::<Shards>(&config, "/shards", ANSWER_TIME)? else {
        return nobody(&config);
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut write = || -> std::io::Result<()> {
        writeln!(out, "GROUP          SHARD  SINCE  NODE")?;
        for shard in &shards.shards {
            let since = shard.since.map_or("-".to_owned(), |view| view.to_string());
            let node = shard.node.as_deref().unwrap_or("-");
            writeln!(out, "{:13}  {:5}  {since:5}  {node}", shard.group, shard.shard)?;
        }
        out.flush()
    };
    write().context("standard output")
}

fn nobody(config: &Config) -> anyhow::Result<()> {
    bail!("nothing answers at the admin listener {}", config.admin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_listed_a_line_each_under_their_titles() {
        let node = OneNode {
            name: "n1".into(),
            start: uuid::Uuid::from_u128(7),
            state: "member".into(),
            roles: vec!["broker".into(), "api".into()],
            peer: "10.0.0.1:7883".into(),
            mqtt: "10.0.0.1:1883".into(),
            http: String::new(),
            confirmed: 12,
            heartbeat_ms: Some(1_234),
            shards: [4_096, 0, 0],
            held: Some(4_000),
        };
        let nodes = Nodes {
            cluster: "godwit".into(),
            this: "n1".into(),
            view: 12,
            unsettled: 1,
            acts: true,
            nodes: vec![node],
        };
        let told = table(&nodes);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(
            lines[0],
            "cluster godwit, view 12, 1 views before it not settled, as seen by n1"
        );
        let cells: Vec<&str> = lines[2].split_whitespace().collect();
        assert_eq!(
            cells[..9],
            [
                "n1",
                "member",
                "broker,api",
                "4096/0/0",
                "4000",
                "12",
                "1.2",
                "s",
                "10.0.0.1:7883"
            ]
        );
        assert_eq!(lines[1].find("PEER"), lines[2].find("10.0.0.1:7883"));
    }
}
