//! The file layer under a node's data folder: mounted by a process of its own that ends with the test, and the orders
//! that a test gives it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::binaries::Program;

/// A power loss over gigabytes takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long an unmount may take.
const UNMOUNT: Duration = Duration::from_secs(10);

/// A mounted file layer.
#[derive(Debug)]
pub struct Disk {
    mount: PathBuf,
    control: PathBuf,
    child: Child,
}

impl Disk {
    /// Mounts one, with its files, its mount point and its socket in the folder.
    ///
    /// # Errors
    /// When the layer does not start; it needs root and /dev/fuse.
    pub fn mount(folder: &Path, seed: u64) -> Result<Self> {
        let (backing, mount) = (folder.join("backing"), folder.join("mount"));
        let control = folder.join("disk.socket");
        std::fs::create_dir_all(&backing)?;
        std::fs::create_dir_all(&mount)?;
        let mut child = Command::new(Program::Faultfs.path()?)
            .arg("mount")
            .arg("--backing")
            .arg(&backing)
            .arg("--mount")
            .arg(&mount)
            .arg("--control")
            .arg(&control)
            .args(["--seed", &seed.to_string(), "--until-stdin-ends"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the file layer does not start")?;
        let mut line = String::new();
        let out = child.stdout.take().context("no output of the file layer")?;
        BufReader::new(out).read_line(&mut line)?;
        if !line.starts_with("serving") {
            let _ = child.kill();
            let _ = child.wait();
            bail!("the file layer did not come up: {line}");
        }
        Ok(Self {
            mount,
            control,
            child,
        })
    }

    /// Where the files are.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Gives an order, for example `power-loss torn`; gives the answer.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub fn order(&self, line: &str) -> Result<Value> {
        let mut stream = UnixStream::connect(&self.control)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer)?;
        let answer: Value = serde_json::from_str(&answer)?;
        if answer["ok"] != Value::Bool(true) {
            bail!("`{line}`: {answer}");
        }
        Ok(answer)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Its input ends: it unmounts and goes.
        drop(self.child.stdin.take());
        let until = Instant::now() + UNMOUNT;
        while Instant::now() < until {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
