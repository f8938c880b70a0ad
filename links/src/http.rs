//! What both sides of a link's HTTP/2 connection are set to.

use std::time::Duration;

/// How often a silent connection is asked whether it lives.
pub(crate) const PING: Duration = Duration::from_secs(1);
/// How long it may take to say so.
pub(crate) const PONG: Duration = Duration::from_secs(3);
/// How long connecting, TLS and each part of the greeting may take.
pub(crate) const GREETING: Duration = Duration::from_secs(5);
/// Of flow control, bytes: what 1 GB a second brings in a millisecond's round trip, and what each of the strangers can make
/// this node hold at most.
pub(crate) const WINDOW: u32 = 1024 * 1024;
/// What is encoded and not yet on its way, bytes: beyond it, the link goes on gathering.
pub(crate) const SEND_BUFFER: usize = 1024 * 1024;
/// Connections that have not proved themselves yet; further ones wait to be accepted.
pub(crate) const STRANGERS: usize = 256;
