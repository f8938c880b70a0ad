//! The worker processes of one run, seen from their parent: started as children of this binary, given orders, listened
//! to, ended. What a run consists of is decided elsewhere.

use crate::{
    report::WorkerReport,
    spec::{Order, Spec, Word},
};
use anyhow::{Context, bail};
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

/// Longest silence of a worker; it tells its progress several times a second.
const SILENCE: Duration = Duration::from_secs(60);

/// Worker processes; dropping them ends them.
pub(crate) struct Fleet {
    workers: Vec<Worker>,
    words: Receiver<(usize, Option<Word>)>,
}

struct Worker {
    child: Child,
    stdin: ChildStdin,
    ready: u64,
    received: u64,
}

/// What all workers together have done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Clients ready.
    pub(crate) ready: u64,
    /// Messages received.
    pub(crate) received: u64,
}

impl Fleet {
    /// Starts a worker for each order.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub(crate) fn start(specs: &[Spec]) -> anyhow::Result<Self> {
        let (sender, words) = channel();
        let mut workers = Vec::new();
        for (number, spec) in specs.iter().enumerate() {
            let mut child = Command::new(std::env::current_exe()?)
                .arg("worker")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("a worker process cannot be started")?;
            let mut stdin = child.stdin.take().context("worker without input")?;
            let stdout = child.stdout.take().context("worker without output")?;
            let sender = sender.clone();
            thread::Builder::new()
                .name(format!("worker {number}"))
                .spawn(move || {
                    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                        if let Ok(word) = serde_json::from_str(&line)
                            && sender.send((number, Some(word))).is_err()
                        {
                            return;
                        }
                    }
                    // The parent may have stopped listening.
                    let _ = sender.send((number, None));
                })?;
            writeln!(stdin, "{}", serde_json::to_string(spec)?)?;
            stdin.flush()?;
            workers.push(Worker {
                child,
                stdin,
                ready: 0,
                received: 0,
            });
        }
        Ok(Self { workers, words })
    }

    /// Gives an order to all.
    ///
    /// # Errors
    /// When a worker is gone.
    pub(crate) fn order(&mut self, order: Order) -> anyhow::Result<()> {
        for worker in &mut self.workers {
            writeln!(worker.stdin, "{}", serde_json::to_string(&order)?).context("a worker is gone")?;
            worker.stdin.flush()?;
        }
        Ok(())
    }

    /// Waits until all are ready; gives the longest time one of them took, in seconds.
    ///
    /// # Errors
    /// When a worker failed.
    pub(crate) fn await_ready(&mut self, show: &mut dyn FnMut(Progress)) -> anyhow::Result<f64> {
        let mut slowest: f64 = 0.0;
        for _ in 0..self.workers.len() {
            let Word::Ready { seconds } = self.next(show, |word| matches!(word, Word::Ready { .. }))? else {
                bail!("a worker spoke out of turn");
            };
            slowest = slowest.max(seconds);
        }
        Ok(slowest)
    }

    /// Waits until all have delivered their messages.
    ///
    /// # Errors
    /// When a worker failed.
    pub(crate) fn await_delivered(&mut self, show: &mut dyn FnMut(Progress)) -> anyhow::Result<()> {
        for _ in 0..self.workers.len() {
            self.next(show, |word| matches!(word, Word::Delivered))?;
        }
        Ok(())
    }

    /// Waits for all reports and adds them up.
    ///
    /// # Errors
    /// When a worker failed.
    pub(crate) fn await_done(mut self, show: &mut dyn FnMut(Progress)) -> anyhow::Result<WorkerReport> {
        let mut total = WorkerReport::default();
        for _ in 0..self.workers.len() {
            let Word::Done(report) = self.next(show, |word| matches!(word, Word::Done(_)))? else {
                bail!("a worker spoke out of turn");
            };
            total.merge(&report);
        }
        Ok(total)
    }

    /// Lets time pass while the workers work.
    ///
    /// # Errors
    /// When a worker failed.
    pub(crate) fn watch(&mut self, time: Duration, show: &mut dyn FnMut(Progress)) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            match self.words.recv_timeout(left) {
                Ok((number, word)) => drop(self.heard(number, word, show)?),
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => bail!("all workers are gone"),
            }
        }
    }

    fn next(
        &mut self,
        show: &mut dyn FnMut(Progress),
        wanted: impl Fn(&Word) -> bool,
    ) -> anyhow::Result<Word> {
        loop {
            let (number, word) = self
                .words
                .recv_timeout(SILENCE)
                .context("the workers have been silent for a minute")?;
            if let Some(word) = self.heard(number, word, show)?
                && wanted(&word)
            {
                return Ok(word);
            }
        }
    }

    fn heard(
        &mut self,
        number: usize,
        word: Option<Word>,
        show: &mut dyn FnMut(Progress),
    ) -> anyhow::Result<Option<Word>> {
        match word {
            Some(Word::Progress { ready, received }) => {
                self.workers[number].ready = ready;
                self.workers[number].received = received;
                let mut all = Progress::default();
                for worker in &self.workers {
                    all.ready += worker.ready;
                    all.received += worker.received;
                }
                show(all);
                Ok(None)
            }
            Some(Word::Failed(line)) => bail!(line),
            Some(word) => Ok(Some(word)),
            None => match self.workers[number].child.wait() {
                Ok(status) if status.success() => Ok(None),
                Ok(status) => bail!("worker {number} ended early: {status}"),
                Err(error) => bail!("worker {number} cannot be waited for: {error}"),
            },
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // It may have ended by itself; there is nothing more to end then.
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        }
    }
}
