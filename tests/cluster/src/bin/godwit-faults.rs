//! The command: `godwit-faults` does the faults in their long form and prints what each cost as JSON, one line a run; exit code 0 only if the checker is
//! content with all of them. Everything else is in the library.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use godwit_cassandra::{Cluster, Options};
use godwit_cluster_tests::faults::{Fault, FaultTest, Force};
use godwit_cluster_tests::outcome::Outcome;
use godwit_cluster_tests::rig::Size;
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
    /// Nodes; five where two are killed and where everything is.
    #[arg(long)]
    nodes: Option<usize>,
    /// Users, each with a session.
    #[arg(long, default_value_t = 60)]
    users: usize,
    /// Sends in flight of each.
    #[arg(long, default_value_t = 4)]
    window: usize,
    /// How long a cut lasts, and a slow network, seconds.
    #[arg(long, default_value_t = 60)]
    lasts: u64,
    /// Of a million answers of lightweight transactions so many are lost or late.
    #[arg(long, default_value_t = 50_000)]
    claims: u32,
    /// How long everything at random goes on.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
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
    /// kill -9 of two of five.
    KillTwo,
    /// kill -9 of all.
    KillAll,
    /// SIGSTOP for three leases.
    Freeze,
    /// Drain and join.
    Drain,
    /// SIGTERM and a start of each node.
    Restart,
    /// Clients that come back at other nodes.
    Roam,
    /// One of three replicas of the store killed, then two.
    Replicas,
    /// Two nodes cut from each other.
    Peers,
    /// One node cut from another, one way.
    PeersOneWay,
    /// A node cut from the store.
    Store,
    /// A node cut from the store and all nodes.
    Apart,
    /// Links cut one by one, healed in another order.
    Links,
    /// Everything 200 ms late, one piece in 100 stalls.
    Slow,
    /// Answers of lightweight transactions lost or late.
    Conditional,
    /// The clock of a node set forth and back.
    Clock,
    /// Everything at random, once, for so many minutes.
    Everything,
    /// 1,000 absent sessions, 100 messages owed to each, everything killed.
    Owed,
    /// 50 nodes form a view and serve.
    Many,
}

const ALL: [What; 19] = [
    What::Kill,
    What::KillTwo,
    What::KillAll,
    What::Freeze,
    What::Drain,
    What::Restart,
    What::Roam,
    What::Peers,
    What::PeersOneWay,
    What::Store,
    What::Apart,
    What::Links,
    What::Slow,
    What::Conditional,
    What::Clock,
    What::Everything,
    What::Owed,
    What::Many,
    What::Replicas,
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
    let said = |outcome: &Outcome| serde_json::to_string(outcome);
    let mut size = Size {
        nodes: cli.nodes.unwrap_or(3),
        users: cli.users,
        window: cli.window,
    };
    let fault = match what {
        What::Kill => Fault::Kill,
        What::KillTwo => Fault::KillTwo,
        What::KillAll => Fault::KillAll,
        What::Freeze => Fault::Freeze,
        What::Drain => Fault::Drain,
        What::Restart => Fault::Restart,
        What::Roam => Fault::Roam,
        What::Replicas => Fault::Replicas,
        What::Peers => Fault::Peers,
        What::PeersOneWay => Fault::PeersOneWay,
        What::Store => Fault::Store,
        What::Apart => Fault::Apart,
        What::Links => Fault::Links,
        What::Slow => Fault::Slow,
        What::Conditional => Fault::Conditional,
        What::Clock => Fault::Clock,
        What::Everything => Fault::Everything,
        What::Owed => {
            let size = Size { users: 1_000, ..size };
            let outcome = owed::owed(&folder, cassandra, seed, size, 100)?;
            return Ok((said(&outcome)?, outcome.faults()));
        }
        What::Many => {
            let formed = many::form(&folder, cassandra, 50)?;
            return Ok((serde_json::to_string(&formed)?, Vec::new()));
        }
    };
    if matches!(fault, Fault::KillTwo | Fault::Everything) {
        size.nodes = cli.nodes.unwrap_or(5);
    }
    let test = FaultTest {
        folder,
        seed,
        faults: vec![fault],
        times: if fault == Fault::Everything { 1 } else { cli.times },
        force: Force {
            pause_ms: (500, 4_000),
            lasts: Duration::from_secs(cli.lasts),
            claims: cli.claims,
            at_random: Duration::from_secs(60 * cli.minutes),
        },
        size,
    };
    let outcome = test.run(cassandra)?;
    Ok((said(&outcome)?, outcome.faults()))
}
