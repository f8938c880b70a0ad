//! README's tour, run as it stands against the real binary, in a network of its own so that the ports of the README are
//! free.

use std::path::Path;
use std::process::Command;

use godwit_e2e::binaries::{Program, workspace};
use godwit_e2e::tour;

/// Starts the node, waits for it, runs the tour, kills -9, starts again and asks for what must still be there.
const AROUND: &str = r#"
set -euo pipefail
godwit=$1; folder=$2
cd "$folder"
serve() {
  "$godwit" serve >>server.log 2>&1 & server=$!
  for _ in $(seq 600); do curl -fsS -o /dev/null http://127.0.0.1:8080/readyz 2>/dev/null && return; sleep 0.1; done
  echo 'the server was not ready in a minute' >&2; cat server.log >&2; exit 1
}
trap 'kill -9 $server 2>/dev/null || true' EXIT
serve
bash tour.sh
kill -9 $server; wait $server 2>/dev/null || true
serve
echo '== after kill -9' >&2
api=http://127.0.0.1:8080/api/v1
token=$(curl -fsS $api/auth/login -H 'content-type: application/json' -d '{"username": "bob", "password": "horse staple bob"}' | jq -r .access_token)
curl -fsS "$api/search?query=godwits" -H "authorization: Bearer $token" | jq -e '.results | length >= 1'
kill -TERM $server; wait $server
"#;

fn run(isolated: bool, godwit: &Path, folder: &Path) -> std::process::Output {
    let mut command = Command::new("timeout");
    command.arg("180");
    if isolated {
        command.args([
            "unshare",
            "--net",
            "bash",
            "-c",
            "ip link set lo up && exec bash \"$@\"",
            "-",
        ]);
    } else {
        command.arg("bash");
    }
    command.arg(folder.join("around.sh")).arg(godwit).arg(folder);
    command.output().expect("timeout and bash are there")
}

#[test]
fn the_tour_of_the_readme_works_as_it_stands() {
    for tool in ["curl", "jq", "mosquitto_pub", "mosquitto_sub"] {
        let there = Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .output()
            .unwrap();
        assert!(
            there.status.success(),
            "the tour needs {tool}; ./dev test installs it"
        );
    }
    let readme = std::fs::read_to_string(workspace().join("README.md")).unwrap();
    let blocks = tour::blocks(&readme, "tour").unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tour.sh"), tour::script(&blocks)).unwrap();
    std::fs::write(folder.path().join("around.sh"), AROUND).unwrap();
    let godwit = Program::Godwit.path().unwrap();
    let can_isolate = Command::new("unshare")
        .args(["--net", "ip", "link", "set", "lo", "up"])
        .output()
        .is_ok_and(|output| output.status.success());
    let output = run(can_isolate, &godwit, folder.path());
    let log = std::fs::read_to_string(folder.path().join("server.log")).unwrap_or_default();
    assert!(
        output.status.success(),
        "{}\n--- printed:\n{}\n--- said:\n{}\n--- server:\n{log}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("Have you seen the godwits?"), "{printed}");
}
