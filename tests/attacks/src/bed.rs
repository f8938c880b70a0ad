//! A server of its own for one attack: the real binary on its own ports and folder, users for the attacker and for the
//! bystanders, and looks at its metrics, memory and processor time.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use godwit_e2e::binaries::Program;
use godwit_e2e::node::Node;
use godwit_e2e::rest::Api;
use godwit_e2e::world::{User, make_user};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::wire::Hello;

/// What a server is started with.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// More rules, before those for users' own topics.
    pub acl: &'static str,
    /// Environment variables: options.
    pub options: Vec<(&'static str, String)>,
    /// Users of the attacker.
    pub offenders: usize,
    /// Let in clients without a name.
    pub anonymous: bool,
    /// Limit on open files.
    pub files: Option<u32>,
    /// MQTT on every address: the attacker comes from a network of its own.
    pub everywhere: bool,
}

/// A figure of an attack that has a mark of its own, beside those of the bystanders.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What it is, with its unit.
    pub what: String,
    /// The figure.
    pub value: f64,
    /// What it may be at most on a machine that does nothing else.
    pub mark: f64,
}

/// A part of an attack, whose bystanders are looked at by themselves too.
#[derive(Clone, Debug)]
pub struct Step {
    /// What was done.
    pub what: String,
    /// When it began.
    pub from: Instant,
    /// And ended.
    pub to: Instant,
}

/// A running server.
#[derive(Debug)]
pub struct Bed {
    node: Node,
    /// REST.
    pub api: Api,
    /// The attacker's users.
    pub offenders: Vec<User>,
    /// The bystanders.
    pub bystanders: [User; 2],
    measured: Mutex<Vec<Measured>>,
    steps: Mutex<Vec<Step>>,
    /// Kept until the end.
    _folder: tempfile::TempDir,
}

impl Bed {
    /// Starts it and makes the users.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(setup: &Setup) -> Result<Arc<Self>> {
        let folder = tempfile::Builder::new().prefix("godwit-attack-").tempdir()?;
        let binary = match setup.files {
            None => Program::Godwit.path()?,
            Some(files) => limited(&folder.path().join("godwit"), files)?,
        };
        let log = folder.path().join("godwit.log");
        let mut node = Node::new(&binary, &folder.path().join("data"), &log)?
            .environment("GODWIT_REGISTRATIONS_PER_SECOND", "0")
            .environment("GODWIT_LOG", "warn");
        if !setup.acl.is_empty() {
            let rules = format!("{};allow both users iot/%u/#", setup.acl);
            node = node.environment("GODWIT_ACL", &rules);
        }
        for (name, value) in &setup.options {
            node = node.environment(name, value);
        }
        if setup.everywhere {
            node = node.mqtt_everywhere();
        }
        if setup.anonymous {
            node = node.arguments(&["--anonymous"]);
        }
        node.start()?;
        let api = Api::new(&node.http());
        let bystanders = ["alice".to_owned(), "bob".to_owned()];
        let names = bystanders
            .into_iter()
            .chain((0..setup.offenders).map(|number| format!("mallory{number}")));
        // At once: each hashes passwords.
        let users = std::thread::scope(|scope| {
            let api = &api;
            let make = |name: String| scope.spawn(move || make_user(api, &name));
            let made: Vec<_> = names.map(make).collect();
            made.into_iter()
                .map(|made| made.join().map_err(|_| anyhow!("a registration panicked"))?)
                .collect::<Result<Vec<User>>>()
        })?;
        let [alice, bob, offenders @ ..] = users.as_slice() else {
            bail!("a user is missing");
        };
        Ok(Arc::new(Self {
            offenders: offenders.to_vec(),
            bystanders: [alice.clone(), bob.clone()],
            api,
            node,
            measured: Mutex::default(),
            steps: Mutex::default(),
            _folder: folder,
        }))
    }

    /// A figure to be judged by its mark: the report prints both, a test fails at three times the mark.
    pub fn measure(&self, what: impl Into<String>, value: f64, mark: f64) {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        measured.push(Measured {
            what: what.into(),
            value,
            mark,
        });
    }

    /// A part of the attack has ended just now.
    pub fn step(&self, what: impl Into<String>, from: Instant) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.push(Step {
            what: what.into(),
            from,
            to: Instant::now(),
        });
    }

    /// Those that have ended so far.
    pub fn steps(&self) -> Vec<Step> {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.clone()
    }

    /// What was measured so far.
    pub fn measured(&self) -> Vec<Measured> {
        let measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        measured.clone()
    }

    /// The port of MQTT.
    pub fn mqtt(&self) -> u16 {
        self.node.ports().mqtt
    }

    /// The port of HTTP.
    pub fn http(&self) -> u16 {
        self.node.ports().http
    }

    /// A CONNECT of one of the attacker's users, MQTT 5, clean.
    pub fn hello(&self, offender: usize, client: &str) -> Hello {
        let user = self.offenders.get(offender % self.offenders.len().max(1));
        Hello {
            client: client.to_owned(),
            login: user.map(|user| (user.name.clone(), user.token.clone())),
            ..Hello::default()
        }
    }

    /// Resident memory, bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident(&self) -> Result<u64> {
        self.node.resident()
    }

    /// Seconds of processor time so far.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let pid = self.node.pid().context("it does not run")?;
        cpu_seconds_of(&pid.to_string())
    }

    /// Bytes that it has had written to disk so far.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn written(&self) -> Result<u64> {
        let pid = self.node.pid().context("it does not run")?;
        let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        Ok(bytes.context("no write_bytes in /proc")?.trim().parse()?)
    }

    /// Open descriptors.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn descriptors(&self) -> Result<usize> {
        let pid = self.node.pid().context("it does not run")?;
        Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
    }

    /// All of /metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<String> {
        let port = self.node.ports().admin;
        let get = async {
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            anyhow::Ok(text)
        };
        tokio::time::timeout(Duration::from_secs(20), get)
            .await
            .context("/metrics")?
    }

    /// The sum of a metric over its labels; `name` may begin a label set, such as `x_total{reason="y"`.
    ///
    /// # Errors
    /// When /metrics does not answer.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let text = self.metrics().await?;
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        let values = lines
            .filter(|rest| rest.starts_with([' ', '{', ',', '}']))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok());
        // A sum of nothing is -0.
        Ok(values.sum::<f64>() + 0.0)
    }

    /// The end of the log, for a failure's message.
    pub fn tail(&self) -> String {
        self.node.tail()
    }
}

/// Seconds of processor time of a process, or of `self`.
pub(crate) fn cpu_seconds_of(pid: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|text| text.parse::<u64>().ok());
    let (Some(user), Some(system)) = (ticks(), ticks()) else {
        bail!("no times in /proc");
    };
    Ok((user + system) as f64 / 100.0)
}

/// A script that starts the binary with fewer open files.
fn limited(path: &std::path::Path, files: u32) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let binary = Program::Godwit.path()?;
    let text = format!(
        "#!/bin/sh\nulimit -n {files}\nexec '{}' \"$@\"\n",
        binary.display()
    );
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path.to_path_buf())
}
