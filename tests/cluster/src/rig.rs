//! Puts a run together: nodes, users and conversations, a recording client of each user, and the end of it: histories read, sessions
//! drained, a verdict, and what each fault cost its users. What is done to the nodes in between is the scenario's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use godwit_cassandra::Cluster;
use godwit_e2e::binaries::Program;
use godwit_e2e::chat::{Chat, Seen};
use godwit_e2e::history::{self, Histories};
use godwit_e2e::judge::judge;
use godwit_e2e::mqtt::Version;
use godwit_e2e::record::{Line, Recorder, now};
use godwit_e2e::rest::Api;
use godwit_e2e::shared::Shared;
use godwit_e2e::world::{User, World};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;

use crate::around::Around;
use crate::client::Session;
use crate::first::{encoding_of, inbox, make_cursors, who};
use crate::nodes::Nodes;
use crate::outcome::{Mark, Outcome};
use crate::owners::Owners;
use crate::served::{Served, Without, without};

/// Every client is served again within this, or the run is over.
pub const SERVED: Duration = Duration::from_secs(60);
/// How long sends that are not acknowledged may be retried after the end of sending.
const SETTLE: Duration = Duration::from_secs(60);
/// How long the drain may take in all.
const DRAIN: Duration = Duration::from_secs(90);
/// So long nothing arrives before a session that lacks something is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// So long nothing arrives before sessions that have everything are called drained: something too much may come.
const QUIET: Duration = Duration::from_secs(2);

/// How large a run is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Users, each with one session that sends and listens.
    pub users: usize,
    /// Sends in flight of each.
    pub window: usize,
}

struct Client {
    name: String,
    user: usize,
    seen: Arc<Seen>,
    served: Arc<Served>,
}

/// A run.
pub struct Rig {
    /// The nodes.
    pub nodes: Nodes,
    /// What the clients share.
    pub shared: Arc<Shared>,
    /// Who talks to whom.
    pub world: Arc<World>,
    /// Everything random.
    pub random: StdRng,
    /// While it is set, clients go from node to node.
    pub roams: Arc<AtomicBool>,
    folder: PathBuf,
    seed: u64,
    size: Size,
    runtime: Runtime,
    clients: Vec<Client>,
    tasks: Vec<AbortHandle>,
    marks: Vec<Mark>,
    nothing: Option<usize>,
    owners: Owners,
    notes: Vec<String>,
    /// Whether no time makes the run fail.
    pub is_lenient: bool,
    /// Whether it is told when there is one settled view while clients are waited for.
    pub watches_view: bool,
    /// What faults may take longer than their limits, since another one is under way.
    pub allowance: Duration,
    began: Option<Instant>,
    sent_for: f64,
}

impl Rig {
    /// Starts the nodes on a keyspace of their own and makes the world. The folder gets data, logs and records.
    ///
    /// # Errors
    /// When something of that does not work.
    pub fn new(folder: &Path, cassandra: &Cluster, seed: u64, size: Size, around: Around) -> Result<Self> {
        Program::Checker.path()?;
        std::fs::create_dir_all(folder.join("records"))?;
        let mut random = StdRng::seed_from_u64(seed);
        let keyspace = format!("f{:x}_{:x}", std::process::id(), rand::rng().random::<u32>());
        let mut nodes = Nodes::new(folder, cassandra, &keyspace, size.nodes, around, &[])?;
        let formed = nodes.start_all()?;
        eprintln!("{} nodes in one view after {formed:?}", size.nodes);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("clients")
            .enable_all()
            .build()?;
        let apis: Vec<Api> = (0..size.nodes).map(|one| Api::new(&nodes.http(one))).collect();
        let mut world = World::of_users(&apis[0], size.users)?;
        runtime.block_on(make_cursors(&world, &nodes.mqtt()))?;
        world.make_conversations(apis.last().context("no node")?, &mut random)?;
        Ok(Self {
            shared: Arc::new(Shared::new(Recorder::create(&folder.join("records"))?)),
            world: Arc::new(world),
            random,
            roams: Arc::default(),
            folder: folder.to_path_buf(),
            seed,
            size,
            nodes,
            runtime,
            clients: Vec::new(),
            tasks: Vec::new(),
            marks: Vec::new(),
            nothing: None,
            owners: Owners::default(),
            notes: Vec::new(),
            is_lenient: false,
            watches_view: false,
            allowance: Duration::ZERO,
            began: None,
            sent_for: 0.0,
        })
    }

    /// Starts a client of every user, with so many sends in flight; 0: they only listen.
    pub fn start_clients(&mut self, window: usize) {
        self.began = Some(Instant::now());
        for user in 0..self.size.users {
            let encoding = encoding_of(user);
            let of = &self.world.users[user];
            let name = format!("{}-phone", of.name);
            let (seen, served) = (Arc::new(Seen::default()), Arc::new(Served::default()));
            let mut who = who(&self.world, user, &self.nodes.mqtt());
            who.roams = Arc::clone(&self.roams);
            let seed = self.random.random();
            let script = Chat::new(
                Arc::clone(&self.shared),
                Arc::clone(&self.world),
                user,
                name.clone(),
                (Version::V5, encoding),
                window,
                StdRng::seed_from_u64(seed),
                Arc::clone(&seen),
            );
            let session = Session::new(
                name.clone(),
                who,
                inbox(user),
                script,
                Arc::clone(&self.shared),
                Arc::clone(&served),
                StdRng::seed_from_u64(seed ^ 1),
            );
            self.tasks.push(self.runtime.spawn(session.run()).abort_handle());
            self.clients.push(Client {
                name,
                user,
                seen,
                served,
            });
        }
    }

    /// As many sends in flight as the size says.
    pub fn start_sending(&mut self) {
        self.start_clients(self.size.window);
    }

    /// A fault begins now: written down, for the checker as well (connections may be cut, and sends without an id be in flight). `limit`: so long 99
    /// in 100 of the affected clients may be without service, until the next one.
    pub fn mark(&mut self, what: String, limit: Duration) {
        let t = now();
        eprintln!(
            "{:8.1} s: {what}, {} acknowledged",
            self.elapsed(),
            self.shared.acknowledged()
        );
        self.shared.recorder.write(&Line::Kill { t });
        self.marks.push(Mark {
            what,
            t,
            felt: Without::default(),
            limit: if self.is_lenient {
                Duration::MAX
            } else {
                limit.saturating_add(self.allowance)
            },
            like: None,
            back_ms: None,
            back_limit: Duration::MAX,
        });
    }

    /// A home falls silent now, as if it had crashed: sends without an id that are in flight may be stored twice.
    pub fn falls_silent(&self) {
        self.shared.recorder.write(&Line::Kill { t: now() });
    }

    /// The last mark is one of nothing, to compare those behind it with.
    pub fn begin_nothing(&mut self) {
        self.nothing = self.marks.len().checked_sub(1);
        if let Some(mark) = self.marks.last_mut() {
            mark.limit = Duration::MAX;
        }
    }

    /// Nothing is to happen behind the last mark either.
    pub fn like_nothing(&mut self) {
        let nothing = self.nothing;
        if let Some(mark) = self.marks.last_mut() {
            mark.like = nothing;
        }
    }

    /// When the last fault began, on the records' clock.
    pub fn marked(&self) -> u64 {
        self.marks.last().map_or(0, |mark| mark.t)
    }

    /// Waits until every client was served since the last mark; more than this for that makes the run fail.
    ///
    /// # Errors
    /// When somebody is not served for a minute, or a node ended by itself.
    pub fn wait_back(&mut self, limit: Duration) -> Result<()> {
        self.wait_back_since(self.marked(), limit)
    }

    /// As [`Rig::wait_back`], and what was served before this moment, on the records' clock, does not count.
    ///
    /// # Errors
    /// As [`Rig::wait_back`].
    pub fn wait_back_since(&mut self, from: u64, limit: Duration) -> Result<()> {
        self.wait_served_since(from, SERVED)?;
        let back = Duration::from_nanos(now().saturating_sub(self.marked()));
        eprintln!("{:8.1} s: all are served, {back:?} after that", self.elapsed());
        if let Some(mark) = self.marks.last_mut() {
            mark.back_ms = Some(back.as_millis() as u64);
            mark.back_limit = if self.is_lenient { Duration::MAX } else { limit };
        }
        Ok(())
    }

    /// Since the last mark.
    pub fn since_mark(&self) -> Duration {
        Duration::from_nanos(now().saturating_sub(self.marked()))
    }

    /// What was measured, for the report.
    pub fn note(&mut self, what: String) {
        eprintln!("{:8.1} s: {what}", self.elapsed());
        self.notes.push(what);
    }

    /// The number of the view that the first running node acts in.
    pub fn view_number(&self) -> Option<u64> {
        let node = *self.nodes.running().first()?;
        self.nodes.view(node)?["view"].as_u64()
    }

    /// Asks every running node which shards it has taken up, and remembers it all.
    pub fn look_at_owners(&mut self) {
        for node in self.nodes.running() {
            if let Some(said) = self.nodes.shards(node) {
                self.owners.heard(&format!("n{node}"), said);
            }
        }
    }

    /// Every user's home, as a node says; `None`: it is just moving.
    ///
    /// # Errors
    /// When the node gives no answer.
    pub fn homes(&self, told_by: usize) -> Result<Vec<Option<usize>>> {
        let (api, nodes) = (Api::new(&self.nodes.http(told_by)), self.nodes.mqtt());
        let home = |user: &User| {
            let (_, said) = api.get_patiently("/connect", &user.token)?;
            let home = said["mqtt"].as_str().unwrap_or_default();
            Ok(nodes.iter().position(|node| node.to_string() == home))
        };
        self.world.users.iter().map(home).collect()
    }

    /// Users who were told on a connection to this node, between two moments, that a send is stored; and how often.
    pub fn told_by(&self, node: usize, from: u64, until: u64) -> Vec<(usize, usize)> {
        let told = |client: &Client| (client.user, client.served.through(node, from, until));
        let all = self.clients.iter().map(told);
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// Seconds since clients were started.
    pub fn elapsed(&self) -> f64 {
        self.began.map_or(0.0, |began| began.elapsed().as_secs_f64())
    }

    /// Lets the clients go on for so long.
    pub fn go_on(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// A time between two, milliseconds.
    pub fn between(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.random.random_range(from..=to))
    }

    /// Waits until every client has got an acknowledgement after this call, or the time is over; says how long that took.
    ///
    /// # Errors
    /// When somebody is not served in that time, or a node ended by itself.
    pub fn wait_all_served(&mut self, patience: Duration) -> Result<Duration> {
        self.wait_served_since(now(), patience)
    }

    fn wait_served_since(&mut self, from: u64, patience: Duration) -> Result<Duration> {
        let began = Instant::now();
        let mut formed = None;
        loop {
            if formed.is_none() && self.watches_view && self.nodes.is_formed() {
                formed = Some(self.since_mark());
                eprintln!(
                    "{:8.1} s: one settled view, {formed:?} after that",
                    self.elapsed()
                );
            }
            let unserved: Vec<&str> = self
                .clients
                .iter()
                .filter(|client| !client.served.since(from))
                .map(|client| &*client.name)
                .collect();
            if unserved.is_empty() {
                return Ok(began.elapsed());
            }
            if began.elapsed() > patience {
                bail!(
                    "{unserved:?} are not served for {patience:?}; told no: {:?}\n{}",
                    self.shared.failures(),
                    self.nodes.tails()
                );
            }
            self.nodes.check()?;
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// No new sends; what is in flight is retried until it is acknowledged or refused. Reads the histories, drains the sessions and asks the checker.
    ///
    /// # Errors
    /// When a node ended by itself, a history is not served or the checker does not run.
    pub fn finish(mut self) -> Result<Outcome> {
        let end = now();
        self.sent_for = self.elapsed();
        self.shared.stop();
        let until = Instant::now() + SETTLE;
        while self.shared.in_flight() > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        let left = self.shared.in_flight();
        if left > 0 {
            self.shared.problem(format!(
                "{left} sends were never answered, {SETTLE:?} after the last new one"
            ));
        }
        self.nodes.check()?;
        let reader = self.random.random_range(0..self.size.nodes);
        let histories = history::read(&self.shared, &self.world, &Api::new(&self.nodes.http(reader)))
            .with_context(|| format!("from n{reader}\n{}", self.nodes.tails()))?;
        let drain = self.drain(&histories);
        for task in &self.tasks {
            task.abort();
        }
        self.runtime.shutdown_timeout(Duration::from_secs(5));
        self.shared.recorder.flush()?;
        let (looks_at_owners, double) = self.owners.verdict();
        for what in double {
            self.shared.problem(what);
        }
        let around = &self.nodes.around;
        let claims = Some(around.claims.counts()).filter(|counts| counts.seen + counts.unreadable > 0);
        let verdict = judge(&self.folder.join("records"), 1)?;
        for at in 0..self.marks.len() {
            let until = self.marks.get(at + 1).map_or(end, |next| next.t);
            let all = self.clients.iter().map(|client| &*client.served);
            self.marks[at].felt = without(all, self.marks[at].t, until);
        }
        let repeated = |cause: &str| verdict.counts[format!("deliveries repeated {cause}")].as_u64();
        let causes = ["after a kill or reconnect", "without cause"];
        let duplicates = causes.into_iter().filter_map(repeated).sum();
        Ok(Outcome {
            seed: self.seed,
            acknowledged: self.shared.acknowledged(),
            delivered: self.shared.delivered(),
            messages: histories.messages,
            duplicates,
            seconds: self.sent_for,
            marks: self.marks,
            claims,
            looks_at_owners,
            notes: self.notes,
            told_no: self.shared.failures(),
            problems: self.shared.problems(),
            verdict,
            drain_ms: drain.as_millis() as u64,
        })
    }

    fn drain(&self, histories: &Histories) -> Duration {
        let began = Instant::now();
        let lacks = || {
            let lacking = |client: &&Client| client.seen.count() < histories.owed[client.user];
            self.clients.iter().filter(lacking).count()
        };
        let mut had_all = None;
        while began.elapsed() < DRAIN {
            let quiet = Duration::from_nanos(now().saturating_sub(self.shared.last_delivered()));
            let complete = lacks() == 0;
            if complete && had_all.is_none() {
                had_all = Some(began.elapsed());
            }
            if quiet >= if complete { QUIET } else { PATIENCE } && began.elapsed() >= QUIET {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for client in &self.clients {
            self.shared.recorder.write(&Line::End {
                t: now(),
                session: &client.name,
                user: Some(&self.world.users[client.user].id),
                from: 0,
            });
        }
        had_all.unwrap_or_else(|| began.elapsed())
    }
}
