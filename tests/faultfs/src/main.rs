//! The command: `mount` serves a folder, `order` talks to a served one, `probe` is the small program to prove it on.
//! Only arguments and printing; everything else is in the library.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::{Parser, Subcommand};
use godwit_faultfs::{Names, Options, order, probe, serve};

/// A file layer that can lose what was not synced, and fail on order.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Serve a folder until `shutdown`, SIGTERM or SIGINT; prints one line once it is ready.
    Mount {
        /// The folder that keeps the files.
        #[arg(long)]
        backing: PathBuf,
        /// The folder where the program under test finds them.
        #[arg(long)]
        mount: PathBuf,
        /// The Unix socket for orders.
        #[arg(long)]
        control: PathBuf,
        /// Decides what power losses leave; printed. Default: the clock.
        #[arg(long)]
        seed: Option<u64>,
        /// When created, renamed and removed names are durable.
        #[arg(long, value_enum, default_value_t = Names::Strict)]
        names: Names,
        /// End when standard input ends, so that no mount outlives the test that started it.
        #[arg(long)]
        until_stdin_ends: bool,
    },
    /// Send one order and print the answer: power-loss, cut, fail, space, sync-all, status, shutdown.
    Order {
        /// The Unix socket of the mount.
        #[arg(long)]
        control: PathBuf,
        /// The order, for example: fail write EIO for 500
        #[arg(required = true, trailing_var_arg = true)]
        words: Vec<String>,
    },
    /// Write records into a folder, or count those that are there.
    Probe {
        #[command(subcommand)]
        probe: Probe,
    },
}

#[derive(Subcommand)]
enum Probe {
    /// Append records; prints each acknowledged number.
    Write {
        /// The folder.
        #[arg(long)]
        dir: PathBuf,
        /// How many.
        #[arg(long, default_value_t = 1000)]
        records: u64,
        /// Bytes of each.
        #[arg(long, default_value_t = 1000)]
        bytes: usize,
        /// When to sync.
        #[arg(long, value_enum, default_value_t = probe::Sync::Each)]
        sync: probe::Sync,
        /// Stay, with the file open, until killed.
        #[arg(long)]
        stay: bool,
    },
    /// Print in JSON how many are whole.
    Check {
        /// The folder.
        #[arg(long)]
        dir: PathBuf,
        /// Bytes of each.
        #[arg(long, default_value_t = 1000)]
        bytes: usize,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "faultfs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Mount {
            backing,
            mount,
            control,
            seed,
            names,
            until_stdin_ends,
        } => {
            let seed = seed.unwrap_or_else(|| {
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.as_nanos() as u64)
            });
            mount_until_told(
                &Options {
                    backing,
                    mount,
                    control,
                    seed,
                    names,
                },
                until_stdin_ends,
            )
        }
        Task::Order { control, words } => say(&order(&control, &words.join(" "))?.to_string()),
        Task::Probe {
            probe:
                Probe::Write {
                    dir,
                    records,
                    bytes,
                    sync,
                    stay,
                },
        } => {
            probe::write(&dir, records, bytes, sync, |number| {
                let mut out = io::stdout().lock();
                writeln!(out, "{number}")?;
                out.flush()
            })?;
            if stay {
                loop {
                    std::thread::park();
                }
            }
            Ok(())
        }
        Task::Probe {
            probe: Probe::Check { dir, bytes },
        } => say(&serde_json::to_string(&probe::check(&dir, bytes)?)?),
    }
}

fn mount_until_told(options: &Options, until_stdin_ends: bool) -> Result<()> {
    let served = serve(options)?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, served.stop_flag())?;
    }
    if until_stdin_ends {
        let stop = Arc::clone(&served.stop_flag());
        std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || {
                let _ = io::stdin().lock().read_to_end(&mut Vec::new());
                stop.store(true, Ordering::Release);
            })?;
    }
    say(&format!(
        "serving {} at {}, orders at {}, seed {}",
        options.backing.display(),
        options.mount.display(),
        options.control.display(),
        options.seed
    ))?;
    served.wait();
    served.close()
}

fn say(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
