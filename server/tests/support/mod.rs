//! The real binary on a temporary folder with ports of its own, and small clients: curl's role by ureq, mosquitto's tools
//! as they are. Ends what it started.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longest wait for anything; far above what a loaded machine needs.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A password that is taken.
pub const PASSWORD: &str = "horse staple battery";

/// The binary, not yet started.
pub fn godwit() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_godwit"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GODWIT_")) {
        command.env_remove(name);
    }
    command
}

/// A port that was free a moment ago, outside the range that the system gives to clients.
pub fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests of several processes at once start in different places.
    let start = u16::try_from(std::process::id() % 16_000).unwrap();
    for _ in 0..16_000 {
        let port = 15_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 16_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// A running `godwit serve`; killed when dropped.
pub struct Server {
    pub folder: PathBuf,
    pub mqtt: u16,
    pub http: u16,
    pub admin: u16,
    more: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Starts one on `folder` and waits until it is ready.
    pub fn start(folder: &Path, more: &[&str]) -> Self {
        let mut server = Self {
            folder: folder.to_owned(),
            mqtt: free_port(),
            http: free_port(),
            admin: free_port(),
            more: more.iter().map(|word| (*word).to_owned()).collect(),
            child: None,
        };
        server.again();
        server
    }

    /// Starts it again on the same folder and ports.
    pub fn again(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let child = godwit()
            .arg("serve")
            .args(self.place())
            .args(&self.more)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let until = Instant::now() + PATIENCE;
        while get(&format!("http://127.0.0.1:{}/readyz", self.admin)).is_none_or(|(status, _)| status != 200)
        {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("it ended at its start: {status}\n{}", self.log());
            }
            assert!(Instant::now() < until, "it is not ready\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The options that say where it is.
    pub fn place(&self) -> Vec<String> {
        let at = |port: u16| format!("127.0.0.1:{port}");
        let data = self.folder.join("data").display().to_string();
        let words = [
            ("--data-dir", data),
            ("--mqtt", at(self.mqtt)),
            ("--http", at(self.http)),
            ("--admin", at(self.admin)),
        ];
        words
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("godwit.log")
    }

    /// What it logged, of all starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.as_ref().unwrap().id()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// SIGTERM; its exit code and how long it took.
    pub fn stop(&mut self) -> (Option<i32>, Duration) {
        let began = Instant::now();
        self.signal(rustix::process::Signal::TERM);
        let status = self.child.take().unwrap().wait().unwrap();
        (status.code(), began.elapsed())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// `http://…/api/v1` and the path.
    pub fn api(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/api/v1{path}", self.http)
    }

    /// Registers a user and makes a device token; gives (access token, device token).
    pub fn user(&self, name: &str) -> (String, String) {
        let body = json!({ "username": name, "password": PASSWORD });
        let (status, answer) = post(&self.api("/users"), None, &body);
        assert_eq!(status, 201, "{answer}");
        let access = self.login(name);
        let (status, answer) = post(
            &self.api("/auth/device-tokens"),
            Some(&access),
            &json!({ "name": "test" }),
        );
        assert_eq!(status, 201, "{answer}");
        (access, answer["token"].as_str().unwrap().to_owned())
    }

    /// An access token.
    pub fn login(&self, name: &str) -> String {
        let body = json!({ "username": name, "password": PASSWORD });
        let (status, answer) = post(&self.api("/auth/login"), None, &body);
        assert_eq!(status, 200, "{answer}");
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// One of mosquitto's tools on this server.
    pub fn mosquitto(&self, tool: &str, words: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["60", tool, "-h", "127.0.0.1", "-p", &self.mqtt.to_string()])
            .args(words);
        command
    }

    /// `mosquitto_pub`, which must succeed.
    pub fn publish(&self, words: &[&str]) {
        let output = self.mosquitto("mosquitto_pub", words).output().unwrap();
        assert!(
            output.status.success(),
            "{words:?}: {}\n{}",
            text(&output.stderr),
            self.log()
        );
    }

    /// `mosquitto_sub`, which must succeed; its lines.
    pub fn subscribe(&self, words: &[&str]) -> Vec<String> {
        let output = self.mosquitto("mosquitto_sub", words).output().unwrap();
        assert!(
            output.status.success(),
            "{words:?}: {:?} {}\n{}",
            output.status,
            text(&output.stderr),
            self.log()
        );
        text(&output.stdout).lines().map(str::to_owned).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .proxy(None)
        .build()
        .into()
}

/// GET; `None` if nothing answers.
pub fn get(url: &str) -> Option<(u16, String)> {
    get_as(url, None)
}

/// GET with a bearer token.
pub fn get_as(url: &str, token: Option<&str>) -> Option<(u16, String)> {
    let mut request = agent().get(url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut response = request.call().ok()?;
    Some((
        response.status().as_u16(),
        response.body_mut().read_to_string().ok()?,
    ))
}

/// POST of JSON.
pub fn post(url: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
    let mut request = agent().post(url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut response = request.send_json(body).unwrap();
    let status = response.status().as_u16();
    (status, response.body_mut().read_json().unwrap_or(Value::Null))
}

/// Runs a command with this on its standard input.
pub fn run_with_input(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Asks again and again until it is so.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
