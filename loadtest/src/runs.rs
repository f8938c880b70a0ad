//! What a run consists of: a peer if asked for, users if the scenario needs them, workers, the order of events, and
//! the broker's use of the machine around them.

use crate::{
    chat,
    cli::Options,
    fleet::{Fleet, Progress},
    packets::Version,
    peer::Peer,
    procfs::{self, Process},
    report::{BrokerUse, Report, RunReport, WorkerReport},
    spec::{ClientKind, Login, Order, Scenario, Spec},
};
use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    net::{SocketAddr, ToSocketAddrs},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Publishers of one worker in `connect`.
const SWEEPERS: usize = 4;
/// How long the newest messages may take to be findable before the report leaves the figure out.
const INDEX_PATIENCE: Duration = Duration::from_secs(120);
/// Files a worker needs beside its sockets.
const SPARE_FILES: usize = 100;

/// Runs the scenario as often as asked and reports all runs, also those that are not good.
///
/// # Errors
/// When a run could not be made at all; one line for the user.
pub(crate) fn run(scenario: Scenario, options: &Options) -> anyhow::Result<Report> {
    let mut report = Report {
        command: command_line(),
        broker: String::new(),
        clients: describe_clients(options),
        runs: Vec::new(),
    };
    for number in 0..options.runs.max(1) {
        let (description, run) = run_once(scenario, options, number)?;
        report.broker = description;
        report.runs.push(run);
    }
    Ok(report)
}

/// Which client made the load, and its protocol version.
fn describe_clients(options: &Options) -> String {
    let version = if options.mqtt5 { "5.0" } else { "3.1.1" };
    match options.client {
        ClientKind::Light => format!("light, MQTT {version}"),
        ClientKind::Rumqttc => {
            format!("rumqttc 0.25, MQTT {version}, persistent sessions for publishers too")
        }
    }
}

/// The command line without secrets.
fn command_line() -> String {
    let mut hidden = false;
    let words = std::env::args().enumerate().map(|(position, word)| {
        let shown = match (position, hidden) {
            (0, _) => "godwit-loadtest".to_owned(),
            (_, true) => "…".to_owned(),
            _ if word.starts_with("--password=") => "--password=…".to_owned(),
            _ => word.clone(),
        };
        hidden = word == "--password";
        shown
    });
    words.collect::<Vec<_>>().join(" ")
}

struct Sample {
    cpu: f64,
    machine_cpu: f64,
    written: u64,
    rss: u64,
}

fn sample(process: Option<Process>) -> Option<Sample> {
    let process = process?;
    Some(Sample {
        cpu: process.cpu_seconds()?,
        machine_cpu: procfs::machine_cpu_seconds().unwrap_or_default(),
        written: process.written_bytes().unwrap_or_default(),
        rss: process.rss_bytes()?,
    })
}

fn run_once(scenario: Scenario, options: &Options, number: u32) -> anyhow::Result<(String, RunReport)> {
    let connections = connections_of(scenario, options);
    let peer = options
        .peer
        .map(|kind| Peer::start(kind, connections, options.mqtt5))
        .transpose()?;
    let target = match &peer {
        Some(peer) => peer.address,
        None => parse_target(&options.target)?,
    };
    let process = match (&peer, options.broker_pid) {
        (Some(peer), _) => Some(peer.process()),
        (None, Some(pid)) => Some(Process(pid)),
        (None, None) if target.ip().is_loopback() => procfs::listener(target.port()),
        (None, None) => None,
    };
    let description = match &peer {
        Some(peer) => peer.description.clone(),
        None => match process.and_then(Process::name) {
            Some(name) => format!("{name} at {target}, started by hand"),
            None => format!("at {target}, its process is not seen"),
        },
    };
    let specs = specs(scenario, options, target, number)?;
    let sessions: usize = specs.iter().map(|spec| spec.recipients).sum();
    let clients: usize = specs.iter().map(Spec::clients).sum();

    let bar = ProgressBar::new(clients as u64).with_style(bar_style("clients ready")?);
    let before = sample(process);
    let mut fleet = Fleet::start(&specs)?;
    let connect_seconds = fleet.await_ready(&mut |progress: Progress| bar.set_position(progress.ready))?;
    bar.finish_and_clear();
    let connected = sample(process);

    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template(
        "{spinner} {pos} received, {per_sec}",
    )?);
    let mut show = |progress: Progress| bar.set_position(progress.received);
    fleet.order(Order::Go)?;
    let mut start = before;
    let rss_before = start.as_ref().map_or(0, |sample| sample.rss);
    if scenario == Scenario::Connect {
        fleet.await_delivered(&mut show)?;
        fleet.watch(Duration::from_secs_f64(options.rest), &mut show)?;
    } else {
        fleet.watch(Duration::from_secs_f64(options.warm_up), &mut show)?;
        start = sample(process);
        fleet.order(Order::Measure)?;
        fleet.watch(Duration::from_secs_f64(options.measure), &mut show)?;
    }
    let end = sample(process);
    fleet.order(Order::Stop)?;
    let counts = fleet.await_done(&mut show)?;
    bar.finish_and_clear();
    let index_lag_seconds = match scenario {
        Scenario::Chat => {
            let sampled: Vec<_> = specs
                .iter()
                .filter_map(|spec| spec.chat.last().cloned())
                .collect();
            chat::index_lag(&options.http, &sampled, INDEX_PATIENCE)
        }
        _ => None,
    };

    let broker = match (start, connected, end) {
        (Some(start), Some(connected), Some(end)) => Some(BrokerUse {
            rss_before,
            rss_connected: connected.rss,
            rss_after: end.rss,
            cpu_seconds: end.cpu - start.cpu,
            others_cpu_seconds: (end.machine_cpu - start.machine_cpu)
                - (end.cpu - start.cpu)
                - counts.generator_cpu_seconds,
            written_bytes: end.written.saturating_sub(start.written),
        }),
        _ => None,
    };
    let run = conclude(scenario, sessions, clients, connect_seconds, broker, counts);
    Ok((
        description,
        RunReport {
            index_lag_seconds,
            ..run
        },
    ))
}

fn conclude(
    scenario: Scenario,
    sessions: usize,
    connections: usize,
    connect_seconds: f64,
    broker: Option<BrokerUse>,
    counts: WorkerReport,
) -> RunReport {
    let per_second = |count: u64| match counts.window_seconds > 0.0 {
        true => count as f64 / counts.window_seconds,
        false => 0.0,
    };
    let bytes_per_session = broker
        .as_ref()
        .filter(|_| scenario == Scenario::Connect)
        .map(|used| (used.rss_after as f64 - used.rss_before as f64) / sessions.max(1) as f64);
    let received_per_cpu_second = broker
        .as_ref()
        .filter(|used| scenario != Scenario::Connect && used.cpu_seconds > 0.0)
        .map(|used| counts.window_received as f64 / used.cpu_seconds);
    RunReport {
        sessions,
        connections,
        connect_seconds,
        connects_per_second: sessions as f64 / connect_seconds.max(1e-9),
        received_per_second: per_second(counts.window_received),
        acked_per_second: per_second(counts.window_acked),
        receive: counts.receive.summary(),
        ack: counts.ack.summary(),
        broker,
        bytes_per_session,
        received_per_cpu_second,
        index_lag_seconds: None,
        trouble: counts.trouble(),
        counts,
    }
}

fn connections_of(scenario: Scenario, options: &Options) -> usize {
    match scenario {
        Scenario::Connect => options.clients + SWEEPERS * options.processes.max(1) * 16,
        _ => options.clients * (1 + usize::from(options.members)),
    }
}

/// How many worker processes: as many as asked for, and as the open-file limit needs.
fn processes(scenario: Scenario, options: &Options, file_limit: usize) -> usize {
    let per_process = file_limit.saturating_sub(SPARE_FILES).max(2);
    let sockets = match scenario {
        Scenario::Connect => options.clients,
        _ => options.clients * (1 + usize::from(options.members)),
    };
    sockets
        .div_ceil(per_process)
        .max(options.processes)
        .clamp(1, options.clients.max(1))
}

fn specs(
    scenario: Scenario,
    options: &Options,
    target: SocketAddr,
    number: u32,
) -> anyhow::Result<Vec<Spec>> {
    if options.clients == 0 {
        bail!("--clients must be at least 1");
    }
    if options.members > 1 && (scenario != Scenario::Pairs || options.client != ClientKind::Light) {
        bail!("--members is for pairs with the light client");
    }
    if options.scram && (scenario != Scenario::Chat || options.client != ClientKind::Light || !options.mqtt5)
    {
        bail!("--scram is for chat with the light client and --mqtt5");
    }
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let run_id = format!("l{:x}{number}", seconds & 0xff_ffff);
    let mut chat_pairs = match scenario {
        Scenario::Chat => {
            let bar = ProgressBar::new(options.clients as u64).with_style(bar_style("pairs of users")?);
            let pairs = chat::make_pairs(&options.http, &run_id, options.clients, &|made| {
                bar.set_position(made as u64);
            })
            .context("users and conversations for chat cannot be made")?;
            bar.finish_and_clear();
            pairs
        }
        _ => Vec::new(),
    };
    let login = match (&options.username, &options.password) {
        (Some(username), Some(password)) => Some(Login {
            username: username.clone(),
            password: password.clone(),
            token_id: String::new(),
        }),
        (None, None) => None,
        _ => bail!("--username and --password go together"),
    };
    let count = processes(scenario, options, procfs::open_file_limit().unwrap_or(1024));
    let mut first = 0;
    let shares = (0..count).map(|worker| {
        let pairs = options.clients / count + usize::from(worker < options.clients % count);
        let recipients = pairs * usize::from(options.members);
        let chat: Vec<_> = chat_pairs.drain(..recipients.min(chat_pairs.len())).collect();
        let spec = Spec {
            scenario,
            client: options.client,
            version: if options.mqtt5 { Version::V5 } else { Version::V311 },
            target,
            run_id: run_id.clone(),
            first,
            recipients,
            publishers: if scenario == Scenario::Connect {
                SWEEPERS.min(recipients)
            } else {
                pairs
            },
            members: usize::from(options.members),
            window: options.window.max(1),
            payload_len: options.payload,
            messages_each: options.messages,
            rate: options
                .rate
                .map(|rate| rate * pairs as f64 / options.clients as f64),
            keep_alive: options.keep_alive,
            connect_window: options.connect_window.max(1),
            source_salt: (seconds as u8).wrapping_add(number as u8),
            login: login.clone(),
            scram: options.scram,
            chat,
            encoding: options.encoding,
        };
        first += recipients;
        spec
    });
    Ok(shares.collect())
}

fn parse_target(target: &str) -> anyhow::Result<SocketAddr> {
    let host = target
        .strip_prefix("mqtt://")
        .unwrap_or(target)
        .trim_end_matches('/');
    let with_port = if host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    {
        host.to_owned()
    } else {
        format!("{host}:1883")
    };
    let mut addresses = with_port
        .to_socket_addrs()
        .with_context(|| format!("--target {target} is not mqtt://HOST:PORT"))?;
    addresses
        .next()
        .with_context(|| format!("--target {target} has no address"))
}

fn bar_style(what: &str) -> anyhow::Result<ProgressStyle> {
    Ok(ProgressStyle::with_template(&format!(
        "{{bar:40}} {{pos}} of {{len}} {what}, {{per_sec}}"
    ))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(words: &str) -> Options {
        Line::parse_from(std::iter::once("x").chain(words.split_whitespace())).options
    }

    #[test]
    fn clients_are_shared_out_whole_over_as_many_processes_as_the_file_limit_asks_for() {
        assert_eq!(
            processes(Scenario::Connect, &options("--clients 15000"), 20_000),
            1
        );
        assert_eq!(
            processes(Scenario::Connect, &options("--clients 40000"), 20_000),
            3
        );
        assert_eq!(processes(Scenario::Pairs, &options("--clients 10000"), 20_000), 2);
        assert_eq!(
            processes(Scenario::Pairs, &options("--clients 2 --processes 9"), 20_000),
            2
        );
    }

    #[test]
    fn every_recipient_has_one_worker_and_the_rate_is_shared_out() {
        let target = ([127, 0, 0, 1], 1).into();
        let specs = specs(
            Scenario::Pairs,
            &options("--clients 10 --processes 3 --rate 100"),
            target,
            0,
        )
        .expect("good options");
        let ranges: Vec<_> = specs.iter().map(|spec| (spec.first, spec.recipients)).collect();
        assert_eq!(ranges, [(0, 4), (4, 3), (7, 3)]);
        let rate: f64 = specs.iter().filter_map(|spec| spec.rate).sum();
        assert!((rate - 100.0).abs() < 1e-9);
    }

    #[test]
    fn a_target_may_leave_out_scheme_and_port() {
        for target in [
            "mqtt://127.0.0.1:1883",
            "127.0.0.1:1883",
            "127.0.0.1",
            "mqtt://127.0.0.1/",
        ] {
            assert_eq!(parse_target(target).expect(target), ([127, 0, 0, 1], 1883).into());
        }
        assert!(parse_target("mqtt://:::").is_err());
    }
}
