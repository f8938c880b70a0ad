//! What a node opens before it listens: data folder, store, keys, certificate, search index. May fail, binds nothing.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use godwit_accounts::Tokens;
use godwit_cluster::own::Roles;
use godwit_history_api::Clock;
use godwit_history_api::connect::Reached;
use godwit_search::Index;
use godwit_store::Store;

use crate::StartError;
use crate::cluster::{Opened, boot_ms};
use crate::config::{Config, Listen, Settings};
use crate::data::DataFolder;
use crate::memory::Memory;
use crate::shutdown::Shutdown;
use crate::tls::Certificates;

/// Everything that is opened, not yet at work.
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) folder: DataFolder,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) admin_token: String,
    pub(crate) certificates: Option<Arc<Certificates>>,
    pub(crate) index: Index,
    pub(crate) memory: Memory,
    clock: Clock,
    /// In a cluster: what is needed to join it, until somebody does.
    pub(crate) cluster: Option<Opened>,
    /// One process a folder. The embedded store has a lock of its own.
    _lock: Option<File>,
}

impl Node {
    /// Opens everything in the order in which it can be wrong.
    pub(crate) fn create(config: Config, shutdown: &Shutdown) -> Result<Self, StartError> {
        let settings = Settings::of(config)?;
        let certificates = settings.tls.clone().map(Certificates::open).transpose()?;
        let folder = DataFolder::at(&settings.options.data_dir);
        let (mut cluster, mut lock) = (None, None);
        let (store, tokens): (Arc<dyn Store>, _) = match &settings.cluster {
            None => (
                folder.open_store(settings.options.store_cache_mb)?,
                Arc::new(folder.open_tokens()?),
            ),
            Some(wanted) => {
                lock = Some(folder.lock()?);
                let opened = crate::cluster::open(wanted, shutdown)?;
                let opened = cluster.insert(opened);
                (opened.store.clone(), opened.tokens.clone())
            }
        };
        let holdings = cluster.as_ref().map(|opened| opened.holdings.clone());
        let clock: Clock = Arc::new(move || match &holdings {
            Some(holdings) => holdings.calendar().unix_ms(boot_ms(), unix_ms()),
            None => unix_ms(),
        });
        let admin_token = folder.new_admin_token()?;
        let index = Index::open(folder.search())?;
        let memory = Memory::new(settings.options.max_memory_mb);
        Ok(Self {
            memory,
            settings,
            folder,
            store,
            tokens,
            admin_token,
            certificates,
            index,
            clock,
            cluster,
            _lock: lock,
        })
    }

    /// The time, as its workers have it: in a cluster by the members' calendars, where the machine's own is far off them.
    pub(crate) fn clock(&self) -> Clock {
        self.clock.clone()
    }
}

/// The machine's calendar, milliseconds since 1970; a clock before that reads as 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Sockets that a node listens on. Tests give their own, with port 0, so that several nodes fit one process.
#[derive(Debug, Default)]
pub struct Listeners {
    /// MQTT.
    pub mqtt: Option<TcpListener>,
    /// MQTT over TLS.
    pub mqtts: Option<TcpListener>,
    /// HTTP.
    pub http: Option<TcpListener>,
    /// HTTPS.
    pub https: Option<TcpListener>,
    /// Metrics and administration.
    pub admin: Option<TcpListener>,
    /// Other nodes.
    pub peer: Option<TcpListener>,
}

impl Listeners {
    /// Binds what the configuration says; the TLS ones only if there is a certificate, in a cluster only what the node's roles need: MQTT for
    /// `broker`, HTTP for that (WebSockets) and `api`.
    ///
    /// # Errors
    /// An address that cannot be had, with the option that asks for it.
    pub fn bind(settings: &Settings) -> Result<Self, StartError> {
        let options = &settings.options;
        let with_tls = |listen: Listen| {
            if settings.tls.is_some() {
                listen
            } else {
                Listen::Off
            }
        };
        let needed = |listen: Listen, roles: &[Roles]| match roles.iter().any(|role| settings.does(*role)) {
            true => listen,
            false => Listen::Off,
        };
        let mqtt = |listen| needed(listen, &[Roles::BROKER]);
        let http = |listen| needed(listen, &[Roles::BROKER, Roles::API]);
        Ok(Self {
            mqtt: bind("mqtt", mqtt(options.mqtt))?,
            mqtts: bind("mqtts", mqtt(with_tls(options.mqtts)))?,
            http: bind("http", http(options.http))?,
            https: bind("https", http(with_tls(options.https)))?,
            admin: bind("admin", options.admin)?,
            peer: bind("peer", options.peer)?,
        })
    }

    /// Any free port of 127.0.0.1 for MQTT, HTTP and administration.
    ///
    /// # Errors
    /// The system has none.
    pub fn any_port() -> Result<Self, StartError> {
        let any = |name| bind(name, Listen::At(SocketAddr::from(([127, 0, 0, 1], 0))));
        Ok(Self {
            mqtt: any("mqtt")?,
            http: any("http")?,
            admin: any("admin")?,
            mqtts: None,
            https: None,
            peer: None,
        })
    }

    /// Any free port of 127.0.0.1 for administration, and nothing else.
    ///
    /// # Errors
    /// The system has none.
    pub fn only_admin() -> Result<Self, StartError> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Self {
            admin: bind("admin", Listen::At(any))?,
            ..Self::default()
        })
    }

    pub(crate) fn addresses(&self) -> Addresses {
        let address = |listener: &Option<TcpListener>| listener.as_ref().and_then(|l| l.local_addr().ok());
        Addresses {
            mqtt: address(&self.mqtt),
            mqtts: address(&self.mqtts),
            http: address(&self.http),
            https: address(&self.https),
            admin: address(&self.admin),
            peer: address(&self.peer),
        }
    }
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Addresses {
    /// MQTT.
    pub mqtt: Option<SocketAddr>,
    /// MQTT over TLS.
    pub mqtts: Option<SocketAddr>,
    /// HTTP.
    pub http: Option<SocketAddr>,
    /// HTTPS.
    pub https: Option<SocketAddr>,
    /// Metrics and administration.
    pub admin: Option<SocketAddr>,
    /// Other nodes.
    pub peer: Option<SocketAddr>,
}

impl Addresses {
    /// Where clients reach a node that stands alone, as far as its listeners say.
    pub(crate) fn reached(&self) -> Reached {
        let known = |address: Option<SocketAddr>| {
            let address = address.filter(|address| !address.ip().is_unspecified());
            address.map(|address| address.to_string())
        };
        Reached {
            mqtt: known(self.mqtt),
            http: known(self.http),
        }
    }
}

/// Connections that wait to be accepted: a storm of returning clients must not be refused. The system caps it
/// (net.core.somaxconn).
const BACKLOG: i32 = 4_096;

fn bind(option: &'static str, listen: Listen) -> Result<Option<TcpListener>, StartError> {
    use socket2::{Domain, Protocol, Socket, Type};
    let Some(address) = listen.address() else {
        return Ok(None);
    };
    let bound = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    bound().map(Some).map_err(|error| StartError::Listen {
        option,
        address,
        error,
    })
}
