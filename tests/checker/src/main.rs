//! The command: `godwit-checker FOLDER` prints a table and, as its last line, the verdict in JSON. Exit code 0 is
//! green, 1 red, 2 a run that cannot be judged. Everything else is in the library.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use godwit_checker::{Limits, judge};

/// Judges a folder of recorded JSONL files.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The folder; every *.jsonl in it is read.
    folder: PathBuf,
    /// The share of deliveries that may repeat without a kill or a reconnect.
    #[arg(long, default_value_t = Limits::default().duplicates)]
    max_duplicates: f64,
    /// Count what is missing under a gap marker instead of calling it lost: for tests of retention and quota.
    #[arg(long)]
    allow_gaps: bool,
    /// Fewer acknowledged sends and publishes than this cannot be judged.
    #[arg(long, default_value_t = Limits::default().acknowledged)]
    min_acknowledged: u64,
    /// Print only the JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let limits = Limits {
        duplicates: cli.max_duplicates,
        gaps: cli.allow_gaps,
        acknowledged: cli.min_acknowledged,
    };
    let verdict = match judge(&cli.folder, &limits) {
        Ok(verdict) => verdict,
        Err(error) => {
            let _ = writeln!(io::stderr(), "checker: {error}");
            return ExitCode::from(2);
        }
    };
    let mut out = io::stdout().lock();
    let json = serde_json::to_string(&verdict).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}"));
    let printed = if cli.json {
        writeln!(out, "{json}")
    } else {
        writeln!(out, "{verdict}\n{json}")
    };
    match (printed, verdict.green) {
        (Err(_), _) => ExitCode::from(2),
        (Ok(()), true) => ExitCode::SUCCESS,
        (Ok(()), false) => ExitCode::from(1),
    }
}
