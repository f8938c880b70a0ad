//! A link to one node, whether its stream is there or not: what the node gives it, what goes into the next message, and who
//! is told what when the stream breaks. Making streams is `dial`'s and `accept`'s, reading them `session`'s.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use godwit_wire::code::Refusal;
use godwit_wire::command::Answer;
use godwit_wire::peer::{PeerAnswer, PeerRequest};
use tokio_util::sync::CancellationToken;

use crate::batch::Batch;
use crate::channel::Channel;
use crate::error::LinkError;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::taken::Taken;
use crate::{Local, StartId};

/// A link to one node.
pub(crate) struct Link {
    pub(crate) node: StartId,
    pub(crate) addr: String,
    /// This side makes the stream.
    is_caller: bool,
    /// The node is no longer known.
    pub(crate) ended: CancellationToken,
    pub(crate) local: Arc<dyn Local>,
    pub(crate) metrics: Metrics,
    /// Held by who reads: what an earlier stream brought is given before what the next one brings.
    pub(crate) reading: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

struct State {
    taken: Taken,
    /// To be sent, in the order of giving.
    answers: VecDeque<(u64, PeerAnswer)>,
    /// Requests of the other node that were taken, and it was not told.
    credit: u32,
    stream: Option<Stream>,
    /// Streams so far: a break of one before does nothing to the next.
    streams: u64,
    down: Instant,
    is_ended: bool,
}

struct Stream {
    number: u64,
    hub: Arc<Hub>,
    /// Ends it.
    cancel: CancellationToken,
    /// Of who writes it, when there was nothing to write.
    waker: Option<Waker>,
}

/// One stream of a link, for its writer.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) link: Arc<Link>,
    number: u64,
    pub(crate) hub: Arc<Hub>,
    pub(crate) cancel: CancellationToken,
}

/// The same, for its reader: the stream has ended when this is dropped.
pub(crate) struct Opened(pub(crate) Open);

impl Link {
    pub(crate) fn new(
        node: StartId,
        addr: String,
        is_caller: bool,
        local: Arc<dyn Local>,
        metrics: Metrics,
    ) -> Self {
        let state = State {
            taken: Taken::default(),
            answers: VecDeque::new(),
            credit: 0,
            stream: None,
            streams: 0,
            down: Instant::now(),
            is_ended: false,
        };
        Self {
            node,
            addr,
            is_caller,
            ended: CancellationToken::new(),
            local,
            metrics,
            reading: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what there is room for; everything if the node is no longer known.
    pub(crate) fn send(&self, requests: &mut VecDeque<PeerRequest>) {
        let mut state = self.state();
        if state.is_ended {
            drop(state);
            return refuse_all(&*self.local, &self.metrics, requests);
        }
        let mut refused = Vec::new();
        state.taken.take(requests, Instant::now(), &mut refused);
        let waker = state.taken.is_ready().then(|| state.waker()).flatten();
        drop(state);
        wake(waker);
        self.refuse(&refused);
    }

    /// Takes answers. Without a stream nobody waits for them.
    pub(crate) fn answer(&self, answers: &mut Vec<(u64, PeerAnswer)>) {
        let mut state = self.state();
        let wanted = answers.drain(..).filter(|(id, _)| *id != 0);
        if state.stream.is_none() {
            return drop(wanted);
        }
        state.answers.extend(wanted);
        let waker = state.waker();
        drop(state);
        wake(waker);
    }

    /// Whether there is a stream.
    pub(crate) fn is_up(&self) -> bool {
        self.state().stream.is_some()
    }

    /// Opens a channel over the stream that there is.
    pub(crate) fn open_channel(&self, about: Bytes) -> io::Result<Channel> {
        let hub = self.state().stream.as_ref().map(|stream| stream.hub.clone());
        hub.ok_or(ErrorKind::NotConnected)?.open(about)
    }

    /// There is a stream; one that was there before is broken.
    pub(crate) fn open(self: &Arc<Self>, credit: u32) -> Result<(Open, Opened), LinkError> {
        let before = self.state().stream.as_ref().map(|stream| stream.number);
        if let Some(number) = before {
            self.broken(number);
        }
        let cancel = CancellationToken::new();
        let mut state = self.state();
        if state.is_ended || state.stream.is_some() {
            return Err(LinkError::NotMember);
        }
        state.streams += 1;
        let number = state.streams;
        let hub = Arc::new(Hub::new(self.is_caller, self.metrics.clone()));
        state.taken.opened(credit);
        state.stream = Some(Stream {
            number,
            hub: hub.clone(),
            cancel: cancel.clone(),
            waker: None,
        });
        drop(state);
        self.metrics.up.inc();
        self.metrics.made.inc();
        let open = Open {
            link: self.clone(),
            number,
            hub,
            cancel,
        };
        Ok((open.clone(), Opened(open)))
    }

    /// That stream is no more.
    fn broken(&self, number: u64) {
        let mut refused = Vec::new();
        let mut state = self.state();
        let Some(stream) = state.stream.take_if(|stream| stream.number == number) else {
            return;
        };
        state.down = Instant::now();
        state.taken.broken(&mut refused);
        state.answers = VecDeque::new();
        state.credit = 0;
        let has_room = state.taken.has_room();
        drop(state);
        stream.cancel.cancel();
        stream.hub.end();
        // Who writes it sees that it is over.
        wake(stream.waker);
        self.metrics.up.dec();
        self.metrics.broken.inc();
        self.refuse(&refused);
        if has_room {
            self.local.room();
        }
    }

    /// What has waited long enough for a stream.
    pub(crate) fn expire(&self, now: Instant) {
        let mut refused = Vec::new();
        let mut state = self.state();
        if state.stream.is_some() {
            return;
        }
        let down = state.down;
        state.taken.expire(now, down, &mut refused);
        let has_room = !refused.is_empty() && state.taken.has_room();
        drop(state);
        self.refuse(&refused);
        if has_room {
            self.local.room();
        }
    }

    /// The node is no longer known: everything is refused, now and later.
    pub(crate) fn end(&self) {
        let mut refused = Vec::new();
        let mut state = self.state();
        state.is_ended = true;
        let number = state.stream.as_ref().map(|stream| stream.number);
        state.taken.end(&mut refused);
        let has_room = state.taken.has_room();
        drop(state);
        self.ended.cancel();
        self.refuse(&refused);
        if let Some(number) = number {
            self.broken(number);
        }
        if has_room {
            self.local.room();
        }
    }

    fn refuse(&self, ids: &[u64]) {
        self.metrics.refused.inc_by(ids.len() as u64);
        if !ids.is_empty() {
            self.local
                .answered(ids.iter().map(|&id| (id, unavailable())).collect());
        }
    }
}

impl State {
    fn waker(&mut self) -> Option<Waker> {
        self.stream.as_mut()?.waker.take()
    }

    fn batch(&mut self) -> Batch {
        let credit = std::mem::take(&mut self.credit);
        Batch::gather(&mut self.answers, &mut self.taken, credit)
    }
}

impl Open {
    /// The next message, or `None`: the stream is over.
    pub(crate) fn poll_message(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let is_channels_turn = self.hub.is_first();
        let channels = || {
            let message = self.hub.message(cx)?;
            self.link.metrics.sent(message.len(), 0);
            Some(message)
        };
        if is_channels_turn && let Some(message) = channels() {
            return Poll::Ready(Some(message));
        }
        let frame = self.poll_frame(cx);
        if frame.is_pending()
            && !is_channels_turn
            && let Some(message) = channels()
        {
            return Poll::Ready(Some(message));
        }
        frame
    }

    fn poll_frame(&self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.link.state();
        let is_this = |stream: &&mut Stream| stream.number == self.number;
        if state.stream.as_mut().filter(is_this).is_none() {
            return Poll::Ready(None);
        }
        let batch = state.batch();
        if batch.is_empty() {
            if let Some(stream) = &mut state.stream {
                stream.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        drop(state);
        let requests = batch.requests.len();
        let Some(message) = batch.encoded() else {
            // `Taken::take` lets none through that cannot be.
            tracing::error!("a request that no frame can hold: the link is made anew");
            self.link.broken(self.number);
            return Poll::Ready(None);
        };
        self.link.metrics.sent(message.len(), requests);
        Poll::Ready(Some(message))
    }

    /// Does something to the link if it still has this stream, and wakes the writer.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut state = self.link.state();
        if state
            .stream
            .as_ref()
            .is_none_or(|stream| stream.number != self.number)
        {
            return None;
        }
        let done = act(&mut state);
        let waker = state.waker();
        drop(state);
        wake(waker);
        Some(done)
    }

    /// The other node has taken so many requests.
    pub(crate) fn credited(&self, requests: u32) -> Result<(), LinkError> {
        if requests == 0 {
            return Ok(());
        }
        let done = self.with(|state| {
            let is_right = state.taken.credited(requests);
            is_right.then(|| state.taken.has_room())
        });
        match done {
            None => Ok(()),
            Some(None) => Err(LinkError::Unexpected("credit for requests that were not sent")),
            Some(Some(has_room)) => {
                if has_room {
                    self.link.local.room();
                }
                Ok(())
            }
        }
    }

    /// The other node answers.
    pub(crate) fn answered(&self, mut answers: Vec<(u64, PeerAnswer)>) {
        let all = answers.len();
        let mut state = self.link.state();
        state.taken.answered(&mut answers);
        drop(state);
        self.link.metrics.late.inc_by((all - answers.len()) as u64);
        if !answers.is_empty() {
            self.link.local.answered(answers);
        }
    }

    /// So many of the other node's requests were taken here; and some could not be read, or were refused.
    pub(crate) fn took(&self, requests: u32, not_done: &mut Vec<(u64, PeerAnswer)>) {
        self.with(|state| {
            state.credit += requests;
            state.answers.extend(not_done.drain(..));
        });
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.link.broken(self.0.number);
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open")
            .field("node", &self.link.node)
            .field("number", &self.number)
            .finish()
    }
}

/// Refuses what nobody can be asked.
pub(crate) fn refuse_all(local: &dyn Local, metrics: &Metrics, requests: &mut VecDeque<PeerRequest>) {
    let ids = requests.drain(..).map(|request| request.id).filter(|id| *id != 0);
    let refused: Vec<_> = ids.map(|id| (id, unavailable())).collect();
    metrics.refused.inc_by(refused.len() as u64);
    if !refused.is_empty() {
        local.answered(refused);
    }
}

/// What is known of a request whose link broke.
pub(crate) fn unavailable() -> PeerAnswer {
    PeerAnswer::Answer(Answer::Refused(Refusal::unavailable()))
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
