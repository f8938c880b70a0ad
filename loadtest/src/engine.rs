//! Many clients on one thread: sockets, readiness and buffers around the state machines. One read call a readiness, one
//! write call for all that a read caused; buffers are shared and a client keeps only what is incomplete.

use crate::{
    client::{Client, Stage},
    clients::{Clients, WakeUp},
    packets::{self, MAX_FRAME, PacketError},
    work::Shared,
};
use mio::{Events, Interest, Poll, Token, Waker, event::Event, net::TcpStream};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fmt::Display,
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    ops::DerefMut,
    time::{Duration, Instant},
};

/// Shared read buffer: one read call takes this much at most; holds several of the largest frames.
const SCRATCH: usize = 4 * MAX_FRAME;
/// Most bytes kept for one socket that does not take them; a window of publishes is far below.
const MAX_UNSENT: usize = 1 << 20;
/// A buffer of an idle client above this is given back.
const KEEP_CAPACITY: usize = 256;
/// Connections from one source address: a small part of the usual 28,000 ephemeral ports, since the kernel's search for
/// a free one gets slow when many are taken.
const PER_SOURCE: usize = 2_000;
/// Token of the waker; clients use their index.
const WAKE: Token = Token(usize::MAX);

struct Connection {
    client: Client,
    stream: Option<TcpStream>,
    /// The start of a frame whose rest has not come.
    partial: Vec<u8>,
    /// What the socket did not take yet.
    unsent: Vec<u8>,
}

/// All clients of a worker.
pub(crate) struct Engine {
    poll: Poll,
    events: Events,
    ready: Vec<(usize, bool, bool, bool)>,
    connections: Vec<Connection>,
    scratch: Vec<u8>,
    out: Vec<u8>,
    epoch: Instant,
    opened: usize,
    ready_count: usize,
    ready_recipients: usize,
    shared: Shared,
}

impl Engine {
    /// Clients for the order in `shared`, none connected.
    ///
    /// # Errors
    /// When the poller cannot be made.
    pub(crate) fn new(shared: Shared) -> io::Result<Self> {
        let clients = shared.spec.clients();
        let connections = (0..clients).map(|index| Connection {
            client: Client::new(index, &shared.spec),
            stream: None,
            partial: Vec::new(),
            unsent: Vec::new(),
        });
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            ready: Vec::with_capacity(1024),
            connections: connections.collect(),
            scratch: vec![0; SCRATCH],
            out: Vec::with_capacity(64 * 1024),
            epoch: Instant::now(),
            opened: 0,
            ready_count: 0,
            ready_recipients: 0,
            shared,
        })
    }

    /// Nanoseconds since this engine was made.
    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn pump(&mut self, index: usize) -> Result<(), PacketError> {
        let now = self.now();
        self.out.clear();
        self.connections[index]
            .client
            .pump(now, &mut self.shared, &mut self.out);
        self.flush(index)
    }

    fn writable(&mut self, index: usize) -> Result<(), PacketError> {
        self.out.clear();
        let connection = &mut self.connections[index];
        if connection.client.stage() == Stage::Idle {
            let Some(stream) = &connection.stream else {
                return Ok(());
            };
            if let Ok(Some(error)) | Err(error) = stream.take_error() {
                return Err(PacketError(unreachable_broker(
                    self.shared.spec.target,
                    index,
                    &error,
                )));
            }
            if stream.peer_addr().is_err() {
                return Ok(());
            }
            connection.client.connected(&mut self.shared, &mut self.out)?;
        }
        self.flush(index)
    }

    fn readable(&mut self, index: usize, ended: bool) -> Result<(), PacketError> {
        loop {
            let connection = &mut self.connections[index];
            let Some(stream) = &mut connection.stream else {
                return Ok(());
            };
            let kept = connection.partial.len();
            self.scratch[..kept].copy_from_slice(&connection.partial);
            let got = match stream.read(&mut self.scratch[kept..]) {
                Ok(0) => return self.closed(index, None),
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return self.closed(index, Some(&error)),
            };
            self.frames(index, kept + got)?;
            if kept + got < self.scratch.len() && !ended {
                return Ok(());
            }
        }
    }

    /// Serves the frames in the first `filled` bytes of the scratch buffer and answers them with one write.
    fn frames(&mut self, index: usize, filled: usize) -> Result<(), PacketError> {
        let now = self.epoch.elapsed().as_nanos() as u64;
        let connection = &mut self.connections[index];
        let was_ready = connection.client.stage() == Stage::Ready;
        self.out.clear();
        let mut at = 0;
        while let Some((header, whole)) = packets::frame_len(&self.scratch[at..filled])? {
            let packet = packets::read(self.shared.spec.version, &self.scratch[at..at + whole], header)?;
            connection
                .client
                .packet(packet, now, &mut self.shared, &mut self.out)?;
            at += whole;
        }
        connection.partial.clear();
        connection.partial.extend_from_slice(&self.scratch[at..filled]);
        if connection.partial.is_empty() && connection.partial.capacity() > KEEP_CAPACITY {
            connection.partial = Vec::new();
        }
        if !was_ready && connection.client.stage() == Stage::Ready {
            self.ready_count += 1;
            self.ready_recipients += usize::from(index < self.shared.spec.recipients);
        }
        connection.client.pump(now, &mut self.shared, &mut self.out);
        self.flush(index)
    }

    /// Writes what is waiting for this socket and then the shared output buffer; keeps what it does not take.
    fn flush(&mut self, index: usize) -> Result<(), PacketError> {
        let connection = &mut self.connections[index];
        let Some(stream) = &mut connection.stream else {
            return Ok(());
        };
        if !connection.unsent.is_empty() {
            connection.unsent.extend_from_slice(&self.out);
            self.out.clear();
            let written = write_some(stream, &connection.unsent);
            match written {
                Ok(count) => drop(connection.unsent.drain(..count)),
                Err(error) => return self.closed(index, Some(&error)),
            }
        } else if !self.out.is_empty() {
            match write_some(stream, &self.out) {
                Ok(count) => connection.unsent.extend_from_slice(&self.out[count..]),
                Err(error) => return self.closed(index, Some(&error)),
            }
        }
        if connection.unsent.is_empty() && connection.unsent.capacity() > KEEP_CAPACITY {
            connection.unsent = Vec::new();
        }
        if connection.unsent.len() > MAX_UNSENT {
            return Err(PacketError("the broker stopped reading from one client".into()));
        }
        Ok(())
    }

    fn closed(&mut self, index: usize, error: Option<&io::Error>) -> Result<(), PacketError> {
        let connection = &mut self.connections[index];
        connection.stream = None;
        if connection.client.stage() == Stage::Ready {
            self.shared.stats.closed += 1;
            return Ok(());
        }
        match error {
            Some(error) => Err(PacketError(unreachable_broker(
                self.shared.spec.target,
                index,
                error,
            ))),
            None => Err(PacketError(format!(
                "the broker closed connection {} during its handshake: its limit on connections, open files or logins?",
                index + 1
            ))),
        }
    }
}

impl Clients for Engine {
    fn shared(&mut self) -> impl DerefMut<Target = Shared> {
        &mut self.shared
    }

    fn ready(&self) -> usize {
        self.ready_count
    }

    fn ready_recipients(&self) -> usize {
        self.ready_recipients
    }

    fn waker(&self) -> io::Result<WakeUp> {
        let waker = Waker::new(self.poll.registry(), WAKE)?;
        Ok(Box::new(move || waker.wake()))
    }

    fn open_more(&mut self) -> Result<(), PacketError> {
        while self.opened < self.connections.len()
            && self.opened - self.ready_count < self.shared.spec.connect_window
        {
            let index = self.opened;
            let stream = open(
                self.shared.spec.target,
                index,
                self.shared.spec.source_salt,
                self.shared.spec.first,
            )
            .map_err(|error| {
                PacketError(format!(
                    "connection {} to {} cannot be opened: {error}",
                    index + 1,
                    self.shared.spec.target
                ))
            })?;
            let mut stream = TcpStream::from_std(stream);
            self.poll
                .registry()
                .register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)
                .map_err(|error| {
                    PacketError(format!("connection {} cannot be watched: {error}", index + 1))
                })?;
            self.connections[index].stream = Some(stream);
            self.opened += 1;
        }
        Ok(())
    }

    fn turn(&mut self, timeout: Duration) -> Result<(), PacketError> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                return Err(PacketError(format!("waiting for the sockets failed: {error}")));
            }
            _ => {}
        }
        self.ready.clear();
        let wanted = |event: &&Event| event.token() != WAKE;
        self.ready.extend(self.events.iter().filter(wanted).map(|event| {
            let ended = event.is_read_closed() || event.is_error();
            (
                event.token().0,
                event.is_readable() || ended,
                event.is_writable(),
                ended,
            )
        }));
        for position in 0..self.ready.len() {
            let (index, readable, writable, ended) = self.ready[position];
            if writable {
                self.writable(index)?;
            }
            if readable {
                self.readable(index, ended)?;
            }
        }
        Ok(())
    }

    fn pump_all(&mut self) -> Result<(), PacketError> {
        for index in self.shared.spec.recipients..self.connections.len() {
            self.pump(index)?;
        }
        Ok(())
    }

    fn due(&mut self, publisher: usize) -> Result<(), PacketError> {
        let now = self.now();
        let index = self.shared.spec.recipients + publisher;
        self.connections[index].client.due(now, &mut self.shared);
        self.pump(index)
    }

    fn ping_all(&mut self) -> Result<(), PacketError> {
        for index in 0..self.opened {
            self.out.clear();
            self.out.extend_from_slice(&packets::PINGREQ);
            self.flush(index)?;
        }
        Ok(())
    }

    fn unanswered(&self) -> u64 {
        self.connections
            .iter()
            .map(|connection| connection.client.unanswered())
            .sum()
    }

    fn close(&mut self) {
        for connection in &mut self.connections {
            if let Some(mut stream) = connection.stream.take() {
                // The run is over; a socket that takes no more is closed all the same.
                let _ = stream.write(&packets::DISCONNECT);
            }
        }
    }
}

/// One line for a connection that could not be made.
pub(crate) fn unreachable_broker(target: SocketAddr, index: usize, error: &dyn Display) -> String {
    format!(
        "connection {} to {target} failed: {error}; does a broker listen there?",
        index + 1
    )
}

fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Starts a connection; to a loopback target from an address of 127.0.0.0/8 that few others use, so that ports suffice.
fn open(target: SocketAddr, index: usize, salt: u8, first: usize) -> io::Result<std::net::TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if target.ip().is_loopback() && target.is_ipv4() {
        let source = source_address(first + index, salt);
        socket.bind(&SocketAddr::V4(SocketAddrV4::new(source, 0)).into())?;
    }
    match socket.connect(&target.into()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// `connect` has begun and goes on by itself (Linux).
const EINPROGRESS: i32 = 115;

fn source_address(index: usize, salt: u8) -> Ipv4Addr {
    let group = index / PER_SOURCE;
    Ipv4Addr::new(
        127,
        16 + salt % 200,
        (group / 250 % 256) as u8,
        (group % 250 + 1) as u8,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_source_address_carries_more_connections_than_it_has_ports_and_none_is_reserved() {
        let mut counts = std::collections::HashMap::new();
        for index in (0..1_000_000).step_by(PER_SOURCE) {
            let address = source_address(index, 255);
            assert!(address.is_loopback() && address.octets()[3] != 0 && address.octets()[3] != 255);
            *counts.entry(address).or_insert(0) += 1;
        }
        assert!(counts.values().all(|groups| *groups == 1));
    }
}
