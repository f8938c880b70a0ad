//! Entries for fuzzers, behind the feature `fuzzing`: each takes any bytes, drives one part with them and panics only on
//! a bug. Not part of the product; who mutates, measures and keeps the corpus is the package `fuzz/`.

#![allow(clippy::unwrap_used)]

mod client;
mod conversation;
mod ending;
mod input;
mod lines;
mod packets;
mod sessions;
mod websocket;
mod world;

use crate::memory_store as store;

pub use sessions::sessions;
pub use websocket::websocket;
