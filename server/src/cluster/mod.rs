//! A node as one of many: its store, what it holds, its secrets, and the thread on which it joins, beats and leaves. What lives on its shards is
//! given from outside ([`Homes`]); the rules are `godwit_cluster::own`'s, the operator's view is `admin`.

pub mod admin;
mod clock;
mod look;
mod patient;
mod ready;
mod secrets;
mod wall;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use godwit_accounts::Tokens;
use godwit_cluster::own::{self, About, Calendar, Holdings, Homes, Layout, Standing};
use godwit_store::coordination::{Asked, StartId};
use godwit_store::cql::{Cql, CqlCoordination};
use godwit_store::{Ownership, Scope, Table, Verdict, View};
use tokio::sync::watch;
use uuid::Uuid;

pub use clock::boot_ms;

use crate::StartError;
use crate::config::{self, Hidden};
use crate::shutdown::Shutdown;
pub use look::Peers;
use look::Seen;
use ready::Ready;
use wall::History;

/// Every table of the product, as an engine wants them that makes and prepares them beforehand.
pub fn tables() -> Vec<Table> {
    let mut all = Vec::new();
    all.extend(godwit_accounts::tables::ALL);
    all.extend(godwit_broker::tables::ALL);
    all.extend(godwit_ingest::ALL_TABLES);
    all.extend([secrets::SECRETS, look::DRAINS]);
    all
}

/// What the engine asks: what is held, and whether the lease lasts at this moment.
struct Acting(Arc<Holdings>);

impl Ownership for Acting {
    fn verdict(&self, scope: Scope, shown: View) -> Verdict {
        self.0.verdict(scope, shown)
    }

    fn acts(&self) -> bool {
        self.0.may_act(boot_ms())
    }
}

/// The store and the secrets of a cluster, opened; this node is in no view yet.
pub struct Opened {
    /// The engine, for workers and tools.
    pub store: Arc<Cql>,
    /// What this node holds, for all its threads.
    pub holdings: Arc<Holdings>,
    /// All nodes' key.
    pub tokens: Arc<Tokens>,
    /// What nodes show each other; `None`: certificates.
    pub peer_key: Option<Hidden>,
    about: About,
    name: String,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("about", &self.about)
            .finish_non_exhaustive()
    }
}

/// Connects to the store, checks its schema, reads (or makes) the secrets: as often as it takes until the store answers, or `shutdown` begins.
///
/// # Errors
/// The store has no schema of this build and cluster; a secret is damaged; [`StartError::Stopped`].
pub fn open(settings: &config::Cluster, shutdown: &Shutdown) -> Result<Opened, StartError> {
    let holdings = Arc::new(Holdings::new(Layout::PRODUCT));
    let ownership = Arc::new(Acting(holdings.clone()));
    let options = settings.cql.clone();
    let connect = move || Ok(Cql::open(&options, &tables(), ownership.clone())?);
    let store = Arc::new(patient::until_answered(shutdown, connect)?);
    // Both may be asked again: an attempt whose answer is lost is read back, whoever's secret is there is everybody's.
    let (asked, file, trust) = (
        store.clone(),
        settings.signing_key.clone(),
        settings.trust.clone(),
    );
    let secrets = move || {
        let tokens = secrets::tokens(&asked, file.as_deref())?;
        Ok((tokens, secrets::peer_key(&asked, &trust)?))
    };
    let (tokens, peer_key) = patient::until_answered(shutdown, secrets)?;
    Ok(Opened {
        store,
        holdings,
        tokens: Arc::new(tokens),
        peer_key,
        about: settings.about.clone(),
        name: settings.cql.cluster.clone(),
    })
}

impl Opened {
    /// Starts the thread on which this node joins, and joins again when the others took it for dead. `homes` is what lives on its shards.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn join(self, homes: Arc<dyn Homes>) -> Result<(Membership, Driver), StartError> {
        let (standing, standing_seen) = watch::channel(None);
        let (start, start_seen) = watch::channel(None);
        let (drain, drain_asked) = watch::channel(false);
        let (left, left_seen) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let ready = Arc::new(Ready::default());
        let member = Arc::new(Inner {
            coordination: self.store.coordination(),
            store: self.store.clone(),
            holdings: self.holdings.clone(),
            cluster: self.name,
            about: self.about.clone(),
            standing: standing_seen,
            start: start_seen,
            drain,
            left: left_seen,
            seen: Mutex::new(Seen::default()),
            ready: ready.clone(),
            history: Mutex::default(),
            peers: watch::Sender::default(),
        });
        // Until it was compared with the others'.
        self.holdings.set_calendar(Calendar {
            doubted: true,
            ..Calendar::default()
        });
        let first = Arc::new(AtomicBool::new(true));
        let told = Told {
            homes,
            store: self.store.clone(),
            standing,
            first: first.clone(),
            ready: ready.clone(),
        };
        let fresh = Box::new(move || {
            let id = Uuid::new_v4();
            first.store(true, Ordering::SeqCst);
            ready.begins();
            start.send_replace(Some(id));
            (id, Uuid::new_v4().as_u64_pair().0)
        });
        let settings = own::Settings::new(self.about, self.holdings, fresh);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let membership = Membership(member);
        let looking = membership.clone();
        let thread = std::thread::Builder::new()
            .name("godwit-cluster".into())
            .spawn(move || {
                runtime.block_on(run(settings, told, looking, drain_asked, stopped));
                left.send_replace(true);
                // A read may be under way that nobody waits for.
                runtime.shutdown_background();
            })?;
        let driver = Driver {
            stop,
            thread: Some(thread),
        };
        Ok((membership, driver))
    }
}

/// Until the node has left, or is stopped.
async fn run(
    settings: own::Settings,
    told: Told,
    membership: Membership,
    drain: watch::Receiver<bool>,
    mut stopped: watch::Receiver<bool>,
) {
    let coordination = membership.0.coordination.clone();
    let driven = async {
        look::look_at_first(&membership).await;
        own::drive(settings, &coordination, &clock::Boot, &told, drain).await;
    };
    tokio::select! {
        () = driven => tracing::info!("this node has left the cluster"),
        // Its sender gone is the same.
        _ = stopped.wait_for(|stopped| *stopped) => {}
        // Never ends.
        () = look::look(&membership) => {}
    }
}

/// Tells what lives on the shards, and before it whoever looks at the view.
struct Told {
    homes: Arc<dyn Homes>,
    store: Arc<Cql>,
    standing: watch::Sender<Option<Arc<Standing>>>,
    /// The present start was in no view yet.
    first: Arc<AtomicBool>,
    ready: Arc<Ready>,
}

impl Homes for Told {
    fn let_go(&self, view: View, slots: Vec<u16>) -> Asked<'_, ()> {
        tracing::debug!(view, slots = slots.len(), "lets go of what a view takes");
        self.homes.let_go(view, slots)
    }

    fn take_up(&self, view: View, slots: Vec<u16>) {
        tracing::debug!(view, slots = slots.len(), "takes up what a view gives");
        self.homes.take_up(view, slots);
    }

    fn moved(&self, standing: Arc<Standing>) {
        if self.first.swap(false, Ordering::SeqCst) {
            self.store.set_start_view(standing.number);
        }
        tracing::debug!(
            view = standing.number,
            unsettled = standing.body.unsettled.len(),
            "stands in a view"
        );
        self.ready.stands(standing.body.unsettled.len());
        self.standing.send_replace(Some(standing.clone()));
        self.homes.moved(standing);
    }

    fn confirmed(&self, view: View) {
        tracing::debug!(view, "has told the store by which view it acts");
        self.homes.confirmed(view);
    }
}

struct Inner {
    store: Arc<Cql>,
    coordination: CqlCoordination,
    holdings: Arc<Holdings>,
    cluster: String,
    about: About,
    standing: watch::Receiver<Option<Arc<Standing>>>,
    start: watch::Receiver<Option<StartId>>,
    drain: watch::Sender<bool>,
    left: watch::Receiver<bool>,
    seen: Mutex<Seen>,
    ready: Arc<Ready>,
    /// What comparisons of calendars have shown.
    history: Mutex<History>,
    peers: watch::Sender<Peers>,
}

/// This node's place in the cluster: cheap to clone, for any thread.
#[derive(Clone)]
pub struct Membership(Arc<Inner>);

impl Membership {
    /// The view this node stands in; `None` until its first.
    pub fn standing(&self) -> watch::Receiver<Option<Arc<Standing>>> {
        self.0.standing.clone()
    }

    /// The id of the present start: another one after the others took this node for dead. `None` until the first, for a moment.
    pub fn start(&self) -> watch::Receiver<Option<StartId>> {
        self.0.start.clone()
    }

    /// What all starts say about themselves, this one among them: read when the view has changed, and every two seconds. A member is there as soon as
    /// its rows were read once after it joined.
    pub fn peers(&self) -> watch::Receiver<Peers> {
        self.0.peers.subscribe()
    }

    /// What it holds.
    pub fn holdings(&self) -> &Arc<Holdings> {
        &self.0.holdings
    }

    /// How many slots it has taken up.
    pub fn held(&self) -> usize {
        let slots = (0..Layout::PRODUCT.slots()).filter_map(|slot| u16::try_from(slot).ok());
        slots.filter(|slot| self.0.holdings.held(*slot).is_some()).count()
    }

    /// Asks it to give up its shards and leave; `left` says when it has.
    pub fn drain(&self) {
        self.0.drain.send_replace(true);
    }

    /// Whether another member stays that could take something over.
    pub fn has_heirs(&self) -> bool {
        let (standing, own) = (self.0.standing.borrow(), *self.0.start.borrow());
        let mut seats = standing.iter().flat_map(|standing| &standing.body.seats);
        seats.any(|seat| Some(seat.start) != own && !seat.leaving)
    }

    /// Why it is not to be sent clients, in one line; `None`: it is.
    pub fn not_ready(&self) -> Option<String> {
        let drains = *self.0.drain.borrow();
        self.0.ready.why_not(drains, self.0.holdings.silence(boot_ms()))
    }

    /// Whether it has left, or was stopped.
    pub fn left(&self) -> watch::Receiver<bool> {
        self.0.left.clone()
    }

    /// How far this machine's calendar is ahead of the median of the members', milliseconds; `None`: not known yet.
    pub fn clock_ahead_ms(&self) -> Option<i64> {
        self.history().ahead_ms
    }

    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread. Dropped, it ends without leaving: to the others as if the process died.
pub struct Driver {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the cluster's rows came to a sudden end");
        }
    }
}

#[cfg(test)]
mod tests;
