//! A user in memory: the small rows, read into maps. Knows its bounds and which rows say a change; no effects here.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use godwit_store::{Op, View};
use godwit_wire::account::{
    Contact, ContactState, DeviceToken, IdempotencyKey, LoginSession, Principal, Profile, Scopes,
};
use godwit_wire::command::Named;
use godwit_wire::ids::UserId;
use prost::Message;
use uuid::Uuid;

use crate::config::{IDEMPOTENCY_KEYS, IDEMPOTENCY_MS};
use crate::rows::{self, ContactRow, KeyRow, ProfileRow, SessionRow, TokenRow, kind};
use crate::tables::USERS;

/// What the store has about one user id.
#[derive(Debug, Default)]
pub(crate) struct User {
    /// `None`: there is no such user.
    pub(crate) profile: Option<ProfileRow>,
    /// The name once more, shared by principals.
    pub(crate) name: Arc<str>,
    pub(crate) sessions: BTreeMap<Uuid, SessionRow>,
    pub(crate) tokens: BTreeMap<Uuid, TokenRow>,
    pub(crate) contacts: BTreeMap<UserId, ContactRow>,
    pub(crate) keys: BTreeMap<[u8; 16], KeyRow>,
    /// The groups, once they were asked for.
    pub(crate) groups: Option<HashSet<Uuid>>,
}

impl User {
    /// Takes one stored row in. `false`: it cannot be read.
    pub(crate) fn take(&mut self, name: &[u8], value: &Bytes) -> bool {
        let Some(kind) = name.first() else { return false };
        match (*kind, rows::id_of(name)) {
            (kind::PROFILE, None) => ProfileRow::decode(value.clone()).is_ok_and(|row| {
                self.name = Arc::from(row.name.as_str());
                self.profile = Some(row);
                true
            }),
            (kind::SESSION, Some(id)) => decoded(value, |row| self.sessions.insert(id, row)),
            (kind::TOKEN, Some(id)) => decoded(value, |row| self.tokens.insert(id, row)),
            (kind::CONTACT, Some(id)) => decoded(value, |row| self.contacts.insert(UserId(id), row)),
            (kind::KEY, Some(id)) => decoded(value, |row| self.keys.insert(*id.as_bytes(), row)),
            _ => false,
        }
    }

    pub(crate) fn public(&self, user: UserId) -> Option<Profile> {
        let row = self.profile.as_ref()?;
        Some(Profile {
            user,
            name: self.name.clone(),
            display_name: row.display_name.clone(),
            email: (!row.email.is_empty()).then(|| row.email.clone()),
            admin: row.admin,
            created_at: row.created_at,
        })
    }

    /// Who comes with a login session, which has every scope.
    pub(crate) fn by_session(&self, user: UserId, id: Uuid, expires_at: u64, now: u64) -> Option<Principal> {
        let session = self.sessions.get(&id)?;
        let alive = now < expires_at && now < session.expires_at;
        let scopes = Scopes {
            chat: true,
            topics: true,
            rest: true,
        };
        alive.then(|| self.principal(user, id, expires_at, scopes))?
    }

    /// Who comes with a device token.
    pub(crate) fn by_token(&self, user: UserId, hash: &[u8; 32], now: u64) -> Option<Principal> {
        let (id, row) = self
            .tokens
            .iter()
            .find(|(_, row)| same(&row.token_hash, hash) && (row.expires_at == 0 || now < row.expires_at))?;
        self.principal(user, *id, row.expires_at, scopes(row))
    }

    /// Who comes with a device token whose proof was checked.
    pub(crate) fn by_token_id(&self, user: UserId, id: Uuid, now: u64) -> Option<Principal> {
        let row = self.tokens.get(&id)?;
        let alive = row.expires_at == 0 || now < row.expires_at;
        alive.then(|| self.principal(user, id, row.expires_at, scopes(row)))?
    }

    /// Who comes with a certificate that TLS has verified: a device, as with a device token of these scopes.
    pub(crate) fn by_certificate(
        &self,
        user: UserId,
        certificate: Uuid,
        expires_at: u64,
        now: u64,
    ) -> Option<Principal> {
        let scopes = Scopes {
            chat: true,
            topics: true,
            rest: false,
        };
        (now < expires_at).then(|| self.principal(user, certificate, expires_at, scopes))?
    }

    /// Who a credential of before stands for, whether its time is over or not. A certificate's id has the version 8; what
    /// revokes it is no row of ours.
    pub(crate) fn standing(&self, user: UserId, id: Uuid) -> Option<Principal> {
        let certificate = id.get_version_num() == 8;
        let scopes = match (self.tokens.get(&id), certificate) {
            (Some(row), _) => scopes(row),
            _ if certificate || self.sessions.contains_key(&id) => Scopes {
                chat: true,
                topics: true,
                rest: !certificate,
            },
            _ => return None,
        };
        self.principal(user, id, 0, scopes)
    }

    fn principal(
        &self,
        user: UserId,
        credential: Uuid,
        expires_at: u64,
        scopes: Scopes,
    ) -> Option<Principal> {
        let profile = self.profile.as_ref()?;
        Some(Principal {
            user,
            name: self.name.clone(),
            credential: Some(credential),
            expires_at,
            scopes,
            admin: profile.admin,
        })
    }

    pub(crate) fn login_sessions(&self, now: u64) -> Vec<LoginSession> {
        let alive = self.sessions.iter().filter(|(_, row)| now < row.expires_at);
        alive
            .map(|(id, row)| LoginSession {
                id: *id,
                client: row.client.clone(),
                created_at: row.created_at,
                last_used_at: row.last_used_at,
                expires_at: row.expires_at,
            })
            .collect()
    }

    pub(crate) fn device_tokens(&self, now: u64) -> Vec<DeviceToken> {
        let alive = self
            .tokens
            .iter()
            .filter(|(_, row)| row.expires_at == 0 || now < row.expires_at);
        alive.map(|(id, row)| device_token(*id, row)).collect()
    }

    pub(crate) fn contact(&self, other: UserId) -> Option<Contact> {
        let row = self.contacts.get(&other)?;
        Some(Contact {
            other: Named {
                user: other,
                name: Arc::from(row.name.as_str()),
            },
            state: state(row)?,
            since: row.since,
        })
    }

    /// Whether a message of `by` may come in.
    pub(crate) fn lets_in(&self, by: UserId, contacts_only: bool) -> bool {
        match self.contacts.get(&by) {
            Some(row) if row.blocked => false,
            Some(row) => !contacts_only || (row.outgoing && row.incoming),
            None => !contacts_only,
        }
    }

    /// The keys that are over, as writes; and whether there is room for one more.
    pub(crate) fn expire_keys(&mut self, user: UserId, view: View, now: u64) -> (Vec<Op>, bool) {
        let mut ops = Vec::new();
        self.keys.retain(|key, row| {
            let kept = now < row.created_at.saturating_add(IDEMPOTENCY_MS);
            if !kept {
                ops.push(end(user, view, kind::KEY, key));
            }
            kept
        });
        (ops, self.keys.len() < IDEMPOTENCY_KEYS)
    }

    /// What this key stands for, if it came within its time.
    pub(crate) fn known_key(&self, key: &IdempotencyKey, now: u64) -> Option<&KeyRow> {
        self.keys
            .get(&key.key)
            .filter(|row| now < row.created_at.saturating_add(IDEMPOTENCY_MS))
    }
}

fn decoded<R: Message + Default, T>(value: &Bytes, take: impl FnOnce(R) -> T) -> bool {
    R::decode(value.clone()).map(take).is_ok()
}

pub(crate) fn scopes(row: &TokenRow) -> Scopes {
    Scopes {
        chat: row.chat,
        topics: row.topics,
        rest: row.rest,
    }
}

pub(crate) fn device_token(id: Uuid, row: &TokenRow) -> DeviceToken {
    DeviceToken {
        id,
        name: row.name.clone(),
        scopes: scopes(row),
        created_at: row.created_at,
        expires_at: row.expires_at,
    }
}

/// `None`: a row that says nothing any more.
fn state(row: &ContactRow) -> Option<ContactState> {
    match (row.blocked, row.outgoing, row.incoming) {
        (true, ..) => Some(ContactState::Blocked),
        (_, true, true) => Some(ContactState::Accepted),
        (_, true, false) => Some(ContactState::RequestedByMe),
        (_, false, true) => Some(ContactState::RequestedByThem),
        _ => None,
    }
}

/// Compares without telling by its time where they differ.
pub(crate) fn same(stored: &[u8], given: &[u8]) -> bool {
    stored.len() == given.len()
        && stored
            .iter()
            .zip(given)
            .fold(0, |differ, (a, b)| differ | (a ^ b))
            == 0
}

/// The write of a row.
pub(crate) fn put(user: UserId, view: View, kind: u8, id: &[u8], row: &impl Message) -> Op {
    Op::Put {
        table: USERS,
        partition: user.to_bytes(),
        name: rows::name(kind, id),
        view,
        value: Some(row.encode_to_vec().into()),
    }
}

/// The write that ends a row.
pub(crate) fn end(user: UserId, view: View, kind: u8, id: &[u8]) -> Op {
    Op::Put {
        table: USERS,
        partition: user.to_bytes(),
        name: rows::name(kind, id),
        view,
        value: None,
    }
}
