//! A file layer between a program under test and its folder, which knows what of it was synced: on order it loses
//! the rest, as a power cut would, or fails writes and syncs. It knows nothing of the program.
//!
//! Model: a file's bytes are durable once fsync, fdatasync or an O_SYNC write of that file returned; a name is
//! durable once its folder was synced (or, with [`Names::Journal`], anything was); modes, owners and times at once.
//! Renames are atomic. Writes through a shared mapping count when the kernel writes them out; RWF_DSYNC of a single
//! call is not seen by FUSE and does not count as a sync.

mod command;
mod content;
mod faults;
mod fuse;
mod layer;
mod loss;
mod node;
mod pending;
pub mod probe;
mod rng;
mod serve;
#[cfg(test)]
mod tests;
mod tree;

pub use command::order;
pub use layer::{Layer, Names, Status};
pub use loss::{Loss, Mode};
pub use serve::{Options, Served, serve};
