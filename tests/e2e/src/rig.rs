//! Puts a run together: the node (perhaps on the file layer), the world, all recording clients, and the end of it —
//! drained sessions, histories, a verdict. What is done to the node in between is the scenario's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;

use crate::chat::{Chat, Seen};
use crate::disk::Disk;
use crate::history::{self, Histories};
use crate::judge::{Verdict, judge};
use crate::mqtt::{Connection, Happened, Login, Version};
use crate::node::Node;
use crate::posting;
use crate::record::{Line, Recorder, now};
use crate::rest::Api;
use crate::session::{Script, Session};
use crate::shared::Shared;
use crate::topics::{Publisher, Subscriber};
use crate::world::{World, form_of};

/// Users that publish on ordinary topics, each with two publishers and three subscribers.
const TOPIC_USERS: usize = 4;
/// One in so many users has a second session, in another form.
const SECOND_ONE_IN: usize = 5;
/// How long sends that are not acknowledged may be retried after the end of sending.
const SETTLE: Duration = Duration::from_secs(90);
/// The same with a planted bug: a send that it swallowed is never answered, and what is not acknowledged is not judged.
const SETTLE_PLANTED: Duration = Duration::from_secs(10);
/// How long the drain may take in all.
const DRAIN: Duration = Duration::from_secs(180);
/// So long nothing arrives before a session that lacks something is given up.
const PATIENCE: Duration = Duration::from_secs(15);
/// The same with a planted bug: what it lost does not come. Not with [`LOSES_DELIVERIES`].
const PATIENCE_PLANTED: Duration = Duration::from_secs(5);
/// What this bug breaks shows by nothing but that deliveries do not come, and a machine that stands still for a few seconds looks the same.
const LOSES_DELIVERIES: &str = "skip-mailbox";
/// So long nothing arrives before sessions that have everything are called drained: something too much may come.
const QUIET: Duration = Duration::from_secs(2);

/// How large a run is.
#[derive(Debug, Clone)]
pub struct Size {
    /// Users, all of them members of the large groups.
    pub users: usize,
    /// How many of them also send.
    pub senders: usize,
    /// Sends in flight of each.
    pub window: usize,
    /// REST senders.
    pub posters: usize,
}

impl Size {
    /// The one of issue and CI: conversations of 2, 8 and 200.
    pub fn full() -> Self {
        Self {
            users: 200,
            senders: 60,
            window: 6,
            posters: 6,
        }
    }
}

/// What ended and how.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Sends and publishes acknowledged.
    pub acknowledged: u64,
    /// Arrivals.
    pub delivered: u64,
    /// Messages in all histories.
    pub messages: u64,
    /// How often clients were told no, by code.
    pub told_no: std::collections::BTreeMap<String, u64>,
    /// What no client should ever see.
    pub problems: Vec<String>,
    /// How often a read of history was told to come again.
    pub busy_reads: u64,
    /// The checker's.
    pub verdict: Verdict,
    /// How long sessions took to get what they were owed, ms.
    pub drain_ms: u64,
    /// How long SIGTERM took, ms.
    pub stop_ms: Option<u64>,
}

struct Listener {
    name: String,
    user: Option<usize>,
    seen: Arc<Seen>,
}

/// A run.
pub struct Rig {
    /// The node.
    pub node: Node,
    /// The file layer under it, if any.
    pub disk: Option<Disk>,
    /// What the clients share.
    pub shared: Arc<Shared>,
    /// Who talks to whom.
    pub world: Arc<World>,
    folder: PathBuf,
    api: Api,
    runtime: Runtime,
    random: StdRng,
    size: Size,
    settle: Duration,
    patience: Duration,
    tasks: Vec<AbortHandle>,
    threads: Vec<JoinHandle<()>>,
    listeners: Vec<Listener>,
}

impl Rig {
    /// Starts the node, on the file layer if asked, and makes the world. The folder gets data, log and records.
    ///
    /// # Errors
    /// When something of that does not work.
    pub fn new(
        folder: &Path,
        binary: &Path,
        planted: Option<&str>,
        on_layer: bool,
        size: Size,
        seed: u64,
    ) -> Result<Self> {
        std::fs::create_dir_all(folder.join("records"))?;
        let mut random = StdRng::seed_from_u64(seed);
        let disk = on_layer.then(|| Disk::mount(folder, seed)).transpose()?;
        let under = disk
            .as_ref()
            .map_or_else(|| folder.to_path_buf(), |disk| disk.path().to_path_buf());
        let mut node = Node::new(binary, &under.join("data"), &folder.join("godwit.log"))?;
        if let Some(planted) = planted {
            node = node.environment("GODWIT_PLANTED", planted);
        }
        node.start()?;
        let api = Api::new(&node.http());
        let mut world = World::of_users(&api, size.users)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("clients")
            .enable_all()
            .build()?;
        runtime.block_on(make_cursors(&world, node.ports().mqtt))?;
        world.make_conversations(&api, &mut random)?;
        if let Some(disk) = &disk {
            // What is tried is the load, not the making of the world: a bug that syncs nothing shall lose messages only.
            disk.order("sync-all")?;
        }
        let (settle, patience) = match planted {
            Some(LOSES_DELIVERIES) => (SETTLE_PLANTED, PATIENCE),
            Some(_) => (SETTLE_PLANTED, PATIENCE_PLANTED),
            None => (SETTLE, PATIENCE),
        };
        Ok(Self {
            shared: Arc::new(Shared::new(Recorder::create(&folder.join("records"))?)),
            world: Arc::new(world),
            folder: folder.to_path_buf(),
            node,
            disk,
            api,
            runtime,
            random,
            size,
            settle,
            patience,
            tasks: Vec::new(),
            threads: Vec::new(),
            listeners: Vec::new(),
        })
    }

    /// The door over REST.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// A random number.
    pub fn random(&mut self) -> &mut StdRng {
        &mut self.random
    }

    /// Starts every client.
    ///
    /// # Errors
    /// When a thread does not start.
    pub fn start_clients(&mut self) -> Result<()> {
        for user in 0..self.size.users {
            self.chat(user, false);
            if user.is_multiple_of(SECOND_ONE_IN) {
                self.chat(user, true);
            }
        }
        for user in 0..TOPIC_USERS.min(self.size.users) {
            for (version, letter) in [(Version::V3, "three"), (Version::V5, "five")] {
                self.publisher(user, version, letter);
            }
            for (version, qos) in [(Version::V3, 1), (Version::V5, 2), (Version::V3, 2)] {
                self.subscriber(user, version, qos);
            }
        }
        for number in 0..self.size.posters {
            let (shared, world, api) = (
                Arc::clone(&self.shared),
                Arc::clone(&self.world),
                self.api.clone(),
            );
            let seed = self.random.random();
            let name = format!("poster{number}");
            let run = move || posting::post(&shared, &world, &api, seed, &name);
            self.threads.push(std::thread::Builder::new().spawn(run)?);
        }
        let (shared, world, api) = (
            Arc::clone(&self.shared),
            Arc::clone(&self.world),
            self.api.clone(),
        );
        let run = move || {
            posting::change(&shared, &world, &api);
        };
        self.threads.push(std::thread::Builder::new().spawn(run)?);
        Ok(())
    }

    fn chat(&mut self, user: usize, second: bool) {
        let form = form_of(user, second);
        let (login, name) = chat_login(&self.world, user, second, self.node.ports().mqtt);
        let window = if user < self.size.senders {
            self.size.window
        } else {
            0
        };
        let seen = Arc::new(Seen::default());
        let script = Chat::new(
            Arc::clone(&self.shared),
            Arc::clone(&self.world),
            user,
            name.clone(),
            form,
            window,
            self.fork(),
            Arc::clone(&seen),
        );
        let filter = format!("me/inbox{}", form.1.suffix());
        self.listeners.push(Listener {
            name: name.clone(),
            user: Some(user),
            seen,
        });
        self.run(name, login, Some((filter, 1)), script);
    }

    fn publisher(&mut self, user: usize, version: Version, letter: &str) {
        let of = self.world.users[user].clone();
        let name = format!("{}-pub-{letter}", of.name);
        let login = Login {
            version,
            client: format!("pub-{letter}"),
            user: of.name.clone(),
            token: of.token,
            port: self.node.ports().mqtt,
            receive_maximum: None,
        };
        let random = self.fork();
        let script = Publisher::new(
            Arc::clone(&self.shared),
            &of.name,
            &name,
            self.size.window,
            random,
        );
        self.run(name, login, None, script);
    }

    fn subscriber(&mut self, user: usize, version: Version, qos: u8) {
        let of = self.world.users[user].clone();
        let client = format!("sub-{version:?}-{qos}");
        let name = format!("{}-{client}", of.name);
        let login = Login {
            version,
            client,
            user: of.name.clone(),
            token: of.token,
            port: self.node.ports().mqtt,
            receive_maximum: Some(30),
        };
        let seen = Arc::new(Seen::default());
        let filter = format!("iot/{}/#", of.name);
        let script = Subscriber::new(Arc::clone(&self.shared), &name, &filter, Arc::clone(&seen));
        self.listeners.push(Listener {
            name: name.clone(),
            user: None,
            seen,
        });
        self.run(name, login, Some((filter, qos)), script);
    }

    fn fork(&mut self) -> StdRng {
        StdRng::seed_from_u64(self.random.random())
    }

    fn run<S: Script>(&mut self, name: String, login: Login, filter: Option<(String, u8)>, script: S) {
        let session = Session {
            name,
            login,
            filter,
            script,
            shared: Arc::clone(&self.shared),
            random: self.fork(),
        };
        self.tasks.push(self.runtime.spawn(session.run()).abort_handle());
    }

    /// kill -9, with the power loss if a mode is given, and a new start. Gives how many sends were in flight and how
    /// long the start took.
    ///
    /// # Errors
    /// When the node had ended before or does not start again.
    pub fn kill_and_start(&mut self, power_loss: Option<&str>) -> Result<(i64, Duration)> {
        let (t, in_flight) = (now(), self.shared.in_flight());
        self.node.kill()?;
        self.shared.recorder.write(&Line::Kill { t });
        if let Some(mode) = power_loss {
            let disk = self.disk.as_ref().context("no file layer")?;
            disk.order(&format!("power-loss {mode}"))?;
        }
        Ok((in_flight, self.node.start()?))
    }

    /// Waits until something is acknowledged that was not before the call.
    ///
    /// # Errors
    /// When nothing is for that long.
    pub fn wait_served(&mut self, patience: Duration) -> Result<Duration> {
        let began = Instant::now();
        let before = self.shared.acknowledged();
        while self.shared.acknowledged() == before {
            if let Some(status) = self.node.ended()? {
                bail!("the node ended by itself ({status}): {}", self.node.tail());
            }
            if began.elapsed() > patience {
                bail!("nothing acknowledged for {patience:?}: {}", self.node.tail());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(began.elapsed())
    }

    /// No new sends; what is in flight is retried until it is acknowledged or refused.
    pub fn settle(&mut self) {
        self.shared.stop();
        let until = Instant::now() + self.settle;
        while self.shared.in_flight() > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        let left = self.shared.in_flight();
        if left > 0 {
            self.shared.problem(format!(
                "{left} sends were never answered, {:?} after the last new one",
                self.settle
            ));
        }
    }

    /// Reads the histories, drains the sessions, stops the node in order and asks the checker.
    ///
    /// # Errors
    /// When a history is not served or the checker does not run.
    pub fn finish(mut self, least: u64) -> Result<Outcome> {
        let histories = history::read(&self.shared, &self.world, &self.api)?;
        let drain = self.drain(&histories);
        for task in &self.tasks {
            task.abort();
        }
        let stop_ms = match self.node.stop() {
            Ok(took) => Some(took.as_millis() as u64),
            Err(error) => {
                self.shared.problem(format!("{error:#}"));
                None
            }
        };
        // Posters end with the stop; one that hangs is reported by what it left in flight.
        self.runtime.shutdown_timeout(Duration::from_secs(5));
        self.shared.recorder.flush()?;
        let verdict = judge(&self.folder.join("records"), least)?;
        Ok(Outcome {
            acknowledged: self.shared.acknowledged(),
            delivered: self.shared.delivered(),
            messages: histories.messages,
            told_no: self.shared.failures(),
            problems: self.shared.problems(),
            busy_reads: self.api.busy(),
            verdict,
            drain_ms: drain.as_millis() as u64,
            stop_ms,
        })
    }

    fn drain(&self, histories: &Histories) -> Duration {
        let began = Instant::now();
        let lacks = || {
            self.listeners
                .iter()
                .filter(|listener| {
                    let owed = listener.user.and_then(|user| histories.owed.get(user));
                    owed.is_some_and(|owed| listener.seen.count() < *owed)
                })
                .count()
        };
        let mut had_all = None;
        while began.elapsed() < DRAIN {
            let quiet = Duration::from_nanos(now().saturating_sub(self.shared.last_delivered()));
            let complete = lacks() == 0;
            if complete && had_all.is_none() {
                had_all = Some(began.elapsed());
            }
            if quiet >= if complete { QUIET } else { self.patience } && began.elapsed() >= QUIET {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for listener in &self.listeners {
            self.shared.recorder.write(&Line::End {
                t: now(),
                session: &listener.name,
                user: listener.user.map(|user| &*self.world.users[user].id),
                from: 0,
            });
        }
        had_all.unwrap_or_else(|| began.elapsed())
    }
}

fn chat_login(world: &World, user: usize, second: bool, port: u16) -> (Login, String) {
    let of = &world.users[user];
    let client = if second { "tablet" } else { "phone" };
    let login = Login {
        version: form_of(user, second).0,
        client: client.to_owned(),
        user: of.name.clone(),
        token: of.token.clone(),
        port,
        receive_maximum: user.is_multiple_of(3).then_some(20),
    };
    (login, format!("{}-{client}", of.name))
}

/// Every chat session subscribes once before there is any conversation: its cursor then owes it everything.
async fn make_cursors(world: &World, port: u16) -> Result<()> {
    let mut all = tokio::task::JoinSet::new();
    for user in 0..world.users.len() {
        for second in [false, true] {
            if second && !user.is_multiple_of(SECOND_ONE_IN) {
                continue;
            }
            let (login, name) = chat_login(world, user, second, port);
            let filter = format!("me/inbox{}", form_of(user, second).1.suffix());
            all.spawn(async move {
                let mut connection = Connection::new(&login);
                connection.subscribe(&filter, 1);
                for _ in 0..200 {
                    match connection.next().await {
                        Happened::Subscribed { granted: true, .. } => return Ok(()),
                        Happened::Subscribed { .. } => bail!("{name} was refused {filter}"),
                        Happened::Lost(why) => {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            eprintln!("{name}: {why}");
                        }
                        _ => {}
                    }
                }
                bail!("{name} got no SUBACK for {filter}")
            });
        }
    }
    let joined = tokio::time::timeout(Duration::from_secs(120), async {
        while let Some(done) = all.join_next().await {
            done??;
        }
        anyhow::Ok(())
    });
    joined.await.context("subscribing took over two minutes")?
}
