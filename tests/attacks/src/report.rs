//! What one run of an attack showed, what of it is wrong, and the words for it. Nothing is run here.

use std::fmt;
use std::ops::Sub;
use std::time::Duration;

use anyhow::Result;

use crate::bed::{Bed, Measured};
use crate::bystander::{Harm, Times};

/// A p99 may be so many times what it is at the twin meanwhile: the third-worst of some hundred samples is not the same twice.
const BESIDE: f64 = 1.5;
/// Messages of a part of an attack by which it is judged by itself.
const ENOUGH: usize = 100;

/// The bystanders of a server for a time.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) messages: Times,
    /// And how many were refused.
    pub(crate) connects: (Times, usize),
    /// How late a timer of theirs was: the measuring side's own delay.
    pub(crate) probe: Times,
}

/// What was used of the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    /// Seconds of processor time, of the server and of this process.
    server: f64,
    own: f64,
    /// Bytes that the server wrote to disk.
    written: f64,
}

impl Used {
    /// Since the start of both; zero of what cannot be read.
    pub(crate) fn so_far(bed: &Bed) -> Self {
        Self {
            server: bed.cpu_seconds().unwrap_or_default(),
            own: crate::bed::cpu_seconds_of("self").unwrap_or_default(),
            written: bed.written().unwrap_or_default() as f64,
        }
    }
}

impl Sub for Used {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            server: self.server - before.server,
            own: self.own - before.own,
            written: self.written - before.written,
        }
    }
}

/// A kind of time, judged.
struct Line<'a> {
    what: &'a str,
    before: &'a Times,
    during: &'a Times,
    control: Option<&'a Times>,
}

impl Line<'_> {
    fn p99(times: &Times) -> Duration {
        times.quantile(0.99)
    }

    /// What it was marked by before there were twins.
    fn plain(&self, report: &Report) -> Duration {
        Self::p99(self.before).mul_f64(report.mark).max(report.floor)
    }

    fn mark(&self, report: &Report) -> Duration {
        let beside = self.control.map(|times| Self::p99(times).mul_f64(BESIDE));
        self.plain(report).max(beside.unwrap_or_default())
    }

    fn words(&self, mark: Duration) -> String {
        let control = match self.control {
            Some(times) => format!(", {} at the twin", ms(Self::p99(times))),
            None => String::new(),
        };
        format!(
            "{}: p99 {} before, {} during{control}, mark {}",
            self.what,
            ms(Self::p99(self.before)),
            ms(Self::p99(self.during)),
            ms(mark)
        )
    }
}

/// What one run showed.
#[derive(Debug)]
pub struct Report {
    pub(crate) name: &'static str,
    pub(crate) mark: f64,
    pub(crate) floor: Duration,
    pub(crate) connects: bool,
    pub(crate) bound: u64,
    pub(crate) because: String,
    pub(crate) harm: Harm,
    /// To the twin's bystanders, whom nobody attacked.
    pub(crate) harm_twin: Harm,
    pub(crate) before: Phase,
    pub(crate) during: Phase,
    /// At the twin, during the attack.
    pub(crate) control: Option<Phase>,
    /// Parts of the attack: what was done, the bystanders meanwhile, and those of the twin.
    pub(crate) steps: Vec<(String, Phase, Option<Phase>)>,
    /// When the slowest messages were sent, and what they took.
    pub(crate) slowest: Vec<(Duration, Duration)>,
    /// Of a worker, since its start.
    pub(crate) longest_turn: Duration,
    pub(crate) used: Used,
    pub(crate) grown: u64,
    pub(crate) base: u64,
    pub(crate) took: Duration,
    pub(crate) told: Result<Vec<String>>,
    pub(crate) measured: Vec<Measured>,
    /// The end of the server's log.
    pub(crate) tail: String,
}

impl Report {
    /// What must never be, whatever the machine does.
    pub fn broken(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Err(error) = &self.told {
            wrong.push(format!("the offender: {error:#}"));
        }
        for (whose, harm) in [("the bystanders", &self.harm), ("the twin's", &self.harm_twin)] {
            if harm.lost + harm.doubled + harm.disordered > 0 {
                wrong.push(format!("{whose}: {harm:?}"));
            }
            wrong.extend(
                harm.cut
                    .iter()
                    .map(|why| format!("one of {whose} was cut off: {why}")),
            );
        }
        if self.connects && self.during.connects.1 > 0 {
            wrong.push(format!(
                "{} connections of others refused",
                self.during.connects.1
            ));
        }
        if self.grown > self.bound {
            wrong.push(format!(
                "{} more memory, allowed {}",
                mib(self.grown),
                mib(self.bound)
            ));
        }
        wrong
    }

    fn messages(&self) -> Line<'_> {
        Line {
            what: "messages",
            before: &self.before.messages,
            during: &self.during.messages,
            control: self.control.as_ref().map(|phase| &phase.messages),
        }
    }

    fn new_connections(&self) -> Line<'_> {
        Line {
            what: "connects",
            before: &self.before.connects.0,
            during: &self.during.connects.0,
            control: self.control.as_ref().map(|phase| &phase.connects.0),
        }
    }

    fn judged(&self) -> impl Iterator<Item = Line<'_>> {
        let connects = self.connects.then(|| self.new_connections());
        // Of fewer the p99 is the worst one.
        let steps = self.steps().filter(|line| line.during.count() >= ENOUGH);
        std::iter::once(self.messages()).chain(connects).chain(steps)
    }

    fn steps(&self) -> impl Iterator<Item = Line<'_>> {
        self.steps.iter().map(|(what, phase, control)| Line {
            what,
            before: &self.before.messages,
            during: &phase.messages,
            control: control.as_ref().map(|phase| &phase.messages),
        })
    }

    /// What is over the mark that counts what was before alone, and is so at the twin too.
    pub fn beside(&self) -> Vec<String> {
        let over = |line: &Line<'_>| {
            let during = Line::p99(line.during);
            during > line.plain(self) && during <= line.mark(self)
        };
        let lines = self.judged().filter(over);
        lines.map(|line| line.words(line.mark(self))).collect()
    }

    /// What is over `slack` times its mark.
    pub fn slow(&self, slack: u32) -> Vec<String> {
        let over = |line: &Line<'_>| Line::p99(line.during) > line.mark(self) * slack;
        let lines = self.judged().filter(over);
        let mut wrong: Vec<String> = lines.map(|line| line.words(line.mark(self))).collect();
        for Measured { what, value, mark } in &self.measured {
            if *value > mark * f64::from(slack) {
                wrong.push(format!("{what}: {value:.2}, mark {mark:.2}"));
            }
        }
        wrong
    }
}

impl Report {
    fn times(&self, f: &mut fmt::Formatter<'_>, line: &Line<'_>, more: &str) -> fmt::Result {
        let (old, new) = (Line::p99(line.before), Line::p99(line.during));
        let half = |times: &Times| ms(times.quantile(0.5));
        let (twin, twin_half) = match line.control {
            Some(times) => (
                format!(", {} at the twin", ms(Line::p99(times))),
                format!(", {} at the twin", half(times)),
            ),
            None => (String::new(), String::new()),
        };
        writeln!(
            f,
            "  {}: p50 {} before, {} during{twin_half}; p99 {} before, {} during = {:.2}x{twin}; mark {}; {} and {} samples{more}",
            line.what,
            half(line.before),
            half(line.during),
            ms(old),
            ms(new),
            new.as_secs_f64() / old.as_secs_f64().max(1e-6),
            ms(line.mark(self)),
            line.before.count(),
            line.during.count(),
        )
    }
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.broken().is_empty(), self.slow(1).is_empty()) {
            (false, _) => "FAILED",
            (true, true) if self.beside().is_empty() => "kept",
            (true, true) => "kept, on a busy machine",
            (true, false) => "kept, but over a mark of time",
        };
        writeln!(f, "{} ({:.1} s): {verdict}", self.name, self.took.as_secs_f64())?;
        let harm = &self.harm;
        writeln!(
            f,
            "  bystanders: {} messages, {} lost, {} doubled, {} out of order, {} cut off",
            harm.sent,
            harm.lost,
            harm.doubled,
            harm.disordered,
            harm.cut.len()
        )?;
        self.times(f, &self.messages(), "")?;
        let refused = match self.during.connects.1 {
            0 => String::new(),
            count => format!(", {count} refused"),
        };
        let judged = if self.connects { "" } else { ", not judged" };
        self.times(f, &self.new_connections(), &format!("{refused}{judged}"))?;
        writeln!(
            f,
            "  the measuring side's own delay: p99 {} before, {} during",
            ms(self.before.probe.quantile(0.99)),
            ms(self.during.probe.quantile(0.99))
        )?;
        for line in self.steps() {
            writeln!(
                f,
                "  messages during {}: p99 {} of {}",
                line.what,
                ms(Line::p99(line.during)),
                line.during.count()
            )?;
        }
        let slowest = self.slowest.iter();
        let slowest: Vec<String> = slowest
            .map(|(at, took)| format!("{} at {:.2} s", ms(*took), at.as_secs_f64()))
            .collect();
        writeln!(
            f,
            "  the slowest: {}; a worker's longest turn: {}",
            slowest.join(", "),
            ms(self.longest_turn)
        )?;
        let Used { server, own, written } = self.used;
        writeln!(
            f,
            "  processor: {server:.1} s by the server, {own:.1} s by the attacker and the bystanders; {} written to disk by the server",
            mib(written as u64)
        )?;
        writeln!(
            f,
            "  memory: {} before, at most {} more; bound {} ({})",
            mib(self.base),
            mib(self.grown),
            mib(self.bound),
            self.because
        )?;
        for line in self.told.iter().flatten() {
            writeln!(f, "  offender: {line}")?;
        }
        for Measured { what, value, mark } in &self.measured {
            writeln!(f, "  {what}: {value:.2}, mark {mark:.2}")?;
        }
        for wrong in self.broken() {
            writeln!(f, "  WRONG: {wrong}")?;
        }
        for line in self.beside() {
            writeln!(f, "  slow, and the machine's doing, as the twin shows: {line}")?;
        }
        for wrong in self.slow(1) {
            writeln!(f, "  over the mark: {wrong}")?;
        }
        Ok(())
    }
}
