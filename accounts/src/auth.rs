//! Credentials at a user's home: judging them, login sessions, refresh, passwords, device tokens, idempotency keys.

use godwit_cluster::{Cx, Reply};
use godwit_store::Op;
use godwit_wire::account::{
    AccountAnswer, IdempotencyKey, LoginSession, NewDeviceToken, NewLoginSession, Principal, Secret,
};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::Answer;
use godwit_wire::ids::{Key, UserId};
use uuid::Uuid;

use crate::config::{ACCESS_TOKEN_MS, DEVICE_TOKENS, ENDED_KEPT_MS, LOGIN_SESSIONS, SESSION_MS};
use crate::role::{Accounts, answer, unauthenticated};
use crate::rows::{KeyRow, SessionRow, TokenRow, fixed, kind};
use crate::state::{device_token, end, put, same};
use crate::tables;
use crate::tokens::{DEVICE_TOKEN_PREFIX, device_token_hash};

impl Accounts {
    pub(crate) fn authenticate(&mut self, cx: &Cx<'_>, user: UserId, secret: &Secret) -> Answer {
        let now = cx.now().unix_ms;
        let principal = if secret.0.starts_with(DEVICE_TOKEN_PREFIX) {
            device_token_hash(&secret.0).and_then(|hash| self.user(user).by_token(user, &hash, now))
        } else {
            let token = self
                .tokens
                .check(&secret.0, now)
                .filter(|token| token.user == user);
            token.and_then(|token| {
                self.user(user)
                    .by_session(user, token.session, token.expires_at, now)
            })
        };
        self.judged(principal)
    }

    pub(crate) fn check_session(
        &mut self,
        cx: &Cx<'_>,
        user: UserId,
        session: Uuid,
        expires_at: u64,
    ) -> Answer {
        let principal = self
            .user(user)
            .by_session(user, session, expires_at, cx.now().unix_ms);
        self.judged(principal)
    }

    /// What a SCRAM exchange with one of this user's device tokens is judged by; who is nobody, or a token that is not
    /// there, gets what no proof fits.
    pub(crate) fn scram_keys(&mut self, cx: &Cx<'_>, user: UserId, token: &str) -> Answer {
        let now = cx.now().unix_ms;
        let alive = |row: &&TokenRow| row.expires_at == 0 || now < row.expires_at;
        let id = token.parse::<Uuid>().ok();
        let row = id.and_then(|id| self.user(user).tokens.get(&id).filter(alive));
        let keys = row.and_then(TokenRow::scram);
        let keys = keys.unwrap_or_else(|| self.tokens.scram_of_nobody(user, token));
        answer(AccountAnswer::ScramKeys(keys))
    }

    pub(crate) fn check_device_token(&mut self, cx: &Cx<'_>, user: UserId, id: Uuid) -> Answer {
        let principal = self.user(user).by_token_id(user, id, cx.now().unix_ms);
        self.judged(principal)
    }

    pub(crate) fn check_certificate(
        &mut self,
        cx: &Cx<'_>,
        user: UserId,
        certificate: Uuid,
        expires_at: u64,
    ) -> Answer {
        let now = cx.now().unix_ms;
        let principal = self.user(user).by_certificate(user, certificate, expires_at, now);
        self.judged(principal)
    }

    pub(crate) fn standing(&mut self, user: UserId, credential: Uuid) -> Answer {
        match self.user(user).standing(user, credential) {
            Some(principal) => answer(AccountAnswer::Principal(principal)),
            None => unauthenticated(),
        }
    }

    fn judged(&self, principal: Option<Principal>) -> Answer {
        match principal {
            Some(principal) => {
                self.metrics.authenticated.inc();
                answer(AccountAnswer::Principal(principal))
            }
            None => {
                self.metrics.refused.inc();
                unauthenticated()
            }
        }
    }

    pub(crate) fn password(&mut self, cx: &mut Cx<'_>, user: UserId, reply: Reply) {
        let Some(profile) = &self.user(user).profile else {
            return;
        };
        let phc = Secret(profile.phc.as_str().into());
        let judged_by = answer(AccountAnswer::Password(phc, profile.password_version));
        self.settled(cx, user, reply, judged_by);
    }

    pub(crate) fn login(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        password_version: u64,
        session: NewLoginSession,
        reply: Reply,
    ) {
        let (now, view) = (cx.now().unix_ms, cx.view_of(&Key::User(user)));
        let over_at = cx.expiry_ms();
        let state = self.user(user);
        if state
            .profile
            .as_ref()
            .is_none_or(|profile| profile.password_version != password_version)
        {
            return cx.answer(reply, unauthenticated());
        }
        let kept = if state.sessions.len() < LOGIN_SESSIONS {
            ENDED_KEPT_MS
        } else {
            0
        };
        let over: Vec<Uuid> = state
            .sessions
            .iter()
            .filter(|(_, row)| row.expires_at.saturating_add(kept) <= over_at)
            .map(|(id, _)| *id)
            .collect();
        let mut ops = self.end_sessions(cx, user, &over);
        let state = self.user(user);
        if state.sessions.len() >= LOGIN_SESSIONS {
            let oldest = state
                .sessions
                .iter()
                .min_by_key(|(_, row)| row.last_used_at)
                .map(|(id, _)| *id);
            self.metrics.count_limit("login_sessions");
            ops.extend(self.end_sessions(cx, user, oldest.as_slice()));
        }
        let row = SessionRow {
            family_hash: session.family_hash.to_vec().into(),
            token_hash: session.token_hash.to_vec().into(),
            client: session.client,
            created_at: now,
            last_used_at: now,
            expires_at: now.saturating_add(SESSION_MS),
        };
        ops.push(put(user, view, kind::SESSION, session.id.as_bytes(), &row));
        let state = self.user(user);
        state.sessions.insert(session.id, row);
        let principal = state.by_session(user, session.id, now.saturating_add(ACCESS_TOKEN_MS), now);
        self.metrics.logins.inc();
        self.write(cx, user, ops, reply, principal_or_refused(principal));
    }

    /// `hashes`: of the family, of the token, of the one that takes its place.
    pub(crate) fn refresh(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        session: Uuid,
        [family, token, next]: &[[u8; 32]; 3],
        reply: Reply,
    ) {
        let (now, view) = (cx.now().unix_ms, cx.view_of(&Key::User(user)));
        let state = self.user(user);
        let Some(row) = state.sessions.get_mut(&session) else {
            return cx.answer(reply, unauthenticated());
        };
        if row.expires_at <= now || !same(&row.family_hash, family) {
            return cx.answer(reply, unauthenticated());
        }
        if !same(&row.token_hash, token) {
            // It was exchanged before: somebody else has it too, and nobody knows who is who.
            tracing::warn!(%user, %session, "a refresh token was used twice: its login session ends");
            self.metrics.refresh_reused.inc();
            let ops = self.end_sessions(cx, user, &[session]);
            return self.write(cx, user, ops, reply, unauthenticated());
        }
        row.token_hash = next.to_vec().into();
        row.last_used_at = now;
        row.expires_at = now.saturating_add(SESSION_MS);
        let ops = vec![put(user, view, kind::SESSION, session.as_bytes(), row)];
        let principal = state.by_session(user, session, now.saturating_add(ACCESS_TOKEN_MS), now);
        self.write(cx, user, ops, reply, principal_or_refused(principal));
    }

    pub(crate) fn change_password(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        password_version: u64,
        phc: Secret,
        keep: Option<Uuid>,
        reply: Reply,
    ) {
        let view = cx.view_of(&Key::User(user));
        let state = self.user(user);
        let Some(profile) = state
            .profile
            .as_mut()
            .filter(|row| row.password_version == password_version)
        else {
            let detail = "the password was changed meanwhile";
            return cx.answer(reply, Refusal::new(Code::Conflict, detail).into());
        };
        profile.phc = phc.0.into();
        profile.password_version += 1;
        let mut ops = vec![put(user, view, kind::PROFILE, &[], profile)];
        let others: Vec<Uuid> = state
            .sessions
            .keys()
            .copied()
            .filter(|id| Some(*id) != keep)
            .collect();
        ops.extend(self.end_sessions(cx, user, &others));
        self.write(cx, user, ops, reply, Answer::Done);
    }

    pub(crate) fn sessions(&mut self, cx: &mut Cx<'_>, user: UserId, reply: Reply) {
        let mut sessions: Vec<LoginSession> = self.user(user).login_sessions(cx.now().unix_ms);
        sessions.sort_by_key(|session| (session.created_at, session.id));
        self.settled(cx, user, reply, answer(AccountAnswer::Sessions(sessions)));
    }

    pub(crate) fn end_session(&mut self, cx: &mut Cx<'_>, user: UserId, session: Uuid, reply: Reply) {
        let ops = self.end_sessions(cx, user, &[session]);
        let answer = if ops.is_empty() {
            Refusal::not_found().into()
        } else {
            Answer::Done
        };
        self.write(cx, user, ops, reply, answer);
    }

    pub(crate) fn end_other_sessions(&mut self, cx: &mut Cx<'_>, user: UserId, keep: Uuid, reply: Reply) {
        let others: Vec<Uuid> = self
            .user(user)
            .sessions
            .keys()
            .copied()
            .filter(|id| *id != keep)
            .collect();
        let ops = self.end_sessions(cx, user, &others);
        self.write(cx, user, ops, reply, Answer::Done);
    }

    /// Takes login sessions out, closes their connections, and says the writes.
    fn end_sessions(&mut self, cx: &mut Cx<'_>, user: UserId, ids: &[Uuid]) -> Vec<Op> {
        let view = cx.view_of(&Key::User(user));
        let mut ops = Vec::new();
        for id in ids {
            if self.user(user).sessions.remove(id).is_some() {
                ops.push(end(user, view, kind::SESSION, id.as_bytes()));
                Self::tell_ended(cx, user, *id);
            }
        }
        ops
    }

    pub(crate) fn create_device_token(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        token: NewDeviceToken,
        reply: Reply,
    ) {
        let (now, view) = (cx.now().unix_ms, cx.view_of(&Key::User(user)));
        let over_at = cx.expiry_ms();
        let mut ops = Vec::new();
        if let Some(key) = token.key {
            match self.key(user, &key, token.id, now, view) {
                Reserving::Other => return cx.answer(reply, other_content()),
                Reserving::Full => return cx.answer(reply, too_many_keys()),
                Reserving::Known(id) => {
                    // Made before; if it has ended since, it does not come back.
                    let made = self.user(user).tokens.get(&id).map(|row| device_token(id, row));
                    let made = made.map_or_else(
                        || Refusal::not_found().into(),
                        |token| answer(AccountAnswer::DeviceToken(token, true)),
                    );
                    return self.settled(cx, user, reply, made);
                }
                Reserving::New(writes) => ops = writes,
            }
        }
        let tokens = &self.user(user).tokens;
        let kept = if tokens.len() < DEVICE_TOKENS {
            ENDED_KEPT_MS
        } else {
            0
        };
        let over: Vec<Uuid> = tokens
            .iter()
            .filter(|(_, row)| row.expires_at != 0 && row.expires_at.saturating_add(kept) <= over_at)
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            ops.extend(self.end_token(cx, user, id));
        }
        let state = self.user(user);
        if state.tokens.len() >= DEVICE_TOKENS {
            let refused =
                Refusal::new(Code::Quota, "there are too many device tokens: end some first").into();
            // The key was not used up.
            if let Some(key) = token.key {
                state.keys.remove(&key.key);
                ops.retain(|op| !matches!(op, Op::Put { value: Some(_), .. }));
            }
            self.metrics.count_limit("device_tokens");
            return self.write(cx, user, ops, reply, refused);
        }
        let row = TokenRow {
            token_hash: token.token_hash.to_vec().into(),
            name: token.name,
            chat: token.scopes.chat,
            topics: token.scopes.topics,
            rest: token.scopes.rest,
            created_at: now,
            expires_at: token.expires_at,
            scram_salt: token.scram.salt.to_vec().into(),
            scram_iterations: token.scram.iterations,
            scram_stored_key: token.scram.stored_key.to_vec().into(),
            scram_server_key: token.scram.server_key.to_vec().into(),
        };
        ops.push(put(user, view, kind::TOKEN, token.id.as_bytes(), &row));
        ops.push(Op::Put {
            table: tables::DEVICE_TOKENS,
            partition: row.token_hash.clone(),
            name: bytes::Bytes::new(),
            view,
            value: Some(user.to_bytes()),
        });
        let made = answer(AccountAnswer::DeviceToken(device_token(token.id, &row), false));
        state.tokens.insert(token.id, row);
        self.write(cx, user, ops, reply, made);
    }

    pub(crate) fn device_tokens(&mut self, cx: &mut Cx<'_>, user: UserId, reply: Reply) {
        let mut tokens = self.user(user).device_tokens(cx.now().unix_ms);
        tokens.sort_by_key(|token| (token.created_at, token.id));
        self.settled(cx, user, reply, answer(AccountAnswer::DeviceTokens(tokens)));
    }

    pub(crate) fn end_device_token(&mut self, cx: &mut Cx<'_>, user: UserId, id: Uuid, reply: Reply) {
        let ops = self.end_token(cx, user, id);
        let answer = if ops.is_empty() {
            Refusal::not_found().into()
        } else {
            Answer::Done
        };
        self.write(cx, user, ops, reply, answer);
    }

    fn end_token(&mut self, cx: &mut Cx<'_>, user: UserId, id: Uuid) -> Vec<Op> {
        let view = cx.view_of(&Key::User(user));
        let Some(row) = self.user(user).tokens.remove(&id) else {
            return Vec::new();
        };
        Self::tell_ended(cx, user, id);
        let way = Op::Put {
            table: tables::DEVICE_TOKENS,
            partition: row.token_hash,
            name: bytes::Bytes::new(),
            view,
            value: None,
        };
        vec![end(user, view, kind::TOKEN, id.as_bytes()), way]
    }

    pub(crate) fn reserve(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        key: IdempotencyKey,
        id: Uuid,
        reply: Reply,
    ) {
        match self.key(user, &key, id, cx.now().unix_ms, cx.view_of(&Key::User(user))) {
            Reserving::Other => cx.answer(reply, other_content()),
            Reserving::Full => cx.answer(reply, too_many_keys()),
            Reserving::Known(id) => self.settled(cx, user, reply, answer(AccountAnswer::Reserved(id, true))),
            Reserving::New(ops) => {
                self.write(cx, user, ops, reply, answer(AccountAnswer::Reserved(id, false)))
            }
        }
    }

    /// What a key stands for; a new one stands for `id` from now on.
    fn key(&mut self, user: UserId, key: &IdempotencyKey, id: Uuid, now: u64, view: u64) -> Reserving {
        let state = self.user(user);
        if let Some(row) = state.known_key(key, now) {
            return match (
                row.digest == key.digest.as_slice(),
                Uuid::from_bytes(fixed(&row.id)),
            ) {
                (true, id) => Reserving::Known(id),
                (false, _) => Reserving::Other,
            };
        }
        let (mut ops, room) = state.expire_keys(user, view, now);
        if !room {
            self.metrics.count_limit("idempotency_keys");
            return Reserving::Full;
        }
        let row = KeyRow {
            digest: key.digest.to_vec().into(),
            id: id.as_bytes().to_vec().into(),
            created_at: now,
        };
        ops.push(put(user, view, kind::KEY, &key.key, &row));
        state.keys.insert(key.key, row);
        Reserving::New(ops)
    }
}

/// What a key of [`AccountCommand::Reserve`] comes to.
enum Reserving {
    /// Came before with the same content; was done under this id.
    Known(Uuid),
    /// Came before with other content.
    Other,
    /// There are too many.
    Full,
    /// Kept by these writes.
    New(Vec<Op>),
}

pub(crate) fn other_content() -> Answer {
    let detail = "this Idempotency-Key came before with another request";
    Refusal::new(Code::Conflict, detail).into()
}

fn too_many_keys() -> Answer {
    Refusal::new(Code::Quota, "too many Idempotency-Keys within a day").into()
}

fn principal_or_refused(principal: Option<Principal>) -> Answer {
    principal.map_or_else(unauthenticated, |principal| {
        answer(AccountAnswer::Principal(principal))
    })
}
