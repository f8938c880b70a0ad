//! Reads a link's stream until it ends: requests for this node, answers for it, credit, channels' bytes. What is sent is `link`'s.

use std::collections::VecDeque;
use std::time::Duration;

use godwit_wire::peer::{PeerAnswer, PeerRequest, read_frame};
use godwit_wire::proto::peer::peer_message::Message;
use godwit_wire::proto::peer::{Channels, Frame};
use tokio::time::timeout;

use crate::error::LinkError;
use crate::link::{Opened, unavailable};
use crate::stream::Pair;
use crate::taken::{CREDIT, FRAME_REQUESTS};

/// How long until requests that the node had no room for are offered to it again.
const AGAIN: Duration = Duration::from_millis(2);

/// Reads until the stream ends, is ended, or says something wrong.
pub(crate) async fn read(opened: Opened, mut pair: Pair) -> LinkError {
    let cancel = opened.0.cancel.clone();
    let link = opened.0.link.clone();
    // One before may still be giving what it read.
    let _reading = link.reading.lock().await;
    let mut reader = Reader {
        opened,
        lying: VecDeque::new(),
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => LinkError::Ended,
        error = reader.run(&mut pair) => error,
    }
}

struct Reader {
    opened: Opened,
    /// What the node had no room for, and what came behind it.
    lying: VecDeque<PeerRequest>,
}

impl Reader {
    async fn run(&mut self, pair: &mut Pair) -> LinkError {
        loop {
            let next = if self.lying.is_empty() {
                Ok(pair.next().await)
            } else {
                timeout(AGAIN, pair.next()).await
            };
            let done = match next {
                Ok(Ok(message)) => self.message(message, pair.bytes),
                Ok(Err(error)) => Err(error),
                Err(_) => {
                    self.give(&mut Vec::new(), 0);
                    Ok(())
                }
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    fn message(&mut self, message: Message, bytes: usize) -> Result<(), LinkError> {
        match message {
            Message::Frame(frame) => self.frame(frame, bytes),
            Message::Hello(_) | Message::Proof(_) => Err(LinkError::Unexpected("a second greeting")),
            Message::Channels(channels) => self.channels(channels, bytes),
        }
    }

    fn channels(&mut self, channels: Channels, bytes: usize) -> Result<(), LinkError> {
        let open = &self.opened.0;
        open.link.metrics.received(bytes, 0);
        for part in channels.parts {
            if let Some((about, channel)) = open.hub.heard(part)? {
                open.link.local.channel(open.link.node, about, channel);
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame, bytes: usize) -> Result<(), LinkError> {
        let content = read_frame(frame);
        let open = &self.opened.0;
        open.link.metrics.received(bytes, content.requests.len());
        if self.lying.len() + content.requests.len() > CREDIT {
            return Err(LinkError::Unexpected("more requests than it had credit for"));
        }
        open.credited(content.credit)?;
        open.answered(content.answers);
        let (mut unreadable, mut refused) = (Vec::new(), 0);
        for request in content.requests {
            match request {
                Ok(request) => self.lying.push_back(request),
                Err((id, error)) => {
                    tracing::warn!(node = %open.link.node, %error, "a request of another node cannot be read");
                    refused += 1;
                    if id != 0 {
                        unreadable.push((id, unavailable()));
                    }
                }
            }
        }
        self.give(&mut unreadable, refused);
        Ok(())
    }

    /// Gives the node what it has room for, and tells the other what was taken. `not_done`: answers to what was not; `refused`: how many of
    /// the other's requests never got here.
    fn give(&mut self, not_done: &mut Vec<(u64, PeerAnswer)>, refused: u32) {
        let open = &self.opened.0;
        let before = self.lying.len();
        if before > 0 {
            let mut ids = Vec::new();
            open.link.local.asked(open.link.node, &mut self.lying, &mut ids);
            not_done.extend(
                ids.into_iter()
                    .filter(|id| *id != 0)
                    .map(|id| (id, unavailable())),
            );
        }
        let taken = before.saturating_sub(self.lying.len()) as u32 + refused;
        if self.lying.is_empty() && self.lying.capacity() > FRAME_REQUESTS {
            self.lying = VecDeque::new();
        }
        if taken > 0 {
            open.took(taken, not_done);
        }
    }
}
