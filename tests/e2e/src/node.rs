//! The real process under test: started on a data folder and on ports of its own, killed, stopped, started again. What
//! it prints goes to a log file beside the records.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::RngExt;
use rustix::process::{Pid, Signal, kill_process};

/// How long a start may take before the test gives up. The promise is 2 s; a loaded machine is not the product's fault.
const START: Duration = Duration::from_secs(60);
/// How long an orderly stop may take.
const STOP: Duration = Duration::from_secs(30);
/// Between two looks at /readyz.
const LOOK: Duration = Duration::from_millis(10);

/// Where a node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// MQTT.
    pub mqtt: u16,
    /// REST and WebSocket.
    pub http: u16,
    /// Metrics.
    pub admin: u16,
}

impl Ports {
    /// Three free ones, below those that the system gives to outgoing connections: a client that connects while the
    /// node is down must not take them. None is given twice in a process: a test beside this one must not take them either.
    ///
    /// # Errors
    /// When none is found.
    pub fn free() -> Result<Self> {
        static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        let mut random = rand::rng();
        for _ in 0..1_000 {
            let port = random.random_range(15_000..32_000_u16);
            if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
                found.push(port);
                given.insert(port);
            }
            if let [mqtt, http, admin] = found[..] {
                return Ok(Self { mqtt, http, admin });
            }
        }
        bail!("no three free ports")
    }
}

/// A node that may be running.
#[derive(Debug)]
pub struct Node {
    binary: PathBuf,
    data: PathBuf,
    log: PathBuf,
    ports: Ports,
    /// Where it listens.
    host: IpAddr,
    /// Whether MQTT is listened for on every address, not on `host` only.
    everywhere: bool,
    /// What starts it, before its own path.
    within: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Node {
    /// One that is not started yet; `data` is its data folder, `log` gets its output.
    ///
    /// # Errors
    /// When no ports are free.
    pub fn new(binary: &Path, data: &Path, log: &Path) -> Result<Self> {
        Ok(Self {
            binary: binary.to_path_buf(),
            data: data.to_path_buf(),
            log: log.to_path_buf(),
            ports: Ports::free()?,
            host: Ipv4Addr::LOCALHOST.into(),
            everywhere: false,
            within: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            child: None,
        })
    }

    /// More arguments for `serve`.
    #[must_use]
    pub fn arguments(mut self, more: &[&str]) -> Self {
        self.arguments.extend(more.iter().map(|&word| word.to_owned()));
        self
    }

    /// MQTT on every address of the machine: for clients in a network namespace of their own.
    #[must_use]
    pub fn mqtt_everywhere(mut self) -> Self {
        self.everywhere = true;
        self
    }

    /// Listens on this address, not on loopback, and is started by a command that becomes it (`nsenter …`): for a node in a network
    /// namespace of its own.
    #[must_use]
    pub fn at(mut self, host: IpAddr, within: &[String]) -> Self {
        self.host = host;
        self.within = within.to_vec();
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where it listens, also while it is down.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// `http://127.0.0.1:PORT`, or where it listens.
    pub fn http(&self) -> String {
        format!("http://{}", SocketAddr::new(self.host, self.ports.http))
    }

    /// Where MQTT is listened for.
    pub fn mqtt(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.ports.mqtt)
    }

    /// Where operators ask.
    pub fn admin(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.ports.admin)
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it and waits until it is ready; says how long that took.
    ///
    /// # Errors
    /// When it ends instead, or is not ready within a minute; the end of its log is in the message.
    pub fn start(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.spawn()?;
        self.wait_ready(START)?;
        Ok(began.elapsed())
    }

    /// Starts it and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be started, or runs already.
    pub fn spawn(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("it runs already");
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let here = |port: u16| SocketAddr::new(self.host, port).to_string();
        let mqtt = if self.everywhere {
            format!("0.0.0.0:{}", self.ports.mqtt)
        } else {
            here(self.ports.mqtt)
        };
        let mut command = match self.within.split_first() {
            None => Command::new(&self.binary),
            Some((first, more)) => {
                let mut command = Command::new(first);
                command.args(more).arg(&self.binary);
                command
            }
        };
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(&self.data)
            .args(["--mqtt", &mqtt])
            .args(["--http", &here(self.ports.http)])
            .args(["--admin", &here(self.ports.admin)])
            .args(&self.arguments);
        // The tests' own variables are no options of the product.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"GODWIT_"))
        {
            command.env_remove(name);
        }
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("{}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until /readyz says 200.
    ///
    /// # Errors
    /// When the process ends, or the time is over.
    pub fn wait_ready(&mut self, patience: Duration) -> Result<()> {
        let url = format!("{}/readyz", self.http());
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(2)))
            .build()
            .into();
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if let Some(status) = self.ended()? {
                self.child = None;
                bail!("it ended at its start ({status}): {}", self.tail());
            }
            if agent.get(&url).call().is_ok_and(|answer| answer.status() == 200) {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        bail!("not ready after {patience:?}: {}", self.tail())
    }

    /// Its exit status if it ended by itself.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?),
            None => Ok(None),
        }
    }

    /// kill -9, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run, or had died before of something else.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            bail!("it does not run");
        };
        child.kill()?;
        let status = child.wait()?;
        if status.signal() != Some(Signal::KILL.as_raw()) {
            bail!("it had ended before the kill ({status}): {}", self.tail());
        }
        Ok(())
    }

    /// SIGTERM, and waits for an exit with 0.
    ///
    /// # Errors
    /// When it does not end in time or with another status.
    pub fn stop(&mut self) -> Result<Duration> {
        let Some(child) = &mut self.child else {
            bail!("it does not run");
        };
        let began = Instant::now();
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process id")?, Signal::TERM)?;
        while began.elapsed() < STOP {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                if !status.success() {
                    bail!("SIGTERM ended it with {status}: {}", self.tail());
                }
                return Ok(began.elapsed());
            }
            std::thread::sleep(LOOK);
        }
        bail!("still there {STOP:?} after SIGTERM: {}", self.tail())
    }

    /// Resident memory, bytes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resident(&self) -> Result<u64> {
        let pid = self.pid().context("it does not run")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: u64 = line
            .and_then(|line| line.split_whitespace().next())
            .context("no VmRSS")?
            .parse()?;
        Ok(kilobytes * 1024)
    }

    /// The last lines it printed.
    pub fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(15).collect();
        let lines: Vec<&str> = lines.into_iter().rev().collect();
        format!("log {}:\n{}", self.log.display(), lines.join("\n"))
    }

    /// A fresh log file, so that a later look at it sees only what follows.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn clear_log(&self) -> Result<()> {
        File::create(&self.log)?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
