//! Users' homes, topics' homes and MQTT: see docs/decisions/0004-inside-the-broker.md.

mod broker;
pub mod codec;
mod net;
pub mod packet;
mod part;
pub mod tables;
mod topics;
mod users;
mod wire_trait;

pub use broker::{Broker, Config, Metrics};
pub use net::{Listener, NetConfig, NetMetrics, NewConnection, NewTransport, StopListening};
pub use topics::{Metrics as TopicMetrics, TopicTree};
pub use users::{UsersConfig, UsersMetrics};
