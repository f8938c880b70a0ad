//! The wiring: one function for each role, in the order in which they start, and the order in which they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use godwit_accounts::Accounts;
use godwit_broker::NetMetrics;
use godwit_cluster::own::Roles;
use godwit_cluster::{Clustered, MakeRoles, Role, Router, Workers};
use godwit_history_api::connect::Whereabouts;
use godwit_history_api::{Api, NotReady, Rate, Register};
use godwit_ingest::Ingest;
use godwit_store::Store;
use godwit_wire::account::Secret;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::task::AbortHandle;

use crate::cluster::Driver;
use crate::config::{Config, Engine, Registration};
use crate::doors::Doors;
use crate::metrics::{OfCluster, OfProcess, OfStore, OfWorkers};
use crate::node::{Addresses, Listeners, Node};
use crate::peering::{self, ClusterHomes, Maker, Peering};
use crate::search::Search;
use crate::shutdown::{DEADLINE, Shutdown};
use crate::tls::Certificates;
use crate::{StartError, mqtt, open_files};

/// Between two looks whether the last clients have gone.
const LOOK: Duration = Duration::from_millis(20);

/// A node at work. Dropping it ends the node.
pub struct Running {
    addresses: Addresses,
    /// As it was started.
    pub(crate) options: Config,
    pub(crate) router: Router,
    pub(crate) certificates: Option<Arc<Certificates>>,
    shutdown: Shutdown,
    main: Option<JoinHandle<()>>,
}

impl Running {
    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The way to its homes.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// How long its end may take: then the process may end as it is.
    pub fn deadline(&self) -> Duration {
        let drain = match self.options.store {
            Engine::Cql => self.options.drain_time(),
            Engine::Embedded => Duration::ZERO,
        };
        drain + DEADLINE
    }

    /// Waits until the shutdown that somebody began is through.
    pub fn wait(mut self) {
        self.join();
    }

    /// Ends the node and waits for it.
    pub fn stop(self) {
        self.shutdown.begin();
        self.wait();
    }

    fn join(&mut self) {
        if let Some(main) = self.main.take()
            && main.join().is_err()
        {
            tracing::error!("the node came to a sudden end");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.begin();
        self.join();
    }
}

/// What the roles count.
#[derive(Clone, Default)]
struct Metrics {
    accounts: godwit_accounts::Metrics,
    broker: mqtt::Metrics,
    ingest: godwit_ingest::Metrics,
    http: godwit_history_api::Metrics,
    unreadable: Counter,
    links: godwit_links::Metrics,
}

/// Starts a node and returns once it listens. `listeners`: given ones, else those of the configuration.
///
/// # Errors
/// Whatever keeps it from serving; then nothing is left running. A node of a cluster waits for its store as long as that does not answer, until
/// `shutdown` begins.
pub fn serve(
    config: Config,
    listeners: Option<Listeners>,
    shutdown: Shutdown,
) -> Result<Running, StartError> {
    let connections = open_files::raise();
    let mut node = Node::create(config, &shutdown)?;
    let mut listeners = match listeners {
        Some(given) => given,
        None => Listeners::bind(&node.settings)?,
    };
    let (addresses, metrics) = (listeners.addresses(), Metrics::default());
    let search = Search::start(&node, metrics.unreadable.clone())?;
    let closing = Shutdown::default();
    let mut doors = Doors::new(closing.clone(), connections.http)?;
    let opened = node.cluster.take();
    let peering = opened.as_ref().map(|_| Arc::new(Peering::default()));
    let clustered = opened.as_ref().zip(peering.as_ref());
    let clustered = clustered.map(|(opened, peering)| peering::of_workers(&opened.holdings, peering));
    let workers = start_workers(&node, &metrics, &search, connections.mqtt, clustered)?;
    search.report_to(workers.router(), doors.runtime.handle());
    let mut membership = None;
    let listening = opened.zip(peering).zip(listeners.peer.take());
    if let (Some(((opened, peering), listener)), Some(options)) = (listening, &node.settings.cluster) {
        let (maker, homes) = (
            Maker::new(options, listener, opened.peer_key.clone(), metrics.links.clone()),
            Arc::new(ClusterHomes::new(
                workers.router(),
                peering.clone(),
                search.shards(),
            )),
        );
        let (member, driver) = opened.join(homes.clone())?;
        homes.joined(member.clone());
        search.join(&member, workers.router(), doors.runtime.handle());
        let links = peering::keep(
            doors.runtime.handle(),
            peering,
            maker,
            &member,
            workers.router().clone(),
        );
        doors.membership = Some(member);
        membership = Some((driver, links));
    }
    let whereabouts = match &doors.membership {
        Some(membership) => peering::whereabouts(membership.clone()),
        None => godwit_history_api::connect::alone(addresses.reached()),
    };
    let not_ready = doors
        .membership
        .clone()
        .map(|membership| -> NotReady { Arc::new(move || membership.not_ready()) });
    let whereabouts = (whereabouts, not_ready);
    let api = start_api(&node, &metrics, workers.router(), whereabouts, &search);
    let store = node.store.clone();
    let mut parts = Parts {
        drain_time: node.settings.options.drain_time(),
        closing,
        net: metrics.broker.net.clone(),
        api,
        doors,
        workers,
        search,
        store,
        membership,
    };
    warn_of_doors(&node, &addresses);
    node.memory.watch(parts.doors.runtime.handle());
    if let Err(error) = parts.open_doors(&node, &metrics, listeners) {
        parts.end();
        return Err(error);
    }
    tell_start(&node, &addresses, connections.mqtt);

    let (router, certificates) = (parts.workers.router().clone(), node.certificates.clone());
    let (begun, options) = (shutdown.clone(), node.settings.options);
    let main = std::thread::Builder::new()
        .name("godwit-main".into())
        .spawn(move || parts.run(&begun))?;
    Ok(Running {
        addresses,
        options,
        router,
        certificates,
        shutdown,
        main: Some(main),
    })
}

/// What runs, and ends in this order.
struct Parts {
    /// How long giving up its shards may take.
    drain_time: Duration,
    /// The doors of HTTP close.
    closing: Shutdown,
    /// Who is still to go elsewhere.
    net: NetMetrics,
    api: Api,
    doors: Doors,
    workers: Workers,
    search: Search,
    store: Arc<dyn Store>,
    /// In a cluster: who joined it, and the links.
    membership: Option<(Driver, AbortHandle)>,
}

impl Parts {
    fn open_doors(&mut self, node: &Node, metrics: &Metrics, listeners: Listeners) -> Result<(), StartError> {
        let mut registry = registry(node, metrics, &self.search);
        self.doors.refused.register(&mut registry);
        registry.register_collector(Box::new(OfWorkers(self.workers.router().clone())));
        if let Some(membership) = &self.doors.membership {
            registry.register_collector(Box::new(OfCluster(membership.clone())));
        }
        self.doors
            .open_admin(node, &self.api, self.workers.router(), registry, listeners.admin)?;
        self.doors
            .open_http(node, &self.api, listeners.http, listeners.https)?;
        mqtt::open(self.workers.router(), node, listeners.mqtt, listeners.mqtts)
    }

    fn run(self, shutdown: &Shutdown) {
        self.doors.runtime.block_on(shutdown.begun());
        // Load balancers look elsewhere from the first moment.
        self.api.drain();
        self.leave();
        self.end();
    }

    /// In a cluster: gives the shards up before anything is closed, while its doors are open, so that others serve their users
    /// meanwhile. What is not done in time is left to the end, which loses nothing either.
    fn leave(&self) {
        let Some(membership) = &self.doors.membership else {
            return;
        };
        if self.drain_time.is_zero() || !membership.has_heirs() {
            return;
        }
        let began = Instant::now();
        tracing::info!("gives its shards up before it ends");
        membership.drain();
        let mut left = membership.left();
        let (net, router) = (&self.net, self.workers.router());
        let gone = async {
            // Its sender gone is the same.
            let _ = left.wait_for(|left| *left).await;
            // Who comes now is better off elsewhere.
            mqtt::close(router);
            while net.going() > 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        let in_time = self
            .doors
            .runtime
            .block_on(async { tokio::time::timeout(self.drain_time, gone).await });
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match in_time {
            Ok(()) => tracing::info!(took_ms, "its shards are others'"),
            Err(_) => tracing::warn!(
                took_ms,
                clients = net.going(),
                left = *membership.left().borrow(),
                "not all moved within drain_seconds: it ends all the same"
            ),
        }
    }

    /// The shutdown. Deadlines: HTTP 1.5 s, workers 8 s (their own, as a rule milliseconds), the rest is disk work.
    fn end(mut self) {
        tracing::info!("shutting down");
        // Doors let nobody in, requests under way are answered.
        self.api.drain();
        mqtt::close(self.workers.router());
        self.closing.begin();
        self.doors.closed();
        // MQTT clients are told and their connections closed; what was lazy is stored.
        self.workers.stop();
        drop(self.membership.take());
        // The index commits what it has read, so that the next start has little to read again.
        self.search.stop();
        self.doors.end();
        if let Err(error) = self.store.close() {
            tracing::error!(%error, "the store did not close; the next start reads its journal");
        }
        tracing::info!("ended");
    }
}

/// Accounts, broker and ingest on every worker.
fn start_workers(
    node: &Node,
    metrics: &Metrics,
    search: &Search,
    connections: u32,
    clustered: Option<Clustered>,
) -> Result<Workers, StartError> {
    let ingest = godwit_ingest::Config {
        confirmed: Some(search.confirmed(node)),
        searching: Some(search.searching()),
        ..godwit_ingest::Config::default()
    };
    let accounts = godwit_accounts::Config {
        direct: node.settings.options.direct,
    };
    let tokens = node.tokens.clone();
    let broker = mqtt::config(node, connections, &metrics.broker);
    let metrics = metrics.clone();
    let make: Arc<MakeRoles> = Arc::new(move |_worker| -> [Box<dyn Role>; 3] {
        [
            Box::new(Accounts::new(
                accounts.clone(),
                tokens.clone(),
                metrics.accounts.clone(),
            )),
            Box::new(mqtt::role(&broker, &metrics.broker)),
            Box::new(Ingest::new(ingest.clone(), metrics.ingest.clone())),
        ]
    });
    let (count, store) = (node.settings.workers, &node.store);
    Ok(match clustered {
        Some(clustered) => Workers::start_in(count, store, make, &|_| clustered.clone())?,
        None => Workers::start(count, store, make)?,
    })
}

fn start_api(
    node: &Node,
    metrics: &Metrics,
    router: &Router,
    (whereabouts, not_ready): (Whereabouts, Option<NotReady>),
    search: &Search,
) -> Api {
    let settings = &node.settings;
    let token = settings
        .registration_token
        .clone()
        .map(|token| Secret(token.0.into()));
    let registration = match (settings.registration, token) {
        (Registration::Open, _) => Register::Open,
        (Registration::Token, Some(token)) => Register::Token(token),
        _ => Register::Closed,
    };
    Api::new(godwit_history_api::Parts {
        whereabouts,
        router: router.clone(),
        store: node.store.clone(),
        tokens: node.tokens.clone(),
        search: Some(search.api()),
        config: godwit_history_api::Config {
            registration,
            origins: settings.options.cors_origins.clone(),
            registrations: match settings.options.registrations_per_second {
                0 => Rate::NONE,
                count => Rate::per_second(count, godwit_history_api::REGISTRATIONS_AT_ONCE),
            },
            ..godwit_history_api::Config::default()
        },
        metrics: metrics.http.clone(),
        clock: node.clock(),
        not_ready,
        mqtt: settings.does(Roles::BROKER).then(|| mqtt::upgrade(router)),
    })
}

/// Everything that `/metrics` shows.
fn registry(node: &Node, metrics: &Metrics, search: &Search) -> Registry {
    let mut registry = Registry::default();
    metrics.accounts.register(&mut registry);
    metrics.broker.register(&mut registry);
    metrics.ingest.register(&mut registry);
    metrics.http.register(&mut registry);
    if node.settings.cluster.is_some() {
        metrics.links.register(&mut registry);
    }
    let help = "Stored entries that could not be put into the search index";
    registry.register("godwit_search_unreadable", help, metrics.unreadable.clone());
    registry.register_collector(Box::new(OfStore(node.store.clone())));
    registry.register_collector(search.collector(node));
    registry.register_collector(Box::new(OfProcess));
    node.memory.register(&mut registry);
    registry
}

/// What an operator wants to see in the log of every start.
fn tell_start(node: &Node, addresses: &Addresses, connections: u32) {
    let shown = |address: Option<SocketAddr>| address.map_or("off".to_owned(), |address| address.to_string());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        data_dir = %node.folder.path().display(),
        mqtt = shown(addresses.mqtt),
        mqtts = shown(addresses.mqtts),
        http = shown(addresses.http),
        https = shown(addresses.https),
        admin = shown(addresses.admin),
        workers = node.settings.workers,
        start = node.store.start_view(),
        connections,
        "serving"
    );
}

/// What an operator should know of a door before anybody comes through it.
fn warn_of_doors(node: &Node, addresses: &Addresses) {
    if node.settings.options.anonymous {
        tracing::warn!("anonymous clients are let in: they read and write every ordinary topic");
    }
    if addresses.admin.is_some_and(|address| !address.ip().is_loopback()) {
        tracing::warn!("the admin listener is not on a loopback address: who reaches it sees the metrics");
    }
}
