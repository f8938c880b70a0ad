//! Trial of the embedded engines on pair messages. `trial run ENGINE DIR [MESSAGES] [PER_SYNC]` fills and dies by kill -9;
//! `trial open ENGINE DIR` measures the re-open; `trial hurt torn|middle ENGINE DIR` damages the newest journal.
//! Engines: fjall, redb, journal, journal+fjall, journal+lsm, journal+redb.

mod engines;
mod journal;
mod load;

use std::path::{Path, PathBuf};
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let arg = |i: usize| args.get(i).map(String::as_str).unwrap_or_default();
    match arg(1) {
        "run" => run(arg(2), Path::new(arg(3)), arg(4).parse().unwrap_or(1_000_000), arg(5).parse().unwrap_or(256)),
        "open" => {
            let t = Instant::now();
            match engines::open(arg(2), Path::new(arg(3))) {
                Ok(e) => {
                    println!("{}: opened in {:.3} s, peak {} MiB", arg(2), t.elapsed().as_secs_f64(), load::peak_kib() >> 10);
                    println!("  rows {}", e.count());
                }
                Err(e) => println!("{}: REFUSED after {:.3} s: {e}", arg(2), t.elapsed().as_secs_f64()),
            }
            unsafe { libc::_exit(0) };
        }
        "hurt" => hurt(arg(2), arg(3), Path::new(arg(4))),
        _ => eprintln!("trial run|open|hurt …"),
    }
}

fn run(engine: &str, dir: &Path, messages: u64, per_sync: u64) {
    let mut e = engines::open(engine, dir).unwrap();
    let mut load = load::Load::new();
    // the load's own cost, to be taken off
    let (c0, mut probe) = (load::cpu_us(), load::Load::new());
    for _ in 0..100_000 {
        probe.message(|r| {
            std::hint::black_box(r.value);
        });
    }
    let own = (load::cpu_us() - c0) as f64 / 100_000.0;
    let (cpu, io, t) = (load::cpu_us(), load::written(), Instant::now());
    let mut worst = 0.0f64;
    while load.made < messages {
        for _ in 0..per_sync {
            load.message(|row| e.put(&row));
        }
        let c = Instant::now();
        e.commit();
        worst = worst.max(c.elapsed().as_secs_f64());
    }
    let wall = t.elapsed().as_secs_f64();
    let busy = load::cpu_us() - cpu;
    if std::env::var_os("TRIAL_NO_SETTLE").is_none() {
        e.settle();
    }
    let total = load::cpu_us() - cpu;
    let n = load.made as f64;
    println!(
        "{engine}: {} messages, CPU {:.2} us/message ({:.2} before settling), {:.0} messages/s, worst commit {:.0} ms, {:.0} B written/message, peak {} MiB",
        load.made,
        total as f64 / n - own,
        busy as f64 / n - own,
        n / wall,
        worst * 1e3,
        (load::written() - io) as f64 / n,
        load::peak_kib() >> 10
    );
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

/// The newest journal of the engine: its last written byte is found by looking for the last byte that is not zero.
fn hurt(how: &str, engine: &str, dir: &Path) {
    let (folder, ext) = match engine {
        "fjall" => (dir.join("fjall"), "jnl"),
        "redb" => (dir.to_path_buf(), "redb"),
        _ => (dir.join("journal"), "jnl"),
    };
    let mut files: Vec<PathBuf> = walk(&folder).into_iter().filter(|p| p.extension().is_some_and(|e| e == ext)).collect();
    files.sort();
    let file = files.pop().expect("a journal");
    let mut data = std::fs::read(&file).unwrap();
    let end = data.iter().rposition(|b| *b != 0).map_or(0, |p| p + 1);
    match how {
        "torn" => data[end.saturating_sub(4096)..end].fill(0),
        "middle" => data[end / 2] ^= 0x55,
        _ => panic!("torn or middle"),
    }
    std::fs::write(&file, &data).unwrap();
    println!("{engine}: {how} in {} ({end} bytes used)", file.file_name().unwrap().to_string_lossy());
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for e in std::fs::read_dir(dir).unwrap() {
        let p = e.unwrap().path();
        if p.is_dir() { out.extend(walk(&p)) } else { out.push(p) }
    }
    out
}
