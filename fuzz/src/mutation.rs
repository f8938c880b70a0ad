//! Inputs out of other inputs: seeded, so that a finding can be had again. No coverage is measured; what leads on is the
//! corpus, a list of telling pieces, and that some of what was made is built on.

/// xorshift64*.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The same choices for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`; 0 if there is none.
    pub fn below(&mut self, end: usize) -> usize {
        match end {
            0 => 0,
            // The high half is the better one.
            end => ((self.next() >> 32) % end as u64) as usize,
        }
    }
}

/// Bytes that mean something: lengths, flags, ends of ranges, halves of UTF-8, wildcards, property identifiers.
const TELLING: &[u8] = &[
    0, 1, 2, 3, 4, 7, 8, 0x0b, 0x0f, 0x10, 0x11, 0x20, 0x21, 0x23, 0x26, b'\n', b' ', b'"', b'#', b'+', b',',
    b'/', b'0', b'9', b'@', b'\\', b'{', b'}', 0x7d, 0x7e, 0x7f, 0x80, 0x81, 0x82, 0xc0, 0xed, 0xf8, 0xfe,
    0xff,
];

/// Most inputs that are built on besides the corpus.
const GROWN: usize = 2_048;
/// One in so many inputs is built on.
const GROWS: usize = 64;

/// The inputs that others are made of.
#[derive(Debug)]
pub struct Pool {
    all: Vec<Vec<u8>>,
    corpus: usize,
    pieces: &'static [&'static [u8]],
    most: usize,
}

impl Pool {
    /// Starts with a corpus; `pieces` are put in now and then; inputs have at most `most` bytes.
    pub fn new(corpus: Vec<Vec<u8>>, pieces: &'static [&'static [u8]], most: usize) -> Self {
        let all = if corpus.is_empty() {
            vec![Vec::new()]
        } else {
            corpus
        };
        Self {
            corpus: all.len(),
            all,
            pieces,
            most,
        }
    }

    /// The next input.
    pub fn make(&mut self, random: &mut Random) -> Vec<u8> {
        let mut input = self.all[random.below(self.all.len())].clone();
        for _ in 0..=random.below(5) {
            self.mutate(&mut input, random);
        }
        input.truncate(self.most);
        if random.below(GROWS) == 0 {
            if self.all.len() < self.corpus + GROWN {
                self.all.push(input.clone());
            } else {
                let place = self.corpus + random.below(GROWN);
                self.all[place] = input.clone();
            }
        }
        input
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random) {
        let at = random.below(input.len());
        let end = (at + 1 + random.below(32)).min(input.len());
        match random.below(12) {
            0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
            1 if !input.is_empty() => input[at] = TELLING[random.below(TELLING.len())],
            2 if !input.is_empty() => {
                input[at] = input[at].wrapping_add(random.below(9) as u8).wrapping_sub(4)
            }
            3 => input.insert(at, random.below(256) as u8),
            4 if at < end => drop(input.drain(at..end)),
            5 if at < end => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            6 if !self.pieces.is_empty() => {
                let piece = self.pieces[random.below(self.pieces.len())];
                input.splice(at..at, piece.iter().copied());
            }
            7 => {
                let other = &self.all[random.below(self.all.len())];
                let from = random.below(other.len());
                let len = random.below(64).min(other.len() - from);
                let piece = other[from..from + len].to_vec();
                input.splice(at..at, piece);
            }
            8 => {
                let other = &self.all[random.below(self.all.len())];
                input.extend_from_slice(&other[random.below(other.len())..]);
            }
            9 if random.below(4) == 0 => input.truncate(at),
            10 if input.len() >= 2 => {
                let other = random.below(input.len());
                input.swap(at, other);
            }
            // The length of an MQTT packet is put right, so that what is behind it is reached.
            11 if input.len() >= 2 => {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs_and_another_seed_others() {
        let made = |seed| {
            let mut random = Random::new(seed);
            let mut pool = Pool::new(vec![b"abc".to_vec(), b"defg".to_vec()], &[b"piece"], 100);
            (0..1_000).map(|_| pool.make(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
        assert!(made(3).iter().all(|input| input.len() <= 100));
    }
}
