//! What a node runs on: a Java that Cassandra 5 supports, and the jars, which Maven resolves once and the target folder remembers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Which Cassandra; read by Maven.
const POM: &str = include_str!("../pom.xml");

/// The Java that Cassandra 5.0 is made for and tested with. It does not start on later ones (they have no security manager).
const JAVA: u32 = 17;

/// What starts a node.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) java: PathBuf,
    /// Jars, with colons between them.
    pub(crate) classpath: String,
}

impl Runtime {
    /// Finds Java and the jars. The first call on a machine downloads some 70 MB, through Maven's own settings and repository; others
    /// who ask meanwhile, in this process or another, wait for it.
    ///
    /// # Errors
    /// When Java or Maven is missing, saying what to install, or when Maven cannot resolve the jars, with what it said.
    pub(crate) fn find() -> Result<Self> {
        Ok(Self {
            java: java()?,
            classpath: classpath()?,
        })
    }
}

/// `JAVA_HOME`, what PATH has, then what the system has installed besides: the first of the right version.
fn java() -> Result<PathBuf> {
    let mut candidates: Vec<PathBuf> = Vec::new();
    if let Some(home) = std::env::var_os("JAVA_HOME") {
        candidates.push(Path::new(&home).join("bin/java"));
    }
    candidates.push(PathBuf::from("java"));
    if let Ok(installed) = fs::read_dir("/usr/lib/jvm") {
        candidates.extend(installed.flatten().map(|entry| entry.path().join("bin/java")));
    }
    let mut seen = Vec::new();
    for candidate in candidates {
        match version(&candidate) {
            Some(JAVA) => return Ok(candidate),
            Some(other) => seen.push(format!("{} is version {other}", candidate.display())),
            None => {}
        }
    }
    let seen = if seen.is_empty() {
        "none found".to_owned()
    } else {
        seen.join(", ")
    };
    bail!(
        "Cassandra needs Java {JAVA} ({seen}): please install openjdk-{JAVA}-jre-headless, or name one in JAVA_HOME"
    )
}

fn version(java: &Path) -> Option<u32> {
    let said = Command::new(java)
        .arg("-version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    major(&String::from_utf8_lossy(&said.stderr))
}

/// From `openjdk version "17.0.15" 2025-04-15`.
fn major(said: &str) -> Option<u32> {
    let number = said.lines().find_map(|line| line.split_once("version \""))?.1;
    let end = number
        .find(|sign: char| !sign.is_ascii_digit())
        .unwrap_or(number.len());
    number[..end].parse().ok()
}

fn classpath() -> Result<String> {
    let folder = target().join("godwit-cassandra");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let lock = File::create(folder.join("lock"))?;
    // Let go of when the file is closed. A first download is bounded by Maven's own time-outs.
    lock.lock()?;
    let (pom, list) = (folder.join("pom.xml"), folder.join("classpath"));
    if fs::read_to_string(&pom).is_ok_and(|known| known == POM)
        && let Ok(classpath) = fs::read_to_string(&list)
        && complete(&classpath)
    {
        return Ok(classpath);
    }
    fs::write(&pom, POM)?;
    // Until Maven has written it anew, there is none.
    let _ = fs::remove_file(&list);
    resolve(&pom, &list)?;
    let classpath = fs::read_to_string(&list)?.trim().to_owned();
    if !complete(&classpath) {
        let _ = fs::remove_file(&list);
        bail!("Maven resolved Cassandra to jars that are not there: {classpath}");
    }
    Ok(classpath)
}

fn complete(classpath: &str) -> bool {
    classpath.contains("/cassandra-all-") && classpath.trim().split(':').all(|jar| Path::new(jar).is_file())
}

fn resolve(pom: &Path, list: &Path) -> Result<()> {
    let outcome = Command::new("mvn")
        .args(["--batch-mode", "--quiet", "--file"])
        .arg(pom)
        .arg("dependency:build-classpath")
        .args(["-DincludeScope=runtime", "-Dmdep.pathSeparator=:"])
        .arg(format!("-Dmdep.outputFile={}", list.display()))
        .stdin(Stdio::null())
        .output();
    let outcome = match outcome {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("Cassandra's jars come through Maven: please install maven")
        }
        outcome => outcome?,
    };
    if !outcome.status.success() {
        bail!(
            "Maven cannot resolve Cassandra ({}):\n{}{}",
            outcome.status,
            String::from_utf8_lossy(&outcome.stdout),
            String::from_utf8_lossy(&outcome.stderr)
        );
    }
    Ok(())
}

/// Cargo's target folder: the environment's, or that of the workspace this was built in.
fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    workspace.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_java_is_read_in_the_forms_that_vendors_write() {
        assert_eq!(
            major("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime …"),
            Some(17)
        );
        assert_eq!(
            major("Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version \"21-ea\" 2023-09-19"),
            Some(21)
        );
        assert_eq!(major("java version \"1.8.0_402\""), Some(1));
        assert_eq!(major("bash: java: command not found"), None);
    }
}
