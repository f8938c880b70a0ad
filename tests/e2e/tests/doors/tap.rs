//! Subscribers that write down everything they are given, each on a thread of its own, until dropped.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::raw::{Answer, Delivery, Hello, Packet, Version, Wire};

/// How long what is expected may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long what is not expected is waited for.
const SETTLE: Duration = Duration::from_millis(1_000);

/// A subscriber.
pub(crate) struct Tap {
    seen: Arc<Mutex<Vec<Delivery>>>,
    stream: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Subscribes with QoS 1 to all of `filters`.
    pub(crate) fn new(
        port: u16,
        client: &str,
        login: Option<(&str, &str)>,
        filters: &[&str],
    ) -> Result<Self> {
        let hello = Hello {
            version: Version::V5,
            client,
            login,
            will: None,
            keep: false,
        };
        let (wire, answer) = Wire::connect(port, &hello)?;
        let mut wire = wire.with_context(|| format!("CONNECT of {client}: {answer:?}"))?;
        for filter in filters {
            let answer = wire.subscribe(filter, 1)?;
            ensure!(answer == Answer::Suback(1), "{client} on {filter}: {answer:?}");
        }
        let stream = wire.stream()?;
        stream.set_read_timeout(None)?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = seen.clone();
        let thread = std::thread::spawn(move || {
            while let Ok(Some(packet)) = wire.read() {
                if let Packet::Publish(delivery) = packet {
                    if delivery.qos > 0 {
                        wire.puback(delivery.id);
                    }
                    into.lock().unwrap_or_else(PoisonError::into_inner).push(delivery);
                }
            }
        });
        Ok(Self {
            seen,
            stream,
            thread: Some(thread),
        })
    }

    /// What it was given so far.
    pub(crate) fn seen(&self) -> Vec<Delivery> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `enough` says so or the patience ends, and then a little for what should not come.
    pub(crate) fn settled(&self, enough: impl Fn(&[Delivery]) -> bool) -> Vec<Delivery> {
        let until = Instant::now() + PATIENCE;
        while !enough(&self.seen()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(SETTLE);
        self.seen()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
