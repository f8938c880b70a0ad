//! Commands and answers of the accounts role, and what the doors know about who is at them.

use std::sync::Arc;

use uuid::Uuid;

use crate::command::Named;
use crate::ids::{ConversationId, UserId};

/// A credential as it came, not yet judged. Its text never reaches a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Box<str>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What the server has of a device token to judge a SCRAM-SHA-256 exchange (RFC 5802, section 3). Lets nobody in.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// 16 bytes.
    pub salt: [u8; 16],
    /// Of PBKDF2.
    pub iterations: u32,
    /// SHA-256 of the client's key.
    pub stored_key: [u8; 32],
    /// What the server signs with.
    pub server_key: [u8; 32],
}

impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramKeys(…)")
    }
}

/// Who is at a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// User id (of an anonymous client: made from its client id).
    pub user: UserId,
    /// Immutable user name; empty for an anonymous client.
    pub name: Arc<str>,
    /// The login session or device token behind it, for revocation; `None` for an anonymous client.
    pub credential: Option<Uuid>,
    /// When the credential ends, milliseconds since 1970; 0: never.
    pub expires_at: u64,
    /// What it may be used for.
    pub scopes: Scopes,
    /// Administrator of the installation.
    pub admin: bool,
}

impl Principal {
    /// Who a client without credentials is: it may use ordinary topics, as far as the rules let anonymous clients.
    pub fn anonymous(user: UserId) -> Self {
        Self {
            user,
            name: "".into(),
            credential: None,
            expires_at: 0,
            scopes: Scopes {
                topics: true,
                ..Scopes::default()
            },
            admin: false,
        }
    }

    /// Whether nobody logged in.
    pub fn is_anonymous(&self) -> bool {
        self.credential.is_none()
    }
}

/// What a token may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Scopes {
    /// `me/…`, `c/…`, `p/…`.
    pub chat: bool,
    /// Ordinary topics.
    pub topics: bool,
    /// REST.
    pub rest: bool,
}

/// For the accounts role at a user's home.
#[derive(Clone, Debug)]
pub enum AccountCommand {
    /// Judges a device token or an access token whose signature was checked. Answer: `Principal`.
    Authenticate {
        /// As it came.
        secret: Secret,
    },
    /// What a SCRAM exchange with a device token is judged by. Answer: `ScramKeys`, also for one that is not there: keys
    /// that no proof fits.
    ScramKeys {
        /// The token's id as the client wrote it, at most 64 bytes.
        token: Box<str>,
    },
    /// Judges a device token whose proof the caller has checked. Answer: `Principal`.
    CheckDeviceToken {
        /// Which.
        id: Uuid,
    },
    /// Judges a client certificate that the TLS handshake has verified and that names this user. Answer: `Principal` with the
    /// scopes of a device, `chat` and `topics`.
    CheckCertificate {
        /// Stands for this very certificate.
        certificate: Uuid,
        /// When it ends, milliseconds since 1970.
        expires_at: u64,
    },
    /// Who a credential that this user came by before stands for today, also one that has ended meanwhile by its time: for
    /// what is done later in its name. Answer: `Principal`; `unauthenticated` if it was revoked, or its user is gone.
    Standing {
        /// As in [`Principal::credential`].
        credential: Uuid,
    },
    /// Whether `by` may write to this user (not blocked; config `direct`). Answer: `Done` or `not_found`.
    MayWrite {
        /// Who wants to.
        by: UserId,
    },
    /// This user came into a conversation. Answer: `Done`, durable; `quota` over the limit of groups.
    Joined {
        /// Which.
        conversation: ConversationId,
        /// Group or one-to-one.
        group: bool,
    },
    /// This user is no longer in it. Answer: `Done`, durable.
    Left {
        /// Which.
        conversation: ConversationId,
    },
    /// A page of this user's conversations. Answer: `Conversations`.
    Conversations {
        /// Only ids above.
        after: Option<ConversationId>,
        /// At most.
        limit: u32,
    },
    /// Judges a login session whose access token's signature and end the caller has checked. Answer: `Principal`.
    CheckSession {
        /// The token's `sid`.
        session: Uuid,
        /// The token's end, milliseconds since 1970.
        expires_at: u64,
    },
    /// Makes this user. Answer: `Registered`; `conflict` if the name or e-mail is another's.
    Register(Box<Registration>),
    /// Answer: `Profile`.
    Profile,
    /// Answer: `Profile`.
    ChangeProfile {
        /// At most 128 bytes; `None`: stays.
        display_name: Option<String>,
    },
    /// What a password is judged by, outside the worker. Answer: `Password`.
    Password,
    /// A login session begins. Answer: `Principal`; `unauthenticated` if the password changed since it was judged.
    Login {
        /// Version of the password that was judged.
        password_version: u64,
        /// The session.
        session: NewLoginSession,
    },
    /// A refresh token is exchanged. Answer: `Principal`. One that was exchanged before ends its session.
    Refresh {
        /// The session it names.
        session: Uuid,
        /// SHA-256 of the part that stays the same for the whole session.
        family_hash: [u8; 32],
        /// SHA-256 of the whole token.
        token_hash: [u8; 32],
        /// SHA-256 of the token that takes its place.
        next_hash: [u8; 32],
    },
    /// Sets a password and ends the other login sessions. Answer: `Done`; `conflict` if it changed meanwhile.
    ChangePassword {
        /// Version of the password that was judged.
        password_version: u64,
        /// The new one, as a PHC string.
        phc: Secret,
        /// The session that goes on.
        keep: Option<Uuid>,
    },
    /// Answer: `Sessions`.
    Sessions,
    /// Ends one login session. Answer: `Done`, or `not_found`.
    EndSession {
        /// Which.
        session: Uuid,
    },
    /// Ends all login sessions but one. Answer: `Done`.
    EndOtherSessions {
        /// The one that goes on.
        keep: Uuid,
    },
    /// Makes a device token. Answer: `DeviceToken`.
    CreateDeviceToken(Box<NewDeviceToken>),
    /// Answer: `DeviceTokens`.
    DeviceTokens,
    /// Ends a device token. Answer: `Done`, or `not_found`.
    EndDeviceToken {
        /// Which.
        id: Uuid,
    },
    /// A page of contacts by user id. Answer: `Contacts`.
    Contacts {
        /// Only ids above.
        after: Option<UserId>,
        /// At most.
        limit: u32,
    },
    /// Changes what this user and another are to each other. Answer: `Contact`.
    SetContact {
        /// The other one.
        other: Named,
        /// What.
        change: ContactChange,
    },
    /// From the other's home: that user asked for contact, or ended it. Answer: `PeerContact`.
    PeerContact {
        /// Whose home tells.
        by: Named,
        /// Asked (`true`) or ended.
        asks: bool,
    },
    /// An `Idempotency-Key` of this user. Answer: `Reserved`; `conflict` if it came with another request before.
    Reserve {
        /// The key.
        key: IdempotencyKey,
        /// The id under which the request is done if the key is new.
        id: Uuid,
    },
}

/// A user to be made.
#[derive(Clone, Debug)]
pub struct Registration {
    /// User name: [`is_user_name`](crate::topic::is_user_name) holds.
    pub name: Arc<str>,
    /// At most 128 bytes; may be empty.
    pub display_name: String,
    /// Lower case, checked for form.
    pub email: Option<String>,
    /// Password, as a PHC string.
    pub phc: Secret,
    /// Administrator of the installation.
    pub admin: bool,
    /// Of the request.
    pub key: Option<IdempotencyKey>,
}

/// An `Idempotency-Key` with what was asked, both as hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// First 16 bytes of SHA-256 of the key and of the path it was sent to.
    pub key: [u8; 16],
    /// First 16 bytes of SHA-256 of the request's content.
    pub digest: [u8; 16],
}

/// A login session to be begun.
#[derive(Clone, Debug)]
pub struct NewLoginSession {
    /// Its id.
    pub id: Uuid,
    /// SHA-256 of the refresh token's part that stays the same.
    pub family_hash: [u8; 32],
    /// SHA-256 of the first refresh token.
    pub token_hash: [u8; 32],
    /// What the client says it is (User-Agent), at most 256 bytes.
    pub client: String,
}

/// A login session as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginSession {
    /// Its id.
    pub id: Uuid,
    /// What the client said it is.
    pub client: String,
    /// Milliseconds since 1970.
    pub created_at: u64,
    /// Last login or refresh, milliseconds since 1970.
    pub last_used_at: u64,
    /// Without a refresh until then it ends, milliseconds since 1970.
    pub expires_at: u64,
}

/// A device token to be made.
#[derive(Clone, Debug)]
pub struct NewDeviceToken {
    /// Its id.
    pub id: Uuid,
    /// SHA-256 of the token.
    pub token_hash: [u8; 32],
    /// For SCRAM-SHA-256.
    pub scram: ScramKeys,
    /// Name for people, at most 128 bytes.
    pub name: String,
    /// What it may be used for.
    pub scopes: Scopes,
    /// When it ends, milliseconds since 1970; 0: never.
    pub expires_at: u64,
    /// Of the request.
    pub key: Option<IdempotencyKey>,
}

/// A device token as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceToken {
    /// Its id.
    pub id: Uuid,
    /// Name for people.
    pub name: String,
    /// What it may be used for.
    pub scopes: Scopes,
    /// Milliseconds since 1970.
    pub created_at: u64,
    /// Milliseconds since 1970; 0: never.
    pub expires_at: u64,
}

/// A user as the own home knows it; what others see of it is the API's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Id.
    pub user: UserId,
    /// Immutable user name.
    pub name: Arc<str>,
    /// For people; may be empty.
    pub display_name: String,
    /// Only for the user.
    pub email: Option<String>,
    /// Administrator of the installation.
    pub admin: bool,
    /// Milliseconds since 1970.
    pub created_at: u64,
}

/// What is done about a contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactChange {
    /// Asks for contact, or accepts the other's asking.
    Ask,
    /// Accepts; `conflict` if the other has not asked.
    Accept,
    /// Blocks.
    Block,
    /// Takes contact, asking and blocking away.
    Remove,
}

/// What another user is to this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The other one.
    pub other: Named,
    /// What.
    pub state: ContactState,
    /// Since when, milliseconds since 1970.
    pub since: u64,
}

/// See [`Contact`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactState {
    /// This user asked.
    RequestedByMe,
    /// The other one asked.
    RequestedByThem,
    /// Both asked.
    Accepted,
    /// This user blocks the other.
    Blocked,
}

/// What the accounts role answers, besides `Done` and refusals.
#[derive(Clone, Debug)]
pub enum AccountAnswer {
    /// Of `Authenticate`.
    Principal(Principal),
    /// Of `ScramKeys`.
    ScramKeys(ScramKeys),
    /// Of `Conversations`: `(id, group)`, and whether there is more.
    Conversations(Vec<(ConversationId, bool)>, bool),
    /// Of `Register`: the user, and whether this repeats an earlier request.
    Registered(Profile, bool),
    /// Of `Profile` and `ChangeProfile`.
    Profile(Profile),
    /// Of `Password`: PHC string and version.
    Password(Secret, u64),
    /// Of `Sessions`, oldest first.
    Sessions(Vec<LoginSession>),
    /// Of `CreateDeviceToken`, and whether this repeats an earlier request.
    DeviceToken(DeviceToken, bool),
    /// Of `DeviceTokens`, oldest first.
    DeviceTokens(Vec<DeviceToken>),
    /// Of `Contacts`, and whether there is more.
    Contacts(Vec<Contact>, bool),
    /// Of `SetContact`: what it is now (`None`: nothing), and whether that is new.
    Contact(Option<Contact>, bool),
    /// Of `PeerContact`: whether the answering user asked for contact too.
    PeerContact(bool),
    /// Of `Reserve`: the id under which the request is done, and whether the key came before.
    Reserved(Uuid, bool),
}
