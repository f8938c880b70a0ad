//! The load: rows of pair messages in random order, and the meters. Knows no engine.

/// One row of a commit: partition (table and 16 or more bytes), clustering rest, value.
pub struct Row<'a> {
    pub part: &'a [u8],
    pub rest: &'a [u8],
    pub value: &'a [u8],
}

pub const CONVERSATIONS: u64 = 10_000;

/// Makes the rows of message after message. Deterministic: message `n` is the same in every run.
pub struct Load {
    rng: u64,
    pub made: u64,
    conv_seq: Vec<u64>,
    user_seq: Vec<u64>,
}

fn id(kind: u8, n: u64) -> [u8; 16] {
    let mut out = [0u8; 16];
    let h = xxhash_rust::xxh3::xxh3_128(&[&[kind][..], &n.to_le_bytes()].concat());
    out.copy_from_slice(&h.to_be_bytes());
    out
}

impl Load {
    pub fn new() -> Self {
        Self {
            rng: 0x9E37_79B9_7F4A_7C15,
            made: 0,
            conv_seq: vec![0; CONVERSATIONS as usize],
            user_seq: vec![0; 2 * CONVERSATIONS as usize],
        }
    }

    fn next(&mut self) -> u64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        self.rng
    }

    /// Hands the four rows of the next message to `put`.
    pub fn message(&mut self, mut put: impl FnMut(Row<'_>)) {
        let r = self.next();
        let conv = r % CONVERSATIONS;
        let sender = 2 * conv + ((r >> 32) & 1);
        self.made += 1;
        self.conv_seq[conv as usize] += 1;
        let seq = self.conv_seq[conv as usize];
        let conv_id = id(1, conv);
        let sender_id = id(2, sender);
        let view = 7u64.to_be_bytes();

        let mut part = [0u8; 17];
        let mut rest = [0u8; 16];
        part[0] = 1;
        part[1..].copy_from_slice(&conv_id);
        rest[..8].copy_from_slice(&view);
        rest[8..].copy_from_slice(&seq.to_be_bytes());
        let mut body = [0u8; 228]; // 128 B payload + 100 B envelope; two thirds do not compress
        let mut x = r | 1;
        for chunk in body[..152].chunks_mut(8) {
            x = x.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(r | 1);
            chunk.copy_from_slice(&x.to_le_bytes());
        }
        put(Row { part: &part, rest: &rest, value: &body });

        part[0] = 2;
        let mut client = [0u8; 32];
        client[..16].copy_from_slice(&sender_id);
        client[16..24].copy_from_slice(&x.to_le_bytes());
        client[24..].copy_from_slice(&self.made.to_le_bytes());
        put(Row { part: &part, rest: &client, value: &rest });

        part[0] = 3;
        let mut reference = [0u8; 40];
        reference[..16].copy_from_slice(&conv_id);
        reference[16..24].copy_from_slice(&seq.to_be_bytes());
        reference[24..].copy_from_slice(&client[16..32]);
        for user in [2 * conv, 2 * conv + 1] {
            self.user_seq[user as usize] += 1;
            part[1..].copy_from_slice(&id(2, user));
            rest[8..].copy_from_slice(&self.user_seq[user as usize].to_be_bytes());
            put(Row { part: &part, rest: &rest, value: &reference });
        }
    }
}

/// user + system CPU microseconds of this process so far.
pub fn cpu_us() -> u64 {
    let mut u: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut u) };
    let t = |v: libc::timeval| v.tv_sec as u64 * 1_000_000 + v.tv_usec as u64;
    t(u.ru_utime) + t(u.ru_stime)
}

fn proc_figure(file: &str, name: &str) -> u64 {
    std::fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .find_map(|l| l.strip_prefix(name).map(|v| v.trim().trim_end_matches(" kB").parse().unwrap_or(0)))
        .unwrap_or(0)
}

/// Bytes this process has handed to the block layer so far.
pub fn written() -> u64 {
    proc_figure("/proc/self/io", "write_bytes:")
}

/// Highest resident memory so far, KiB.
pub fn peak_kib() -> u64 {
    proc_figure("/proc/self/status", "VmHWM:")
}

/// Resident memory, KiB.
pub fn resident_kib() -> u64 {
    proc_figure("/proc/self/status", "VmRSS:")
}
