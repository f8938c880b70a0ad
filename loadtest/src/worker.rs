//! A worker process: takes an order from its parent, drives its clients through connect, run, window and drain, and
//! reports. It decides nothing about the run as a whole.

use crate::{
    clients::Clients,
    engine::Engine,
    packets::PacketError,
    procfs::Process,
    real::RealClients,
    spec::{ClientKind, Order, Scenario, Spec, Word},
    work::Shared,
};
use anyhow::Context;
use std::{
    io::{self, BufRead, Write},
    sync::mpsc::{Receiver, TryRecvError, channel},
    thread,
    time::{Duration, Instant},
};

/// Longest wait for readiness, so that progress is told and orders are seen.
const TICK: Duration = Duration::from_millis(100);
/// Without a new connection for this long the broker is taken to be stuck.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// Without anything new for this long after the last publish, what is missing is lost.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// Most rate-mode publishes caught up in one turn, so that reading is never starved.
const MAX_CATCH_UP: usize = 256;

/// Runs the worker on standard input and output until its report is written.
///
/// # Errors
/// When the parent cannot be understood or is gone; failures of the run itself are told to the parent.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut lines = std::io::stdin().lock().lines();
    let first = lines.next().context("no order on standard input")??;
    let spec: Spec = serde_json::from_str(&first).context("the order on standard input is not understood")?;
    drop(lines);
    let kind = spec.client;
    let shared = Shared::new(spec);
    let outcome = match kind {
        ClientKind::Light => work(Engine::new(shared)),
        ClientKind::Rumqttc => work(RealClients::new(shared)),
    };
    if let Err(error) = outcome {
        say(&Word::Failed(error.0));
    }
    Ok(())
}

fn work<C: Clients>(clients: io::Result<C>) -> Result<(), PacketError> {
    let worker = clients.and_then(Worker::new);
    worker
        .map_err(|error| PacketError(format!("the worker cannot start: {error}")))?
        .work()
}

fn say(word: &Word) {
    let mut out = std::io::stdout().lock();
    let told = serde_json::to_writer(&mut out, word).is_ok() && writeln!(out).is_ok() && out.flush().is_ok();
    if !told {
        // The parent is gone, and nobody else wants the result.
        std::process::exit(1);
    }
}

/// What has been counted so far, as far as the worker waits for it.
struct Counts {
    sent: u64,
    received: u64,
    acked: u64,
    /// Acknowledged or refused.
    answered: u64,
}

struct Worker<C> {
    clients: C,
    orders: Receiver<Order>,
    last_progress: Instant,
    last_ping: Instant,
    window: Option<(Instant, f64)>,
    next_due: Instant,
    next_publisher: usize,
}

impl<C: Clients> Worker<C> {
    fn new(clients: C) -> io::Result<Self> {
        let wake_up = clients.waker()?;
        let (sender, orders) = channel();
        // Reads orders until the parent closes the pipe; a parent that is gone ends this process.
        thread::Builder::new().name("orders".into()).spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                let Ok(order) = serde_json::from_str(&line) else {
                    break;
                };
                if sender.send(order).is_err() || wake_up().is_err() {
                    return;
                }
            }
            std::process::exit(1);
        })?;
        let now = Instant::now();
        Ok(Self {
            clients,
            orders,
            last_progress: now,
            last_ping: now,
            window: None,
            next_due: now,
            next_publisher: 0,
        })
    }

    fn work(&mut self) -> Result<(), PacketError> {
        self.connect()?;
        self.await_order(Order::Go)?;
        self.clients.shared().publishing = true;
        self.next_due = Instant::now();
        if self.clients.shared().spec.rate.is_none() {
            self.clients.pump_all()?;
        }
        if self.clients.shared().spec.scenario == Scenario::Connect {
            self.deliver_all()?;
        } else {
            self.await_order(Order::Measure)?;
            self.clients.shared().measuring = true;
            self.window = Some((Instant::now(), own_cpu()));
        }
        self.await_order(Order::Stop)?;
        self.clients.shared().publishing = false;
        self.clients.shared().measuring = false;
        if let Some((began, cpu)) = self.window {
            self.clients.shared().stats.window_seconds = began.elapsed().as_secs_f64();
            self.clients.shared().stats.generator_cpu_seconds = own_cpu() - cpu;
        } else {
            self.clients.shared().stats.generator_cpu_seconds = own_cpu();
        }
        self.drain()?;
        self.report();
        Ok(())
    }

    fn connect(&mut self) -> Result<(), PacketError> {
        let began = Instant::now();
        let (clients, recipients) = {
            let spec = &self.clients.shared().spec;
            (spec.clients(), spec.recipients)
        };
        let mut recipients_ready = 0.0;
        let mut last = (0, began);
        while self.clients.ready() < clients {
            self.clients.open_more()?;
            self.turn()?;
            if self.clients.ready() > last.0 {
                last = (self.clients.ready(), Instant::now());
            } else if last.1.elapsed() > CONNECT_PATIENCE {
                return Err(PacketError(format!(
                    "only {} of {clients} clients are connected and subscribed, and none more in {} s",
                    last.0,
                    CONNECT_PATIENCE.as_secs()
                )));
            }
            if self.clients.ready_recipients() == recipients && recipients_ready == 0.0 {
                recipients_ready = began.elapsed().as_secs_f64();
            }
        }
        say(&Word::Ready {
            seconds: recipients_ready,
        });
        Ok(())
    }

    /// Turns until the parent gives the awaited order.
    fn await_order(&mut self, awaited: Order) -> Result<(), PacketError> {
        loop {
            match self.orders.try_recv() {
                Ok(order) if order == awaited => return Ok(()),
                Ok(order) => return Err(PacketError(format!("unexpected order {order:?}"))),
                Err(TryRecvError::Empty) => self.turn()?,
                Err(TryRecvError::Disconnected) => return Err(PacketError("the parent is gone".into())),
            }
        }
    }

    /// `connect`: turns until every recipient has all its messages.
    fn deliver_all(&mut self) -> Result<(), PacketError> {
        let wanted = {
            let spec = &self.clients.shared().spec;
            spec.recipients as u64 * spec.messages_each
        };
        let mut last = (0, Instant::now());
        loop {
            let Counts {
                sent,
                received,
                answered,
                ..
            } = self.counts();
            if sent >= wanted && received >= wanted && self.clients.unanswered() == 0 {
                say(&Word::Delivered);
                return Ok(());
            }
            let seen = received + answered;
            if seen > last.0 {
                last = (seen, Instant::now());
            } else if last.1.elapsed() > DRAIN_PATIENCE {
                // What is missing is told in the report.
                say(&Word::Delivered);
                return Ok(());
            }
            self.turn()?;
        }
    }

    /// Waits for what is under way, as long as anything still comes.
    fn drain(&mut self) -> Result<(), PacketError> {
        let mut last = (0, Instant::now());
        loop {
            let Counts {
                received,
                acked,
                answered,
                ..
            } = self.counts();
            if self.clients.unanswered() == 0 && received >= acked {
                return Ok(());
            }
            let seen = received + answered;
            if seen > last.0 {
                last = (seen, Instant::now());
            } else if last.1.elapsed() > DRAIN_PATIENCE {
                return Ok(());
            }
            self.turn()?;
        }
    }

    fn counts(&mut self) -> Counts {
        let stats = &self.clients.shared().stats;
        Counts {
            sent: stats.sent,
            received: stats.received,
            acked: stats.acked,
            answered: stats.acked + stats.refused,
        }
    }

    fn report(&mut self) {
        let unanswered = self.clients.unanswered();
        let mut stats = self.clients.shared().stats.clone();
        self.clients.close();
        stats.unanswered = unanswered;
        stats.lost = stats.acked.saturating_sub(stats.received);
        say(&Word::Done(Box::new(stats)));
    }

    fn turn(&mut self) -> Result<(), PacketError> {
        let mut timeout = TICK;
        let (rate, publishers) = {
            let shared = self.clients.shared();
            (
                shared.spec.rate.filter(|_| shared.publishing),
                shared.spec.publishers.max(1),
            )
        };
        if let Some(rate) = rate {
            let step = Duration::from_secs_f64(1.0 / rate.max(0.001));
            let mut now = Instant::now();
            for _ in 0..MAX_CATCH_UP {
                if self.next_due > now {
                    break;
                }
                self.clients.due(self.next_publisher)?;
                self.next_publisher = (self.next_publisher + 1) % publishers;
                self.next_due += step;
                now = Instant::now();
            }
            timeout = timeout.min(self.next_due.saturating_duration_since(now));
        }
        self.clients.turn(timeout)?;
        self.tell_progress();
        self.keep_alive()
    }

    fn tell_progress(&mut self) {
        if self.last_progress.elapsed() >= TICK * 2 {
            self.last_progress = Instant::now();
            let received = self.clients.shared().stats.received;
            say(&Word::Progress {
                ready: self.clients.ready() as u64,
                received,
            });
        }
    }

    fn keep_alive(&mut self) -> Result<(), PacketError> {
        let keep_alive = u64::from(self.clients.shared().spec.keep_alive);
        if keep_alive > 0 && self.last_ping.elapsed() >= Duration::from_secs(keep_alive).div_f64(2.0) {
            self.last_ping = Instant::now();
            return self.clients.ping_all();
        }
        Ok(())
    }
}

fn own_cpu() -> f64 {
    Process::current().cpu_seconds().unwrap_or_default()
}
