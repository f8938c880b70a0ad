//! The command: `godwit-memtest` compares resident memory before and after many users came, went, were owed messages and
//! got them; prints JSON; exit code 0 only within the bound. Everything else is in the library.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use godwit_e2e::memory::MemoryTest;

/// Offline users cost no memory. The defaults are the smaller of the two long forms.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Users.
    #[arg(long, default_value_t = 10_000)]
    users: usize,
    /// Messages owed to each.
    #[arg(long, default_value_t = 100)]
    messages: usize,
    /// Seconds of rest before each measurement.
    #[arg(long, default_value_t = 60)]
    rest: u64,
    /// MiB of caches that the process is said to keep.
    #[arg(long, default_value_t = 0)]
    caches: u64,
    /// Where data and log go; kept. Default: a temporary folder.
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "godwit-memtest: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Result<bool> {
    let mut temporary = None;
    let folder = match &cli.folder {
        Some(folder) => folder.clone(),
        None => {
            let made = tempfile::Builder::new().prefix("godwit-memory-").tempdir()?;
            temporary.insert(made).path().to_path_buf()
        }
    };
    let report = MemoryTest {
        folder,
        users: cli.users,
        messages: cli.messages,
        rest: Duration::from_secs(cli.rest),
        caches: cli.caches << 20,
    }
    .run()?;
    writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
    for fault in &report.faults {
        writeln!(io::stderr(), "FAULT {fault}")?;
    }
    Ok(report.faults.is_empty())
}
