//! Many rumqttc clients on one thread, in place of the light clients: a task a connection, and what the tasks and the
//! worker share. rumqttc itself is behind `link`; messages and counts are those of `work`.

mod link;

use crate::{
    clients::{Clients, WakeUp},
    engine::unreachable_broker,
    packets::PacketError,
    payload,
    work::{Seen, Shared, Supply},
};
use link::{Caller, Fault, Heard, Line};
use std::{
    cell::{RefCell, RefMut},
    collections::VecDeque,
    io,
    ops::DerefMut,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Notify,
    task::LocalSet,
    time::timeout,
};

/// Shortest turn: the tasks only run while a turn waits, and the runtime's timer knows whole milliseconds.
const MIN_TURN: Duration = Duration::from_millis(1);
/// How long all clients together may take to write their DISCONNECTs.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// All rumqttc clients of a worker, for `pairs` and `chat`.
///
/// Publishers and recipients both have persistent sessions, and the harness keeps to `--window` by itself: it hands
/// over a message only when fewer are unanswered. A latency begins when a message is handed over, so it holds the
/// client's own way to the socket. A connection that breaks is counted as closed and not made again.
///
/// What to know about rumqttc 0.25 when reading a run; the cost per message is the client's, not the broker's:
/// * A publish passes through a channel, with its topic and payload copied, and is written and flushed by itself: one
///   system call a publish, and so one small TCP segment each for the broker to read.
/// * It reads at most ten packets before it writes their PUBACKs; packets and the answers to them are events of their
///   own, and in 3.1.1 every wait allocates a timer.
/// * Packet identifiers go round from 1 to the window. When a PUBACK comes out of order it stops taking publishes until
///   the identifier that is next is free; in 5.0 it stays so, until its pings break the connection, if the publish
///   with that identifier is refused.
/// * A connection holds at least 8 KiB for QoS 2 identifiers that are never used, beside its buffers, and cannot be
///   bound to a source address: the ephemeral ports of one address are the limit, which `connect` has no use for.
/// * 5.0 takes no keep alive below 5 s (a shorter one is raised) and none of 0 (the longest is taken); it has no time
///   limit on writes.
pub(crate) struct RealClients {
    // Before the runtime, which the sockets in the tasks need until they are dropped.
    tasks: LocalSet,
    runtime: Runtime,
    state: Rc<RefCell<State>>,
    /// Told when the worker should look: a client is ready or has failed, an order has come, the last task has ended.
    news: Arc<Notify>,
}

/// What tasks and worker share; never borrowed while a task waits.
struct State {
    shared: Shared,
    epoch: Instant,
    /// In the order of client indexes, as far as opened.
    members: Vec<Member>,
    /// Tasks that have not ended.
    running: usize,
    ready: usize,
    ready_recipients: usize,
    failure: Option<PacketError>,
    closing: bool,
}

struct Member {
    /// `None` when its connection has ended.
    caller: Option<Caller>,
    ready: bool,
    role: Role,
}

enum Role {
    Recipient(Seen),
    Publisher(Publisher),
}

struct Publisher {
    supply: Supply,
    /// When each publish without a packet identifier was handed over, the oldest first; at most a window.
    handed: VecDeque<u64>,
    /// When the publish with the packet identifier of the index plus one was handed over.
    sent_at: Vec<u64>,
    /// Handed over and not answered.
    unanswered: u16,
}

impl RealClients {
    /// Clients for the order in `shared`, none connected.
    ///
    /// # Errors
    /// When the runtime cannot be made.
    pub(crate) fn new(shared: Shared) -> io::Result<Self> {
        Ok(Self {
            tasks: LocalSet::new(),
            runtime: Builder::new_current_thread().enable_all().build()?,
            state: Rc::new(RefCell::new(State {
                shared,
                epoch: Instant::now(),
                members: Vec::new(),
                running: 0,
                ready: 0,
                ready_recipients: 0,
                failure: None,
                closing: false,
            })),
            news: Arc::new(Notify::new()),
        })
    }

    /// Lets the tasks run until there is news, at most for `time`.
    fn run(&self, time: Duration) {
        let wait = async {
            // Either way the worker looks around next.
            let _ = timeout(time, self.news.notified()).await;
        };
        self.tasks.block_on(&self.runtime, wait);
    }
}

impl Clients for RealClients {
    fn shared(&mut self) -> impl DerefMut<Target = Shared> {
        RefMut::map(self.state.borrow_mut(), |state| &mut state.shared)
    }

    fn ready(&self) -> usize {
        self.state.borrow().ready
    }

    fn ready_recipients(&self) -> usize {
        self.state.borrow().ready_recipients
    }

    fn waker(&self) -> io::Result<WakeUp> {
        let news = self.news.clone();
        Ok(Box::new(move || {
            news.notify_one();
            Ok(())
        }))
    }

    fn open_more(&mut self) -> Result<(), PacketError> {
        let mut state = self.state.borrow_mut();
        while state.members.len() < state.shared.spec.clients()
            && state.members.len() - state.ready < state.shared.spec.connect_window
        {
            let index = state.members.len();
            let (caller, line) = link::link(index, &state.shared.spec);
            let member = Member::new(index, caller, &state.shared);
            state.members.push(member);
            state.running += 1;
            let task = attend(index, line, self.state.clone(), self.news.clone());
            self.tasks.spawn_local(task);
        }
        Ok(())
    }

    fn turn(&mut self, timeout: Duration) -> Result<(), PacketError> {
        self.run(timeout.max(MIN_TURN));
        self.state.borrow_mut().failure.take().map_or(Ok(()), Err)
    }

    fn pump_all(&mut self) -> Result<(), PacketError> {
        let mut state = self.state.borrow_mut();
        for index in state.shared.spec.recipients..state.members.len() {
            state.publish(index)?;
        }
        Ok(())
    }

    fn due(&mut self, publisher: usize) -> Result<(), PacketError> {
        let mut state = self.state.borrow_mut();
        let now = state.now();
        let index = state.shared.spec.recipients + publisher;
        let State { members, shared, .. } = &mut *state;
        if let Some(Role::Publisher(publisher)) = members.get_mut(index).map(|member| &mut member.role) {
            publisher.supply.due(now, shared);
        }
        state.publish(index)
    }

    fn ping_all(&mut self) -> Result<(), PacketError> {
        // rumqttc does so by itself.
        Ok(())
    }

    fn unanswered(&self) -> u64 {
        let of = |member: &Member| match &member.role {
            Role::Publisher(publisher) => u64::from(publisher.unanswered),
            Role::Recipient(_) => 0,
        };
        self.state.borrow().members.iter().map(of).sum()
    }

    fn close(&mut self) {
        {
            let mut state = self.state.borrow_mut();
            state.closing = true;
            let callers = state.members.iter().filter_map(|member| member.caller.as_ref());
            callers.for_each(Caller::disconnect);
        }
        let began = Instant::now();
        while self.state.borrow().running > 0 && began.elapsed() < CLOSE_PATIENCE {
            self.run(CLOSE_PATIENCE);
        }
    }
}

/// The task of one client: lets rumqttc work and acts on what it tells, until its connection ends.
async fn attend(index: usize, mut line: Line, state: Rc<RefCell<State>>, news: Arc<Notify>) {
    loop {
        let heard = line.hear().await;
        let mut state = state.borrow_mut();
        let before = state.ready;
        let goes_on = state.heard(index, heard).unwrap_or_else(|failure| {
            state.failure.get_or_insert(failure);
            false
        });
        if !goes_on {
            state.members[index].caller = None;
            state.running -= 1;
        }
        if !goes_on || state.ready > before {
            news.notify_one();
        }
        if !goes_on {
            return;
        }
    }
}

impl Member {
    fn new(index: usize, caller: Caller, shared: &Shared) -> Self {
        let window = usize::from(shared.spec.window);
        let role = match index.checked_sub(shared.spec.recipients) {
            None => Role::Recipient(Seen::default()),
            Some(publisher) => Role::Publisher(Publisher {
                supply: Supply::new(publisher, &shared.spec),
                handed: VecDeque::with_capacity(window),
                sent_at: vec![0; window],
                unanswered: 0,
            }),
        };
        Self {
            caller: Some(caller),
            ready: false,
            role,
        }
    }
}

impl State {
    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Acts on what the client at `index` told; false when its connection has ended.
    fn heard(&mut self, index: usize, heard: Result<Heard, Fault>) -> Result<bool, PacketError> {
        let now = self.now();
        let Self { members, shared, .. } = self;
        let member = &mut members[index];
        match (heard, &mut member.role) {
            (Ok(Heard::Connected), Role::Recipient(_)) => {
                if let Some(caller) = &member.caller {
                    caller.subscribe(&shared.spec.filter(index))?;
                }
            }
            (Ok(Heard::Connected), Role::Publisher(_)) => {
                member.ready = true;
                self.ready += 1;
            }
            (Ok(Heard::SubAck { granted: true }), _) => {
                member.ready = true;
                self.ready += 1;
                self.ready_recipients += 1;
            }
            (Ok(Heard::SubAck { granted: false }), _) => {
                let filter = shared.spec.filter(index);
                return Err(PacketError(format!("the broker did not grant QoS 1 on {filter}")));
            }
            (Ok(Heard::Message(message)), Role::Recipient(seen)) => {
                if let Some((number, sent_at)) = payload::read_stamp(&message) {
                    seen.received(number, now.saturating_sub(sent_at), shared);
                }
            }
            (Ok(Heard::Written(packet_id)), Role::Publisher(publisher)) => publisher.written(packet_id),
            (Ok(Heard::PubAck { packet_id, refused }), Role::Publisher(publisher)) => {
                publisher.unanswered = publisher.unanswered.saturating_sub(1);
                let sent_at = publisher.slot(packet_id).map_or(now, |slot| *slot);
                shared.answered(refused, now.saturating_sub(sent_at));
                self.publish(index)?;
            }
            (Ok(Heard::Disconnected), _) => return Ok(false),
            (Ok(_), _) => {}
            (Err(_), _) if self.closing => return Ok(false),
            (Err(_), _) if member.ready => {
                shared.stats.closed += 1;
                return Ok(false);
            }
            (Err(Fault::Refused(code)), _) => {
                return Err(PacketError(format!(
                    "the broker refused a connection with {code}"
                )));
            }
            (Err(Fault::Broken(error)), _) => {
                return Err(PacketError(unreachable_broker(shared.spec.target, index, &error)));
            }
        }
        Ok(true)
    }

    /// Hands over as many messages of the publisher at `index` as its window and its work allow.
    fn publish(&mut self, index: usize) -> Result<(), PacketError> {
        let now = self.now();
        let Self { members, shared, .. } = self;
        let Some(Member {
            caller: Some(caller),
            ready: true,
            role: Role::Publisher(publisher),
        }) = members.get_mut(index)
        else {
            return Ok(());
        };
        while shared.publishing
            && publisher.unanswered < shared.spec.window
            && let Some(sent_at) = publisher.supply.next(now, shared)
        {
            let mut message = publisher.supply.message().to_vec();
            publisher.supply.stamp(&mut message, sent_at, shared);
            caller.publish(publisher.supply.topic(), message)?;
            publisher.handed.push_back(sent_at);
            publisher.unanswered += 1;
        }
        Ok(())
    }
}

impl Publisher {
    /// The oldest publish handed over has this packet identifier.
    fn written(&mut self, packet_id: u16) {
        let handed = self.handed.pop_front();
        if let (Some(handed), Some(slot)) = (handed, self.slot(packet_id)) {
            *slot = handed;
        }
    }

    fn slot(&mut self, packet_id: u16) -> Option<&mut u64> {
        self.sent_at.get_mut(usize::from(packet_id).checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client::tests::shared, spec::Scenario};

    /// A publisher with a window of 3 that is connected as far as it knows, over a line that does nothing.
    fn publisher() -> (RealClients, Line) {
        let clients = RealClients::new(shared(Scenario::Pairs, 0, 1, 3)).expect("a runtime");
        let mut state = clients.state.borrow_mut();
        let (caller, line) = link::link(0, &state.shared.spec);
        let member = Member::new(0, caller, &state.shared);
        state.members.push(member);
        assert!(matches!(state.heard(0, Ok(Heard::Connected)), Ok(true)));
        drop(state);
        (clients, line)
    }

    #[test]
    fn never_more_than_a_window_is_handed_over_and_an_answer_makes_room_for_one() {
        let (mut clients, _line) = publisher();
        clients.pump_all().expect("taken");
        assert_eq!((clients.unanswered(), clients.shared().stats.sent), (3, 3));
        let answer = Heard::PubAck {
            packet_id: 1,
            refused: true,
        };
        let mut state = clients.state.borrow_mut();
        assert!(matches!(state.heard(0, Ok(answer)), Ok(true)));
        drop(state);
        assert_eq!((clients.unanswered(), clients.shared().stats.sent), (3, 4));
        let counts = clients.shared().stats.clone();
        assert_eq!((counts.refused, counts.acked), (1, 0));
    }

    #[test]
    fn nothing_is_handed_over_before_the_order_to_publish_nor_after_the_connection_broke() {
        let (mut clients, _line) = publisher();
        clients.shared().publishing = false;
        clients.pump_all().expect("nothing to do");
        assert_eq!(clients.unanswered(), 0);
        clients.shared().publishing = true;
        clients.state.borrow_mut().members[0].caller = None;
        clients.pump_all().expect("nothing to do");
        assert_eq!(clients.unanswered(), 0);
    }

    #[test]
    fn a_break_is_counted_during_the_run_and_is_none_when_closing() {
        let (mut clients, _line) = publisher();
        let broken = || Err(Fault::Broken("gone".into()));
        let mut state = clients.state.borrow_mut();
        assert!(matches!(state.heard(0, broken()), Ok(false)));
        state.closing = true;
        assert!(matches!(state.heard(0, broken()), Ok(false)));
        drop(state);
        assert_eq!(clients.shared().stats.closed, 1);
    }

    #[test]
    fn a_packet_identifier_belongs_to_the_oldest_message_that_has_none() {
        let mut publisher = Publisher {
            supply: Supply::new(0, &shared(Scenario::Pairs, 0, 1, 3).spec),
            handed: VecDeque::from([10, 20]),
            sent_at: vec![0; 3],
            unanswered: 2,
        };
        publisher.written(3);
        publisher.written(1);
        publisher.written(2);
        assert_eq!(publisher.sent_at, [20, 0, 10]);
        assert!(publisher.slot(0).is_none() && publisher.slot(4).is_none());
    }
}
