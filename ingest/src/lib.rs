//! The ingest bridge: conversations' homes. It gives every message its sequence number, stores it, fans it out to the
//! mailboxes and only then lets it be acknowledged. It knows no MQTT and no HTTP: commands come in, answers go out.

mod announce;
mod change;
mod conversation;
mod create;
mod fan_out;
mod given_up;
mod members;
mod metrics;
mod page;
mod read;
mod receipts;
mod recover;
mod role;
mod rows;
mod searching;
mod send;
mod tables;
mod tail;
mod words;

pub use metrics::Metrics;
pub use role::{Config, Confirmed, Ingest};
pub use rows::{fan_out_mark, fan_out_mark_of};
pub use searching::{FINDS, Replies, Searching};
pub use tables::{
    ALL_TABLES, CLIENT_IDS, CONVERSATION_LOG, CONVERSATION_ROWS, CONVERSATIONS, MESSAGE_IDS, OPEN_TAILS,
    message_place, tail_partition,
};
