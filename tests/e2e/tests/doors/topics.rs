//! The MQTT matrix: every topic of the table × door × who × whose, the one expected answer of each cell, and what each cell
//! must leave behind or must not.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::raw::{Answer, Hello, Version, Wire};
use crate::topic_rows::{Leaves, Line, Names, line_of, names};
use crate::world::{Column, World};

/// Who comes to the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// alice, by her access token.
    Alice,
    /// alice, by device tokens of one scope.
    OnlyChat,
    OnlyTopics,
    Anonymous,
}

const EVERYBODY: [Who; 4] = [Who::Alice, Who::OnlyChat, Who::OnlyTopics, Who::Anonymous];

impl Who {
    pub(crate) fn login(self, world: &World) -> Option<(&str, &str)> {
        let alice = &world.alice;
        let token = match self {
            Self::Alice => &alice.access,
            Self::OnlyChat => &alice.only_chat,
            Self::OnlyTopics => &alice.only_topics,
            Self::Anonymous => return None,
        };
        Some((&alice.name, token))
    }
}

/// A way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Publish(u8),
    Retained(u8),
    Subscribe(u8),
    Will(u8),
}

const DOORS: [Door; 10] = [
    Door::Publish(0),
    Door::Publish(1),
    Door::Publish(2),
    Door::Retained(0),
    Door::Retained(1),
    Door::Subscribe(0),
    Door::Subscribe(1),
    Door::Subscribe(2),
    Door::Will(0),
    Door::Will(1),
];

/// One cell.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) who: Who,
    pub(crate) version: Version,
    pub(crate) door: Door,
    pub(crate) column: Column,
    pub(crate) topic: String,
    pub(crate) line: &'static str,
    pub(crate) leaves: Leaves,
    pub(crate) payload: Vec<u8>,
    /// In its payload, and in no other's.
    pub(crate) mark: String,
    /// Whether it must be let in.
    pub(crate) granted: bool,
    /// The one answer.
    pub(crate) expected: Answer,
}

impl Cell {
    /// Whether 3.1.1 is told by an entry in the own mailbox.
    pub(crate) fn refused_by_entry(&self) -> bool {
        let acknowledged = matches!(self.door, Door::Publish(1..) | Door::Retained(1..));
        !self.granted
            && self.version == Version::V3
            && acknowledged
            && self.expected == Answer::Ack(0, Vec::new())
    }
}

fn is_reserved(topic: &str) -> bool {
    let first = topic.split('/').next().unwrap_or_default();
    ["c", "p", "u", "me"].contains(&first) || first.starts_with('$')
}

/// What a filter is about: that of a shared subscription, if it is an ordinary one, is what comes behind the group's name.
fn about(door: Door, topic: &str) -> &str {
    let inner = topic
        .strip_prefix("$share/g/")
        .filter(|_| matches!(door, Door::Subscribe(_)));
    inner.filter(|inner| !is_reserved(inner)).unwrap_or(topic)
}

fn may(line: &Line, who: Who, door: Door, column: Column, topic: &str) -> bool {
    let topic = about(door, topic);
    let ordinary = !is_reserved(topic);
    let wildcard = topic.contains(['+', '#']);
    if ordinary {
        return match who {
            Who::OnlyChat => false,
            // A filter that holds a wildcard may stand for much that is mine.
            Who::Anonymous => matches!(door, Door::Subscribe(_)) || !wildcard,
            Who::Alice | Who::OnlyTopics => column == Column::Mine,
        };
    }
    let for_this = match door {
        Door::Publish(_) => line.publish,
        Door::Subscribe(_) => line.subscribe,
        // Presence alone is retained and set as will, and it is not served yet.
        Door::Retained(_) | Door::Will(_) => false,
    };
    line.served && for_this && column == Column::Mine && matches!(who, Who::Alice | Who::OnlyChat)
}

fn not_found() -> Answer {
    let told = [("code", "not_found"), ("retryable", "false")];
    Answer::Ack(0x87, told.map(|(name, value)| (name.into(), value.into())).into())
}

/// The one answer of a cell.
fn expected(who: Who, version: Version, door: Door, topic: &str, granted: bool) -> Answer {
    let five = version == Version::V5;
    // A topic name with a wildcard is none, wherever it would lead: no packet of a client may hold one (MQTT-3.3.2-2).
    if topic.contains(['+', '#']) && !matches!(door, Door::Subscribe(_)) {
        return match door {
            Door::Will(_) if five => Answer::Connack(0x90),
            _ => Answer::Closed(five.then_some(0x90)),
        };
    }
    match (door, granted) {
        (Door::Publish(0) | Door::Retained(0), _) => Answer::Silence,
        (Door::Publish(_) | Door::Retained(_), true) => Answer::Ack(0, Vec::new()),
        (Door::Publish(_) | Door::Retained(_), false) if five => not_found(),
        // Its refusal is an entry in the own mailbox, which an anonymous client has not.
        (Door::Publish(_) | Door::Retained(_), false) if topic.starts_with("c/") && who != Who::Anonymous => {
            Answer::Ack(0, Vec::new())
        }
        (Door::Publish(_) | Door::Retained(_), false) => Answer::Closed(None),
        (Door::Subscribe(qos), true) if is_reserved(about(door, topic)) => Answer::Suback(qos.min(1)),
        (Door::Subscribe(qos), true) => Answer::Suback(qos),
        (Door::Subscribe(_), false) => Answer::Suback(if five { 0x87 } else { 0x80 }),
        (Door::Will(_), true) => Answer::Connack(0),
        (Door::Will(_), false) => Answer::Connack(if five { 0x87 } else { 5 }),
    }
}

/// All cells.
pub(crate) fn cells(world: &World, lines: &[Line]) -> Result<Vec<Cell>> {
    let all = names(world);
    let mut cells = Vec::new();
    for who in EVERYBODY {
        for version in [Version::V3, Version::V5] {
            for door in DOORS {
                for of in &all {
                    add(&mut cells, who, version, door, of, line_of(lines, of)?);
                }
            }
        }
    }
    Ok(cells)
}

fn add(cells: &mut Vec<Cell>, who: Who, version: Version, door: Door, of: &Names, line: &Line) {
    let topics = if matches!(door, Door::Subscribe(_)) {
        &of.filters
    } else {
        &of.names
    };
    for (column, topic) in topics {
        let granted = may(line, who, door, *column, topic);
        let mark = format!("cell-{:05}", cells.len());
        cells.push(Cell {
            who,
            version,
            door,
            column: *column,
            topic: topic.clone(),
            line: of.line,
            leaves: of.leaves,
            payload: of.form.payload(&mark),
            mark,
            granted,
            expected: expected(who, version, door, topic, granted),
        });
    }
}

/// A cell's answer, and a connection that may be used for the next one.
fn try_cell(world: &World, cell: &Cell, wire: &mut Option<Wire>) -> Result<Answer> {
    let port = world.node.ports().mqtt;
    let client = format!("doors-{:?}-{:?}", cell.who, cell.version);
    let mut hello = Hello {
        version: cell.version,
        client: &client,
        login: cell.who.login(world),
        will: None,
        keep: false,
    };
    if let Door::Will(qos) = cell.door {
        *wire = None;
        hello.will = Some((&cell.topic, &cell.payload, qos));
        let (accepted, answer) = Wire::connect(port, &hello)?;
        if let Some(accepted) = accepted {
            accepted.vanish();
        }
        return Ok(answer);
    }
    if wire.is_none() {
        let (accepted, answer) = Wire::connect(port, &hello)?;
        let Some(accepted) = accepted else {
            bail!("CONNECT was answered {answer:?}")
        };
        *wire = Some(accepted);
    }
    let open = wire.as_mut().context("no connection")?;
    let answer = match cell.door {
        Door::Publish(qos) => open.publish(&cell.topic, &cell.payload, qos, false)?,
        Door::Retained(qos) => open.publish(&cell.topic, &cell.payload, qos, true)?,
        Door::Subscribe(qos) => open.subscribe(&cell.topic, qos)?,
        Door::Will(_) => bail!("handled above"),
    };
    // A granted subscription would deliver into the next cells; a second encoding of the inbox is refused.
    let used_up =
        matches!(answer, Answer::Closed(_)) || matches!(answer, Answer::Suback(code) if code < 0x80);
    if used_up {
        *wire = None;
    }
    Ok(answer)
}

/// Tries all cells; gives what was wrong.
pub(crate) fn run(world: &World, cells: &[Cell]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut wire = None;
    let mut before: Option<(Who, Version)> = None;
    let mut told_apart: BTreeMap<String, Vec<(Column, String, Answer)>> = BTreeMap::new();
    for cell in cells {
        if before.replace((cell.who, cell.version)) != Some((cell.who, cell.version)) {
            wire = None;
        }
        let answer = match try_cell(world, cell, &mut wire) {
            Ok(answer) => answer,
            Err(error) => {
                wire = None;
                wrong.push(format!("{}: {error:#}", shown(cell)));
                continue;
            }
        };
        if answer != cell.expected {
            wrong.push(format!(
                "{}: expected {:?}, got {answer:?}",
                shown(cell),
                cell.expected
            ));
        }
        if matches!(cell.column, Column::Others | Column::Absent) && cell.who != Who::Anonymous {
            let door = format!("{:?} {:?} {:?} {}", cell.who, cell.version, cell.door, cell.line);
            told_apart
                .entry(door)
                .or_default()
                .push((cell.column, cell.topic.clone(), answer));
        }
    }
    for (door, answers) in told_apart {
        if let Some(pair) = answers.windows(2).find(|pair| pair[0].2 != pair[1].2) {
            wrong.push(format!("{door}: can be told apart: {pair:?}"));
        }
    }
    Ok(wrong)
}

/// A cell for people.
pub(crate) fn shown(cell: &Cell) -> String {
    let Cell {
        who,
        version,
        door,
        column,
        topic,
        mark,
        ..
    } = cell;
    format!("{mark} {who:?} {version:?} {door:?} {column:?} {topic}")
}
