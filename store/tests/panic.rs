//! A bug in the committer ends the process (this test binary again) instead of leaving writes without an answer.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use godwit_store::embedded::{Embedded, Faults, Options};
use godwit_store::testsuite::{Port, append, submit};
use godwit_store::{Batch, Scope};
use tempfile::TempDir;

const DATA: &str = "GODWIT_STORE_TEST_DATA";
const SIGABRT: i32 = 6;

/// Stands for a bug in the committer.
#[derive(Default)]
struct Bug(AtomicBool);

impl Faults for Bug {
    fn write(&self, _: usize) -> Result<(), (usize, std::io::Error)> {
        assert!(!self.0.load(SeqCst), "the planned bug");
        Ok(())
    }
}

#[test]
#[ignore = "the process under test; started by the other"]
fn process_with_a_bug() {
    let bug = Arc::new(Bug::default());
    let options = Options {
        faults: bug.clone(),
        ..Options::default()
    };
    let data = std::env::var(DATA).expect("a folder");
    let store = Embedded::open(Path::new(&data), options).expect("opened");
    let done = Port::register(&store, 1);
    bug.0.store(true, SeqCst);
    submit(
        &store,
        Batch {
            port: 1,
            ticket: 1,
            scope: Scope::default(),
            ops: vec![append(1, 1, "x")],
        },
    );
    let _ = done.recv_timeout(Duration::from_secs(5));
}

#[test]
fn a_panic_of_the_committer_ends_the_process_and_the_next_start_works() {
    let dir = TempDir::new().expect("folder");
    let status = Command::new(std::env::current_exe().expect("this test"))
        .args(["process_with_a_bug", "--exact", "--ignored"])
        .env(DATA, dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("started");
    assert_eq!(status.signal(), Some(SIGABRT), "{status}");
    Embedded::open(dir.path(), Options::default()).expect("opened");
}
