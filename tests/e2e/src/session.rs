//! Runs one persistent session for ever: connects, subscribes once, feeds its script, records connections. What is sent
//! and what is done with what arrives is the script's.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::mqtt::{Connection, Delivery, Happened, Login, Outgoing, Told};
use crate::record::{Line, now};
use crate::shared::Shared;

/// Reconnects wait this long at most, milliseconds, each a random part of it.
const RECONNECT_MS: u64 = 60;
/// After a refusal, before the next send.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

/// What a session does.
pub trait Script: Send + 'static {
    /// The next publish, with a number that names it to the script; `None` if there is none for now. Asked again after
    /// each event.
    fn next(&mut self) -> Option<(u64, Outgoing)>;
    /// It was acknowledged.
    fn acknowledged(&mut self, number: u64, told: &Told);
    /// It was refused, and the connection goes on.
    fn refused(&mut self, number: u64, code: &str);
    /// The session was not there any more: nobody will hear of it.
    fn forgotten(&mut self, number: u64);
    /// Something arrived for the first time on this connection.
    fn delivered(&mut self, delivery: &Delivery);
    /// SUBACK.
    fn subscribed(&mut self, qos: u8);
    /// Whether deliveries are acknowledged.
    fn acknowledges(&self) -> bool {
        true
    }
}

/// A session to be run.
pub struct Session<S> {
    /// Its name in the records.
    pub name: String,
    /// Who connects where.
    pub login: Login,
    /// What it subscribes to, if anything.
    pub filter: Option<(String, u8)>,
    /// What it does.
    pub script: S,
    /// What the run shares.
    pub shared: Arc<Shared>,
    /// For its pauses.
    pub random: StdRng,
}

impl<S: Script> Session<S> {
    /// Runs until the task is aborted.
    pub async fn run(mut self) {
        let mut connection = Connection::new(&self.login);
        let mut queued: VecDeque<u64> = VecDeque::new();
        let mut waiting: HashMap<u16, u64> = HashMap::new();
        let mut known = false;
        let mut refused_in_a_row = 0_u32;
        let trace = std::env::var_os("GODWIT_E2E_TRACE").is_some();
        loop {
            match connection.next().await {
                Happened::Connected { resumed } => {
                    refused_in_a_row = 0;
                    let line = Line::Connect {
                        t: now(),
                        session: &self.name,
                    };
                    self.shared.recorder.write(&line);
                    if !resumed {
                        if known {
                            self.shared
                                .problem(format!("the session of {} was not there any more", self.name));
                        }
                        for number in queued.drain(..).chain(waiting.drain().map(|(_, number)| number)) {
                            self.script.forgotten(number);
                        }
                    }
                    if !resumed || !known {
                        self.subscribe(&connection);
                    }
                    known |= self.filter.is_none();
                }
                Happened::Subscribed { granted, qos } => {
                    if granted {
                        known = true;
                        self.script.subscribed(qos);
                    } else {
                        self.shared
                            .problem(format!("{} was refused its subscription", self.name));
                    }
                }
                Happened::Sent(packet) => {
                    if let (false, Some(number)) = (waiting.contains_key(&packet), queued.front()) {
                        waiting.insert(packet, *number);
                        queued.pop_front();
                    }
                }
                Happened::Acknowledged(packet, told) => {
                    if let Some(number) = waiting.remove(&packet) {
                        self.script.acknowledged(number, &told);
                    }
                }
                Happened::Refused(packet, code) => {
                    if let Some(number) = waiting.remove(&packet) {
                        self.shared.told_no(&code);
                        self.script.refused(number, &code);
                        tokio::time::sleep(REFUSED_PAUSE).await;
                    }
                }
                Happened::Delivered(delivery) => {
                    self.script.delivered(&delivery);
                    if delivery.qos > 0
                        && self.script.acknowledges()
                        && !connection.acknowledge(delivery.packet, delivery.qos)
                    {
                        self.shared
                            .problem(format!("{} has no room to acknowledge", self.name));
                    }
                }
                Happened::Lost(why) => {
                    if trace {
                        eprintln!("{} {}: {why}", now(), self.name);
                    }
                    if why.contains("refused, return code") || why.contains("ConnectionRefused") {
                        refused_in_a_row += 1;
                        if refused_in_a_row == 50 {
                            self.shared
                                .problem(format!("{} is refused again and again: {why}", self.name));
                        }
                    }
                    self.shared.told_no("closed");
                    let pause = self.random.random_range(5..RECONNECT_MS);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    continue;
                }
                Happened::Released(_)
                | Happened::AcknowledgedDelivery
                | Happened::Left
                | Happened::Nothing => {}
            }
            while known && let Some((number, publish)) = self.script.next() {
                if connection.publish(&publish) {
                    queued.push_back(number);
                } else {
                    self.shared.problem(format!("{} has no room to send", self.name));
                    self.script.forgotten(number);
                }
            }
        }
    }

    fn subscribe(&self, connection: &Connection) {
        let Some((filter, qos)) = &self.filter else {
            return;
        };
        if !connection.subscribe(filter, *qos) {
            self.shared
                .problem(format!("{} has no room to subscribe", self.name));
        }
    }
}
