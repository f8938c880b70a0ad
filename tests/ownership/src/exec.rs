//! A deterministic world: virtual time in microseconds, one source of chance, tasks that belong to processes. One thread;
//! the same seed gives the same run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Microseconds since the world began.
pub(crate) type Micros = u64;

/// A process: one run of a node from its start to its death. 0 is the world itself, which never dies.
pub(crate) type Proc = u32;

pub(crate) const WORLD: Proc = 0;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

enum Timer {
    Wake(Waker),
    Run(Box<dyn FnOnce() + Send>),
}

struct Task {
    proc: Proc,
    /// `None` while it is polled.
    job: Option<Job>,
    waker: Waker,
}

#[derive(Default)]
struct State {
    now: Micros,
    serial: u64,
    random: u64,
    timers: BTreeMap<(Micros, u64), Timer>,
    tasks: BTreeMap<u64, Task>,
    paused: BTreeSet<Proc>,
    dead: BTreeSet<Proc>,
    /// Ready tasks of paused processes.
    stopped: BTreeMap<Proc, Vec<u64>>,
    events: u64,
}

type Ready = Arc<Mutex<VecDeque<u64>>>;

/// The world. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Sim {
    state: Arc<Mutex<State>>,
    ready: Ready,
}

struct TaskWaker {
    id: u64,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        lock(&self.ready).push_back(self.id);
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        let sim = Self::default();
        lock(&sim.state).random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66_D1CE_4E5B;
        sim
    }

    pub(crate) fn now(&self) -> Micros {
        lock(&self.state).now
    }

    pub(crate) fn events(&self) -> u64 {
        lock(&self.state).events
    }

    /// splitmix64.
    pub(crate) fn random(&self) -> u64 {
        let mut state = lock(&self.state);
        state.random = state.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to below `n`.
    pub(crate) fn below(&self, n: u64) -> u64 {
        self.random() % n.max(1)
    }

    pub(crate) fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// Whether something of `percent` chance happens.
    pub(crate) fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Does `what` at a time, whoever is dead or paused by then.
    pub(crate) fn at(&self, when: Micros, what: impl FnOnce() + Send + 'static) {
        self.timer(when, Timer::Run(Box::new(what)));
    }

    fn timer(&self, when: Micros, timer: Timer) {
        let mut state = lock(&self.state);
        let when = when.max(state.now);
        state.serial += 1;
        let key = (when, state.serial);
        state.timers.insert(key, timer);
    }

    pub(crate) fn sleep_until(&self, when: Micros) -> Sleep {
        Sleep {
            sim: self.clone(),
            when,
            set: false,
        }
    }

    pub(crate) fn sleep(&self, micros: Micros) -> Sleep {
        self.sleep_until(self.now() + micros)
    }

    /// Runs a task as part of a process; nothing if that one is dead.
    pub(crate) fn spawn(&self, proc: Proc, job: impl Future<Output = ()> + Send + 'static) {
        let mut state = lock(&self.state);
        if state.dead.contains(&proc) {
            return;
        }
        state.serial += 1;
        let id = state.serial;
        let waker = Waker::from(Arc::new(TaskWaker {
            id,
            ready: self.ready.clone(),
        }));
        let job: Option<Job> = Some(Box::pin(job));
        state.tasks.insert(id, Task { proc, job, waker });
        lock(&self.ready).push_back(id);
    }

    /// The process is no more; what it has sent is under way still.
    pub(crate) fn kill(&self, proc: Proc) {
        let gone: Vec<Task> = {
            let mut state = lock(&self.state);
            state.dead.insert(proc);
            state.paused.remove(&proc);
            state.stopped.remove(&proc);
            let ids: Vec<u64> = state
                .tasks
                .iter()
                .filter(|(_, t)| t.proc == proc)
                .map(|(id, _)| *id)
                .collect();
            ids.iter().filter_map(|id| state.tasks.remove(id)).collect()
        };
        // Outside the lock: what they hold may wake others.
        drop(gone);
    }

    /// Drops all tasks and timers, which hold the world that holds them.
    pub(crate) fn clear(&self) {
        let (tasks, timers) = {
            let mut state = lock(&self.state);
            (
                std::mem::take(&mut state.tasks),
                std::mem::take(&mut state.timers),
            )
        };
        drop(tasks);
        drop(timers);
    }

    pub(crate) fn is_dead(&self, proc: Proc) -> bool {
        lock(&self.state).dead.contains(&proc)
    }

    pub(crate) fn pause(&self, proc: Proc) {
        lock(&self.state).paused.insert(proc);
    }

    pub(crate) fn is_paused(&self, proc: Proc) -> bool {
        lock(&self.state).paused.contains(&proc)
    }

    pub(crate) fn resume(&self, proc: Proc) {
        let mut state = lock(&self.state);
        state.paused.remove(&proc);
        let stopped = state.stopped.remove(&proc).unwrap_or_default();
        lock(&self.ready).extend(stopped);
    }

    /// Runs until `when`, or until `until` says so after an event.
    pub(crate) fn run(&self, when: Micros, mut until: impl FnMut() -> bool) {
        loop {
            while let Some(id) = { lock(&self.ready).pop_front() } {
                self.poll(id);
            }
            if until() {
                return;
            }
            let timer = {
                let mut state = lock(&self.state);
                match state.timers.first_key_value() {
                    Some((&(at, _), _)) if at <= when => {
                        state.now = at;
                        state.events += 1;
                    }
                    _ => {
                        state.now = when;
                        return;
                    }
                }
                state.timers.pop_first().map(|(_, timer)| timer)
            };
            match timer {
                Some(Timer::Wake(waker)) => waker.wake(),
                Some(Timer::Run(what)) => what(),
                None => return,
            }
        }
    }

    fn poll(&self, id: u64) {
        let (mut job, waker) = {
            let mut state = lock(&self.state);
            let Some(task) = state.tasks.get_mut(&id) else {
                return;
            };
            let proc = task.proc;
            if state.paused.contains(&proc) {
                state.stopped.entry(proc).or_default().push(id);
                return;
            }
            let Some(task) = state.tasks.get_mut(&id) else {
                return;
            };
            let Some(job) = task.job.take() else { return };
            (job, task.waker.clone())
        };
        let done = job.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let over = {
            let mut state = lock(&self.state);
            match state.tasks.get_mut(&id) {
                Some(task) if !done => {
                    task.job = Some(job);
                    None
                }
                // Done, or its process died while it ran.
                _ => {
                    state.tasks.remove(&id);
                    Some(job)
                }
            }
        };
        drop(over);
    }
}

/// Ends at a time.
pub(crate) struct Sleep {
    sim: Sim,
    when: Micros,
    set: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.sim.now() >= self.when {
            return Poll::Ready(());
        }
        if !self.set {
            self.set = true;
            self.sim.timer(self.when, Timer::Wake(cx.waker().clone()));
        }
        Poll::Pending
    }
}

/// All at once; answers in the order given.
pub(crate) async fn all<T>(jobs: Vec<impl Future<Output = T> + Send>) -> Vec<T> {
    let mut jobs: Vec<_> = jobs.into_iter().map(|job| (Box::pin(job), None)).collect();
    std::future::poll_fn(|cx| {
        let mut open = false;
        for (job, answer) in &mut jobs {
            if answer.is_none() {
                match job.as_mut().poll(cx) {
                    Poll::Ready(value) => *answer = Some(value),
                    Poll::Pending => open = true,
                }
            }
        }
        if open { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    jobs.into_iter().filter_map(|(_, answer)| answer).collect()
}

/// The first of both; the other one is dropped.
pub(crate) async fn within<T>(sim: &Sim, micros: Micros, job: impl Future<Output = T> + Send) -> Option<T> {
    let mut job = Box::pin(job);
    let mut sleep = Box::pin(sim.sleep(micros));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(value) = job.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        sleep.as_mut().poll(cx).map(|()| None)
    })
    .await
}
