//! Tests of users' homes through their public calls.

mod chat;
mod clients;
mod corners;
mod delays;
mod ends;
mod homes;
mod inbox;
mod model;
mod ordinary;
mod qos2;
mod qos2_crossed;
mod qos2_model;
mod quotas;
mod retained;
mod rig;
mod sessions;
pub(crate) mod store;
mod subscribing;
mod unreadable;
