//! Which cases fail under which mutations: one run of a case for each mutation that would do something in it, and what
//! came of it as `killed.txt`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use godwit_e2e::binaries::workspace;

use super::link::{Link, Turn};
use super::mutation::Event;
use super::proxy::{Proxy, Work};
use super::{Mutation, all};
use crate::cases::{self, Case};
use crate::client;
use crate::killed::{KILLED, Killed};
use crate::run::{self, Came};
use crate::server::Server;
use crate::wire::Version;

/// What a case waits for something that must come: shorter than in the suite, since here it mostly does not come.
const PATIENCE: Duration = Duration::from_secs(4);
/// What a case may take. One that fails by this has waited at each of its steps.
const CASE: Duration = Duration::from_secs(25);
/// Cases with more events than this are long; they are run with the mutations that are rarest only.
const LONG: usize = 1_200;
const LONG_MOST: usize = 24;
/// Mutations that are named for a case.
const NAMED: usize = 6;

/// What is asked for on the command line.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Only mutations whose name contains this.
    pub mutation: String,
    /// Only cases whose name contains this.
    pub case: String,
    /// Only cases that have no line yet.
    pub new: bool,
    /// Whether `killed.txt` is written; with `case` or `new`, only the lines of those cases.
    pub write: bool,
    /// Cases at a time.
    pub at_once: usize,
}

struct Job {
    case: usize,
    mutation: usize,
}

/// A case in a version, and what passed when nothing was broken.
struct Subject {
    server: Arc<Server>,
    case: Case,
    events: Vec<(u64, Event)>,
}

impl Subject {
    fn key(&self) -> String {
        format!("{} {}", self.server.version.name(), self.case.name)
    }

    /// Whether the mutation would do something.
    fn concerns(&self, mutation: &Mutation) -> bool {
        let common = Arc::default();
        let mut links: BTreeMap<u64, Link> = BTreeMap::new();
        let fresh = |version: Version| Link::new(version, Arc::clone(&common));
        self.events.iter().any(|(number, event)| {
            let link = links.entry(*number).or_insert_with(|| fresh(self.server.version));
            let turn = mutation.turn(link, event);
            turn != Turn::Keep || !link.orders.is_empty()
        })
    }
}

type Through = (Came, usize, Vec<(u64, Event)>);

/// One run of a case through proxies: what came of it, how often the mutation did something, and what passed.
fn through(server: &Server, case: Case, mutation: &Arc<Mutation>, record: bool) -> Result<Through, String> {
    let work = Work::new(server.version, Arc::clone(mutation), record);
    let mqtt = Proxy::start(server.mqtt, false, &work)?;
    let guarded = match server.guarded() {
        Ok(guarded) => Some(Proxy::start(guarded.mqtt, false, &work)?),
        Err(_) => None,
    };
    let http = match server.http {
        Some(http) => Some(Proxy::start(http, true, &work)?),
        None => None,
    };
    let limited = match server.limited() {
        Ok(limited) => Some(Proxy::start(limited.mqtt, false, &work)?),
        Err(_) => None,
    };
    let at = |proxy: &Option<Proxy>| proxy.as_ref().map(|proxy| proxy.at);
    let at = server.behind(mqtt.at, at(&http), at(&guarded), at(&limited));
    let came = run::one(Arc::new(at), case, CASE);
    let fired = work.fired.load(Ordering::Relaxed);
    let events = match &work.record {
        Some(record) => std::mem::take(&mut *record.lock().unwrap_or_else(PoisonError::into_inner)),
        None => Vec::new(),
    };
    Ok((came, fired, events))
}

/// Does `work` for each number below `count`, so many at a time.
fn spread<T: Send>(count: usize, at_once: usize, work: impl Fn(usize) -> T + Sync) -> Vec<(usize, T)> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(count));
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..at_once.min(count) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        return;
                    }
                    let came = work(at);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.push((at, came));
                    if done.len().is_multiple_of(1_000) {
                        eprintln!("{} of {count} after {:.0?}", done.len(), began.elapsed());
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the matrix; what came of it, in lines.
///
/// # Errors
/// When the server does not start, or the file cannot be written.
pub fn sabotage(ask: &Ask) -> Result<String, String> {
    client::be_patient(PATIENCE);
    let mutations: Vec<Arc<Mutation>> = all()
        .into_iter()
        .filter(|it| it.harmless || it.name.contains(&ask.mutation))
        .map(Arc::new)
        .collect();
    let servers = run::servers()?;
    let began = Instant::now();
    let subjects = undisturbed(&servers, ask, mutations.first().ok_or("no mutation")?)?;
    eprintln!(
        "{} cases, nothing broken, {:.0?}",
        subjects.len(),
        began.elapsed()
    );
    let jobs = plan(&subjects, &mutations);
    eprintln!("{} runs under {} mutations", jobs.len(), mutations.len());
    let came = spread(jobs.len(), ask.at_once, |at| {
        let job = jobs.get(at)?;
        let (subject, mutation) = (subjects.get(job.case)?, mutations.get(job.mutation)?);
        through(&subject.server, subject.case, mutation, false).ok()
    });
    eprintln!("{:.0?}", began.elapsed());
    let mut seen = Seen::new(&subjects, &mutations);
    for (at, came) in came {
        if let (Some(job), Some((came, fired, _))) = (jobs.get(at), came) {
            seen.note(job, &came, fired);
        }
    }
    seen.confirm(ask);
    eprintln!("{:.0?}", began.elapsed());
    seen.tell(ask)
}

/// All cases once, or twice, with nothing broken: what passes in them. One that fails here says nothing later and is
/// left out.
fn undisturbed(
    servers: &[Arc<Server>; 2],
    ask: &Ask,
    nothing: &Arc<Mutation>,
) -> Result<Vec<Subject>, String> {
    let mut work = Vec::new();
    let known = committed();
    for case in cases::all() {
        for server in servers {
            let old = ask.new
                && known
                    .cases
                    .contains_key(&format!("{} {}", server.version.name(), case.name));
            if case.runs_on(server.version) && case.name.contains(&ask.case) && !old {
                work.push((Arc::clone(server), case));
            }
        }
    }
    let came = spread(work.len(), ask.at_once.min(40), |at| {
        let (server, case) = work.get(at)?;
        match through(server, *case, nothing, true) {
            Ok((Came::Fail(_), ..)) => Some(through(server, *case, nothing, true)),
            came => Some(came),
        }
    });
    let mut subjects = Vec::new();
    let mut wrong = Vec::new();
    for (at, came) in came {
        let (Some((server, case)), Some(came)) = (work.get(at), came) else {
            continue;
        };
        match came? {
            (Came::Pass, _, events) => subjects.push(Subject {
                server: Arc::clone(server),
                case: *case,
                events,
            }),
            (other, ..) => wrong.push(format!("{} {}: {other:?}", server.version.name(), case.name)),
        }
    }
    if !wrong.is_empty() {
        eprintln!(
            "left out, since they fail with nothing broken:\n{}",
            wrong.join("\n")
        );
    }
    subjects.sort_by_key(Subject::key);
    Ok(subjects)
}

/// Each case with each mutation that would do something in it.
fn plan(subjects: &[Subject], mutations: &[Arc<Mutation>]) -> Vec<Job> {
    let touched: Vec<(usize, Vec<usize>)> = spread(subjects.len(), 2, |case| {
        let Some(subject) = subjects.get(case) else {
            return Vec::new();
        };
        (0..mutations.len())
            .filter(|at| {
                mutations
                    .get(*at)
                    .is_some_and(|it| it.name == "nothing" || subject.concerns(it))
            })
            .collect()
    });
    let mut counts = vec![0_usize; mutations.len()];
    for at in touched.iter().flat_map(|(_, found)| found) {
        if let Some(count) = counts.get_mut(*at) {
            *count += 1;
        }
    }
    let mut jobs = Vec::new();
    for (case, mut found) in touched {
        if subjects.get(case).is_some_and(|it| it.events.len() > LONG) {
            found.sort_by_key(|at| counts.get(*at).copied());
            found.truncate(LONG_MOST);
        }
        jobs.extend(found.into_iter().map(|mutation| Job { case, mutation }));
    }
    // Long and short ones mixed, the same way each time.
    let stride = 7_919;
    let count = jobs.len();
    let mut mixed: Vec<(usize, Job)> = jobs
        .into_iter()
        .enumerate()
        .map(|(at, job)| (at * stride % count.max(1), job))
        .collect();
    mixed.sort_by_key(|(at, _)| *at);
    mixed.into_iter().map(|(_, job)| job).collect()
}

/// What was seen.
struct Seen<'a> {
    subjects: &'a [Subject],
    mutations: &'a [Arc<Mutation>],
    /// By mutation: cases in which it did something, cases that it made fail.
    fired: Vec<usize>,
    kills: Vec<usize>,
    /// By case: mutations that made it fail.
    by: Vec<Vec<usize>>,
    confirmed: Vec<Vec<usize>>,
    doubtful: Vec<String>,
}

impl<'a> Seen<'a> {
    fn new(subjects: &'a [Subject], mutations: &'a [Arc<Mutation>]) -> Self {
        Self {
            subjects,
            mutations,
            fired: vec![0; mutations.len()],
            kills: vec![0; mutations.len()],
            by: vec![Vec::new(); subjects.len()],
            confirmed: vec![Vec::new(); subjects.len()],
            doubtful: Vec::new(),
        }
    }

    fn note(&mut self, job: &Job, came: &Came, fired: usize) {
        let (Some(subject), Some(mutation)) = (self.subjects.get(job.case), self.mutations.get(job.mutation))
        else {
            return;
        };
        let Came::Fail(why) = came else {
            if let (true, Some(count)) = (fired > 0, self.fired.get_mut(job.mutation)) {
                *count += 1;
            }
            return;
        };
        if fired == 0 || mutation.harmless || why.starts_with(run::NO_END) {
            self.doubtful
                .push(format!("{} under {}: {why}", subject.key(), mutation.name));
            return;
        }
        for counts in [&mut self.fired, &mut self.kills] {
            if let Some(count) = counts.get_mut(job.mutation) {
                *count += 1;
            }
        }
        if let Some(by) = self.by.get_mut(job.case) {
            by.push(job.mutation);
        }
    }

    /// A mutation that makes more than a quarter of all cases fail says nothing of any of them.
    fn is_blunt(&self, mutation: usize, known: &Killed) -> bool {
        let (Some(it), Some(kills)) = (self.mutations.get(mutation), self.kills.get(mutation)) else {
            return true;
        };
        let before = known.mutations.get(&it.name).map_or(0, |(_, kills, _)| *kills);
        let all = self.subjects.len().max(known.cases.len());
        4 * before.max(*kills) > all
    }

    /// The first few of each case once more, with less going on: what is written was seen twice.
    fn confirm(&mut self, ask: &Ask) {
        let known = committed();
        let mut left: Vec<Vec<usize>> = Vec::new();
        for by in &self.by {
            let mut telling: Vec<usize> = by
                .iter()
                .copied()
                .filter(|mutation| !self.is_blunt(*mutation, &known))
                .collect();
            telling.sort_by_key(|mutation| self.kills.get(*mutation).copied());
            telling.reverse();
            left.push(telling);
        }
        for _ in 0..3 {
            let mut jobs = Vec::new();
            for (case, (left, done)) in left.iter_mut().zip(&self.confirmed).enumerate() {
                let wanted = if done.is_empty() { NAMED } else { 0 };
                for _ in 0..wanted {
                    jobs.extend(left.pop().map(|mutation| Job { case, mutation }));
                }
            }
            let came = spread(jobs.len(), ask.at_once.div_ceil(2), |at| {
                let job = jobs.get(at)?;
                let (subject, mutation) = (self.subjects.get(job.case)?, self.mutations.get(job.mutation)?);
                through(&subject.server, subject.case, mutation, false).ok()
            });
            for (at, came) in came {
                if let (Some(job), Some((Came::Fail(why), 1.., _))) = (jobs.get(at), came)
                    && !why.starts_with(run::NO_END)
                    && let Some(confirmed) = self.confirmed.get_mut(job.case)
                {
                    confirmed.push(job.mutation);
                }
            }
        }
        // What fails now with nothing broken fails by what earlier runs left behind.
        let Some(nothing) = self.mutations.iter().find(|it| it.name == "nothing") else {
            return;
        };
        let came = spread(self.subjects.len(), ask.at_once.div_ceil(2), |at| {
            let subject = self.subjects.get(at)?;
            through(&subject.server, subject.case, nothing, false).ok()
        });
        for (at, came) in came {
            if let (Some(subject), Some((Came::Fail(why), ..))) = (self.subjects.get(at), came) {
                self.doubtful.push(format!("{} at the end: {why}", subject.key()));
                if let Some(confirmed) = self.confirmed.get_mut(at) {
                    confirmed.clear();
                }
            }
        }
        for confirmed in &mut self.confirmed {
            confirmed.sort_by_key(|mutation| self.kills.get(*mutation).copied());
        }
    }

    fn tell(&self, ask: &Ask) -> Result<String, String> {
        let mut lines = Vec::new();
        let before = committed();
        let whole = ask.case.is_empty() && ask.mutation.is_empty() && !ask.new;
        let mut killed = if whole { Killed::default() } else { committed() };
        for ((mutation, fired), kills) in self.mutations.iter().zip(&self.fired).zip(&self.kills) {
            match killed.mutations.get_mut(&mutation.name) {
                Some((_, _, says)) => says.clone_from(&mutation.says),
                None => {
                    let counts = (*fired, *kills, mutation.says.clone());
                    killed.mutations.insert(mutation.name.clone(), counts);
                }
            }
        }
        let all = cases::all();
        killed
            .cases
            .retain(|key, _| all.iter().any(|case| key.ends_with(&format!(" {}", case.name))));
        let mut never = Vec::new();
        for ((subject, confirmed), by) in self.subjects.iter().zip(&self.confirmed).zip(&self.by) {
            let names: Vec<String> = confirmed
                .iter()
                .filter_map(|mutation| self.mutations.get(*mutation))
                .map(|mutation| mutation.name.clone())
                .collect();
            if ask.mutation.is_empty() {
                killed.cases.remove(&subject.key());
            }
            if names.is_empty() {
                let blunt: Vec<_> = by.iter().filter_map(|at| self.mutations.get(*at)).collect();
                never.push(format!("{}: only by {blunt:?}", subject.key()));
            } else {
                lines.push(format!("{}: {} {}", subject.key(), by.len(), names.join(", ")));
                let known = killed.cases.entry(subject.key()).or_default();
                let more: Vec<String> = names.into_iter().filter(|name| !known.contains(name)).collect();
                known.extend(more);
                let count = killed.counts.entry(subject.key()).or_default();
                *count = known
                    .len()
                    .max(by.len())
                    .max(if ask.mutation.is_empty() { 0 } else { *count });
            }
        }
        for ((mutation, fired), kills) in self.mutations.iter().zip(&self.fired).zip(&self.kills) {
            lines.push(format!("mutation {}: {kills} of {fired}", mutation.name));
        }
        lines.push(format!("never failed ({}):\n{}", never.len(), never.join("\n")));
        lines.push(format!(
            "doubtful ({}):\n{}",
            self.doubtful.len(),
            self.doubtful.join("\n")
        ));
        let lost: Vec<&String> = before
            .cases
            .keys()
            .filter(|key| !killed.cases.contains_key(*key))
            .collect();
        lines.push(format!("in the committed file and no more: {lost:?}"));
        if ask.write {
            std::fs::write(workspace().join(KILLED), killed.text())
                .map_err(|error| format!("{KILLED}: {error}"))?;
        }
        Ok(lines.join("\n"))
    }
}

fn committed() -> Killed {
    Killed::read(&std::fs::read_to_string(workspace().join(KILLED)).unwrap_or_default())
}
