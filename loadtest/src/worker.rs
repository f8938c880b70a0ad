//! A worker process: takes an order from its parent, drives the engine through connect, run, window and drain, and
//! reports. It decides nothing about the run as a whole.

use crate::{
    client::Shared,
    engine::Engine,
    packets::PacketError,
    procfs::Process,
    report::WorkerReport,
    spec::{Order, Scenario, Spec, Word},
};
use anyhow::Context;
use std::{
    io::{BufRead, Write},
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
    if let Err(error) = Worker::new(spec).and_then(|mut worker| worker.work()) {
        say(&Word::Failed(error.0));
    }
    Ok(())
}

fn say(word: &Word) {
    let mut out = std::io::stdout().lock();
    let told = serde_json::to_writer(&mut out, word).is_ok() && writeln!(out).is_ok() && out.flush().is_ok();
    if !told {
        // The parent is gone, and nobody else wants the result.
        std::process::exit(1);
    }
}

struct Worker {
    engine: Engine,
    orders: Receiver<Order>,
    last_progress: Instant,
    last_ping: Instant,
    window: Option<(Instant, f64)>,
    next_due: Instant,
    next_publisher: usize,
}

impl Worker {
    fn new(spec: Spec) -> Result<Self, PacketError> {
        let shared = Shared {
            spec,
            stats: WorkerReport::default(),
            publishing: false,
            measuring: false,
        };
        let failed = |error: std::io::Error| PacketError(format!("the worker cannot start: {error}"));
        let engine = Engine::new(shared).map_err(failed)?;
        let waker = engine.waker().map_err(failed)?;
        let (sender, orders) = channel();
        // Reads orders until the parent closes the pipe; a parent that is gone ends this process.
        thread::Builder::new()
            .name("orders".into())
            .spawn(move || {
                for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                    let Ok(order) = serde_json::from_str(&line) else {
                        break;
                    };
                    if sender.send(order).is_err() || waker.wake().is_err() {
                        return;
                    }
                }
                std::process::exit(1);
            })
            .map_err(failed)?;
        let now = Instant::now();
        Ok(Self {
            engine,
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
        self.engine.shared.publishing = true;
        self.next_due = Instant::now();
        if self.engine.shared.spec.rate.is_none() {
            self.engine.pump_all()?;
        }
        if self.engine.shared.spec.scenario == Scenario::Connect {
            self.deliver_all()?;
        } else {
            self.await_order(Order::Measure)?;
            self.engine.shared.measuring = true;
            self.window = Some((Instant::now(), own_cpu()));
        }
        self.await_order(Order::Stop)?;
        self.engine.shared.publishing = false;
        self.engine.shared.measuring = false;
        if let Some((began, cpu)) = self.window {
            self.engine.shared.stats.window_seconds = began.elapsed().as_secs_f64();
            self.engine.shared.stats.generator_cpu_seconds = own_cpu() - cpu;
        } else {
            self.engine.shared.stats.generator_cpu_seconds = own_cpu();
        }
        self.drain()?;
        self.report();
        Ok(())
    }

    fn connect(&mut self) -> Result<(), PacketError> {
        let began = Instant::now();
        let (clients, recipients) = (
            self.engine.shared.spec.clients(),
            self.engine.shared.spec.recipients,
        );
        let mut recipients_ready = 0.0;
        let mut last = (0, began);
        while self.engine.ready_count < clients {
            self.engine.open_more()?;
            self.turn()?;
            if self.engine.ready_count > last.0 {
                last = (self.engine.ready_count, Instant::now());
            } else if last.1.elapsed() > CONNECT_PATIENCE {
                return Err(PacketError(format!(
                    "only {} of {clients} clients are connected and subscribed, and none more in {} s",
                    last.0,
                    CONNECT_PATIENCE.as_secs()
                )));
            }
            if self.engine.ready_recipients == recipients && recipients_ready == 0.0 {
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
        let spec = &self.engine.shared.spec;
        let wanted = spec.recipients as u64 * spec.messages_each;
        let mut last = (0, Instant::now());
        loop {
            let stats = &self.engine.shared.stats;
            if stats.sent >= wanted && stats.received >= wanted && self.engine.unanswered() == 0 {
                say(&Word::Delivered);
                return Ok(());
            }
            let seen = stats.received + stats.acked + stats.refused;
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
            let stats = &self.engine.shared.stats;
            if self.engine.unanswered() == 0 && stats.received >= stats.acked {
                return Ok(());
            }
            let seen = stats.received + stats.acked + stats.refused;
            if seen > last.0 {
                last = (seen, Instant::now());
            } else if last.1.elapsed() > DRAIN_PATIENCE {
                return Ok(());
            }
            self.turn()?;
        }
    }

    fn report(&mut self) {
        let unanswered = self.engine.unanswered();
        self.engine.close();
        let stats = &mut self.engine.shared.stats;
        stats.unanswered = unanswered;
        stats.lost = stats.acked.saturating_sub(stats.received);
        say(&Word::Done(Box::new(stats.clone())));
    }

    fn turn(&mut self) -> Result<(), PacketError> {
        let mut timeout = TICK;
        if let (Some(rate), true) = (self.engine.shared.spec.rate, self.engine.shared.publishing) {
            let step = Duration::from_secs_f64(1.0 / rate.max(0.001));
            let mut now = Instant::now();
            for _ in 0..MAX_CATCH_UP {
                if self.next_due > now {
                    break;
                }
                self.engine.due(self.next_publisher)?;
                self.next_publisher = (self.next_publisher + 1) % self.engine.shared.spec.publishers.max(1);
                self.next_due += step;
                now = Instant::now();
            }
            timeout = timeout.min(self.next_due.saturating_duration_since(now));
        }
        self.engine.turn(timeout)?;
        self.tell_progress();
        self.keep_alive()
    }

    fn tell_progress(&mut self) {
        if self.last_progress.elapsed() >= TICK * 2 {
            self.last_progress = Instant::now();
            let received = self.engine.shared.stats.received;
            say(&Word::Progress {
                ready: self.engine.ready_count as u64,
                received,
            });
        }
    }

    fn keep_alive(&mut self) -> Result<(), PacketError> {
        let keep_alive = u64::from(self.engine.shared.spec.keep_alive);
        if keep_alive > 0 && self.last_ping.elapsed() >= Duration::from_secs(keep_alive).div_f64(2.0) {
            self.last_ping = Instant::now();
            return self.engine.ping_all();
        }
        Ok(())
    }
}

fn own_cpu() -> f64 {
    Process::current().cpu_seconds().unwrap_or_default()
}
