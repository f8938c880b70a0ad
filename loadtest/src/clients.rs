//! What a worker needs of all its clients, whichever client they are: connect, publish, wait, close. Two kinds implement
//! it, the light clients in `engine` and the real ones in `real`; nothing here does any work.

use crate::{packets::PacketError, work::Shared};
use std::{io, ops::DerefMut, time::Duration};

/// Ends the current or next [`Clients::turn`], from any thread.
pub(crate) type WakeUp = Box<dyn Fn() -> io::Result<()> + Send>;

/// All clients of a worker, driven by one thread. Nothing happens outside the calls of this trait. Every error ends the
/// run and its text is for the user.
pub(crate) trait Clients {
    /// What the clients share: the order, the counts, and whether they publish and measure.
    fn shared(&mut self) -> impl DerefMut<Target = Shared>;

    /// Clients that are connected and, if recipients, subscribed.
    fn ready(&self) -> usize;

    /// Recipients among them.
    fn ready_recipients(&self) -> usize;

    /// Makes what ends a turn early.
    fn waker(&self) -> io::Result<WakeUp>;

    /// Opens as many connections as may be in their handshake at a time.
    fn open_more(&mut self) -> Result<(), PacketError>;

    /// Serves all clients, at most for about `timeout`; ends early when there is news for the worker.
    fn turn(&mut self, timeout: Duration) -> Result<(), PacketError>;

    /// Lets every publisher write what it may.
    fn pump_all(&mut self) -> Result<(), PacketError>;

    /// Rate mode: one more publish of the publisher at `publisher` is due now.
    fn due(&mut self, publisher: usize) -> Result<(), PacketError>;

    /// Keeps all connections alive, where the client does not do so by itself.
    fn ping_all(&mut self) -> Result<(), PacketError>;

    /// Publishes without an answer, over all clients.
    fn unanswered(&self) -> u64;

    /// Ends every connection in good order; what is counted from here on is of no worth.
    fn close(&mut self);
}
