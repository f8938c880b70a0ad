//! A node and its processes: the real driver and holdings over the simulated store, homes on the shards that it is given,
//! messages to other nodes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use godwit_cluster::own::{
    About, Body, Clock, Group, Holdings, Homes, Layout, Map, Roles, Seat, Settings, Standing, drive,
};
use godwit_store::coordination::{Asked, StartId};
use godwit_store::{Scope, View};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use crate::bugs::Bug;
use crate::climate::{Climate, Kind};
use crate::content::MailEntry;
use crate::coordination::{BootClock, Rows};
use crate::engine::Engine;
use crate::exec::{Proc, Sim, lock, within};
use crate::oracle::Oracle;
use crate::replicas::Replicas;
use crate::stamps::Stamps;
use crate::transactions::Transactions;
use crate::{chaos, conversation, mailbox};

/// Few shards: the conversation is on shard 0 of its group, the mailbox of user n on shard n + 1 of its own.
pub(crate) const LAYOUT: Layout = Layout { shards: 5 };

pub(crate) fn conversation_slot() -> u16 {
    LAYOUT.slot(Group::Conversations, 0)
}

pub(crate) fn mailbox_slot(user: u8) -> u16 {
    LAYOUT.slot(Group::Users, u16::from(user) + 1)
}

/// A machine: what stays when its process dies.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) roles: Roles,
    /// How far its wall clock is off.
    pub(crate) wall: Arc<AtomicI64>,
    /// How long its boot clock has stood still so far, and until when it stands.
    pub(crate) behind: Arc<AtomicU64>,
    pub(crate) stands_since: Arc<AtomicU64>,
    pub(crate) process: Option<Arc<Process>>,
}

impl Node {
    /// A machine whose wall clock is off by so many microseconds.
    pub(crate) fn new(name: String, roles: Roles, wall: i64) -> Self {
        Self {
            name,
            roles,
            wall: Arc::new(AtomicI64::new(wall)),
            behind: Arc::default(),
            stands_since: Arc::default(),
            process: None,
        }
    }
}

/// Everything that the nodes share.
pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) replicas: Replicas,
    pub(crate) transactions: Transactions,
    pub(crate) oracle: Oracle,
    pub(crate) bug: Bug,
    pub(crate) nodes: Mutex<Vec<Node>>,
    /// Nodes that cannot reach each other.
    pub(crate) cut: Mutex<BTreeSet<(usize, usize)>>,
    /// Members and owners of the views that were decided.
    pub(crate) maps: Mutex<BTreeMap<View, (Vec<Seat>, Map)>>,
    /// Which process a start runs in.
    pub(crate) starts: Mutex<BTreeMap<StartId, (usize, Proc)>>,
    pub(crate) procs: AtomicU64,
    pub(crate) climate: Climate,
    /// Faults are over: what still comes due does nothing.
    pub(crate) calm: AtomicBool,
}

impl World {
    pub(crate) fn new(sim: &Sim, oracle: &Oracle, climate: Climate, nodes: Vec<Node>, bug: Bug) -> Arc<Self> {
        let replicas = Replicas::new(sim.clone());
        replicas.set(&climate);
        Arc::new(Self {
            transactions: Transactions::new(sim.clone(), replicas.clone()),
            replicas,
            oracle: oracle.clone(),
            bug,
            nodes: Mutex::new(nodes),
            cut: Mutex::default(),
            maps: Mutex::default(),
            starts: Mutex::default(),
            procs: AtomicU64::new(0),
            climate,
            calm: AtomicBool::new(false),
            sim: sim.clone(),
        })
    }

    /// Processes and tasks hold the world that holds them.
    pub(crate) fn end(&self) {
        for node in lock(&self.nodes).iter_mut() {
            node.process = None;
        }
        self.sim.clear();
    }

    /// Whether a fault of this chance happens: none once all is calm.
    fn faults(&self, chance: u64, of: u64) -> bool {
        self.sim.below(of) < chance && !self.calm.load(Ordering::SeqCst)
    }

    /// The process of the start that owned a slot in a view, as it was decided.
    fn owner(&self, number: View, slot: u16) -> Option<Proc> {
        let mut maps = lock(&self.maps);
        let (seats, map) = match maps.entry(number) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let body = Body::decode(&self.transactions.decided(number)?.body)?;
                let map = Map::of(LAYOUT, &body.seats);
                entry.insert((body.seats, map))
            }
        };
        let start = seats.get(map.owner(slot)?)?.start;
        lock(&self.starts).get(&start).map(|(_, proc)| *proc)
    }
}

/// One run of a node.
pub(crate) struct Process {
    pub(crate) world: Weak<World>,
    pub(crate) node: usize,
    pub(crate) proc: Proc,
    pub(crate) engine: Arc<Engine>,
    pub(crate) holdings: Arc<Holdings>,
    clock: BootClock,
    standing: Mutex<Option<Arc<Standing>>>,
    conversation: Mutex<Option<mpsc::UnboundedSender<conversation::Send>>>,
    mailboxes: Mutex<BTreeMap<u8, mpsc::UnboundedSender<mailbox::Ask>>>,
    pub(crate) drain: watch::Sender<bool>,
}

struct Shards {
    process: Weak<Process>,
}

impl Homes for Shards {
    fn let_go(&self, view: View, slots: Vec<u16>) -> Asked<'_, ()> {
        Box::pin(async move {
            let Some(process) = self.process.upgrade() else {
                return;
            };
            process
                .engine
                .oracle
                .say(process.proc, || format!("lets go of {slots:?} by view {view}"));
            if slots.contains(&conversation_slot()) {
                *lock(&process.conversation) = None;
            }
            lock(&process.mailboxes).retain(|user, _| !slots.contains(&mailbox_slot(*user)));
            // Dropping what is in memory takes a moment.
            process
                .engine
                .sim
                .sleep(process.engine.sim.between(0, 5_000))
                .await;
        })
    }

    fn take_up(&self, view: View, slots: Vec<u16>) {
        let Some(process) = self.process.upgrade() else {
            return;
        };
        process
            .engine
            .oracle
            .say(process.proc, || format!("is given {slots:?} in view {view}"));
        for slot in slots {
            let scope = Scope { shard: slot, view };
            if slot == conversation_slot() {
                let (sender, inbox) = mpsc::unbounded_channel();
                *lock(&process.conversation) = Some(sender);
                process.spawn(conversation::home(process.clone(), scope, inbox));
                process.aim();
            }
            for user in 0..crate::content::USERS {
                if slot == mailbox_slot(user) {
                    let (sender, inbox) = mpsc::unbounded_channel();
                    lock(&process.mailboxes).insert(user, sender);
                    process.spawn(mailbox::home(process.clone(), scope, user, inbox));
                    process.aim();
                }
            }
        }
        process.check_held();
    }

    fn moved(&self, standing: Arc<Standing>) {
        let Some(process) = self.process.upgrade() else {
            return;
        };
        process.engine.oracle.say(process.proc, || {
            let seats = standing
                .body
                .seats
                .iter()
                .map(|seat| &*seat.name)
                .collect::<Vec<_>>()
                .join(" ");
            let open: Vec<View> = standing
                .body
                .unsettled
                .iter()
                .map(|earlier| earlier.number)
                .collect();
            format!(
                "stands in view {} of {seats}, unsettled {open:?}",
                standing.number
            )
        });
        *lock(&process.standing) = Some(standing);
        process.check_held();
    }
}

impl Process {
    /// Starts a node.
    pub(crate) fn start(world: &Arc<World>, node: usize) {
        let proc = world.procs.fetch_add(1, Ordering::SeqCst) as Proc + 1;
        let mut nodes = lock(&world.nodes);
        let machine = &mut nodes[node];
        let sim = world.sim.clone();
        let holdings = Arc::new(Holdings::new(LAYOUT));
        let engine = Arc::new(Engine {
            sim: sim.clone(),
            replicas: world.replicas.clone(),
            transactions: world.transactions.clone(),
            holdings: holdings.clone(),
            stamps: Stamps::new(sim.clone(), machine.wall.clone()),
            proc,
            oracle: world.oracle.clone(),
            bug: world.bug,
        });
        let clock = BootClock {
            sim: sim.clone(),
            behind: machine.behind.clone(),
            stands_since: machine.stands_since.clone(),
        };
        let (drain, drained) = watch::channel(false);
        let process = Arc::new(Self {
            world: Arc::downgrade(world),
            node,
            proc,
            engine,
            holdings: holdings.clone(),
            clock: clock.clone(),
            standing: Mutex::default(),
            conversation: Mutex::default(),
            mailboxes: Mutex::default(),
            drain,
        });
        world
            .oracle
            .say(proc, || format!("is a start of {}", machine.name));
        machine.process = Some(process.clone());
        let about = About {
            name: machine.name.clone(),
            roles: machine.roles,
            peer: format!("{}:1", machine.name),
            ..About::default()
        };
        drop(nodes);
        let rows = Rows {
            process: Arc::downgrade(&process),
            replicas: world.replicas.clone(),
            transactions: world.transactions.clone(),
            proc,
        };
        let shards = Shards {
            process: Arc::downgrade(&process),
        };
        let bugs = godwit_cluster::own::Bugs {
            skips_views: world.bug == Bug::SkipsViews,
            forgets_unsettled: world.bug == Bug::ForgetsUnsettled,
            trusts_hidden_rows: world.bug == Bug::HidesRows,
        };
        let fresh = {
            let world = world.clone();
            move || {
                let random = if world.bug == Bug::ReusesView {
                    0
                } else {
                    world.sim.random()
                };
                let start = Uuid::from_u64_pair(random, node as u64 + 1);
                lock(&world.starts).insert(start, (node, proc));
                (start, world.sim.random())
            }
        };
        let settings = Settings {
            about,
            holdings,
            fresh: Box::new(fresh),
            bugs,
        };
        process.spawn(async move {
            drive(settings, &rows, &clock, &shards, drained).await;
        });
    }

    pub(crate) fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) {
        self.engine.sim.spawn(self.proc, job);
    }

    pub(crate) fn may_act(&self) -> bool {
        self.holdings.may_act(self.clock.now())
    }

    /// What a start holds was its own in every view since it took it up.
    fn check_held(&self) {
        let Some(world) = self.world.upgrade() else { return };
        let current = self.holdings.current();
        for slot in 0..LAYOUT.slots() as u16 {
            let Some(since) = self.holdings.held(slot) else {
                continue;
            };
            for number in since..=current {
                let owner = world.owner(number, slot);
                if owner != Some(self.proc) {
                    let why = format!("p{} holds slot {slot} from view {since} to {current}", self.proc);
                    world
                        .oracle
                        .breaks("HELD", format!("{why}, in {number} it was {owner:?}'s"));
                }
            }
        }
    }

    /// Some take-ups are hit: the moments in which everything is at stake.
    fn aim(&self) {
        let Some(world) = self.world.upgrade() else { return };
        if world.faults(world.climate.aimed, 100) {
            let most = [9_000, 9_000, 60_000, 900_000][world.sim.below(4) as usize];
            let when = world.sim.now() + world.sim.between(0, most);
            let (proc, node, there) = (self.proc, self.node, Arc::downgrade(&world));
            world.sim.at(when, move || {
                if let Some(world) = there.upgrade() {
                    chaos::hit(&world, node, proc);
                }
            });
        }
    }

    /// Just before the write of an append: some are torn, before some the process is stopped.
    pub(crate) async fn before_append(&self, scope: Scope, log: u8, seq: u64) {
        let Some(world) = self.world.upgrade() else { return };
        if world.faults(world.climate.tears, 1_000) {
            chaos::tear(&world, self.node, self.proc);
        }
        self.engine.stop_now().await;
        if world.climate.kind == Kind::Stops && !self.may_act() {
            world.oracle.begins_late(self.proc, scope.view, log, seq);
        }
    }

    /// A message to another process takes a while, or gets lost.
    async fn travel(world: &World, from: usize, to: usize) -> bool {
        let (sim, cut) = (&world.sim, (from.min(to), from.max(to)));
        if from != to && lock(&world.cut).contains(&cut) {
            sim.sleep(sim.between(500_000, 1_500_000)).await;
            return false;
        }
        let late = lock(&world.replicas.weather).late;
        let most = if sim.chance(late) { 3_000_000 } else { 3_000 };
        sim.sleep(sim.between(100, most)).await;
        true
    }

    /// Offers an entry to whom this node takes for the mailbox's owner. Whether it is stored there.
    pub(crate) async fn offer(&self, user: u8, mail: MailEntry) -> bool {
        let Some(world) = self.world.upgrade() else {
            return false;
        };
        let standing = lock(&self.standing).clone();
        let slot = mailbox_slot(user);
        let owner =
            standing.and_then(|standing| Some(standing.body.seats.get(standing.map.owner(slot)?)?.start));
        let Some((node, proc)) = owner.and_then(|start| lock(&world.starts).get(&start).copied()) else {
            return false;
        };
        let (reply, answer) = oneshot::channel();
        let (from, there, sim) = (self.node, world.clone(), world.sim.clone());
        // Under way whatever becomes of the sender.
        world.sim.spawn(crate::exec::WORLD, async move {
            if !Self::travel(&there, from, node).await {
                return;
            }
            let process = lock(&there.nodes)[node]
                .process
                .clone()
                .filter(|process| process.proc == proc);
            let Some(process) = process else { return };
            let (stored, done) = oneshot::channel();
            let home = lock(&process.mailboxes).get(&user).cloned();
            let Some(home) = home else { return };
            if home.send(mailbox::Ask::Offer { mail, reply: stored }).is_err() {
                return;
            }
            if done.await.is_ok() && Self::travel(&there, node, from).await {
                // Who offered may be gone.
                let _ = reply.send(());
            }
        });
        within(&sim, 2_000_000, answer)
            .await
            .is_some_and(|answer| answer.is_ok())
    }

    /// Asks this process' home of the conversation from outside.
    pub(crate) async fn ask(&self, entry: crate::content::Entry) -> Option<u64> {
        let (reply, answer) = oneshot::channel();
        let home = lock(&self.conversation).clone()?;
        home.send(conversation::Send { entry, reply }).ok()?;
        within(&self.engine.sim, 3_000_000, answer).await?.ok()
    }

    /// Tells this process' home of a mailbox how far a device is.
    pub(crate) async fn acknowledge(&self, user: u8, at: u64) -> bool {
        let (reply, answer) = oneshot::channel();
        let home = lock(&self.mailboxes).get(&user).cloned();
        let Some(home) = home else { return false };
        if home.send(mailbox::Ask::Cursor { at, reply }).is_err() {
            return false;
        }
        within(&self.engine.sim, 2_000_000, answer)
            .await
            .is_some_and(|answer| answer.is_ok())
    }
}
