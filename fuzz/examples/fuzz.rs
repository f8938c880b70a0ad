//! Runs a target: `fuzz TARGET [SECONDS [SEED [INPUTS]]]` for so long, or until so many inputs; without a target it
//! lists them. `fuzz TARGET FILE...` runs kept inputs and says of each whether it passes. The committed corpus first, then what is made of it. Fails on a panic, on an input that takes over 10 s,
//! and when the process grows; the input is kept under `target/fuzz-found/` and said.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use godwit_fuzz::mutation::{Pool, Random};

/// An input that takes longer is a hang.
const HANG: Duration = Duration::from_secs(10);
/// Inputs after which the process has the size from which growth counts: pools and arenas are filled by then.
const WARM_UP: u64 = 20_000;
/// What the process may grow by from then on, KiB: a leak of 8 bytes an input shows within 10^7 inputs.
const GROWTH_KIB: u64 = 64 << 10;

/// A part that is fuzzed.
struct Target {
    name: &'static str,
    run: fn(&[u8]),
    /// Put into inputs now and then.
    pieces: &'static [&'static [u8]],
    /// Most bytes of an input: longer ones reach nothing new.
    most: usize,
}

const TARGETS: &[Target] = &[
    Target {
        name: "decoder",
        run: |bytes| _ = godwit_broker::codec::fuzz_one(bytes),
        pieces: &[
            b"\0\x04MQTT\x05",
            b"\0\x04MQTT\x04",
            b"\x26\0\x01a\0\x01b",
            b"\x82\x08\0\x01\0\0\x03a/#\x01",
        ],
        most: 600,
    },
    Target {
        name: "sessions",
        run: godwit_broker::fuzz::sessions,
        pieces: &[
            // CONNECT, SUBSCRIBE, PUBLISH, acknowledgement, drop, time, hold and go on, crash.
            b"\0\0\0\0",
            b"\0\x01\x01\0",
            b"\x09\0\x10\x13\0",
            b"\x09\0\x10\x27\0",
            b"\x03\x01\x01\0",
            b"\x03\x01\x02\xc0",
            b"\x0d\0\0",
            b"\x15\0\0",
            b"\x16\0\x03",
            b"\x17\0\0",
            b"\x17\0\x01",
            b"\x18\0\x02",
            b"\x1d\0\0",
            b"\x12\0\0",
        ],
        most: 500,
    },
    Target {
        name: "topics",
        run: godwit_fuzz::topics,
        pieces: &[
            b"\n@",
            b"\nD",
            b"\nE",
            b"\nB",
            b"/+",
            b"/#",
            b"me/inbox",
            b"$share/g/",
            b"c/@bob/send/json",
            b"%u",
            b"%c",
        ],
        most: 1_000,
    },
    Target {
        name: "json",
        run: godwit_fuzz::json,
        pieces: &[
            b"\"content_type\":\"encrypted\"",
            b"\"content\":\"",
            b"\"type\":\"message\"",
            b"\\u0000",
            b"\\ud800",
            b"null",
            b"1e400",
            b"18446744073709551616",
            b"-0",
            b"[[[[",
            b"{\"a\":",
            b"1c6b2f0e-3a57-8d21-9e04-5b7a6c8d9e0f",
            b"2026-01-02T03:04:05.678Z",
            b"\"reply_to\":",
            b"\"client_message_id\":\"",
        ],
        most: 2_000,
    },
    Target {
        name: "proxy",
        run: godwit_fuzz::proxy,
        pieces: &[
            b"PROXY TCP4 ",
            b"PROXY UNKNOWN",
            b"\r\n",
            b"\r\n\r\n\0\r\nQUIT\n",
            b"\x21\x11\0\x0c",
            b"255.255.255.255",
            b"::ffff:1.2.3.4",
            b"65536",
        ],
        most: 600,
    },
    Target {
        name: "websocket",
        run: godwit_broker::fuzz::websocket,
        pieces: &[
            b"\x82\x85\0\0\0\0hello",
            b"\x89\x80\0\0\0\0",
            b"\x02\x81\x01\x02\x03\x04a",
            b"\x80\xfe\x10\0\0\0\0\0",
            b"\x88\x80\0\0\0\0",
        ],
        most: 400,
    },
];

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    let read = |path: PathBuf| std::fs::read(&path).ok().map(|bytes| (path, bytes));
    files.into_iter().filter_map(read).collect()
}

/// What the watch sees of a run.
struct Run {
    started: Instant,
    /// When the present input began, microseconds since the start; 0: none.
    began: AtomicU64,
    input: Mutex<Vec<u8>>,
}

impl Run {
    /// Runs an input. Gives how long it took, or what it found.
    fn one(&self, target: &Target, input: &[u8]) -> Result<Duration, String> {
        if let Ok(mut kept) = self.input.lock() {
            kept.clear();
            kept.extend_from_slice(input);
        }
        let began = Instant::now();
        let since_start = began.duration_since(self.started).as_micros();
        self.began.store(
            u64::try_from(since_start).unwrap_or(u64::MAX).max(1),
            Ordering::Release,
        );
        let done = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        self.began.store(0, Ordering::Release);
        match done {
            Ok(()) => Ok(began.elapsed()),
            Err(_) => Err(found(target.name, "a panic", input)),
        }
    }

    /// Ends the process when an input hangs.
    fn watch(self: Arc<Self>, target: &'static str) {
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let began = Duration::from_micros(self.began.load(Ordering::Acquire));
            if !began.is_zero() && self.started.elapsed() > began + HANG {
                let input = self.input.lock().map(|kept| kept.clone()).unwrap_or_default();
                eprintln!("{}", found(target, "a hang", &input));
                std::process::exit(1);
            }
        }
    }
}

/// Keeps an input that found something.
fn found(target: &str, what: &str, input: &[u8]) -> String {
    let digest = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz-found");
    let path = folder.join(format!("{target}-{digest:016x}"));
    let kept = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input));
    let kept = kept.map_or_else(|error| error.to_string(), |()| path.display().to_string());
    format!(
        "FOUND {what} in {target}, kept as {kept}: {}",
        input.escape_ascii()
    )
}

/// What the process holds, KiB; 0 where the system does not say.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Fuzzes for so long, and until so many inputs at most. `Err`: what was found.
fn fuzz(target: &'static Target, time: Duration, seed: u64, most: u64) -> Result<String, String> {
    let run = Arc::new(Run {
        started: Instant::now(),
        began: AtomicU64::new(0),
        input: Mutex::default(),
    });
    let watch = run.clone();
    std::thread::spawn(move || watch.watch(target.name));
    let (mut worst, mut base_kib) = (Duration::ZERO, 0);
    let corpus: Vec<Vec<u8>> = corpus(target.name).into_iter().map(|(_, bytes)| bytes).collect();
    for input in &corpus {
        worst = worst.max(run.one(target, input)?);
    }
    let (mut inputs, files) = (corpus.len() as u64, corpus.len());
    let (mut random, mut pool) = (Random::new(seed), Pool::new(corpus, target.pieces, target.most));
    while inputs < most && run.started.elapsed() < time {
        let input = pool.make(&mut random);
        worst = worst.max(run.one(target, &input)?);
        inputs += 1;
        if inputs == WARM_UP {
            base_kib = resident_kib();
        } else if inputs > WARM_UP && inputs.is_multiple_of(4_096) {
            let grown = resident_kib().saturating_sub(base_kib);
            if grown > GROWTH_KIB {
                return Err(format!(
                    "FOUND growth in {}: {grown} KiB since input {WARM_UP}",
                    target.name
                ));
            }
        }
    }
    let seconds = run.started.elapsed().as_secs_f64();
    let grown = if base_kib == 0 {
        0
    } else {
        resident_kib().saturating_sub(base_kib)
    };
    Ok(format!(
        "{}: seed {seed}, {files} of the corpus, {inputs} inputs in {seconds:.0} s ({:.0} a second), worst {:.1} ms, \
         {grown} KiB grown, nothing found",
        target.name,
        inputs as f64 / seconds,
        worst.as_secs_f64() * 1_000.0,
    ))
}

/// Runs kept inputs. `true`: all pass.
#[allow(clippy::print_stdout)]
fn replay(target: &Target, files: &[String]) -> bool {
    let mut all = true;
    for file in files {
        let said = match std::fs::read(file) {
            Err(error) => error.to_string(),
            Ok(bytes) => match catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes))) {
                Ok(()) => "passes".to_owned(),
                Err(_) => "a panic".to_owned(),
            },
        };
        all &= said == "passes";
        println!("{file}: {said}");
    }
    all
}

#[allow(clippy::print_stdout)]
fn main() -> ExitCode {
    let mut given = std::env::args().skip(1);
    let Some(name) = given.next() else {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        return ExitCode::SUCCESS;
    };
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        eprintln!("there is no target {name}");
        return ExitCode::FAILURE;
    };
    let files: Vec<String> = std::env::args().skip(2).collect();
    if files.iter().any(|file| file.parse::<u64>().is_err()) {
        return match replay(target, &files) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        };
    }
    let mut number = || given.next().and_then(|text| text.parse::<u64>().ok());
    let seconds = number().unwrap_or(60);
    let seed = number().unwrap_or_else(|| u64::from(std::process::id()));
    let most = number().unwrap_or(u64::MAX);
    match fuzz(target, Duration::from_secs(seconds), seed, most) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(found) => {
            println!("{name}: seed {seed}: {found}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_corpus_goes_through_its_target() {
        for target in TARGETS {
            let files = corpus(target.name);
            assert!(!files.is_empty(), "{} has a corpus", target.name);
            for (path, bytes) in files {
                let done = catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes)));
                assert!(done.is_ok(), "{} finds something", path.display());
            }
        }
    }

    #[test]
    fn a_target_that_panics_is_found_and_its_input_said() {
        let target = Target {
            name: "none",
            run: |bytes| assert!(!bytes.contains(&b'!'), "planted"),
            pieces: &[b"!"],
            most: 10,
        };
        let found = fuzz(Box::leak(Box::new(target)), Duration::from_secs(60), 1, 1_000_000);
        assert!(found.is_err_and(|found| found.contains('!') && found.contains("a panic in none")));
    }
}
