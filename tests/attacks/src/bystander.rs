//! The bystanders: two users with stock clients (rumqttc, MQTT 5, persistent sessions, QoS 1) at a steady low rate, one
//! line of chat messages and one of an ordinary topic, and a client that comes and goes. What they lose, get twice or
//! out of order, and how long everything takes, is what an attack is judged by.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use godwit_e2e::world::User;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Packet};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::runtime::Runtime;

use crate::bed::Bed;
use crate::peer::Peer;
use crate::wire::{self, Hello};

/// Between two messages of a line.
pub const EVERY: Duration = Duration::from_millis(20);
/// Between two connections of who comes and goes.
const COMES: Duration = Duration::from_millis(60);
/// Between two looks at how late the bystanders' own thread is.
const PROBE: Duration = Duration::from_millis(5);
/// They stand for other machines, which have processors of their own: nothing here is to delay them. Without the right to it (root) they
/// are as any thread.
const NICE: i32 = -15;
/// How long what is under way at the end may take.
const DRAIN: Duration = Duration::from_secs(20);

/// One direction.
#[derive(Debug, Default)]
struct Line {
    sent: Mutex<Vec<Instant>>,
    /// (number, latency).
    arrived: Mutex<Vec<(usize, Duration)>>,
    acknowledged: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub struct Bystanders {
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    chat: Line,
    topic: Line,
    /// (begun, time to CONNACK; None: refused).
    came: Mutex<Vec<(Instant, Option<Duration>)>>,
    /// (when it was due, how late it was).
    probed: Mutex<Vec<(Instant, Duration)>>,
    ready: AtomicU64,
    lost: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// What happened to the bystanders in all.
#[derive(Clone, Debug, Default)]
pub struct Harm {
    /// Messages sent.
    pub sent: usize,
    /// Not arrived, or not acknowledged.
    pub lost: usize,
    /// Arrived more than once.
    pub doubled: usize,
    /// Arrived after a later one.
    pub disordered: usize,
    /// Connections that ended, and why.
    pub cut: Vec<String>,
}

/// Times of a part of a run, ascending.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The value below which this part lies; zero of nothing.
    pub fn quantile(&self, part: f64) -> Duration {
        let at = (self.0.len() as f64 * part).ceil() as usize;
        self.0.get(at.saturating_sub(1)).copied().unwrap_or_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bystanders {
    /// Starts them and waits until all are subscribed and something has arrived on both lines.
    ///
    /// # Errors
    /// When they do not get that far.
    pub fn start(bed: &Bed, topic_every: Duration) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(|| {
                let _ = rustix::process::nice(NICE);
            })
            .build()?;
        let shared = Arc::new(Shared::default());
        let [alice, bob] = &bed.bystanders;
        let own = format!("iot/{}/line", alice.name);
        let port = bed.mqtt();
        let _in = runtime.enter();
        let phone = client(&shared, alice, "phone", port, Some(&own));
        let desk = client(&shared, alice, "desk", port, None);
        client(&shared, bob, "phone", port, Some("me/inbox/text"));
        wait(|| shared.ready.load(Ordering::Acquire) == 3)?;
        tokio::spawn(send(Arc::clone(&shared), desk, own, Some(topic_every)));
        tokio::spawn(send(
            Arc::clone(&shared),
            phone,
            format!("c/@{}/send/text", bob.name),
            None,
        ));
        tokio::spawn(come_and_go(Arc::clone(&shared), alice.clone(), port));
        tokio::spawn(probe(Arc::clone(&shared)));
        wait(|| {
            [&shared.chat, &shared.topic]
                .iter()
                .all(|line| lock(&line.arrived).len() >= 2)
        })?;
        Ok(Self {
            runtime: Some(runtime),
            shared,
        })
    }

    /// Latencies of what was sent within this time.
    pub fn latencies(&self, from: Instant, to: Instant) -> Times {
        let mut times = Vec::new();
        for line in [&self.shared.chat, &self.shared.topic] {
            let sent = lock(&line.sent);
            let arrived = lock(&line.arrived);
            let within = |number: usize| sent.get(number).is_some_and(|at| *at >= from && *at < to);
            times.extend(
                arrived
                    .iter()
                    .filter(|(number, _)| within(*number))
                    .map(|(_, time)| *time),
            );
        }
        Times::of(times)
    }

    /// The slowest of them: when each was sent, since the beginning of this time, and what it took.
    pub fn slowest(&self, from: Instant, to: Instant, count: usize) -> Vec<(Duration, Duration)> {
        let mut all = Vec::new();
        for line in [&self.shared.chat, &self.shared.topic] {
            let sent = lock(&line.sent);
            for (number, time) in lock(&line.arrived).iter() {
                if let Some(at) = sent.get(*number).filter(|at| **at >= from && **at < to) {
                    all.push((*at - from, *time));
                }
            }
        }
        all.sort_unstable_by_key(|(_, time)| std::cmp::Reverse(*time));
        all.truncate(count);
        all
    }

    /// Times to CONNACK of connections begun within this time, and how many were refused.
    pub fn connects(&self, from: Instant, to: Instant) -> (Times, usize) {
        let came = lock(&self.shared.came);
        let within = came.iter().filter(|(at, _)| *at >= from && *at < to);
        let times: Vec<Option<Duration>> = within.map(|(_, time)| *time).collect();
        let refused = times.iter().filter(|time| time.is_none()).count();
        (Times::of(times.into_iter().flatten().collect()), refused)
    }

    /// How late timers of the bystanders' own thread were within this time, a millisecond of which is the timers' grain: what is measured
    /// here is wrong by so much.
    pub fn delays(&self, from: Instant, to: Instant) -> Times {
        let probed = lock(&self.shared.probed);
        let within = probed.iter().filter(|(at, _)| *at >= from && *at < to);
        Times::of(within.map(|(_, late)| *late).collect())
    }

    /// Nothing new is sent; what is under way arrives; everything is counted.
    pub fn finish(&mut self) -> Harm {
        self.shared.stop.store(true, Ordering::Release);
        let lines = [&self.shared.chat, &self.shared.topic];
        let _ = wait(|| {
            lines.iter().all(|line| {
                let sent = lock(&line.sent).len();
                line.acknowledged.load(Ordering::Acquire) as usize >= sent
                    && lock(&line.arrived).len() >= sent
            })
        });
        let mut harm = Harm {
            cut: lock(&self.shared.lost).clone(),
            ..Harm::default()
        };
        for line in lines {
            let sent = lock(&line.sent).len();
            let mut seen = vec![0_usize; sent];
            let mut highest = None;
            for (number, _) in lock(&line.arrived).iter() {
                let again = seen.get(*number).is_none_or(|count| *count > 0);
                if !again && highest.is_some_and(|highest| *number < highest) {
                    harm.disordered += 1;
                }
                highest = highest.max(Some(*number));
                if let Some(count) = seen.get_mut(*number) {
                    *count += 1;
                }
            }
            harm.sent += sent;
            let missing = seen.iter().filter(|count| **count == 0).count();
            let unacknowledged = sent.saturating_sub(line.acknowledged.load(Ordering::Acquire) as usize);
            harm.lost += missing.max(unacknowledged);
            harm.doubled += seen.iter().map(|count| count.saturating_sub(1)).sum::<usize>();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        harm
    }
}

impl Drop for Bystanders {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn wait(done: impl Fn() -> bool) -> Result<()> {
    let until = Instant::now() + DRAIN;
    while Instant::now() < until {
        if done() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("bystanders: not done in {DRAIN:?}")
}

/// A stock client; its events go to the lines.
fn client(shared: &Arc<Shared>, user: &User, id: &str, port: u16, filter: Option<&str>) -> AsyncClient {
    let mut options = MqttOptions::new(id, "127.0.0.1", port);
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    let properties = ConnectProperties {
        session_expiry_interval: Some(3_600),
        ..ConnectProperties::new()
    };
    options
        .set_connect_properties(properties)
        .set_credentials(&user.name, &user.token)
        .set_clean_start(false)
        .set_keep_alive(Duration::from_secs(10))
        .set_network_options(network);
    let (client, mut events) = AsyncClient::new(options, 256);
    let name = format!("{}/{id}", user.name);
    let filter = filter.map(str::to_owned);
    let (shared, subscriber) = (Arc::clone(shared), client.clone());
    tokio::spawn(async move {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(packet)) => came(&shared, packet, &subscriber, filter.as_deref(), &name),
                Ok(Event::Outgoing(_)) => {}
                Err(error) => {
                    if !shared.stop.load(Ordering::Acquire) {
                        lock(&shared.lost).push(format!("{name}: {error}"));
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    client
}

fn came(shared: &Shared, packet: Packet, client: &AsyncClient, filter: Option<&str>, name: &str) {
    match packet {
        Packet::ConnAck(ack) if !ack.session_present => match filter {
            Some(filter) if client.try_subscribe(filter, QoS::AtLeastOnce).is_ok() => {}
            None => drop(shared.ready.fetch_add(1, Ordering::AcqRel)),
            Some(_) => lock(&shared.lost).push(format!("{name}: no room to subscribe")),
        },
        Packet::SubAck(_) => drop(shared.ready.fetch_add(1, Ordering::AcqRel)),
        // Only alice's desk sends on the topic, only her phone into the conversation.
        Packet::PubAck(_) => {
            let line = if filter.is_some() {
                &shared.chat
            } else {
                &shared.topic
            };
            line.acknowledged.fetch_add(1, Ordering::AcqRel);
        }
        Packet::Publish(publish) => {
            let line = if publish.topic.starts_with(b"me/") {
                &shared.chat
            } else {
                &shared.topic
            };
            let text = String::from_utf8_lossy(&publish.payload);
            let number = text.rsplit(' ').next().and_then(|number| number.parse().ok());
            let Some(number) = number else { return };
            let at = lock(&line.sent).get(number).copied();
            if let Some(at) = at {
                lock(&line.arrived).push((number, at.elapsed()));
            }
        }
        _ => {}
    }
}

/// The steady sender of a line, of chat without another pace.
async fn send(shared: Arc<Shared>, client: AsyncClient, topic: String, every: Option<Duration>) {
    let line = if every.is_none() {
        &shared.chat
    } else {
        &shared.topic
    };
    let mut ticks = tokio::time::interval(every.unwrap_or(EVERY));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let number = {
            let mut sent = lock(&line.sent);
            sent.push(Instant::now());
            sent.len() - 1
        };
        let payload = format!("n {number}");
        if client
            .publish(&topic, QoS::AtLeastOnce, false, payload)
            .await
            .is_err()
        {
            lock(&shared.lost).push(format!("{topic}: the client is gone"));
            return;
        }
    }
}

/// See [`Bystanders::delays`].
async fn probe(shared: Arc<Shared>) {
    while !shared.stop.load(Ordering::Acquire) {
        let due = Instant::now() + PROBE;
        tokio::time::sleep_until(due.into()).await;
        lock(&shared.probed).push((due, due.elapsed()));
    }
}

/// A client of alice's that comes and goes: what others' connections take.
async fn come_and_go(shared: Arc<Shared>, alice: User, port: u16) {
    let hello = Hello {
        client: "watch".to_owned(),
        login: Some((alice.name, alice.token)),
        ..Hello::default()
    };
    while !shared.stop.load(Ordering::Acquire) {
        let begun = Instant::now();
        let opened = Peer::open(port, 59_999, &hello).await;
        let time = opened.is_ok().then(|| begun.elapsed());
        lock(&shared.came).push((begun, time));
        if let Ok(mut peer) = opened {
            peer.send_anyway(&wire::DISCONNECT).await;
        }
        tokio::time::sleep(COMES).await;
    }
}
