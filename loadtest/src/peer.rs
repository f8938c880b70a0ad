//! Peers: other brokers run for comparison as processes of their own, with a stated configuration, started before and
//! ended after a run. Their figures mean something only beside that configuration, so it is part of the report.

use crate::procfs::Process;
use anyhow::{Context, bail};
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use std::{
    collections::HashMap,
    fs,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a peer may take until it accepts connections.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Connections that rumqttd's example configuration allows; raised only when a run needs more.
const RUMQTTD_MAX_CONNECTIONS: usize = 10_010;

/// Brokers that the harness can start by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// rumqttd 0.20, embedded as a library in a child process of this binary
    Rumqttd,
    /// the installed `mosquitto`, with its default configuration
    Mosquitto,
}

/// A running peer; dropping it ends it.
pub(crate) struct Peer {
    child: Child,
    _folder: Option<tempfile::TempDir>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Name, version and configuration.
    pub(crate) description: String,
}

impl Peer {
    /// Starts a peer that must carry `connections`, and waits until it accepts.
    ///
    /// # Errors
    /// When it cannot be started or does not accept in time.
    pub(crate) fn start(kind: Kind, connections: usize, v5: bool) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut peer = match kind {
            Kind::Rumqttd => start_rumqttd(address, connections, v5)?,
            Kind::Mosquitto => start_mosquitto(address)?,
        };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = peer.child.try_wait()? {
                bail!("the peer ended at once: {status}");
            }
            if began.elapsed() > START_PATIENCE {
                bail!("the peer does not accept connections on {address}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(peer)
    }

    /// Its process.
    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing more to end then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn start_mosquitto(address: SocketAddr) -> anyhow::Result<Peer> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("mosquitto.conf");
    fs::write(
        &config,
        format!(
            "listener {} {}\nallow_anonymous true\n",
            address.port(),
            address.ip()
        ),
    )?;
    let child = Command::new("mosquitto")
        .arg("-c")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("mosquitto cannot be started; is it installed?")?;
    let help = Command::new("mosquitto")
        .arg("-h")
        .output()
        .context("mosquitto -h")?;
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let version = help.lines().next().unwrap_or("mosquitto").trim().to_owned();
    let description = format!("{version}, default configuration (no persistence) and allow_anonymous");
    Ok(Peer {
        child,
        _folder: Some(folder),
        address,
        description,
    })
}

fn start_rumqttd(address: SocketAddr, connections: usize, v5: bool) -> anyhow::Result<Peer> {
    let max_connections = RUMQTTD_MAX_CONNECTIONS.max(connections + 10);
    let child = Command::new(std::env::current_exe()?)
        .arg("peer-rumqttd")
        .args(["--listen", &address.to_string()])
        .args(["--max-connections", &max_connections.to_string()])
        .args(v5.then_some("--mqtt5"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let description = format!(
        "rumqttd 0.20 embedded, example configuration (in memory; inflight 100, segments 10 x 100 MiB), \
         max_connections {max_connections}"
    );
    Ok(Peer {
        child,
        _folder: None,
        address,
        description,
    })
}

/// Runs rumqttd in this process until standard input ends.
///
/// # Errors
/// When rumqttd cannot start.
pub(crate) fn run_rumqttd(listen: SocketAddr, max_connections: usize, v5: bool) -> anyhow::Result<()> {
    let server = ServerSettings {
        name: "peer".into(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections: ConnectionSettings {
            connection_timeout_ms: 60_000,
            max_payload_size: 20_480,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    let servers = Some(HashMap::from([("1".to_owned(), server)]));
    let router = RouterConfig {
        max_connections,
        max_outgoing_packet_count: 200,
        max_segment_size: 100 << 20,
        max_segment_count: 10,
        ..Default::default()
    };
    let (v4, v5) = if v5 { (None, servers) } else { (servers, None) };
    let mut broker = Broker::new(Config {
        router,
        v4,
        v5,
        ..Default::default()
    });
    thread::Builder::new().name("parent-watch".into()).spawn(|| {
        // Ends with the parent, whichever way that ends.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    })?;
    broker
        .start()
        .map_err(|error| anyhow::anyhow!("rumqttd cannot start: {error}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mosquitto_starts_on_a_free_port_and_is_gone_after_the_drop() {
        if Command::new("mosquitto").arg("-h").output().is_err() {
            eprintln!("skipped: mosquitto is not installed");
            return;
        }
        let peer = Peer::start(Kind::Mosquitto, 10, false).expect("starts");
        let address = peer.address;
        assert_eq!(crate::procfs::listener(address.port()), Some(peer.process()));
        assert!(
            peer.description.contains("mosquitto version"),
            "{}",
            peer.description
        );
        drop(peer);
        assert!(TcpStream::connect(address).is_err());
    }
}
