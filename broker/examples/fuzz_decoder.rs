//! Mutation fuzzing of MQTT's decoder without a special compiler: `fuzz_decoder [seconds] [seed]`. Prints its seed and
//! what it reached; a panic is a finding, and the input is printed before it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use godwit_broker::codec::fuzz_one;

/// Legal packets of each kind that a client sends, some with every property: first byte and what follows the length.
const CORPUS: &[(u8, &[u8])] = &[
    (0x10, b"\0\x04MQTT\x04\x02\0\x3c\0\x01c"),
    (0x10, b"\0\x04MQTT\x04\xf6\0\x3c\0\x03dev\0\x04will\0\x04gone\0\x05alice\0\x06secret"),
    (0x10, b"\0\x04MQTT\x05\xf6\0\x3c\x14\x11\0\0\0\x3c\x21\0\x05\x27\0\0\x10\0\x22\0\x07\x17\0\x19\x01\0\x03dev\
      \x17\x18\0\0\0\x09\x01\x01\x02\0\0\0\0\x03\0\x01j\x08\0\x01r\x09\0\0\0\x04will\0\x04gone\0\x05alice\0\x06secret"),
    (0x10, b"\0\x04MQTT\x05\x00\0\0\x0a\x21\0\x01\x26\0\x01a\0\x01b\0\0"),
    (0x30, b"\0\x03a/bx"),
    (0x3b, b"\0\x03a/b\0\x07xy"),
    (0x32, b"\0\x03a/b\0\x07\x1a\x01\x01\x02\0\0\0\x09\x03\0\x01j\x08\0\x01r\x09\0\x01d\x26\0\x01a\0\x01bpay"),
    (0x34, b"\0\x01t\0\x01\0xx"),
    (0x30, b"\0\0\x03\x23\0\x01xx"),
    (0x40, b"\0\x01"),
    (0x40, b"\0\x01\x83\x05\x1f\0\x02no"),
    (0x50, b"\0\x01\x97"),
    (0x62, b"\0\x01"),
    (0x70, b"\0\x01\0\0"),
    (0x82, b"\0\x01\0\x01a\x01\0\x03b/#\x02"),
    (0x82, b"\0\x01\x02\x0b\x07\0\x03b/#\x2d"),
    (0xa2, b"\0\x01\0\x01a\0\x01b"),
    (0xa2, b"\0\x01\0\0\x01a"),
    (0xc0, b""),
    (0xe0, b""),
    (0xe0, b"\x04\x05\x11\0\0\0\x07"),
    (0xf0, b"\x18\x06\x15\0\x03abc"),
];

/// A packet of the corpus, all of which have lengths of one byte.
fn packet((first, body): (u8, &[u8])) -> Vec<u8> {
    [&[first, body.len() as u8], body].concat()
}

/// Most bytes of an input: longer ones reach nothing new.
const LONGEST: usize = 600;

/// xorshift64*: seeded, so that a finding can be had again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        if end == 0 {
            0
        } else {
            (self.next() % end as u64) as usize
        }
    }
}

/// Bytes that mean something: lengths, flags, ends of ranges, halves of UTF-8.
const TELLING: &[u8] = &[
    0, 1, 2, 3, 4, 0x7f, 0x80, 0xc0, 0xed, 0xff, b'#', b'+', b'/', 0x0b, 0x11, 0x21, 0x23, 0x26,
];

fn mutate(input: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(input.len());
        match random.below(8) {
            0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
            1 if !input.is_empty() => input[at] = TELLING[random.below(TELLING.len())],
            2 => input.insert(at, random.next() as u8),
            3 if !input.is_empty() => drop(input.remove(at)),
            4 => input.truncate(at),
            5 => {
                let other = packet(CORPUS[random.below(CORPUS.len())]);
                let from = random.below(other.len());
                input.splice(at..at, other[from..].iter().copied());
            }
            6 => input.extend(packet(CORPUS[random.below(CORPUS.len())])),
            // The length is put right, so that what is behind it is reached.
            _ if input.len() >= 2 => {
                let body = input.len() - 2;
                if body < 0x80 {
                    input[1] = body as u8;
                } else {
                    input[1] = (body & 0x7f) as u8 | 0x80;
                    input.insert(2, (body >> 7) as u8);
                }
            }
            _ => {}
        }
    }
    input.truncate(LONGEST);
}

#[allow(clippy::print_stdout)]
fn main() -> ExitCode {
    let mut given = std::env::args().skip(1);
    let seconds = given.next().and_then(|text| text.parse().ok()).unwrap_or(60);
    let seed = given
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed}, {seconds} s");
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut inputs, mut frames, mut decoded, mut refused) = (0u64, 0u64, 0u64, 0u64);
    let mut kept: Vec<Vec<u8>> = CORPUS.iter().copied().map(packet).collect();
    for (packet, index) in kept.iter().zip(0..) {
        assert!(
            fuzz_one(packet).decoded > 0,
            "packet {index} of the corpus is not legal"
        );
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    while inputs % 4_096 != 0 || Instant::now() < until {
        let mut input = kept[random.below(kept.len())].clone();
        mutate(&mut input, &mut random);
        inputs += 1;
        let Ok(fuzzed) = catch_unwind(AssertUnwindSafe(|| fuzz_one(&input))) else {
            println!("FOUND after {inputs} inputs of seed {seed}: {input:02x?}");
            return ExitCode::FAILURE;
        };
        frames += u64::from(fuzzed.frames);
        decoded += u64::from(fuzzed.decoded);
        refused += u64::from(fuzzed.refused);
        // What is legal in an odd way is built on.
        if fuzzed.decoded > 0 && random.below(64) == 0 {
            if kept.len() < 4_096 {
                kept.push(input);
            } else {
                let place = CORPUS.len() + random.below(kept.len() - CORPUS.len());
                kept[place] = input;
            }
        }
    }
    println!("{inputs} inputs, {frames} frames, {decoded} decoded, {refused} refused, no panic");
    ExitCode::SUCCESS
}
