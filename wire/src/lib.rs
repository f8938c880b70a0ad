//! The contract: ids, keys, protobuf and JSON forms, topic names, error codes, limits, and the commands and answers
//! between homes. No IO, no state.

pub mod account;
pub mod address;
pub mod code;
pub mod command;
pub mod content;
pub mod entry;
pub mod ids;
pub mod json;
pub mod limits;
pub mod peer;
mod search_command;
mod session_info;
pub mod topic;
mod topic_command;

/// Types generated from `proto/`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/all.rs"));

    pub use godwit::peer::v1 as peer;
    pub use godwit::stored::v1 as stored;
    pub use godwit::v1 as chat;
}
