//! The command: `godwit-killtest` runs one kill test and prints a summary as JSON; exit code 0 only if the checker is
//! content. Everything else is in the library.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use godwit_e2e::killtest::{KillTest, PowerLoss};
use godwit_e2e::rig::Size;
use rand::RngExt;

/// Kills the real binary under load and has the records judged. The defaults are the long form.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// At least so many kills.
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// At least so many acknowledged messages.
    #[arg(long, default_value_t = 100_000)]
    acknowledged: u64,
    /// Milliseconds between a start and the next kill, at least.
    #[arg(long, default_value_t = 300)]
    gap_from: u64,
    /// And at most.
    #[arg(long, default_value_t = 6_000)]
    gap_to: u64,
    /// Loading ends after so many seconds, whatever was reached.
    #[arg(long, default_value_t = 1_200)]
    limit: u64,
    /// Users.
    #[arg(long, default_value_t = Size::full().users)]
    users: usize,
    /// Users whose sessions also send.
    #[arg(long, default_value_t = Size::full().senders)]
    senders: usize,
    /// Sends in flight of each.
    #[arg(long, default_value_t = Size::full().window)]
    window: usize,
    /// REST senders.
    #[arg(long, default_value_t = Size::full().posters)]
    posters: usize,
    /// Lose what was not synced at each kill.
    #[arg(long, value_enum)]
    power_loss: Option<Loss>,
    /// A planted bug: needs the binary that has them.
    #[arg(long)]
    planted: Option<String>,
    /// Decides everything random; printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Where data, log and records go; kept. Default: a temporary folder, kept if the run fails.
    #[arg(long)]
    folder: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Loss {
    Drop,
    Torn,
    Partial,
    Mixed,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "godwit-killtest: {error:#}");
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
            let made = tempfile::Builder::new().prefix("godwit-kill-").tempdir()?;
            temporary.insert(made).path().to_path_buf()
        }
    };
    writeln!(io::stderr(), "seed {seed}, folder {}", folder.display())?;
    let test = KillTest {
        folder,
        seed,
        kills: cli.kills,
        acknowledged: cli.acknowledged,
        gap_ms: (cli.gap_from, cli.gap_to.max(cli.gap_from)),
        limit: Duration::from_secs(cli.limit),
        size: Size {
            users: cli.users,
            senders: cli.senders,
            window: cli.window,
            posters: cli.posters,
        },
        power_loss: cli.power_loss.map(|loss| match loss {
            Loss::Drop => PowerLoss::Drop,
            Loss::Torn => PowerLoss::Torn,
            Loss::Partial => PowerLoss::Partial,
            Loss::Mixed => PowerLoss::Mixed,
        }),
        planted: cli.planted.clone(),
    };
    let report = test.run();
    let faults = match &report {
        Ok(report) => report.faults(&test),
        Err(error) => vec![format!("{error:#}")],
    };
    if let (false, Some(folder)) = (faults.is_empty(), temporary) {
        let kept = folder.keep();
        writeln!(io::stderr(), "kept {}", kept.display())?;
    }
    if let Ok(report) = &report {
        writeln!(io::stdout(), "{}", serde_json::to_string(report)?)?;
    }
    for fault in &faults {
        writeln!(io::stderr(), "FAULT {fault}")?;
    }
    Ok(faults.is_empty())
}
