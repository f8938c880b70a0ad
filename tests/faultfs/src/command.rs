//! The orders of the control socket: one line each, one line of JSON back, `{"ok":true,…}` or `{"ok":false,"error":…}`.
//! Also the caller's side. What an order does is in the layer.
//!
//! | order | what |
//! |---|---|
//! | `power-loss [drop\|torn\|partial] [SEED]` | loses what is not synced; kill the program first, or `cut` |
//! | `cut` | every call fails with EIO until the power loss |
//! | `fail write EIO\|ENOSPC [for MS]` | writes, creates, truncations and preallocations fail |
//! | `fail sync EIO\|ENOSPC [for MS] [keep]` | syncs fail, and like on Linux a later sync does not carry what this one should have; with `keep` it does |
//! | `fail off` | nothing fails |
//! | `space FREE [TOTAL]`, `space real` | the disk claims so many bytes free, of TOTAL |
//! | `sync-all` | everything counts as synced |
//! | `status` | counters and what is unsynced |
//! | `shutdown` | unmounts and ends |

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::faults::Answer;
use crate::layer::Layer;
use crate::loss::Mode;

/// How long a caller waits for an answer; a power loss over gigabytes takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Does what the line says and tells in JSON what came of it.
pub(crate) fn run(layer: &Layer, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    match obey(layer, &words) {
        Ok(mut value) => {
            if let Some(object) = value.as_object_mut() {
                object.insert("ok".to_owned(), Value::Bool(true));
            }
            value.to_string()
        }
        Err(error) => json!({"ok": false, "error": error}).to_string(),
    }
}

fn obey(layer: &Layer, words: &[&str]) -> Result<Value, String> {
    let done = json!({});
    match words {
        ["power-loss", rest @ ..] => {
            let mode = rest.first().map_or(Ok(Mode::Drop), |word| Mode::from_str(word))?;
            let seed = rest.get(1).map(|word| number(word)).transpose()?;
            let loss = layer.power_loss(mode, seed).map_err(|e| e.to_string())?;
            serde_json::to_value(loss).map_err(|e| e.to_string())
        }
        ["cut"] => {
            layer.cut();
            Ok(done)
        }
        ["fail", "off"] => {
            layer.faults.off();
            Ok(done)
        }
        ["fail", what, answer, rest @ ..] => fail(layer, what, answer, rest).map(|()| done),
        ["space", "real"] => {
            layer.faults.real_space();
            Ok(done)
        }
        ["space", free, rest @ ..] => {
            let total = rest.first().map(|word| number(word)).transpose()?;
            layer.faults.claim_space(number(free)?, total);
            Ok(done)
        }
        ["sync-all"] => layer.sync_all().map(|()| done).map_err(|e| e.to_string()),
        ["status"] => serde_json::to_value(layer.status()).map_err(|e| e.to_string()),
        ["shutdown"] => Ok(done),
        _ => Err(format!("unknown order `{}`", words.join(" "))),
    }
}

fn fail(layer: &Layer, what: &str, answer: &str, rest: &[&str]) -> Result<(), String> {
    let answer = match answer.to_ascii_uppercase().as_str() {
        "EIO" => Answer::Eio,
        "ENOSPC" => Answer::Enospc,
        _ => return Err(format!("`{answer}` is none of EIO, ENOSPC")),
    };
    let (time, rest) = match rest {
        ["for", ms, rest @ ..] => (Some(Duration::from_millis(number(ms)?)), rest),
        _ => (None, rest),
    };
    match (what, rest) {
        ("write", []) => layer.faults.fail_writes(answer, time),
        ("sync", []) => layer.faults.fail_syncs(answer, time, true),
        ("sync", ["keep"]) => layer.faults.fail_syncs(answer, time, false),
        _ => return Err("want `fail write|sync EIO|ENOSPC [for MS]`, for sync also `keep`".to_owned()),
    }
    Ok(())
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("`{word}` is not a number"))
}

/// Sends one order to a served layer and returns its answer.
///
/// # Errors
/// When nobody listens, the answer does not come within two minutes, or it says that the order was refused.
pub fn order(control: &Path, line: &str) -> anyhow::Result<Value> {
    let mut stream = UnixStream::connect(control)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer)?;
    let answer: Value = serde_json::from_str(&answer)?;
    if answer["ok"] != Value::Bool(true) {
        anyhow::bail!("`{line}`: {}", answer["error"].as_str().unwrap_or("refused"));
    }
    Ok(answer)
}
