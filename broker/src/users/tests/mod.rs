//! Tests of users' homes through their public calls.

mod administered;
mod announced;
mod chat;
mod clients;
mod corners;
mod delays;
mod doubted;
mod ends;
mod groups;
mod groups_ends;
mod groups_full;
mod groups_model;
mod groups_rig;
mod homes;
mod inbox;
mod leaving;
mod model;
mod ordinary;
mod qos2;
mod qos2_crossed;
mod qos2_model;
mod quotas;
mod rates;
mod retained;
mod retaining;
mod retries;
mod reviewing;
mod rig;
mod sessions;
mod subscribing;
mod torn;
mod unreadable;
mod willed;

use crate::memory_store as store;
