//! Commands and answers of the accounts role.

use bytes::Bytes;

use super::{
    DecodeError, Result, all, conversation, hash, named_in, named_out, need, optional, user, uuid, uuid_out,
};
use crate::account::{
    AccountAnswer, AccountCommand, Contact, ContactChange, ContactState, DeviceToken, IdempotencyKey,
    LoginSession, NewDeviceToken, NewLoginSession, Principal, Profile, Registration, Scopes, ScramKeys,
    Secret,
};
use crate::ids::{ConversationId, UserId};
use crate::proto::peer::{self, account_answer, account_command};

const UNIT: peer::Unit = peer::Unit {};

fn hash_out(hash: &[u8]) -> Bytes {
    Bytes::copy_from_slice(hash)
}

fn key_out(key: &IdempotencyKey) -> peer::IdempotencyKey {
    peer::IdempotencyKey {
        key: hash_out(&key.key),
        digest: hash_out(&key.digest),
    }
}

fn key_in(key: &peer::IdempotencyKey) -> Result<IdempotencyKey> {
    Ok(IdempotencyKey {
        key: hash(&key.key)?,
        digest: hash(&key.digest)?,
    })
}

fn scram_out(keys: &ScramKeys) -> peer::ScramKeys {
    peer::ScramKeys {
        salt: hash_out(&keys.salt),
        iterations: keys.iterations,
        stored_key: hash_out(&keys.stored_key),
        server_key: hash_out(&keys.server_key),
    }
}

fn scram_in(keys: Option<peer::ScramKeys>) -> Result<ScramKeys> {
    let keys = need(keys, "scram keys")?;
    Ok(ScramKeys {
        salt: hash(&keys.salt)?,
        iterations: keys.iterations,
        stored_key: hash(&keys.stored_key)?,
        server_key: hash(&keys.server_key)?,
    })
}

fn scopes_out(scopes: Scopes) -> peer::Scopes {
    peer::Scopes {
        chat: scopes.chat,
        topics: scopes.topics,
        rest: scopes.rest,
    }
}

/// Without a word about them there are none.
fn scopes_in(scopes: Option<peer::Scopes>) -> Scopes {
    let scopes = scopes.unwrap_or_default();
    Scopes {
        chat: scopes.chat,
        topics: scopes.topics,
        rest: scopes.rest,
    }
}

pub(super) fn command_out(command: &AccountCommand) -> peer::AccountCommand {
    use account_command::Command as Out;
    let command = match command {
        AccountCommand::Authenticate { secret } => Out::Authenticate(secret.0.to_string()),
        AccountCommand::ScramKeys { token } => Out::ScramKeys(token.to_string()),
        AccountCommand::CheckDeviceToken { id } => Out::CheckDeviceToken(uuid_out(*id)),
        AccountCommand::CheckCertificate {
            certificate,
            expires_at,
        } => Out::CheckCertificate(peer::CheckCertificate {
            certificate: uuid_out(*certificate),
            expires_at: *expires_at,
        }),
        AccountCommand::Standing { credential } => Out::Standing(uuid_out(*credential)),
        AccountCommand::MayWrite { by } => Out::MayWrite(by.to_bytes()),
        AccountCommand::Joined { conversation, group } => Out::Joined(peer::Joined {
            conversation: conversation.to_bytes(),
            group: *group,
        }),
        AccountCommand::Left { conversation } => Out::Left(conversation.to_bytes()),
        AccountCommand::Conversations { after, limit } => Out::Conversations(peer::Page {
            after: after.map(ConversationId::to_bytes).unwrap_or_default(),
            limit: *limit,
        }),
        AccountCommand::CheckSession { session, expires_at } => Out::CheckSession(peer::CheckSession {
            session: uuid_out(*session),
            expires_at: *expires_at,
        }),
        AccountCommand::Register(new) => Out::Register(peer::Registration {
            name: new.name.to_string(),
            display_name: new.display_name.clone(),
            email: new.email.clone(),
            phc: new.phc.0.to_string(),
            admin: new.admin,
            key: new.key.as_ref().map(key_out),
        }),
        AccountCommand::Profile => Out::Profile(UNIT),
        AccountCommand::ChangeProfile { display_name } => Out::ChangeProfile(peer::ChangeProfile {
            display_name: display_name.clone(),
        }),
        AccountCommand::Password => Out::Password(UNIT),
        AccountCommand::Login {
            password_version,
            session,
        } => Out::Login(peer::Login {
            password_version: *password_version,
            id: uuid_out(session.id),
            family_hash: hash_out(&session.family_hash),
            token_hash: hash_out(&session.token_hash),
            client: session.client.clone(),
        }),
        AccountCommand::Refresh {
            session,
            family_hash,
            token_hash,
            next_hash,
        } => Out::Refresh(peer::RefreshSession {
            session: uuid_out(*session),
            family_hash: hash_out(family_hash),
            token_hash: hash_out(token_hash),
            next_hash: hash_out(next_hash),
        }),
        AccountCommand::ChangePassword {
            password_version,
            phc,
            keep,
        } => Out::ChangePassword(peer::ChangePassword {
            password_version: *password_version,
            phc: phc.0.to_string(),
            keep: keep.map(uuid_out).unwrap_or_default(),
        }),
        AccountCommand::Sessions => Out::Sessions(UNIT),
        AccountCommand::EndSession { session } => Out::EndSession(uuid_out(*session)),
        AccountCommand::EndOtherSessions { keep } => Out::EndOtherSessions(uuid_out(*keep)),
        AccountCommand::CreateDeviceToken(new) => Out::CreateDeviceToken(peer::NewDeviceToken {
            id: uuid_out(new.id),
            token_hash: hash_out(&new.token_hash),
            scram: Some(scram_out(&new.scram)),
            name: new.name.clone(),
            scopes: Some(scopes_out(new.scopes)),
            expires_at: new.expires_at,
            key: new.key.as_ref().map(key_out),
        }),
        AccountCommand::DeviceTokens => Out::DeviceTokens(UNIT),
        AccountCommand::EndDeviceToken { id } => Out::EndDeviceToken(uuid_out(*id)),
        AccountCommand::Contacts { after, limit } => Out::Contacts(peer::Page {
            after: after.map(UserId::to_bytes).unwrap_or_default(),
            limit: *limit,
        }),
        AccountCommand::SetContact { other, change } => Out::SetContact(peer::SetContact {
            other: Some(named_out(other)),
            change: match change {
                ContactChange::Ask => peer::ContactChange::Ask,
                ContactChange::Accept => peer::ContactChange::Accept,
                ContactChange::Block => peer::ContactChange::Block,
                ContactChange::Remove => peer::ContactChange::Remove,
            } as i32,
        }),
        AccountCommand::PeerContact { by, asks } => Out::PeerContact(peer::PeerContact {
            by: Some(named_out(by)),
            asks: *asks,
        }),
        AccountCommand::Reserve { key, id } => Out::Reserve(peer::Reserve {
            key: Some(key_out(key)),
            id: uuid_out(*id),
        }),
    };
    peer::AccountCommand {
        command: Some(command),
    }
}

pub(super) fn command_in(command: peer::AccountCommand) -> Result<AccountCommand> {
    use account_command::Command as In;
    let secret = |text: String| Secret(text.into());
    let key = |key: Option<peer::IdempotencyKey>| key.as_ref().map(key_in).transpose();
    Ok(match need(command.command, "account command")? {
        In::Authenticate(text) => AccountCommand::Authenticate { secret: secret(text) },
        In::ScramKeys(token) => AccountCommand::ScramKeys { token: token.into() },
        In::CheckDeviceToken(id) => AccountCommand::CheckDeviceToken { id: uuid(&id)? },
        In::CheckCertificate(check) => AccountCommand::CheckCertificate {
            certificate: uuid(&check.certificate)?,
            expires_at: check.expires_at,
        },
        In::Standing(credential) => AccountCommand::Standing {
            credential: uuid(&credential)?,
        },
        In::MayWrite(by) => AccountCommand::MayWrite { by: user(&by)? },
        In::Joined(joined) => AccountCommand::Joined {
            conversation: conversation(&joined.conversation)?,
            group: joined.group,
        },
        In::Left(id) => AccountCommand::Left {
            conversation: conversation(&id)?,
        },
        In::Conversations(page) => AccountCommand::Conversations {
            after: optional(&page.after, conversation)?,
            limit: page.limit,
        },
        In::CheckSession(check) => AccountCommand::CheckSession {
            session: uuid(&check.session)?,
            expires_at: check.expires_at,
        },
        In::Register(new) => AccountCommand::Register(Box::new(Registration {
            name: new.name.into(),
            display_name: new.display_name,
            email: new.email,
            phc: secret(new.phc),
            admin: new.admin,
            key: key(new.key)?,
        })),
        In::Profile(_) => AccountCommand::Profile,
        In::ChangeProfile(change) => AccountCommand::ChangeProfile {
            display_name: change.display_name,
        },
        In::Password(_) => AccountCommand::Password,
        In::Login(login) => AccountCommand::Login {
            password_version: login.password_version,
            session: NewLoginSession {
                id: uuid(&login.id)?,
                family_hash: hash(&login.family_hash)?,
                token_hash: hash(&login.token_hash)?,
                client: login.client,
            },
        },
        In::Refresh(refresh) => AccountCommand::Refresh {
            session: uuid(&refresh.session)?,
            family_hash: hash(&refresh.family_hash)?,
            token_hash: hash(&refresh.token_hash)?,
            next_hash: hash(&refresh.next_hash)?,
        },
        In::ChangePassword(change) => AccountCommand::ChangePassword {
            password_version: change.password_version,
            phc: secret(change.phc),
            keep: optional(&change.keep, uuid)?,
        },
        In::Sessions(_) => AccountCommand::Sessions,
        In::EndSession(id) => AccountCommand::EndSession { session: uuid(&id)? },
        In::EndOtherSessions(keep) => AccountCommand::EndOtherSessions { keep: uuid(&keep)? },
        In::CreateDeviceToken(new) => AccountCommand::CreateDeviceToken(Box::new(NewDeviceToken {
            id: uuid(&new.id)?,
            token_hash: hash(&new.token_hash)?,
            scram: scram_in(new.scram)?,
            name: new.name,
            scopes: scopes_in(new.scopes),
            expires_at: new.expires_at,
            key: key(new.key)?,
        })),
        In::DeviceTokens(_) => AccountCommand::DeviceTokens,
        In::EndDeviceToken(id) => AccountCommand::EndDeviceToken { id: uuid(&id)? },
        In::Contacts(page) => AccountCommand::Contacts {
            after: optional(&page.after, user)?,
            limit: page.limit,
        },
        In::SetContact(set) => AccountCommand::SetContact {
            change: match set.change() {
                peer::ContactChange::Ask => ContactChange::Ask,
                peer::ContactChange::Accept => ContactChange::Accept,
                peer::ContactChange::Block => ContactChange::Block,
                peer::ContactChange::Remove => ContactChange::Remove,
                peer::ContactChange::Unspecified => return Err(DecodeError("change")),
            },
            other: named_in(set.other)?,
        },
        In::PeerContact(contact) => AccountCommand::PeerContact {
            by: named_in(contact.by)?,
            asks: contact.asks,
        },
        In::Reserve(reserve) => AccountCommand::Reserve {
            key: key_in(&need(reserve.key, "key")?)?,
            id: uuid(&reserve.id)?,
        },
    })
}

fn profile_out(profile: &Profile) -> peer::Profile {
    peer::Profile {
        user: profile.user.to_bytes(),
        name: profile.name.to_string(),
        display_name: profile.display_name.clone(),
        email: profile.email.clone(),
        admin: profile.admin,
        created_at: profile.created_at,
    }
}

fn profile_in(profile: peer::Profile) -> Result<Profile> {
    Ok(Profile {
        user: user(&profile.user)?,
        name: profile.name.into(),
        display_name: profile.display_name,
        email: profile.email,
        admin: profile.admin,
        created_at: profile.created_at,
    })
}

fn token_out(token: &DeviceToken) -> peer::DeviceToken {
    peer::DeviceToken {
        id: uuid_out(token.id),
        name: token.name.clone(),
        scopes: Some(scopes_out(token.scopes)),
        created_at: token.created_at,
        expires_at: token.expires_at,
    }
}

fn token_in(token: peer::DeviceToken) -> Result<DeviceToken> {
    Ok(DeviceToken {
        id: uuid(&token.id)?,
        name: token.name,
        scopes: scopes_in(token.scopes),
        created_at: token.created_at,
        expires_at: token.expires_at,
    })
}

fn contact_out(contact: &Contact) -> peer::Contact {
    peer::Contact {
        other: Some(named_out(&contact.other)),
        state: match contact.state {
            ContactState::RequestedByMe => peer::ContactState::RequestedByMe,
            ContactState::RequestedByThem => peer::ContactState::RequestedByThem,
            ContactState::Accepted => peer::ContactState::Accepted,
            ContactState::Blocked => peer::ContactState::Blocked,
        } as i32,
        since: contact.since,
    }
}

fn contact_in(contact: peer::Contact) -> Result<Contact> {
    Ok(Contact {
        state: match contact.state() {
            peer::ContactState::RequestedByMe => ContactState::RequestedByMe,
            peer::ContactState::RequestedByThem => ContactState::RequestedByThem,
            peer::ContactState::Accepted => ContactState::Accepted,
            peer::ContactState::Blocked => ContactState::Blocked,
            peer::ContactState::Unspecified => return Err(DecodeError("state")),
        },
        since: contact.since,
        other: named_in(contact.other)?,
    })
}

pub(super) fn answer_out(answer: &AccountAnswer) -> peer::AccountAnswer {
    use account_answer::Answer as Out;
    let session = |session: &LoginSession| peer::LoginSession {
        id: uuid_out(session.id),
        client: session.client.clone(),
        created_at: session.created_at,
        last_used_at: session.last_used_at,
        expires_at: session.expires_at,
    };
    let answer = match answer {
        AccountAnswer::Principal(principal) => Out::Principal(peer::Principal {
            user: principal.user.to_bytes(),
            name: principal.name.to_string(),
            credential: principal.credential.map(uuid_out).unwrap_or_default(),
            expires_at: principal.expires_at,
            scopes: Some(scopes_out(principal.scopes)),
            admin: principal.admin,
        }),
        AccountAnswer::ScramKeys(keys) => Out::ScramKeys(scram_out(keys)),
        AccountAnswer::Conversations(conversations, more) => Out::Conversations(peer::Conversations {
            conversations: conversations
                .iter()
                .map(|(id, group)| peer::Conversation {
                    id: id.to_bytes(),
                    group: *group,
                })
                .collect(),
            more: *more,
        }),
        AccountAnswer::Registered(profile, again) => Out::Registered(peer::Registered {
            profile: Some(profile_out(profile)),
            repeated_request: *again,
        }),
        AccountAnswer::Profile(profile) => Out::Profile(profile_out(profile)),
        AccountAnswer::Password(phc, version) => Out::Password(peer::Password {
            phc: phc.0.to_string(),
            version: *version,
        }),
        AccountAnswer::Sessions(sessions) => Out::Sessions(peer::LoginSessions {
            sessions: sessions.iter().map(session).collect(),
        }),
        AccountAnswer::DeviceToken(token, again) => Out::DeviceToken(peer::MadeDeviceToken {
            token: Some(token_out(token)),
            repeated_request: *again,
        }),
        AccountAnswer::DeviceTokens(tokens) => Out::DeviceTokens(peer::DeviceTokens {
            tokens: tokens.iter().map(token_out).collect(),
        }),
        AccountAnswer::Contacts(contacts, more) => Out::Contacts(peer::Contacts {
            contacts: contacts.iter().map(contact_out).collect(),
            more: *more,
        }),
        AccountAnswer::Contact(contact, is_new) => Out::Contact(peer::MadeContact {
            contact: contact.as_ref().map(contact_out),
            is_new: *is_new,
        }),
        AccountAnswer::PeerContact(asked) => Out::PeerContact(*asked),
        AccountAnswer::Reserved(id, came_before) => Out::Reserved(peer::Reserved {
            id: uuid_out(*id),
            came_before: *came_before,
        }),
    };
    peer::AccountAnswer { answer: Some(answer) }
}

pub(super) fn answer_in(answer: peer::AccountAnswer) -> Result<AccountAnswer> {
    use account_answer::Answer as In;
    Ok(match need(answer.answer, "account answer")? {
        In::Principal(principal) => AccountAnswer::Principal(Principal {
            user: user(&principal.user)?,
            name: principal.name.into(),
            credential: optional(&principal.credential, uuid)?,
            expires_at: principal.expires_at,
            scopes: scopes_in(principal.scopes),
            admin: principal.admin,
        }),
        In::ScramKeys(keys) => AccountAnswer::ScramKeys(scram_in(Some(keys))?),
        In::Conversations(page) => AccountAnswer::Conversations(
            all(page.conversations, |one| Ok((conversation(&one.id)?, one.group)))?,
            page.more,
        ),
        In::Registered(made) => {
            AccountAnswer::Registered(profile_in(need(made.profile, "profile")?)?, made.repeated_request)
        }
        In::Profile(profile) => AccountAnswer::Profile(profile_in(profile)?),
        In::Password(password) => AccountAnswer::Password(Secret(password.phc.into()), password.version),
        In::Sessions(sessions) => AccountAnswer::Sessions(all(sessions.sessions, |session| {
            Ok(LoginSession {
                id: uuid(&session.id)?,
                client: session.client,
                created_at: session.created_at,
                last_used_at: session.last_used_at,
                expires_at: session.expires_at,
            })
        })?),
        In::DeviceToken(made) => {
            AccountAnswer::DeviceToken(token_in(need(made.token, "token")?)?, made.repeated_request)
        }
        In::DeviceTokens(tokens) => AccountAnswer::DeviceTokens(all(tokens.tokens, token_in)?),
        In::Contacts(page) => AccountAnswer::Contacts(all(page.contacts, contact_in)?, page.more),
        In::Contact(made) => AccountAnswer::Contact(made.contact.map(contact_in).transpose()?, made.is_new),
        In::PeerContact(asked) => AccountAnswer::PeerContact(asked),
        In::Reserved(reserved) => AccountAnswer::Reserved(uuid(&reserved.id)?, reserved.came_before),
    })
}
