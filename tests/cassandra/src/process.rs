//! One node as a process: started so that it ends with the process that started it, signalled, awaited. Knows nothing of CQL.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How much of a log's end an error shows, in bytes.
const TAIL: u64 = 6_000;

/// A running node.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Stopped by a signal, not dead.
    pub(crate) stopped: bool,
}

impl Process {
    /// Starts `java` with these arguments; what it says goes to the end of `log`.
    pub(crate) fn start(java: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        // The kernel kills the node when the thread that started it ends, and a process has no thread longer than `SPAWNER`'s.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(java)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C at a terminal is for who started us.
            .process_group(0);
        let child = spawn(command).context("cannot run setpriv: please install util-linux")?;
        Ok(Self {
            child,
            stopped: false,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Whether it has ended, and how.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Kills it (SIGKILL, which ends a stopped process too) and waits until it is gone.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Memory in bytes as the kernel counts it: resident now, and the most that it was.
    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let of = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kib * 1024)
        };
        match (of("VmRSS:"), of("VmHWM:")) {
            (Some(now), Some(most)) => Ok((now, most)),
            _ => bail!("process {} has ended", self.pid()),
        }
    }
}

type Order = (Command, SyncSender<io::Result<Child>>);

/// Has the child started by a thread that lives as long as the process does: "parent's death" is that of the thread, and a
/// test's thread ends with its test.
fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<SyncSender<Order>>> = OnceLock::new();
    let gone = || io::Error::other("the thread that starts processes has ended");
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = sync_channel::<Order>(0);
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // Nobody waits for the answer any more: then nobody owns the child either.
                if let Err(unsent) = answer.send(command.spawn())
                    && let Ok(mut child) = unsent.0
                {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        });
        Mutex::new(orders)
    });
    let (answer, outcome) = sync_channel(1);
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer))
        .map_err(|_| gone())?;
    outcome.recv().map_err(|_| gone())?
}

/// The end of a log, for an error.
pub(crate) fn tail(log: &PathBuf) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut end = Vec::new();
        file.read_to_end(&mut end)?;
        Ok(String::from_utf8_lossy(&end).into_owned())
    };
    read().unwrap_or_else(|error| format!("(its log cannot be read: {error})"))
}
