//! The links between the nodes of one cluster: one gRPC stream a pair, over which nodes send each other the requests and
//! answers of `wire::peer` (docs/decisions/0011-many-nodes.md). Who owns what, and what is asked again, is the cluster's.

mod accept;
mod batch;
mod channel;
mod dial;
mod error;
mod hello;
mod http;
mod hub;
mod link;
mod metrics;
mod session;
mod settings;
mod stream;
mod taken;
mod tls;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use godwit_wire::peer::{PeerAnswer, PeerRequest};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use error::LinkError;
use hello::{Me, Met};
use link::{Link, refuse_all};
use tls::Secured;

pub use channel::{Channel, OnReady, WINDOW};
pub use hub::{ABOUT_BYTES, CHANNELS};
pub use metrics::Metrics;
pub use settings::{Auth, KEY_BYTES, Settings, StartError, Tls};
pub use taken::{ANSWER_BYTES, CREDIT, DOWN, FRAME_BYTES, FRAME_REQUESTS, TAKEN_BYTES};

/// One start of a node, as `store::coordination` has it.
pub type StartId = Uuid;

/// How often requests are looked for that have waited [`DOWN`] for a link.
const LOOK: Duration = Duration::from_millis(250);
/// At most one line a so long about calls that were refused: whoever reaches the address can make them.
const REFUSED_LINE: Duration = Duration::from_secs(1);

/// The node that has the links. Its functions are called from tasks of the links, and from inside [`Links::send`] and
/// [`Links::known`]: they MUST NOT block, and MUST NOT call [`Links`] while they hold a lock that they need themselves.
pub trait Local: Send + Sync {
    /// Requests of another node. Takes as many from the front as there is room for; what is left is given again, before what
    /// came behind it, some milliseconds later or with what comes next. All requests of one node come in the order in which
    /// it sent them. Those with an id are to be answered by [`Links::answer`]; or their ids are put into `refused`, and the
    /// link answers them `unavailable`.
    fn asked(&self, from: StartId, requests: &mut VecDeque<PeerRequest>, refused: &mut Vec<u64>);

    /// Answers to requests that [`Links::send`] took: exactly one for each with an id. `unavailable` where the link broke
    /// (it may have been done), or there was none for [`DOWN`], or the node is not known.
    fn answered(&self, answers: Vec<(u64, PeerAnswer)>);

    /// There is room again on a link where [`Links::send`] left requests lying: they may be given again.
    fn room(&self);

    /// Another node opened a channel: the connection of a client that came there, as `about` says. Dropped, it is closed.
    fn channel(&self, from: StartId, about: Bytes, channel: Channel);
}

/// The links of a node; cheap to clone.
#[derive(Clone)]
pub struct Links {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    me: Me,
    secured: Option<Secured>,
    local: Arc<dyn Local>,
    metrics: Metrics,
    runtime: Handle,
    stop: CancellationToken,
    address: SocketAddr,
    links: RwLock<HashMap<StartId, Arc<Link>>>,
    /// When a refused call was last logged.
    said: Mutex<Option<Instant>>,
}

impl Links {
    /// Listens, on a runtime with IO and time. Calls nobody before [`Self::known`].
    ///
    /// # Errors
    /// No authentication, or one that cannot be used; the listener.
    pub fn start(
        runtime: &Handle,
        settings: Settings,
        local: Arc<dyn Local>,
        metrics: Metrics,
    ) -> Result<Self, StartError> {
        let (key, secured) = match settings.auth {
            None => return Err(StartError::NoAuth),
            Some(Auth::Open) => {
                tracing::warn!("the links between nodes have no authentication");
                (None, None)
            }
            Some(Auth::Key(key)) if key.0.len() < KEY_BYTES => return Err(StartError::ShortKey),
            Some(Auth::Key(key)) => (Some(key), None),
            Some(Auth::Tls(tls)) => (None, Some(Secured::new(tls)?)),
        };
        let address = settings.listen.local_addr()?;
        settings.listen.set_nonblocking(true)?;
        let inner = Arc::new(Inner {
            me: Me {
                cluster: settings.cluster,
                start: settings.start,
                node: settings.node,
                key,
            },
            secured,
            local,
            metrics,
            runtime: runtime.clone(),
            stop: CancellationToken::new(),
            address,
            links: RwLock::default(),
            said: Mutex::default(),
        });
        let _entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(settings.listen)?;
        runtime.spawn(accept::listen(inner.clone(), listener));
        runtime.spawn(expire(inner.clone()));
        Ok(Self { inner })
    }

    /// Where other nodes come to.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// Which nodes there are now, each with its peer address (`host:port`); this one is left out. To be called at each
    /// change of the view, before requests are sent by it. What is under way to a node that is gone is answered `unavailable`.
    pub fn known(&self, nodes: &[(StartId, String)]) {
        let inner = &self.inner;
        let others = nodes.iter().filter(|(node, _)| *node != inner.me.start);
        let wanted: HashSet<(StartId, &str)> = others.map(|(node, addr)| (*node, addr.as_str())).collect();
        let mut gone = Vec::new();
        let mut links = inner.links.write().unwrap_or_else(PoisonError::into_inner);
        if inner.stop.is_cancelled() {
            return;
        }
        links.retain(|node, link| {
            let stays = wanted.contains(&(*node, link.addr.as_str()));
            if !stays {
                gone.push(link.clone());
            }
            stays
        });
        for (node, addr) in wanted {
            links.entry(node).or_insert_with(|| {
                let (local, metrics) = (inner.local.clone(), inner.metrics.clone());
                let is_caller = inner.me.start < node;
                let link = Arc::new(Link::new(node, addr.to_owned(), is_caller, local, metrics));
                if is_caller {
                    inner.runtime.spawn(dial::keep(inner.clone(), link.clone()));
                }
                link
            });
        }
        drop(links);
        for link in gone {
            link.end();
        }
    }

    /// Takes requests for a node from the front, as many as there is room for: at most [`CREDIT`] and [`TAKEN_BYTES`] that
    /// it has not taken. What is left lying may be given again at [`Local::room`]. Requests are given to the node in the order in
    /// which they are taken here, or not at all. Does not block; from any thread. Those for a node that is not known are
    /// answered at once.
    ///
    /// Ids other than 0 MUST be used once in the life of this process.
    pub fn send(&self, node: StartId, requests: &mut VecDeque<PeerRequest>) {
        if requests.is_empty() {
            return;
        }
        match self.inner.link(node) {
            Some(link) => link.send(requests),
            None => refuse_all(&*self.inner.local, &self.inner.metrics, requests),
        }
    }

    /// Answers requests that came by [`Local::asked`], by their ids. Always takes all: there are no more than requests. Those
    /// to a node whose link is down are dropped: it knows, and has given its own.
    pub fn answer(&self, node: StartId, answers: &mut Vec<(u64, PeerAnswer)>) {
        match self.inner.link(node) {
            Some(link) => link.answer(answers),
            None => answers.clear(),
        }
    }

    /// Opens a channel to a node. What is written at once is sent with it; whether the node takes it is seen by its end.
    /// Channels live as long as the link's stream.
    ///
    /// # Errors
    /// `NotConnected`: there is no link; `QuotaExceeded`: it has [`CHANNELS`]; `InvalidInput`: `about` is longer than
    /// [`ABOUT_BYTES`].
    pub fn open_channel(&self, node: StartId, about: Bytes) -> io::Result<Channel> {
        let link = self.inner.link(node).ok_or(io::ErrorKind::NotConnected)?;
        link.open_channel(about)
    }

    /// Whether there is a link now. It may have ended when this returns.
    pub fn is_up(&self, node: StartId) -> bool {
        self.inner.link(node).is_some_and(|link| link.is_up())
    }

    /// Ends all links and listens no more. What is under way is answered `unavailable`, as what is sent from now on.
    pub fn stop(&self) {
        self.inner.stop.cancel();
        let mut links = self.inner.links.write().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<_> = links.drain().map(|(_, link)| link).collect();
        drop(links);
        for link in gone {
            link.end();
        }
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.inner;
        f.debug_struct("Links")
            .field("start", &inner.me.start)
            .field("address", &inner.address)
            .finish()
    }
}

impl Inner {
    fn link(&self, node: StartId) -> Option<Arc<Link>> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.get(&node).cloned()
    }

    /// A call was refused.
    fn refused(&self, from: SocketAddr, met: Option<&Met>, error: &LinkError) {
        self.metrics.strangers.inc();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_some_and(|said| said.elapsed() < REFUSED_LINE) {
            return;
        }
        *said = Some(Instant::now());
        drop(said);
        match met {
            // Views do not change everywhere at once.
            Some(met) => {
                tracing::info!(%from, node = %met.start, name = met.node, %error, "a node was not let in")
            }
            None => tracing::warn!(%from, %error, "a call to the peer address was refused"),
        }
    }
}

/// Refuses what has waited long enough for a link.
async fn expire(inner: Arc<Inner>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            _ = look.tick() => {}
        }
        let links = inner.links.read().unwrap_or_else(PoisonError::into_inner);
        let links: Vec<_> = links.values().cloned().collect();
        let now = Instant::now();
        for link in links {
            link.expire(now);
        }
    }
}
