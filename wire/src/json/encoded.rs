//! An event as JSON bytes, encoded once and shared by all whose inbox it goes to: only `inbox_seq` differs.

use bytes::Bytes;

use super::{BadForm, Event};
use crate::command::LoggedEntry;
use crate::proto::chat;

/// An event's JSON without `inbox_seq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventJson {
    object: Bytes,
    /// Where `"inbox_seq":…,` goes: behind `{"type":"…",`.
    splice: usize,
}

/// `"inbox_seq":`, 20 digits and a comma.
const SPLICED: usize = 33;

impl EventJson {
    /// Of an entry of a conversation's log.
    pub fn of_entry(entry: &LoggedEntry) -> Result<Self, BadForm> {
        Self::of(&Event::try_from(&entry.body)?)
    }

    /// Of an event of its own (its `inbox_seq` is not looked at).
    pub fn of_event(event: &chat::InboxEvent) -> Result<Self, BadForm> {
        Self::of(&Event::try_from(event)?)
    }

    /// Of any event.
    pub fn of(event: &Event<'_>) -> Result<Self, BadForm> {
        let object = serde_json::to_vec(event).map_err(|_| BadForm("event"))?;
        // `type` comes first, its words need no escapes, and every event has a field behind it.
        let splice = object
            .iter()
            .position(|byte| *byte == b',')
            .ok_or(BadForm("event"))?
            + 1;
        Ok(Self {
            object: object.into(),
            splice,
        })
    }

    /// The object as it is in REST and for what is not owed.
    pub fn bytes(&self) -> &Bytes {
        &self.object
    }
}

/// Payload of `me/inbox/json`. An `inbox_seq` of 0 (not owed) is left out.
pub fn inbox_json(inbox_seq: u64, event: &EventJson) -> Vec<u8> {
    if inbox_seq == 0 {
        return event.object.to_vec();
    }
    let (head, tail) = event.object.split_at(event.splice);
    let mut json = Vec::with_capacity(event.object.len() + SPLICED);
    json.extend_from_slice(head);
    json.extend_from_slice(b"\"inbox_seq\":");
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = inbox_seq;
    while rest > 0 {
        at -= 1;
        // A digit fits.
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    json.extend_from_slice(&digits[at..]);
    json.push(b',');
    json.extend_from_slice(tail);
    json
}
