//! The HTTP doors of a node: which listener answers with which routes, on a small runtime of their own.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use godwit_broker::{Proxies, TlsSettings};
use godwit_cluster::Router;
use godwit_cluster::own::Roles;
use godwit_history_api::{Api, Shares};
use prometheus_client::registry::Registry;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::StartError;
use crate::admin::{self, Admin};
use crate::cluster::Membership;
use crate::http::{Door, Greeting, Refused};
use crate::node::Node;
use crate::paced::Pace;
use crate::shutdown::{HTTP_GRACE, Shutdown};

/// Threads for HTTP: it is the smaller door, and the workers have the cores.
const HTTP_THREADS: usize = 2;
/// Connections of operators and their tools, of their own so that a crowd cannot lock them out.
const ADMIN_CONNECTIONS: usize = 64;
/// Connections that an address may have, however little room there is: what a browser or a load balancer keeps open.
const SHARE_LEAST: usize = 64;
/// Longest wait for blocking calls (password hashes, reads) at the end.
const BLOCKING_GRACE: Duration = Duration::from_millis(500);

/// The HTTP listeners, on a runtime of their own.
pub(crate) struct Doors {
    pub(crate) runtime: Runtime,
    tasks: JoinSet<()>,
    shutdown: Shutdown,
    /// Connections of HTTP and HTTPS together.
    room: Arc<Semaphore>,
    /// Who has how much of it.
    shares: Shares,
    /// What operators ask about the cluster.
    pub(crate) membership: Option<Membership>,
    /// Connections that came to nothing.
    pub(crate) refused: Refused,
}

impl Doors {
    /// No door is open yet; all close when `shutdown` begins. At most so many connections come in by HTTP and HTTPS.
    pub(crate) fn new(shutdown: Shutdown, connections: usize) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(HTTP_THREADS)
            .thread_name("godwit-http")
            .enable_all()
            .build()?;
        Ok(Self {
            runtime,
            tasks: JoinSet::new(),
            shutdown,
            room: Arc::new(Semaphore::new(connections)),
            shares: Shares::new(connections, SHARE_LEAST),
            membership: None,
            refused: Refused::default(),
        })
    }

    pub(crate) fn open_http(
        &mut self,
        node: &Node,
        api: &Api,
        plain: Option<TcpListener>,
        tls: Option<TcpListener>,
    ) -> Result<(), StartError> {
        let app = match node.settings.does(Roles::API) {
            true => godwit_history_api::router(api.clone()),
            false => godwit_history_api::router_without_rest(api.clone()),
        };
        let greeting = self.greeting(node, crate::mqtt::proxies(node), self.shares.clone());
        let settings = node.certificates.as_ref();
        let settings = settings.map(|certificates| certificates.https.clone());
        // Without a certificate nothing is bound for TLS.
        let listener = tls.filter(|_| settings.is_some());
        let room = self.room.clone();
        self.open("http", plain, None, greeting.clone(), app.clone(), room.clone())?;
        self.open("https", listener, settings, greeting, app, room)
    }

    pub(crate) fn open_admin(
        &mut self,
        node: &Node,
        api: &Api,
        router: &Router,
        registry: Registry,
        listener: Option<TcpListener>,
    ) -> Result<(), StartError> {
        let admin = Admin {
            store: node.store.clone(),
            folder: node.folder.clone(),
            token: node.admin_token.clone(),
            router: router.clone(),
            membership: self.membership.clone(),
            backups: tokio::sync::Mutex::new(()),
        };
        let app = admin::routes(admin, api.clone(), registry);
        let room = Arc::new(Semaphore::new(ADMIN_CONNECTIONS));
        let greeting = self.greeting(node, None, Shares::new(ADMIN_CONNECTIONS, SHARE_LEAST));
        self.open("admin", listener, None, greeting, app, room)
    }

    fn greeting(&self, node: &Node, proxies: Option<Proxies>, shares: Shares) -> Greeting {
        Greeting {
            time: Duration::from_secs(u64::from(node.settings.options.connect_seconds)),
            proxies,
            shares,
            pace: Pace::default(),
            refused: self.refused.clone(),
        }
    }

    fn open(
        &mut self,
        name: &'static str,
        listener: Option<TcpListener>,
        tls: Option<Arc<TlsSettings>>,
        greeting: Greeting,
        app: axum::Router,
        room: Arc<Semaphore>,
    ) -> Result<(), StartError> {
        let Some(listener) = listener else { return Ok(()) };
        let _inside = self.runtime.enter();
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let door = Door {
            name,
            listener,
            tls,
            greeting,
            app,
            room,
        };
        // Ends at the shutdown; has no error of its own.
        self.tasks.spawn_on(
            door.serve(self.shutdown.clone(), HTTP_GRACE),
            self.runtime.handle(),
        );
        Ok(())
    }

    /// Waits until every door is closed, after the shutdown began; what is left of blocking calls gets a moment.
    pub(crate) fn closed(&mut self) {
        let Self { runtime, tasks, .. } = self;
        runtime.block_on(async { while tasks.join_next().await.is_some() {} });
    }

    /// Ends the runtime.
    pub(crate) fn end(self) {
        self.runtime.shutdown_timeout(BLOCKING_GRACE);
    }
}
