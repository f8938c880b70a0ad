//! Every option of `godwit`, once: this struct gives the flags, the environment variables, the configuration file and
//! godwit.example.toml. Not here: what follows from the options together (`settings`), their types (`types`).

// The comments are the generated configuration file, where a URL is a plain one.
#![expect(rustdoc::bare_urls)]

mod changes;
mod cluster;
mod load;
mod settings;
mod types;

use std::path::PathBuf;

use godwit_accounts::Direct;
use godwit_accounts::acl::Rule;

pub use cluster::{Cluster, Copies, Engine, NodeRole, PeerTrust};
pub use load::unknown_variables;
pub use settings::{ClientTls, Settings, Tls};
pub use types::{ClientAuth, Hidden, Listen, LogFormat, Network, Registration, Switch, TlsFiles};

/// A configuration that cannot be taken; the text is one line for the person who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Configuration of a Godwit node: a flag counts before the environment, the environment before this file, this file
/// before the default.
#[derive(Clone, Debug, confique::Config)]
#[config(layer_attr(derive(clap::Args, Clone, Debug)))]
#[config(layer_attr(serde(deny_unknown_fields)))]
pub struct Config {
    /// Folder of everything that is kept. Made at the first start; one process at a time.
    #[config(env = "GODWIT_DATA_DIR", default = "./godwit-data")]
    #[config(layer_attr(arg(long, value_name = "DIR")))]
    pub data_dir: PathBuf,

    /// Where MQTT is listened for: an address with port, or "off".
    #[config(env = "GODWIT_MQTT", default = "127.0.0.1:1883")]
    #[config(layer_attr(arg(long, value_name = "ADDR")))]
    pub mqtt: Listen,

    /// Where HTTP is listened for (REST, and MQTT over WebSocket at /mqtt): an address with port, or "off".
    #[config(env = "GODWIT_HTTP", default = "127.0.0.1:8080")]
    #[config(layer_attr(arg(long, value_name = "ADDR")))]
    pub http: Listen,

    /// Where metrics, health and administration are listened for: an address with port, or "off". What changes anything
    /// there wants the token in the file admin.token of the data folder.
    #[config(env = "GODWIT_ADMIN", default = "127.0.0.1:9090")]
    #[config(layer_attr(arg(long, value_name = "ADDR")))]
    pub admin: Listen,

    /// Where MQTT over TLS is listened for, if there is a certificate: an address with port, or "off".
    #[config(env = "GODWIT_MQTTS", default = "127.0.0.1:8883")]
    #[config(layer_attr(arg(long, value_name = "ADDR")))]
    pub mqtts: Listen,

    /// Where HTTPS is listened for, if there is a certificate: an address with port, or "off".
    #[config(env = "GODWIT_HTTPS", default = "127.0.0.1:8443")]
    #[config(layer_attr(arg(long, value_name = "ADDR")))]
    pub https: Listen,

    /// Certificate chain (PEM) for MQTT over TLS and HTTPS. The options of TLS and the files are read again on SIGHUP; without TLS
    /// at the start they count at the next one.
    #[config(env = "GODWIT_TLS_CERT")]
    #[config(layer_attr(arg(long, value_name = "FILE")))]
    pub tls_cert: Option<PathBuf>,

    /// Private key (PEM) of the certificate.
    #[config(env = "GODWIT_TLS_KEY")]
    #[config(layer_attr(arg(long, value_name = "FILE")))]
    pub tls_key: Option<PathBuf>,

    /// More certificates, chosen by the server name that a client asks for (SNI); clients that ask for none or for an unknown
    /// one get that of tls_cert, or else the first of these. As a flag (once a certificate) or in the environment (separated
    /// by ";"): CERT,KEY or CERT,KEY,NAME,... In this file a list, as the last thing or in one line; without names those of
    /// the certificate count: `tls = [{ cert = "chat.pem", key = "chat.key", names = ["chat.example.org"] }]`
    #[config(env = "GODWIT_TLS", parse_env = types::certificates)]
    #[config(layer_attr(arg(long, value_name = "CERTIFICATE", value_parser = types::certificate)))]
    pub tls: Option<Vec<TlsFiles>>,

    /// Authorities (PEM) whose certificates let MQTT clients in without a password: the common name of the subject is the
    /// user's name or id. Needs tls_client_auth.
    #[config(env = "GODWIT_TLS_CLIENT_CA")]
    #[config(layer_attr(arg(long, value_name = "FILE")))]
    pub tls_client_ca: Option<PathBuf>,

    /// Whether clients of MQTT over TLS show a certificate: "off", "optional" or "required". Over HTTPS (MQTT over WebSocket) a
    /// certificate is optional even if it is required here, and REST looks at none.
    #[config(env = "GODWIT_TLS_CLIENT_AUTH", default = "off")]
    #[config(layer_attr(arg(long, value_name = "WHETHER")))]
    pub tls_client_auth: ClientAuth,

    /// Certificate revocation lists (PEM) of those authorities, and of no others. An authority without a list revokes nothing.
    #[config(env = "GODWIT_TLS_CLIENT_CRL")]
    #[config(layer_attr(arg(long, value_name = "FILE")))]
    pub tls_client_crl: Option<PathBuf>,

    /// Whether every connection to mqtt, mqtts, http and https begins with a header of the PROXY protocol (1 or 2), by which a
    /// balancer announces its client: "on" or "off". The client's address counts from then on.
    #[config(env = "GODWIT_PROXY_PROTOCOL", default = "off")]
    #[config(layer_attr(arg(long, value_name = "SWITCH")))]
    pub proxy_protocol: Switch,

    /// Addresses and networks of those balancers, such as ["192.0.2.7", "10.0.0.0/8"]; connections from others are closed. Whoever
    /// connects from there is believed, so networks wider than /8 (IPv6: /7) are refused.
    #[config(env = "GODWIT_PROXY_FROM", parse_env = confique::env::parse::list_by_comma, default = [])]
    #[config(layer_attr(arg(long, value_name = "NETWORK", value_delimiter = ',')))]
    pub proxy_from: Vec<Network>,

    /// Let clients in without a user name: they read and write every ordinary topic, never me/, c/, p/ or u/.
    #[config(env = "GODWIT_ANONYMOUS", default = false)]
    #[config(layer_attr(arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")))]
    pub anonymous: bool,

    /// Who may register: "open" (anyone), "closed" (nobody; see `godwit user add`) or "token" (who knows
    /// registration_token). Without it: open if HTTP is listened for on loopback addresses only, else closed.
    #[config(env = "GODWIT_REGISTRATION")]
    #[config(layer_attr(arg(long, value_name = "WHO")))]
    pub registration: Option<Registration>,

    /// What a registration must bring where registration is "token"; 8 to 256 characters. Other people on the machine
    /// can read it in a flag: prefer the file or the environment.
    #[config(env = "GODWIT_REGISTRATION_TOKEN")]
    #[config(layer_attr(arg(long, value_name = "TOKEN")))]
    pub registration_token: Option<Hidden>,

    /// Registrations a second from one address for ever, beside 1,000 at once; 0: as many as come, for loading many users.
    #[config(env = "GODWIT_REGISTRATIONS_PER_SECOND", default = 5)]
    #[config(layer_attr(arg(long, value_name = "COUNT")))]
    pub registrations_per_second: u32,

    /// Who may write to a user: "anyone" (who is not blocked) or "contacts" (both ways).
    #[config(env = "GODWIT_DIRECT", default = "anyone")]
    #[config(layer_attr(arg(long, value_name = "WHO", value_parser = types::direct)))]
    pub direct: Direct,

    /// Web origins that may use the HTTP interface from a browser, such as ["https://chat.example.org"]; ["*"]: any.
    #[config(env = "GODWIT_CORS_ORIGINS", parse_env = confique::env::parse::list_by_comma, default = [])]
    #[config(layer_attr(arg(long, value_name = "ORIGIN", value_delimiter = ',')))]
    pub cors_origins: Vec<String>,

    /// Threads that own users, conversations and topics; 0: one for each core.
    #[config(env = "GODWIT_WORKERS", default = 0)]
    #[config(layer_attr(arg(long, value_name = "COUNT")))]
    pub workers: u16,

    /// Most MQTT connections at a time; 0: what the limit on open files leaves room for.
    #[config(env = "GODWIT_MAX_CONNECTIONS", default = 0)]
    #[config(layer_attr(arg(long, value_name = "COUNT")))]
    pub max_connections: u32,

    /// Megabytes of memory, pages of files apart, at which no further MQTT connection is let in until it is less; 64 at least. 0: what
    /// the process's control group may have, less a tenth; without one there is no bound.
    #[config(env = "GODWIT_MAX_MEMORY_MB", default = 0)]
    #[config(layer_attr(arg(long, value_name = "MB")))]
    pub max_memory_mb: u32,

    /// Most MQTT connections of one address (IPv6: of one /64) at a time; 0: no limit. With the default a machine can open 20,000
    /// for a load test; on the internet a lower one is right, unless many users share an address.
    #[config(env = "GODWIT_CONNECTIONS_PER_ADDRESS", default = 25_000)]
    #[config(layer_attr(arg(long, value_name = "COUNT")))]
    pub connections_per_address: u32,

    /// New MQTT connections a second of one address (IPv6: of one /64) for ever, beside what ten such seconds allow at once;
    /// 0: no limit, since behind one address there may be a whole town whose phones return at once. At most 1000000.
    #[config(env = "GODWIT_CONNECTS_PER_ADDRESS", default = 0)]
    #[config(layer_attr(arg(long, value_name = "COUNT")))]
    pub connects_per_address: u32,

    /// Seconds until a new connection is closed that has sent no whole CONNECT, or over HTTP no whole first request; the
    /// handshake of TLS and the header of a balancer included. 1 to 60.
    #[config(env = "GODWIT_CONNECT_SECONDS", default = 5)]
    #[config(layer_attr(arg(long, value_name = "SECONDS")))]
    pub connect_seconds: u32,

    /// Days that entries of a mailbox are kept for devices that do not come; 1 to 3650.
    #[config(env = "GODWIT_MAILBOX_DAYS", default = 90)]
    #[config(layer_attr(arg(long, value_name = "DAYS")))]
    pub mailbox_days: u32,

    /// And how many entries of one mailbox at most, 16384 at least. Beyond it the oldest go, a sixteenth at a time, and devices that did
    /// not have them are told of a gap.
    #[config(env = "GODWIT_MAILBOX_ENTRIES", default = 1_000_000)]
    #[config(layer_attr(arg(long, value_name = "COUNT")))]
    pub mailbox_entries: u32,

    /// And how many bytes of refused sends, which no conversation holds, 16777216 at least.
    #[config(env = "GODWIT_MAILBOX_BYTES", default = 268_435_456)]
    #[config(layer_attr(arg(long, value_name = "BYTES")))]
    pub mailbox_bytes: u32,

    /// Most entries that ordinary topics owe to one persistent session, 16384 at least. Beyond it the oldest go, a sixteenth at a time,
    /// and are counted; a connected client is disconnected (0x97).
    #[config(env = "GODWIT_SESSION_LOG_ENTRIES", default = 100_000)]
    #[config(layer_attr(arg(long, value_name = "COUNT")))]
    pub session_log_entries: u32,

    /// And most bytes of them, 16777216 at least.
    #[config(env = "GODWIT_SESSION_LOG_BYTES", default = 67_108_864)]
    #[config(layer_attr(arg(long, value_name = "BYTES")))]
    pub session_log_bytes: u32,

    /// Days after which an absent session ends at the latest, whatever its client asked for; 1 to 3650.
    #[config(env = "GODWIT_SESSION_DAYS", default = 90)]
    #[config(layer_attr(arg(long, value_name = "DAYS")))]
    pub session_days: u32,

    /// PUBLISHes a second of one user for ever, beside those of five such seconds at once; 0: no limit. Beyond it the user's
    /// clients are not read for a while, which loses nothing; who keeps at it for 5 minutes is disconnected (0x96). The
    /// default is eight times what each publisher does when a hundred of them load a node of two cores.
    #[config(env = "GODWIT_PUBLISHES_PER_SECOND", default = 20_000)]
    #[config(layer_attr(arg(long, value_name = "COUNT")))]
    pub publishes_per_second: u32,

    /// And bytes of them (topics, payloads and properties), 16384 at least; 0: no limit. The default is a tenth of what a fast
    /// disk writes.
    #[config(env = "GODWIT_PUBLISH_BYTES_PER_SECOND", default = 33_554_432)]
    #[config(layer_attr(arg(long, value_name = "BYTES")))]
    pub publish_bytes_per_second: u32,

    /// Most retained messages of one user under all topics; 0: no limit but the topics' (50,000 under one pair of first levels).
    /// One more is refused (0x97).
    #[config(env = "GODWIT_RETAINED_PER_USER", default = 100_000)]
    #[config(layer_attr(arg(long, value_name = "COUNT")))]
    pub retained_per_user: u32,

    /// And most bytes of them, with their topics, properties and what keeping each costs; 0: no limit.
    #[config(env = "GODWIT_RETAINED_BYTES_PER_USER", default = 67_108_864)]
    #[config(layer_attr(arg(long, value_name = "BYTES")))]
    pub retained_bytes_per_user: u64,

    /// Longest keep-alive of clients of MQTT 5, seconds: who asks for more or for none is told this one in CONNACK (Server
    /// Keep Alive). 0: what clients ask for.
    #[config(env = "GODWIT_MAX_KEEP_ALIVE", default = 0)]
    #[config(layer_attr(arg(long, value_name = "SECONDS")))]
    pub max_keep_alive: u16,

    /// Highest QoS of what clients publish and of their wills: 0, 1 or 2. Told in CONNACK; who publishes above it is
    /// disconnected (0x9B).
    #[config(env = "GODWIT_MAX_QOS", default = 2)]
    #[config(layer_attr(arg(long, value_name = "QOS")))]
    pub max_qos: u8,

    /// Where clients of MQTT 5 are sent when this node ends, or has as many connections as it may (Server Reference): HOST or
    /// HOST:PORT, or several with blanks between. Without it they are told that the server shuts down, or closed at once.
    #[config(env = "GODWIT_SERVER_REFERENCE")]
    #[config(layer_attr(arg(long, value_name = "SERVER")))]
    pub server_reference: Option<String>,

    /// Megabytes of memory for blocks of the store that were read; 8 to 65536.
    #[config(env = "GODWIT_STORE_CACHE_MB", default = 32)]
    #[config(layer_attr(arg(long, value_name = "MB")))]
    pub store_cache_mb: u32,

    /// Where everything is kept: "embedded" (in data_dir, one node) or "cql" (in ScyllaDB or Apache Cassandra, as many nodes as
    /// you like; `godwit schema` first). The options from here to drain_seconds are for "cql".
    #[config(env = "GODWIT_STORE", default = "embedded")]
    #[config(layer_attr(arg(long, value_name = "ENGINE")))]
    pub store: Engine,

    /// Nodes of the CQL store that are asked first, HOST or HOST:PORT (9042): some of them, for when one is away. At most 64.
    #[config(env = "GODWIT_CQL_NODES", parse_env = confique::env::parse::list_by_comma, default = [])]
    #[config(layer_attr(arg(long, value_name = "HOST", value_delimiter = ',')))]
    pub cql_nodes: Vec<String>,

    /// Keyspace of the data; a second one has its name with _own behind it. 1 to 40 of a to z, 0 to 9 and _.
    #[config(env = "GODWIT_CQL_KEYSPACE", default = "godwit")]
    #[config(layer_attr(arg(long, value_name = "KEYSPACE")))]
    pub cql_keyspace: String,

    /// The data centre of the store that all nodes of Godwit are in: they write and read at LOCAL_QUORUM there. Without it at
    /// QUORUM over all. Alike on all nodes, and for `godwit schema`.
    #[config(env = "GODWIT_CQL_DATACENTER")]
    #[config(layer_attr(arg(long, value_name = "NAME")))]
    pub cql_datacenter: Option<String>,

    /// Copies of everything, when `godwit schema` makes the keyspaces: a number, or by data centre: "dc1:3,dc2:3".
    #[config(env = "GODWIT_CQL_REPLICATION", default = "3")]
    #[config(layer_attr(arg(long, value_name = "COPIES")))]
    pub cql_replication: Copies,

    /// User of the CQL store, if it asks for one.
    #[config(env = "GODWIT_CQL_USER")]
    #[config(layer_attr(arg(long, value_name = "NAME")))]
    pub cql_user: Option<String>,

    /// Its password. Other people on the machine can read it in a flag: prefer the file or the environment.
    #[config(env = "GODWIT_CQL_PASSWORD")]
    #[config(layer_attr(arg(long, value_name = "PASSWORD")))]
    pub cql_password: Option<Hidden>,

    /// Authorities (PEM) of the certificates of the CQL store's nodes: the way there is encrypted then. Each certificate names the address
    /// (IP) of its node. In builds with the feature cql-tls.
    #[config(env = "GODWIT_CQL_TLS_CA")]
    #[config(layer_attr(arg(long, value_name = "FILE")))]
    pub cql_tls_ca: Option<PathBuf>,

    /// Certificate chain (PEM) that is shown to the CQL store, if it asks for one. Needs cql_tls_ca.
    #[config(env = "GODWIT_CQL_TLS_CERT")]
    #[config(layer_attr(arg(long, value_name = "FILE")))]
    pub cql_tls_cert: Option<PathBuf>,

    /// Private key (PEM) of that certificate.
    #[config(env = "GODWIT_CQL_TLS_KEY")]
    #[config(layer_attr(arg(long, value_name = "FILE")))]
    pub cql_tls_key: Option<PathBuf>,

    /// Name of the cluster of Godwit whose data the keyspace is: nodes that are set to another are refused.
    #[config(env = "GODWIT_CLUSTER", default = "godwit")]
    #[config(layer_attr(arg(long, value_name = "NAME")))]
    pub cluster: String,

    /// This node's name, no other's: 1 to 64 letters, digits, ".", "_" and "-". It decides what the node owns, so keep it.
    #[config(env = "GODWIT_NODE_NAME")]
    #[config(layer_attr(arg(long, value_name = "NAME")))]
    pub node_name: Option<String>,

    /// Where other nodes are listened for: an address with port, or "off".
    #[config(env = "GODWIT_PEER", default = "off")]
    #[config(layer_attr(arg(long, value_name = "ADDR")))]
    pub peer: Listen,

    /// Where other nodes reach it, HOST:PORT. Without it: peer.
    #[config(env = "GODWIT_PEER_ADVERTISE")]
    #[config(layer_attr(arg(long, value_name = "HOST:PORT")))]
    pub peer_advertise: Option<String>,

    /// What nodes show each other, 16 to 256 characters, alike on all. Without it and peer_tls_cert: one that the first node
    /// makes and keeps in the store.
    #[config(env = "GODWIT_PEER_KEY")]
    #[config(layer_attr(arg(long, value_name = "KEY")))]
    pub peer_key: Option<Hidden>,

    /// Certificate (PEM) that this node shows to others and they to it; its names are those in peer_advertise.
    #[config(env = "GODWIT_PEER_TLS_CERT")]
    #[config(layer_attr(arg(long, value_name = "FILE")))]
    pub peer_tls_cert: Option<PathBuf>,

    /// Private key (PEM) of that certificate.
    #[config(env = "GODWIT_PEER_TLS_KEY")]
    #[config(layer_attr(arg(long, value_name = "FILE")))]
    pub peer_tls_key: Option<PathBuf>,

    /// Authority (PEM) of the nodes' certificates, and of nothing else: whoever has one from it is a node.
    #[config(env = "GODWIT_PEER_TLS_CA")]
    #[config(layer_attr(arg(long, value_name = "FILE")))]
    pub peer_tls_ca: Option<PathBuf>,

    /// What this node does: some of ["broker", "ingest", "search", "api"]. It takes no shards of what it does not do.
    #[config(env = "GODWIT_ROLES", parse_env = confique::env::parse::list_by_comma, default = ["broker", "ingest", "search", "api"])]
    #[config(layer_attr(arg(long, value_name = "ROLE", value_delimiter = ',')))]
    pub roles: Vec<NodeRole>,

    /// Where MQTT clients reach this node, HOST:PORT: told to clients and other nodes. Without it: mqtt, unless that is every
    /// address of the machine (0.0.0.0).
    #[config(env = "GODWIT_ADVERTISE_MQTT")]
    #[config(layer_attr(arg(long, value_name = "HOST:PORT")))]
    pub advertise_mqtt: Option<String>,

    /// The same for HTTP.
    #[config(env = "GODWIT_ADVERTISE_HTTP")]
    #[config(layer_attr(arg(long, value_name = "HOST:PORT")))]
    pub advertise_http: Option<String>,

    /// Seconds that a node of a cluster takes at most, when it is asked to end (SIGTERM), to give its shards to the others and send its
    /// clients there before it ends; 0 to 600. 0: it ends at once, and its users wait until the others find it dead. Without
    /// other nodes it does not count.
    #[config(env = "GODWIT_DRAIN_SECONDS", default = 10)]
    #[config(layer_attr(arg(long, value_name = "SECONDS")))]
    pub drain_seconds: u32,

    /// File with the key that signs access tokens, alike on all nodes of a cluster. Without it: signing.key in data_dir, or with
    /// store = "cql" one that the first node makes and keeps in the store.
    #[config(env = "GODWIT_SIGNING_KEY_FILE")]
    #[config(layer_attr(arg(long, value_name = "FILE")))]
    pub signing_key_file: Option<PathBuf>,

    /// What is logged: a level (error, warn, info, debug, trace), or levels by module ("info,godwit_broker=debug").
    #[config(env = "GODWIT_LOG", default = "info")]
    #[config(layer_attr(arg(long, value_name = "LEVELS")))]
    pub log: String,

    /// How it is logged: "auto" (text on a terminal, else JSON), "text" or "json".
    #[config(env = "GODWIT_LOG_FORMAT", default = "auto")]
    #[config(layer_attr(arg(long, value_name = "FORMAT")))]
    pub log_format: LogFormat,

    /// Who may use which ordinary topics. What a rule denies is refused, whatever others allow; what none allows is refused
    /// too. A subscription is refused if its filter can match a topic that is. As a flag (once a rule) or in the environment
    /// (rules separated by ";"): EFFECT ACCESS WHO FILTER, such as "allow publish users sensors/%u/#". EFFECT is allow or
    /// deny; ACCESS publish, subscribe or both; WHO users, anonymous or everyone; in FILTER %u is the user name and %c the
    /// client id. In this file a list, where access is both and who is users if left out:
    /// `acl = [{ allow = "iot/%u/#" }, { deny = "iot/+/firmware", access = "publish", who = "everyone" }]`
    /// or `[[acl]]` tables as the last thing. Read again on SIGHUP.
    ///
    /// Without any rule: users have "iot/%u/#", and anonymous clients (where they are let in) "#".
    #[config(env = "GODWIT_ACL", parse_env = types::rules)]
    #[config(layer_attr(arg(long, value_name = "RULE", value_parser = types::rule)))]
    pub acl: Option<Vec<Rule>>,
}

/// Flags, the layer that counts first.
pub type Flags = <Config as confique::Config>::Layer;

#[cfg(test)]
mod tests;
