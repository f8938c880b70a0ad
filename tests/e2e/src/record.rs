//! What a run writes down for the checker, one JSON object a line, as `tests/checker/src/record.rs` asks for it. Only
//! the forms and the file; when to write what is decided by the clients.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use serde::Serialize;

/// Bytes gathered before a write; the file is read only at the end of a run.
const BUFFER: usize = 1 << 20;

/// One line; the fields mean what the checker's forms of the same name say.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Line<'a> {
    Send {
        t: u64,
        id: &'a str,
        sender: &'a str,
        conversation: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_message_id: Option<&'a str>,
        door: &'a str,
        hash: &'a str,
    },
    Ack {
        t: u64,
        id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        message_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        sequence: Option<u64>,
    },
    Fail {
        t: u64,
        id: &'a str,
        code: &'a str,
    },
    Recv(Recv<'a>),
    Event(Event<'a>),
    History {
        t: u64,
        conversation: &'a str,
        entries: &'a [Entry],
    },
    Members {
        t: u64,
        conversation: &'a str,
        user: &'a str,
        joined: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        left: Option<u64>,
    },
    Kill {
        t: u64,
    },
    Connect {
        t: u64,
        session: &'a str,
    },
    End {
        t: u64,
        session: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<&'a str>,
        from: u64,
    },
    TopicSub {
        t: u64,
        session: &'a str,
        filter: &'a str,
        qos: u8,
    },
    TopicPub {
        t: u64,
        publisher: &'a str,
        id: &'a str,
        topic: &'a str,
        qos: u8,
    },
    TopicAck {
        t: u64,
        id: &'a str,
    },
    TopicRecv {
        t: u64,
        session: &'a str,
        id: &'a str,
        topic: &'a str,
        dup: bool,
    },
}

/// A message in an inbox.
#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Recv<'a> {
    pub t: u64,
    pub session: &'a str,
    pub user: &'a str,
    pub conversation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence_number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbox_seq: Option<u64>,
    pub dup: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<&'a str>,
    pub hash: &'a str,
}

/// Another inbox event.
#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Event<'a> {
    pub t: u64,
    pub session: &'a str,
    pub user: &'a str,
    #[serde(rename = "type")]
    pub form: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbox_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence_number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<&'a str>,
}

/// One entry of a history.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Entry {
    pub seq: u64,
    #[serde(rename = "type")]
    pub form: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// The clock of all records: CLOCK_MONOTONIC, nanoseconds.
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What stands for a content: equal exactly when the contents are.
pub fn hash(content: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(content))
}

/// The file of a run, shared by all its clients.
#[derive(Debug)]
pub struct Recorder {
    file: Mutex<BufWriter<File>>,
}

impl Recorder {
    /// Makes `records.jsonl` in the folder.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(folder: &Path) -> Result<Self> {
        let path = folder.join("records.jsonl");
        let file = File::create(&path).with_context(|| format!("{}", path.display()))?;
        Ok(Self {
            file: Mutex::new(BufWriter::with_capacity(BUFFER, file)),
        })
    }

    /// Writes one line.
    ///
    /// # Panics
    /// When the disk of the test itself is full: a run with holes in its records would be judged wrongly.
    #[allow(clippy::expect_used)]
    pub fn write(&self, line: &Line<'_>) {
        let mut bytes = serde_json::to_vec(line).expect("records are plain structs");
        bytes.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&bytes).expect("the records' disk takes them");
    }

    /// Brings everything to the file.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn flush(&self) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(file.flush()?)
    }
}
