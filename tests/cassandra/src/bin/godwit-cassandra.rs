//! A Cassandra to try things on by hand: starts, says where, runs until Ctrl-C, leaves nothing behind.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use godwit_cassandra::{Cluster, Options, Paxos};

/// Starts Apache Cassandra on loopback addresses of this machine and runs it until Ctrl-C; its data go with it. The first start downloads it.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many nodes: 1 or 3.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Largest heap of each node, as 512M or 1G.
    #[arg(long, default_value = "1G", value_parser = mebibytes)]
    heap: u32,
    /// Use Paxos v2 for lightweight transactions.
    #[arg(long)]
    paxos_v2: bool,
    /// Further settings of cassandra.yaml, as name=value.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
}

fn mebibytes(text: &str) -> Result<u32, String> {
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let factor = match unit {
        "M" | "m" => 1,
        "G" | "g" => 1024,
        _ => return Err("a number with M or G".to_owned()),
    };
    number
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| "a number with M or G".to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("godwit-cassandra: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "its output is what it is for")]
async fn run(arguments: Arguments) -> Result<()> {
    let mut options = Options {
        heap_mib: arguments.heap,
        long_running: true,
        paxos: if arguments.paxos_v2 { Paxos::V2 } else { Paxos::V1 },
        ..Options::default()
    };
    for setting in &arguments.settings {
        let Some((name, value)) = setting.split_once('=') else {
            bail!("--set wants NAME=VALUE, not {setting}");
        };
        // What reads as JSON is one (a number, true, a list), the rest is text.
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        options.settings.push((name.to_owned(), value));
    }
    let ended = tokio::signal::ctrl_c();
    let start = std::time::Instant::now();
    tokio::select! {
        cluster = Cluster::start_with(arguments.nodes, options) => {
            let cluster = cluster?;
            if cluster.is_external() {
                bail!("CQL_NODES is set: nothing to start");
            }
            let nodes: Vec<String> = cluster.contact_points().iter().map(ToString::to_string).collect();
            println!("CQL_NODES={}", nodes.join(","));
            eprintln!("ready after {:.1} s; Ctrl-C ends it", start.elapsed().as_secs_f64());
            tokio::signal::ctrl_c().await?;
        }
        _ = ended => {}
    }
    Ok(())
}
