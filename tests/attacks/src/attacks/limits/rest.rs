//! Requests to REST on a bare socket, from an address of its own: with a body that is only announced, or whole. No limit is known here.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use godwit_e2e::world::User;
use serde_json::Value;

use crate::bed::Bed;
use crate::peer::{PATIENCE, Peer};

/// An answer: status, the header's lines in lower case, the body.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Value,
}

impl Answer {
    /// It must have this status; what is told to come later says when.
    pub(super) fn must(self, status: u16, what: &str) -> Result<Value> {
        ensure!(
            self.status == status,
            "{what}: {} {:.300} where {status} is due",
            self.status,
            self.body.to_string()
        );
        let later = matches!(status, 429 | 503);
        ensure!(
            !later || self.head.contains("\r\nretry-after: "),
            "{what}: no Retry-After: {}",
            self.head
        );
        Ok(self.body)
    }
}

/// A connection to REST.
pub(super) struct Rest {
    peer: Peer,
    input: Vec<u8>,
}

impl Rest {
    pub(super) async fn open(bed: &Bed, from: usize) -> Result<Self> {
        Ok(Self {
            peer: Peer::bare(bed.http(), from).await?,
            input: Vec::new(),
        })
    }

    /// The same with a receive buffer of so many bytes: what it does not hold waits at the server.
    pub(super) async fn open_narrow(bed: &Bed, from: usize, bytes: u32) -> Result<Self> {
        Ok(Self {
            peer: Peer::with_buffer(bed.http(), from, Some(bytes)).await?,
            input: Vec::new(),
        })
    }

    /// Sends the head of a request; `length` bytes of body are announced.
    pub(super) async fn begin(&mut self, request: &str, headers: &str, length: usize) -> Result<()> {
        let head = format!(
            "{request} HTTP/1.1\r\nhost: localhost\r\n{headers}content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        self.peer.send(head.as_bytes()).await
    }

    /// More of it.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.peer.send(bytes).await
    }

    /// What it is on, where what comes is no answer.
    pub(super) fn peer(&mut self) -> &mut Peer {
        &mut self.peer
    }

    /// Reads at least so many bytes of an answer.
    pub(super) async fn take_some(&mut self, bytes: usize) -> Result<()> {
        let wanted = self.input.len() + bytes;
        while self.input.len() < wanted {
            let more = self.peer.raw(PATIENCE).await;
            ensure!(
                !more.is_empty(),
                "closed, or no more, behind {} bytes",
                self.input.len()
            );
            self.input.extend(more);
        }
        Ok(())
    }

    pub(super) async fn answer(&mut self) -> Result<Answer> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.input[..end + 2]).to_lowercase();
                let length = head.split("\r\ncontent-length: ").nth(1);
                let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
                let length: usize = length.unwrap_or(0);
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
                if self.input.len() >= end + 4 + length {
                    let body = serde_json::from_slice(&self.input[end + 4..end + 4 + length]);
                    self.input.drain(..end + 4 + length);
                    return Ok(Answer {
                        status: status.context("no status")?,
                        head,
                        body: body.unwrap_or(Value::Null),
                    });
                }
            }
            let more = self
                .peer
                .raw(until.saturating_duration_since(Instant::now()))
                .await;
            ensure!(
                !more.is_empty(),
                "closed, or no answer, behind {} bytes",
                self.input.len()
            );
            self.input.extend(more);
        }
    }

    pub(super) async fn ask(&mut self, request: &str, headers: &str, body: &Value) -> Result<Answer> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.begin(request, headers, body.len()).await?;
        self.peer.send(body.as_bytes()).await?;
        self.answer().await
    }
}

/// The header that says who asks.
pub(super) fn bearer(user: &User) -> String {
    format!("authorization: Bearer {}\r\n", user.token)
}
