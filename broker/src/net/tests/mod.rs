//! Tests of the sockets over loopback.

mod bounds;
mod door;
mod rig;
mod time;
mod transports;
