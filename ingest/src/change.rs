//! Changes of a conversation: members and roles (numbered entries), name and description, blocks.

use std::sync::Arc;

use godwit_cluster::{Cx, Reply};
use godwit_wire::account::AccountCommand;
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Command, ConversationCommand, LoggedEntry, Named};
use godwit_wire::entry::RetryKeys;
use godwit_wire::ids::{ConversationId, Key, UserId};
use godwit_wire::limits::GROUP_MEMBERS;
use godwit_wire::proto::chat::{self, MemberOp, Role};
use prost::Message;

use crate::announce::Announcing;
use crate::conversation::{Conversation, IN_FLIGHT, Phase, Waiter};
use crate::create::{check_texts, too_many_members};
use crate::members::{MEMBERS_EVER, Membership, STAYS};
use crate::recover::apply_member;
use crate::role::{Ingest, Step};
use crate::rows::{RowName, put};
use crate::words;

/// What a membership command comes to, judged against the present members.
enum Verdict {
    /// Nothing to do: it is so already.
    Already,
    /// These entries, in order.
    Entries(Vec<(Named, MemberOp, Role)>),
}

impl Ingest {
    pub(crate) fn change_membership(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        command: ConversationCommand,
        reply: Reply,
    ) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        if Self::is_full(cx) || conversation.flight.len() >= IN_FLIGHT {
            cx.answer(reply, Refusal::unavailable().into());
            return;
        }
        match judge(conversation, &command) {
            Err(refusal) => cx.answer(reply, refusal.into()),
            Ok(Verdict::Already) => self.answer_already(cx, id, reply),
            Ok(Verdict::Entries(entries)) => {
                if let ConversationCommand::AddMember { by, user } = &command {
                    // Who is taken in has a say: a block keeps one out of groups too.
                    let question = AccountCommand::MayWrite { by: *by };
                    let key = Key::User(user.user);
                    conversation.busy += 1;
                    let tag = self.step(Step::Ask(id, reply, Box::new(command)));
                    cx.ask(tag, key, Command::Account(Box::new(question)));
                } else {
                    self.append_changes(cx, id, &command, entries, reply);
                }
            }
        }
    }

    /// Who is to be taken in was asked.
    pub(crate) fn asked(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        reply: Reply,
        command: ConversationCommand,
        answer: Answer,
    ) {
        let (Answer::Done, ConversationCommand::AddMember { user, .. }) = (&answer, &command) else {
            self.release(id);
            cx.answer(reply, refusal_in(answer).into());
            return;
        };
        // The list of conversations has a limit, so it is entered there before anybody hears of it.
        let key = Key::User(user.user);
        let tag = self.step(Step::Join(id, reply, Box::new(command)));
        cx.ask(tag, key, words::joined(id));
    }

    /// It is in the list of who is to be taken in.
    pub(crate) fn joined(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        reply: Reply,
        command: &ConversationCommand,
        answer: Answer,
    ) {
        self.release(id);
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        if !matches!(answer, Answer::Done) {
            cx.answer(reply, refusal_in(answer).into());
            return;
        }
        // Much may have changed meanwhile: judged anew.
        match judge(conversation, command) {
            Err(refusal) => {
                if let ConversationCommand::AddMember { user, .. } = command
                    && conversation.members.current(user.user).is_none()
                {
                    cx.tell(Key::User(user.user), words::left(id));
                }
                cx.answer(reply, refusal.into());
            }
            Ok(Verdict::Already) => self.answer_already(cx, id, reply),
            Ok(Verdict::Entries(entries)) => self.append_changes(cx, id, command, entries, reply),
        }
    }

    /// It is so already, but what made it so may be on its way still: answered behind that.
    fn answer_already(&mut self, cx: &mut Cx<'_>, id: ConversationId, reply: Reply) {
        let head = self.conversations.get(&id).map_or(0, |c| c.head);
        if let Some(waiter) = self.wait_for(cx, id, head, Waiter::Change(reply)) {
            Self::answer_waiter(cx, waiter);
        }
    }

    fn append_changes(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        command: &ConversationCommand,
        entries: Vec<(Named, MemberOp, Role)>,
        reply: Reply,
    ) {
        let (ConversationCommand::AddMember { by, .. }
        | ConversationCommand::RemoveMember { by, .. }
        | ConversationCommand::SetRole { by, .. }) = command
        else {
            return;
        };
        let last = entries.len();
        let mut reply = Some(reply);
        for (number, (user, op, role)) in entries.into_iter().enumerate() {
            let waiting = if number + 1 == last { reply.take() } else { None };
            self.append_member(
                cx,
                id,
                *by,
                &user,
                op,
                role,
                waiting.unwrap_or_else(Reply::nobody),
            );
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one entry")]
    fn append_member(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        by: UserId,
        user: &Named,
        op: MemberOp,
        role: Role,
        reply: Reply,
    ) {
        let (view, now) = (cx.view_of(&Key::Conversation(id)), cx.now().unix_ms);
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let position = conversation.head + 1;
        let change = chat::Member {
            conversation_id: id.to_bytes(),
            sequence_number: position,
            user_id: user.user.to_bytes(),
            by: by.to_bytes(),
            op: op as i32,
            role: role as i32,
            created_at: now.max(conversation.last_created_at),
        };
        let Ok(entry) = LoggedEntry::member(change.clone()) else {
            // Cannot be: both ids were made from ids.
            cx.answer(reply, Refusal::not_found().into());
            return;
        };
        apply_member(conversation, position, &change, Some(&user.name));
        let mut ops = Vec::new();
        if let Some(member) = conversation.members.get(user.user) {
            ops.push(put(
                id,
                view,
                RowName::Member(user.user),
                Some(member.to_row().encode_to_vec().into()),
            ));
        }
        let row = entry.to_stored(&RetryKeys {
            member_name: Some(user.name.clone()),
            ..RetryKeys::default()
        });
        self.append(cx, id, Arc::new(entry), row, ops, Waiter::Change(reply));
    }

    pub(crate) fn change(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        by: UserId,
        (name, description): (Option<String>, Option<String>),
        reply: Reply,
    ) {
        let view = cx.view_of(&Key::Conversation(id));
        let Some(reply) = self.refuse_if_full(cx, reply) else {
            return;
        };
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let refusal = admin_of_group(conversation, by)
            .and(check_texts(name.as_deref(), description.as_deref()))
            .err();
        if let Some(refusal) = refusal {
            cx.answer(reply, refusal.into());
            return;
        }
        let info = &mut conversation.info;
        info.name = name.unwrap_or_else(|| std::mem::take(&mut info.name));
        info.description = description.unwrap_or_else(|| std::mem::take(&mut info.description));
        let row = info.encode_to_vec().into();
        let members: Vec<UserId> = conversation
            .members
            .iter_current()
            .map(|(user, _)| user)
            .collect();
        let Some(answer) = self.info(id, None, false) else {
            return;
        };
        let Some(event) = self.conversation_event(id, by, chat::ConversationOp::Changed) else {
            cx.answer(reply, Refusal::unavailable().into());
            return;
        };
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.busy += 1;
        }
        let change = Box::new(Announcing::new(reply, answer, Box::new(event), members));
        let tag = self.step(Step::Changed(id, change));
        cx.store(
            &Key::Conversation(id),
            tag,
            vec![put(id, view, RowName::Info, Some(row))],
        );
    }

    pub(crate) fn block(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        by: UserId,
        user: UserId,
        blocked: bool,
        reply: Reply,
    ) {
        let view = cx.view_of(&Key::Conversation(id));
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let is_theirs = ConversationId::direct(by, user) == id;
        let stands = conversation.phase == Phase::Absent && !conversation.blocked_by.contains(&by);
        if stands || conversation.info.group || !is_theirs {
            // There is no conversation that the block could end; the accounts keep a later one from being made. One that is
            // being made may have asked them before.
            cx.answer(reply, Answer::Done);
            return;
        }
        let settled = conversation.busy == 0;
        let changed = if blocked {
            conversation.blocked_by.insert(by)
        } else {
            conversation.blocked_by.remove(&by)
        };
        if changed || !settled {
            let value = blocked.then(bytes::Bytes::new);
            self.write_then(
                cx,
                id,
                vec![put(id, view, RowName::BlockedBy(by), value)],
                reply,
                Answer::Done,
            );
        } else {
            cx.answer(reply, Answer::Done);
        }
    }
}

/// Who asks must be in (else there is no such thing), and admin of a group.
fn admin_of_group(conversation: &Conversation, by: UserId) -> Result<(), Refusal> {
    let member = conversation
        .members
        .current(by)
        .filter(|_| conversation.phase == Phase::Ready);
    let Some(member) = member else {
        return Err(Refusal::not_found());
    };
    if !conversation.info.group {
        return Err(Refusal::new(
            Code::Forbidden,
            "a one-to-one conversation has no admins and stays as it is",
        ));
    }
    if member.role != Role::Admin {
        return Err(Refusal::new(
            Code::Forbidden,
            "only an admin of the group may do this",
        ));
    }
    Ok(())
}

fn refusal_in(answer: Answer) -> Refusal {
    match answer {
        Answer::Refused(refusal) => refusal,
        _ => Refusal::unavailable(),
    }
}

fn judge(conversation: &Conversation, command: &ConversationCommand) -> Result<Verdict, Refusal> {
    use ConversationCommand as C;
    let members = &conversation.members;
    let named = |user: UserId| {
        members
            .current(user)
            .map(|member| Named {
                user,
                name: member.name.clone(),
            })
            .ok_or_else(Refusal::not_found)
    };
    match command {
        C::AddMember { by, user } => {
            admin_of_group(conversation, *by)?;
            if members.current(user.user).is_some() {
                return Ok(Verdict::Already);
            }
            if members.count() >= GROUP_MEMBERS {
                return Err(too_many_members());
            }
            let was_in = members.get(user.user);
            if was_in.map_or(0, Membership::stays) >= STAYS
                || (was_in.is_none() && members.count_ever() >= MEMBERS_EVER)
            {
                let detail = "too many have come to this group and gone again";
                return Err(Refusal::new(Code::Quota, detail));
            }
            Ok(Verdict::Entries(vec![(
                user.clone(),
                MemberOp::Added,
                Role::Member,
            )]))
        }
        C::RemoveMember { by, user } if by == user => {
            if conversation.phase != Phase::Ready {
                return Err(Refusal::not_found());
            }
            let leaver = named(*user)?;
            if !conversation.info.group {
                return Err(Refusal::new(
                    Code::Forbidden,
                    "nobody leaves a one-to-one conversation; block instead",
                ));
            }
            let mut entries = Vec::new();
            // First, because a crash may come between the two: a group must not be left without an admin.
            if let Some(heir) = members.oldest_but(*user).filter(|_| members.is_last_admin(*user)) {
                entries.push((named(heir)?, MemberOp::Role, Role::Admin));
            }
            entries.push((leaver, MemberOp::Left, Role::Member));
            Ok(Verdict::Entries(entries))
        }
        C::RemoveMember { by, user } => {
            admin_of_group(conversation, *by)?;
            Ok(Verdict::Entries(vec![(
                named(*user)?,
                MemberOp::Removed,
                Role::Member,
            )]))
        }
        C::SetRole { by, user, role } => {
            admin_of_group(conversation, *by)?;
            let target = named(*user)?;
            if members.current(*user).is_some_and(|member| member.role == *role) {
                return Ok(Verdict::Already);
            }
            if *role != Role::Admin && members.is_last_admin(*user) {
                return Err(Refusal::new(Code::Conflict, "a group keeps at least one admin"));
            }
            Ok(Verdict::Entries(vec![(target, MemberOp::Role, *role)]))
        }
        _ => Err(Refusal::not_found()),
    }
}
