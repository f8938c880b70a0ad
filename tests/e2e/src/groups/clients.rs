//! Publishers and members of the groups' kill test: each on a thread of its own, until the book says that it is over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};
use rand::RngExt;
use rand::rngs::StdRng;

use super::book::{Book, Id};
use crate::raw::{PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Raw};

/// Session expiry of who stays, seconds.
const HOUR: u32 = 3_600;
/// Publishes in flight of a publisher.
const WINDOW: usize = 24;
/// Between two looks at the book.
const LOOK: Duration = Duration::from_millis(5);
/// Before the next try to connect.
const AGAIN: Duration = Duration::from_millis(20);

/// What a publish waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// PUBACK or PUBREC.
    First,
    /// PUBCOMP.
    Complete,
}

/// Publishes at QoS 1 and 2, and sends again what was not acknowledged.
pub(super) struct Publisher {
    /// What happened.
    pub(super) book: Arc<Book>,
    /// MQTT's.
    pub(super) port: u16,
    /// Its number.
    pub(super) number: u16,
    /// Decides QoS and pauses.
    pub(super) random: StdRng,
    /// The last one.
    pub(super) count: u32,
    /// By packet identifier, in the order of sending.
    pub(super) open: VecDeque<(u16, Id, u8)>,
    completing: BTreeSet<u16>,
}

impl Publisher {
    /// With nothing sent.
    pub(super) fn new(book: Arc<Book>, port: u16, number: u16, random: StdRng) -> Self {
        Self {
            book,
            port,
            number,
            random,
            count: 0,
            open: VecDeque::new(),
            completing: BTreeSet::new(),
        }
    }

    /// Runs to the end.
    pub(super) fn run(mut self) {
        while !self.book.is_over() {
            // It ends with the connection.
            let _ = self.connection();
            std::thread::sleep(AGAIN);
        }
    }

    fn topic(&self, qos: u8) -> String {
        format!("load/{}/q{qos}", self.number)
    }

    fn payload(&self, id: Id) -> Vec<u8> {
        format!("{}:{}", id.0, id.1).into_bytes()
    }

    fn connection(&mut self) -> Result<()> {
        let client = format!("pub{}", self.number);
        let (mut raw, present) = Raw::connect(self.port, &client, false, HOUR)?;
        if !present && self.count > 0 {
            self.book
                .problem(format!("the session of {client} was not there any more"));
        }
        for (packet, id, qos) in self.open.clone() {
            if self.completing.contains(&packet) {
                raw.ack(PUBREL, packet)?;
            } else {
                self.book.send_again(id);
                raw.publish(&self.topic(qos), &self.payload(id), qos, packet, true)?;
            }
        }
        while !self.book.is_over() {
            while !self.book.is_stopped() && self.open.len() < WINDOW {
                self.count += 1;
                let id = (self.number, self.count);
                let packet = u16::try_from(self.count % 60_000 + 1).unwrap_or(1);
                let qos = if self.random.random_bool(0.75) { 1 } else { 2 };
                self.open.push_back((packet, id, qos));
                self.book.send(id, qos);
                raw.publish(&self.topic(qos), &self.payload(id), qos, packet, false)?;
                if self.random.random_bool(0.2) {
                    break;
                }
            }
            while let Some(packet) = raw.next(LOOK)? {
                self.take(&mut raw, packet)?;
                if !self.book.is_stopped() && self.open.len() < WINDOW / 2 {
                    break;
                }
            }
        }
        Ok(())
    }

    fn waits(&self, packet: u16) -> Option<(Id, u8, Waits)> {
        let (_, id, qos) = self.open.iter().find(|one| one.0 == packet)?;
        let waits = match self.completing.contains(&packet) {
            true => Waits::Complete,
            false => Waits::First,
        };
        Some((*id, *qos, waits))
    }

    fn done(&mut self, packet: u16) {
        self.open.retain(|one| one.0 != packet);
        self.completing.remove(&packet);
    }

    fn take(&mut self, raw: &mut Raw, packet: Packet) -> Result<()> {
        match packet {
            Packet::Ack(kind, packet, code) => {
                let Some((id, qos, waits)) = self.waits(packet) else {
                    return Ok(());
                };
                match (kind, waits) {
                    (PUBACK | PUBREC, Waits::First) if code >= 0x80 => {
                        self.book.refuse(id);
                        self.done(packet);
                    }
                    (PUBACK | PUBREC, Waits::First) => {
                        if code == 0x10 {
                            self.book.problem(format!("{id:?} matched nobody"));
                        }
                        if qos == 1 {
                            self.book.acknowledge(id);
                            self.done(packet);
                        } else {
                            self.completing.insert(packet);
                            raw.ack(PUBREL, packet)?;
                        }
                    }
                    (PUBCOMP, Waits::Complete) => {
                        self.book.acknowledge(id);
                        self.done(packet);
                    }
                    (PUBREC, Waits::Complete) => raw.ack(PUBREL, packet)?,
                    _ => self.book.problem(format!("an acknowledgement {kind} for {id:?}")),
                }
            }
            Packet::Disconnect(code) => bail!("told to go: {code:#04x}"),
            _ => {}
        }
        Ok(())
    }
}

/// A member of a group.
pub(super) struct Member {
    /// What happened.
    pub(super) book: Arc<Book>,
    /// MQTT's.
    pub(super) port: u16,
    /// Which group, for the book.
    pub(super) group: usize,
    /// Which member.
    pub(super) number: usize,
    /// What it subscribes to.
    pub(super) filter: String,
    /// With this QoS.
    pub(super) qos: u8,
    /// Its session may end, and it may leave the group. Only of QoS 1: what it had at QoS 2 may end with it.
    pub(super) leaves: bool,
    /// Decides when it comes, goes and acknowledges.
    pub(super) random: StdRng,
}

/// How it comes next.
#[derive(Debug, Clone, Copy, Default)]
struct Next {
    clean_start: bool,
    /// It is not in its group.
    out: bool,
}

/// What a session holds.
#[derive(Debug, Default)]
struct Held {
    session: u32,
    connection: u32,
    /// QoS 2, received and not released.
    received: BTreeSet<u16>,
    /// QoS 1, to be acknowledged.
    owed: VecDeque<u16>,
    /// Of QoS 2 on this connection: number by packet identifier, for a repeat.
    known: BTreeMap<u16, Vec<u8>>,
}

impl Member {
    /// Runs to the end.
    pub(super) fn run(mut self) {
        let (mut held, mut next) = (Held::default(), Next::default());
        while !self.book.is_over() {
            let away = match self.connection(&mut held, &mut next) {
                Ok(()) if !self.book.is_calm() => self.random.random_range(5..500),
                _ => 20,
            };
            std::thread::sleep(Duration::from_millis(away));
        }
    }

    fn connection(&mut self, held: &mut Held, next: &mut Next) -> Result<()> {
        let client = format!("member{}", self.number);
        let dies = self.leaves && !self.book.is_calm() && self.random.random_bool(0.15);
        let expiry = if dies { 1 } else { HOUR };
        let connected = Raw::connect(self.port, &client, next.clean_start, expiry);
        if self.leaves && connected.as_ref().is_err_and(|error| !was_refused(error)) {
            // Its session may have ended, and a new one be there whose CONNACK was lost: nobody could tell them apart.
            next.clean_start = true;
        }
        let (mut raw, present) = connected?;
        next.clean_start = false;
        held.connection += 1;
        held.owed.clear();
        if !present {
            if held.session > 0 && !self.leaves {
                self.book
                    .problem(format!("the session of {client} was not there any more"));
            }
            if held.session > 0 {
                self.book.session_ended();
            }
            held.session += 1;
            held.received.clear();
            held.known.clear();
        }
        if !present || std::mem::take(&mut next.out) {
            next.out = true;
            raw.subscribe(&self.filter, self.qos)?;
            self.answered(&mut raw, held, self.qos)?;
            self.book.joined();
            next.out = false;
        }
        let most = if self.leaves { 700 } else { 1_800 };
        let stays = Duration::from_millis(self.random.random_range(60..most));
        let until = Instant::now() + stays;
        while !self.book.is_over() && (self.book.is_calm() || Instant::now() < until) {
            if let Some(packet) = raw.next(LOOK)? {
                self.take(&mut raw, held, packet)?;
            }
            // Some stay unacknowledged, so that there is something to repeat.
            let keeps = match self.book.is_calm() {
                true => 0,
                false => self.random.random_range(0..12),
            };
            while held.owed.len() > keeps {
                // Now and then not in order.
                let at = usize::from(held.owed.len() > 1 && self.random.random_bool(0.05));
                if let Some(id) = held.owed.remove(at) {
                    raw.ack(PUBACK, id)?;
                }
            }
        }
        if self.book.is_over() {
            return Ok(());
        }
        match self.random.random_range(0..10) {
            0..3 if self.leaves => {
                next.out = true;
                raw.unsubscribe(&self.filter)?;
                self.answered(&mut raw, held, 0)?;
                self.book.unsubscribed();
                raw.leave(false);
            }
            3..6 if self.leaves => next.clean_start = true,
            6..8 if self.leaves => raw.leave(true),
            0..5 => raw.leave(false),
            // The socket closes.
            _ => {}
        }
        if dies && self.random.random_bool(0.5) {
            std::thread::sleep(Duration::from_millis(1_500));
        }
        Ok(())
    }

    fn answered(&self, raw: &mut Raw, held: &mut Held, code: u8) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(15);
        while Instant::now() < until {
            match raw.next(LOOK)? {
                Some(Packet::Suback(got)) if got == code => return Ok(()),
                Some(Packet::Suback(got)) => {
                    if got != 0x80 {
                        self.book
                            .problem(format!("{} was answered {got:#04x}", self.filter));
                    }
                    bail!("not granted");
                }
                Some(packet) => self.take(raw, held, packet)?,
                None => {}
            }
        }
        self.book.problem(format!("{} was not answered", self.filter));
        bail!("not answered")
    }

    fn take(&self, raw: &mut Raw, held: &mut Held, packet: Packet) -> Result<()> {
        let owner = (self.number, held.session);
        match packet {
            Packet::Publish {
                id, qos: 2, payload, ..
            } => {
                if held.received.insert(id) {
                    self.book.arrive(self.group, owner, held.connection, &payload);
                    held.known.insert(id, payload);
                } else if held.known.get(&id) != Some(&payload) {
                    let what = "another message under an identifier that was not released";
                    self.book.problem(format!("member {}: {what}", self.number));
                }
                raw.ack(PUBREC, id)?;
            }
            Packet::Publish { id, payload, .. } => {
                self.book.arrive(self.group, owner, held.connection, &payload);
                held.owed.push_back(id);
            }
            Packet::Ack(PUBREL, id, _) => {
                held.received.remove(&id);
                held.known.remove(&id);
                raw.ack(PUBCOMP, id)?;
            }
            Packet::Disconnect(code) => bail!("told to go: {code:#04x}"),
            _ => {}
        }
        Ok(())
    }
}

/// Nobody listened, so nothing was asked.
fn was_refused(error: &Error) -> bool {
    let cause = error.downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| cause.kind() == ErrorKind::ConnectionRefused)
}
