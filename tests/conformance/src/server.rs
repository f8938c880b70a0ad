//! The server under test: the real binary, started for this run, or one that runs elsewhere. What a case shares with
//! others is here too: names that nobody else has.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use godwit_e2e::binaries::Program;
use godwit_e2e::node::Node;

use crate::cases::SKIPPED;
use crate::wire::Version;

/// First level of the topics that the guarded server refuses to everyone, by a rule given at its start.
pub(crate) const DENIED: &str = "denied";

/// Longest keep-alive of the limited server, seconds.
pub(crate) const LIMITED_KEEP_ALIVE: u16 = 1;

/// Numbers for names, one row for all servers.
static NAMES: AtomicU32 = AtomicU32::new(0);

/// Where the server under test is, and the version that this run of the cases speaks.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) version: Version,
    pub(crate) mqtt: SocketAddr,
    /// MQTT over WebSocket, where known.
    pub(crate) http: Option<SocketAddr>,
    /// REST of our own; nothing stands before it.
    pub(crate) rest: Option<SocketAddr>,
    /// Whether it is the product, started by us.
    pub(crate) own: bool,
    /// One more like it, with the rule for [`DENIED`].
    guarded: Option<SocketAddr>,
    /// One more, where QoS 1 is the maximum, the longest keep-alive [`LIMITED_KEEP_ALIVE`], and a user retains 3 messages.
    limited: Option<SocketAddr>,
    /// Kept so that it runs on; with its folder.
    _nodes: Vec<(Node, tempfile::TempDir)>,
}

impl Server {
    /// Starts the binary for cases of one version, with and without a rule.
    ///
    /// # Errors
    /// When it is not found, does not build or does not start.
    pub(crate) fn start(version: Version) -> Result<Self, String> {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let rules = format!("deny both everyone {DENIED}/#;allow both anonymous #");
        let keep_alive = LIMITED_KEEP_ALIVE.to_string();
        let limits = [
            ("GODWIT_MAX_QOS", "1"),
            ("GODWIT_MAX_KEEP_ALIVE", &*keep_alive),
            ("GODWIT_RETAINED_PER_USER", "3"),
        ];
        let (plain, guarded, limited) = thread::scope(|scope| {
            let guarded = scope.spawn(|| node(&[("GODWIT_ACL", &*rules)]));
            let limited = scope.spawn(|| node(&limits));
            let panicked = || Err("the start panicked".into());
            (
                node(&[]),
                guarded.join().unwrap_or_else(|_| panicked()),
                limited.join().unwrap_or_else(|_| panicked()),
            )
        });
        let (plain, guarded, limited) = (plain?, guarded?, limited?);
        let ports = plain.0.ports();
        Ok(Self {
            version,
            mqtt: at(ports.mqtt),
            http: Some(at(ports.http)),
            rest: Some(at(ports.http)),
            own: true,
            guarded: Some(at(guarded.0.ports().mqtt)),
            limited: Some(at(limited.0.ports().mqtt)),
            _nodes: vec![plain, guarded, limited],
        })
    }

    /// One that runs elsewhere.
    pub(crate) fn at(version: Version, mqtt: SocketAddr) -> Self {
        Self {
            version,
            mqtt,
            http: None,
            rest: None,
            own: false,
            guarded: None,
            limited: None,
            _nodes: Vec::new(),
        }
    }

    /// The same server where something stands before each of its doors for MQTT. REST stays as it is: it makes users and tokens
    /// for a case, and is no subject of one.
    pub(crate) fn behind(
        &self,
        mqtt: SocketAddr,
        http: Option<SocketAddr>,
        guarded: Option<SocketAddr>,
        limited: Option<SocketAddr>,
    ) -> Self {
        Self {
            version: self.version,
            mqtt,
            http,
            rest: self.rest,
            own: self.own,
            guarded,
            limited,
            _nodes: Vec::new(),
        }
    }

    /// The server that refuses topics below [`DENIED`].
    ///
    /// # Errors
    /// When there is none: the case is skipped.
    pub(crate) fn guarded(&self) -> Result<Self, String> {
        let mqtt = self
            .guarded
            .ok_or(format!("{SKIPPED}no rule that denies a topic"))?;
        let mut guarded = Self::at(self.version, mqtt);
        guarded.own = self.own;
        Ok(guarded)
    }

    /// The server that serves less: see the field.
    ///
    /// # Errors
    /// When there is none: the case is skipped.
    pub(crate) fn limited(&self) -> Result<Self, String> {
        let mqtt = self
            .limited
            .ok_or(format!("{SKIPPED}no server with a maximum QoS"))?;
        let mut limited = Self::at(self.version, mqtt);
        limited.own = self.own;
        Ok(limited)
    }

    /// A client id or topic that no other case has. It fits into 23 bytes of letters and digits.
    pub(crate) fn name(&self, what: &str) -> String {
        let number = NAMES.fetch_add(1, Ordering::Relaxed);
        let run = std::process::id();
        format!("{what}{run}n{number}v{}", if self.v5() { 5 } else { 4 })
    }

    pub(crate) fn v5(&self) -> bool {
        self.version == Version::V5
    }
}

/// A process of the product that lets everyone in. Another process may take its ports before it does; then once more.
fn node(options: &[(&str, &str)]) -> Result<(Node, tempfile::TempDir), String> {
    let mut wrong = String::new();
    for _ in 0..3 {
        match started(options) {
            Ok(node) => return Ok(node),
            Err(error) => wrong = error,
        }
    }
    Err(format!("godwit: {wrong}"))
}

fn started(options: &[(&str, &str)]) -> Result<(Node, tempfile::TempDir), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let start = || -> Result<Node, Box<dyn std::error::Error>> {
        let binary = Program::Godwit.path()?;
        let log = folder.path().join("godwit.log");
        let mut node = Node::new(&binary, &folder.path().join("data"), &log)?.arguments(&["--anonymous"]);
        for (name, value) in options {
            node = node.environment(name, value);
        }
        node.start()?;
        // It may be another's readiness that was seen: this one must live and listen.
        thread::sleep(Duration::from_millis(300));
        if let Some(status) = node.ended()? {
            return Err(format!("it ended ({status}): {}", node.tail()).into());
        }
        TcpStream::connect(("127.0.0.1", node.ports().mqtt))?;
        Ok(node)
    };
    let node = start().map_err(|error| error.to_string())?;
    Ok((node, folder))
}
