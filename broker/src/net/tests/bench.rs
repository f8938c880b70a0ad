//! The sockets of one worker without its thread: a test calls what the loop would call, and looks inside. The other
//! ends of the connections are real.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use godwit_cluster::harness::Harness;
use godwit_cluster::{Cx, RoleId};
use godwit_store::{
    Batch, CompletionPort, Health, Op, PortId, Read, ReadAnswer, Stats, Store, StoreError, Submission,
};

use super::rig::connect;
use crate::codec;
use crate::net::conn::Conn;
use crate::net::transport::Transport;
use crate::net::{Event, Net, NetConfig, NetMetrics, TICKS, token};
use crate::packet::{Connack, Connect, Incoming, Outgoing, PublishOut};
use crate::wire_trait::{CloseReason, ConnId, Sent, Wire};

/// Has no room, ever.
struct Full;

impl Store for Full {
    fn register(&self, _: PortId, _: Arc<dyn CompletionPort>) {}
    fn submit(&self, batch: Batch) -> Submission {
        Submission::Busy(batch)
    }
    fn read(&self, _: PortId, _: u64, _: Vec<Read>) {}
    fn read_now(&self, _: &[Read]) -> Result<Vec<ReadAnswer>, StoreError> {
        Err(StoreError::Misuse("not in these tests"))
    }
    fn totally_ordered(&self) -> bool {
        true
    }
    fn start_view(&self) -> u64 {
        1
    }
    fn health(&self) -> Health {
        Health::Serving
    }
    fn stats(&self) -> Stats {
        Stats::default()
    }
    fn backup(&self, _: &Path) -> Result<(), StoreError> {
        Ok(())
    }
    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What came up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Came {
    Publish,
    Subscribe,
    Closed(CloseReason),
    Drained,
}

pub(super) struct Bench {
    pub(super) net: Net,
    pub(super) harness: Harness,
    pub(super) came: Vec<Came>,
    /// Batches that the home writes for each PUBLISH; the store takes none.
    pub(super) batches: usize,
}

pub(super) fn harness() -> Harness {
    Harness::new(Arc::new(Full), 1_800_000_000_000).unwrap()
}

/// Both ends of a TCP connection: ours, and the client's.
pub(super) fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    ours.set_nodelay(true).unwrap();
    client.set_nodelay(true).unwrap();
    (ours, client)
}

/// A CONNECT of MQTT 5 with this keep-alive, from a client that takes packets of this size.
pub(super) fn given(keep_alive: u16, max: u32) -> Box<Connect> {
    let mut given = codec::decode_connect(&connect(5, "c", keep_alive, None)).unwrap();
    given.maximum_packet_size = max;
    given
}

pub(super) fn publish_out(payload: usize) -> Outgoing {
    Outgoing::Publish(Box::new(PublishOut {
        topic: "t".into(),
        payload: vec![0; payload].into(),
        qos: 0,
        retain: false,
        dup: false,
        packet_id: 0,
        message_expiry: None,
        subscription_ids: Vec::new(),
        properties: None,
    }))
}

impl Bench {
    pub(super) fn new() -> Self {
        let mut bench = Self {
            net: Net::new(NetConfig::default(), NetMetrics::default()),
            harness: harness(),
            came: Vec::new(),
            batches: 0,
        };
        bench.with(|cx, net| net.start(cx));
        bench
    }

    fn with<T>(&mut self, call: impl FnOnce(&mut Cx<'_>, &mut Net) -> T) -> T {
        let net = &mut self.net;
        self.harness.with(RoleId::Broker, |cx| call(cx, net))
    }

    /// A connection whose CONNECT a home has.
    pub(super) fn attached(&mut self, transport: Transport, connect: &Connect) -> ConnId {
        let now = self.net.now;
        let mut conn = Box::new(Conn::new(transport, Vec::new(), now, now + 5 * TICKS));
        conn.connected_by(connect);
        conn.owned = true;
        self.with(|cx, net| net.add(cx, conn, Default::default()))
            .unwrap()
    }

    /// One of whom nothing is known.
    pub(super) fn add(&mut self, conn: Box<Conn>) -> ConnId {
        self.with(|cx, net| net.add(cx, conn, Default::default()))
            .unwrap()
    }

    /// One that is open.
    pub(super) fn open(&mut self, transport: Transport, connect: &Connect) -> ConnId {
        let id = self.attached(transport, connect);
        let connack = Outgoing::Connack(Box::default());
        assert_eq!(self.net.send(id, &connack), Sent::Taken);
        self.turn();
        id
    }

    pub(super) fn tcp(ours: TcpStream) -> Transport {
        Transport::Tcp(mio::net::TcpStream::from_std(ours))
    }

    pub(super) fn conn(&mut self, id: ConnId) -> &mut Conn {
        self.net.get(id).unwrap()
    }

    /// The socket is ready.
    pub(super) fn ready(&mut self, id: ConnId) {
        self.step(|cx, net, up| net.io(cx, token(id), true, true, up));
    }

    /// The socket takes more.
    pub(super) fn step_writable(&mut self, id: ConnId) {
        self.step(|cx, net, up| net.io(cx, token(id), false, true, up));
    }

    /// A tick has passed.
    pub(super) fn tick(&mut self) {
        self.step(|cx, net, up| net.tick(cx, up));
    }

    /// The end of a turn.
    pub(super) fn turn(&mut self) {
        // What can wait leaves what it wrote for the next end of a turn.
        let mut left = false;
        self.step(|cx, net, up| {
            net.end_of_turn(cx, up);
            left = net.after_turn(cx, up);
        });
        if left {
            self.step(|cx, net, up| net.end_of_turn(cx, up));
        }
    }

    fn step(
        &mut self,
        call: impl FnOnce(&mut Cx<'_>, &mut Net, &mut dyn FnMut(&mut Cx<'_>, &mut Net, ConnId, Event)),
    ) {
        let (net, came, batches) = (&mut self.net, &mut self.came, self.batches);
        let mut up = |cx: &mut Cx<'_>, _: &mut Net, _: ConnId, event: Event| match event {
            Event::Packet(Incoming::Publish(_)) => {
                came.push(Came::Publish);
                for _ in 0..batches {
                    cx.store(&godwit_wire::ids::Key::Wildcards, 0, Vec::<Op>::new());
                }
            }
            Event::Packet(Incoming::Subscribe { .. }) => came.push(Came::Subscribe),
            Event::Packet(_) | Event::Renewed(_) => {}
            Event::Closed(closed) => came.push(Came::Closed(closed.reason)),
            Event::Drained => came.push(Came::Drained),
        };
        self.harness.with(RoleId::Broker, |cx| call(cx, net, &mut up));
    }

    pub(super) fn listen(&mut self, socket: TcpListener) {
        self.with(|cx, net| {
            net.listen(
                cx,
                crate::net::Listener {
                    socket,
                    tls: None,
                    proxies: None,
                },
            )
        });
    }

    pub(super) fn accept_again(&mut self) {
        self.with(|cx, net| net.accept_again(cx));
    }
}

/// A CONNACK with all that ours carry.
pub(super) fn connack() -> Outgoing {
    Outgoing::Connack(Box::new(Connack {
        receive_maximum: 256,
        maximum_packet_size: 256 << 10,
        session_expiry: Some(7),
        ..Connack::default()
    }))
}
