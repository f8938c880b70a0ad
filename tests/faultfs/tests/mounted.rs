//! The layer proved through a real mount, on a program that syncs and on one that does not. A machine without FUSE
//! fails these tests with a clear line; none is skipped.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use godwit_faultfs::{order, probe};
use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_godwit-faultfs");

/// A mount served by the real binary; it ends when this is dropped.
struct Mounted {
    child: Child,
    stdin: Option<ChildStdin>,
    folder: TempDir,
}

impl Mounted {
    fn start(extra: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["backing", "mount"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self::serve(folder, extra)
    }

    fn serve(folder: TempDir, extra: &[&str]) -> Self {
        let path = |name: &str| folder.path().join(name);
        let mut child = Command::new(BINARY)
            .arg("mount")
            .args(["--seed", "7", "--until-stdin-ends", "--backing"])
            .arg(path("backing"))
            .arg("--mount")
            .arg(path("mount"))
            .arg("--control")
            .arg(path("control"))
            .args(extra)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        if !line.starts_with("serving ") {
            let mut error = String::new();
            child.stderr.as_mut().unwrap().read_to_string(&mut error).unwrap();
            panic!("the file layer does not serve here: {error}");
        }
        let stdin = child.stdin.take();
        Self { child, stdin, folder }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    fn order(&self, line: &str) -> Value {
        order(&self.folder.path().join("control"), line).unwrap()
    }

    /// Unmounts in order and serves the same backing folder again.
    fn again(mut self) -> Self {
        self.order("shutdown");
        self.child.wait().unwrap();
        let folder = std::mem::replace(&mut self.folder, TempDir::new().unwrap());
        Self::serve(folder, &[])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// Runs the probe until it has acknowledged `records`, then kills it -9.
fn probe_and_kill(dir: &Path, records: u64, sync: &str) {
    let mut child = Command::new(BINARY)
        .args([
            "probe",
            "write",
            "--stay",
            "--sync",
            sync,
            "--records",
            &records.to_string(),
            "--dir",
        ])
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(out.lines().take(records as usize).count() as u64, records);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn found(dir: &Path) -> probe::Found {
    probe::check(dir, 1000).unwrap()
}

#[test]
fn a_program_that_syncs_each_record_loses_none() {
    let mounted = Mounted::start(&[]);
    probe_and_kill(&mounted.dir(), 300, "each");
    for mode in ["drop", "torn", "partial"] {
        mounted.order(&format!("power-loss {mode}"));
        assert_eq!(found(&mounted.dir()).prefix, 300, "after {mode}");
    }
    let mounted = mounted.again();
    assert_eq!(found(&mounted.dir()).prefix, 300, "served again");
}

#[test]
fn a_program_that_does_not_sync_loses_all() {
    let mounted = Mounted::start(&[]);
    probe_and_kill(&mounted.dir(), 300, "none");
    assert_eq!(
        found(&mounted.dir()).prefix,
        300,
        "before the loss everything is there"
    );
    let loss = mounted.order("power-loss drop");
    assert_eq!(loss["names_dropped"], 1);
    assert_eq!(
        found(&mounted.dir()),
        probe::Found {
            prefix: 0,
            whole: 0,
            broken: 0,
            rest: 0
        }
    );
    assert!(!mounted.dir().join("records").exists());
}

#[test]
fn what_came_after_the_last_sync_is_lost_and_nothing_before_it() {
    let mounted = Mounted::start(&[]);
    probe_and_kill(&mounted.dir(), 50, "each");
    probe_and_kill(&mounted.dir(), 50, "none");
    mounted.order("power-loss drop");
    let found = found(&mounted.dir());
    assert_eq!((found.prefix, found.broken, found.rest), (50, 0, 0));
}

#[test]
fn a_torn_loss_leaves_records_behind_a_broken_one_and_repeats_with_its_seed() {
    let mut torn = 0;
    for seed in 0..8 {
        let results: Vec<_> = (0..2)
            .map(|_| {
                let mounted = Mounted::start(&[]);
                // The name is durable, the first 10 records too, the other 40 not.
                probe_and_kill(&mounted.dir(), 10, "each");
                let mut file = OpenOptions::new()
                    .append(true)
                    .open(mounted.dir().join("records"))
                    .unwrap();
                let whole = tempfile::tempdir().unwrap();
                probe::write(whole.path(), 50, 1000, probe::Sync::None, |_| Ok(())).unwrap();
                file.write_all(&fs::read(whole.path().join("records")).unwrap()[10_000..])
                    .unwrap();
                drop(file);
                let loss = mounted.order(&format!("power-loss torn {seed}"));
                (found(&mounted.dir()), loss["sectors_dropped"].clone())
            })
            .collect();
        assert_eq!(results[0], results[1], "seed {seed} repeats");
        let found = &results[0].0;
        assert!(found.prefix >= 10, "synced records stay: {found:?}");
        torn += u32::from(found.broken > 0 && found.whole > found.prefix);
    }
    assert!(torn >= 2, "only {torn} of 8 seeds tore a record in the middle");
}

#[test]
fn a_partial_loss_cuts_the_last_write_short() {
    let mounted = Mounted::start(&[]);
    probe_and_kill(&mounted.dir(), 10, "each");
    probe_and_kill(&mounted.dir(), 1, "none"); // carries number 0, so it is broken as record 10, but its length tells
    let before = fs::metadata(mounted.dir().join("records")).unwrap().len();
    assert_eq!(before, 11_000);
    mounted.order("power-loss partial 3");
    let after = fs::metadata(mounted.dir().join("records")).unwrap().len();
    assert!((10_000..11_000).contains(&after), "{after}");
    assert_eq!(found(&mounted.dir()).prefix, 10);
}

#[test]
fn ordered_errors_reach_the_program_and_end_in_time() {
    let mounted = Mounted::start(&[]);
    let file = File::create(mounted.dir().join("f")).unwrap();
    file.write_all_at(b"before", 0).unwrap();
    for (name, code) in [("EIO", 5), ("ENOSPC", 28)] {
        mounted.order(&format!("fail write {name}"));
        assert_eq!(file.write_all_at(b"x", 0).unwrap_err().raw_os_error(), Some(code));
        assert_eq!(
            File::create(mounted.dir().join("g")).unwrap_err().raw_os_error(),
            Some(code)
        );
        file.sync_all().unwrap();
        mounted.order("fail off");
        mounted.order(&format!("fail sync {name} for 200"));
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(code));
        file.write_all_at(b"x", 0).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(250));
        file.sync_data().unwrap();
    }
    let status = mounted.order("status");
    assert_eq!(
        (&status["failed_writes"], &status["failed_syncs"]),
        (&4.into(), &2.into())
    );
}

#[test]
fn what_a_failed_sync_should_have_carried_is_not_carried_by_the_next_unless_kept() {
    for (keep, survives) in [("", false), (" keep", true)] {
        let mounted = Mounted::start(&[]);
        let path = mounted.dir().join("f");
        let file = File::create(&path).unwrap();
        File::open(mounted.dir()).unwrap().sync_all().unwrap();
        file.write_all_at(b"old", 0).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(b"new", 0).unwrap();
        mounted.order(&format!("fail sync EIO{keep}"));
        file.sync_data().unwrap_err();
        mounted.order("fail off");
        file.sync_data().unwrap();
        drop(file);
        mounted.order("power-loss drop");
        assert_eq!(fs::read(&path).unwrap() == b"new", survives, "{keep}");
    }
}

#[test]
fn a_full_disk_refuses_growth_but_not_overwriting_and_recovers() {
    let mounted = Mounted::start(&[]);
    let path = mounted.dir().join("journal");
    let file = File::create(&path).unwrap();
    file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
    mounted.order("space 65536 1000000000");
    let stat = rustix::fs::statvfs(mounted.dir()).unwrap();
    assert_eq!(stat.f_bavail * stat.f_frsize, 65_536);
    assert!((stat.f_blocks * stat.f_frsize).abs_diff(1_000_000_000) < 4096);
    file.write_all_at(&[2; 4096], 0).unwrap();
    file.write_all_at(&[2; 40_960], 1 << 20).unwrap();
    let refused = file.write_all_at(&[2; 40_960], (1 << 20) + 40_960).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(28));
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 2 << 20).unwrap_err();
    drop(file);
    fs::remove_file(&path).unwrap();
    fs::write(mounted.dir().join("other"), vec![3; 1 << 20]).unwrap();
    mounted.order("space real");
    fs::write(mounted.dir().join("other"), vec![3; 4 << 20]).unwrap();
}

#[test]
fn what_an_engine_and_an_index_use_works() {
    let mounted = Mounted::start(&[]);
    let dir = mounted.dir();
    fs::create_dir_all(dir.join("a/b")).unwrap();
    let file = OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .open(dir.join("a/b/one"))
        .unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    file.write_all_at(b"hello", 500_000).unwrap();
    file.sync_all().unwrap();
    let mut five = [0; 5];
    file.read_exact_at(&mut five, 500_000).unwrap();
    assert_eq!(&five, b"hello");
    file.set_len(600_000).unwrap();
    fs::hard_link(dir.join("a/b/one"), dir.join("a/two")).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::nlink(&fs::metadata(dir.join("a/two")).unwrap()),
        2
    );
    fs::rename(dir.join("a/two"), dir.join("three")).unwrap();
    fs::remove_file(dir.join("a/b/one")).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::nlink(&fs::metadata(dir.join("three")).unwrap()),
        1
    );
    assert_eq!(fs::metadata(dir.join("three")).unwrap().len(), 600_000);
    assert_eq!(fs::read_dir(dir.join("a/b")).unwrap().count(), 0);
    fs::remove_dir(dir.join("a/b")).unwrap();
    assert_eq!(
        fs::remove_dir(dir.join("nothing")).unwrap_err().kind(),
        std::io::ErrorKind::NotFound
    );
    let names: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "the graveyard does not show: {names:?}");
    file.try_lock().unwrap();
    let other = OpenOptions::new().write(true).open(dir.join("three")).unwrap();
    assert!(other.try_lock().is_err(), "a lock held elsewhere is seen");
    for number in 0..200 {
        fs::write(dir.join(format!("a/{number}")), number.to_string()).unwrap();
    }
    assert_eq!(fs::read_dir(dir.join("a")).unwrap().count(), 200);
}

#[test]
#[allow(unsafe_code)] // a mapping of a file that nobody truncates meanwhile
fn files_can_be_mapped_for_reading_and_show_new_content_after_a_power_loss() {
    let mounted = Mounted::start(&[]);
    let path = mounted.dir().join("segment");
    fs::write(&path, vec![7; 100_000]).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    File::open(mounted.dir()).unwrap().sync_all().unwrap();
    let map = |path: &Path| unsafe { memmap2::Mmap::map(&File::open(path).unwrap()).unwrap() };
    let mapped = map(&path);
    assert!(mapped.iter().all(|byte| *byte == 7));
    drop(mapped);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[8; 50_000], 0).unwrap();
    assert_eq!(map(&path)[0], 8);
    drop(file);
    mounted.order("power-loss drop");
    assert!(
        map(&path).iter().all(|byte| *byte == 7),
        "nothing cached shows through"
    );
}

#[test]
fn a_program_that_lived_through_the_power_loss_can_write_no_more() {
    let mounted = Mounted::start(&[]);
    let file = File::create(mounted.dir().join("f")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    mounted.order("cut");
    assert_eq!(file.write_all_at(b"y", 0).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    mounted.order("power-loss drop");
    assert!(file.write_all_at(b"z", 0).is_err());
    assert!(file.sync_data().is_err());
    assert_eq!(fs::read_dir(mounted.dir()).unwrap().count(), 0);
}

#[test]
fn an_order_nobody_knows_is_refused_and_changes_nothing() {
    let mounted = Mounted::start(&[]);
    let control = mounted.folder.path().join("control");
    for line in [
        "",
        "power-loss sideways",
        "fail write EAGAIN",
        "fail read EIO",
        "space lots",
        "explode",
    ] {
        assert!(order(&control, line).is_err(), "{line}");
    }
    assert_eq!(mounted.order("status")["power_losses"], 0);
}
