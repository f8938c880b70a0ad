//! A recorded run in memory, lean enough for millions of records: names as numbers, ids and contents as 64-bit
//! hashes, each fact with the line it came from. Reading and joining is here, judging is in `rules`.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::BadInput;
use crate::record::{Record, Send as SendRecord};

/// A hash of an id or a content; 0 stands for "absent". At ten million ids the chance that any two meet is 3 in
/// a million.
pub(crate) type Key = u64;

/// The hash of a string, never 0.
pub(crate) fn key(text: &str) -> Key {
    BuildHasherDefault::<DefaultHasher>::default()
        .hash_one(text)
        .max(1)
}

fn key_or_0(text: Option<&str>) -> Key {
    text.map_or(0, key)
}

/// A line of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) file: u16,
    pub(crate) line: u32,
}

/// Strings that repeat much, as numbers.
#[derive(Debug, Default)]
pub(crate) struct Names {
    numbers: HashMap<Box<str>, u32>,
    texts: Vec<Box<str>>,
}

impl Names {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.into());
        self.numbers.insert(text.into(), number);
        number
    }

    pub(crate) fn text(&self, number: u32) -> &str {
        self.texts.get(number as usize).map_or("?", |text| text)
    }
}

/// How an attempt ended as far as its client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Unknown,
    Acked,
    Refused,
}

#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) t: u64,
    /// When it was acknowledged or refused; `u64::MAX` if never.
    pub(crate) answered: u64,
    pub(crate) sender: u32,
    pub(crate) conversation: u32,
    pub(crate) client_id: Key,
    pub(crate) hash: Key,
    pub(crate) outcome: Outcome,
    pub(crate) at: At,
}

#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) attempt: u32,
    pub(crate) message: Key,
    /// 0 if the door did not tell.
    pub(crate) seq: u32,
    pub(crate) at: At,
}

/// A message, or another event with `message` 0 and `hash` 0, in an inbox.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) t: u64,
    pub(crate) message: Key,
    pub(crate) hash: Key,
    pub(crate) client_id: Key,
    pub(crate) session: u32,
    pub(crate) conversation: u32,
    /// 0 if the form does not tell.
    pub(crate) seq: u32,
    /// 0 if the form does not tell.
    pub(crate) inbox: u32,
    /// `NOBODY` if the form does not tell.
    pub(crate) sender: u32,
    pub(crate) at: At,
}

/// In place of a user's number.
pub(crate) const NOBODY: u32 = u32::MAX;

/// A place in a mailbox taken by something that is no message.
#[derive(Debug)]
pub(crate) struct Other {
    pub(crate) session: u32,
    pub(crate) inbox: u32,
    /// Of type, conversation and number together.
    pub(crate) identity: Key,
    pub(crate) at: At,
}

#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) seq: u32,
    pub(crate) is_message: bool,
    pub(crate) acked: bool,
    pub(crate) sender: u32,
    pub(crate) message: Key,
    pub(crate) client_id: Key,
    pub(crate) hash: Key,
    pub(crate) at: At,
}

#[derive(Debug, Default)]
pub(crate) struct Conversation {
    /// In the order in which they were listed.
    pub(crate) history: Vec<Stored>,
    pub(crate) read: bool,
    pub(crate) members: Vec<Interval>,
}

#[derive(Debug)]
pub(crate) struct Interval {
    pub(crate) user: u32,
    pub(crate) joined: u32,
    pub(crate) left: u32,
}

impl Interval {
    pub(crate) fn covers(&self, seq: u32) -> bool {
        self.joined < seq && seq <= self.left
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Drained {
    pub(crate) from: u32,
    pub(crate) no_local: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) user: Option<u32>,
    pub(crate) drained: Option<Drained>,
    pub(crate) connects: Vec<u64>,
    /// Conversations of which it was told that entries are missing; `None` stands for any.
    pub(crate) gaps: Vec<Option<u32>>,
    pub(crate) subscriptions: Vec<Subscription>,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) t: u64,
    pub(crate) filter: u32,
    pub(crate) qos: u8,
}

#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) t: u64,
    pub(crate) publisher: u32,
    pub(crate) topic: u32,
    pub(crate) qos: u8,
    pub(crate) acked: bool,
    pub(crate) at: At,
}

#[derive(Debug)]
pub(crate) struct TopicDelivery {
    pub(crate) t: u64,
    pub(crate) session: u32,
    /// Index of the publish, or `None` if nobody published this id.
    pub(crate) publish: Option<u32>,
    pub(crate) topic: u32,
    pub(crate) at: At,
}

/// All that was recorded.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) names: Names,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) acks: Vec<Ack>,
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) others: Vec<Other>,
    /// (sender, client id or else content) of sends answered by a `refused` event.
    pub(crate) refused_events: std::collections::HashSet<(u32, Key)>,
    pub(crate) conversations: HashMap<u32, Conversation>,
    pub(crate) sessions: HashMap<u32, Session>,
    pub(crate) kills: Vec<u64>,
    pub(crate) publishes: Vec<Publish>,
    pub(crate) topic_deliveries: Vec<TopicDelivery>,
    pub(crate) records: u64,
    pub(crate) dup_flags: u64,
    pub(crate) by_door: std::collections::BTreeMap<String, u64>,
}

/// What can be joined only when all files are read.
#[derive(Default)]
struct Loose {
    acks: Vec<(Key, Key, u32, u64, At)>,
    fails: Vec<(Key, bool, u64, At)>,
    attempts: HashMap<Key, u32>,
    publishes: HashMap<Key, u32>,
    topic_acks: Vec<(Key, At)>,
    topic_ids: Vec<Key>,
}

impl Run {
    /// Reads every `*.jsonl` in the folder, in the order of their names.
    pub(crate) fn read(folder: &Path) -> Result<Self, BadInput> {
        let io = |error| BadInput::Io {
            path: folder.to_owned(),
            error,
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                files.push(path);
            }
        }
        files.sort();
        if files.len() > usize::from(u16::MAX) {
            return Err(BadInput::Incomplete(vec![format!(
                "more than {} files",
                u16::MAX
            )]));
        }
        let mut run = Run {
            files,
            ..Run::default()
        };
        let mut loose = Loose::default();
        for file in 0..run.files.len() {
            run.read_file(file as u16, &mut loose)?;
        }
        run.join(loose)?;
        run.kills.sort_unstable();
        run.sessions
            .values_mut()
            .for_each(|session| session.connects.sort_unstable());
        Ok(run)
    }

    fn read_file(&mut self, file: u16, loose: &mut Loose) -> Result<(), BadInput> {
        let path = self.files[usize::from(file)].clone();
        let io = |error| BadInput::Io {
            path: path.clone(),
            error,
        };
        let mut reader = BufReader::with_capacity(1 << 20, File::open(&path).map_err(io)?);
        let mut text = String::new();
        for line in 1.. {
            text.clear();
            if reader.read_line(&mut text).map_err(io)? == 0 {
                break;
            }
            if text.trim().is_empty() {
                continue;
            }
            let at = At { file, line };
            let record = serde_json::from_str(&text).map_err(|e| self.bad(at, e.to_string()))?;
            self.take(record, at, loose)?;
            self.records += 1;
        }
        Ok(())
    }

    /// The place of a record, for people.
    pub(crate) fn place(&self, at: At) -> String {
        let file = self
            .files
            .get(usize::from(at.file))
            .and_then(|path| path.file_name());
        format!(
            "{}:{}",
            file.map_or("?".into(), |name| name.to_string_lossy()),
            at.line
        )
    }

    fn bad(&self, at: At, why: String) -> BadInput {
        BadInput::Record {
            place: self.place(at),
            why,
        }
    }

    fn session(&mut self, name: &str, user: Option<&str>, at: At) -> Result<u32, BadInput> {
        let number = self.names.number(name);
        if let Some(user) = user {
            let user = self.names.number(user);
            let session = self.sessions.entry(number).or_default();
            if session.user.is_some_and(|known| known != user) {
                return Err(self.bad(at, format!("session {name} belongs to two users")));
            }
            session.user = Some(user);
        } else {
            self.sessions.entry(number).or_default();
        }
        Ok(number)
    }

    fn take(&mut self, record: Record<'_>, at: At, loose: &mut Loose) -> Result<(), BadInput> {
        match record {
            Record::Send(send) => self.take_send(&send, at, loose)?,
            Record::Ack(ack) => loose.acks.push((
                key(&ack.id),
                key_or_0(ack.message_id.as_deref()),
                ack.sequence.unwrap_or(0),
                ack.t,
                at,
            )),
            Record::Fail(fail) => {
                let known = !matches!(&*fail.code, "unavailable" | "timeout" | "closed");
                loose.fails.push((key(&fail.id), known, fail.t, at));
            }
            Record::Recv(recv) => {
                let session = self.session(&recv.session, Some(&recv.user), at)?;
                self.dup_flags += u64::from(recv.dup);
                let delivery = Delivery {
                    t: recv.t,
                    message: key_or_0(recv.message_id.as_deref()),
                    hash: key(&recv.hash),
                    client_id: key_or_0(recv.client_message_id.as_deref()),
                    session,
                    conversation: self.names.number(&recv.conversation),
                    seq: recv.sequence_number.unwrap_or(0),
                    inbox: recv.inbox_seq.unwrap_or(0),
                    sender: recv.sender.map_or(NOBODY, |sender| self.names.number(&sender)),
                    at,
                };
                self.deliveries.push(delivery);
            }
            Record::Event(event) => {
                let session = self.session(&event.session, Some(&event.user), at)?;
                let conversation = event.conversation.as_deref().map(|name| self.names.number(name));
                if event.form == "gap" {
                    self.sessions.entry(session).or_default().gaps.push(conversation);
                }
                if event.form == "refused" {
                    let sender = self.names.number(&event.user);
                    for id in [&event.client_message_id, &event.hash].into_iter().flatten() {
                        self.refused_events.insert((sender, key(id)));
                    }
                }
                if let Some(inbox) = event.inbox_seq {
                    let identity = key(&format!(
                        "{} {conversation:?} {:?}",
                        event.form, event.sequence_number
                    ));
                    self.others.push(Other {
                        session,
                        inbox,
                        identity,
                        at,
                    });
                }
            }
            Record::History(history) => {
                let number = self.names.number(&history.conversation);
                let conversation = self.conversations.entry(number).or_default();
                conversation.read = true;
                for entry in history.entries {
                    conversation.history.push(Stored {
                        seq: entry.seq,
                        is_message: entry.form.is_none_or(|form| form == "message"),
                        acked: false,
                        sender: entry.sender.map_or(NOBODY, |sender| self.names.number(&sender)),
                        message: key_or_0(entry.message_id.as_deref()),
                        client_id: key_or_0(entry.client_message_id.as_deref()),
                        hash: key_or_0(entry.hash.as_deref()),
                        at,
                    });
                }
            }
            Record::Members(members) => {
                let number = self.names.number(&members.conversation);
                let user = self.names.number(&members.user);
                let left = members.left.unwrap_or(u32::MAX);
                let interval = Interval {
                    user,
                    joined: members.joined,
                    left,
                };
                self.conversations
                    .entry(number)
                    .or_default()
                    .members
                    .push(interval);
            }
            Record::Kill { t } => self.kills.push(t),
            Record::Connect { t, session } => {
                let session = self.session(&session, None, at)?;
                self.sessions.entry(session).or_default().connects.push(t);
            }
            Record::End(end) => {
                let session = self.session(&end.session, end.user.as_deref(), at)?;
                self.sessions.entry(session).or_default().drained = Some(Drained {
                    from: end.from,
                    no_local: end.no_local,
                });
            }
            Record::TopicSub(sub) => {
                let session = self.session(&sub.session, None, at)?;
                let filter = self.names.number(&sub.filter);
                let subscription = Subscription {
                    t: sub.t,
                    filter,
                    qos: sub.qos,
                };
                self.sessions
                    .entry(session)
                    .or_default()
                    .subscriptions
                    .push(subscription);
            }
            Record::TopicPub(publish) => {
                let index = self.publishes.len() as u32;
                if loose.publishes.insert(key(&publish.id), index).is_some() {
                    return Err(self.bad(at, format!("publish {} is recorded twice", publish.id)));
                }
                let (publisher, topic) = (
                    self.names.number(&publish.publisher),
                    self.names.number(&publish.topic),
                );
                self.publishes.push(Publish {
                    t: publish.t,
                    publisher,
                    topic,
                    qos: publish.qos,
                    acked: false,
                    at,
                });
            }
            Record::TopicAck { id, .. } => loose.topic_acks.push((key(&id), at)),
            Record::TopicRecv(recv) => {
                let session = self.session(&recv.session, None, at)?;
                self.dup_flags += u64::from(recv.dup);
                let topic = self.names.number(&recv.topic);
                loose.topic_ids.push(key(&recv.id));
                self.topic_deliveries.push(TopicDelivery {
                    t: recv.t,
                    session,
                    publish: None,
                    topic,
                    at,
                });
            }
        }
        Ok(())
    }

    fn take_send(&mut self, send: &SendRecord<'_>, at: At, loose: &mut Loose) -> Result<(), BadInput> {
        let index = self.attempts.len() as u32;
        if loose.attempts.insert(key(&send.id), index).is_some() {
            return Err(self.bad(at, format!("attempt {} is recorded twice", send.id)));
        }
        match self.by_door.get_mut(&*send.door) {
            Some(count) => *count += 1,
            None => {
                self.by_door.insert(send.door.to_string(), 1);
            }
        }
        let (sender, conversation) = (
            self.names.number(&send.sender),
            self.names.number(&send.conversation),
        );
        self.attempts.push(Attempt {
            t: send.t,
            answered: u64::MAX,
            sender,
            conversation,
            client_id: key_or_0(send.client_message_id.as_deref()),
            hash: key(&send.hash),
            outcome: Outcome::Unknown,
            at,
        });
        Ok(())
    }

    fn join(&mut self, loose: Loose) -> Result<(), BadInput> {
        for (id, message, seq, t, at) in loose.acks {
            let Some(&attempt) = loose.attempts.get(&id) else {
                return Err(self.bad(at, "an ack for an attempt that nobody recorded".to_owned()));
            };
            let sent = &mut self.attempts[attempt as usize];
            sent.outcome = Outcome::Acked;
            sent.answered = sent.answered.min(t);
            self.acks.push(Ack {
                attempt,
                message,
                seq,
                at,
            });
        }
        for (id, known, t, at) in loose.fails {
            let Some(&attempt) = loose.attempts.get(&id) else {
                return Err(self.bad(at, "a fail for an attempt that nobody recorded".to_owned()));
            };
            let sent = &mut self.attempts[attempt as usize];
            if known && sent.outcome == Outcome::Unknown {
                sent.outcome = Outcome::Refused;
                sent.answered = sent.answered.min(t);
            }
        }
        for (id, at) in loose.topic_acks {
            match loose.publishes.get(&id) {
                Some(&index) => self.publishes[index as usize].acked = true,
                None => return Err(self.bad(at, "a topic_ack for a publish that nobody recorded".to_owned())),
            }
        }
        for (delivery, id) in self.topic_deliveries.iter_mut().zip(loose.topic_ids) {
            delivery.publish = loose.publishes.get(&id).copied();
        }
        Ok(())
    }
}
