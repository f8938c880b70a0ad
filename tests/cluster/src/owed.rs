//! Row 15 of the table of faults: persistent sessions that are away are sent messages, everything is killed and started again, they come back and get all
//! of it. The sends are recorded as those of any client, so the checker judges what is in the histories, too.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use godwit_cassandra::Cluster;
use godwit_e2e::record::{Line, hash, now};
use godwit_e2e::rest::Api;
use godwit_e2e::world;

use crate::around::Around;
use crate::outcome::Outcome;
use crate::rig::{Rig, Size};

/// Senders at a time.
const AT_ONCE: usize = 8;
/// Attempts of one send before the run is over.
const ATTEMPTS: u32 = 8;

/// Sends so many messages to each user while nobody is connected, kills all nodes, starts them and has the sessions get what they are owed.
///
/// # Errors
/// When a send is not acknowledged, or as [`Rig`].
pub fn owed(folder: &Path, cassandra: &Cluster, seed: u64, size: Size, each: usize) -> Result<Outcome> {
    let mut rig = Rig::new(folder, cassandra, seed, size, Around::default())?;
    let work: Vec<(usize, usize)> = rig
        .world
        .conversations
        .iter()
        .enumerate()
        .filter(|(_, conversation)| conversation.size == world::Size::Two)
        .take(size.users / 2)
        .flat_map(|(at, _)| (0..each).map(move |number| (at, number)))
        .collect();
    let apis: Vec<Api> = (0..size.nodes)
        .map(|one| Api::new(&rig.nodes.http(one)))
        .collect();
    std::thread::scope(|scope| -> Result<()> {
        let mut threads = Vec::new();
        for thread in 0..AT_ONCE {
            let (rig, work, apis) = (&rig, &work, &apis);
            threads.push(scope.spawn(move || -> Result<()> {
                // A conversation's sends stay in one thread, in their order.
                for (at, number) in work.iter().filter(|(at, _)| at % AT_ONCE == thread) {
                    send(rig, &apis[(at + number) % apis.len()], *at, *number)?;
                }
                Ok(())
            }));
        }
        for thread in threads {
            thread.join().ok().context("a sender panicked")??;
        }
        Ok(())
    })?;
    rig.mark("kill -9 of all nodes".to_owned(), Duration::MAX);
    for node in 0..rig.nodes.count() {
        rig.nodes.kill(node)?;
    }
    rig.nodes.start_all()?;
    rig.start_clients(0);
    // Nobody sends: what clients felt of it is how long the drain takes.
    rig.go_on(Duration::from_secs(1));
    let mut outcome = rig.finish()?;
    outcome.marks.clear();
    Ok(outcome)
}

/// Both members send, in turn, so that each is owed both its own and the other's.
fn send(rig: &Rig, api: &Api, at: usize, number: usize) -> Result<()> {
    let conversation = &rig.world.conversations[at];
    let sender = &rig.world.users[conversation.members[number % 2]];
    let text = format!("{}.{at} owed", rig.shared.number());
    let client_id = format!("owed-{at}-{number}");
    let shared = Arc::clone(&rig.shared);
    for attempt in 0..ATTEMPTS {
        let id = format!("{client_id}~{attempt}");
        shared.recorder.write(&Line::Send {
            t: now(),
            id: &id,
            sender: &sender.id,
            conversation: &conversation.id,
            client_message_id: Some(&client_id),
            door: "rest",
            hash: &hash(text.as_bytes()),
        });
        if attempt == 0 {
            shared.begin();
        }
        match api.send(&sender.token, &conversation.id, &client_id, &text) {
            Ok((_, message, sequence)) => {
                shared.recorder.write(&Line::Ack {
                    t: now(),
                    id: &id,
                    message_id: Some(&message),
                    sequence: Some(sequence),
                });
                shared.acknowledge();
                return Ok(());
            }
            Err(refused) => {
                let code = if refused.is_unknown() {
                    "unavailable"
                } else {
                    refused.code.as_str()
                };
                shared.recorder.write(&Line::Fail {
                    t: now(),
                    id: &id,
                    code,
                });
                shared.told_no(code);
                std::thread::sleep(Duration::from_millis(200 << attempt));
            }
        }
    }
    shared.give_up();
    anyhow::bail!(
        "no answer to {client_id} after {ATTEMPTS} attempts\n{}",
        rig.nodes.tails()
    )
}
