//! rumqttc: takes steps as JSON lines on standard input, answers each with a JSON line. See ../README.md. Both versions
//! have types of their own in rumqttc: what differs is in `v3` and `v5`.

mod v3;
mod v5;

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use rumqttc::{TlsConfiguration, Transport};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

/// How long an answer of the server is waited for.
const WAIT: Duration = Duration::from_secs(20);
/// Messages and answers that wait for the script: far more than it has under way.
const WAITING: usize = 1_000;
/// rumqttc's own bound of 3.1.1 is 10 KiB.
const PACKET_BYTES: usize = 256 << 10;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Step {
    Connect(Box<Connect>),
    Publish {
        conn: String,
        topic: String,
        payload: String,
        qos: u8,
        retain: bool,
    },
    Receive {
        conn: String,
        count: usize,
        seconds: f64,
    },
    Disconnect {
        conn: String,
    },
}

#[derive(Deserialize)]
struct Connect {
    conn: String,
    version: String,
    url: String,
    client_id: String,
    user: Option<String>,
    password: Option<String>,
    persistent: bool,
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    will: Option<Will>,
    subscribe: Vec<Filter>,
}

#[derive(Deserialize)]
struct Will {
    topic: String,
    payload: String,
    qos: u8,
    retain: bool,
}

#[derive(Deserialize)]
struct Filter {
    topic: String,
    qos: u8,
}

#[derive(Serialize)]
struct Message {
    topic: String,
    payload: String,
    qos: u8,
    retain: bool,
}

/// What the event loop has told, beside messages.
enum Told {
    Connected { session_present: bool },
    Subscribed(u8),
    Published,
    Lost { code: Option<u8>, error: String },
}

/// Where an event loop puts what happens.
struct Tell {
    messages: Sender<Message>,
    answers: Sender<Told>,
}

struct Connection {
    client: Client,
    messages: Receiver<Message>,
    answers: Receiver<Told>,
}

enum Client {
    V3(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

impl Connect {
    /// rumqttc's host: of a WebSocket the whole address.
    fn host_and_port(&self) -> anyhow::Result<(String, u16)> {
        let (scheme, rest) = self
            .url
            .split_once("://")
            .context("an address without a scheme")?;
        let (host, port) = rest.split_once(':').context("an address without a port")?;
        let port = port.trim_end_matches("/mqtt").parse()?;
        Ok((
            if scheme.starts_with("ws") {
                self.url.clone()
            } else {
                host.to_owned()
            },
            port,
        ))
    }

    fn transport(&self) -> anyhow::Result<Transport> {
        let tls = || -> anyhow::Result<TlsConfiguration> {
            let client_auth = match (&self.cert, &self.key) {
                (Some(cert), Some(key)) => Some((std::fs::read(cert)?, std::fs::read(key)?)),
                _ => None,
            };
            let ca = std::fs::read(self.ca.as_ref().context("TLS without a CA")?)?;
            Ok(TlsConfiguration::Simple {
                ca,
                alpn: None,
                client_auth,
            })
        };
        Ok(match self.url.split(':').next() {
            Some("mqtt") => Transport::Tcp,
            Some("ws") => Transport::Ws,
            Some("mqtts") => Transport::tls_with_config(tls()?),
            Some("wss") => Transport::wss_with_config(tls()?),
            _ => bail!("an address of an unknown kind"),
        })
    }
}

impl Connection {
    fn open(step: &Connect) -> anyhow::Result<Self> {
        let (to_messages, messages) = channel(WAITING);
        let (to_answers, answers) = channel(WAITING);
        let tell = Tell {
            messages: to_messages,
            answers: to_answers,
        };
        let client = match step.version.as_str() {
            "5.0" => Client::V5(v5::open(step, tell)?),
            _ => Client::V3(v3::open(step, tell)?),
        };
        Ok(Self {
            client,
            messages,
            answers,
        })
    }

    async fn answer(&mut self) -> anyhow::Result<Told> {
        timeout(WAIT, self.answers.recv())
            .await?
            .context("the event loop has ended")
    }

    async fn subscribe(&mut self, filter: &Filter) -> anyhow::Result<u8> {
        match &self.client {
            Client::V3(client) => client.subscribe(&filter.topic, v3::qos(filter.qos)).await?,
            Client::V5(client) => client.subscribe(&filter.topic, v5::qos(filter.qos)).await?,
        }
        match self.answer().await? {
            Told::Subscribed(code) => Ok(code),
            _ => bail!("no SUBACK"),
        }
    }

    async fn publish(&mut self, topic: String, payload: String, qos: u8, retain: bool) -> anyhow::Result<()> {
        match &self.client {
            Client::V3(client) => client.publish(topic, v3::qos(qos), retain, payload).await?,
            Client::V5(client) => client.publish(topic, v5::qos(qos), retain, payload).await?,
        }
        match self.answer().await? {
            Told::Published => Ok(()),
            _ => bail!("not acknowledged"),
        }
    }

    async fn receive(&mut self, count: usize, within: Duration) -> Vec<Message> {
        let mut got = Vec::new();
        let until = tokio::time::Instant::now() + within;
        while got.len() < count {
            match tokio::time::timeout_at(until, self.messages.recv()).await {
                Ok(Some(message)) => got.push(message),
                _ => break,
            }
        }
        got
    }

    async fn disconnect(&mut self) -> anyhow::Result<()> {
        match &self.client {
            Client::V3(client) => client.disconnect().await?,
            Client::V5(client) => client.disconnect().await?,
        }
        // The event loop ends once it is done.
        while !matches!(self.answer().await?, Told::Lost { .. }) {}
        Ok(())
    }
}

async fn perform(connections: &mut HashMap<String, Connection>, step: Step) -> anyhow::Result<Value> {
    let unknown = "no such connection";
    match step {
        Step::Connect(step) => {
            let mut connection = Connection::open(&step)?;
            let session_present = match connection.answer().await? {
                Told::Connected { session_present } => session_present,
                Told::Lost { code, error } => return Ok(json!({"ok": false, "code": code, "error": error})),
                _ => bail!("something before CONNACK"),
            };
            let mut granted = Vec::new();
            for filter in &step.subscribe {
                granted.push(connection.subscribe(filter).await?);
            }
            connections.insert(step.conn, connection);
            Ok(json!({"ok": true, "session_present": session_present, "granted": granted}))
        }
        Step::Publish {
            conn,
            topic,
            payload,
            qos,
            retain,
        } => {
            let connection = connections.get_mut(&conn).context(unknown)?;
            connection.publish(topic, payload, qos, retain).await?;
            Ok(json!({"ok": true}))
        }
        Step::Receive { conn, count, seconds } => {
            let connection = connections.get_mut(&conn).context(unknown)?;
            let messages = connection.receive(count, Duration::from_secs_f64(seconds)).await;
            Ok(json!({"ok": true, "messages": messages}))
        }
        Step::Disconnect { conn } => {
            connections.remove(&conn).context(unknown)?.disconnect().await?;
            Ok(json!({"ok": true}))
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // rumqttc leaves the choice of the cryptography to the program.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut connections = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let step = serde_json::from_str(&line?)?;
        let answer = match perform(&mut connections, step).await {
            Ok(answer) => answer,
            Err(error) => json!({"ok": false, "error": format!("{error:#}")}),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}
