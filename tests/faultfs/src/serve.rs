//! Mounting a layer and taking it down again, and the socket that orders its faults. One object owns both; dropping
//! it unmounts.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use rustix::mount::{UnmountFlags, unmount};

use crate::command;
use crate::fuse::Fuse;
use crate::layer::{Layer, Names};

/// The device without which nothing can be served.
const DEVICE: &str = "/dev/fuse";
/// Threads that answer the kernel: one may wait for another's file, so more than cores.
const THREADS: usize = 4;
/// The longest line the control socket reads.
const LINE_MAX: u64 = 1024;

/// What to serve, where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder that keeps the files.
    pub backing: PathBuf,
    /// The folder where the program finds them; must exist.
    pub mount: PathBuf,
    /// The control socket to make, replacing a stale one.
    pub control: PathBuf,
    /// Decides every power loss that is given no seed of its own.
    pub seed: u64,
    /// When names are durable.
    pub names: Names,
}

/// A mounted layer. Dropping it unmounts, as far as that is possible.
#[derive(Debug)]
pub struct Served {
    layer: Arc<Layer>,
    session: Option<BackgroundSession>,
    mount: PathBuf,
    control: PathBuf,
    stop: Arc<AtomicBool>,
}

/// Mounts and answers orders, until stopped or dropped.
///
/// # Errors
/// When `/dev/fuse` is missing, the mount is refused (it needs root), or a path does not serve.
pub fn serve(options: &Options) -> Result<Served> {
    if !Path::new(DEVICE).exists() {
        bail!(
            "{DEVICE} is missing: the file layer needs FUSE in the kernel and the device in this environment"
        );
    }
    clear_stale_mount(&options.mount);
    let layer = Layer::open(&options.backing, options.seed, options.names)
        .with_context(|| format!("backing folder {}", options.backing.display()))?;
    let layer = Arc::new(layer);
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("faultfs".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoAtime,
    ];
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    let session = fuser::spawn_mount(Fuse::new(Arc::clone(&layer)), &options.mount, &config)
        .with_context(|| format!("mounting on {}", options.mount.display()))?;
    let served = Served {
        layer: Arc::clone(&layer),
        session: Some(session),
        mount: options.mount.clone(),
        control: options.control.clone(),
        stop: Arc::new(AtomicBool::new(false)),
    };
    remove_socket(&options.control);
    let listener = UnixListener::bind(&options.control)
        .with_context(|| format!("control socket {}", options.control.display()))?;
    let stop = Arc::clone(&served.stop);
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || answer_orders(&listener, &layer, &stop))?;
    Ok(served)
}

impl Served {
    /// The layer behind the mount, for its status.
    pub fn layer(&self) -> &Layer {
        &self.layer
    }

    /// Setting it asks [`Served::wait`] to return.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Returns when told to stop by the socket or the flag, or when somebody else unmounted.
    pub fn wait(&self) {
        while !self.stop.load(Ordering::Acquire)
            && self
                .session
                .as_ref()
                .is_some_and(|session| !session.guard.is_finished())
        {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Unmounts; everything counts as synced, and the backing folder is an ordinary one again.
    ///
    /// # Errors
    /// When the backing folder cannot be tidied.
    pub fn close(mut self) -> Result<()> {
        self.take_down();
        self.layer.close().context("tidying the backing folder")
    }

    fn take_down(&mut self) {
        if let Some(session) = self.session.take() {
            // Detached, because a program may still have files open; it gets errors from then on.
            let _ = unmount(&self.mount, UnmountFlags::DETACH);
            remove_socket(&self.control);
            // With a program still holding files the session ends only with it: do not wait for that.
            if !session.guard.is_finished() {
                std::thread::sleep(Duration::from_millis(50));
            }
            if session.guard.is_finished() {
                let _ = session.umount_and_join();
            } else {
                std::mem::forget(session);
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.take_down();
    }
}

/// A layer that was killed leaves a mount that answers ENOTCONN to everything.
fn clear_stale_mount(mount: &Path) {
    if let Err(e) = std::fs::metadata(mount)
        && e.raw_os_error() == Some(rustix::io::Errno::NOTCONN.raw_os_error())
    {
        let _ = unmount(mount, UnmountFlags::DETACH);
    }
}

fn remove_socket(path: &Path) {
    if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        let _ = std::fs::remove_file(path);
    }
}

/// One caller after the other: an order is done before the next is read.
fn answer_orders(listener: &UnixListener, layer: &Layer, stop: &AtomicBool) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        // A caller that says nothing must not keep others waiting for ever.
        let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
        let _ = answer_caller(&stream, layer, stop);
    }
}

fn answer_caller(stream: &UnixStream, layer: &Layer, stop: &AtomicBool) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if io::Read::take(&mut reader, LINE_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line.trim() == "shutdown" {
            stop.store(true, Ordering::Release);
        }
        let mut answer = command::run(layer, &line);
        answer.push('\n');
        let mut stream = stream;
        stream.write_all(answer.as_bytes())?;
    }
}
