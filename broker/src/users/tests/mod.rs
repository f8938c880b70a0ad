//! Tests of users' homes through their public calls.

mod chat;
mod ends;
mod model;
mod ordinary;
mod qos2;
mod rig;
mod store;
