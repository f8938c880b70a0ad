//! The one gRPC stream of a link: codec, both directions, and what may pass before the other side has proved itself.
//! Nothing of requests, answers or channels is known here.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures::Stream;
use godwit_wire::proto::peer::PeerMessage;
use godwit_wire::proto::peer::peer_message::Message;
use hyper::body::{Body, Frame, SizeHint};
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::codec::{DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Status, Streaming};

use crate::error::LinkError;
use crate::link::Open;

/// Of the one call.
pub(crate) const PATH: &str = "/godwit.peer.v1.Links/Link";
/// Largest gRPC message, bytes: an answer with all retained messages of a key (16 MiB of payloads), with room. Answers
/// above [`crate::taken::ANSWER_BYTES`] are not sent.
pub(crate) const MESSAGE_BYTES: usize = 32 * 1024 * 1024;
/// What is read of a caller that has not proved itself, bytes: its Hello and its Proof.
const STRANGER_BYTES: usize = 16 * 1024;
/// Messages of a greeting that wait to be written.
const GREETING: usize = 4;

/// A message as gRPC carries it.
pub(crate) fn encoded(message: Message) -> Bytes {
    let message = PeerMessage {
        message: Some(message),
    };
    message.encode_to_vec().into()
}

/// A message, and how long it was.
#[derive(Debug)]
pub(crate) struct Received {
    message: PeerMessage,
    bytes: usize,
}

/// Of [`PeerMessage`]; what is sent was encoded where it was made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Codec;

impl tonic::codec::Codec for Codec {
    type Encode = Bytes;
    type Decode = Received;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Codec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(item.len());
        to.put(item);
        Ok(())
    }
}

impl Decoder for Codec {
    type Item = Received;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Received>, Status> {
        // From a slice, so that payloads are copied: one that is kept must not keep its whole message.
        let bytes = from.chunk();
        if bytes.len() != from.remaining() {
            return Err(Status::internal("a message in pieces"));
        }
        let message = PeerMessage::decode(bytes)
            .map_err(|_| Status::invalid_argument("not a message of this protocol"))?;
        let bytes = from.remaining();
        from.advance(bytes);
        Ok(Some(Received { message, bytes }))
    }
}

/// What the outgoing stream is told while there is no link yet.
#[derive(Debug)]
enum Told {
    Message(Bytes),
    Refused(Status),
    Opened(Open),
}

/// Both directions of a stream, for who greets and reads.
pub(crate) struct Pair {
    told: mpsc::Sender<Told>,
    inbound: Option<Streaming<Received>>,
    /// Of the last message that came.
    pub(crate) bytes: usize,
}

impl Pair {
    /// A stream's two ends; what is incoming may come later.
    pub(crate) fn new() -> (Self, Outbound) {
        let (told, heard) = mpsc::channel(GREETING);
        let pair = Self {
            told,
            inbound: None,
            bytes: 0,
        };
        (pair, Outbound { heard, open: None })
    }

    /// What comes in.
    pub(crate) fn reads(&mut self, inbound: Streaming<Received>) {
        self.inbound = Some(inbound);
    }

    /// Sends a message of the greeting.
    pub(crate) async fn send(&self, message: Message) -> Result<(), LinkError> {
        let told = self.told.send(Told::Message(encoded(message)));
        told.await.map_err(|_| LinkError::Ended)
    }

    /// The last word.
    pub(crate) async fn refuse(&self, error: &LinkError) {
        // Who is gone needs no reason.
        let _ = self.told.send(Told::Refused(error.status())).await;
    }

    /// From now on the link says what is sent.
    pub(crate) async fn open(&self, open: Open) -> Result<(), LinkError> {
        let told = self.told.send(Told::Opened(open));
        told.await.map_err(|_| LinkError::Ended)
    }

    /// The next message. May be dropped while waiting: nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Message, LinkError> {
        let inbound = self.inbound.as_mut().ok_or(LinkError::Ended)?;
        let received = inbound.message().await?.ok_or(LinkError::Ended)?;
        self.bytes = received.bytes;
        let message = received.message.message;
        message.ok_or(LinkError::Unexpected("a message of a kind that is not known"))
    }
}

/// What goes out: polled whenever the connection has room again, so that what gathered meanwhile goes in one message.
#[derive(Debug)]
pub(crate) struct Outbound {
    heard: mpsc::Receiver<Told>,
    open: Option<Open>,
}

impl Stream for Outbound {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(open) = &self.open {
                return open.poll_message(cx).map(|message| message.map(Ok));
            }
            match self.heard.poll_recv(cx) {
                Poll::Ready(Some(Told::Message(message))) => return Poll::Ready(Some(Ok(message))),
                Poll::Ready(Some(Told::Refused(status))) => return Poll::Ready(Some(Err(status))),
                Poll::Ready(Some(Told::Opened(open))) => self.open = Some(open),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// What gRPC writes before each message: whether it is compressed, and its length.
const HEAD: usize = 5;
/// Messages of a greeting, Hello and Proof: what comes behind them is asked for when they were believed, not before.
const GREETED: usize = 2;

/// Lengths of the first messages of a stream. For what a head announces memory is reserved before a byte of it is there.
#[derive(Debug, Default)]
struct Heads {
    head: [u8; HEAD],
    have: usize,
    /// Bytes that are left of a message.
    rest: usize,
    seen: usize,
}

impl Heads {
    /// `false`: a message of a greeting says that it is larger than one may be.
    fn take(&mut self, mut data: &[u8]) -> bool {
        while self.seen < GREETED || self.rest > 0 {
            let skipped = self.rest.min(data.len());
            self.rest -= skipped;
            data = data.get(skipped..).unwrap_or_default();
            let (Some((first, more)), true) = (data.split_first(), self.seen < GREETED) else {
                break;
            };
            if let Some(byte) = self.head.get_mut(self.have) {
                *byte = *first;
            }
            (self.have, data) = (self.have + 1, more);
            if self.have == HEAD {
                let [_, length @ ..] = self.head;
                (self.have, self.rest) = (0, u32::from_be_bytes(length) as usize);
                self.seen += 1;
                if self.rest > STRANGER_BYTES {
                    return false;
                }
            }
        }
        true
    }
}

/// The bytes of another side: few, and in small messages, until it has proved itself.
pub(crate) struct Gate<B> {
    body: B,
    left: usize,
    is_open: Arc<AtomicBool>,
    heads: Heads,
}

impl<B> Gate<B> {
    pub(crate) fn new(body: B, is_open: Arc<AtomicBool>) -> Self {
        Self {
            body,
            left: STRANGER_BYTES,
            is_open,
            heads: Heads::default(),
        }
    }

    /// Of who was called: behind its greeting it says more at once, which nobody takes before the greeting is believed.
    pub(crate) fn of_called(body: B) -> Self {
        Self::new(body, Arc::new(AtomicBool::new(true)))
    }
}

impl<B> Body for Gate<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        let is_open = self.is_open.load(Ordering::Relaxed);
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && !self.heads.take(data)
        {
            return Poll::Ready(Some(Err("a greeting that is too large".into())));
        }
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && !is_open
        {
            match self.left.checked_sub(data.len()) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err("more than a greeting from a stranger".into()))),
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces of 1 KiB without end.
    struct Endless;

    impl Body for Endless {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(Some(Ok(Frame::data(vec![0; 1024].into()))))
        }
    }

    #[test]
    fn a_greeting_says_that_it_is_small_and_what_comes_behind_it_may_be_large() {
        let head = |length: u32| [&[0], &length.to_be_bytes()[..]].concat();
        let mut heads = Heads::default();
        assert!(!heads.take(&head(MESSAGE_BYTES as u32)));
        let mut heads = Heads::default();
        let two = [head(3), vec![255; 3], head(STRANGER_BYTES as u32)].concat();
        // In crumbs.
        assert!(two.iter().all(|byte| heads.take(&[*byte])));
        assert!(heads.take(&vec![255; STRANGER_BYTES]));
        assert!(heads.take(&head(MESSAGE_BYTES as u32)) && heads.take(&[255; 100]));
        let mut heads = Heads::default();
        assert!(heads.take(&[head(0), vec![0]].concat()));
        assert!(!heads.take(&(STRANGER_BYTES as u32 + 1).to_be_bytes()));
    }

    #[test]
    fn of_a_stranger_a_greeting_is_read_and_no_more_and_of_a_node_everything() {
        let is_open = Arc::new(AtomicBool::new(false));
        let mut gate = Gate::new(Endless, is_open.clone());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut is_read = || matches!(Pin::new(&mut gate).poll_frame(&mut cx), Poll::Ready(Some(Ok(_))));
        assert!((0..STRANGER_BYTES / 1024).all(|_| is_read()));
        assert!(!is_read());
        is_open.store(true, Ordering::Relaxed);
        assert!((0..100).all(|_| is_read()));
    }
}
