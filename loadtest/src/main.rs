//! `godwit-loadtest`: the same load for Godwit and its peers, with a report in words and in JSON. This file only picks
//! the role of the process and turns the outcome into an exit code.

mod chat;
mod cli;
mod client;
mod engine;
mod fleet;
mod packets;
mod payload;
mod peer;
mod procfs;
mod report;
mod runs;
mod spec;
mod worker;

use clap::Parser;
use cli::{Cli, Command, Options};
use spec::Scenario;
use std::{io::Write, process::ExitCode};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Connect(options) => measure(Scenario::Connect, &options),
        Command::Pairs(options) => measure(Scenario::Pairs, &options),
        Command::Chat(options) => measure(Scenario::Chat, &options),
        Command::Worker => worker::run(),
        Command::PeerRumqttd {
            listen,
            max_connections,
            mqtt5,
        } => peer::run_rumqttd(listen, max_connections, mqtt5),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("godwit-loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a scenario and reports it; a run that lost messages is an error after its report.
fn measure(scenario: Scenario, options: &Options) -> anyhow::Result<()> {
    let report = runs::run(scenario, options)?;
    std::io::stdout().lock().write_all(report.to_text().as_bytes())?;
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_vec_pretty(&report)?)?;
    }
    match report.runs.iter().find_map(|run| run.trouble.as_ref()) {
        Some(trouble) => anyhow::bail!("{trouble}"),
        None => Ok(()),
    }
}
