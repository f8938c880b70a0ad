//! What was found: counts and broken rules with a few examples each, as a table and as JSON. Finding is in `rules`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};

use serde::Serialize;

use crate::run::{At, Run};

/// Examples kept of each broken rule; the count goes on.
const EXAMPLES: usize = 10;
/// Longest record shown as evidence, in characters.
const EVIDENCE: usize = 400;

/// The judgement of one run.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// True if no rule is broken.
    pub green: bool,
    /// What there was to judge, and what is counted apart from the rules.
    pub counts: BTreeMap<String, u64>,
    /// Broken rules.
    pub violations: BTreeMap<&'static str, Violation>,
}

/// One broken rule.
#[derive(Debug, Default, Serialize)]
pub struct Violation {
    /// How often.
    pub count: u64,
    /// The first few.
    pub examples: Vec<Example>,
}

/// One case of a broken rule.
#[derive(Debug, Serialize)]
pub struct Example {
    /// In words.
    pub what: String,
    /// The records that show it, as `file:line record`.
    pub evidence: Vec<String>,
    #[serde(skip)]
    at: Vec<At>,
}

impl Verdict {
    pub(crate) fn new() -> Self {
        Self {
            green: true,
            counts: BTreeMap::new(),
            violations: BTreeMap::new(),
        }
    }

    pub(crate) fn count(&mut self, what: &str, number: u64) {
        *self.counts.entry(what.to_owned()).or_default() += number;
    }

    pub(crate) fn broken(&mut self, rule: &'static str, at: &[At], what: impl FnOnce() -> String) {
        self.green = false;
        let violation = self.violations.entry(rule).or_default();
        violation.count += 1;
        if violation.examples.len() < EXAMPLES {
            violation.examples.push(Example {
                what: what(),
                evidence: Vec::new(),
                at: at.to_vec(),
            });
        }
    }

    /// Reads the shown records again, for they are not kept.
    pub(crate) fn add_evidence(&mut self, run: &Run) {
        for example in self
            .violations
            .values_mut()
            .flat_map(|violation| &mut violation.examples)
        {
            for at in &example.at {
                let text = line_of(run, *at).unwrap_or_default();
                let short: String = text.trim_end().chars().take(EVIDENCE).collect();
                example.evidence.push(format!("{} {short}", run.place(*at)));
            }
        }
    }
}

fn line_of(run: &Run, at: At) -> Option<String> {
    let file = File::open(run.files.get(usize::from(at.file))?).ok()?;
    BufReader::new(file)
        .lines()
        .nth(at.line.checked_sub(1)? as usize)?
        .ok()
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, number) in &self.counts {
            writeln!(f, "{what:<52} {number:>12}")?;
        }
        for (rule, violation) in &self.violations {
            writeln!(f, "\nBROKEN {rule}, {} times", violation.count)?;
            for example in &violation.examples {
                writeln!(f, "  {}", example.what)?;
                for evidence in &example.evidence {
                    writeln!(f, "    {evidence}")?;
                }
            }
        }
        writeln!(
            f,
            "\n{}",
            if self.green {
                "GREEN: no rule is broken"
            } else {
                "RED"
            }
        )
    }
}
