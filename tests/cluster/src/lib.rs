//! Several real `godwit` nodes on a real Cassandra: clients that record what they sent, were told and got, and that look for
//! the right node by themselves; faults done to nodes; the checker's verdict on the records. Nothing here knows how the product works inside.

pub mod around;
pub mod client;
pub mod clocks;
pub mod faults;
mod first;
pub mod frames;
pub mod many;
pub mod network;
pub mod nodes;
pub mod outcome;
pub mod owed;
pub mod owners;
pub mod proxy;
pub mod rig;
pub mod served;
