//! Histories by themselves: SEQ (1, 2, 3 …) and ONCE (no message and no client id twice). Afterwards each history is
//! sorted by position and can be searched.

use std::collections::HashMap;

use crate::run::{Attempt, Conversation, Key, Outcome, Run, Stored};
use crate::verdict::Verdict;

/// Where stored messages are found; values are indices into a conversation's sorted history.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Message id → conversation and place.
    by_message: HashMap<Key, (u32, u32)>,
    /// (conversation, sender, client id).
    by_client: HashMap<(u32, u32, Key), u32>,
    /// (conversation, sender, content); of an excused double the later, which the retry's acknowledgement means.
    by_content: HashMap<(u32, u32, Key), u32>,
    /// (conversation, content) → all places, in order; for deliveries that carry no id.
    by_text: HashMap<(u32, Key), Vec<u32>>,
}

impl Index {
    pub(super) fn message(&self, message: Key) -> Option<(u32, usize)> {
        self.by_message
            .get(&message)
            .map(|(conversation, place)| (*conversation, *place as usize))
    }

    /// The entry of an attempt: by its client id, without one by its content.
    pub(super) fn of_attempt(&self, attempt: &Attempt) -> Option<usize> {
        let place = if attempt.client_id == 0 {
            self.by_content
                .get(&(attempt.conversation, attempt.sender, attempt.hash))
        } else {
            self.by_client
                .get(&(attempt.conversation, attempt.sender, attempt.client_id))
        };
        place.map(|place| *place as usize)
    }

    pub(super) fn text(&self, conversation: u32, hash: Key) -> &[u32] {
        self.by_text
            .get(&(conversation, hash))
            .map_or(&[], |places| places)
    }
}

impl Conversation {
    pub(super) fn at(&self, seq: u32) -> Option<&Stored> {
        self.history
            .binary_search_by_key(&seq, |stored| stored.seq)
            .ok()
            .map(|place| &self.history[place])
    }
}

pub(super) fn check(run: &mut Run, verdict: &mut Verdict) -> Index {
    let mut stored = 0;
    for (number, conversation) in &mut run.conversations {
        let name = run.names.text(*number);
        let mut expected = 1;
        for entry in &conversation.history {
            if entry.seq != expected {
                verdict.broken("SEQ", &[entry.at], || {
                    format!(
                        "history of {name}: position {} where {expected} is due",
                        entry.seq
                    )
                });
            }
            expected = entry.seq.saturating_add(1);
        }
        stored += conversation
            .history
            .iter()
            .filter(|entry| entry.is_message)
            .count() as u64;
        conversation.history.sort_by_key(|entry| entry.seq);
    }
    verdict.count("messages stored", stored);
    index(run, verdict)
}

fn index(run: &Run, verdict: &mut Verdict) -> Index {
    let mut index = Index::default();
    let needs_text = run
        .deliveries
        .iter()
        .any(|delivery| delivery.message == 0 && delivery.seq == 0);
    let excused = excused(run);
    let mut excused_doubles = 0;
    for (&number, conversation) in &run.conversations {
        let name = run.names.text(number);
        let messages = conversation
            .history
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.is_message);
        for (place, entry) in messages {
            let place = place as u32;
            let twice = |place: u32, what: &str| {
                let first = &conversation.history[place as usize];
                (
                    [first.at, entry.at],
                    format!("{what} stands at {} and at {} of {name}", first.seq, entry.seq),
                )
            };
            if entry.message != 0
                && let Some((other, first)) = index.by_message.insert(entry.message, (number, place))
            {
                let (at, what) = if other == number {
                    twice(first, "one message id")
                } else {
                    (
                        [entry.at; 2],
                        format!("one message id stands in {name} and in {}", run.names.text(other)),
                    )
                };
                verdict.broken("ONCE", &at, || what);
            }
            if entry.client_id != 0 {
                let key = (number, entry.sender, entry.client_id);
                let first = *index.by_client.entry(key).or_insert(place);
                if first != place {
                    let (at, what) = twice(first, "one client message id of one sender");
                    verdict.broken("ONCE", &at, || what);
                }
            }
            let content = (number, entry.sender, entry.hash);
            if let Some(first) = index.by_content.insert(content, place) {
                match excused.get(&content) {
                    Some(true) => excused_doubles += 1,
                    Some(false) => {
                        let (at, what) = twice(first, "a send without a client id");
                        verdict.broken("ONCE", &at, || what);
                    }
                    None => {}
                }
            }
            if needs_text {
                index.by_text.entry((number, entry.hash)).or_default().push(place);
            }
        }
    }
    verdict.count("doubles of id-less sends in flight at a kill", excused_doubles);
    index
}

/// Contents sent without a client id, and whether any such attempt was in flight at a kill.
fn excused(run: &Run) -> HashMap<(u32, u32, Key), bool> {
    let mut excused = HashMap::new();
    for attempt in run.attempts.iter().filter(|attempt| attempt.client_id == 0) {
        let end = if attempt.outcome == Outcome::Unknown {
            u64::MAX
        } else {
            attempt.answered
        };
        let first = run.kills.partition_point(|kill| *kill < attempt.t);
        let in_flight = run.kills.get(first).is_some_and(|kill| *kill <= end);
        *excused
            .entry((attempt.conversation, attempt.sender, attempt.hash))
            .or_default() |= in_flight;
    }
    excused
}
