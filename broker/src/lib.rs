//! Users' homes, topics' homes and MQTT: see docs/decisions/0004-inside-the-broker.md.

pub mod packet;
mod part;
pub mod tables;
mod topics;
mod users;
mod wire_trait;

pub use users::{UsersConfig, UsersMetrics};
pub use topics::{Metrics as TopicMetrics, TopicTree};
