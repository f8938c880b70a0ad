//! Naive homes of topics and conversations, as the rig's users see them: right, slow and in one piece.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use godwit_cluster::Reply;
use godwit_wire::command::{
    Answer, LoggedEntry, Send, SendIdentity, Sent as Stored, Target, TopicCommand, UserCommand,
};
use godwit_wire::entry::RetryKeys;
use godwit_wire::ids::{ConversationId, MessageId, UserId};
use godwit_wire::proto::chat;
use godwit_wire::topic;
use tokio::sync::oneshot::Receiver;

use super::rig::Rig;

/// A naive conversation: its entries and members.
#[derive(Default)]
pub(super) struct Conversation {
    members: Vec<UserId>,
    entries: Vec<(SendIdentity, Stored, Arc<LoggedEntry>)>,
    /// Taken up by a new start: everything is offered again before anything new.
    pub(super) stale: bool,
}

pub(super) enum Waiting {
    Published(Reply, Vec<Receiver<Answer>>),
    Sent(Reply, Stored, Vec<Receiver<Answer>>),
}

impl Rig {
    pub(super) fn topic(&mut self, command: TopicCommand, reply: Reply) {
        match command {
            TopicCommand::Subscribe { route, retained } => {
                self.routes
                    .retain(|old| (old.session, &old.filter) != (route.session, &route.filter));
                let matching = self
                    .retained
                    .iter()
                    .filter(|(name, _)| retained && topic::matches(&route.filter, name));
                let found = matching.map(|(_, publish)| publish.clone()).collect();
                self.routes.push(route);
                self.answer(reply, Answer::Retained(found));
            }
            TopicCommand::Unsubscribe { route } => {
                self.routes.retain(|old| {
                    (old.session, &old.filter, old.route_id) != (route.session, &route.filter, route.route_id)
                });
                self.answer(reply, Answer::Done);
            }
            TopicCommand::Prune {
                session,
                topic,
                keep,
                before,
            } => {
                self.routes.retain(|old| {
                    old.session != session
                        || !topic::matches(&old.filter, &topic)
                        || old.route_id >= before
                        || keep.contains(&old.route_id)
                });
                self.answer(reply, Answer::Done);
            }
            TopicCommand::Share { .. } | TopicCommand::Member { .. } => panic!("it knows no groups"),
            TopicCommand::View { .. }
            | TopicCommand::Announce { .. }
            | TopicCommand::Interest { .. }
            | TopicCommand::List { .. }
            | TopicCommand::Copy { .. } => panic!("no user's home asks for that"),
            TopicCommand::Retained { .. } => self.answer(reply, Answer::Retained(Vec::new())),
            TopicCommand::Publish(publish, _) => {
                self.published.push(publish.clone());
                if publish.retain {
                    self.retained.insert(publish.topic.to_string(), publish.clone());
                }
                let mut by_user: BTreeMap<UserId, Vec<Target>> = BTreeMap::new();
                for route in self
                    .routes
                    .iter()
                    .filter(|route| topic::matches(&route.filter, &publish.topic))
                {
                    if route.no_local && publish.from == Some(route.session) {
                        continue;
                    }
                    let targets = by_user.entry(route.user).or_default();
                    match targets.iter_mut().find(|target| target.session == route.session) {
                        Some(target) => target.qos = target.qos.max(route.qos),
                        None => targets.push(Target {
                            session: route.session,
                            qos: route.qos,
                            retain_as_published: route.retain_as_published,
                            subscription_ids: route.subscription_id.into_iter().collect(),
                        }),
                    }
                }
                let deliver = |(user, targets)| {
                    let publish = publish.clone();
                    let late = 0;
                    self.ask_user(
                        user,
                        UserCommand::Deliver {
                            publish,
                            targets,
                            late,
                        },
                    )
                };
                let answers = by_user.into_iter().map(deliver).collect();
                self.waiting.push(Waiting::Published(reply, answers));
            }
        }
    }

    pub(super) fn send(&mut self, id: ConversationId, send: Send, reply: Reply) {
        if let Some(refusal) = self.refuse_sends.clone() {
            self.answer(reply, Answer::Refused(refusal));
            return;
        }
        let now = self.harness.now().unix_ms;
        let store = self.store.clone();
        let conversation = self.conversations.entry(id).or_default();
        let repeat = std::mem::take(&mut conversation.stale);
        let mut offers: Vec<Arc<LoggedEntry>> = Vec::new();
        if repeat {
            offers.extend(conversation.entries.iter().map(|(_, _, entry)| entry.clone()));
        }
        let known = conversation
            .entries
            .iter()
            .find(|(identity, ..)| *identity == send.identity);
        if let Some((_, stored, entry)) = known {
            let stored = Stored {
                duplicate: true,
                ..*stored
            };
            if !repeat {
                offers.push(entry.clone());
            }
            self.offer(id, offers, stored, reply);
            return;
        }
        let sequence_number = conversation.entries.len() as u64 + 1;
        let message_id = MessageId::fresh();
        let stored = Stored {
            message_id,
            sequence_number,
            created_at: now,
            duplicate: false,
        };
        let chat::send_request::Content::Text(text) = send.content else {
            panic!("texts only")
        };
        let entry = LoggedEntry::message(chat::Message {
            conversation_id: id.to_bytes(),
            sequence_number,
            message_id: message_id.to_bytes(),
            sender_id: send.sender.user.to_bytes(),
            sender_name: send.sender.name.to_string(),
            content_type: chat::ContentType::Text as i32,
            content: Some(chat::message::Content::Text(text)),
            created_at: now,
            ..chat::Message::default()
        });
        let entry = Arc::new(entry.unwrap());
        store.put_log_row(300, id.0, sequence_number, entry.to_stored(&RetryKeys::default()));
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.entries.push((send.identity, stored, entry.clone()));
        }
        offers.push(entry);
        self.offer(id, offers, stored, reply);
    }

    fn offer(&mut self, id: ConversationId, entries: Vec<Arc<LoggedEntry>>, stored: Stored, reply: Reply) {
        let members = self
            .conversations
            .get(&id)
            .map(|found| found.members.clone())
            .unwrap_or_default();
        let mut answers = Vec::new();
        for entry in entries {
            for member in &members {
                let after = entry.sequence_number - 1;
                answers.push(self.ask_user(
                    *member,
                    UserCommand::Offer {
                        entry: entry.clone(),
                        after,
                    },
                ));
            }
        }
        self.waiting.push(Waiting::Sent(reply, stored, answers));
    }

    pub(super) fn answer_waiting(&mut self) -> bool {
        let mut busy = false;
        for waiting in std::mem::take(&mut self.waiting) {
            let (Waiting::Published(reply, answers) | Waiting::Sent(reply, _, answers)) = &waiting;
            let _ = reply;
            let ready = answers.iter().all(|answer| !answer.is_empty());
            if !ready {
                self.waiting.push(waiting);
                continue;
            }
            busy = true;
            match waiting {
                Waiting::Published(reply, mut answers) => {
                    let (matched, routes) = (!answers.is_empty(), self.routes_of_a_publish);
                    let mut gone = HashSet::new();
                    let mut refused = None;
                    for answer in &mut answers {
                        match answer.try_recv().unwrap() {
                            Answer::Kept { gone: some } => gone.extend(some),
                            Answer::Refused(refusal) => refused = Some(refusal),
                            other => panic!("{other:?} to a delivery"),
                        }
                    }
                    self.routes.retain(|route| !gone.contains(&route.session));
                    self.answer(
                        reply,
                        refused.map_or(Answer::Published { matched, routes }, Answer::Refused),
                    );
                }
                Waiting::Sent(reply, stored, mut answers) => {
                    for answer in &mut answers {
                        assert!(matches!(answer.try_recv().unwrap(), Answer::Kept { .. }));
                    }
                    self.answer(reply, Answer::Sent(stored));
                }
            }
        }
        busy
    }

    pub(super) fn make_conversation(&mut self, members: &[UserId]) -> ConversationId {
        let id = ConversationId::fresh();
        let made = Conversation {
            members: members.to_vec(),
            ..Conversation::default()
        };
        self.conversations.insert(id, made);
        id
    }

    /// A conversation under an id of the caller's.
    pub(super) fn make_conversation_as(&mut self, id: ConversationId, members: &[UserId]) {
        let made = Conversation {
            members: members.to_vec(),
            ..Conversation::default()
        };
        self.conversations.insert(id, made);
    }

    pub(super) fn entries(&self, id: ConversationId) -> usize {
        self.conversations
            .get(&id)
            .map_or(0, |conversation| conversation.entries.len())
    }
}
