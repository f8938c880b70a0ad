//! The saboteur: stands between the cases and the real server and breaks what they say to each other by one named
//! mutation at a time, so that it is seen which cases can fail. `mutation` says what a mutation is, `proxy` and `web` carry
//! it out, `matrix` runs cases against mutations and writes `killed.txt`; the other files hold the mutations by what they
//! break.

mod acks;
mod answers;
mod closing;
mod connecting;
mod content;
mod delivery;
mod later;
mod link;
mod matrix;
mod mending;
mod mending_messages;
mod mutation;
mod proxy;
mod publishing;
mod sent;
mod subscribing;
mod web;

pub use matrix::{Ask, sabotage};
pub(crate) use mutation::{Mutation, all};
