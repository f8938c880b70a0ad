//! Tests of users' homes through their public calls.

mod chat;
mod clients;
mod ends;
mod homes;
mod inbox;
mod model;
mod ordinary;
mod qos2;
mod rig;
mod sessions;
mod store;
