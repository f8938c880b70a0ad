//! The command: `godwit-disktest` runs the failing-disk test in its long form and prints a summary as JSON; exit code 0
//! only if nothing is wrong. Everything else is in the library.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use godwit_e2e::failing::{FailingDisk, Fault};
use godwit_e2e::rig::Size;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Fails writes and syncs under the real binary, again and again, and has the records judged.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// How often each kind of failure.
    #[arg(long, default_value_t = 4)]
    times: usize,
    /// Longest outage, seconds.
    #[arg(long, default_value_t = 16)]
    longest: u64,
    /// Users.
    #[arg(long, default_value_t = 80)]
    users: usize,
    /// Decides everything random; printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Where data, log and records go; kept. Default: a temporary folder, kept if the run fails.
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "godwit-disktest: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Result<bool> {
    let seed = cli.seed.unwrap_or_else(|| rand::rng().random());
    let mut temporary = None;
    let folder = match &cli.folder {
        Some(folder) => folder.clone(),
        None => {
            let made = tempfile::Builder::new().prefix("godwit-disk-").tempdir()?;
            temporary.insert(made).path().to_path_buf()
        }
    };
    writeln!(io::stderr(), "seed {seed}, folder {}", folder.display())?;
    let mut random = StdRng::seed_from_u64(seed);
    let longest = cli.longest.max(1) * 1_000;
    let mut rounds = Vec::new();
    for _ in 0..cli.times {
        for fault in Fault::ALL {
            let outage = random.random_range(200..=longest);
            rounds.push((fault, Duration::from_millis(outage)));
        }
    }
    let test = FailingDisk {
        folder,
        seed,
        rounds,
        size: Size {
            users: cli.users,
            senders: cli.users.min(40),
            window: 6,
            posters: 6,
        },
    };
    let report = test.run();
    let faults = match &report {
        Ok(report) => report.faults.clone(),
        Err(error) => vec![format!("{error:#}")],
    };
    if let (false, Some(folder)) = (faults.is_empty(), temporary) {
        writeln!(io::stderr(), "kept {}", folder.keep().display())?;
    }
    if let Ok(report) = &report {
        writeln!(io::stdout(), "{}", serde_json::to_string(report)?)?;
    }
    for fault in &faults {
        writeln!(io::stderr(), "FAULT {fault}")?;
    }
    Ok(faults.is_empty())
}
