//! Nodes of a cluster in one process: links with a local side that remembers what came, and a proxy that cuts them.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use godwit_links::{Auth, Channel, Links, Local, Metrics, Settings, StartId};
use godwit_wire::account::Secret;
use godwit_wire::code::Code;
use godwit_wire::command::{Answer, Command, ConversationCommand};
use godwit_wire::ids::{ConversationId, Key, UserId};
use godwit_wire::peer::{PeerAnswer, PeerRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use uuid::Uuid;

/// What every wait of a test ends with, in the worst case.
pub const LONG: Duration = Duration::from_secs(20);

pub fn runtime() -> Runtime {
    // With RUST_LOG=…, what the links say.
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_test_writer()
        .try_init();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// Waits until it is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let from = Instant::now();
    while !is_so() {
        assert!(from.elapsed() < LONG, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The `n`th request of its sender: its view says so.
pub fn request(id: u64, n: u64) -> PeerRequest {
    let by = UserId(Uuid::nil());
    PeerRequest {
        id,
        view: n,
        key: Key::Conversation(ConversationId(Uuid::from_u128(7))),
        command: Command::Conversation(ConversationCommand::Get { by }),
    }
}

pub fn is_unavailable(answer: &PeerAnswer) -> bool {
    matches!(answer, PeerAnswer::Answer(Answer::Refused(refusal)) if refusal.code == Code::Unavailable)
}

/// The node's side of its links.
#[derive(Default)]
pub struct Here {
    pub links: OnceLock<Links>,
    /// `(from, id, view)`, in order.
    pub asked: Mutex<Vec<(StartId, u64, u64)>>,
    /// So many more requests are taken.
    pub space: AtomicUsize,
    /// Answers nothing by itself.
    pub is_silent: AtomicBool,
    pub answered: Mutex<HashMap<u64, Vec<PeerAnswer>>>,
    pub rooms: AtomicUsize,
    pub channels: Mutex<HashMap<Bytes, Channel>>,
    /// Channels are dropped.
    pub is_closed: AtomicBool,
}

impl Local for Here {
    fn asked(&self, from: StartId, requests: &mut VecDeque<PeerRequest>, _: &mut Vec<u64>) {
        let space = self.space.load(Ordering::SeqCst).min(requests.len());
        self.space.fetch_sub(space, Ordering::SeqCst);
        let mut answers = Vec::new();
        let mut asked = self.asked.lock().unwrap();
        for request in requests.drain(..space) {
            asked.push((from, request.id, request.view));
            answers.push((request.id, PeerAnswer::Moved));
        }
        drop(asked);
        if !self.is_silent.load(Ordering::SeqCst) {
            self.links.get().unwrap().answer(from, &mut answers);
        }
    }

    fn answered(&self, answers: Vec<(u64, PeerAnswer)>) {
        let mut answered = self.answered.lock().unwrap();
        for (id, answer) in answers {
            answered.entry(id).or_default().push(answer);
        }
    }

    fn room(&self) {
        self.rooms.fetch_add(1, Ordering::SeqCst);
    }

    fn channel(&self, _from: StartId, about: Bytes, channel: Channel) {
        if !self.is_closed.load(Ordering::SeqCst) {
            self.channels.lock().unwrap().insert(about, channel);
        }
    }
}

pub struct Node {
    pub start: StartId,
    pub links: Links,
    pub here: Arc<Here>,
    pub metrics: Metrics,
    pub addr: SocketAddr,
}

pub fn key(text: &str) -> Option<Auth> {
    Some(Auth::Key(Secret(text.into())))
}

pub const KEY: &str = "a key of sufficient length";

impl Node {
    /// With start id `n`, which knows nobody yet.
    pub fn start(runtime: &Handle, n: u128) -> Self {
        Self::start_with(runtime, n, "test", key(KEY), listener())
    }

    pub fn start_with(
        runtime: &Handle,
        n: u128,
        cluster: &str,
        auth: Option<Auth>,
        listen: TcpListener,
    ) -> Self {
        let start = Uuid::from_u128(n);
        let settings = Settings {
            listen,
            cluster: cluster.into(),
            start,
            node: format!("node-{n}"),
            auth,
        };
        let here = Arc::new(Here::default());
        here.space.store(usize::MAX / 2, Ordering::SeqCst);
        let metrics = Metrics::default();
        let links = Links::start(runtime, settings, here.clone(), metrics.clone()).unwrap();
        here.links.set(links.clone()).unwrap();
        let addr = links.address();
        Self {
            start,
            links,
            here,
            metrics,
            addr,
        }
    }

    pub fn is(&self) -> (StartId, String) {
        (self.start, self.addr.to_string())
    }

    /// Everything is taken, or it never ends.
    pub fn send_all(&self, to: StartId, requests: &mut VecDeque<PeerRequest>) {
        until("all taken", || {
            self.links.send(to, requests);
            requests.is_empty()
        });
    }

    pub fn asked(&self) -> usize {
        self.here.asked.lock().unwrap().len()
    }

    pub fn answered(&self) -> usize {
        self.here.answered.lock().unwrap().len()
    }

    /// The channel that was opened about this.
    pub fn channel(&self, about: &Bytes) -> Channel {
        let mut found = None;
        until("a channel", || {
            found = self.here.channels.lock().unwrap().remove(about);
            found.is_some()
        });
        found.unwrap()
    }

    pub fn answer(&self, id: u64) -> Option<Vec<PeerAnswer>> {
        self.here.answered.lock().unwrap().get(&id).cloned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.links.stop();
    }
}

pub fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// Two nodes with a link that is up.
pub fn two(runtime: &Handle) -> (Node, Node) {
    let (a, b) = (Node::start(runtime, 1), Node::start(runtime, 2));
    know(&[&a, &b]);
    up(&a, &b);
    (a, b)
}

pub fn know(nodes: &[&Node]) {
    let all: Vec<_> = nodes.iter().map(|node| node.is()).collect();
    for node in nodes {
        node.links.known(&all);
    }
}

#[track_caller]
pub fn up(a: &Node, b: &Node) {
    until("a link", || a.links.is_up(b.start) && b.links.is_up(a.start));
}

/// What the proxy does with what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Nothing passes, and nobody is told.
    Hold,
}

/// Stands before a node's address.
pub struct Proxy {
    pub addr: SocketAddr,
    mode: watch::Sender<Mode>,
    cuts: watch::Sender<u64>,
}

impl Proxy {
    pub fn start(runtime: &Handle, to: SocketAddr) -> Self {
        let (mode, modes) = watch::channel(Mode::Pass);
        let (cuts, cut) = watch::channel(0);
        let listener = listener();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let _entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        runtime.spawn(async move {
            loop {
                let (from, _) = listener.accept().await.unwrap();
                let (modes, mut cut) = (modes.clone(), cut.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(to) = tokio::net::TcpStream::connect(to).await else {
                        return;
                    };
                    let (from_read, from_write) = from.into_split();
                    let (to_read, to_write) = to.into_split();
                    let other = modes.clone();
                    tokio::select! {
                        () = copy(from_read, to_write, modes) => {}
                        () = copy(to_read, from_write, other) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { addr, mode, cuts }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Ends all connections that there are.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if modes.wait_for(|mode| *mode == Mode::Pass).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
