//! Registration and profiles. A name is claimed before its user is made: a claim that leads to no user (a crash in
//! between) is taken over by whoever registers that name next.

use bytes::Bytes;
use godwit_cluster::{Cx, Reply};
use godwit_store::{Op, Outcome};
use godwit_wire::account::{AccountAnswer, IdempotencyKey, Profile, Registration};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::ids::{Key, UserId};

use crate::config::IDEMPOTENCY_MS;
use crate::role::{Accounts, Pending, answer};
use crate::rows::{ProfileRow, kind};
use crate::state::put;
use crate::tables::{USER_EMAILS, USER_NAMES};

impl Accounts {
    pub(crate) fn register(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        registration: Box<Registration>,
        reply: Reply,
    ) {
        if let Some(profile) = self.repeated(user, registration.key.as_ref(), cx.now().unix_ms) {
            return self.settled(cx, user, reply, answer(AccountAnswer::Registered(profile, true)));
        }
        if self.user(user).profile.is_some() {
            return cx.answer(reply, taken("this user name is taken").into());
        }
        if std::mem::replace(self.registering(user), true) {
            return cx.answer(reply, Refusal::unavailable().into());
        }
        self.claim(cx, user, false, registration, reply);
    }

    /// The user that an earlier request with the same key and content made.
    fn repeated(&mut self, user: UserId, key: Option<&IdempotencyKey>, now: u64) -> Option<Profile> {
        let key = key?;
        let state = self.existing(user)?;
        let row = state.profile.as_ref()?;
        let same = row.key == key.key.as_slice() && row.digest == key.digest.as_slice();
        (same && now < row.created_at.saturating_add(IDEMPOTENCY_MS)).then(|| state.public(user))?
    }

    fn claim(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        email: bool,
        registration: Box<Registration>,
        reply: Reply,
    ) {
        let (table, key) = match &registration.email {
            Some(address) if email => (USER_EMAILS, Bytes::from(address.clone())),
            None if email => return self.make(cx, user, *registration, reply),
            _ => (USER_NAMES, Bytes::copy_from_slice(registration.name.as_bytes())),
        };
        let tag = self.pend(Pending::Claim {
            user,
            email,
            registration,
            reply,
        });
        cx.store(
            &Key::User(user),
            tag,
            vec![Op::Claim {
                table,
                key,
                value: user.to_bytes(),
            }],
        );
    }

    pub(crate) fn claimed(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        email: bool,
        registration: Box<Registration>,
        reply: Reply,
        outcome: Outcome,
    ) {
        match outcome {
            Outcome::Stored if email => self.make(cx, user, *registration, reply),
            Outcome::Stored => self.claim(cx, user, true, registration, reply),
            _ => {
                *self.registering(user) = false;
                let detail = if email {
                    "this e-mail address is taken"
                } else {
                    "this user name is taken"
                };
                cx.answer(reply, taken(detail).into());
            }
        }
    }

    fn make(&mut self, cx: &mut Cx<'_>, user: UserId, registration: Registration, reply: Reply) {
        let view = cx.view_of(&Key::User(user));
        let row = profile_row(registration, cx.now().unix_ms);
        *self.registering(user) = false;
        let ops = vec![put(user, view, kind::PROFILE, &[], &row)];
        let state = self.user(user);
        state.name = row.name.as_str().into();
        state.profile = Some(row);
        if let Some(profile) = state.public(user) {
            self.write(
                cx,
                user,
                ops,
                reply,
                answer(AccountAnswer::Registered(profile, false)),
            );
        }
    }

    pub(crate) fn profile(&mut self, cx: &mut Cx<'_>, user: UserId, reply: Reply) {
        if let Some(profile) = self.user(user).public(user) {
            self.settled(cx, user, reply, answer(AccountAnswer::Profile(profile)));
        }
    }

    pub(crate) fn change_profile(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        display_name: Option<String>,
        reply: Reply,
    ) {
        let view = cx.view_of(&Key::User(user));
        let state = self.user(user);
        let mut ops = Vec::new();
        if let (Some(row), Some(display_name)) = (&mut state.profile, display_name)
            && row.display_name != display_name
        {
            row.display_name = display_name;
            ops.push(put(user, view, kind::PROFILE, &[], row));
        }
        if let Some(profile) = state.public(user) {
            self.write(cx, user, ops, reply, answer(AccountAnswer::Profile(profile)));
        }
    }
}

/// What is stored of a new user.
pub(crate) fn profile_row(registration: Registration, now: u64) -> ProfileRow {
    let Registration {
        name,
        display_name,
        email,
        phc,
        admin,
        key,
    } = registration;
    ProfileRow {
        name: name.as_ref().into(),
        display_name,
        email: email.unwrap_or_default(),
        phc: phc.0.into(),
        password_version: 1,
        admin,
        created_at: now,
        key: key.map(|key| key.key.to_vec().into()).unwrap_or_default(),
        digest: key.map(|key| key.digest.to_vec().into()).unwrap_or_default(),
    }
}

fn taken(detail: &'static str) -> Refusal {
    Refusal::new(Code::Conflict, detail)
}
