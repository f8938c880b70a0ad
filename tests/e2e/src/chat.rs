//! The script of a chat session: keeps a window of sends in flight through its door, retries what was not acknowledged
//! under the same client message id, now and then repeats what was, and records what its inbox brings.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use godwit_wire::proto::chat::{self, inbox_event, message, send_request};
use prost::Message as _;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::mqtt::{Delivery, Outgoing, Told, Version};
use crate::record::{Event, Line, Recv, hash, now};
use crate::session::Script;
use crate::shared::Shared;
use crate::world::{Encoding, World};

/// A client never runs further ahead of its oldest unacknowledged send than this: rumqttc has 256 packet ids.
const SPAN: u64 = 128;
/// One in so many acknowledged sends is sent once more.
const REPEAT_ONE_IN: u32 = 200;
/// Attempts of one message before the client gives it up; with the pauses far longer than any test.
const ATTEMPTS: u32 = 10_000;
/// Most characters of padding in a message.
const PADDING: usize = 160;

/// What one session has got of messages, each once; the drain waits on it.
#[derive(Debug, Default)]
pub struct Seen {
    keys: Mutex<HashSet<u64>>,
    count: AtomicU64,
}

impl Seen {
    /// How many different messages.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Got this.
    pub fn add_text(&self, text: &str) {
        let key = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.insert(key) {
            self.count.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// A text that nobody else in the run sends, and the conversation it is for as its index.
pub fn fresh_text(shared: &Shared, conversation: usize, random: &mut StdRng) -> String {
    const WORDS: [&str; 6] = ["tide ", "wader ", "Grüße ", "渡り鳥 ", "\"quoted\" ", "mud "];
    let mut text = format!("{}.{conversation} ", shared.number());
    let length = random.random_range(0..PADDING);
    while text.len() < length {
        text.push_str(WORDS[random.random_range(0..WORDS.len())]);
    }
    text
}

/// The conversation's index in a text made by [`fresh_text`].
fn conversation_of(text: &str) -> Option<usize> {
    let (_, rest) = text.split_once('.')?;
    rest.split(' ').next()?.parse().ok()
}

#[derive(Debug, Clone)]
struct Attempt {
    /// Its name in the records.
    id: String,
    conversation: usize,
    text: String,
    client_message_id: Option<String>,
    tries: u32,
    /// Counted in flight: not so for a repeat of what is acknowledged.
    counted: bool,
}

/// See the module.
pub struct Chat {
    /// What the run shares.
    pub shared: Arc<Shared>,
    /// Who talks to whom.
    pub world: Arc<World>,
    /// Whose session.
    pub user: usize,
    /// Its name in the records.
    pub name: String,
    /// Its protocol.
    pub version: Version,
    /// Its encoding, out and in.
    pub encoding: Encoding,
    /// Sends in flight; 0: only listens.
    pub window: usize,
    /// Random choices.
    pub random: StdRng,
    /// What it got.
    pub seen: Arc<Seen>,
    sends: u64,
    outstanding: BTreeMap<u64, Attempt>,
    again: VecDeque<Attempt>,
}

impl Chat {
    /// A session with nothing in flight.
    #[expect(clippy::too_many_arguments, reason = "the facts of one session")]
    pub fn new(
        shared: Arc<Shared>,
        world: Arc<World>,
        user: usize,
        name: String,
        (version, encoding): (Version, Encoding),
        window: usize,
        random: StdRng,
        seen: Arc<Seen>,
    ) -> Self {
        Self {
            shared,
            world,
            user,
            name,
            version,
            encoding,
            window,
            random,
            seen,
            sends: 0,
            outstanding: BTreeMap::new(),
            again: VecDeque::new(),
        }
    }

    fn door(&self) -> &'static str {
        match (self.encoding, self.version) {
            (Encoding::Plain, Version::V3) => "mqtt3",
            (Encoding::Plain, Version::V5) => "mqtt5",
            (Encoding::Json, _) => "json",
            (Encoding::Text, _) => "text",
        }
    }

    fn new_attempt(&mut self) -> Option<Attempt> {
        let conversation = self.world.choose(self.user, &mut self.random)?;
        let text = fresh_text(&self.shared, conversation, &mut self.random);
        // Bare text has no place for an id in 3.1.1; in MQTT 5 half of it brings one as a property.
        let with_id = match (self.encoding, self.version) {
            (Encoding::Text, Version::V3) => false,
            (Encoding::Text, Version::V5) => self.random.random_bool(0.5),
            _ => self.random.random_bool(0.95),
        };
        let number = text.split('.').next().unwrap_or_default().to_owned();
        Some(Attempt {
            id: format!("{}-{number}", self.name),
            client_message_id: with_id.then(|| format!("id-{number}")),
            conversation,
            text,
            tries: 1,
            counted: true,
        })
    }

    fn outgoing(&self, attempt: &Attempt) -> Outgoing {
        let conversation = &self.world.conversations[attempt.conversation].id;
        let id = attempt.client_message_id.clone();
        let payload = match self.encoding {
            Encoding::Plain => Bytes::from(
                chat::SendRequest {
                    client_message_id: id.clone().unwrap_or_default(),
                    content_type: chat::ContentType::Text.into(),
                    content: Some(send_request::Content::Text(attempt.text.clone())),
                    ..chat::SendRequest::default()
                }
                .encode_to_vec(),
            ),
            Encoding::Json => {
                let mut body = json!({ "content_type": "text", "content": attempt.text });
                if let Some(id) = &id {
                    body["client_message_id"] = Value::String(id.clone());
                }
                Bytes::from(body.to_string())
            }
            Encoding::Text => Bytes::from(attempt.text.clone()),
        };
        Outgoing {
            topic: format!("c/{conversation}/send{}", self.encoding.suffix()),
            payload,
            qos: 1,
            client_message_id: id.filter(|_| self.encoding == Encoding::Text),
        }
    }

    fn retry(&mut self, mut attempt: Attempt) {
        if attempt.client_message_id.is_none() || attempt.tries >= ATTEMPTS {
            if attempt.counted {
                self.shared.give_up();
            }
            return;
        }
        attempt.tries += 1;
        let base = attempt.id.split('~').next().unwrap_or_default();
        attempt.id = format!("{base}~{}", attempt.tries);
        self.again.push_back(attempt);
    }

    fn message(&self, message: &Message<'_>, delivery: &Delivery) {
        let hash = hash(message.content);
        let line = Line::Recv(Recv {
            t: now(),
            session: &self.name,
            user: &self.world.users[self.user].id,
            conversation: message.conversation,
            sequence_number: message.sequence,
            message_id: message.id,
            client_message_id: message.client_id.filter(|id| !id.is_empty()),
            inbox_seq: message.inbox,
            dup: delivery.dup,
            sender: message.sender,
            hash: &hash,
        });
        self.shared.recorder.write(&line);
        self.shared.deliver();
        self.seen.add_text(&hash);
    }

    fn plain(&self, delivery: &Delivery) -> Option<()> {
        let event = chat::InboxEvent::decode(&delivery.payload[..]).ok()?;
        let inbox = (event.inbox_seq > 0).then_some(event.inbox_seq);
        match event.event? {
            inbox_event::Event::Message(sent) => {
                let Some(message::Content::Text(text)) = &sent.content else {
                    return None;
                };
                let message = Message {
                    conversation: &uuid(&sent.conversation_id),
                    sequence: Some(sent.sequence_number),
                    id: Some(&uuid(&sent.message_id)),
                    client_id: Some(&sent.client_message_id),
                    inbox,
                    sender: Some(&uuid(&sent.sender_id)),
                    content: text.as_bytes(),
                };
                self.message(&message, delivery);
            }
            inbox_event::Event::Member(member) => {
                let id = uuid(&member.conversation_id);
                self.event("member", inbox, Some(&id), Some(member.sequence_number));
            }
            inbox_event::Event::Conversation(change) => {
                self.event("conversation", inbox, Some(&uuid(&change.conversation_id)), None);
            }
            inbox_event::Event::Gap(gap) => {
                let id = (!gap.conversation_id.is_empty()).then(|| uuid(&gap.conversation_id));
                self.event("gap", inbox, id.as_deref(), None);
            }
            inbox_event::Event::Receipt(_) => {}
            inbox_event::Event::Refused(refused) => {
                self.refusal(
                    inbox,
                    &refused.topic,
                    &refused.client_message_id,
                    &refused.content,
                );
            }
        }
        Some(())
    }

    fn json(&self, delivery: &Delivery) -> Option<()> {
        let event: Value = serde_json::from_slice(&delivery.payload).ok()?;
        let inbox = event["inbox_seq"].as_u64();
        let conversation = event["conversation_id"].as_str();
        let sequence = event["sequence_number"].as_u64();
        match event["type"].as_str()? {
            "message" => {
                let message = Message {
                    conversation: conversation?,
                    sequence,
                    id: event["message_id"].as_str(),
                    client_id: event["client_message_id"].as_str(),
                    inbox,
                    sender: event["sender_id"].as_str(),
                    content: event["content"].as_str()?.as_bytes(),
                };
                self.message(&message, delivery);
            }
            "receipt" => {}
            "refused" => {
                let content = event["content"].as_str()?.as_bytes();
                let id = event["client_message_id"].as_str().unwrap_or_default();
                self.refusal(inbox, event["topic"].as_str()?, id, content);
            }
            form => self.event(form, inbox, conversation, sequence),
        }
        Some(())
    }

    fn text(&self, delivery: &Delivery) -> Option<()> {
        let line = std::str::from_utf8(&delivery.payload).ok()?;
        if line.starts_with('!') {
            let form = if line.starts_with("! refused") {
                "refused"
            } else {
                "gap"
            };
            self.event(form, None, None, None);
            return Some(());
        }
        let (_, text) = line.split_once(": ")?;
        let conversation = self.world.conversations.get(conversation_of(text)?)?;
        let message = Message {
            conversation: &conversation.id,
            sequence: None,
            id: None,
            client_id: None,
            inbox: None,
            sender: None,
            content: text.as_bytes(),
        };
        self.message(&message, delivery);
        Some(())
    }

    /// A refused entry: its content is the payload as it was published.
    fn refusal(&self, inbox: Option<u64>, topic: &str, client_id: &str, payload: &[u8]) {
        let text = if topic.ends_with("/text") {
            Some(String::from_utf8_lossy(payload).into_owned())
        } else if topic.ends_with("/json") {
            let body: Option<Value> = serde_json::from_slice(payload).ok();
            body.and_then(|body| body["content"].as_str().map(str::to_owned))
        } else {
            match chat::SendRequest::decode(payload)
                .ok()
                .and_then(|send| send.content)
            {
                Some(send_request::Content::Text(text)) => Some(text),
                _ => None,
            }
        };
        let hash = text.map(|text| hash(text.as_bytes()));
        self.shared.recorder.write(&Line::Event(Event {
            t: now(),
            session: &self.name,
            user: &self.world.users[self.user].id,
            form: "refused",
            inbox_seq: inbox,
            client_message_id: Some(client_id).filter(|id| !id.is_empty()),
            hash: hash.as_deref(),
            ..Event::default()
        }));
        self.shared.deliver();
    }

    fn event(&self, form: &str, inbox: Option<u64>, conversation: Option<&str>, sequence: Option<u64>) {
        self.shared.recorder.write(&Line::Event(Event {
            t: now(),
            session: &self.name,
            user: &self.world.users[self.user].id,
            form,
            inbox_seq: inbox,
            conversation,
            sequence_number: sequence.filter(|number| *number > 0),
            ..Event::default()
        }));
        self.shared.deliver();
    }
}

struct Message<'a> {
    conversation: &'a str,
    sequence: Option<u64>,
    id: Option<&'a str>,
    client_id: Option<&'a str>,
    inbox: Option<u64>,
    sender: Option<&'a str>,
    content: &'a [u8],
}

/// 16 bytes as the text that REST and JSON use.
fn uuid(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    match hex.len() {
        32 => format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        ),
        _ => hex,
    }
}

impl Script for Chat {
    fn next(&mut self) -> Option<(u64, Outgoing)> {
        let oldest = self.outstanding.keys().next().copied();
        if oldest.is_some_and(|oldest| self.sends - oldest >= SPAN) {
            return None;
        }
        let full = self.outstanding.len() >= self.window;
        let attempt = match self.again.pop_front() {
            Some(attempt) => attempt,
            None if full || self.shared.is_stopped() => return None,
            None => {
                let attempt = self.new_attempt()?;
                self.shared.begin();
                attempt
            }
        };
        self.shared.recorder.write(&Line::Send {
            t: now(),
            id: &attempt.id,
            sender: &self.world.users[self.user].id,
            conversation: &self.world.conversations[attempt.conversation].id,
            client_message_id: attempt.client_message_id.as_deref(),
            door: self.door(),
            hash: &hash(attempt.text.as_bytes()),
        });
        let outgoing = self.outgoing(&attempt);
        self.sends += 1;
        self.outstanding.insert(self.sends, attempt);
        Some((self.sends, outgoing))
    }

    fn acknowledged(&mut self, number: u64, told: &Told) {
        let Some(attempt) = self.outstanding.remove(&number) else {
            return;
        };
        self.shared.recorder.write(&Line::Ack {
            t: now(),
            id: &attempt.id,
            message_id: told.message_id.as_deref(),
            sequence: told.sequence,
        });
        if attempt.counted {
            self.shared.acknowledge();
        }
        let repeat = self.random.random_ratio(1, REPEAT_ONE_IN);
        if repeat && attempt.client_message_id.is_some() && !self.shared.is_stopped() {
            self.retry(Attempt {
                counted: false,
                ..attempt
            });
        }
    }

    fn refused(&mut self, number: u64, code: &str) {
        let Some(attempt) = self.outstanding.remove(&number) else {
            return;
        };
        self.shared.recorder.write(&Line::Fail {
            t: now(),
            id: &attempt.id,
            code,
        });
        match code {
            "unavailable" | "rate_limited" => self.retry(attempt),
            _ if attempt.counted => self.shared.give_up(),
            _ => {}
        }
    }

    fn forgotten(&mut self, number: u64) {
        if let Some(attempt) = self.outstanding.remove(&number) {
            self.shared.recorder.write(&Line::Fail {
                t: now(),
                id: &attempt.id,
                code: "closed",
            });
            self.retry(attempt);
        }
    }

    fn delivered(&mut self, delivery: &Delivery) {
        let understood = match self.encoding {
            Encoding::Plain => self.plain(delivery),
            Encoding::Json => self.json(delivery),
            Encoding::Text => self.text(delivery),
        };
        if understood.is_none() {
            self.shared.problem(format!(
                "{} got what it cannot read on {}",
                self.name, delivery.topic
            ));
        }
    }

    fn subscribed(&mut self, _: u8) {}
}
