//! `godwit-loadtest`: the same load for Godwit and its peers, with a report in words and in JSON. This file only picks
//! the role of the process and turns the outcome into an exit code.

mod chat;
mod cli;
mod client;
mod clients;
mod engine;
mod fleet;
mod packets;
mod payload;
mod peer;
mod procfs;
mod real;
mod report;
mod runs;
mod scram;
mod spec;
mod work;
mod worker;

use clap::Parser;
use cli::{Cli, Command, Options};
use spec::{ClientKind, Scenario};
use std::{io::Write, process::ExitCode};

/// Exit code for options that do not go together, the same as for options that do not exist.
const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    if let Command::Connect(options) = &command
        && options.client != ClientKind::Light
    {
        eprintln!(
            "godwit-loadtest: connect opens many connections, which the light client is for: leave out --client, \
             or use it with pairs or chat"
        );
        return ExitCode::from(WRONG_USE);
    }
    let outcome = match command {
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
