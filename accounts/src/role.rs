//! The accounts role of one worker: who takes which command, and how an answer waits for its write. Which users are in
//! memory is in `cache`; what a command means in `auth`, `people`, `contacts`, `membership`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use godwit_cluster::{Cx, Flow, Loading, Reply, Role, Tag};
use godwit_store::{Op, Outcome, ReadAnswer, View};
use godwit_wire::account::{AccountAnswer, AccountCommand, ContactChange, Registration};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Command, Named, UserCommand};
use godwit_wire::ids::{Key, UserId};
use uuid::Uuid;

use crate::cache::{Cached, Loader, SWEEP};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::state::User;
use crate::tokens::Tokens;

/// Writes and questions of one worker under way; beyond it commands that need one are refused as `unavailable`.
pub(crate) const PENDING: usize = 16 * 1024;
/// Answers of one user that wait for writes under way; beyond it they are refused as `unavailable`.
const WAITING: usize = 1_024;

/// The accounts role: the homes of users, as far as accounts go.
pub struct Accounts {
    pub(crate) config: Config,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) metrics: Metrics,
    pub(crate) users: HashMap<UserId, Cached>,
    /// In the order in which they were loaded.
    pub(crate) loaded: VecDeque<UserId>,
    pub(crate) loading: HashMap<UserId, Loader>,
    pub(crate) pending: HashMap<Tag, Pending>,
    next_tag: Tag,
    pub(crate) sweeping: bool,
}

/// What a completion or an answer is for.
pub(crate) enum Pending {
    /// A user name or an e-mail address is being claimed.
    Claim {
        user: UserId,
        email: bool,
        registration: Box<Registration>,
        reply: Reply,
    },
    /// The answer waits for a write.
    Write {
        user: UserId,
        reply: Reply,
        answer: Answer,
    },
    /// The conversation's home is told of a block or its end.
    Blocking {
        user: UserId,
        other: Named,
        change: ContactChange,
        reply: Reply,
    },
    /// The other user's home is told.
    Peer {
        user: UserId,
        other: Named,
        change: ContactChange,
        reply: Reply,
    },
    /// A page of conversations is being read.
    List {
        user: UserId,
        limit: usize,
        reply: Reply,
    },
}

impl Pending {
    fn user(&self) -> UserId {
        match self {
            Self::Claim { user, .. }
            | Self::Write { user, .. }
            | Self::Blocking { user, .. }
            | Self::Peer { user, .. }
            | Self::List { user, .. } => *user,
        }
    }
}

impl Accounts {
    /// The role of one worker. `tokens` is the installation's signing key.
    pub fn new(config: Config, tokens: Arc<Tokens>, metrics: Metrics) -> Self {
        Self {
            config,
            tokens,
            metrics,
            users: HashMap::new(),
            loaded: VecDeque::new(),
            loading: HashMap::new(),
            pending: HashMap::new(),
            next_tag: SWEEP + 1,
            sweeping: false,
        }
    }

    /// The user, which the caller knows to be loaded; also one that does not exist (without profile).
    pub(crate) fn user(&mut self, user: UserId) -> &mut User {
        &mut self.cached(user).user
    }

    /// A user that exists.
    pub(crate) fn existing(&mut self, user: UserId) -> Option<&mut User> {
        Some(self.user(user)).filter(|user| user.profile.is_some())
    }

    pub(crate) fn registering(&mut self, user: UserId) -> &mut bool {
        &mut self.cached(user).registering
    }

    /// Commands come here only behind [`Self::missing`], and whom something is under way for is not put out: nobody is
    /// made here who was not loaded.
    pub(crate) fn cached(&mut self, user: UserId) -> &mut Cached {
        debug_assert!(self.users.contains_key(&user), "a user that was not loaded");
        self.users.entry(user).or_default()
    }

    /// Keeps `pending` until its completion or answer, for which the tag is.
    pub(crate) fn pend(&mut self, pending: Pending) -> Tag {
        let tag = self.next_tag;
        // 2^56 tags last longer than any process.
        self.next_tag += 1;
        self.cached(pending.user()).busy += 1;
        self.pending.insert(tag, pending);
        tag
    }

    /// Answers once these writes are durable.
    pub(crate) fn write(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        ops: Vec<Op>,
        reply: Reply,
        answer: Answer,
    ) {
        if ops.is_empty() {
            self.settled(cx, user, reply, answer);
        } else {
            let tag = self.pend(Pending::Write { user, reply, answer });
            cx.store(&Key::User(user), tag, ops);
        }
    }

    /// Answers from memory, once every write under way for this user is durable.
    pub(crate) fn settled(&mut self, cx: &mut Cx<'_>, user: UserId, reply: Reply, answer: Answer) {
        let cached = self.cached(user);
        if cached.busy == 0 {
            cx.answer(reply, answer);
        } else if cached.waiting.len() < WAITING {
            cached.waiting.push((reply, answer));
        } else {
            cx.answer(reply, Refusal::unavailable().into());
        }
    }

    /// The user's connections with this credential are closed.
    pub(crate) fn tell_ended(cx: &mut Cx<'_>, user: UserId, credential: Uuid) {
        let command = UserCommand::CredentialEnded { credential };
        cx.tell(Key::User(user), Command::User(command));
    }

    /// Takes out what waited under `tag`, and lets go what waited for the user's writes if this was the last.
    fn done(&mut self, tag: Tag) -> Option<Pending> {
        let pending = self.pending.remove(&tag)?;
        let cached = self.cached(pending.user());
        cached.busy = cached.busy.saturating_sub(1);
        Some(pending)
    }

    fn release(&mut self, cx: &mut Cx<'_>, user: UserId) {
        if let Some(cached) = self.users.get_mut(&user)
            && cached.busy == 0
        {
            for (reply, answer) in std::mem::take(&mut cached.waiting) {
                cx.answer(reply, answer);
            }
        }
    }

    fn take(&mut self, cx: &mut Cx<'_>, user: UserId, command: AccountCommand, reply: Reply) {
        use AccountCommand as C;
        match command {
            C::Authenticate { secret } => {
                let answer = self.authenticate(cx, user, &secret);
                cx.answer(reply, answer);
            }
            C::CheckSession { session, expires_at } => {
                let answer = self.check_session(cx, user, session, expires_at);
                cx.answer(reply, answer);
            }
            C::ScramKeys { token } => {
                let answer = self.scram_keys(cx, user, &token);
                cx.answer(reply, answer);
            }
            C::CheckDeviceToken { id } => {
                let answer = self.check_device_token(cx, user, id);
                cx.answer(reply, answer);
            }
            C::CheckCertificate {
                certificate,
                expires_at,
            } => {
                let answer = self.check_certificate(cx, user, certificate, expires_at);
                cx.answer(reply, answer);
            }
            C::Standing { credential } => {
                let answer = self.standing(user, credential);
                cx.answer(reply, answer);
            }
            C::MayWrite { by } => {
                let answer = self.may_write(user, by);
                cx.answer(reply, answer);
            }
            _ if self.pending.len() >= PENDING => cx.answer(reply, Refusal::unavailable().into()),
            C::Register(registration) => self.register(cx, user, registration, reply),
            _ if self.user(user).profile.is_none() => {
                let answer = match command {
                    C::Login { .. } | C::Refresh { .. } => unauthenticated(),
                    _ => Refusal::not_found().into(),
                };
                cx.answer(reply, answer);
            }
            C::Profile => self.profile(cx, user, reply),
            C::ChangeProfile { display_name } => self.change_profile(cx, user, display_name, reply),
            C::Password => self.password(cx, user, reply),
            C::Login {
                password_version,
                session,
            } => self.login(cx, user, password_version, session, reply),
            C::Refresh {
                session,
                family_hash,
                token_hash,
                next_hash,
            } => {
                self.refresh(cx, user, session, &[family_hash, token_hash, next_hash], reply);
            }
            C::ChangePassword {
                password_version,
                phc,
                keep,
            } => {
                self.change_password(cx, user, password_version, phc, keep, reply);
            }
            C::Sessions => self.sessions(cx, user, reply),
            C::EndSession { session } => self.end_session(cx, user, session, reply),
            C::EndOtherSessions { keep } => self.end_other_sessions(cx, user, keep, reply),
            C::CreateDeviceToken(token) => self.create_device_token(cx, user, *token, reply),
            C::DeviceTokens => self.device_tokens(cx, user, reply),
            C::EndDeviceToken { id } => self.end_device_token(cx, user, id, reply),
            C::Reserve { key, id } => self.reserve(cx, user, key, id, reply),
            C::Contacts { after, limit } => self.contacts(cx, user, after, limit, reply),
            C::SetContact { other, change } => self.set_contact(cx, user, other, change, reply),
            C::PeerContact { by, asks } => self.peer_contact(cx, user, by, asks, reply),
            C::Joined { conversation, group } => self.joined(cx, user, conversation, group, reply),
            C::Left { conversation } => self.left(cx, user, conversation, reply),
            C::Conversations { after, limit } => self.conversations(cx, user, after, limit, reply),
        }
    }
}

impl Role for Accounts {
    fn apply(&mut self, cx: &mut Cx<'_>, key: &Key, command: Command, reply: Reply) -> Flow {
        let (Key::User(user), Command::Account(account)) = (key, command) else {
            cx.answer(
                reply,
                Refusal::new(Code::Malformed, "a command for another kind of home").into(),
            );
            return Flow::Taken;
        };
        if let Some(reads) = self.missing(*user, &account, cx.scope(key)) {
            return Flow::Load {
                command: Command::Account(account),
                reply,
                reads,
            };
        }
        self.cached(*user).used_ms = cx.now().mono_ms;
        self.take(cx, *user, *account, reply);
        Flow::Taken
    }

    fn loaded(&mut self, cx: &mut Cx<'_>, key: &Key, answers: Vec<ReadAnswer>) -> Loading {
        match key {
            Key::User(user) => self.take_rows(cx, *user, answers),
            _ => Loading::Ready,
        }
    }

    fn load_failed(&mut self, _cx: &mut Cx<'_>, key: &Key) {
        if let Key::User(user) = key {
            self.loading.remove(user);
        }
    }

    fn stored(&mut self, cx: &mut Cx<'_>, tag: Tag, outcome: Outcome) {
        let Some(pending) = self.done(tag) else { return };
        let user = pending.user();
        match (pending, outcome) {
            (_, Outcome::Unknown | Outcome::Lost) => {}
            (
                Pending::Claim {
                    user,
                    email,
                    registration,
                    reply,
                },
                outcome,
            ) => {
                self.claimed(cx, user, email, registration, reply, outcome);
            }
            (Pending::Write { reply, answer, .. }, _) => cx.answer(reply, answer),
            _ => tracing::error!("a completion came for what was not stored"),
        }
        self.release(cx, user);
    }

    fn read(&mut self, cx: &mut Cx<'_>, tag: Tag, answers: Option<Vec<ReadAnswer>>) {
        let Some(pending) = self.done(tag) else { return };
        let user = pending.user();
        if let Pending::List { limit, reply, .. } = pending {
            let answer = answers.map_or_else(
                || Refusal::unavailable().into(),
                |answers| Self::conversation_page(answers, limit),
            );
            cx.answer(reply, answer);
        }
        self.release(cx, user);
    }

    fn answered(&mut self, cx: &mut Cx<'_>, tag: Tag, answer: Answer) {
        let Some(pending) = self.done(tag) else { return };
        let user = pending.user();
        match pending {
            Pending::Blocking {
                other, change, reply, ..
            } => {
                self.blocking_answered(cx, user, other, change, reply, answer);
            }
            Pending::Peer {
                other, change, reply, ..
            } => {
                self.peer_answered(cx, user, other, change, reply, answer);
            }
            _ => tracing::error!("an answer came for what was not asked"),
        }
        self.release(cx, user);
    }

    fn timer(&mut self, cx: &mut Cx<'_>, tag: Tag) {
        if tag == SWEEP {
            self.sweep(cx);
        }
    }

    fn taken_up(&mut self, _cx: &mut Cx<'_>, _shards: &[u16], _view: View) {}

    fn given_up(&mut self, _cx: &mut Cx<'_>, shards: &[u16], _view: View) {
        let lost: HashSet<u16> = shards.iter().copied().collect();
        let gone = |user: &UserId| lost.contains(&Key::User(*user).shard());
        let before = self.users.len();
        self.users.retain(|user, _| !gone(user));
        self.loading.retain(|user, _| !gone(user));
        self.pending.retain(|_, pending| !gone(&pending.user()));
        self.loaded.retain(|user| !gone(user));
        self.metrics
            .cached
            .dec_by(i64::try_from(before - self.users.len()).unwrap_or(i64::MAX));
    }

    fn quiet(&self) -> bool {
        self.pending.is_empty()
    }
}

/// An answer of this role.
pub(crate) fn answer(answer: AccountAnswer) -> Answer {
    Answer::Account(Box::new(answer))
}

pub(crate) fn unauthenticated() -> Answer {
    Refusal::new(Code::Unauthenticated, "the credential is not valid").into()
}

/// A partition of [`USER_CONVERSATIONS`].
pub(crate) fn conversations_of(user: UserId, group: bool) -> Bytes {
    let mut partition = user.0.as_bytes().to_vec();
    partition.push(if group { b'g' } else { b'd' });
    partition.into()
}
