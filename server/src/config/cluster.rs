//! The options of a node that is one of many: their types, and what follows from them together. How the store and the other nodes are
//! spoken to is `crate::cluster`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use godwit_cluster::own::{About, MAX_NAME, Roles};
use godwit_store::cql;
use serde::Deserialize;

use super::{Config, ConfigError, Hidden, Listen};

/// Longest name of a node, in characters: it stands in a view once for each view that is not settled.
const NAME_CHARS: usize = 64;
/// Most copies: more cost without keeping anything safer.
const COPIES: std::ops::RangeInclusive<u8> = 1..=15;
/// Most nodes of the store that are named: the others are found through them.
const CQL_NODES: usize = 64;
const KEY_CHARS: std::ops::RangeInclusive<usize> = 16..=256;

/// Where everything is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// In the data folder.
    Embedded,
    /// In ScyllaDB or Apache Cassandra.
    Cql,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Users, topics, MQTT.
    Broker,
    /// Conversations.
    Ingest,
    /// The search index.
    Search,
    /// REST, MQTT over WebSocket.
    Api,
}

/// Why a text is no [`NodeRole`] or no [`Copies`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotThat(String);

impl FromStr for NodeRole {
    type Err = NotThat;

    fn from_str(text: &str) -> Result<Self, NotThat> {
        <Self as clap::ValueEnum>::from_str(text.trim(), false)
            .map_err(|_| NotThat(format!("\"{text}\" is no role: broker, ingest, search, api")))
    }
}

/// Copies of everything, where.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Copies(pub cql::Replication);

impl FromStr for Copies {
    type Err = NotThat;

    fn from_str(text: &str) -> Result<Self, NotThat> {
        let wrong = || {
            NotThat(format!(
                "\"{text}\" is not a number of copies (3), nor copies by data centre (dc1:3,dc2:3)"
            ))
        };
        let count = |text: &str| {
            let count = text.trim().parse::<u8>().ok();
            count.filter(|count| COPIES.contains(count)).ok_or_else(wrong)
        };
        if !text.contains(':') {
            return Ok(Self(cql::Replication::Simple(count(text)?)));
        }
        let mut all: Vec<(String, u8)> = Vec::new();
        for part in text.split(',') {
            let (name, copies) = part.split_once(':').ok_or_else(wrong)?;
            let name = name.trim();
            if name.is_empty()
                || name.contains(char::is_control)
                || all.iter().any(|(other, _)| other == name)
            {
                return Err(wrong());
            }
            all.push((name.to_owned(), count(copies)?));
        }
        Ok(Self(cql::Replication::Datacenters(all)))
    }
}

impl TryFrom<String> for Copies {
    type Error = NotThat;

    fn try_from(text: String) -> Result<Self, NotThat> {
        text.parse()
    }
}

/// How nodes know each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerTrust {
    /// By a key that is kept in the store: whoever reads the keyspaces is trusted anyway.
    Stored,
    /// By this key.
    Key(Hidden),
    /// By certificates of one authority.
    Tls {
        /// This node's, PEM.
        cert: PathBuf,
        /// Its private key, PEM.
        key: PathBuf,
        /// The authority, PEM.
        ca: PathBuf,
    },
}

/// A node's place in a cluster, checked.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The store.
    pub cql: cql::Options,
    /// What the node says about itself: name, roles, addresses.
    pub about: About,
    /// Where it listens for other nodes.
    pub peer: SocketAddr,
    /// How nodes know each other.
    pub trust: PeerTrust,
    /// The key that signs access tokens, if it is not the store's.
    pub signing_key: Option<PathBuf>,
}

impl Cluster {
    /// Of a node with `store = "cql"`; `None` of one that stands alone.
    ///
    /// # Errors
    /// One line that names the option.
    pub(super) fn of(options: &Config) -> Result<Option<Self>, ConfigError> {
        if options.store == Engine::Embedded {
            return match alone(options) {
                None => Ok(None),
                Some(option) => Err(ConfigError(format!("{option} needs store = \"cql\""))),
            };
        }
        let Some(name) = &options.node_name else {
            return Err(ConfigError("store = \"cql\" needs node_name".into()));
        };
        check_name("node_name", name)?;
        let Some(peer) = options.peer.address() else {
            return Err(ConfigError(
                "store = \"cql\" needs peer: where other nodes are listened for".into(),
            ));
        };
        let Some(reached) = advertised(options.peer_advertise.as_ref(), options.peer) else {
            return Err(ConfigError(format!(
                "peer is {peer}, which others cannot reach: peer_advertise says where they do"
            )));
        };
        let Some(roles) = options.roles.iter().map(|role| bit(*role)).reduce(Roles::and) else {
            return Err(ConfigError(
                "roles is empty: a node without any does nothing".into(),
            ));
        };
        let addresses = [
            ("peer_advertise", &options.peer_advertise),
            ("advertise_mqtt", &options.advertise_mqtt),
            ("advertise_http", &options.advertise_http),
        ];
        for (option, address) in addresses {
            check_address(option, address.as_deref())?;
        }
        let about = About {
            name: name.clone(),
            roles,
            peer: reached,
            // Where it does not serve nobody is sent.
            mqtt: advertised(options.advertise_mqtt.as_ref(), options.mqtt)
                .filter(|_| roles.has(Roles::BROKER))
                .unwrap_or_default(),
            http: advertised(options.advertise_http.as_ref(), options.http)
                .filter(|_| roles.has(Roles::API))
                .unwrap_or_default(),
        };
        Ok(Some(Self {
            cql: options.cql()?,
            about,
            peer,
            trust: trust(options)?,
            signing_key: options.signing_key_file.clone(),
        }))
    }
}

impl Config {
    /// The CQL store that the options name, whether this is a node's configuration or that of `godwit schema`.
    ///
    /// # Errors
    /// One line that names the option.
    pub fn cql(&self) -> Result<cql::Options, ConfigError> {
        if self.cql_nodes.is_empty() {
            return Err(ConfigError(
                "cql_nodes is empty: some nodes of the CQL store must be named".into(),
            ));
        }
        if self.cql_nodes.len() > CQL_NODES {
            return Err(ConfigError(format!("cql_nodes has more than {CQL_NODES} nodes")));
        }
        if let Some(bad) = self.cql_nodes.iter().find(|node| !is_host(node)) {
            return Err(ConfigError(format!(
                "cql_nodes: \"{bad}\" is no HOST and no HOST:PORT"
            )));
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let keyspace = &self.cql_keyspace;
        if !keyspace.starts_with(|c: char| c.is_ascii_lowercase())
            || keyspace.len() > 40
            || !keyspace.chars().all(plain)
        {
            return Err(ConfigError(format!(
                "cql_keyspace: \"{keyspace}\" is not 1 to 40 of a to z, 0 to 9 and _, beginning with a letter"
            )));
        }
        check_name("cluster", &self.cluster)?;
        let credentials = match (&self.cql_user, &self.cql_password) {
            (Some(user), Some(password)) => Some((user.clone(), password.0.clone())),
            (None, None) => None,
            _ => return Err(ConfigError("cql_user and cql_password need each other".into())),
        };
        let mut options = cql::Options::new(self.cql_nodes.clone());
        options.keyspace.clone_from(keyspace);
        options.cluster.clone_from(&self.cluster);
        options.datacenter.clone_from(&self.cql_datacenter);
        options.replication = self.cql_replication.0.clone();
        options.credentials = credentials;
        options.tls = match (&self.cql_tls_ca, &self.cql_tls_cert, &self.cql_tls_key) {
            (None, None, None) => None,
            (Some(ca), None, None) => Some(cql::Tls {
                ca: ca.clone(),
                client: None,
            }),
            (Some(ca), Some(cert), Some(key)) => Some(cql::Tls {
                ca: ca.clone(),
                client: Some((cert.clone(), key.clone())),
            }),
            (None, ..) => return Err(ConfigError("cql_tls_cert and cql_tls_key need cql_tls_ca".into())),
            _ => return Err(ConfigError("cql_tls_cert and cql_tls_key need each other".into())),
        };
        Ok(options)
    }
}

/// The option that a node on the embedded store must not have, if it has one.
fn alone(options: &Config) -> Option<&'static str> {
    let given = [
        ("cql_nodes", !options.cql_nodes.is_empty()),
        ("cql_datacenter", options.cql_datacenter.is_some()),
        ("cql_user", options.cql_user.is_some()),
        ("cql_password", options.cql_password.is_some()),
        ("cql_tls_ca", options.cql_tls_ca.is_some()),
        ("cql_tls_cert", options.cql_tls_cert.is_some()),
        ("cql_tls_key", options.cql_tls_key.is_some()),
        ("node_name", options.node_name.is_some()),
        ("peer", options.peer != Listen::Off),
        ("peer_advertise", options.peer_advertise.is_some()),
        ("peer_key", options.peer_key.is_some()),
        ("peer_tls_cert", options.peer_tls_cert.is_some()),
        ("peer_tls_key", options.peer_tls_key.is_some()),
        ("peer_tls_ca", options.peer_tls_ca.is_some()),
        (
            "roles",
            options.roles.iter().map(|role| bit(*role)).reduce(Roles::and) != Some(Roles::ALL),
        ),
        ("advertise_mqtt", options.advertise_mqtt.is_some()),
        ("advertise_http", options.advertise_http.is_some()),
        ("signing_key_file", options.signing_key_file.is_some()),
    ];
    given
        .into_iter()
        .find_map(|(option, given)| given.then_some(option))
}

fn bit(role: NodeRole) -> Roles {
    match role {
        NodeRole::Broker => Roles::BROKER,
        NodeRole::Ingest => Roles::INGEST,
        NodeRole::Search => Roles::SEARCH,
        NodeRole::Api => Roles::API,
    }
}

fn check_name(option: &str, name: &str) -> Result<(), ConfigError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > NAME_CHARS || !name.chars().all(plain) {
        return Err(ConfigError(format!(
            "{option}: \"{name}\" is not 1 to {NAME_CHARS} letters, digits, \".\", \"_\" and \"-\""
        )));
    }
    Ok(())
}

/// A name or an address, with a port or without.
fn is_host(text: &str) -> bool {
    let strange = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '/' | '@' | ',');
    !text.is_empty() && text.len() <= MAX_NAME && !text.contains(strange)
}

fn check_address(option: &str, address: Option<&str>) -> Result<(), ConfigError> {
    let has_port = |text: &str| {
        let port = text
            .rsplit_once(':')
            .map(|(host, port)| (host, port.parse::<u16>()));
        matches!(port, Some((host, Ok(1..))) if !host.is_empty())
    };
    match address {
        Some(text) if !is_host(text) || !has_port(text) => Err(ConfigError(format!(
            "{option}: \"{text}\" is no HOST:PORT, such as n1.example.org:7883"
        ))),
        _ => Ok(()),
    }
}

/// What is told to others: what was said, or where it listens if that is one address.
fn advertised(said: Option<&String>, listen: Listen) -> Option<String> {
    let one = |address: &SocketAddr| !address.ip().is_unspecified();
    said.cloned()
        .or_else(|| listen.address().filter(one).map(|address| address.to_string()))
}

fn trust(options: &Config) -> Result<PeerTrust, ConfigError> {
    match (
        &options.peer_key,
        &options.peer_tls_cert,
        &options.peer_tls_key,
        &options.peer_tls_ca,
    ) {
        (None, None, None, None) => Ok(PeerTrust::Stored),
        (Some(key), None, None, None) if KEY_CHARS.contains(&key.0.chars().count()) => {
            Ok(PeerTrust::Key(key.clone()))
        }
        (Some(_), None, None, None) => Err(ConfigError("peer_key must have 16 to 256 characters".into())),
        (None, Some(cert), Some(key), Some(ca)) => Ok(PeerTrust::Tls {
            cert: cert.clone(),
            key: key.clone(),
            ca: ca.clone(),
        }),
        (None, ..) => Err(ConfigError(
            "peer_tls_cert, peer_tls_key and peer_tls_ca need each other".into(),
        )),
        (Some(_), ..) => Err(ConfigError(
            "peer_key and peer_tls_cert exclude each other".into(),
        )),
    }
}

#[cfg(test)]
mod tests;
