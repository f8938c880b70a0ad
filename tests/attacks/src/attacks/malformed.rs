//! Packets that are wrong: from right ones by chance, before and after authentication. Only who sends them is closed. What comes of
//! each inside is the fuzzers' affair (`fuzz/`); here it is the sockets, the buffers and the others.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use super::doors::all;
use crate::bed::{Bed, Setup};
use crate::judge::Attack;
use crate::peer::{PATIENCE, Peer};
use crate::wire::{self, Hello, kind};

/// Connections at a time.
const AT_ONCE: usize = 16;
/// Packets of one connection at most, the CONNECT among them.
const PACKETS: u64 = 6;

/// Numbers that look like chance, the same for the same seed (xorshift64*).
struct Chance(u64);

impl Chance {
    fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % most.max(1)
    }

    fn at(&mut self, bytes: &[u8]) -> usize {
        self.below(bytes.len() as u64) as usize
    }
}

/// A right packet.
fn right(chance: &mut Chance, old: bool) -> Vec<u8> {
    let pid = chance.below(4) as u16 + 1;
    match chance.below(12) {
        0 => wire::PINGREQ.to_vec(),
        1 => wire::subscribe(old, pid, &["bad/+/x", "bad/#"], 1),
        2 => wire::packet(
            0xa2,
            &[&[0, 5][..], if old { &[] } else { &[0] }, &wire::field("bad/#")].concat(),
        ),
        3 => wire::ack(kind::PUBACK, pid),
        4 => wire::ack(kind::PUBREC, pid),
        5 => wire::ack(kind::PUBREL, pid),
        6 => wire::ack(kind::PUBCOMP, pid),
        7 => wire::packet(0xf0, &[0x18, 7, 0x15, 0, 5, b't', b'o', b'k', b'e', b'n']),
        8 => wire::DISCONNECT.to_vec(),
        // Where there are no properties, what follows is payload.
        9 => {
            let mut body = wire::field("bad/x");
            body.extend([
                0, 9, 17, 0x01, 1, 0x23, 0, 1, 0x08, 0, 1, b'r', 0x26, 0, 1, b'a', 0, 1, b'b', 0x02,
            ]);
            wire::packet(0x32, &body)
        }
        number => wire::publish(old, "bad/x", b"payload", number as u8 % 3, false, pid),
    }
}

/// The same with something wrong about it, mostly.
fn wrong(chance: &mut Chance, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..=chance.below(3) {
        let at = chance.at(&bytes);
        match chance.below(7) {
            0 => bytes[at] ^= 1 << chance.below(8),
            1 => bytes[at] = chance.below(256) as u8,
            2 => bytes.truncate(at.max(1)),
            3 => bytes.insert(at, chance.below(256) as u8),
            4 => drop(bytes.drain(at..(at + 1 + chance.below(4) as usize).min(bytes.len()))),
            // A length that is not so.
            5 => bytes
                .splice(1..2.min(bytes.len()), [0xff, chance.below(256) as u8, 0x01])
                .for_each(drop),
            _ => bytes.extend_from_within(at..),
        }
        if bytes.is_empty() {
            bytes.push(chance.below(256) as u8);
        }
    }
    bytes
}

/// One connection; the code that it was told at its end, and how many packets it sent.
async fn one(bed: &Bed, number: usize) -> Result<(Option<u8>, u64)> {
    let mut chance = Chance::of(number as u64 + 1);
    let old = chance.below(2) == 0;
    let hello = Hello {
        old,
        client: format!("bad{}", number % 64),
        ..Hello::default()
    };
    let mut peer = Peer::bare(bed.mqtt(), number).await?;
    let mut bytes = wire::connect(&hello);
    if chance.below(4) == 0 {
        bytes = wrong(&mut chance, bytes);
    }
    let packets = 1 + chance.below(PACKETS);
    for _ in 1..packets {
        let packet = right(&mut chance, old);
        bytes.extend(if chance.below(2) == 0 {
            packet
        } else {
            wrong(&mut chance, packet)
        });
    }
    // Cut anywhere.
    let at = chance.at(&bytes);
    peer.send_anyway(&bytes[..at]).await;
    peer.send_anyway(&bytes[at..]).await;
    peer.finish().await;
    let code = peer.ended(PATIENCE).await;
    let code =
        code.with_context(|| format!("sequence {number}: nothing more comes, and it is not closed"))?;
    Ok((code, packets))
}

/// See the module.
pub fn packets(long: bool) -> Attack {
    let count: usize = if long { 150_000 } else { 3_000 };
    let setup = Setup {
        anonymous: true,
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let before = bed.descriptors()?;
        let mut tasks = JoinSet::new();
        for first in 0..AT_ONCE {
            let bed = Arc::clone(&bed);
            tasks.spawn(async move {
                let (mut told, mut packets) = (0_u64, 0);
                for number in (first..count).step_by(AT_ONCE) {
                    let (code, sent) = one(&bed, number).await?;
                    told += u64::from(code.is_some_and(|code| code >= 0x80));
                    packets += sent;
                }
                Ok((told, packets))
            });
        }
        let done = all(tasks).await?;
        let told: u64 = done.iter().map(|one| one.0).sum();
        let packets: u64 = done.iter().map(|one| one.1).sum();
        ensure!(
            told > count as u64 / 20,
            "only {told} were told that they are wrong"
        );
        let wrong = bed.metric("godwit_mqtt_protocol_errors_total").await?;
        // They close a moment after their clients see it.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let after = bed.descriptors()?;
        ensure!(after <= before + 8, "{before} descriptors before, {after} after");
        Ok(vec![format!(
            "{count} connections with {packets} packets, half of them mutated (seeds 1 to {count}): all closed when nothing more came, \
             {told} told why; {wrong} errors of protocol counted; {before} descriptors before, {after} after"
        )])
    };
    Attack::new("malformed packets", setup, long, run).memory(
        (64 << 20) + count as u64 * 64,
        "buffers, sessions and messages that a mutation happens to leave, the store's overlay",
    )
}
