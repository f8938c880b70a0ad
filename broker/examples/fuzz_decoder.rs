//! Fuzzes the packet decoder for some seconds (60 unless told): packets of a small corpus, mutated, cut, joined and
//! stretched by a seeded generator, through framing, decoding and encoding back. Prints the seed and what it reached; a bug
//! is a panic. `FUZZ_SEED` repeats a run.

use std::time::{Duration, Instant, SystemTime};

use godwit_broker::codec::fuzz_one;

/// One packet of each kind and version, as clients send them.
const CORPUS: &[&[u8]] = &[
    // CONNECT 3.1.1 with will, name and password; CONNECT 5.0 with properties and a will with properties.
    b"\x10\x24\x00\x04MQTT\x04\xce\x00\x3c\x00\x02id\x00\x03w/t\x00\x02wp\x00\x03ann\x00\x08password",
    b"\x10\x3a\x00\x04MQTT\x05\xc6\x00\x3c\x11\x11\x00\x00\x0e\x10\x21\x00\x14\x26\x00\x01a\x00\x01b\x00\x02id\x05\x18\x00\x00\x00\x05\x00\x03w/t\x00\x02wp\x00\x03ann\x00\x06secret",
    // PUBLISH of each QoS, with and without properties.
    b"\x30\x07\x00\x03a/bhi",
    b"\x32\x09\x00\x03a/b\x00\x01hi",
    b"\x3d\x09\x00\x03a/b\x00\x02hi",
    b"\x32\x25\x00\x03a/b\x00\x01\x1a\x01\x01\x02\x00\x00\x00\x0a\x08\x00\x01r\x09\x00\x02cd\x26\x00\x01k\x00\x01vhello, hi",
    // Acknowledgements, short and long.
    b"\x40\x02\x00\x01",
    b"\x40\x04\x00\x01\x10\x00",
    b"\x50\x02\x00\x01",
    b"\x62\x02\x00\x01",
    b"\x70\x03\x00\x01\x92",
    // SUBSCRIBE and UNSUBSCRIBE.
    b"\x82\x08\x00\x01\x00\x03a/b\x01",
    b"\x82\x0f\x00\x01\x02\x0b\x07\x00\x03a/b\x2d\x00\x01#\x00",
    b"\xa2\x07\x00\x01\x00\x03a/b",
    // PINGREQ, DISCONNECT, AUTH.
    b"\xc0\x00",
    b"\xe0\x00",
    b"\xe0\x07\x04\x05\x11\x00\x00\x00\x05",
    b"\xf0\x00",
];

/// xorshift64*: repeatable, and good enough to choose bytes.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        // The modulus bounds it by a usize.
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % below.max(1) as u64) as usize
    }
}

fn mutate(input: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(input.len() + 1);
        match dice.roll(7) {
            0 if at < input.len() => input[at] = dice.roll(256) as u8,
            1 if at < input.len() => input[at] ^= 1 << dice.roll(8),
            2 => input.insert(at, dice.roll(256) as u8),
            3 if at < input.len() => drop(input.remove(at)),
            4 => input.truncate(at),
            5 => input.extend_from_slice(CORPUS[dice.roll(CORPUS.len())]),
            6 if at < input.len() => {
                let copy = input[at..].to_vec();
                input.extend_from_slice(&copy);
            }
            _ => {}
        }
    }
    input.truncate(4_096);
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(60);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or(u64::try_from(now.as_nanos()).unwrap_or(1)).max(1);
    eprintln!("fuzzing the decoder for {seconds} s, seed {seed}");
    let (mut dice, began) = (Dice(seed), Instant::now());
    let (mut inputs, mut frames, mut decoded, mut refused) = (0u64, 0u64, 0u64, 0u64);
    let mut input = Vec::new();
    while began.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..1_000 {
            // Half of the inputs grow out of the one before, so that mutations add up.
            if dice.roll(2) == 0 || input.is_empty() {
                input = CORPUS[dice.roll(CORPUS.len())].to_vec();
            }
            mutate(&mut input, &mut dice);
            let fuzzed = fuzz_one(&input);
            inputs += 1;
            frames += u64::from(fuzzed.frames);
            decoded += u64::from(fuzzed.decoded);
            refused += u64::from(fuzzed.refused);
        }
    }
    eprintln!("{inputs} inputs: {frames} frames, {decoded} packets decoded, {refused} refused, no panic");
    assert!(decoded > 0 && refused > 0, "the fuzzer reaches nothing");
}
