//! The command line: what can be asked for, and the defaults that the published figures use.

use crate::{
    peer::Kind,
    spec::{ClientKind, Encoding},
};
use clap::{Args, Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf};

/// Load harness for MQTT brokers: many light clients, the same work for every broker.
#[derive(Debug, Parser)]
#[command(name = "godwit-loadtest", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Scenarios, and the two roles of child processes.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// N persistent sessions with one subscription each, a few QoS 1 messages for each, then rest: connects per second
    /// and bytes per session
    Connect(Options),
    /// N pairs of a publisher and a persistent session on ordinary topics, QoS 1: rate and latency
    Pairs(Options),
    /// N pairs over Godwit's conversations: c/{conv}/send to me/inbox, with users made over REST
    Chat(Options),
    /// A worker process; takes its order on standard input
    #[command(hide = true)]
    Worker,
    /// The embedded rumqttd; ends with standard input
    #[command(hide = true)]
    PeerRumqttd {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
        /// rumqttd's limit.
        #[arg(long)]
        max_connections: usize,
        /// Listen for MQTT 5.0 instead of 3.1.1.
        #[arg(long)]
        mqtt5: bool,
    },
}

/// Options of all scenarios.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Broker that already runs
    #[arg(long, default_value = "mqtt://127.0.0.1:1883")]
    pub(crate) target: String,
    /// Start this broker for each run and stop it afterwards, instead of --target
    #[arg(long, value_enum, conflicts_with_all = ["target", "broker_pid"])]
    pub(crate) peer: Option<Kind>,
    /// MQTT client that publishes and subscribes; a connect run is for the light one only
    #[arg(long, value_enum, default_value_t = ClientKind::Light)]
    pub(crate) client: ClientKind,
    /// Sessions (connect) or pairs (pairs, chat)
    #[arg(long, default_value_t = 100)]
    pub(crate) clients: usize,
    /// Recipients of each pair, which share what comes as members of one shared subscription (pairs)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) members: u16,
    /// Worker processes; more are started if the open-file limit asks for it
    #[arg(long, default_value_t = 1)]
    pub(crate) processes: usize,
    /// Repeat the run this often
    #[arg(long, default_value_t = 1)]
    pub(crate) runs: u32,
    /// Most unacknowledged publishes of one publisher
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) window: u16,
    /// Length of a message in bytes (chat: of its text)
    #[arg(long, default_value_t = 128)]
    pub(crate) payload: usize,
    /// Messages per second of all publishers together; default: as many as acknowledgements allow
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Seconds of load before the measured window (pairs, chat)
    #[arg(long, default_value_t = 10.0)]
    pub(crate) warm_up: f64,
    /// Seconds of the measured window (pairs, chat)
    #[arg(long, default_value_t = 60.0)]
    pub(crate) measure: f64,
    /// Messages for each session (connect)
    #[arg(long, default_value_t = 10)]
    pub(crate) messages: u64,
    /// Seconds of rest before memory is read (connect)
    #[arg(long, default_value_t = 10.0)]
    pub(crate) rest: f64,
    /// Handshakes in flight at a time, per worker
    #[arg(long, default_value_t = 64)]
    pub(crate) connect_window: usize,
    /// Keep alive in seconds, 0 for none
    #[arg(long, default_value_t = 600)]
    pub(crate) keep_alive: u16,
    /// Speak MQTT 5.0 (default 3.1.1)
    #[arg(long)]
    pub(crate) mqtt5: bool,
    /// Clients prove by SCRAM-SHA-256 that they know their device token, instead of sending it (chat, with --mqtt5)
    #[arg(long)]
    pub(crate) scram: bool,
    /// User name for all clients
    #[arg(long)]
    pub(crate) username: Option<String>,
    /// Password for all clients
    #[arg(long, env = "GODWIT_LOADTEST_PASSWORD", hide_env_values = true)]
    pub(crate) password: Option<String>,
    /// Process of the broker, for CPU time and memory; default: who listens on the target's port on this machine
    #[arg(long)]
    pub(crate) broker_pid: Option<u32>,
    /// Godwit's HTTP address (chat)
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) http: String,
    /// Encoding of messages and inbox (chat)
    #[arg(long, value_enum, default_value_t = Encoding::Protobuf)]
    pub(crate) encoding: Encoding,
    /// Write the report as JSON to this file, too
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}
