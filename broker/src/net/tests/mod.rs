//! Tests of the sockets over loopback.

mod addresses;
mod arrivals;
mod auth;
mod bench;
mod bounds;
mod bursts;
mod door;
mod going;
mod kept;
mod lapsed;
mod lines;
mod options;
mod proxied;
mod rig;
mod spliced;
mod time;
mod transports;
mod turns;
mod two;
mod unwritten;
mod web_sockets;
