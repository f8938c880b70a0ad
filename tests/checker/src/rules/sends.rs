//! What was asked and answered against what is stored: ACK, REFUSED, and of SEQ, ONCE and CONTENT what concerns the
//! sender's side.

use std::collections::HashMap;

use super::stored::Index;
use crate::run::{Ack, Attempt, Key, NOBODY, Outcome, Run};
use crate::verdict::Verdict;

pub(super) fn check(run: &mut Run, index: &Index, verdict: &mut Verdict) {
    let mut acked_places = Vec::new();
    let mut told_refused = 0;
    for ack in &run.acks {
        let attempt = &run.attempts[ack.attempt as usize];
        match find(run, index, ack, attempt) {
            Some(place) => {
                compare(run, ack, attempt, place, verdict);
                acked_places.push((attempt.conversation, place));
            }
            None if was_told_refused(run, attempt) => told_refused += 1,
            None => verdict.broken("ACK", &[attempt.at, ack.at], || {
                format!(
                    "a message of {} to {} was acknowledged and is not in history",
                    run.names.text(attempt.sender),
                    run.names.text(attempt.conversation)
                )
            }),
        }
    }
    verdict.count("acknowledged and told as refused", told_refused);
    same_answer_always(run, verdict);
    refused_stay_out(run, index, verdict);
    for (conversation, place) in acked_places {
        if let Some(conversation) = run.conversations.get_mut(&conversation) {
            conversation.history[place].acked = true;
        }
    }
}

/// The entry that an acknowledged attempt became: the one with the message id if the door told it.
fn find(run: &Run, index: &Index, ack: &Ack, attempt: &Attempt) -> Option<usize> {
    if ack.message == 0 {
        let place = index.of_attempt(attempt)?;
        return Some(place);
    }
    let (conversation, place) = index.message(ack.message)?;
    let known = run.conversations.get(&conversation)?;
    (conversation == attempt.conversation && known.history.get(place).is_some()).then_some(place)
}

fn was_told_refused(run: &Run, attempt: &Attempt) -> bool {
    let id = if attempt.client_id == 0 {
        attempt.hash
    } else {
        attempt.client_id
    };
    run.refused_events.contains(&(attempt.sender, id))
}

fn compare(run: &Run, ack: &Ack, attempt: &Attempt, place: usize, verdict: &mut Verdict) {
    let Some(conversation) = run.conversations.get(&attempt.conversation) else {
        return;
    };
    let entry = &conversation.history[place];
    let at = [attempt.at, ack.at, entry.at];
    let name = run.names.text(attempt.conversation);
    if ack.seq != 0 && ack.seq != entry.seq {
        verdict.broken("SEQ", &at, || {
            format!(
                "acknowledged as {} of {name}, in history it is {}",
                ack.seq, entry.seq
            )
        });
    }
    if entry.hash != attempt.hash {
        verdict.broken("CONTENT", &at, || {
            format!("{} of {name} is not what was sent", entry.seq)
        });
    }
    if entry.sender != attempt.sender && entry.sender != NOBODY {
        verdict.broken("CONTENT", &at, || {
            format!("{} of {name} bears another sender", entry.seq)
        });
    }
    if attempt.client_id != 0 && entry.client_id != attempt.client_id {
        verdict.broken("CONTENT", &at, || {
            format!("{} of {name} bears another client id", entry.seq)
        });
    }
}

/// One (conversation, sequence) was acknowledged as one message, and one client id as one message.
fn same_answer_always(run: &Run, verdict: &mut Verdict) {
    let mut by_position: HashMap<(u32, u32), (Key, usize)> = HashMap::new();
    let mut by_client: HashMap<(u32, u32, Key), (Key, usize)> = HashMap::new();
    for (number, ack) in run.acks.iter().enumerate().filter(|(_, ack)| ack.message != 0) {
        let attempt = &run.attempts[ack.attempt as usize];
        let name = run.names.text(attempt.conversation);
        if ack.seq != 0 {
            let (message, first) = *by_position
                .entry((attempt.conversation, ack.seq))
                .or_insert((ack.message, number));
            if message != ack.message {
                verdict.broken("SEQ", &[run.acks[first].at, ack.at], || {
                    format!("{} of {name} was acknowledged to two messages", ack.seq)
                });
            }
        }
        if attempt.client_id != 0 {
            let key = (attempt.conversation, attempt.sender, attempt.client_id);
            let (message, first) = *by_client.entry(key).or_insert((ack.message, number));
            if message != ack.message {
                verdict.broken("ONCE", &[run.acks[first].at, ack.at], || {
                    format!("one client message id in {name} was acknowledged as two messages")
                });
            }
        }
    }
}

/// A message that was only ever refused must not be stored.
fn refused_stay_out(run: &Run, index: &Index, verdict: &mut Verdict) {
    let key = |attempt: &Attempt| {
        (
            attempt.conversation,
            attempt.sender,
            attempt.client_id,
            attempt.hash,
        )
    };
    let refused = |attempt: &&Attempt| attempt.outcome == Outcome::Refused;
    if !run.attempts.iter().any(|attempt| refused(&attempt)) {
        return;
    }
    let tried_otherwise: std::collections::HashSet<_> = run
        .attempts
        .iter()
        .filter(|attempt| !refused(attempt))
        .map(key)
        .collect();
    for attempt in run.attempts.iter().filter(refused) {
        let place = index.of_attempt(attempt);
        let conversation = run.conversations.get(&attempt.conversation);
        let Some(entry) = place
            .zip(conversation)
            .map(|(place, known)| &known.history[place])
        else {
            continue;
        };
        if entry.hash == attempt.hash && !tried_otherwise.contains(&key(attempt)) {
            verdict.broken("REFUSED", &[attempt.at, entry.at], || {
                format!(
                    "a refused message is {} of {}",
                    entry.seq,
                    run.names.text(attempt.conversation)
                )
            });
        }
    }
}
