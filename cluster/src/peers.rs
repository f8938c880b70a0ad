//! What a worker needs of other nodes, and what it is told of who owns what: the contracts between the worker loop and the
//! links, and between the loop and `own::drive`. How links are made, authenticated and bounded is theirs; where a key is,
//! is decided in `away`.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use godwit_store::View;
use godwit_store::coordination::{Asked, StartId};
use godwit_wire::peer::{PeerAnswer, PeerRequest};
use tokio::sync::oneshot;

use crate::own::{Holdings, Homes, Millis, Standing};
use crate::router::Router;

/// The bytes of one client's connection, between the node where it came and its user's home. Nothing blocks. Dropped, it is
/// closed as a socket is: what was written is still sent, and the other side reads to the end and can write no more.
pub trait Pipe: Send {
    /// Reads what came; 0 at the end. There is window for more when it is [taken](Self::taken).
    ///
    /// # Errors
    /// `WouldBlock`: nothing came; others: the way to the other node broke, and what had come is lost.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// Writes as much as there is window for. Of nothing at all: finds out whether the other side takes more.
    ///
    /// # Errors
    /// `WouldBlock`: the other side has not taken what was written; `BrokenPipe`: it takes nothing more, or
    /// [`Self::shutdown`] was called; others: the way to the other node broke.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// So many bytes of what was read are where they belong: of the client's end, in its socket.
    fn taken(&mut self, bytes: usize);

    /// Nothing more will be written; the other side reads what was, and then the end.
    fn shutdown(&mut self);

    /// What to call from now on, from any thread, when something came where nothing was left, when there is window where there
    /// was none, and at the end; once at once if something is there already. It does not block.
    fn on_ready(&mut self, on_ready: Arc<dyn Fn() + Send + Sync>);
}

/// The links to other nodes, as workers use them. No call blocks.
///
/// An implementation MUST:
/// 1. deliver the requests to one node in the order in which they were given, or not at all;
/// 2. answer each request that it took and that has an id exactly once, by [`Router::peers_answered`]: as the other node
///    did, or `unavailable` when the link broke (it may have been done), or cannot be made;
/// 3. give what comes in to [`Router::peer_asks`], in order, and what is left there again; answer what that refuses;
/// 4. call [`Router::look`] when there is room again where [`Peers::send`] left requests lying.
pub trait Peers: Send + Sync {
    /// Takes requests for `node` from the front, as many as there is room for. Their ids are unique over the process.
    fn send(&self, node: StartId, requests: &mut VecDeque<PeerRequest>);

    /// Where MQTT clients reach a node, for Server Reference.
    fn reference(&self, node: StartId) -> Option<Arc<str>> {
        let _ = node;
        None
    }

    /// A way for a client's bytes to a node, which is told `about` it. It takes at least 32 KiB before it blocks.
    ///
    /// # Errors
    /// There is no link now, or it has all the connections that it may.
    fn splice(&self, node: StartId, about: Bytes) -> io::Result<Box<dyn Pipe>> {
        let _ = (node, about);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes all of these answers to requests of `node`. What it asked over a link that is gone is dropped.
    fn answer(&self, node: StartId, answers: &mut Vec<(u64, PeerAnswer)>);
}

/// What a node's workers need to be part of a cluster.
#[derive(Clone)]
pub struct Clustered {
    /// What the node holds.
    pub holdings: Arc<Holdings>,
    /// CLOCK_BOOTTIME in milliseconds, as `own::drive` has it: a worker whose node's lease is over does nothing.
    pub clock: fn() -> Millis,
    /// The links.
    pub peers: Arc<dyn Peers>,
}

/// What changes about who owns what, told to each worker in order.
#[derive(Clone)]
pub(crate) enum Move {
    /// These slots are this node's, of all workers.
    TakeUp(View, Arc<[u16]>),
    /// They are another's. The guard is dropped when the worker has let go.
    LetGo(View, Arc<[u16]>, Arc<Guard>),
    /// Members or owners are others. With the start of this node.
    Stands(Arc<Standing>, StartId),
}

/// Says by its end that every worker has let go.
pub(crate) struct Guard(Mutex<Option<oneshot::Sender<()>>>);

impl Drop for Guard {
    fn drop(&mut self) {
        let sender = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sender.take() {
            // The driver may have ended: then nobody waits.
            let _ = sender.send(());
        }
    }
}

/// The workers of a node as what lives on its slots.
pub struct WorkersHomes {
    router: Router,
    /// The present start of the node: its driver's.
    start: Mutex<StartId>,
}

impl WorkersHomes {
    /// The homes behind this router, before the node's first start.
    pub fn new(router: Router) -> Self {
        Self {
            router,
            start: Mutex::new(StartId::nil()),
        }
    }

    /// A start begins: what is told from now on is told to it.
    pub fn begin(&self, start: StartId) {
        *self.start.lock().unwrap_or_else(PoisonError::into_inner) = start;
    }
}

impl Homes for WorkersHomes {
    fn let_go(&self, view: View, slots: Vec<u16>) -> Asked<'_, ()> {
        let (sender, receiver) = oneshot::channel();
        let guard = Arc::new(Guard(Mutex::new(Some(sender))));
        self.router.tell_move(&Move::LetGo(view, slots.into(), guard));
        Box::pin(async move {
            // A worker that ended has let go as well.
            let _ = receiver.await;
        })
    }

    fn take_up(&self, view: View, slots: Vec<u16>) {
        self.router.tell_move(&Move::TakeUp(view, slots.into()));
    }

    fn moved(&self, standing: Arc<Standing>) {
        let start = *self.start.lock().unwrap_or_else(PoisonError::into_inner);
        self.router.tell_move(&Move::Stands(standing, start));
    }
}
