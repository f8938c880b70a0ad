//! CQL as it passes a proxy (native protocol v4, section 2 of its specification: a header of nine bytes, then a body): which answers are those of
//! lightweight transactions, and what becomes of them; they are lost or late. Nothing is changed but what a server says of its own address, which is
//! where drivers go. Sockets are `proxy`'s.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
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
mod tests {
    use super::*;

    fn frame(begins: u8, stream: i16, opcode: u8, body: &[u8]) -> Vec<u8> {
        let mut all = vec![begins, 0];
        all.extend(stream.to_be_bytes());
        all.push(opcode);
        all.extend((body.len() as u32).to_be_bytes());
        all.extend(body);
        all
    }

    fn long_string(text: &str) -> Vec<u8> {
        let mut all = (text.len() as u32).to_be_bytes().to_vec();
        all.extend(text.as_bytes());
        all
    }

    fn execute(id: &[u8], consistency: u16) -> Vec<u8> {
        let mut all = (id.len() as u16).to_be_bytes().to_vec();
        all.extend(id);
        all.extend(consistency.to_be_bytes());
        all.push(0);
        all
    }

    fn prepared(id: &[u8]) -> Vec<u8> {
        let mut all = PREPARED.to_be_bytes().to_vec();
        all.extend((id.len() as u16).to_be_bytes());
        all.extend(id);
        all
    }

    fn fates(out: &[(Bytes, Fate)]) -> Vec<&str> {
        let name = |fate: &Fate| match fate {
            Fate::Passes => "passes",
            Fate::Lost | Fate::Late(_) => "not",
        };
        out.iter().map(|(_, fate)| name(fate)).collect()
    }

    const HERE: Moved = Moved {
        from: Ipv4Addr::LOCALHOST,
        to: Ipv4Addr::new(9, 9, 9, 9),
    };

    #[test]
    fn only_answers_of_lightweight_transactions_and_serial_reads_are_lost_or_late() {
        let claims = Arc::new(Claims::default());
        claims.lose(MILLION);
        let (mut asks, mut answers) = readers(&claims, HERE);
        let conditional = long_string("UPDATE own.views SET body = ? WHERE cluster = ? IF nonce = ?");
        let plain = long_string("CREATE TABLE IF NOT EXISTS a (b int PRIMARY KEY)");
        let mut sent = frame(REQUEST, 1, PREPARE, &conditional);
        sent.extend(frame(REQUEST, 2, PREPARE, &plain));
        assert_eq!(asks.take(&sent), [(Bytes::from(sent.clone()), Fate::Passes)]);
        let mut said = frame(RESPONSE, 2, RESULT, &prepared(b"plain"));
        said.extend(frame(RESPONSE, 1, RESULT, &prepared(b"claim")));
        // In pieces, one of them within a header.
        assert_eq!(answers.take(&said[..4]), []);
        assert_eq!(fates(&answers.take(&said[4..])), ["passes"]);
        // Another connection knows them, too.
        let (mut asks, mut answers) = readers(&claims, HERE);
        asks.take(&frame(REQUEST, 7, EXECUTE, &execute(b"plain", 4)));
        asks.take(&frame(REQUEST, 8, EXECUTE, &execute(b"claim", 4)));
        asks.take(&frame(REQUEST, 9, EXECUTE, &execute(b"plain", 8)));
        let mut said = Vec::new();
        for stream in [8, 7, 9, 7, 8] {
            said.extend(frame(RESPONSE, stream, RESULT, &[0, 0, 0, 1]));
        }
        assert_eq!(fates(&answers.take(&said)), ["not", "passes", "not", "passes"]);
        let counts = claims.counts();
        assert_eq!(
            (counts.seen, counts.lost + counts.late, counts.unreadable),
            (2, 2, 0)
        );
    }

    #[test]
    fn a_server_that_says_where_it_is_is_looked_for_at_the_proxy() {
        let claims = Arc::new(Claims::default());
        let (mut asks, mut answers) = readers(&claims, HERE);
        let text = long_string("SELECT rpc_address FROM system.local WHERE key='local'");
        let row = |address: [u8; 4]| [&[0, 0, 0, 2, 0, 0, 0, 4][..], &address].concat();
        asks.take(&frame(REQUEST, 1, PREPARE, &text));
        answers.take(&frame(RESPONSE, 1, RESULT, &prepared(b"local")));
        asks.take(&frame(REQUEST, 1, QUERY, &text));
        asks.take(&frame(REQUEST, 2, EXECUTE, &execute(b"local", 1)));
        asks.take(&frame(REQUEST, 3, EXECUTE, &execute(b"other", 1)));
        for (stream, address) in [(1, [9, 9, 9, 9]), (2, [9, 9, 9, 9]), (3, [127, 0, 0, 1])] {
            let said = answers.take(&frame(RESPONSE, stream, RESULT, &row([127, 0, 0, 1])));
            assert_eq!(
                said,
                [(
                    frame(RESPONSE, stream, RESULT, &row(address)).into(),
                    Fate::Passes
                )]
            );
        }
    }

    #[test]
    fn what_is_no_cql_passes_as_it_comes_and_is_counted() {
        let claims = Arc::new(Claims::default());
        let (mut asks, _) = readers(&claims, HERE);
        assert_eq!(
            asks.take(b"\x05\x00"),
            [(Bytes::from_static(b"\x05\x00"), Fate::Passes)]
        );
        assert_eq!(asks.take(b"x"), [(Bytes::from_static(b"x"), Fate::Passes)]);
        assert_eq!(claims.counts().unreadable, 1);
    }

    #[test]
    fn nothing_is_lost_until_it_is_asked_for() {
        let claims = Arc::new(Claims::default());
        let (mut asks, mut answers) = readers(&claims, HERE);
        asks.take(&frame(
            REQUEST,
            3,
            QUERY,
            &long_string("DELETE FROM a WHERE b = 1 IF EXISTS"),
        ));
        assert_eq!(
            fates(&answers.take(&frame(RESPONSE, 3, RESULT, &[0, 0, 0, 1]))),
            ["passes"]
        );
        assert_eq!(claims.counts().seen, 1);
    }
}
