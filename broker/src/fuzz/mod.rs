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
#[allow(dead_code, unreachable_pub)]
#[path = "../users/tests/store.rs"]
mod store;
mod websocket;
mod world;

pub use sessions::sessions;
pub use websocket::websocket;
