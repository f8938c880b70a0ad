//! Reading a run: files into facts, then the joins that need all of them. Refuses what contradicts itself; judges
//! nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::BadInput;
use crate::record::{Record, Send as SendRecord};
use crate::run::{
    Ack, At, Attempt, Delivery, Drained, Interval, Key, NOBODY, Other, Outcome, Publish, Run, Stored,
    Subscription, TopicDelivery, key, key_or_0,
};

/// What can be joined only when all files are read.
#[derive(Default)]
struct Loose {
    acks: Vec<(Key, Key, u32, u64, At)>,
    fails: Vec<(Key, bool, u64, At)>,
    attempts: HashMap<Key, u32>,
    publishes: HashMap<Key, u32>,
    topic_acks: Vec<(Key, u64, At)>,
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
                    answered: u64::MAX,
                    at,
                });
            }
            Record::TopicAck { id, t } => loose.topic_acks.push((key(&id), t, at)),
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
        for (id, t, at) in loose.topic_acks {
            match loose.publishes.get(&id) {
                Some(&index) => {
                    let publish = &mut self.publishes[index as usize];
                    publish.acked = true;
                    publish.answered = publish.answered.min(t);
                }
                None => return Err(self.bad(at, "a topic_ack for a publish that nobody recorded".to_owned())),
            }
        }
        for (delivery, id) in self.topic_deliveries.iter_mut().zip(loose.topic_ids) {
            delivery.publish = loose.publishes.get(&id).copied();
        }
        Ok(())
    }
}
