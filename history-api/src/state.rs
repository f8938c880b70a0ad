//! What all handlers share, and how they reach a home: one call with a time-out, one way to read an answer.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use godwit_accounts::Tokens;
use godwit_cluster::Router;
use godwit_store::{Read, ReadAnswer, Store};
use godwit_wire::account::{AccountAnswer, AccountCommand, Profile};
use godwit_wire::address::Customer;
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Command, ConversationCommand, Named};
use godwit_wire::ids::{ConversationId, Key, UserId};
use tokio::sync::Semaphore;

use crate::connect::Whereabouts;
use crate::guesses::Guesses;
use crate::health::NotReady;
use crate::limits::Limiter;
use crate::metrics::Metrics;
use crate::mqtt::MqttUpgrade;
use crate::problem::Problem;
use crate::shares::Shares;
use crate::{Config, SearchIndex, unread, waiting};

/// How long a home may take to answer; the work goes on behind it.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests handled at a time; beyond it they are refused as `unavailable`.
pub const REQUESTS: usize = 1_024;

/// Tells the time, milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What the API is made of.
pub struct Parts {
    /// The way to every home.
    pub router: Router,
    /// For reads that no home is needed for.
    pub store: Arc<dyn Store>,
    /// The installation's signing key.
    pub tokens: Arc<Tokens>,
    /// `None`: searches are answered `unavailable`.
    pub search: Option<SearchIndex>,
    /// See [`Config`].
    pub config: Config,
    /// Counters.
    pub metrics: Metrics,
    /// The time of what is issued and what ends; in a cluster the members'.
    pub clock: Clock,
    /// Which node holds a key.
    pub whereabouts: Whereabouts,
    /// What keeps the node from serving beside the store and its end; `None`: nothing does.
    pub not_ready: Option<NotReady>,
    /// Where connections upgraded at `/mqtt` go; `None`: there is no such path.
    pub mqtt: Option<MqttUpgrade>,
}

/// The API's state. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

/// Behind [`Api`].
pub struct Inner {
    pub(crate) parts: Parts,
    pub(crate) guesses: Guesses,
    pub(crate) per_address: Limiter<Customer>,
    pub(crate) per_user: Limiter<UserId>,
    /// Exchanges of refresh tokens, by the SHA-256 of the part of them that stays: only who has one can use its allowance up.
    pub(crate) refreshes: Limiter<[u8; 32]>,
    pub(crate) registrations: Limiter<Customer>,
    /// Password hashes computed at a time: each takes a core.
    pub(crate) hashing: Arc<Semaphore>,
    pub(crate) requests: Arc<Semaphore>,
    /// Bytes of bodies and answers that wait for clients.
    pub(crate) waiting: Shares,
    /// Unread bodies thrown away at a time.
    pub(crate) drains: Arc<Semaphore>,
    draining: AtomicBool,
    began: Instant,
}

impl std::ops::Deref for Api {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Api {
    /// A state in which nobody has called yet.
    pub fn new(parts: Parts) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Arc::new(Inner {
            guesses: Guesses::default(),
            per_address: Limiter::new(parts.config.per_address),
            per_user: Limiter::new(parts.config.per_user),
            refreshes: Limiter::new(parts.config.per_user),
            registrations: Limiter::new(parts.config.registrations),
            hashing: Arc::new(Semaphore::new(cores.div_ceil(2))),
            requests: Arc::new(Semaphore::new(REQUESTS)),
            waiting: waiting::room(),
            drains: Arc::new(Semaphore::new(unread::AT_A_TIME)),
            draining: AtomicBool::new(false),
            began: Instant::now(),
            parts,
        }))
    }

    /// From now on `/readyz` says that this node goes away.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn now(&self) -> u64 {
        (self.parts.clock)()
    }

    /// Milliseconds since the start, whatever the machine's clock is set to: for what counts how often.
    pub(crate) fn passed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn call(&self, key: Key, command: Command) -> Result<Answer, Problem> {
        match in_time(self.parts.router.call(key, command)).await? {
            Answer::Refused(refusal) => Err(refusal.into()),
            answer => Ok(answer),
        }
    }

    pub(crate) async fn account(
        &self,
        user: UserId,
        command: AccountCommand,
    ) -> Result<AccountAnswer, Problem> {
        match self
            .call(Key::User(user), Command::Account(Box::new(command)))
            .await?
        {
            Answer::Account(answer) => Ok(*answer),
            _ => Err(unexpected()),
        }
    }

    /// A command that is answered `Done`.
    pub(crate) async fn account_done(&self, user: UserId, command: AccountCommand) -> Result<(), Problem> {
        self.call(Key::User(user), Command::Account(Box::new(command)))
            .await
            .map(drop)
    }

    pub(crate) async fn conversation(
        &self,
        id: ConversationId,
        command: ConversationCommand,
    ) -> Result<Answer, Problem> {
        self.call(Key::Conversation(id), Command::Conversation(command))
            .await
    }

    /// Tells a conversation something that no answer is waited for.
    pub(crate) fn tell(&self, id: ConversationId, command: ConversationCommand) -> Result<(), Problem> {
        if self
            .parts
            .router
            .tell(Key::Conversation(id), Command::Conversation(command))
        {
            Ok(())
        } else {
            Err(Refusal::unavailable().into())
        }
    }

    /// Reads the store on a thread that may block.
    pub(crate) async fn read(&self, read: Read) -> Result<ReadAnswer, Problem> {
        let store = self.parts.store.clone();
        let task = tokio::task::spawn_blocking(move || store.read_now(&[read]));
        match in_time(task).await? {
            Ok(Ok(mut answers)) => answers.pop().ok_or_else(unexpected),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a read for a request failed");
                Err(Refusal::unavailable().into())
            }
            Err(_) => Err(unexpected()),
        }
    }

    pub(crate) async fn profile(&self, user: UserId) -> Result<Profile, Problem> {
        match self.account(user, AccountCommand::Profile).await? {
            AccountAnswer::Profile(profile) => Ok(profile),
            _ => Err(unexpected()),
        }
    }

    pub(crate) async fn named(&self, user: UserId) -> Result<Named, Problem> {
        let profile = self.profile(user).await?;
        Ok(Named {
            user: profile.user,
            name: profile.name,
        })
    }

    /// Runs a password hash or its check on a blocking thread, a few at a time.
    pub(crate) async fn hashing<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let permit = in_time(self.hashing.clone().acquire_owned())
            .await?
            .map_err(|_| unexpected())?;
        // The permit goes along: the work is not cancelled with the request.
        let task = tokio::task::spawn_blocking(move || (work(), permit));
        task.await.map(|(done, _)| done).map_err(|_| unexpected())
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(ANSWER_TIMEOUT, future)
        .await
        .map_err(|_| Refusal::unavailable().into())
}

/// A home answered something else than its contract says.
pub(crate) fn unexpected() -> Problem {
    tracing::error!("a home answered another question than was asked");
    Problem::new(Code::Unavailable, "this did not work; it may later")
}
