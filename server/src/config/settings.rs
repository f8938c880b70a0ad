//! What follows from the options together: ranges, options that need each other, defaults that depend on others. All
//! that can be wrong with a configuration is found here, before anything is opened.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use godwit_accounts::Acl;
use godwit_cluster::MAX_WORKERS;
use godwit_cluster::own::Roles;
use ipnet::IpNet;
use rustls::pki_types::DnsName;

use super::cluster::Cluster;
use super::{ClientAuth, Config, ConfigError, Hidden, Network, Registration, Switch, TlsFiles};

const DAYS: RangeInclusive<u32> = 1..=3_650;
/// A log is looked at each 1,024 entries and each MiB, and a sixteenth of its quota goes at a time: with less, all would.
const OWED_ENTRIES: RangeInclusive<u32> = 16_384..=u32::MAX;
const OWED_BYTES: RangeInclusive<u32> = (16 << 20)..=u32::MAX;
/// With fewer a single large packet would hold its client back for minutes.
const PUBLISH_BYTES: RangeInclusive<u32> = 16_384..=u32::MAX;
/// Longest server reference, bytes: a few names of hosts.
const REFERENCE_BYTES: RangeInclusive<usize> = 1..=1_024;
const CACHE_MB: RangeInclusive<u32> = 8..=65_536;
/// With less a node without clients would let nobody in.
const MEMORY_MB: RangeInclusive<u32> = 64..=u32::MAX;
const TOKEN_CHARS: RangeInclusive<usize> = 8..=256;
const CONNECT_SECONDS: RangeInclusive<u32> = 1..=60;
const DRAIN_SECONDS: RangeInclusive<u32> = 0..=600;
/// What it allows is counted in microseconds.
const CONNECTS: RangeInclusive<u32> = 0..=1_000_000;
/// Shortest prefix of a network of balancers: the widest private networks are 10.0.0.0/8 and fc00::/7. Whoever is in it may
/// announce any client, so a wider one would trust strangers.
const PROXY_PREFIX_V4: u8 = 8;
const PROXY_PREFIX_V6: u8 = 7;
/// Most certificates: all are read at each reload.
const CERTIFICATES: usize = 64;
/// Most networks of balancers: each new connection is compared with them.
const PROXIES: usize = 64;
/// Most origins: each is compared with at every request of a browser.
const ORIGINS: usize = 64;

/// TLS of the listeners that have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificates, one at least; the first is for clients that ask for none of their names.
    pub certificates: Vec<TlsFiles>,
    /// Whose certificates let clients in, if any do.
    pub client: Option<ClientTls>,
}

/// Clients' certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// `Optional` or `Required`.
    pub auth: ClientAuth,
    /// The authorities, PEM.
    pub ca: PathBuf,
    /// Revocation lists, PEM.
    pub crl: Option<PathBuf>,
}

/// A configuration that was checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The options as they were given.
    pub options: Config,
    /// Threads that own keys.
    pub workers: u16,
    /// Rules of ordinary topics.
    pub acl: Arc<Acl>,
    /// TLS, if there is a certificate.
    pub tls: Option<Tls>,
    /// Who may register.
    pub registration: Registration,
    /// What they bring; there if `registration` is `Token`.
    pub registration_token: Option<Hidden>,
    /// The cluster that this node is one of; `None`: it stands alone on the embedded store.
    pub cluster: Option<Cluster>,
}

impl Settings {
    /// Whether the node is to do this: alone it does everything.
    pub(crate) fn does(&self, role: Roles) -> bool {
        self.cluster
            .as_ref()
            .is_none_or(|cluster| cluster.about.roles.has(role))
    }

    /// Checks the options.
    ///
    /// # Errors
    /// One line that names the option.
    pub fn of(options: Config) -> Result<Self, ConfigError> {
        in_range("mailbox_days", options.mailbox_days, &DAYS)?;
        in_range("session_days", options.session_days, &DAYS)?;
        for (name, entries) in [
            ("mailbox_entries", options.mailbox_entries),
            ("session_log_entries", options.session_log_entries),
        ] {
            in_range(name, entries, &OWED_ENTRIES)?;
        }
        for (name, bytes) in [
            ("mailbox_bytes", options.mailbox_bytes),
            ("session_log_bytes", options.session_log_bytes),
        ] {
            in_range(name, bytes, &OWED_BYTES)?;
        }
        if options.max_memory_mb > 0 {
            in_range("max_memory_mb", options.max_memory_mb, &MEMORY_MB)?;
        }
        in_range("store_cache_mb", options.store_cache_mb, &CACHE_MB)?;
        in_range(
            "workers",
            u32::from(options.workers),
            &(0..=u32::from(MAX_WORKERS)),
        )?;
        check_origins(&options.cors_origins)?;
        in_range("max_qos", u32::from(options.max_qos), &(0..=2))?;
        if options.publish_bytes_per_second > 0 {
            in_range(
                "publish_bytes_per_second",
                options.publish_bytes_per_second,
                &PUBLISH_BYTES,
            )?;
        }
        check_reference(options.server_reference.as_deref())?;
        let (registration, registration_token) = registration(&options)?;
        let acl = match &options.acl {
            Some(rules) => Acl::new(rules.clone()).map_err(|error| ConfigError(error.to_string()))?,
            None => Acl::default(),
        };
        in_range("connect_seconds", options.connect_seconds, &CONNECT_SECONDS)?;
        in_range("drain_seconds", options.drain_seconds, &DRAIN_SECONDS)?;
        if (options.proxy_protocol == Switch::On) == options.proxy_from.is_empty() {
            return Err(ConfigError(
                "proxy_protocol = \"on\" and proxy_from need each other".into(),
            ));
        }
        in_range("connects_per_address", options.connects_per_address, &CONNECTS)?;
        check_proxies(&options.proxy_from)?;
        if options.proxy_from.len() > PROXIES {
            return Err(ConfigError(format!(
                "proxy_from has more than {PROXIES} networks"
            )));
        }
        let tls = tls(&options)?;
        let cluster = Cluster::of(&options)?;
        Ok(Self {
            cluster,
            workers: workers(options.workers),
            acl: Arc::new(acl),
            tls,
            registration,
            registration_token,
            options,
        })
    }
}

/// The certificates and whose certificates count, if TLS is wanted.
fn tls(options: &Config) -> Result<Option<Tls>, ConfigError> {
    let single = match (&options.tls_cert, &options.tls_key) {
        (Some(cert), Some(key)) => Some(TlsFiles {
            cert: cert.clone(),
            key: key.clone(),
            names: Vec::new(),
        }),
        (None, None) => None,
        _ => return Err(ConfigError("tls_cert and tls_key need each other".into())),
    };
    let more = options.tls.iter().flatten().cloned();
    let certificates: Vec<TlsFiles> = single.into_iter().chain(more).collect();
    if certificates.len() > CERTIFICATES {
        return Err(ConfigError(format!(
            "tls has more than {CERTIFICATES} certificates"
        )));
    }
    check_names(&certificates)?;
    let client = match (options.tls_client_auth, &options.tls_client_ca) {
        (ClientAuth::Off, None) => None,
        (ClientAuth::Off, Some(_)) | (_, None) => {
            return Err(ConfigError(
                "tls_client_ca and tls_client_auth = \"optional\" or \"required\" need each other".into(),
            ));
        }
        (auth, Some(ca)) => Some(ClientTls {
            auth,
            ca: ca.clone(),
            crl: options.tls_client_crl.clone(),
        }),
    };
    if options.tls_client_crl.is_some() && client.is_none() {
        return Err(ConfigError("tls_client_crl needs tls_client_ca".into()));
    }
    if certificates.is_empty() {
        return match client {
            None => Ok(None),
            Some(_) => Err(ConfigError("tls_client_auth needs tls_cert and tls_key".into())),
        };
    }
    Ok(Some(Tls { certificates, client }))
}

/// Names that a client can ask for (SNI), which are never addresses; `*.` stands for one label.
fn check_names(certificates: &[TlsFiles]) -> Result<(), ConfigError> {
    let is_name = |name: &str| DnsName::try_from(name.strip_prefix("*.").unwrap_or(name)).is_ok();
    let mut names = certificates.iter().flat_map(|files| &files.names);
    match names.find(|name| !is_name(name)) {
        None => Ok(()),
        Some(bad) => Err(ConfigError(format!(
            "tls: \"{bad}\" is no server name, such as chat.example.org or *.example.org"
        ))),
    }
}

fn check_proxies(networks: &[Network]) -> Result<(), ConfigError> {
    let is_wide = |network: &&Network| match network.0 {
        IpNet::V4(network) => network.prefix_len() < PROXY_PREFIX_V4,
        IpNet::V6(network) => network.prefix_len() < PROXY_PREFIX_V6,
    };
    match networks.iter().find(is_wide) {
        None => Ok(()),
        Some(Network(network)) => Err(ConfigError(format!(
            "proxy_from: {network} would let almost anybody announce any address: it takes networks of /{PROXY_PREFIX_V4} \
             (IPv6: /{PROXY_PREFIX_V6}) and narrower ones"
        ))),
    }
}

/// One for each core, unless a number is given.
fn workers(wanted: u16) -> u16 {
    if wanted > 0 {
        return wanted;
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u16::try_from(cores).unwrap_or(MAX_WORKERS).min(MAX_WORKERS)
}

fn in_range(name: &str, value: u32, range: &RangeInclusive<u32>) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(ConfigError(format!(
        "{name} is {value}, but must be {} to {}",
        range.start(),
        range.end()
    )))
}

fn check_reference(reference: Option<&str>) -> Result<(), ConfigError> {
    match reference {
        Some(text) if !REFERENCE_BYTES.contains(&text.len()) || text.contains(char::is_control) => Err(
            ConfigError("server_reference must have 1 to 1,024 bytes and no control characters".into()),
        ),
        _ => Ok(()),
    }
}

fn check_origins(origins: &[String]) -> Result<(), ConfigError> {
    if origins.len() > ORIGINS {
        return Err(ConfigError(format!(
            "cors_origins has more than {ORIGINS} origins"
        )));
    }
    let is_origin = |origin: &str| {
        let rest = origin
            .strip_prefix("https://")
            .or_else(|| origin.strip_prefix("http://"));
        rest.is_some_and(|host| {
            !host.is_empty() && host.is_ascii() && !host.contains(['/', ' ', '*', '?', '#', '@'])
        })
    };
    if origins == ["*"] {
        return Ok(());
    }
    match origins.iter().find(|origin| !is_origin(origin)) {
        None => Ok(()),
        Some(bad) => Err(ConfigError(format!(
            "cors_origins: \"{bad}\" is no origin, such as https://chat.example.org"
        ))),
    }
}

fn registration(options: &Config) -> Result<(Registration, Option<Hidden>), ConfigError> {
    let wanted = options.registration.unwrap_or_else(|| {
        let has_tls = options.tls_cert.is_some() || options.tls.as_ref().is_some_and(|tls| !tls.is_empty());
        let https = options.https.address().filter(|_| has_tls);
        let mut addresses = options.http.address().into_iter().chain(https);
        if addresses.all(|address| address.ip().is_loopback()) {
            Registration::Open
        } else {
            Registration::Closed
        }
    });
    match (wanted, &options.registration_token) {
        (Registration::Token, Some(token)) if TOKEN_CHARS.contains(&token.0.chars().count()) => {
            Ok((wanted, Some(token.clone())))
        }
        (Registration::Token, Some(_)) => Err(ConfigError(
            "registration_token must have 8 to 256 characters".into(),
        )),
        (Registration::Token, None) => Err(ConfigError(
            "registration = \"token\" needs registration_token".into(),
        )),
        (_, Some(_)) => Err(ConfigError(
            "registration_token needs registration = \"token\"".into(),
        )),
        (_, None) => Ok((wanted, None)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn options() -> Config {
        Config::on(Path::new("/tmp/x")).unwrap()
    }

    #[test]
    fn registration_is_open_on_loopback_and_closed_elsewhere() {
        assert_eq!(Settings::of(options()).unwrap().registration, Registration::Open);
        let mut public = options();
        public.http = "0.0.0.0:8080".parse().unwrap();
        assert_eq!(
            Settings::of(public.clone()).unwrap().registration,
            Registration::Closed
        );
        public.registration = Some(Registration::Open);
        assert_eq!(Settings::of(public).unwrap().registration, Registration::Open);
    }

    fn believes(config: &mut Config, network: &str) {
        config.proxy_protocol = Switch::On;
        config.proxy_from = vec!["10.0.0.0/8".parse().unwrap(), network.parse().unwrap()];
    }

    fn files(name: &str) -> TlsFiles {
        TlsFiles {
            cert: "x.pem".into(),
            key: "x.key".into(),
            names: vec!["*.example.org".into(), name.into()],
        }
    }

    #[test]
    fn networks_of_balancers_names_of_servers_and_rates_are_taken_up_to_their_bounds() {
        let mut config = options();
        config.connects_per_address = 1_000_000;
        config.tls = Some(vec![files("Chat_1.example.org")]);
        for network in ["10.0.0.0/8", "fc00::/7", "::ffff:10.0.0.0/104", "192.0.2.7"] {
            believes(&mut config, network);
            assert!(Settings::of(config.clone()).is_ok(), "{network}");
        }
        for bad in ["127.0.0.1", "*", "*.*.example.org", "a..b", ""] {
            config.tls = Some(vec![files(bad)]);
            assert!(Settings::of(config.clone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn options_that_contradict_each_other_or_leave_their_range_are_refused_by_name() {
        type Change = (&'static str, fn(&mut Config));
        let changes: [Change; 29] = [
            ("tls_key", |c| c.tls_cert = Some("x".into())),
            ("tls_client_ca", |c| c.tls_client_auth = ClientAuth::Required),
            ("tls_client_auth", |c| c.tls_client_ca = Some("x".into())),
            ("tls_client_crl", |c| c.tls_client_crl = Some("x".into())),
            ("proxy_from", |c| c.proxy_protocol = Switch::On),
            ("proxy_protocol", |c| c.proxy_from = vec!["::1".parse().unwrap()]),
            ("connect_seconds", |c| c.connect_seconds = 0),
            ("drain_seconds", |c| c.drain_seconds = 601),
            ("connects_per_address", |c| c.connects_per_address = 1_000_001),
            ("0.0.0.0/0", |c| believes(c, "0.0.0.0/0")),
            ("0.0.0.0/0", |c| believes(c, "::ffff:0:0/96")),
            ("2000::/3", |c| believes(c, "2000::/3")),
            ("not a name", |c| c.tls = Some(vec![files("not a name")])),
            ("registration_token", |c| {
                c.registration = Some(Registration::Token)
            }),
            ("registration_token", |c| {
                c.registration_token = Some(Hidden("long enough".into()))
            }),
            ("mailbox_days", |c| c.mailbox_days = 0),
            ("mailbox_entries", |c| c.mailbox_entries = 16_383),
            ("session_log_entries", |c| c.session_log_entries = 0),
            ("mailbox_bytes", |c| c.mailbox_bytes = 0),
            ("session_log_bytes", |c| c.session_log_bytes = 1),
            ("store_cache_mb", |c| c.store_cache_mb = 1),
            ("max_memory_mb", |c| c.max_memory_mb = 1),
            ("workers", |c| c.workers = 1_000),
            ("max_qos", |c| c.max_qos = 3),
            ("publish_bytes_per_second", |c| c.publish_bytes_per_second = 1),
            ("server_reference", |c| c.server_reference = Some("a\n".into())),
            ("server_reference", |c| c.server_reference = Some(String::new())),
            ("cors_origins", |c| {
                c.cors_origins = vec!["*".into(), "https://a.example".into()]
            }),
            ("acl rule", |c| {
                c.acl = Some(vec![super::super::types::rule("allow both users me/#").unwrap()])
            }),
        ];
        for (named, change) in changes {
            let mut config = options();
            change(&mut config);
            let error = Settings::of(config).unwrap_err().to_string();
            assert!(error.contains(named) && !error.contains('\n'), "{error}");
        }
    }
}
