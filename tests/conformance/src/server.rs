//! The server under test: the real binary, started for this run, or one that runs elsewhere. What a case shares with
//! others is here too: names that nobody else has.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use godwit_e2e::binaries::Program;
use godwit_e2e::node::Node;

use crate::wire::Version;

/// First level of the topics that the server under test refuses to everyone, by a rule given at its start.
pub(crate) const DENIED: &str = "denied";

/// Where the server under test is, and the version that this run of the cases speaks.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) version: Version,
    pub(crate) mqtt: SocketAddr,
    /// MQTT over WebSocket, where known.
    pub(crate) http: Option<SocketAddr>,
    /// Whether it has our rule for [`DENIED`].
    pub(crate) rules: bool,
    names: AtomicU32,
    /// Kept so that it runs on; with its folder.
    _node: Option<(Node, tempfile::TempDir)>,
}

impl Server {
    /// Starts the binary for cases of one version.
    ///
    /// # Errors
    /// When it is not found, does not build or does not start.
    pub(crate) fn start(version: Version) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let start = || -> Result<Node, Box<dyn std::error::Error>> {
            let binary = Program::Godwit.path()?;
            let log = folder.path().join("godwit.log");
            let mut node = Node::new(&binary, &folder.path().join("data"), &log)?
                .arguments(&["--anonymous"])
                .environment(
                    "GODWIT_ACL",
                    &format!("deny both everyone {DENIED}/#;allow both anonymous #"),
                );
            node.start()?;
            Ok(node)
        };
        let node = start().map_err(|error| format!("godwit: {error}"))?;
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let ports = node.ports();
        Ok(Self {
            version,
            mqtt: at(ports.mqtt),
            http: Some(at(ports.http)),
            rules: true,
            names: AtomicU32::new(0),
            _node: Some((node, folder)),
        })
    }

    /// One that runs elsewhere.
    pub(crate) fn at(version: Version, mqtt: SocketAddr) -> Self {
        Self {
            version,
            mqtt,
            http: None,
            rules: false,
            names: AtomicU32::new(0),
            _node: None,
        }
    }

    /// A client id or topic that no other case has. It fits into 23 bytes of letters and digits.
    pub(crate) fn name(&self, what: &str) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let run = std::process::id();
        format!(
            "{what}{run}n{number}v{}",
            if self.version == Version::V5 { 5 } else { 4 }
        )
    }

    pub(crate) fn v5(&self) -> bool {
        self.version == Version::V5
    }
}
