//! Contacts and blocks. The other user's home is told first and its row is durable before this user's: a crash in
//! between leaves a request that the same call completes. Who is blocked is never told.

use godwit_cluster::{Cx, Reply};
use godwit_wire::account::{AccountAnswer, AccountCommand, Contact, ContactChange};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Command, ConversationCommand, Named};
use godwit_wire::ids::{ConversationId, Key, UserId};

use crate::config::{CONTACTS, Direct};
use crate::role::{Accounts, Pending, answer};
use crate::rows::{ContactRow, kind};
use crate::state::{end, put};

impl Accounts {
    pub(crate) fn may_write(&mut self, user: UserId, by: UserId) -> Answer {
        let contacts_only = self.config.direct == Direct::Contacts;
        match self.existing(user) {
            Some(state) if by == user || state.lets_in(by, contacts_only) => Answer::Done,
            _ => Refusal::not_found().into(),
        }
    }

    pub(crate) fn contacts(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        after: Option<UserId>,
        limit: u32,
        reply: Reply,
    ) {
        use std::ops::Bound::{Excluded, Unbounded};
        let state = self.user(user);
        let limit = limit as usize;
        let from = after.map_or(Unbounded, Excluded);
        let mut page: Vec<Contact> = state
            .contacts
            .range((from, Unbounded))
            .filter_map(|(other, _)| state.contact(*other))
            .take(limit.saturating_add(1))
            .collect();
        let more = page.len() > limit;
        page.truncate(limit);
        self.settled(cx, user, reply, answer(AccountAnswer::Contacts(page, more)));
    }

    pub(crate) fn set_contact(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        other: Named,
        change: ContactChange,
        reply: Reply,
    ) {
        if other.user == user {
            return cx.answer(
                reply,
                refused(Code::Malformed, "nobody is a contact of their own"),
            );
        }
        let state = self.user(user);
        let none = ContactRow::default();
        let row = state.contacts.get(&other.user).unwrap_or(&none);
        let new = !state.contacts.contains_key(&other.user);
        let (blocked, accepted) = (row.blocked, row.outgoing && row.incoming);
        match change {
            ContactChange::Ask if blocked => {
                let detail = "this contact is blocked: end that first (PUT or DELETE)";
                cx.answer(reply, refused(Code::Conflict, detail));
            }
            ContactChange::Accept if !row.incoming => {
                cx.answer(
                    reply,
                    refused(Code::Conflict, "this user has not asked for contact"),
                );
            }
            ContactChange::Block if blocked => self.contact_as_is(cx, user, &other, reply),
            ContactChange::Ask | ContactChange::Accept if accepted && !blocked => {
                self.contact_as_is(cx, user, &other, reply);
            }
            ContactChange::Remove if new => self.contact_as_is(cx, user, &other, reply),
            ContactChange::Ask | ContactChange::Block if new && state.contacts.len() >= CONTACTS => {
                self.metrics.count_limit("contacts");
                cx.answer(
                    reply,
                    refused(Code::Quota, "there are too many contacts: remove some first"),
                );
            }
            ContactChange::Block => self.tell_block(cx, user, other, change, true, reply),
            ContactChange::Accept | ContactChange::Remove if blocked => {
                self.tell_block(cx, user, other, change, false, reply);
            }
            ContactChange::Ask | ContactChange::Accept | ContactChange::Remove => {
                self.tell_peer(cx, user, other, change, reply);
            }
        }
    }

    fn contact_as_is(&mut self, cx: &mut Cx<'_>, user: UserId, other: &Named, reply: Reply) {
        let contact = self.user(user).contact(other.user);
        self.settled(cx, user, reply, answer(AccountAnswer::Contact(contact, false)));
    }

    /// The one-to-one conversation's home, which answers sends without asking here, learns of a block or its end.
    fn tell_block(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        other: Named,
        change: ContactChange,
        blocked: bool,
        reply: Reply,
    ) {
        let key = Key::Conversation(ConversationId::direct(user, other.user));
        let command = ConversationCommand::Block {
            by: user,
            user: other.user,
            blocked,
        };
        let tag = self.pend(Pending::Blocking {
            user,
            other,
            change,
            reply,
        });
        cx.ask(tag, key, Command::Conversation(command));
    }

    pub(crate) fn blocking_answered(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        other: Named,
        change: ContactChange,
        reply: Reply,
        told: Answer,
    ) {
        match told {
            Answer::Refused(refusal) if refusal.code != Code::NotFound => cx.answer(reply, refusal.into()),
            _ if change == ContactChange::Block => {
                self.change_contact(cx, user, other, reply, |row| row.blocked = true);
            }
            // The end of the block is stored with what comes of the rest.
            _ => self.tell_peer(cx, user, other, change, reply),
        }
    }

    fn tell_peer(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        other: Named,
        change: ContactChange,
        reply: Reply,
    ) {
        let by = Named {
            user,
            name: self.user(user).name.clone(),
        };
        let key = Key::User(other.user);
        let asks = change != ContactChange::Remove;
        let tag = self.pend(Pending::Peer {
            user,
            other,
            change,
            reply,
        });
        cx.ask(
            tag,
            key,
            Command::Account(Box::new(AccountCommand::PeerContact { by, asks })),
        );
    }

    pub(crate) fn peer_answered(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        other: Named,
        change: ContactChange,
        reply: Reply,
        told: Answer,
    ) {
        let theirs = match told {
            Answer::Account(told) => matches!(*told, AccountAnswer::PeerContact(true)),
            // A user that is gone is removed all the same.
            Answer::Refused(refusal) if change == ContactChange::Remove && refusal.code == Code::NotFound => {
                false
            }
            Answer::Refused(refusal) => return cx.answer(reply, refusal.into()),
            _ => return cx.answer(reply, Refusal::unavailable().into()),
        };
        if change == ContactChange::Remove {
            let view = cx.view_of(&Key::User(user));
            let removed = self.user(user).contacts.remove(&other.user).is_some();
            let ops = vec![end(user, view, kind::CONTACT, other.user.0.as_bytes())];
            let ops = if removed { ops } else { Vec::new() };
            return self.write(
                cx,
                user,
                ops,
                reply,
                answer(AccountAnswer::Contact(None, removed)),
            );
        }
        self.change_contact(cx, user, other, reply, |row| {
            row.outgoing = true;
            row.incoming |= theirs;
            row.blocked = false;
        });
    }

    fn change_contact(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        other: Named,
        reply: Reply,
        change: impl FnOnce(&mut ContactRow),
    ) {
        let (now, view) = (cx.now().unix_ms, cx.view_of(&Key::User(user)));
        let state = self.user(user);
        let before = state.contacts.get(&other.user).cloned();
        let mut row = before.clone().unwrap_or_else(|| ContactRow {
            name: other.name.as_ref().into(),
            ..ContactRow::default()
        });
        change(&mut row);
        let changed = before.as_ref() != Some(&row);
        let mut ops = Vec::new();
        if changed {
            row.since = now;
            ops.push(put(user, view, kind::CONTACT, other.user.0.as_bytes(), &row));
            state.contacts.insert(other.user, row);
        }
        let contact = state.contact(other.user);
        self.write(
            cx,
            user,
            ops,
            reply,
            answer(AccountAnswer::Contact(contact, changed)),
        );
    }

    /// The other user asked for contact, or ended it.
    pub(crate) fn peer_contact(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        by: Named,
        asks: bool,
        reply: Reply,
    ) {
        let (now, view) = (cx.now().unix_ms, cx.view_of(&Key::User(user)));
        let state = self.user(user);
        let known = state.contacts.len();
        let Some(row) = state.contacts.get_mut(&by.user) else {
            if !asks {
                return cx.answer(reply, answer(AccountAnswer::PeerContact(false)));
            }
            if known >= CONTACTS {
                self.metrics.count_limit("contacts");
                return cx.answer(reply, refused(Code::Quota, "this user takes no more requests"));
            }
            let row = ContactRow {
                name: by.name.as_ref().into(),
                incoming: true,
                since: now,
                ..ContactRow::default()
            };
            let ops = vec![put(user, view, kind::CONTACT, by.user.0.as_bytes(), &row)];
            state.contacts.insert(by.user, row);
            return self.write(cx, user, ops, reply, answer(AccountAnswer::PeerContact(false)));
        };
        if row.blocked && asks {
            // Looks like a request that is never accepted.
            return cx.answer(reply, answer(AccountAnswer::PeerContact(false)));
        }
        let theirs = asks && row.outgoing;
        let before = row.clone();
        row.incoming = asks;
        row.outgoing &= asks;
        let nothing_left = !(row.incoming || row.outgoing || row.blocked);
        let mut ops = Vec::new();
        if *row != before {
            row.since = now;
            ops.push(put(user, view, kind::CONTACT, by.user.0.as_bytes(), row));
        }
        if nothing_left {
            state.contacts.remove(&by.user);
            ops = vec![end(user, view, kind::CONTACT, by.user.0.as_bytes())];
        }
        self.write(cx, user, ops, reply, answer(AccountAnswer::PeerContact(theirs)));
    }
}

fn refused(code: Code, detail: &'static str) -> Answer {
    Refusal::new(code, detail).into()
}
