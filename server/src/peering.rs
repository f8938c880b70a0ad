//! A node's workers among others: tells them what they hold, and carries what they ask of other nodes over the links of
//! the node's present start. What the links do is `godwit-links`, who owns what is `godwit_cluster::own`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use godwit_cluster::own::{About, Holdings, Homes, Standing};
use godwit_cluster::{Clustered, Peers, Pipe, Router, WorkersHomes};
use godwit_history_api::connect::{Reached, Whereabouts};
use godwit_links::{Auth, Channel, Links, Local, Settings, Tls};
use godwit_store::View;
use godwit_store::coordination::{Asked, StartId};
use godwit_wire::account::Secret;
use godwit_wire::command::{Command, TopicCommand};
use godwit_wire::ids::Key;
use godwit_wire::peer::{PeerAnswer, PeerRequest};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::StartError;
use crate::cluster::{Membership, boot_ms};
use crate::config::{Cluster, Hidden, PeerTrust};
use crate::search::IndexShards;

/// A client's connection that is passed on.
struct ClientPipe(Channel);

impl Pipe for ClientPipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn taken(&mut self, bytes: usize) {
        self.0.taken(bytes);
    }

    fn shutdown(&mut self) {
        self.0.shutdown();
    }

    fn on_ready(&mut self, on_ready: Arc<dyn Fn() + Send + Sync>) {
        self.0.on_ready(on_ready);
    }
}

/// What the links bring goes to the workers, and to whoever finds out about views.
struct ToWorkers(Router, Arc<Holdings>);

impl Local for ToWorkers {
    fn asked(&self, from: StartId, requests: &mut VecDeque<PeerRequest>, refused: &mut Vec<u64>) {
        hear_of_views(&self.1, requests);
        self.0.peer_asks(from, requests, refused);
    }

    fn answered(&self, answers: Vec<(u64, PeerAnswer)>) {
        self.0.peers_answered(answers);
    }

    fn room(&self) {
        self.0.look();
    }

    fn channel(&self, from: StartId, about: bytes::Bytes, channel: Channel) {
        godwit_broker::spliced(&self.0, from, &about, Box::new(ClientPipe(channel)));
    }
}

/// A request by a later view says that there is one; and those that only say so end here.
fn hear_of_views(holdings: &Holdings, requests: &mut VecDeque<PeerRequest>) {
    let latest = requests.iter().map(|request| request.view).max().unwrap_or(0);
    if latest > holdings.current() {
        holdings.hint(latest);
    }
    let word = |request: &PeerRequest| match request.command {
        Command::Topic(TopicCommand::View { confirmed }) => Some(confirmed),
        _ => None,
    };
    let words = requests.iter().filter_map(word);
    let Some(any_confirmed) = words.reduce(|one, other| one || other) else {
        return;
    };
    if any_confirmed {
        holdings.look();
    }
    requests.retain(|request| word(request).is_none());
}

/// The links of the present start, and what the others say about themselves.
#[derive(Default)]
struct Present {
    links: Option<Links>,
    others: HashMap<StartId, About>,
}

/// The node's way to the others, whichever start it is at.
#[derive(Default)]
pub(crate) struct Peering {
    present: RwLock<Present>,
}

impl Peering {
    fn present(&self) -> std::sync::RwLockReadGuard<'_, Present> {
        self.present.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where MQTT clients reach a node.
    fn mqtt_of(&self, node: StartId) -> Option<Arc<str>> {
        let present = self.present();
        let about = present.others.get(&node)?;
        (!about.mqtt.is_empty()).then(|| about.mqtt.as_str().into())
    }
}

impl Peering {
    /// Tells the others that this start stands in a view, or has let go of what it takes. Who is not reached finds out by itself.
    fn tell(&self, view: View, confirmed: bool, others: impl Iterator<Item = StartId>) {
        for node in others {
            let request = PeerRequest {
                id: 0,
                view,
                key: Key::Node(node),
                command: Command::Topic(TopicCommand::View { confirmed }),
            };
            self.send(node, &mut VecDeque::from([request]));
        }
    }
}

impl Peers for Peering {
    fn send(&self, node: StartId, requests: &mut VecDeque<PeerRequest>) {
        let links = {
            let present = self.present();
            // One that is in the view and has not been looked up yet: it is given again.
            match &present.links {
                Some(links) if present.others.contains_key(&node) => links.clone(),
                _ => return,
            }
        };
        links.send(node, requests);
    }

    fn answer(&self, node: StartId, answers: &mut Vec<(u64, PeerAnswer)>) {
        let links = self.present().links.clone();
        match links {
            Some(links) => links.answer(node, answers),
            None => answers.clear(),
        }
    }

    fn splice(&self, node: StartId, about: bytes::Bytes) -> io::Result<Box<dyn Pipe>> {
        let links = self.present().links.clone();
        let links = links.ok_or(io::ErrorKind::NotConnected)?;
        Ok(Box::new(ClientPipe(links.open_channel(node, about)?)))
    }

    fn reference(&self, node: StartId) -> Option<Arc<str>> {
        self.mqtt_of(node)
    }
}

/// What links are started with, for each start anew.
pub(crate) struct Maker {
    listener: TcpListener,
    cluster: String,
    node: String,
    trust: PeerTrust,
    key: Option<Hidden>,
    metrics: godwit_links::Metrics,
}

impl Maker {
    /// For a node that others reach at this listener.
    pub(crate) fn new(
        options: &Cluster,
        listener: TcpListener,
        key: Option<Hidden>,
        metrics: godwit_links::Metrics,
    ) -> Self {
        Self {
            listener,
            cluster: options.cql.cluster.clone(),
            node: options.about.name.clone(),
            trust: options.trust.clone(),
            key,
            metrics,
        }
    }

    fn auth(&self) -> Result<Auth, StartError> {
        if let Some(key) = &self.key {
            return Ok(Auth::Key(Secret(key.0.clone().into())));
        }
        let PeerTrust::Tls { cert, key, ca } = &self.trust else {
            return Err(StartError::Tls(
                "nodes have neither a key nor certificates".into(),
            ));
        };
        let read = |file: &std::path::Path| {
            let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            all.map_err(|error| StartError::Tls(format!("{}: {error}", file.display())))
        };
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| StartError::Tls(format!("{}: {error}", key.display())))?;
        Ok(Auth::Tls(Tls {
            chain: read(cert)?,
            key: private,
            ca: read(ca)?,
            name: None,
        }))
    }

    fn make(
        &self,
        runtime: &Handle,
        start: StartId,
        router: &Router,
        holdings: &Arc<Holdings>,
    ) -> Result<Links, StartError> {
        let settings = Settings {
            listen: self.listener.try_clone()?,
            cluster: self.cluster.clone(),
            start,
            node: self.node.clone(),
            auth: Some(self.auth()?),
        };
        let local = Arc::new(ToWorkers(router.clone(), holdings.clone()));
        Links::start(runtime, settings, local, self.metrics.clone())
            .map_err(|error| StartError::Tls(error.to_string()))
    }
}

/// What lives on the node's shards: its workers.
pub(crate) struct ClusterHomes {
    workers: WorkersHomes,
    peering: Arc<Peering>,
    /// As it was told last.
    standing: Mutex<Option<Arc<Standing>>>,
    /// Who waits until it is stored that this node has let go.
    heirs: Mutex<BTreeSet<StartId>>,
    index: IndexShards,
    membership: OnceLock<Membership>,
}

impl ClusterHomes {
    pub(crate) fn new(router: &Router, peering: Arc<Peering>, index: IndexShards) -> Self {
        Self {
            workers: WorkersHomes::new(router.clone()),
            peering,
            standing: Mutex::default(),
            heirs: Mutex::default(),
            index,
            membership: OnceLock::new(),
        }
    }

    /// The node is about to join.
    pub(crate) fn joined(&self, membership: Membership) {
        // Once: a node joins once, its starts are the driver's.
        let _ = self.membership.set(membership);
    }

    fn last(&self) -> MutexGuard<'_, Option<Arc<Standing>>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heirs(&self) -> MutexGuard<'_, BTreeSet<StartId>> {
        self.heirs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self) -> StartId {
        loop {
            if let Some(start) = self.membership.get().and_then(|of| *of.start().borrow()) {
                return start;
            }
            // Its own thread is a moment ahead of who started it.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

impl Homes for ClusterHomes {
    fn let_go(&self, view: View, slots: Vec<u16>) -> Asked<'_, ()> {
        if let Some(standing) = &*self.last() {
            self.heirs().extend(heirs(standing, &slots));
        }
        self.index.let_go(&slots);
        self.workers.let_go(view, slots)
    }

    fn take_up(&self, view: View, slots: Vec<u16>) {
        self.index.take_up(&slots);
        self.workers.take_up(view, slots);
    }

    fn moved(&self, standing: Arc<Standing>) {
        let start = self.start();
        self.workers.begin(start);
        self.workers.moved(standing.clone());
        let before = self.last().replace(standing.clone());
        let was_in = |before: &Standing| before.body.seats.iter().any(|seat| seat.start == start);
        let is_new = !before.as_deref().is_some_and(was_in);
        let own = standing.body.seats.iter().find(|seat| seat.start == start);
        let leaves = own.is_some_and(|seat| seat.leaving);
        let is_later = before.is_none_or(|before| before.number != standing.number);
        // Of a view that others made they have told, or find out: not everybody tells everybody.
        if is_later && (is_new || leaves) {
            let all = standing.body.seats.iter().map(|seat| seat.start);
            self.peering
                .tell(standing.number, false, all.filter(|node| *node != start));
        }
    }

    fn confirmed(&self, view: View) {
        let heirs = std::mem::take(&mut *self.heirs());
        let standing = self.last().as_ref().map_or(view, |standing| standing.number);
        self.peering.tell(view.min(standing), true, heirs.into_iter());
    }
}

/// Whose these slots are by a view.
fn heirs(standing: &Standing, slots: &[u16]) -> BTreeSet<StartId> {
    let owners = slots.iter().filter_map(|slot| standing.map.owner(*slot));
    let seats = owners.filter_map(|at| standing.body.seats.get(at));
    seats.map(|seat| seat.start).collect()
}

/// Which node holds a key, by this node's view and what the others say about themselves.
pub(crate) fn whereabouts(membership: Membership) -> Whereabouts {
    let (standing, peers) = (membership.standing(), membership.peers());
    Arc::new(move |key| {
        let standing = standing.borrow().clone()?;
        let owner = standing.map.owner(godwit_cluster::slot_of(key))?;
        let seat = standing.body.seats.get(owner)?;
        let about = peers.borrow().get(&seat.start)?.clone();
        let some = |address: String| Some(address).filter(|address| !address.is_empty());
        Some(Reached {
            mqtt: some(about.mqtt),
            http: some(about.http),
        })
    })
}

/// How workers reach the cluster.
pub(crate) fn of_workers(holdings: &Arc<Holdings>, peering: &Arc<Peering>) -> Clustered {
    Clustered {
        holdings: holdings.clone(),
        clock: boot_ms,
        peers: peering.clone(),
    }
}

/// Keeps the links to those that are there, until it is aborted.
pub(crate) fn keep(
    runtime: &Handle,
    peering: Arc<Peering>,
    maker: Maker,
    membership: &Membership,
    router: Router,
) -> AbortHandle {
    let (mut start, mut peers) = (membership.start(), membership.peers());
    let (handle, holdings) = (runtime.clone(), membership.holdings().clone());
    let task = runtime.spawn(async move {
        let mut of = None;
        loop {
            let now = *start.borrow_and_update();
            if let Some(now) = now.filter(|now| of != Some(*now)) {
                let old = peering
                    .present
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .links
                    .take();
                if let Some(old) = old {
                    old.stop();
                }
                match maker.make(&handle, now, &router, &holdings) {
                    Ok(links) => {
                        of = Some(now);
                        let mut present = peering.present.write().unwrap_or_else(PoisonError::into_inner);
                        present.links = Some(links);
                    }
                    Err(error) => tracing::error!(%error, "no links to other nodes; tried again"),
                }
            }
            let others = peers.borrow_and_update().clone();
            let links = peering.present().links.clone();
            if let Some(links) = links {
                let known: Vec<(StartId, String)> = others
                    .iter()
                    .map(|(node, about)| (*node, about.peer.clone()))
                    .collect();
                links.known(&known);
            }
            {
                let mut present = peering.present.write().unwrap_or_else(PoisonError::into_inner);
                present.others = others
                    .iter()
                    .map(|(node, about)| (*node, about.clone()))
                    .collect();
            }
            router.look();
            tokio::select! {
                changed = start.changed() => if changed.is_err() { return },
                changed = peers.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
            }
        }
    });
    task.abort_handle()
}

#[cfg(test)]
mod tests;
