//! One channel: a byte pipe to another node over their link, with a window each way. Which channels a stream has, and what
//! goes into a message, is `hub`'s.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use godwit_wire::proto::peer::channel_part::Part;
use godwit_wire::proto::peer::{ChannelPart, Unit};

use crate::error::LinkError;
use crate::hub::Hub;

/// Bytes on the way in one direction of a channel, from the writer's side to the reader's hands: several MQTT messages, and
/// little enough that who does not read costs what a socket would.
pub const WINDOW: usize = 64 * 1024;
/// Taken bytes of which the other side is told at the latest: it never runs dry while it is read.
const RETURN: usize = WINDOW / 4;

/// Called when a channel became readable or writable, or ended. It MUST NOT block. It may be called without need.
pub type OnReady = Arc<dyn Fn() + Send + Sync>;

/// A byte pipe to another node. Nothing blocks; from any thread. Dropped, it is closed as a socket is: what was written is
/// still sent, and the other side reads to the end and can write no more.
pub struct Channel {
    pipe: Arc<Pipe>,
}

/// What the two ends of a handle share: the handle, and the stream's reader and writer.
pub(crate) struct Pipe {
    pub(crate) id: u64,
    hub: Arc<Hub>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// To be sent first.
    open: Option<Bytes>,
    /// Came, and was not read. Bytes and not the pieces they came in, so that small ones cost no more than large ones. Nothing
    /// is allocated when it is empty, as the outbox.
    inbox: VecDeque<u8>,
    /// The other side may send so many bytes more.
    expected: usize,
    /// Taken, and the other side was not told.
    taken: usize,
    /// Read, and not taken yet.
    read: usize,
    /// Nothing more comes.
    in_end: bool,
    /// Written, and not sent.
    outbox: Vec<u8>,
    /// May still be written.
    window: usize,
    /// The last write did not take everything: its writer waits.
    was_full: bool,
    out_end: bool,
    end_sent: bool,
    /// The handle is gone.
    closed: bool,
    closed_sent: bool,
    /// The other side takes nothing more.
    peer_closed: bool,
    /// The link broke before the end.
    is_broken: bool,
    /// Stands in the hub's list of those with something to send.
    is_listed: bool,
    on_ready: Option<OnReady>,
}

impl Pipe {
    /// With what is told of it to the other side, if it is opened here; then it stands in the hub's list from the beginning.
    pub(crate) fn new(id: u64, hub: Arc<Hub>, open: Option<Bytes>) -> Self {
        let state = State {
            is_listed: open.is_some(),
            open,
            expected: WINDOW,
            window: WINDOW,
            ..State::default()
        };
        let state = Mutex::new(state);
        Self { id, hub, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the writer ask for its parts.
    pub(crate) fn list(self: &Arc<Self>) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.is_listed, true) {
            drop(state);
            self.hub.list(self.clone());
        }
    }

    /// What the other side says of it.
    pub(crate) fn heard(&self, part: Part) -> Result<(), LinkError> {
        let mut state = self.state();
        let is_news = match part {
            Part::Open(_) => return Err(LinkError::Unexpected("a channel opened twice")),
            Part::Data(_) if state.in_end => {
                return Err(LinkError::Unexpected("data behind a channel's end"));
            }
            Part::Data(data) => {
                let left = state.expected.checked_sub(data.len());
                state.expected = left.ok_or(LinkError::Unexpected("more data than a channel's window"))?;
                let is_news = state.inbox.is_empty();
                // Nobody reads what comes after the handle is gone.
                if !state.closed {
                    state.inbox.extend(&data);
                }
                is_news
            }
            Part::Window(bytes) => {
                let is_news = state.window == 0;
                if state.window + state.outbox.len() + bytes as usize > WINDOW {
                    return Err(LinkError::Unexpected("more window than a channel has"));
                }
                state.window += bytes as usize;
                is_news
            }
            Part::End(_) => !std::mem::replace(&mut state.in_end, true),
            Part::Closed(_) => {
                state.outbox = Vec::new();
                !std::mem::replace(&mut state.peer_closed, true)
            }
        };
        let on_ready = state.on_ready.clone().filter(|_| is_news);
        drop(state);
        tell(on_ready);
        Ok(())
    }

    /// Gives what is to be sent, and its bytes.
    pub(crate) fn parts(&self, into: &mut Vec<ChannelPart>) -> usize {
        let mut state = self.state();
        state.is_listed = false;
        let mut bytes = 0;
        let mut add = |part, content: usize| {
            bytes += content + 16;
            into.push(ChannelPart {
                channel: self.id,
                part: Some(part),
            });
        };
        if let Some(about) = state.open.take() {
            let content = about.len();
            add(Part::Open(about), content);
        }
        if !state.outbox.is_empty() {
            let data = Bytes::from(std::mem::take(&mut state.outbox));
            let content = data.len();
            add(Part::Data(data), content);
        }
        // Also as its last word: what it took is not in doubt.
        if state.taken > 0 && !state.in_end {
            let taken = std::mem::take(&mut state.taken);
            state.expected += taken;
            // Of a window at most.
            add(Part::Window(taken as u32), 0);
        }
        if state.out_end && !std::mem::replace(&mut state.end_sent, true) {
            add(Part::End(Unit {}), 0);
        }
        if state.closed && !std::mem::replace(&mut state.closed_sent, true) {
            add(Part::Closed(Unit {}), 0);
        }
        bytes
    }

    /// Whether neither side says anything more.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.state();
        state.end_sent && state.in_end
    }

    /// The link broke.
    pub(crate) fn broken(&self) {
        let mut state = self.state();
        state.is_broken = true;
        state.inbox = VecDeque::new();
        state.outbox = Vec::new();
        let on_ready = state.on_ready.take();
        drop(state);
        tell(on_ready);
    }
}

impl Channel {
    pub(crate) fn new(pipe: Arc<Pipe>) -> Self {
        Self { pipe }
    }

    /// Reads what came; 0 at the end (or into nothing). There is window for more when it is [taken](Self::taken).
    ///
    /// # Errors
    /// `WouldBlock`: nothing came; `ConnectionReset`: the link broke, and what had come is lost.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.pipe.state();
        if state.is_broken {
            return Err(ErrorKind::ConnectionReset.into());
        }
        // Takes from both halves of the ring.
        let read = io::Read::read(&mut state.inbox, buf)?;
        let read = read + io::Read::read(&mut state.inbox, &mut buf[read..])?;
        if read == 0 && !buf.is_empty() && !state.in_end {
            return Err(ErrorKind::WouldBlock.into());
        }
        if state.inbox.is_empty() {
            state.inbox = VecDeque::new();
        }
        state.read += read;
        Ok(read)
    }

    /// So many bytes of what was read are where they belong: the other side may send as many more, and is told so when much
    /// gathered, or with the next thing that it is told.
    pub fn taken(&self, bytes: usize) {
        let mut state = self.pipe.state();
        let bytes = bytes.min(state.read);
        state.read -= bytes;
        state.taken += bytes;
        let is_to_be_told = state.taken >= RETURN && !state.in_end;
        drop(state);
        if is_to_be_told {
            self.pipe.list();
        }
    }

    /// The last so many bytes of what was written are not known to be [taken](Self::taken) by the other side. Also when it
    /// has ended.
    pub fn untaken(&self) -> usize {
        WINDOW - self.pipe.state().window
    }

    /// Writes as much as there is window for.
    ///
    /// # Errors
    /// `WouldBlock`: the other side has not taken what was written; `BrokenPipe`: it takes nothing more, or
    /// [`Self::shutdown`] was called; `ConnectionReset`: the link broke.
    pub fn write(&self, buf: &[u8]) -> io::Result<usize> {
        let mut state = self.pipe.state();
        if state.is_broken {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if state.out_end || state.peer_closed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let written = buf.len().min(state.window);
        state.was_full = written < buf.len();
        if written == 0 && !buf.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        state.window -= written;
        state.outbox.extend_from_slice(&buf[..written]);
        drop(state);
        if written > 0 {
            self.pipe.list();
        }
        Ok(written)
    }

    /// Nothing more will be written; the other side reads what was, and then the end.
    pub fn shutdown(&self) {
        self.pipe.state().out_end = true;
        self.pipe.list();
    }

    /// What to call from now on when it becomes readable or writable or ends; called once here if something can be read
    /// already, if there is window again for a write that did not take everything, or if it has ended.
    pub fn on_ready(&self, on_ready: OnReady) {
        let mut state = self.pipe.state();
        let can_write = state.was_full && state.window > 0;
        let has_ended = state.in_end || state.is_broken || state.peer_closed;
        let is_ready = !state.inbox.is_empty() || can_write || has_ended;
        let now = is_ready.then(|| on_ready.clone());
        state.on_ready = (!state.is_broken).then_some(on_ready);
        drop(state);
        tell(now);
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let mut state = self.pipe.state();
        state.out_end = true;
        state.closed = true;
        state.inbox = VecDeque::new();
        state.on_ready = None;
        let is_over = state.is_broken || state.end_sent && state.in_end;
        drop(state);
        if !is_over {
            self.pipe.list();
        }
    }
}

impl io::Read for Channel {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Self::read(self, buf)
    }
}

impl io::Write for Channel {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Self::write(self, buf)
    }

    /// Nothing is held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("id", &self.pipe.id)
            .finish_non_exhaustive()
    }
}

fn tell(on_ready: Option<OnReady>) {
    if let Some(on_ready) = on_ready {
        on_ready();
    }
}
