//! How a conversation comes to be: asked of everybody it takes in, entered in their lists, stored, then announced.

use godwit_cluster::{Cx, Reply};
use godwit_store::{Op, Table};
use godwit_wire::account::AccountCommand;
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Command, ConversationCommand, Named, UserCommand};
use godwit_wire::ids::{ConversationId, Key, UserId};
use godwit_wire::limits::GROUP_MEMBERS;
use godwit_wire::proto::chat::{self, Role};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::conversation::{Phase, WAITERS};
use crate::role::{Ingest, Step};
use crate::rows::{InfoRow, RowName, put};
use crate::tables::{CONVERSATIONS, OPEN_TAILS, tail_partition};

/// Longest name of a group, bytes.
const GROUP_NAME_BYTES: usize = 128;
/// Longest description of a group, bytes.
const GROUP_DESCRIPTION_BYTES: usize = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// May `by` write to the others?
    Asking,
    /// It goes into everybody's list of conversations.
    Joining,
    /// Its rows are being stored.
    Storing,
    /// Everybody is told.
    Announcing,
}

/// A conversation that is being made.
#[derive(Debug)]
pub(crate) struct Creation {
    stage: Stage,
    by: UserId,
    everybody: Vec<Named>,
    group: bool,
    outstanding: usize,
    refusal: Option<Refusal>,
    /// Who is told how it ends, and whether that call made it.
    waiters: Vec<(UserId, Reply, bool)>,
}

impl Ingest {
    pub(crate) fn open_direct(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        by: Named,
        with: Named,
        reply: Reply,
    ) {
        if by.user == with.user || ConversationId::direct(by.user, with.user) != id {
            let detail = "a one-to-one conversation has two users and the id made of both";
            cx.answer(reply, Refusal::new(Code::Malformed, detail).into());
            return;
        }
        let info = InfoRow {
            created_by: by.user.to_bytes(),
            ..InfoRow::default()
        };
        let user = by.user;
        self.make(cx, id, info, vec![by, with], user, reply);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one command")]
    pub(crate) fn create_group(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        by: Named,
        (name, description): (String, String),
        others: Vec<Named>,
        full_history: bool,
        reply: Reply,
    ) {
        if let Err(refusal) = check_texts(Some(&name), Some(&description)) {
            cx.answer(reply, refusal.into());
            return;
        }
        let mut everybody = vec![by.clone()];
        for other in others {
            if !everybody.iter().any(|one| one.user == other.user) {
                everybody.push(other);
            }
        }
        if everybody.len() > GROUP_MEMBERS {
            cx.answer(reply, too_many_members().into());
            return;
        }
        let mut hash = Sha256::new();
        hash.update(by.user.0.as_bytes());
        for text in [&name, &description] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
        hash.update([u8::from(full_history)]);
        let mut ids: Vec<UserId> = everybody.iter().map(|one| one.user).collect();
        ids.sort_unstable();
        ids.iter().for_each(|user| hash.update(user.0.as_bytes()));
        let info = InfoRow {
            group: true,
            name,
            description,
            created_by: by.user.to_bytes(),
            full_history,
            request_digest: hash.finalize()[..16].to_vec().into(),
            ..InfoRow::default()
        };
        self.make(cx, id, info, everybody, by.user, reply);
    }

    fn make(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        mut info: InfoRow,
        everybody: Vec<Named>,
        by: UserId,
        reply: Reply,
    ) {
        let now = cx.now().unix_ms;
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let same =
            conversation.info.group == info.group && conversation.info.request_digest == info.request_digest;
        if conversation.phase != Phase::Absent && !same {
            let detail = "this id already names another conversation";
            cx.answer(reply, Refusal::new(Code::Conflict, detail).into());
            return;
        }
        // Being made, or there already and being announced.
        if let Some(creation) = self.creations.get_mut(&id) {
            if creation.waiters.len() >= WAITERS {
                cx.answer(reply, Refusal::unavailable().into());
            } else {
                creation.waiters.push((by, reply, false));
            }
            return;
        }
        match conversation.phase {
            Phase::Making => cx.answer(reply, Refusal::unavailable().into()),
            Phase::Ready if conversation.info.announced => {
                self.look(cx, id, ConversationCommand::Get { by }, reply)
            }
            Phase::Ready => self.announce_again(cx, id, Some((by, reply))),
            Phase::Absent if Self::is_full(cx) => cx.answer(reply, Refusal::unavailable().into()),
            Phase::Absent => {
                info.created_at = now;
                conversation.phase = Phase::Making;
                conversation.busy += 1;
                conversation.info = info;
                let asked: Vec<UserId> = everybody
                    .iter()
                    .map(|one| one.user)
                    .filter(|user| *user != by)
                    .collect();
                let group = conversation.info.group;
                let mut creation = Creation::new(by, everybody, group);
                creation.waiters.push((by, reply, true));
                self.creations.insert(id, creation);
                self.ask_all(cx, id, asked, |_| {
                    Command::Account(Box::new(AccountCommand::MayWrite { by }))
                });
            }
        }
    }

    /// It is stored, but somebody may not have heard of it: a crash or a refusal came between.
    pub(crate) fn announce_again(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        asker: Option<(UserId, Reply)>,
    ) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let Some(by) = UserId::from_slice(&conversation.info.created_by) else {
            return;
        };
        let everybody = conversation.members.iter_current().map(|(user, member)| Named {
            user,
            name: member.name.clone(),
        });
        let everybody = everybody.collect();
        conversation.busy += 1;
        let mut creation = Creation::new(by, everybody, conversation.info.group);
        creation
            .waiters
            .extend(asker.map(|(asker, reply)| (asker, reply, false)));
        if !cx.totally_ordered() {
            // Who began to make it may have died with the conversation stored and its place in the list not.
            creation.outstanding = 1;
            let tag = self.step(Step::Making(id));
            cx.store(&Key::Conversation(id), tag, vec![list_in(CONVERSATIONS, id)]);
        }
        self.creations.insert(id, creation);
        self.announce(cx, id);
    }

    /// Asks every one of `users` the same, as the present stage; goes on at once if there is nobody.
    fn ask_all(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        users: Vec<UserId>,
        command: impl Fn(UserId) -> Command,
    ) {
        let Some(creation) = self.creations.get_mut(&id) else {
            return;
        };
        creation.outstanding += users.len();
        if creation.outstanding == 0 {
            self.next_stage(cx, id);
        }
        for user in users {
            let tag = self.step(Step::Making(id));
            cx.ask(tag, Key::User(user), command(user));
        }
    }

    pub(crate) fn making_answered(&mut self, cx: &mut Cx<'_>, id: ConversationId, answer: Answer) {
        let Some(creation) = self.creations.get_mut(&id) else {
            return;
        };
        if let Answer::Refused(refusal) = answer {
            creation.refusal.get_or_insert(refusal);
        }
        creation.outstanding = creation.outstanding.saturating_sub(1);
        if creation.outstanding == 0 {
            self.next_stage(cx, id);
        }
    }

    fn next_stage(&mut self, cx: &mut Cx<'_>, id: ConversationId) {
        let Some(creation) = self.creations.get_mut(&id) else {
            return;
        };
        match creation.stage {
            Stage::Asking | Stage::Joining if creation.refusal.is_some() => self.give_up_making(cx, id),
            Stage::Asking => {
                creation.stage = Stage::Joining;
                let group = creation.group;
                let users = creation.everybody.iter().map(|one| one.user).collect();
                let joined = AccountCommand::Joined {
                    conversation: id,
                    group,
                };
                self.ask_all(cx, id, users, |_| Command::Account(Box::new(joined.clone())));
            }
            Stage::Joining => {
                creation.stage = Stage::Storing;
                self.store_new(cx, id);
            }
            Stage::Storing => {}
            Stage::Announcing => self.finish_making(cx, id),
        }
    }

    fn give_up_making(&mut self, cx: &mut Cx<'_>, id: ConversationId) {
        let Some(creation) = self.creations.remove(&id) else {
            return;
        };
        let refusal = creation.refusal.unwrap_or_else(Refusal::not_found);
        if creation.stage == Stage::Joining {
            for one in &creation.everybody {
                let left = AccountCommand::Left { conversation: id };
                cx.tell(Key::User(one.user), Command::Account(Box::new(left)));
            }
        }
        for (_, reply, _) in creation.waiters {
            cx.answer(reply, refusal.clone().into());
        }
        self.release(id);
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.phase = Phase::Absent;
            conversation.info = InfoRow::default();
            for pending in std::mem::take(&mut conversation.pending) {
                cx.answer(pending.reply, refusal.clone().into());
            }
        }
    }

    fn store_new(&mut self, cx: &mut Cx<'_>, id: ConversationId) {
        let view = cx.view_of(&Key::Conversation(id));
        let Some(creation) = self.creations.get(&id) else {
            return;
        };
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let mut ops = vec![put(
            id,
            view,
            RowName::Info,
            Some(conversation.info.encode_to_vec().into()),
        )];
        for one in &creation.everybody {
            let role = if creation.group && one.user == creation.by {
                Role::Admin
            } else {
                Role::Member
            };
            conversation.members.found(one.clone(), role);
            if let Some(member) = conversation.members.get(one.user) {
                let row = member.to_row().encode_to_vec().into();
                ops.push(put(id, view, RowName::Member(one.user), Some(row)));
            }
        }
        conversation.tail_listed = true;
        conversation.tail_maybe_listed = true;
        ops.extend([OPEN_TAILS, CONVERSATIONS].map(|table| list_in(table, id)));
        let tag = self.step(Step::Making(id));
        cx.store(&Key::Conversation(id), tag, ops);
    }

    /// Its rows are durable.
    pub(crate) fn made(&mut self, cx: &mut Cx<'_>, id: ConversationId) {
        let is_told = |creation: &Creation| creation.stage == Stage::Announcing;
        if self.creations.get(&id).is_some_and(is_told) {
            // Its place in the list of all, while it was announced again.
            return self.making_answered(cx, id, Answer::Done);
        }
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        conversation.phase = Phase::Ready;
        self.announce(cx, id);
        // Behind the announcement, so that everybody hears of the conversation before its first message.
        self.number_pending(cx, id);
    }

    fn announce(&mut self, cx: &mut Cx<'_>, id: ConversationId) {
        let Some(creation) = self.creations.get_mut(&id) else {
            return;
        };
        creation.stage = Stage::Announcing;
        let (by, users) = (
            creation.by,
            creation.everybody.iter().map(|one| one.user).collect(),
        );
        let Some(event) = self.conversation_event(id, by, chat::ConversationOp::Created) else {
            return;
        };
        self.ask_all(cx, id, users, |_| {
            Command::User(UserCommand::Note(Box::new(event.clone())))
        });
    }

    fn finish_making(&mut self, cx: &mut Cx<'_>, id: ConversationId) {
        let view = cx.view_of(&Key::Conversation(id));
        let Some(creation) = self.creations.remove(&id) else {
            return;
        };
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        if creation.refusal.is_none() {
            conversation.info.announced = true;
            let info = conversation.info.encode_to_vec().into();
            // The step under way becomes this write: `busy` stays as it is.
            let tag = self.step(Step::Lazy(id));
            cx.store(
                &Key::Conversation(id),
                tag,
                vec![put(id, view, RowName::Info, Some(info))],
            );
        } else {
            self.release(id);
        }
        for (by, reply, created) in creation.waiters {
            self.look_created(cx, id, by, created, reply);
        }
    }

    /// The event that tells members of a conversation itself.
    pub(crate) fn conversation_event(
        &self,
        id: ConversationId,
        by: UserId,
        op: chat::ConversationOp,
    ) -> Option<chat::InboxEvent> {
        let info = &self.conversations.get(&id)?.info;
        let change = chat::ConversationChange {
            conversation_id: id.to_bytes(),
            op: op as i32,
            by: by.to_bytes(),
            name: info.name.clone(),
            description: info.description.clone(),
            conversation_type: if info.group { "group" } else { "one_on_one" }.into(),
            created_at: info.created_at,
        };
        Some(chat::InboxEvent {
            inbox_seq: 0,
            event: Some(chat::inbox_event::Event::Conversation(change)),
        })
    }
}

impl Creation {
    fn new(by: UserId, everybody: Vec<Named>, group: bool) -> Self {
        Self {
            stage: Stage::Asking,
            by,
            everybody,
            group,
            outstanding: 0,
            refusal: None,
            waiters: Vec::new(),
        }
    }
}

fn list_in(table: Table, id: ConversationId) -> Op {
    Op::Insert {
        table,
        partition: tail_partition(Key::Conversation(id).shard()),
        element: id.to_bytes(),
        value: bytes::Bytes::new(),
    }
}

pub(crate) fn check_texts(name: Option<&str>, description: Option<&str>) -> Result<(), Refusal> {
    if name.is_some_and(|name| name.trim().is_empty()) {
        return Err(Refusal::new(Code::Malformed, "a group has a name"));
    }
    if name.is_some_and(|name| name.len() > GROUP_NAME_BYTES)
        || description.is_some_and(|text| text.len() > GROUP_DESCRIPTION_BYTES)
    {
        return Err(Refusal::new(
            Code::TooLarge,
            "a group's name has at most 128 bytes, its description 1,024",
        ));
    }
    Ok(())
}

pub(crate) fn too_many_members() -> Refusal {
    Refusal::new(Code::Quota, "a group has at most 512 members")
}
