//! Users' homes, topics' homes and MQTT: see docs/decisions/0004-inside-the-broker.md.

pub mod packet;
mod part;
mod topics;
mod wire_trait;

pub use topics::{Metrics as TopicMetrics, TopicTree};
