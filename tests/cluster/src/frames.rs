//! CQL as it passes a proxy (native protocol v4, section 2 of its specification: a header of nine bytes, then a body): which answers are those of
//! lightweight transactions, and what becomes of them; they are lost or late. Nothing is changed but what a server says of its own address, which is
//! where drivers go. Sockets are `proxy`'s.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use rand::RngExt as _;
use serde::Serialize;

/// Of every frame.
const HEADER: usize = 9;
/// Version and direction, the first byte of every frame.
const REQUEST: u8 = 0x04;
const RESPONSE: u8 = 0x84;
/// Opcodes.
const QUERY: u8 = 0x07;
const RESULT: u8 = 0x08;
const PREPARE: u8 = 0x09;
const EXECUTE: u8 = 0x0A;
/// Kind of a RESULT that answers a PREPARE.
const PREPARED: i32 = 4;
/// Levels of consistency with which a read finishes what lightweight transactions have begun.
const SERIAL: [u16; 2] = [8, 9];
/// A late answer comes this late, milliseconds: some before the asker has given up, some after.
const LATE_MS: std::ops::Range<u64> = 300..6_000;
/// Of a million: what `chance` is a part of.
const MILLION: u32 = 1_000_000;

/// What is known of lightweight transactions and done to their answers; one for all connections of a store.
#[derive(Debug, Default)]
pub struct Claims {
    /// Ids of prepared statements that are conditional, or ask a server for itself.
    known: Mutex<HashMap<Bytes, Asked>>,
    /// Parts of a million.
    chance: AtomicU32,
    /// No answer is passed on.
    muted: AtomicBool,
    /// How late the next answer to a change of the schema is, milliseconds; 0: it is not.
    schema_late_ms: AtomicU64,
    seen: AtomicU64,
    lost: AtomicU64,
    late: AtomicU64,
    unreadable: AtomicU64,
}

/// How many there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Answers of lightweight transactions and of reads at SERIAL.
    pub seen: u64,
    /// Of these: never passed on.
    pub lost: u64,
    /// Passed on late.
    pub late: u64,
    /// Connections that spoke something else.
    pub unreadable: u64,
}

impl Claims {
    /// From now on so many in a million answers are lost or late, half each.
    pub fn lose(&self, in_a_million: u32) {
        self.chance.store(in_a_million, Ordering::Relaxed);
    }

    /// From now on all answers are lost, or none by this.
    pub fn mute(&self, muted: bool) {
        self.muted.store(muted, Ordering::Relaxed);
    }

    /// The next answer to a CREATE comes so late, at least a millisecond: once.
    pub fn delay_schema(&self, late: Duration) {
        let millis = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
        self.schema_late_ms.store(millis, Ordering::Relaxed);
    }

    /// So far.
    pub fn counts(&self) -> Counts {
        Counts {
            seen: self.seen.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            unreadable: self.unreadable.load(Ordering::Relaxed),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Bytes, Asked>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self) -> Fate {
        self.seen.fetch_add(1, Ordering::Relaxed);
        if self.muted.load(Ordering::Relaxed) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Fate::Lost;
        }
        let mut random = rand::rng();
        if random.random_range(0..MILLION) >= self.chance.load(Ordering::Relaxed) {
            return Fate::Passes;
        }
        if random.random_bool(0.5) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            Fate::Lost
        } else {
            self.late.fetch_add(1, Ordering::Relaxed);
            Fate::Late(Duration::from_millis(random.random_range(LATE_MS)))
        }
    }
}

/// What becomes of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing special.
    Passes,
    /// It is not passed on.
    Lost,
    /// It is passed on so much later, behind others.
    Late(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// To run a conditional statement, or to read at SERIAL.
    Claim,
    /// The server about itself.
    Itself,
    /// To make a keyspace or table.
    Schema,
    /// To prepare one of these.
    Preparing(&'static Asked),
}

/// What a statement, a long string, asks for.
fn asked(mut body: &[u8]) -> Option<&'static Asked> {
    if body.len() < 4 {
        return None;
    }
    let length = body.get_u32() as usize;
    let text = String::from_utf8_lossy(body.get(..length)?).to_ascii_uppercase();
    let begins = |words: &[&str]| words.iter().any(|word| text.trim_start().starts_with(word));
    if begins(&["INSERT", "UPDATE", "DELETE"]) && text.contains(" IF ") {
        return Some(&Asked::Claim);
    }
    if begins(&["CREATE"]) {
        return Some(&Asked::Schema);
    }
    (begins(&["SELECT"]) && text.contains("SYSTEM.LOCAL")).then_some(&Asked::Itself)
}

/// Where the server is and where it is to be looked for.
#[derive(Debug, Clone, Copy)]
pub struct Moved {
    /// As it says.
    pub from: Ipv4Addr,
    /// As is passed on.
    pub to: Ipv4Addr,
}

/// What one connection's requests were, by stream id.
type Streams = Arc<Mutex<HashMap<i16, Asked>>>;

/// One direction of a connection.
#[derive(Debug)]
pub struct Reader {
    claims: Arc<Claims>,
    streams: Streams,
    begins: u8,
    gathered: BytesMut,
    moved: Moved,
    /// It speaks something else: passed on as it comes.
    is_foreign: bool,
}

/// Readers of a connection's requests and of its answers.
pub fn readers(claims: &Arc<Claims>, moved: Moved) -> (Reader, Reader) {
    let streams = Streams::default();
    let of = |begins| Reader {
        claims: Arc::clone(claims),
        streams: Arc::clone(&streams),
        begins,
        gathered: BytesMut::new(),
        moved,
        is_foreign: false,
    };
    (of(REQUEST), of(RESPONSE))
}

impl Reader {
    /// Takes what came; gives whole frames, in order, each with its fate: frames that just pass are together.
    pub fn take(&mut self, came: &[u8]) -> Vec<(Bytes, Fate)> {
        self.gathered.extend_from_slice(came);
        let mut out = Vec::new();
        let mut passing = 0;
        while let Some(whole) = self.whole(passing) {
            let fate = self.frame(passing, whole);
            if fate == Fate::Passes {
                passing += whole;
                continue;
            }
            if passing > 0 {
                out.push((self.gathered.split_to(passing).freeze(), Fate::Passes));
                passing = 0;
            }
            out.push((self.gathered.split_to(whole).freeze(), fate));
        }
        if self.is_foreign {
            passing = self.gathered.len();
        }
        if passing > 0 {
            out.push((self.gathered.split_to(passing).freeze(), Fate::Passes));
        }
        out
    }

    /// Length of the frame that begins there, if it is whole.
    fn whole(&mut self, at: usize) -> Option<usize> {
        let frame = &self.gathered[at..];
        if self.is_foreign || frame.is_empty() {
            return None;
        }
        if frame[0] != self.begins {
            self.is_foreign = true;
            self.claims.unreadable.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let length = u32::from_be_bytes(frame.get(5..HEADER)?.try_into().ok()?) as usize + HEADER;
        (frame.len() >= length).then_some(length)
    }

    fn frame(&mut self, at: usize, length: usize) -> Fate {
        let frame = &mut self.gathered[at..at + length];
        let (stream, opcode) = (i16::from_be_bytes([frame[2], frame[3]]), frame[4]);
        let body = &mut frame[HEADER..];
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if self.begins == REQUEST {
            let asks = match opcode {
                PREPARE => asked(body).map(Asked::Preparing),
                QUERY => asked(body).copied(),
                EXECUTE => self.claims.execute(body),
                // The product sends no conditional batches.
                _ => None,
            };
            match asks {
                Some(asks) => streams.insert(stream, asks),
                None => streams.remove(&stream),
            };
            return Fate::Passes;
        }
        match streams.remove(&stream) {
            Some(Asked::Claim) => return self.claims.fate(),
            Some(Asked::Schema) => match self.claims.schema_late_ms.swap(0, Ordering::Relaxed) {
                0 => {}
                late => return Fate::Late(Duration::from_millis(late)),
            },
            Some(Asked::Itself) => self.moved.tell(body),
            Some(Asked::Preparing(asks)) if opcode == RESULT => {
                if let Some(id) = prepared_id(body) {
                    self.claims.known().insert(id, *asks);
                }
            }
            _ => {}
        }
        Fate::Passes
    }
}

impl Claims {
    /// Of an EXECUTE: id, consistency, …
    fn execute(&self, mut body: &[u8]) -> Option<Asked> {
        let id = short_bytes(&mut body)?;
        let serial = body.len() >= 2 && SERIAL.contains(&body.get_u16());
        if serial {
            return Some(Asked::Claim);
        }
        self.known().get(id).copied()
    }
}

impl Moved {
    /// Replaces the address wherever it stands as a value of four bytes.
    fn tell(self, body: &mut [u8]) {
        let value = |address: Ipv4Addr| [[0, 0, 0, 4], address.octets()].concat();
        let (from, to) = (value(self.from), value(self.to));
        let found = body.windows(from.len()).enumerate();
        let found: Vec<usize> = found
            .filter(|(_, part)| *part == from)
            .map(|(at, _)| at)
            .collect();
        for at in found {
            body[at..at + to.len()].copy_from_slice(&to);
        }
    }
}

fn short_bytes<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    if body.len() < 2 {
        return None;
    }
    let length = body.get_u16() as usize;
    let (found, rest) = body.split_at_checked(length)?;
    *body = rest;
    Some(found)
}

/// Of the answer to a PREPARE without warnings.
fn prepared_id(mut body: &[u8]) -> Option<Bytes> {
    if body.len() < 4 || body.get_i32() != PREPARED {
        return None;
    }
    short_bytes(&mut body).map(Bytes::copy_from_slice)
}

#[cfg(test)]
mod tests;
