//! Nodes of one cluster as processes of this machine, on a keyspace of their own in a real Cassandra: started, killed, stopped and let go on,
//! drained, asked for the view. Whatever happens to the test, they end with it.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use godwit_cassandra::Cluster;
use godwit_e2e::binaries::Program;
use godwit_e2e::node::{Node, Ports};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::around::{Around, Surroundings};
use crate::owners::Said;

/// A view must be formed within this.
const FORMED: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// How often a node is asked to drain another if it gives no answer.
const DRAINS: usize = 3;
/// How long a node may take to answer its admin listener.
const ANSWER: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug)]
pub struct Nodes {
    binary: PathBuf,
    folder: PathBuf,
    // Declared, so dropped, before what they run in.
    all: Vec<Node>,
    /// What stands around them.
    pub around: Surroundings,
}

/// `godwit schema`.
fn make_schema(binary: &Path, points: &str, copies: usize, keyspace: &str) -> Result<()> {
    let made = Command::new(binary)
        .args(["schema", "--store", "cql", "--cql-keyspace", keyspace])
        .args(["--cql-nodes", points])
        .args(["--cql-replication", &copies.to_string()])
        .output()?;
    if !made.status.success() {
        bail!("godwit schema: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(())
}

impl Nodes {
    /// Makes the schema, and nodes that are not started yet, called n0, n1, …; their data and logs go to the folder. `more`: options for `serve`.
    ///
    /// # Errors
    /// When the schema or what is to be around them cannot be made, or no ports are free.
    pub fn new(
        folder: &Path,
        cassandra: &Cluster,
        keyspace: &str,
        count: usize,
        around: Around,
        more: &[&str],
    ) -> Result<Self> {
        let binary = Program::Godwit.path()?;
        let points = cassandra.contact_points();
        let named: Vec<String> = points.iter().map(ToString::to_string).collect();
        make_schema(&binary, &named.join(","), points.len().min(3), keyspace)?;
        let mut around = Surroundings::new(folder, cassandra, count, around)?;
        let mut all = Vec::new();
        for number in 0..count {
            let (host, command) = (around.host(number), around.command(number));
            let (data, log) = (
                folder.join(format!("n{number}")),
                folder.join(format!("n{number}.log")),
            );
            let peer = SocketAddrV4::new(host, Ports::free()?.mqtt);
            let mut node = Node::new(&binary, &data, &log)?
                .at(host.into(), &command)
                .arguments(&["--store", "cql", "--cql-keyspace", keyspace])
                .arguments(&["--cql-nodes", &around.store(number)])
                .arguments(&["--node-name", &format!("n{number}"), "--peer", &peer.to_string()])
                .arguments(&["--peer-advertise", &around.reached(peer)?.to_string()])
                .arguments(&["--registrations-per-second", "0", "--registration", "open"])
                .arguments(more);
            for (name, value) in around.environment(number) {
                node = node.environment(name, &value);
            }
            all.push(node);
        }
        Ok(Self {
            binary,
            folder: folder.to_path_buf(),
            all,
            around,
        })
    }

    /// `godwit schema` once more, for one copy, as a node reaches the store.
    ///
    /// # Errors
    /// When it fails, with what it says.
    pub fn repeat_schema(&self, number: usize, keyspace: &str) -> Result<()> {
        make_schema(&self.binary, &self.around.store(number), 1, keyspace)
    }

    /// More options of one node, from its next start on.
    pub fn add_arguments(&mut self, number: usize, more: &[&str]) {
        let node = self.all.remove(number);
        self.all.insert(number, node.arguments(more));
    }

    /// Where a node's MQTT is.
    pub fn mqtt_of(&self, number: usize) -> SocketAddr {
        self.all[number].mqtt()
    }

    /// The end of a node's log.
    pub fn tail(&self, number: usize) -> String {
        self.all[number].tail()
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Where they listen for MQTT.
    pub fn mqtt(&self) -> Arc<[SocketAddr]> {
        self.all.iter().map(Node::mqtt).collect()
    }

    /// Those that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.all.len())
            .filter(|&one| self.all[one].pid().is_some())
            .collect()
    }

    /// Where a node serves HTTP.
    pub fn http(&self, number: usize) -> String {
        self.all[number].http()
    }

    /// Starts a node and waits for nothing.
    ///
    /// # Errors
    /// When it runs or cannot be started.
    pub fn spawn(&mut self, number: usize) -> Result<()> {
        self.all[number].spawn()
    }

    /// Starts all that do not run, waits until each is ready and all are in one view with nothing to settle; says how long that took.
    ///
    /// # Errors
    /// When one ends, or not in time, with the end of a log.
    pub fn start_all(&mut self) -> Result<Duration> {
        let began = Instant::now();
        for node in &mut self.all {
            if node.pid().is_none() {
                node.spawn()?;
            }
        }
        for node in &mut self.all {
            node.wait_ready(FORMED)?;
        }
        self.wait_formed()?;
        Ok(began.elapsed())
    }

    /// kill -9.
    ///
    /// # Errors
    /// When it had ended before.
    pub fn kill(&mut self, number: usize) -> Result<()> {
        self.all[number].kill()
    }

    /// SIGTERM, and waits.
    ///
    /// # Errors
    /// When it does not end, or not with 0.
    pub fn stop(&mut self, number: usize) -> Result<Duration> {
        self.all[number].stop()
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self, number: usize) -> Result<()> {
        self.signal(number, Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self, number: usize) -> Result<()> {
        self.signal(number, Signal::CONT)
    }

    fn signal(&self, number: usize, signal: Signal) -> Result<()> {
        let pid = self.all[number].pid().context("it does not run")?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("no process id")?, signal)?)
    }

    /// `godwit node drain`, asked of another node; asked again, as an operator would, if no answer comes in the command's time: where answers of
    /// the store are lost two in a row may be.
    ///
    /// # Errors
    /// When the command fails, or gets no answer three times.
    pub fn drain(&self, number: usize, over: usize) -> Result<()> {
        let admin = self.all[over].admin().to_string();
        let mut said = String::new();
        for _ in 0..DRAINS {
            let done = Command::new(&self.binary)
                .args(["node", "drain", &format!("n{number}"), "--admin", &admin])
                .arg("--data-dir")
                .arg(self.folder.join(format!("n{over}")))
                .output()?;
            if done.status.success() {
                return Ok(());
            }
            said = String::from_utf8_lossy(&done.stderr).into_owned();
            if !said.contains("timeout") {
                break;
            }
            eprintln!("godwit node drain n{number}: {}", said.trim());
        }
        bail!("godwit node drain n{number}: {said}")
    }

    /// What a node's `GET /nodes` says; `None` if it gives no answer.
    pub fn view(&self, number: usize) -> Option<Value> {
        serde_json::from_str(&self.told(number, "nodes")?).ok()
    }

    /// How far a node says that its calendar is ahead of the members', seconds; `None` if it gives no answer, or does not know.
    pub fn clock_ahead(&self, number: usize) -> Option<f64> {
        let metrics = self.told(number, "metrics")?;
        let mut lines = metrics.lines();
        let said = lines.find_map(|line| line.strip_prefix("godwit_cluster_clock_ahead_seconds "));
        said?.trim().parse().ok()
    }

    /// Which shards a node has taken up; `None` if it gives no answer, or is in no view.
    pub fn shards(&self, number: usize) -> Option<Said> {
        serde_json::from_str(&self.told(number, "shards")?).ok()
    }

    fn told(&self, number: usize, what: &str) -> Option<String> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER))
            .build()
            .into();
        let url = format!("http://{}/{what}", self.all[number].admin());
        let mut answer = agent.get(&url).call().ok()?;
        answer.body_mut().read_to_string().ok()
    }

    /// Waits until exactly the running nodes are members of one view, each holds what is its own, and nothing is to be settled.
    ///
    /// # Errors
    /// When that is not so in time: what each says, and the ends of the logs.
    pub fn wait_formed(&mut self) -> Result<()> {
        let running = self.running();
        self.wait_members(&running)
    }

    /// As [`Nodes::wait_formed`] for these nodes.
    ///
    /// # Errors
    /// As [`Nodes::wait_formed`].
    pub fn wait_members(&mut self, members: &[usize]) -> Result<()> {
        let until = Instant::now() + FORMED;
        let mut said;
        loop {
            said = members.iter().map(|&one| self.view(one)).collect::<Vec<_>>();
            if all_formed(&said, members) {
                return Ok(());
            }
            for &one in members {
                if let Some(status) = self.all[one].ended()? {
                    bail!("n{one} ended by itself ({status}): {}", self.all[one].tail());
                }
            }
            if Instant::now() > until {
                break;
            }
            std::thread::sleep(LOOK);
        }
        let said: Vec<String> = said
            .iter()
            .map(|one| one.as_ref().map_or("silent".into(), short))
            .collect();
        bail!(
            "{members:?} form no view within {FORMED:?}: {}\n{}",
            said.join(" | "),
            self.tails()
        )
    }

    /// Whether all that run are in one settled view at this moment.
    pub fn is_formed(&self) -> bool {
        let members = self.running();
        let said: Vec<_> = members.iter().map(|&one| self.view(one)).collect();
        all_formed(&said, &members)
    }

    /// Whether every node that should run does.
    ///
    /// # Errors
    /// When one ended by itself.
    pub fn check(&mut self) -> Result<()> {
        for (number, node) in self.all.iter_mut().enumerate() {
            if let Some(status) = node.ended()? {
                bail!("n{number} ended by itself ({status}): {}", node.tail());
            }
        }
        Ok(())
    }

    /// The ends of all logs.
    pub fn tails(&self) -> String {
        self.all.iter().map(Node::tail).collect::<Vec<_>>().join("\n")
    }

    /// All resident memory, bytes.
    ///
    /// # Errors
    /// When one does not run.
    pub fn resident(&self) -> Result<u64> {
        self.all.iter().map(Node::resident).sum()
    }
}

/// Whether all say so, and of the same view.
fn all_formed(said: &[Option<Value>], members: &[usize]) -> bool {
    let view = said.first().and_then(|first| first.as_ref()?["view"].as_u64());
    let same = |answer: &Value| formed(answer, members) && answer["view"].as_u64() == view;
    said.iter().all(|answer| answer.as_ref().is_some_and(same))
}

/// Whether a node says that it acts in a settled view of these members and holds all that is its own.
fn formed(answer: &Value, members: &[usize]) -> bool {
    let mut names: Vec<&str> = Vec::new();
    let mut whole = false;
    for node in answer["nodes"].as_array().into_iter().flatten() {
        if node["state"] == "outside" {
            continue;
        }
        let name = node["name"].as_str().unwrap_or_default();
        names.push(name);
        let own: u64 = node["shards"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .sum();
        whole |= answer["this"] == name && node["state"] == "member" && node["held"].as_u64() == Some(own);
    }
    names.sort_unstable();
    let mut wanted: Vec<String> = members.iter().map(|one| format!("n{one}")).collect();
    wanted.sort_unstable();
    whole && names == wanted && answer["acts"] == true && answer["unsettled"] == 0
}

fn short(answer: &Value) -> String {
    let nodes = answer["nodes"].as_array().into_iter().flatten();
    let nodes: Vec<String> = nodes
        .map(|node| {
            format!(
                "{} {} {} held {}",
                node["name"], node["state"], node["shards"], node["held"]
            )
        })
        .collect();
    format!(
        "{}: view {} unsettled {} acts {}: {}",
        answer["this"],
        answer["view"],
        answer["unsettled"],
        answer["acts"],
        nodes.join(", ")
    )
}
