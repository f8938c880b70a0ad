//! Asks the checker, as a program of its own, about a folder of records.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use crate::binaries::Program;

/// What the checker said.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// 0 green, 1 red, 2 not to be judged.
    pub exit: i32,
    /// Broken rules, each with how often.
    pub broken: Vec<(String, u64)>,
    /// What there was to judge.
    pub counts: Value,
    /// A few examples, for people.
    #[serde(skip)]
    pub examples: String,
}

impl Verdict {
    /// Whether it named this rule.
    pub fn names(&self, rule: &str) -> bool {
        self.broken.iter().any(|(name, _)| name == rule)
    }
}

/// Judges the records; fewer acknowledged than `least` cannot be judged.
///
/// # Errors
/// When the checker does not run or says nothing that can be read.
pub fn judge(folder: &Path, least: u64) -> Result<Verdict> {
    let output = Command::new(Program::Checker.path()?)
        .arg(folder)
        .args(["--json", "--min-acknowledged", &least.to_string()])
        .output()
        .context("the checker does not start")?;
    let Some(exit) = output.status.code() else {
        bail!("the checker ended with {}", output.status);
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let mut verdict = Verdict {
        exit,
        broken: Vec::new(),
        counts: Value::Null,
        examples: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    if exit == 2 {
        return Ok(verdict);
    }
    let value: Value = serde_json::from_str(said.trim()).context("the checker's JSON")?;
    verdict.counts = value["counts"].clone();
    for (rule, violation) in value["violations"].as_object().into_iter().flatten() {
        let count = violation["count"].as_u64().unwrap_or(0);
        verdict.broken.push((rule.clone(), count));
        for example in violation["examples"].as_array().into_iter().flatten().take(3) {
            verdict.examples += &format!("{rule}: {}\n", example["what"].as_str().unwrap_or("?"));
            for evidence in example["evidence"].as_array().into_iter().flatten().take(3) {
                verdict.examples += &format!("    {}\n", evidence.as_str().unwrap_or("?"));
            }
        }
    }
    Ok(verdict)
}
