//! What goes into one frame: gathered under the link's lock, encoded outside of it.

use std::collections::VecDeque;

use bytes::Bytes;
use godwit_wire::code::{Code, Refusal};
use godwit_wire::peer::{FrameWriter, PeerAnswer, PeerRequest};
use godwit_wire::proto::peer::peer_message::Message;

use crate::stream::encoded;
use crate::taken::{ANSWER_BYTES, FRAME_BYTES, FRAME_REQUESTS, Taken};
use godwit_wire::peer::weight::{self, SMALL};

/// Of a frame for answers, so that requests come through however many there are.
const HALF: usize = FRAME_BYTES / 2;

/// The requests, answers and credit of one frame.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) requests: Vec<PeerRequest>,
    answers: Vec<(u64, PeerAnswer)>,
    credit: u32,
}

impl Batch {
    /// Takes from the front of both what a frame has room for.
    pub(crate) fn gather(from: &mut VecDeque<(u64, PeerAnswer)>, taken: &mut Taken, credit: u32) -> Self {
        let mut batch = Self {
            credit,
            ..Self::default()
        };
        let mut bytes = 0;
        while batch.answers.len() < FRAME_REQUESTS {
            let mut weight = 0;
            let fits = |(_, answer): &mut (u64, PeerAnswer)| {
                weight = weight::answer(answer);
                // A refusal stands for what is too large.
                bytes == 0 || weight > ANSWER_BYTES || bytes + weight <= HALF
            };
            let Some((id, mut answer)) = from.pop_front_if(fits) else {
                break;
            };
            if weight > ANSWER_BYTES {
                let refusal = Refusal::new(
                    Code::TooLarge,
                    "the answer is too large for the nodes to exchange",
                );
                (answer, weight) = (PeerAnswer::Answer(refusal.into()), SMALL);
            }
            bytes += weight;
            batch.answers.push((id, answer));
        }
        if from.is_empty() && from.capacity() > FRAME_REQUESTS {
            *from = VecDeque::new();
        }
        taken.batch(bytes.min(HALF), &mut batch.requests);
        batch
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.answers.is_empty() && self.credit == 0
    }

    /// As a message; `None` if a request has no form outside its node.
    pub(crate) fn encoded(&self) -> Option<Bytes> {
        let mut frame = FrameWriter::default();
        for (id, answer) in &self.answers {
            frame.answer(*id, answer);
        }
        for request in &self.requests {
            let done = frame.request(request.id, request.view, &request.key, &request.command);
            done.ok()?;
        }
        frame.credit(self.credit);
        Some(encoded(Message::Frame(frame.finish())))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use godwit_wire::command::{Answer, Command, ConversationCommand, Publish};
    use godwit_wire::ids::{ConversationId, Key, UserId};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn many_large_answers_leave_room_for_requests_in_every_frame() {
        let publish = Arc::new(Publish {
            topic: "a".into(),
            payload: vec![0; FRAME_BYTES / 3].into(),
            qos: 0,
            retain: false,
            expires_at: None,
            properties: None,
            from: None,
            message_id: None,
        });
        let answer = || PeerAnswer::Answer(Answer::Retained(vec![publish.clone()]));
        let mut answers: VecDeque<_> = (0..6).map(|id| (id, answer())).collect();
        let by = UserId(Uuid::nil());
        let request = |id| PeerRequest {
            id,
            view: 1,
            key: Key::Conversation(ConversationId(Uuid::nil())),
            command: Command::Conversation(ConversationCommand::Get { by }),
        };
        let mut taken = Taken::default();
        taken.opened(10);
        let mut from = [1, 2].map(request).into();
        taken.take(&mut from, Instant::now(), &mut Vec::new());
        let batch = Batch::gather(&mut answers, &mut taken, 0);
        assert_eq!((batch.answers.len(), batch.requests.len()), (1, 2));
        assert!(batch.encoded().is_some_and(|frame| frame.len() <= FRAME_BYTES));
    }
}
