//! The requests that a link took and has not answered: which wait for the stream, which the other node has not taken yet,
//! and which wait for their answer. No locks, no time of its own, no IO.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use godwit_wire::ids::Key;
use godwit_wire::peer::{PeerAnswer, PeerRequest};

use godwit_wire::peer::weight::{self, Shared};

/// Requests of a link that the receiving node has not taken: enough for a millisecond's round trip at four million a second,
/// few enough to wait in memory on both sides.
pub const CREDIT: usize = 4_096;
/// Bytes of such requests: with requests of 64 KiB a tenth of [`CREDIT`] would be the memory of a small node.
pub const TAKEN_BYTES: usize = 8 * 1024 * 1024;
/// How long a request waits for a link that is down.
pub const DOWN: Duration = Duration::from_secs(5);
/// Requests, and as many answers, in one frame.
pub const FRAME_REQUESTS: usize = 1_024;
/// Bytes of a frame, a single larger request or answer apart: what the others wait behind.
pub const FRAME_BYTES: usize = 1024 * 1024;
/// Largest answer: the retained messages of a key are 16 MiB of payload at most. A larger one is refused in its place.
pub const ANSWER_BYTES: usize = 24 * 1024 * 1024;

const _: () = assert!(FRAME_BYTES < TAKEN_BYTES);
const _: () = assert!(
    ANSWER_BYTES + FRAME_BYTES < crate::stream::MESSAGE_BYTES,
    "a frame fits a message"
);

#[derive(Debug)]
struct Queued {
    request: PeerRequest,
    weight: usize,
    /// When it was taken.
    at: Instant,
}

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Not sent yet, in order.
    queue: VecDeque<Queued>,
    /// Of what was sent and not taken by the other node, in order.
    untaken: VecDeque<usize>,
    /// Weight of both.
    bytes: usize,
    /// Of the last one in the queue.
    shared: Shared,
    /// Sent, and to be answered.
    waiting: HashSet<u64>,
    /// So many may be sent.
    credit: usize,
    /// Somebody was left with requests.
    left: bool,
}

impl Taken {
    /// Takes from the front what there is room for. What must not leave a node is refused.
    pub(crate) fn take(&mut self, from: &mut VecDeque<PeerRequest>, now: Instant, refused: &mut Vec<u64>) {
        if self.queue.is_empty() {
            // What the last one shared may be gone, and something else stand at its address.
            self.shared = Shared::default();
        }
        while let Some(request) = from.front() {
            if let Key::WildcardCopy(_) = request.key {
                tracing::error!("a request for a copy of one worker was given to a link");
                refused.extend(Some(request.id).filter(|id| *id != 0));
                from.pop_front();
                continue;
            }
            let mut shared = self.shared;
            let weight = weight::request(request, &mut shared);
            let is_full = self.queue.len() + self.untaken.len() >= CREDIT
                || (self.bytes > 0 && self.bytes + weight > TAKEN_BYTES);
            if is_full {
                self.left = true;
                return;
            }
            let Some(request) = from.pop_front() else {
                return;
            };
            self.shared = shared;
            self.bytes += weight;
            self.queue.push_back(Queued {
                request,
                weight,
                at: now,
            });
        }
    }

    /// A stream is there, and its other side takes so many to begin with.
    pub(crate) fn opened(&mut self, credit: u32) {
        self.credit = credit as usize;
    }

    /// What goes into the next frame, `bytes` of it used already.
    pub(crate) fn batch(&mut self, mut bytes: usize, into: &mut Vec<PeerRequest>) {
        while self.credit > 0 && into.len() < FRAME_REQUESTS {
            let fits = |queued: &mut Queued| bytes == 0 || bytes + queued.weight <= FRAME_BYTES;
            let Some(queued) = self.queue.pop_front_if(fits) else {
                return;
            };
            bytes += queued.weight;
            self.credit -= 1;
            self.untaken.push_back(queued.weight);
            if queued.request.id != 0 {
                self.waiting.insert(queued.request.id);
            }
            into.push(queued.request);
        }
    }

    /// The other node has taken so many. `false`: more than there were.
    pub(crate) fn credited(&mut self, requests: u32) -> bool {
        let requests = requests as usize;
        if requests > self.untaken.len() {
            return false;
        }
        self.bytes -= self.untaken.drain(..requests).sum::<usize>();
        self.credit += requests;
        true
    }

    /// Leaves those answers that somebody waits for.
    pub(crate) fn answered(&mut self, answers: &mut Vec<(u64, PeerAnswer)>) {
        answers.retain(|(id, _)| self.waiting.remove(id));
    }

    /// Whether somebody was left with requests, and may come again: asked once.
    pub(crate) fn has_room(&mut self) -> bool {
        std::mem::take(&mut self.left)
    }

    /// Whether there is something to send and credit for it.
    pub(crate) fn is_ready(&self) -> bool {
        self.credit > 0 && !self.queue.is_empty()
    }

    /// The stream broke: who waited for an answer gets none, what was not sent waits for the next stream.
    pub(crate) fn broken(&mut self, refused: &mut Vec<u64>) {
        refused.extend(std::mem::take(&mut self.waiting));
        self.bytes -= self.untaken.drain(..).sum::<usize>();
        self.credit = 0;
    }

    /// There is no stream since `down`: what has waited long enough.
    pub(crate) fn expire(&mut self, now: Instant, down: Instant, refused: &mut Vec<u64>) {
        let is_late = |queued: &mut Queued| now.saturating_duration_since(queued.at.max(down)) >= DOWN;
        while let Some(queued) = self.queue.pop_front_if(is_late) {
            self.forget(&queued, refused);
        }
    }

    /// There will be no other stream.
    pub(crate) fn end(&mut self, refused: &mut Vec<u64>) {
        self.broken(refused);
        while let Some(queued) = self.queue.pop_front() {
            self.forget(&queued, refused);
        }
        self.queue = VecDeque::new();
    }

    fn forget(&mut self, queued: &Queued, refused: &mut Vec<u64>) {
        self.bytes -= queued.weight;
        if queued.request.id != 0 {
            refused.push(queued.request.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use godwit_wire::command::{Answer, Command, ConversationCommand, Publish, TopicCommand};
    use godwit_wire::ids::{ConversationId, UserId};
    use uuid::Uuid;

    use super::*;

    fn small(id: u64) -> PeerRequest {
        let by = UserId(Uuid::nil());
        PeerRequest {
            id,
            view: 1,
            key: Key::Conversation(ConversationId(Uuid::nil())),
            command: Command::Conversation(ConversationCommand::Get { by }),
        }
    }

    fn publish(id: u64, publish: &Arc<Publish>) -> PeerRequest {
        PeerRequest {
            command: Command::Topic(TopicCommand::Publish(publish.clone(), UserId(Uuid::nil()))),
            ..small(id)
        }
    }

    fn payload(bytes: usize) -> Arc<Publish> {
        Arc::new(Publish {
            topic: "a/b".into(),
            payload: Bytes::from(vec![0; bytes]),
            qos: 1,
            retain: false,
            expires_at: None,
            properties: None,
            from: None,
            message_id: None,
        })
    }

    fn batch(taken: &mut Taken) -> Vec<u64> {
        let mut into = Vec::new();
        taken.batch(0, &mut into);
        into.iter().map(|request| request.id).collect()
    }

    #[test]
    fn no_more_are_taken_than_there_is_room_for_until_the_other_node_has_taken_some() {
        let (mut taken, now) = (Taken::default(), Instant::now());
        let mut from: VecDeque<_> = (1..=CREDIT as u64 + 10).map(small).collect();
        taken.take(&mut from, now, &mut Vec::new());
        assert_eq!(from.len(), 10);
        taken.opened(CREDIT as u32);
        while !batch(&mut taken).is_empty() {}
        taken.take(&mut from, now, &mut Vec::new());
        assert_eq!(from.len(), 10, "what was sent is under way");
        assert!(taken.credited(4));
        assert!(taken.has_room() && !taken.has_room());
        taken.take(&mut from, now, &mut Vec::new());
        assert_eq!(from.len(), 6);
        assert_eq!(batch(&mut taken).len(), 4);
        assert!(!taken.credited(CREDIT as u32 + 1), "more than were sent");
    }

    #[test]
    fn bytes_are_bounded_too_and_what_neighbours_share_counts_once() {
        let (mut taken, now) = (Taken::default(), Instant::now());
        let large = payload(3 * 1024 * 1024);
        let mut shared: VecDeque<_> = (1..=100).map(|id| publish(id, &large)).collect();
        taken.take(&mut shared, now, &mut Vec::new());
        assert!(shared.is_empty());
        let mut own: VecDeque<_> = (0..5)
            .map(|id| publish(200 + id, &payload(3 * 1024 * 1024)))
            .collect();
        taken.take(&mut own, now, &mut Vec::new());
        assert_eq!(own.len(), 4);
        let mut refused = Vec::new();
        taken.end(&mut refused);
        assert_eq!((refused.len(), taken.bytes), (101, 0));
        let mut again: VecDeque<_> = (1..=10).map(|id| publish(id, &large)).collect();
        taken.take(&mut again, now, &mut Vec::new());
        assert!(taken.bytes > large.payload.len(), "it counts anew behind nothing");
        taken.end(&mut Vec::new());
        let mut copy = small(7);
        copy.key = Key::WildcardCopy(1);
        taken.take(&mut [copy].into(), now, &mut refused);
        assert_eq!(refused.pop(), Some(7), "a worker's copy stays");
        let mut larger = VecDeque::from([publish(300, &payload(2 * TAKEN_BYTES))]);
        taken.take(&mut larger, now, &mut Vec::new());
        assert!(larger.is_empty(), "alone, one of any size is taken");
    }

    #[test]
    fn a_frame_is_bounded_and_a_larger_request_goes_alone() {
        let (mut taken, now) = (Taken::default(), Instant::now());
        taken.opened(CREDIT as u32);
        let mut from: VecDeque<_> = [1, 2].map(small).into();
        from.push_back(publish(3, &payload(2 * FRAME_BYTES)));
        from.extend([4, 5].map(small));
        taken.take(&mut from, now, &mut Vec::new());
        assert_eq!(batch(&mut taken), [1, 2]);
        assert_eq!(batch(&mut taken), [3]);
        assert_eq!(batch(&mut taken), [4, 5]);
        from.extend((10..10 + 2 * FRAME_REQUESTS as u64).map(small));
        taken.take(&mut from, now, &mut Vec::new());
        assert_eq!(batch(&mut taken).len(), FRAME_REQUESTS);
    }

    #[test]
    fn after_a_break_what_was_sent_is_refused_and_what_was_not_waits_its_time() {
        let (mut taken, now) = (Taken::default(), Instant::now());
        taken.opened(2);
        let mut from: VecDeque<_> = [1, 0, 3, 0, 5].map(small).into();
        taken.take(&mut from, now, &mut Vec::new());
        assert_eq!(batch(&mut taken), [1, 0]);
        let mut refused = Vec::new();
        taken.broken(&mut refused);
        assert_eq!(refused, [1]);
        let mut late = vec![(1, PeerAnswer::Answer(Answer::Done))];
        taken.answered(&mut late);
        assert!(late.is_empty(), "it was refused");
        refused.clear();
        let down = now + Duration::from_secs(60);
        taken.expire(down + DOWN - Duration::from_millis(1), down, &mut refused);
        assert!(refused.is_empty(), "the time begins with the break");
        taken.opened(1);
        assert_eq!(batch(&mut taken), [3]);
        taken.broken(&mut refused);
        taken.expire(down + DOWN, down, &mut refused);
        assert_eq!(refused, [3, 5], "nothing is for 0");
        assert_eq!(taken.bytes, 0);
    }
}
