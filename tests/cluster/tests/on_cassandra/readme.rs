//! README's trial of several nodes, run as it stands against the real binaries and a real Cassandra, in a network of its
//! own so that the ports of the README are free.

use std::process::Command;

use godwit_e2e::binaries::{Program, workspace};
use godwit_e2e::tour;

use crate::beside_another;

/// Ends with all that was started, and not later than this.
const AROUND: &str = r#"
set -uo pipefail
folder=$1; shift
for path in "$@"; do PATH=$(dirname "$path"):$PATH; done
cd "$folder"
ip link set lo up
trap 'kill -9 $(jobs -p) 2>/dev/null' EXIT
. ./several.sh
"#;

#[test]
fn three_nodes_by_the_commands_of_the_readme_go_on_when_one_is_killed() {
    let _beside = beside_another();
    for tool in ["curl", "jq", "mosquitto_pub", "mosquitto_sub", "unshare", "ip"] {
        let there = Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .output()
            .unwrap();
        assert!(
            there.status.success(),
            "the trial needs {tool}; ./dev test installs it"
        );
    }
    let readme = std::fs::read_to_string(workspace().join("README.md")).unwrap();
    let blocks = tour::blocks(&readme, "several").unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("several.sh"), tour::script(&blocks)).unwrap();
    std::fs::write(folder.path().join("around.sh"), AROUND).unwrap();
    let output = Command::new("timeout")
        .args(["--kill-after=10", "400", "unshare", "--net", "bash"])
        .arg(folder.path().join("around.sh"))
        .arg(folder.path())
        .arg(Program::Godwit.path().unwrap())
        .arg(Program::Cassandra.path().unwrap())
        .env_remove("CQL_NODES")
        .output()
        .unwrap();
    let said = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}\n--- printed:\n{printed}\n--- said:\n{}\n--- n1:\n{}\n--- n3:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
        said("n1.log"),
        said("n3.log"),
    );
    let times = |text: &str| printed.matches(text).count();
    // Once more at most what was acknowledged in the last moments before the kill.
    assert!(
        (1..=2).contains(&times("Have you seen the godwits?")),
        "{printed}"
    );
    // As it came, and as it was looked for.
    for text in ["They fly 11,000 km without a rest.", "Bar-tailed ones, that is."] {
        assert_eq!(times(text), 2, "{text}\n{printed}");
    }
}
