//! Tests of the sockets over loopback.

mod arrivals;
mod bench;
mod bounds;
mod bursts;
mod door;
mod rig;
mod time;
mod transports;
mod turns;
mod unwritten;
mod web_sockets;
