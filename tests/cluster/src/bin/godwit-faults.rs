//! The command: `godwit-faults` does the faults in their long form and prints what each cost as JSON, one line a run; exit code 0 only if the checker is
//! content with all of them. Everything else is in the library.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use godwit_cassandra::{Cluster, Options};
use godwit_cluster_tests::faults::{Fault, FaultTest};
use godwit_cluster_tests::rig::{Outcome, Size};
use godwit_cluster_tests::{many, owed};
use rand::RngExt;

/// Does faults to real nodes under load and has the records judged. The defaults are the long form.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// What; all if none is named.
    what: Vec<What>,
    /// How often each.
    #[arg(long, default_value_t = 20)]
    times: u32,
    /// Nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Users, each with a session.
    #[arg(long, default_value_t = 60)]
    users: usize,
    /// Sends in flight of each.
    #[arg(long, default_value_t = 4)]
    window: usize,
    /// Decides everything random; printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Where data, logs and records go; kept. Default: a temporary folder, kept if a run fails.
    #[arg(long)]
    folder: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// kill -9 of a node.
    Kill,
    /// kill -9 of all.
    KillAll,
    /// SIGSTOP for three leases.
    Freeze,
    /// Drain and join.
    Drain,
    /// Clients that come back at other nodes.
    Roam,
    /// One of three replicas of the store killed, then two.
    Replicas,
    /// 1,000 absent sessions, 100 messages owed to each, everything killed.
    Owed,
    /// 50 nodes form a view.
    Many,
}

const ALL: [What; 8] = [
    What::Kill,
    What::KillAll,
    What::Freeze,
    What::Drain,
    What::Roam,
    What::Replicas,
    What::Owed,
    What::Many,
];

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "godwit-faults: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let options = Options {
        heap_mib: 1_024,
        long_running: true,
        ..Options::default()
    };
    let what = if cli.what.is_empty() { &ALL[..] } else { &cli.what };
    let mut good = true;
    // One of one node for most; never both at a time, for memory's sake.
    let mut standing: Option<(usize, Cluster)> = None;
    for &what in what {
        let replicas = if what == What::Replicas { 3 } else { 1 };
        if standing.as_ref().is_none_or(|(of, _)| *of != replicas) {
            drop(standing.take());
            let started = runtime.block_on(Cluster::start_with(replicas, options.clone()))?;
            standing = Some((replicas, started));
        }
        let Some((_, cassandra)) = &standing else {
            continue;
        };
        let seed = cli.seed.unwrap_or_else(|| rand::rng().random());
        let mut temporary = None;
        let folder = match &cli.folder {
            Some(folder) => folder.join(format!("{what:?}")),
            None => temporary
                .insert(tempfile::Builder::new().prefix("godwit-faults-").tempdir()?)
                .path()
                .to_path_buf(),
        };
        std::fs::create_dir_all(&folder)?;
        writeln!(io::stderr(), "{what:?}: seed {seed}, folder {}", folder.display())?;
        let faults = match one(cli, what, seed, folder, cassandra) {
            Ok((report, faults)) => {
                writeln!(io::stdout(), "{report}")?;
                faults
            }
            Err(error) => vec![format!("{error:#}")],
        };
        for fault in &faults {
            writeln!(io::stderr(), "FAULT {what:?}: {fault}")?;
        }
        if let (false, Some(folder)) = (faults.is_empty(), temporary) {
            writeln!(io::stderr(), "kept {}", folder.keep().display())?;
        }
        good &= faults.is_empty();
    }
    Ok(good)
}

fn one(
    cli: &Cli,
    what: What,
    seed: u64,
    folder: PathBuf,
    cassandra: &Cluster,
) -> Result<(String, Vec<String>)> {
    let size = Size {
        nodes: cli.nodes,
        users: cli.users,
        window: cli.window,
    };
    let said = |outcome: &Outcome| serde_json::to_string(outcome);
    let fault = match what {
        What::Kill => Fault::Kill,
        What::KillAll => Fault::KillAll,
        What::Freeze => Fault::Freeze,
        What::Drain => Fault::Drain,
        What::Roam => Fault::Roam,
        What::Replicas => Fault::Replicas,
        What::Owed => {
            let size = Size { users: 1_000, ..size };
            let outcome = owed::owed(&folder, cassandra, seed, size, 100)?;
            return Ok((said(&outcome)?, outcome.faults(Duration::MAX)));
        }
        What::Many => {
            let formed = many::form(&folder, cassandra, 50)?;
            return Ok((serde_json::to_string(&formed)?, Vec::new()));
        }
    };
    let test = FaultTest {
        folder,
        seed,
        fault,
        times: cli.times,
        size,
    };
    let outcome = test.run(cassandra)?;
    Ok((said(&outcome)?, outcome.faults(fault.limit())))
}
