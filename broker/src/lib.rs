//! Users' homes, topics' homes and MQTT: see docs/decisions/0004-inside-the-broker.md.

mod broker;
pub mod codec;
mod copies;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzz;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "tests and fuzzers each use a part"
)]
mod memory_store;
mod net;
pub mod packet;
mod part;
pub mod tables;
mod topics;
mod users;
mod wire_trait;

pub use broker::{Broker, Config, Metrics, NewRules};
pub use net::{
    AddressLimits, Addresses, Announced, Listener, NetConfig, NetMetrics, NewConnection, NewTransport,
    PROXY_V2_BYTES, Proxies, StopListening, TOLD, TlsSettings, VerifyAgain, announced, spliced,
};
pub use topics::{Metrics as TopicMetrics, TopicTree};
pub use users::{UsersConfig, UsersMetrics};
