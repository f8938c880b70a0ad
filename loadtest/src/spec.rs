//! What one worker process is told to do, and the lines parent and worker exchange: JSON, one object a line, over the
//! worker's standard input and output. No behaviour beyond the names of clients and topics.

use crate::{packets::Version, payload::Template, report::WorkerReport};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Which work a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scenario {
    /// Many persistent sessions with one subscription each, a few messages for each, then rest.
    Connect,
    /// Pairs of a publisher and a persistent session on ordinary topics.
    Pairs,
    /// Pairs over Godwit's conversations: `c/{conv}/send` and `me/inbox`.
    Chat,
}

/// Which MQTT client a run is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientKind {
    /// the harness's own light client on the codec
    Light,
    /// rumqttc 0.25, a client that applications use, with persistent sessions (pairs, chat)
    Rumqttc,
}

/// Encoding of chat messages and inbox events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Encoding {
    /// `c/{conv}/send` and `me/inbox`
    Protobuf,
    /// `c/{conv}/send/json` and `me/inbox/json`
    Json,
    /// `c/{conv}/send/text` and `me/inbox/text`
    Text,
}

impl Encoding {
    fn suffix(self) -> &'static str {
        match self {
            Self::Protobuf => "",
            Self::Json => "/json",
            Self::Text => "/text",
        }
    }
}

/// User name and password of one client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Login {
    /// MQTT user name.
    pub(crate) username: String,
    /// Password or device token.
    pub(crate) password: String,
    /// Id of the device token; empty for a password.
    pub(crate) token_id: String,
}

/// Two users with a conversation between them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ChatPair {
    /// Who sends.
    pub(crate) sender: Login,
    /// Whose inbox is subscribed.
    pub(crate) recipient: Login,
    /// Id of the conversation.
    pub(crate) conversation: String,
    /// Access token of the sender, for reading history and search after the run; workers do without.
    #[serde(skip)]
    pub(crate) access_token: String,
}

/// The whole order for one worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// What to do.
    pub(crate) scenario: Scenario,
    /// Which client all clients are.
    pub(crate) client: ClientKind,
    /// Protocol version of all clients.
    pub(crate) version: Version,
    /// The broker.
    pub(crate) target: SocketAddr,
    /// Makes client ids and topics of this run its own.
    pub(crate) run_id: String,
    /// Number of the first recipient of this worker among all workers.
    pub(crate) first: usize,
    /// Recipients of this worker.
    pub(crate) recipients: usize,
    /// Publishers of this worker: one for `members` recipients in pairs, one a recipient in chat, a few in connect.
    pub(crate) publishers: usize,
    /// Recipients that share what one publisher sends, as members of one shared subscription; 1: nobody shares.
    pub(crate) members: usize,
    /// Most unacknowledged publishes of one publisher.
    pub(crate) window: u16,
    /// Length of the text in a message, in bytes.
    pub(crate) payload_len: usize,
    /// Messages for each recipient in `connect`.
    pub(crate) messages_each: u64,
    /// Messages per second of this worker; none means as fast as acknowledgements allow.
    pub(crate) rate: Option<f64>,
    /// Keep alive in seconds, 0 for none.
    pub(crate) keep_alive: u16,
    /// Handshakes in flight at a time.
    pub(crate) connect_window: usize,
    /// Varies the source addresses between runs.
    pub(crate) source_salt: u8,
    /// Clients prove by SCRAM that they know their device token, instead of sending it.
    pub(crate) scram: bool,
    /// One login for all, if the broker wants one.
    pub(crate) login: Option<Login>,
    /// Users and conversations, one a recipient, for `chat`.
    pub(crate) chat: Vec<ChatPair>,
    /// Encoding for `chat`.
    pub(crate) encoding: Encoding,
}

impl Spec {
    /// All clients of this worker: recipients come first, publishers after them.
    pub(crate) fn clients(&self) -> usize {
        self.recipients + self.publishers
    }

    /// Client identifier of the client at `index`.
    pub(crate) fn client_id(&self, index: usize) -> String {
        match index.checked_sub(self.recipients) {
            None => format!("{}-s{}", self.run_id, self.first + index),
            Some(publisher) => format!("{}-p{}", self.run_id, self.first + publisher),
        }
    }

    /// Login of the client at `index`.
    pub(crate) fn login_of(&self, index: usize) -> Option<&Login> {
        match (self.scenario, index.checked_sub(self.recipients)) {
            (Scenario::Chat, None) => self.chat.get(index).map(|pair| &pair.recipient),
            (Scenario::Chat, Some(publisher)) => self.chat.get(publisher).map(|pair| &pair.sender),
            _ => self.login.as_ref(),
        }
    }

    /// Filter of the recipient at `index`.
    pub(crate) fn filter(&self, index: usize) -> String {
        match self.scenario {
            Scenario::Chat => format!("me/inbox{}", self.encoding.suffix()),
            _ if self.members > 1 => format!("$share/load/{}", self.topic(index)),
            _ => self.topic(index),
        }
    }

    /// Topic on which a message reaches the recipient at `index`.
    pub(crate) fn topic(&self, index: usize) -> String {
        match self.scenario {
            Scenario::Chat => {
                let conversation = self.chat.get(index).map_or("", |pair| &pair.conversation);
                format!("c/{conversation}/send{}", self.encoding.suffix())
            }
            _ => format!("inbox/{}u{}", self.run_id, (self.first + index) / self.members),
        }
    }

    /// The message of the publisher at `publisher`.
    pub(crate) fn template(&self, publisher: usize) -> Template {
        let salt = self.first + publisher;
        match (self.scenario, self.encoding) {
            (Scenario::Chat, Encoding::Json) => Template::new(
                br#"{"content_type":"text","content":""#,
                self.payload_len,
                br#""}"#,
                salt,
            ),
            (Scenario::Chat, Encoding::Protobuf) => {
                let mut before = Vec::new();
                crate::chat::put_send_prefix(self.payload_len, &mut before);
                Template::new(&before, self.payload_len, b"", salt)
            }
            _ => Template::new(b"", self.payload_len, b"", salt),
        }
    }
}

/// What the parent tells a worker after its [`Spec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Start to publish.
    Go,
    /// Start the measured window.
    Measure,
    /// End the window, publish nothing more, wait for what is under way, report.
    Stop,
}

/// What a worker tells its parent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// Numbers for the progress bar.
    Progress {
        /// Clients ready.
        ready: u64,
        /// Messages received for the first time.
        received: u64,
    },
    /// All clients are connected and, if recipients, subscribed.
    Ready {
        /// Seconds from the first connect to the last recipient's SUBACK.
        seconds: f64,
    },
    /// In `connect`: every message was acknowledged and received.
    Delivered,
    /// The end of a good run, or of one that lost messages.
    Done(Box<WorkerReport>),
    /// The run cannot go on; one line for the user.
    Failed(String),
}
