//! Reads every conversation's history over REST at the end of a run, writes it down, and says from it who was a member
//! when and how many messages each user is owed.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::record::{Entry, Line, hash, now};
use crate::rest::Api;
use crate::shared::Shared;
use crate::world::World;

/// Entries a line: the checker reads lines whole.
const LINE: usize = 5_000;

/// What the histories say.
#[derive(Debug, Default)]
pub struct Histories {
    /// Messages in all conversations.
    pub messages: u64,
    /// User's index → different messages at positions where it was a member; one without an id that stands twice counts
    /// once, as bare text cannot tell the two apart.
    pub owed: Vec<u64>,
}

struct Stay {
    user: String,
    joined: u64,
    left: Option<u64>,
}

/// Reads and records all.
///
/// # Errors
/// When a page is refused.
pub fn read(shared: &Shared, world: &World, api: &Api) -> Result<Histories> {
    let mut found = Histories {
        messages: 0,
        owed: vec![0; world.users.len()],
    };
    let by_id: HashMap<&str, usize> = world
        .users
        .iter()
        .enumerate()
        .map(|(number, user)| (&*user.id, number))
        .collect();
    for conversation in &world.conversations {
        let reader = &world.users[conversation.members[0]];
        let served = api
            .history(&reader.token, &conversation.id)
            .with_context(|| format!("history of {}", conversation.id))?;
        let entries: Vec<Entry> = served.iter().map(entry).collect();
        if entries.is_empty() {
            write(shared, &conversation.id, &[]);
        }
        for part in entries.chunks(LINE) {
            write(shared, &conversation.id, part);
        }
        let members = conversation
            .members
            .iter()
            .map(|&user| world.users[user].id.clone());
        let stays = stays(members.collect(), &served);
        let messages: Vec<&Entry> = entries.iter().filter(|entry| entry.form == "message").collect();
        found.messages += messages.len() as u64;
        for stay in stays {
            shared.recorder.write(&Line::Members {
                t: now(),
                conversation: &conversation.id,
                user: &stay.user,
                joined: stay.joined,
                left: stay.left,
            });
            let inside =
                |entry: &&&Entry| entry.seq > stay.joined && stay.left.is_none_or(|left| entry.seq < left);
            if let Some(&user) = by_id.get(&*stay.user) {
                let different: HashSet<_> = messages.iter().filter(inside).map(|entry| &entry.hash).collect();
                found.owed[user] += different.len() as u64;
            }
        }
    }
    Ok(found)
}

fn write(shared: &Shared, conversation: &str, entries: &[Entry]) {
    shared.recorder.write(&Line::History {
        t: now(),
        conversation,
        entries,
    });
}

fn entry(served: &Value) -> Entry {
    let text = |name: &str| served[name].as_str().map(str::to_owned);
    let form = text("type").unwrap_or_else(|| "message".to_owned());
    let message = form == "message";
    Entry {
        seq: served["sequence_number"].as_u64().unwrap_or(0),
        message_id: text("message_id"),
        client_message_id: text("client_message_id"),
        sender: text("sender_id"),
        hash: message.then(|| hash(served["content"].as_str().unwrap_or_default().as_bytes())),
        form,
    }
}

/// Who was in from where to where: those named at the making from 0, and what the membership entries say.
fn stays(first: Vec<String>, served: &[Value]) -> Vec<Stay> {
    let mut stays: Vec<Stay> = first
        .into_iter()
        .map(|user| Stay {
            user,
            joined: 0,
            left: None,
        })
        .collect();
    for change in served.iter().filter(|entry| entry["type"] == "member") {
        let (user, seq) = (
            change["user_id"].as_str().unwrap_or_default(),
            change["sequence_number"].as_u64().unwrap_or(0),
        );
        let open = stays
            .iter_mut()
            .rev()
            .find(|stay| stay.user == user && stay.left.is_none());
        match (change["op"].as_str(), open) {
            (Some("removed" | "left"), Some(stay)) => stay.left = Some(seq),
            (Some("added"), None) => stays.push(Stay {
                user: user.to_owned(),
                joined: seq,
                left: None,
            }),
            // An entry of the making: in from there.
            (Some("added"), Some(stay)) => stay.joined = seq,
            _ => {}
        }
    }
    stays
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_leaves_and_comes_back_was_in_twice() {
        let entries = [
            json!({ "type": "message", "sequence_number": 1 }),
            json!({ "type": "member", "sequence_number": 2, "user_id": "b", "op": "removed" }),
            json!({ "type": "member", "sequence_number": 5, "user_id": "b", "op": "added" }),
        ];
        let stays = stays(vec!["a".to_owned(), "b".to_owned()], &entries);
        let facts: Vec<(&str, u64, Option<u64>)> = stays
            .iter()
            .map(|stay| (&*stay.user, stay.joined, stay.left))
            .collect();
        assert_eq!(facts, [("a", 0, None), ("b", 0, Some(2)), ("b", 5, None)]);
    }
}
