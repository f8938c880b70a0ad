//! Offline users cost no memory: many users with persistent sessions come once, go, are sent messages through groups,
//! and return. Resident memory is compared before the first connection and a rest after the last.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use godwit_wire::proto::chat::{self, inbox_event, message};
use prost::Message as _;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::binaries::Program;
use crate::mqtt::{Connection, Happened, Login, Version};
use crate::node::Node;
use crate::rest::Api;
use crate::world::{User, make_users};

/// Members of a group: the limit is 512.
const GROUP: usize = 500;
/// Connections at a time.
const AT_ONCE: usize = 200;
/// For one user to come, get everything and go.
const VISIT: Duration = Duration::from_secs(120);

/// A memory test.
#[derive(Debug, Clone)]
pub struct MemoryTest {
    /// Gets data and log.
    pub folder: PathBuf,
    /// Users.
    pub users: usize,
    /// Messages owed to each.
    pub messages: usize,
    /// Rest before each measurement.
    pub rest: Duration,
    /// What docs/operations.md states that the process keeps beside: caches, bytes.
    pub caches: u64,
}

/// Resident memory, bytes, and what was seen.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Users.
    pub users: usize,
    /// Before the first connection, all users registered, after a restart and a rest.
    pub before: u64,
    /// With everybody offline and owed.
    pub owed: u64,
    /// After everybody returned, got everything and left.
    pub after: u64,
    /// `before` · 1.05 + caches.
    pub allowed: u64,
    /// What is wrong.
    pub faults: Vec<String>,
    /// Seconds in all.
    pub seconds: f64,
}

impl MemoryTest {
    /// Runs it.
    ///
    /// # Errors
    /// When the node does not do what is asked.
    pub fn run(&self) -> Result<Report> {
        let began = Instant::now();
        std::fs::create_dir_all(&self.folder)?;
        let mut node = Node::new(
            &Program::Godwit.path()?,
            &self.folder.join("data"),
            &self.folder.join("godwit.log"),
        )?
        // So many users come from one address here.
        .environment("GODWIT_REGISTRATIONS_PER_SECOND", "0");
        node.start()?;
        let api = Api::new(&node.http());
        let users = Arc::new(make_users(&api, self.users, "m")?);
        // A fresh process: what hashing passwords took of memory is no part of this.
        node.stop()?;
        node.start()?;
        std::thread::sleep(self.rest);
        let before = node.resident()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let port = node.ports().mqtt;
        let mut faults = runtime.block_on(visit_all(&users, port, 0))?;
        self.send(&api, &users)?;
        std::thread::sleep(self.rest);
        let owed = node.resident()?;
        faults.extend(runtime.block_on(visit_all(&users, port, self.messages))?);
        std::thread::sleep(self.rest);
        let after = node.resident()?;
        let allowed = before + before / 20 + self.caches;
        for (what, bytes) in [("with messages owed", owed), ("after the return", after)] {
            if bytes > allowed {
                faults.push(format!(
                    "{} KiB {what}, allowed {} (before: {})",
                    bytes >> 10,
                    allowed >> 10,
                    before >> 10
                ));
            }
        }
        node.stop()?;
        Ok(Report {
            users: self.users,
            before,
            owed,
            after,
            allowed,
            faults,
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    fn send(&self, api: &Api, users: &[User]) -> Result<()> {
        for (number, members) in users.chunks(GROUP).enumerate() {
            let others: Vec<&str> = members[1..].iter().map(|user| &*user.id).collect();
            let sender = &members[0];
            let group = api.group(&sender.token, &format!("group {number}"), &others)?;
            for message in 1..=self.messages {
                let id = format!("{number}-{message}");
                api.send(&sender.token, &group, &id, &format!("{message} of {number}"))
                    .with_context(|| format!("message {id}"))?;
            }
        }
        Ok(())
    }
}

/// Every user connects, subscribes, waits for so many messages, in order, and leaves.
async fn visit_all(users: &Arc<Vec<User>>, port: u16, messages: usize) -> Result<Vec<String>> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut visits = tokio::task::JoinSet::new();
    let mut faults = Vec::new();
    for number in 0..users.len() {
        let place = Arc::clone(&room).acquire_owned().await?;
        let users = Arc::clone(users);
        visits.spawn(async move {
            let user = &users[number];
            let visit = tokio::time::timeout(VISIT, visit(user, port, messages)).await;
            drop(place);
            match visit {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{}: {error:#}", user.name)),
                Err(_) => Some(format!("{}: not done in {VISIT:?}", user.name)),
            }
        });
    }
    while let Some(done) = visits.join_next().await {
        faults.extend(done?);
    }
    let count = faults.len();
    faults.truncate(10);
    if count > 10 {
        faults.push(format!("and {} more users", count - 10));
    }
    Ok(faults)
}

async fn visit(user: &User, port: u16, messages: usize) -> Result<()> {
    let login = Login {
        version: Version::V5,
        client: "phone".to_owned(),
        user: user.name.clone(),
        token: user.token.clone(),
        port,
        receive_maximum: None,
    };
    let mut connection = Connection::new(&login);
    connection.subscribe("me/inbox", 1);
    let (mut subscribed, mut got) = (false, 0_u64);
    // The acknowledgement of the last one must be out before the connection ends.
    let mut to_acknowledge = 0_i64;
    loop {
        match connection.next().await {
            Happened::Subscribed { granted, .. } => {
                if !granted {
                    bail!("its subscription was refused");
                }
                subscribed = true;
            }
            Happened::Lost(why) => bail!("lost: {why}"),
            Happened::Delivered(delivery) => {
                connection.acknowledge(delivery.packet, delivery.qos);
                to_acknowledge += 1;
                let event = chat::InboxEvent::decode(&delivery.payload[..])?;
                if let Some(inbox_event::Event::Message(sent)) = event.event {
                    got += 1;
                    let Some(message::Content::Text(text)) = &sent.content else {
                        bail!("no text");
                    };
                    if !text.starts_with(&format!("{got} of ")) {
                        bail!("`{text}` came as number {got}");
                    }
                }
            }
            Happened::AcknowledgedDelivery => to_acknowledge -= 1,
            _ => {}
        }
        if subscribed && got >= messages as u64 && to_acknowledge <= 0 {
            connection.leave().await;
            return Ok(());
        }
    }
}
