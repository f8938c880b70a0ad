//! Where the programs under test are: given by the environment, else built by cargo into the folder of the running
//! test, so that a test never judges an older build of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

/// A program that a test starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Program {
    /// The product.
    Godwit,
    /// The product with the planted bugs compiled in, asleep until one is chosen.
    GodwitPlanted,
    /// The judge.
    Checker,
    /// The file layer.
    Faultfs,
    /// A Cassandra by hand.
    Cassandra,
}

impl Program {
    /// (environment variable, binary, cargo features)
    fn facts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Godwit => ("GODWIT_BIN", "godwit", ""),
            Self::GodwitPlanted => (
                "GODWIT_PLANTED_BIN",
                "godwit-planted",
                "godwit-server/planted-bugs",
            ),
            Self::Checker => ("GODWIT_CHECKER_BIN", "godwit-checker", ""),
            Self::Faultfs => ("GODWIT_FAULTFS_BIN", "godwit-faultfs", ""),
            Self::Cassandra => ("GODWIT_CASSANDRA_BIN", "godwit-cassandra", ""),
        }
    }

    /// Its path. The first call of a process builds it, unless the environment names it or `GODWIT_NO_BUILD` says
    /// that what lies in the target folder is good.
    ///
    /// # Errors
    /// When it is not where the environment says, or does not build.
    pub fn path(self) -> Result<PathBuf> {
        static FOUND: Mutex<Option<HashMap<Program, PathBuf>>> = Mutex::new(None);
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        let found = found.get_or_insert_default();
        if let Some(path) = found.get(&self) {
            return Ok(path.clone());
        }
        let path = self.find()?;
        found.insert(self, path.clone());
        Ok(path)
    }

    fn find(self) -> Result<PathBuf> {
        let (variable, binary, features) = self.facts();
        if let Some(path) = std::env::var_os(variable) {
            let path = PathBuf::from(path);
            if !path.is_file() {
                bail!("{variable} names {}, which is not there", path.display());
            }
            return Ok(path);
        }
        let (target, release) = target_folder()?;
        let path = target
            .join(if release { "release" } else { "debug" })
            .join(binary);
        if std::env::var_os("GODWIT_NO_BUILD").is_some() && path.is_file() {
            return Ok(path);
        }
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            // The whole workspace's features: with those of one package alone most dependencies would be compiled again.
            .args(["build", "--quiet", "--workspace", "--bin", binary])
            .arg("--target-dir")
            .arg(&target)
            .current_dir(workspace());
        if release {
            cargo.arg("--release");
        }
        if !features.is_empty() {
            cargo.args(["--features", features]);
        }
        let status = cargo.status().context("cargo does not start")?;
        if !status.success() || !path.is_file() {
            bail!("{binary} did not build ({status})");
        }
        Ok(path)
    }
}

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .map_or_else(|| here.to_path_buf(), Path::to_path_buf)
}

/// The target folder in which the running program lies, and whether it is of the release profile.
fn target_folder() -> Result<(PathBuf, bool)> {
    let running = std::env::current_exe()?;
    for folder in running.ancestors() {
        let name = folder.file_name().and_then(|name| name.to_str());
        if let (Some("debug" | "release"), Some(target)) = (name, folder.parent()) {
            return Ok((target.to_path_buf(), name == Some("release")));
        }
    }
    bail!("{} is in no target folder", running.display())
}
