//! The groups' kill test: publishers at QoS 1 and 2, two groups of shared subscriptions on their topics, members that come
//! and go, and a server that is killed again and again. Of one group no session ever ends and nobody leaves; of the other
//! sessions end in every way that there is. Every acknowledged publish must reach a member of each.

mod book;
mod clients;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use crate::binaries::Program;
use crate::node::Node;
use book::Book;
pub use book::Tally;
use clients::{Member, Publisher};

/// Of the group whose sessions stay: QoS of each member.
const STAYING: [u8; 4] = [1, 1, 2, 2];
/// Of the other one: QoS, and whether the member may go for good.
const GOING: [(u8, bool); 5] = [(1, false), (2, false), (1, true), (1, true), (1, true)];
/// What both subscribe to, in a group of their own.
const FILTERS: [&str; 2] = ["$share/staying/load/#", "$share/going/load/#"];
/// Something is acknowledged again after a start within this.
const SERVED: Duration = Duration::from_secs(60);
/// How long what is owed may take to arrive at the end, from the last arrival on: what a session left before a kill may wait
/// for the 30 seconds that clients have to return.
const PATIENCE: Duration = Duration::from_secs(45);
/// The same with a planted bug: what it lost does not come.
const PATIENCE_PLANTED: Duration = Duration::from_secs(4);
/// So long nothing arrives before everything has: something too much may come.
const QUIET: Duration = Duration::from_millis(700);

/// A kill test of groups.
#[derive(Debug, Clone)]
pub struct GroupsTest {
    /// Gets data and log.
    pub folder: PathBuf,
    /// Decides everything that is random here.
    pub seed: u64,
    /// So many kills, and one more when all is published.
    pub kills: u32,
    /// Between a start and the next kill, milliseconds: from, to.
    pub gap_ms: (u64, u64),
    /// Publishers.
    pub publishers: u16,
    /// A bug to be switched on.
    pub planted: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Kills.
    pub kills: u32,
    /// Publishes acknowledged.
    pub acknowledged: u64,
    /// Publishes refused.
    pub refused: u64,
    /// Sessions that ended for good.
    pub sessions_ended: u64,
    /// Members that left their group by UNSUBSCRIBE.
    pub unsubscribed: u64,
    /// The group whose sessions stay.
    pub staying: Tally,
    /// The other.
    pub going: Tally,
    /// In seconds.
    pub took: f64,
    /// What must not be. Empty: passed.
    pub faults: Vec<String>,
}

impl GroupsTest {
    /// Runs it.
    ///
    /// # Errors
    /// When the node does not start again, ends by itself, or serves nobody after a kill.
    pub fn run(&self) -> Result<Report> {
        let began = Instant::now();
        let program = match self.planted {
            Some(_) => Program::GodwitPlanted,
            None => Program::Godwit,
        };
        std::fs::create_dir_all(&self.folder)?;
        let (data, log) = (self.folder.join("data"), self.folder.join("godwit.log"));
        // Anonymous clients have homes of their own, so both workers have members.
        let mut node = Node::new(&program.path()?, &data, &log)?.arguments(&["--anonymous"]);
        if let Some(planted) = &self.planted {
            node = node.environment("GODWIT_PLANTED", planted);
        }
        node.start()?;
        let book = Arc::new(Book::default());
        let mut random = StdRng::seed_from_u64(self.seed);
        let threads = self.start(&book, &node, &mut random)?;
        for _ in 0..self.kills {
            served(&book, &mut node)?;
            let gap = random.random_range(self.gap_ms.0..=self.gap_ms.1);
            std::thread::sleep(Duration::from_millis(gap));
            kill(&book, &mut node)?;
        }
        served(&book, &mut node)?;
        book.stop();
        wait(SERVED, || book.in_flight() == 0);
        let unanswered = book.in_flight();
        // What was acknowledged last must have survived, too.
        kill(&book, &mut node)?;
        book.calm();
        let (mut arrivals, mut since, mut complete) = (book.arrivals(), Instant::now(), false);
        let patience = match self.planted {
            Some(_) => PATIENCE_PLANTED,
            None => PATIENCE,
        };
        while since.elapsed() < if complete { QUIET } else { patience } {
            std::thread::sleep(Duration::from_millis(50));
            if book.arrivals() != arrivals {
                (arrivals, since) = (book.arrivals(), Instant::now());
            }
            complete = complete || book.is_complete();
        }
        book.end();
        let mut faults = book.problems();
        for thread in threads {
            if thread.join().is_err() {
                faults.push("a client's thread panicked".to_owned());
            }
        }
        if let Err(error) = node.stop() {
            faults.push(format!("{error:#}"));
        }
        if unanswered > 0 {
            faults.push(format!("{unanswered} publishes were never answered"));
        }
        let staying = book.judge(0, FILTERS[0], true, &mut faults);
        let going = book.judge(1, FILTERS[1], false, &mut faults);
        let (sessions_ended, unsubscribed) = book.goings();
        Ok(Report {
            seed: self.seed,
            kills: book.life(),
            acknowledged: book.acknowledged(),
            refused: book.refused(),
            sessions_ended,
            unsubscribed,
            staying,
            going,
            took: began.elapsed().as_secs_f64(),
            faults,
        })
    }

    fn start(&self, book: &Arc<Book>, node: &Node, random: &mut StdRng) -> Result<Vec<JoinHandle<()>>> {
        let port = node.ports().mqtt;
        let staying = STAYING.iter().map(|qos| (0, *qos, false));
        let going = GOING.iter().map(|(qos, leaves)| (1, *qos, *leaves));
        let mut threads = Vec::new();
        for (number, (group, qos, leaves)) in staying.chain(going).enumerate() {
            let member = Member {
                book: book.clone(),
                port,
                group,
                number,
                filter: FILTERS[group].to_owned(),
                qos,
                leaves,
                random: StdRng::seed_from_u64(random.random()),
            };
            threads.push(std::thread::Builder::new().spawn(move || member.run())?);
        }
        // Nothing is published before each group has somebody.
        wait(SERVED, || book.members() >= threads.len() as u64);
        for number in 0..self.publishers {
            let seed = random.random();
            let publisher = Publisher::new(book.clone(), port, number, StdRng::seed_from_u64(seed));
            threads.push(std::thread::Builder::new().spawn(move || publisher.run())?);
        }
        Ok(threads)
    }
}

fn wait(patience: Duration, until: impl Fn() -> bool) -> bool {
    let end = Instant::now() + patience;
    while !until() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Waits until something is acknowledged that was not before the call.
fn served(book: &Book, node: &mut Node) -> Result<()> {
    let before = book.acknowledged();
    if wait(SERVED, || book.acknowledged() > before) {
        return Ok(());
    }
    match node.ended()? {
        Some(status) => bail!("the node ended by itself ({status}): {}", node.tail()),
        None => bail!("nothing was acknowledged for {SERVED:?}: {}", node.tail()),
    }
}

/// kill -9 with something in flight if there is something to come, and a new start.
fn kill(book: &Book, node: &mut Node) -> Result<()> {
    if !book.is_stopped() {
        wait(Duration::from_secs(5), || book.in_flight() > 0);
    }
    book.kill();
    node.kill()?;
    // What the dead server had said is read as of its life: nothing that comes from here on is.
    node.start()?;
    Ok(())
}
