//! What the cells of the MQTT matrix left behind, seen by others: deliveries on ordinary topics, retained messages,
//! history over REST, and the `refused` entries in the own mailbox. Nothing may be there that no cell was granted.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::Value;

use crate::raw::Delivery;
use crate::tap::Tap;
use crate::topic_rows::Leaves;
use crate::topics::{Cell, Door, Who, shown};
use crate::world::{Person, World, done};

/// Looks on while the cells are tried.
pub(crate) struct Witness {
    /// Anonymous on `#`: every ordinary topic.
    ordinary: Tap,
    alice: Tap,
    carol: Tap,
}

fn inbox(world: &World, person: &Person, client: &str) -> Result<Tap> {
    Tap::new(
        world.node.ports().mqtt,
        client,
        Some((&person.name, &person.device)),
        &["me/inbox/json"],
    )
}

impl Witness {
    pub(crate) fn new(world: &World) -> Result<Self> {
        Ok(Self {
            ordinary: Tap::new(world.node.ports().mqtt, "witness", None, &["#"])?,
            alice: inbox(world, &world.alice, "witness")?,
            carol: inbox(world, &world.carol, "witness")?,
        })
    }

    /// Compares with what was granted; gives what was wrong.
    pub(crate) fn judge(self, world: &World, cells: &[Cell]) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        let published = |cell: &&Cell| cell.granted && !matches!(cell.door, Door::Subscribe(_));
        let granted: Vec<&Cell> = cells.iter().filter(published).collect();

        let deliveries: Vec<&&Cell> = granted
            .iter()
            .filter(|cell| cell.leaves == Leaves::Delivery)
            .collect();
        let seen = self.ordinary.settled(|seen| seen.len() >= deliveries.len());
        let expected = deliveries
            .iter()
            .map(|cell| (cell.topic.clone(), cell.mark.clone()));
        wrong.extend(compared("ordinary topics", expected, seen.iter().map(named)));

        let retained = deliveries
            .iter()
            .filter(|cell| matches!(cell.door, Door::Retained(_)));
        let last: BTreeMap<&str, &str> = retained
            .map(|cell| (cell.topic.as_str(), cell.mark.as_str()))
            .collect();
        let fresh = Tap::new(world.node.ports().mqtt, "retained", None, &["#"])?;
        let seen = fresh.settled(|seen| seen.len() >= last.len());
        let expected = last
            .iter()
            .map(|(topic, mark)| ((*topic).to_owned(), (*mark).to_owned()));
        wrong.extend(compared("retained messages", expected, seen.iter().map(named)));

        let sent = granted.iter().filter(|cell| cell.leaves == Leaves::Message);
        let expected = sent.clone().map(|cell| (world.ours.clone(), cell.mark.clone()));
        let history = marks_of(world, &world.bob, &world.ours, sent.count())?;
        wrong.extend(compared("our history", expected, history.into_iter()));
        let theirs = marks_of(world, &world.carol, &world.theirs, 0)?;
        wrong.extend(compared("their history", std::iter::empty(), theirs.into_iter()));

        let refused: Vec<&Cell> = cells.iter().filter(|cell| cell.refused_by_entry()).collect();
        let entries = |seen: &[Delivery]| seen.iter().filter_map(refusal).count();
        let seen = self.alice.settled(|seen| entries(seen) >= refused.len());
        let expected = refused
            .iter()
            .map(|cell| (cell.topic.clone(), "not_found".to_owned()));
        wrong.extend(compared(
            "refused entries",
            expected,
            seen.iter().filter_map(refusal),
        ));

        for cell in cells {
            let is_there = |one: &Delivery| String::from_utf8_lossy(&one.payload).contains(&cell.mark);
            if self.carol.seen().iter().any(is_there) {
                wrong.push(format!("carol got {}", shown(cell)));
            }
            if cell.who == Who::Anonymous && seen.iter().any(is_there) && cell.leaves != Leaves::Delivery {
                wrong.push(format!("alice got {}", shown(cell)));
            }
        }
        Ok(wrong)
    }
}

fn named(delivery: &Delivery) -> (String, String) {
    (
        delivery.topic.clone(),
        String::from_utf8_lossy(&delivery.payload).into_owned(),
    )
}

fn refusal(delivery: &Delivery) -> Option<(String, String)> {
    let event: Value = serde_json::from_slice(&delivery.payload).ok()?;
    let text = |field: &str| event[field].as_str().map(str::to_owned);
    (event["type"] == "refused").then(|| Some((text("topic")?, text("code")?)))?
}

/// Marks in a conversation's history, which a QoS 0 send may reach a moment later.
fn marks_of(
    world: &World,
    reader: &Person,
    conversation: &str,
    enough: usize,
) -> Result<Vec<(String, String)>> {
    for patience in (0..100).rev() {
        let mut marks = Vec::new();
        let mut after = 0;
        loop {
            let path = format!("/api/v1/conversations/{conversation}/messages?limit=200&after={after}");
            let page = done(world.http.call("GET", &path, Some(&reader.access), None)?)?;
            let entries = page["messages"].as_array().cloned().unwrap_or_default();
            let texts = entries.iter().filter_map(|entry| entry["content"].as_str());
            marks.extend(
                texts
                    .filter(|text| text.starts_with("cell-"))
                    .map(|text| (conversation.to_owned(), text.to_owned())),
            );
            match entries.last().and_then(|entry| entry["sequence_number"].as_u64()) {
                Some(last) => after = last,
                None => break,
            }
        }
        if marks.len() >= enough || patience == 0 {
            return Ok(marks);
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Ok(Vec::new())
}

/// Both as multisets.
fn compared(
    what: &str,
    expected: impl Iterator<Item = (String, String)>,
    seen: impl Iterator<Item = (String, String)>,
) -> Vec<String> {
    let mut counts: BTreeMap<(String, String), i64> = BTreeMap::new();
    expected.for_each(|one| *counts.entry(one).or_default() += 1);
    seen.for_each(|one| *counts.entry(one).or_default() -= 1);
    counts.retain(|_, count| *count != 0);
    let wrong = counts.into_iter().map(|((place, what_came), count)| {
        let which = if count > 0 { "is missing" } else { "is too much" };
        format!("{what}: {place} {what_came} {which} ({})", count.abs())
    });
    wrong.collect()
}
