//! The wiring: one function for each role, in the order in which they start, and the order in which they end.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use godwit_accounts::Accounts;
use godwit_cluster::{MakeRoles, Role, Router, Workers};
use godwit_history_api::{Api, Register, SearchIndex};
use godwit_ingest::Ingest;
use godwit_search::{Feed, FeedConfig, Indexed};
use godwit_store::Store;
use godwit_wire::account::Secret;
use godwit_wire::command::{Command, ConversationCommand};
use godwit_wire::ids::{ConversationId, Key};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::admin::{self, Admin};
use crate::config::{Config, Registration};
use crate::http::Door;
use crate::metrics::{OfProcess, OfSearch, OfStore};
use crate::node::{Addresses, Listeners, Node, unix_ms};
use crate::shutdown::{HTTP_GRACE, Shutdown};
use crate::source::StoreSource;
use crate::tls::Certificate;
use crate::{StartError, mqtt, open_files};

/// Threads for HTTP: it is the smaller door, and the workers have the cores.
const HTTP_THREADS: usize = 2;
/// Longest wait for blocking calls of HTTP (password hashes, reads) at the end.
const BLOCKING_GRACE: Duration = Duration::from_millis(500);
/// A report of the search feed that finds a worker's inbox full is tried again this often, so long apart. One that is
/// lost costs a look at that conversation at the next start.
const REPORTS: u32 = 20;
const REPORT_PAUSE: Duration = Duration::from_millis(5);

/// A node at work. Dropping it ends the node.
pub struct Running {
    addresses: Addresses,
    router: Router,
    certificate: Option<Arc<Certificate>>,
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

    /// Reads the certificate again, if there is one.
    ///
    /// # Errors
    /// It cannot be used; the old one stays.
    pub fn reload_certificate(&self) -> Result<(), StartError> {
        self.certificate
            .as_ref()
            .map_or(Ok(()), |certificate| certificate.reload())
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
}

/// Starts a node and returns once it listens. `listeners`: given ones, else those of the configuration.
///
/// # Errors
/// Whatever keeps it from serving; then nothing is left running.
pub fn serve(
    config: Config,
    listeners: Option<Listeners>,
    shutdown: Shutdown,
) -> Result<Running, StartError> {
    let connections = open_files::raise();
    let node = Node::create(config)?;
    let listeners = match listeners {
        Some(given) => given,
        None => Listeners::bind(&node.settings)?,
    };
    let (addresses, metrics) = (listeners.addresses(), Metrics::default());
    let feed = Search::start(&node, &metrics)?;
    let workers = start_workers(&node, &metrics, &feed, connections)?;
    // Cannot be set already: this is the only place.
    let _ = feed.router.set(workers.router().clone());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .thread_name("godwit-http")
        .enable_all()
        .build()?;
    let api = start_api(&node, &metrics, workers.router());
    let mut doors = Doors {
        runtime,
        tasks: JoinSet::new(),
        shutdown: shutdown.clone(),
    };
    doors.open_http(&node, &api, listeners.http, listeners.https)?;
    doors.open_admin(&node, &metrics, &feed, &api, listeners.admin)?;
    mqtt::open(workers.router(), &node, listeners.mqtt, listeners.mqtts)?;
    tell_start(&node, &addresses, connections);

    let (router, certificate) = (workers.router().clone(), node.certificate.clone());
    let parts = Parts {
        api,
        doors,
        workers,
        feed,
        store: node.store,
    };
    let begun = shutdown.clone();
    let main = std::thread::Builder::new()
        .name("godwit-main".into())
        .spawn(move || parts.run(&begun))?;
    Ok(Running {
        addresses,
        router,
        certificate,
        shutdown,
        main: Some(main),
    })
}

/// What runs, and ends in this order.
struct Parts {
    api: Api,
    doors: Doors,
    workers: Workers,
    feed: Search,
    store: Arc<dyn Store>,
}

impl Parts {
    fn run(self, shutdown: &Shutdown) {
        self.doors.runtime.block_on(shutdown.begun());
        self.end();
    }

    /// The shutdown. Deadlines: HTTP 1.5 s, workers 8 s (their own, as a rule milliseconds), the rest is disk work.
    fn end(self) {
        tracing::info!("shutting down");
        // Load balancers look elsewhere; doors let nobody in, requests under way are answered.
        self.api.drain();
        let Doors {
            runtime, mut tasks, ..
        } = self.doors;
        runtime.block_on(async { while tasks.join_next().await.is_some() {} });
        // MQTT clients are told and their connections closed; what was lazy is stored.
        self.workers.stop();
        // The index commits what it has read, so that the next start has little to read again.
        self.feed.stop();
        runtime.shutdown_timeout(BLOCKING_GRACE);
        if let Err(error) = self.store.close() {
            tracing::error!(%error, "the store did not close; the next start reads its journal");
        }
        tracing::info!("ended");
    }
}

/// The search index's feed, and where it reports to once the workers run.
struct Search {
    feed: Arc<Mutex<Option<Feed>>>,
    notifier: godwit_search::Notifier,
    router: Arc<OnceLock<Router>>,
}

impl Search {
    fn start(node: &Node, metrics: &Metrics) -> Result<Self, StartError> {
        let router = Arc::new(OnceLock::new());
        let mut config = FeedConfig::new(|| i64::try_from(unix_ms()).unwrap_or(i64::MAX));
        let reports_to = router.clone();
        config.on_indexed = Box::new(move |indexed| {
            if let Some(router) = reports_to.get() {
                report(router, indexed);
            }
        });
        let source = StoreSource::new(node.store.clone(), metrics.unreadable.clone());
        let feed = Feed::start(node.index.clone(), source, config)?;
        let notifier = feed.notifier();
        Ok(Self {
            feed: Arc::new(Mutex::new(Some(feed))),
            notifier,
            router,
        })
    }

    fn stop(self) {
        let feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(feed) = feed {
            feed.stop();
        }
    }
}

/// Tells conversations how far they are indexed, so that their tails can be closed.
fn report(router: &Router, indexed: &[Indexed]) {
    let mut tries = REPORTS;
    for one in indexed {
        let key = Key::Conversation(ConversationId(one.conversation));
        let told = || Command::Conversation(ConversationCommand::Indexed { up_to: one.up_to });
        while !router.tell(key.clone(), told()) {
            if tries == 0 {
                tracing::warn!("workers are too busy to hear of the search index");
                return;
            }
            tries -= 1;
            std::thread::sleep(REPORT_PAUSE);
        }
    }
}

/// Accounts, broker and ingest on every worker.
fn start_workers(
    node: &Node,
    metrics: &Metrics,
    feed: &Search,
    connections: u64,
) -> Result<Workers, StartError> {
    let notifier = feed.notifier.clone();
    let confirmed: godwit_ingest::Confirmed =
        Arc::new(move |conversation, shard, up_to| notifier.notify(conversation.0, u32::from(shard), up_to));
    let ingest = godwit_ingest::Config {
        confirmed: Some(confirmed),
        ..godwit_ingest::Config::default()
    };
    let accounts = godwit_accounts::Config {
        direct: node.settings.options.direct,
    };
    let tokens = node.tokens.clone();
    let broker = mqtt::config(node, connections);
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
    Ok(Workers::start(node.settings.workers, &node.store, make)?)
}

fn start_api(node: &Node, metrics: &Metrics, router: &Router) -> Api {
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
        router: router.clone(),
        store: node.store.clone(),
        tokens: node.tokens.clone(),
        search: Some(SearchIndex::new(node.index.clone())),
        config: godwit_history_api::Config {
            registration,
            origins: settings.options.cors_origins.clone(),
            ..godwit_history_api::Config::default()
        },
        metrics: metrics.http.clone(),
        clock: unix_ms,
        mqtt: Some(mqtt::upgrade(router)),
    })
}

/// The HTTP listeners, on a runtime of their own.
struct Doors {
    runtime: Runtime,
    tasks: JoinSet<()>,
    shutdown: Shutdown,
}

impl Doors {
    fn open_http(
        &mut self,
        node: &Node,
        api: &Api,
        plain: Option<TcpListener>,
        tls: Option<TcpListener>,
    ) -> Result<(), StartError> {
        let app = godwit_history_api::router(api.clone());
        self.open("http", plain, None, app.clone())?;
        let certificate = node.certificate.as_ref();
        let config = certificate
            .map(|certificate| certificate.server_config(&[b"http/1.1"]))
            .transpose()?;
        // Without a certificate nothing is bound for TLS.
        self.open("https", tls.filter(|_| config.is_some()), config, app)
    }

    fn open_admin(
        &mut self,
        node: &Node,
        metrics: &Metrics,
        feed: &Search,
        api: &Api,
        listener: Option<TcpListener>,
    ) -> Result<(), StartError> {
        let admin = Admin {
            store: node.store.clone(),
            folder: node.folder.clone(),
            token: node.admin_token.clone(),
            backups: tokio::sync::Mutex::new(()),
        };
        let app = admin::routes(admin, api.clone(), registry(node, metrics, feed));
        self.open("admin", listener, None, app)
    }

    fn open(
        &mut self,
        name: &'static str,
        listener: Option<TcpListener>,
        tls: Option<Arc<ServerConfig>>,
        app: axum::Router,
    ) -> Result<(), StartError> {
        let Some(listener) = listener else { return Ok(()) };
        let _inside = self.runtime.enter();
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let door = Door {
            name,
            listener,
            tls,
            app,
        };
        // Ends at the shutdown; has no error of its own.
        self.tasks.spawn_on(
            door.serve(self.shutdown.clone(), HTTP_GRACE),
            self.runtime.handle(),
        );
        Ok(())
    }
}

/// Everything that `/metrics` shows.
fn registry(node: &Node, metrics: &Metrics, feed: &Search) -> Registry {
    let mut registry = Registry::default();
    metrics.accounts.register(&mut registry);
    metrics.broker.register(&mut registry);
    metrics.ingest.register(&mut registry);
    metrics.http.register(&mut registry);
    let help = "Stored entries that could not be put into the search index";
    registry.register("godwit_search_unreadable", help, metrics.unreadable.clone());
    let search = OfSearch {
        index: node.index.clone(),
        feed: feed.feed.clone(),
        now_ms: unix_ms,
    };
    registry.register_collector(Box::new(OfStore(node.store.clone())));
    registry.register_collector(Box::new(search));
    registry.register_collector(Box::new(OfProcess));
    registry
}

/// What an operator wants to see in the log of every start.
fn tell_start(node: &Node, addresses: &Addresses, connections: u64) {
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
    if node.settings.options.anonymous {
        tracing::warn!("anonymous clients are let in: they read and write every ordinary topic");
    }
    if addresses.admin.is_some_and(|address| !address.ip().is_loopback()) {
        tracing::warn!("the admin listener is not on a loopback address: who reaches it sees the metrics");
    }
}
