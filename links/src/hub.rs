//! The channels of one stream: which there are, which have something to send, and what comes for them. A channel's own
//! bytes and windows are `channel`'s.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use bytes::Bytes;
use godwit_wire::proto::peer::channel_part::Part;
use godwit_wire::proto::peer::peer_message::Message;
use godwit_wire::proto::peer::{ChannelPart, Channels};

use crate::channel::{Channel, Pipe, WINDOW};
use crate::error::LinkError;
use crate::metrics::Metrics;
use crate::stream::{MESSAGE_BYTES, encoded};
use crate::taken::FRAME_BYTES;

/// Channels of a link, both ways together: the connections that one node can have, some 60 MB while idle.
pub const CHANNELS: usize = 262_144;
/// What is told of a channel when it is opened, bytes: a whole CONNECT and who sent it.
pub const ABOUT_BYTES: usize = 64 * 1024;

const _: () = assert!(
    FRAME_BYTES + WINDOW + ABOUT_BYTES < MESSAGE_BYTES,
    "a turn fits a message"
);

/// The channels of one stream.
pub(crate) struct Hub {
    metrics: Metrics,
    /// Whether the next message is for channels, if there is anything for them.
    turn: AtomicBool,
    state: Mutex<State>,
}

struct State {
    pipes: HashMap<u64, Arc<Pipe>>,
    /// Have something to send, each once.
    listed: VecDeque<Arc<Pipe>>,
    /// Ids of the next one of this side, and the least of the other's next.
    ours: u64,
    theirs: u64,
    /// The stream is over.
    is_over: bool,
    waker: Option<Waker>,
}

impl Hub {
    /// Of the stream's caller, or of who was called.
    pub(crate) fn new(is_caller: bool, metrics: Metrics) -> Self {
        let state = State {
            pipes: HashMap::new(),
            listed: VecDeque::new(),
            ours: u64::from(!is_caller),
            theirs: u64::from(is_caller),
            is_over: false,
            waker: None,
        };
        Self {
            metrics,
            turn: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens one from here.
    pub(crate) fn open(self: &Arc<Self>, about: Bytes) -> io::Result<Channel> {
        if about.len() > ABOUT_BYTES {
            return Err(ErrorKind::InvalidInput.into());
        }
        let mut state = self.state();
        if state.is_over {
            return Err(ErrorKind::NotConnected.into());
        }
        if state.pipes.len() >= CHANNELS {
            return Err(ErrorKind::QuotaExceeded.into());
        }
        let id = state.ours;
        state.ours += 2;
        let pipe = Arc::new(Pipe::new(id, self.clone(), Some(about)));
        state.pipes.insert(id, pipe.clone());
        // With its number: of two that are opened at once the other side must hear in this order.
        state.listed.push_back(pipe.clone());
        let waker = state.waker.take();
        drop(state);
        self.metrics.channels.inc();
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(Channel::new(pipe))
    }

    /// Takes what came for a channel; gives one that was opened.
    pub(crate) fn heard(self: &Arc<Self>, part: ChannelPart) -> Result<Option<(Bytes, Channel)>, LinkError> {
        let id = part.channel;
        match part.part {
            Some(Part::Open(about)) => self.opened(id, about),
            Some(part) => {
                let pipe = self.state().pipes.get(&id).cloned();
                // Of one that has ended here something may still come: windows.
                if let Some(pipe) = pipe {
                    pipe.heard(part)?;
                    self.forget(&pipe);
                }
                Ok(None)
            }
            None => Err(LinkError::Unexpected("a part of a channel that is not known")),
        }
    }

    fn opened(self: &Arc<Self>, id: u64, about: Bytes) -> Result<Option<(Bytes, Channel)>, LinkError> {
        let mut state = self.state();
        if id < state.theirs || id % 2 != state.theirs % 2 {
            return Err(LinkError::Unexpected("a channel's number"));
        }
        if state.is_over {
            return Ok(None);
        }
        state.theirs = id.saturating_add(2);
        let is_full = state.pipes.len() >= CHANNELS;
        let pipe = Arc::new(Pipe::new(id, self.clone(), None));
        state.pipes.insert(id, pipe.clone());
        drop(state);
        self.metrics.channels.inc();
        // Dropped, it is closed: the other side is told.
        let channel = Channel::new(pipe);
        Ok((!is_full).then_some((about, channel)))
    }

    /// It has something to send.
    pub(crate) fn list(&self, pipe: Arc<Pipe>) {
        let mut state = self.state();
        if state.is_over {
            return;
        }
        state.listed.push_back(pipe);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whose turn it is, one after the other: neither requests nor channels hold up the others for more than a message.
    pub(crate) fn is_first(&self) -> bool {
        self.turn.fetch_not(Ordering::Relaxed)
    }

    /// The next message for channels; without one, the writer is woken when there is.
    pub(crate) fn message(&self, cx: &Context<'_>) -> Option<Bytes> {
        let (mut parts, mut bytes) = (Vec::new(), 0);
        while bytes < FRAME_BYTES {
            let mut state = self.state();
            let Some(pipe) = state.listed.pop_front() else {
                if parts.is_empty() {
                    state.waker = Some(cx.waker().clone());
                    state.listed = VecDeque::new();
                }
                break;
            };
            drop(state);
            bytes += pipe.parts(&mut parts);
            self.forget(&pipe);
        }
        (!parts.is_empty()).then(|| encoded(Message::Channels(Channels { parts })))
    }

    /// Drops one of which neither side says anything more.
    fn forget(&self, pipe: &Arc<Pipe>) {
        if pipe.is_over() && self.state().pipes.remove(&pipe.id).is_some() {
            self.metrics.channels.dec();
        }
    }

    /// The stream is over, and all channels with it.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.is_over = true;
        let pipes = std::mem::take(&mut state.pipes);
        state.listed = VecDeque::new();
        drop(state);
        self.metrics.channels.dec_by(pipes.len() as i64);
        for pipe in pipes.into_values() {
            pipe.broken();
        }
    }
}

#[cfg(test)]
mod tests {
    use godwit_wire::proto::peer::Unit;

    use super::*;

    fn hub(is_caller: bool) -> Arc<Hub> {
        Arc::new(Hub::new(is_caller, Metrics::default()))
    }

    fn hear(hub: &Arc<Hub>, channel: u64, part: Part) -> Result<Option<(Bytes, Channel)>, LinkError> {
        let part = Some(part);
        hub.heard(ChannelPart { channel, part })
    }

    /// Carries what one has to say to the other; gives what was opened.
    fn carry(from: &Arc<Hub>, to: &Arc<Hub>) -> Vec<Channel> {
        let cx = Context::from_waker(Waker::noop());
        let mut opened = Vec::new();
        while let Some(message) = from.message(&cx) {
            let message: godwit_wire::proto::peer::PeerMessage = prost::Message::decode(message).unwrap();
            let Some(Message::Channels(channels)) = message.message else {
                panic!("{message:?}");
            };
            for part in channels.parts {
                opened.extend(to.heard(part).unwrap().map(|(_, channel)| channel));
            }
        }
        opened
    }

    #[test]
    fn there_are_no_more_channels_than_a_link_may_have_and_those_that_end_make_room() {
        let (here, there) = (hub(true), hub(false));
        let mut all: Vec<_> = (0..CHANNELS).map(|_| here.open(Bytes::new()).unwrap()).collect();
        assert_eq!(
            here.open(Bytes::new()).unwrap_err().kind(),
            ErrorKind::QuotaExceeded
        );
        let mut theirs = carry(&here, &there);
        assert_eq!(theirs.len(), CHANNELS);
        assert_eq!(
            there.open(Bytes::new()).unwrap_err().kind(),
            ErrorKind::QuotaExceeded
        );
        // One that comes all the same is closed, not taken.
        let more = hear(&there, 2 * CHANNELS as u64, Part::Open(Bytes::new())).unwrap();
        assert!(more.is_none());
        drop((all.pop(), theirs.pop()));
        carry(&here, &there);
        carry(&there, &here);
        assert_eq!(here.metrics.channels(), CHANNELS as i64 - 1);
        here.open(Bytes::new()).unwrap();
    }

    #[test]
    fn channels_that_many_threads_open_at_once_are_told_in_the_order_of_their_numbers() {
        const EACH: usize = 20_000;
        let (here, there) = (hub(true), hub(false));
        let opened = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| {
                scope.spawn(|| {
                    let open = |_| here.open(Bytes::new()).unwrap();
                    (0..EACH).map(open).collect::<Vec<_>>()
                })
            });
            // Kept until all are open: one that ends is told of, too.
            let mut opened = Vec::new();
            while opened.len() < 4 * EACH {
                opened.extend(carry(&here, &there));
            }
            drop(threads.map(|thread| thread.join().unwrap()));
            opened
        });
        assert_eq!(opened.len(), 4 * EACH);
    }

    #[test]
    fn what_no_node_of_this_protocol_sends_is_an_error() {
        let data = |bytes: usize| Part::Data(vec![0; bytes].into());
        let one = || {
            let hub = hub(false);
            let opened = hear(&hub, 0, Part::Open(Bytes::new())).unwrap();
            (hub, opened.unwrap().1)
        };
        let (hub, _channel) = one();
        hear(&hub, 0, data(WINDOW)).unwrap();
        assert!(hear(&hub, 0, data(1)).is_err(), "over the window");
        let (hub, _channel) = one();
        assert!(hear(&hub, 0, Part::Window(1)).is_err(), "nothing was sent");
        let (hub, _channel) = one();
        hear(&hub, 0, Part::End(Unit {})).unwrap();
        assert!(hear(&hub, 0, data(1)).is_err(), "behind the end");
        let (hub, _channel) = one();
        assert!(hear(&hub, 0, Part::Open(Bytes::new())).is_err(), "twice");
        assert!(hear(&hub, 3, Part::Open(Bytes::new())).is_err(), "of this side");
        hear(&hub, 900, data(1)).unwrap();
    }
}
