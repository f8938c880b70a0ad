//! A client on a bare socket, from a source address of its own choice: sends what it is given, reads what comes, waits for
//! the end. Nothing happens by itself, not even an acknowledgement.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::wire::{self, Hello, Packet, kind};

/// How long something that must come may take: a loaded machine is not the server's fault.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    old: bool,
    input: Vec<u8>,
    taken: usize,
}

/// The source address with this number, 127.1.0.1 and up: attackers have more than one.
pub fn address(number: usize) -> Ipv4Addr {
    let number = u32::try_from(number % 60_000).unwrap_or_default() + 1;
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number)
}

impl Peer {
    /// A connection on which nothing was sent.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn bare(port: u16, from: usize) -> Result<Self> {
        Self::with_buffer(port, from, None).await
    }

    /// The same with the smallest receive buffer.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn bare_slow(port: u16, from: usize) -> Result<Self> {
        Self::with_buffer(port, from, Some(4_096)).await
    }

    pub(crate) async fn with_buffer(port: u16, from: usize, bytes: Option<u32>) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind(SocketAddr::from((address(from), 0)))?;
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = timeout(PATIENCE, socket.connect(to)).await.context("connect")??;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            old: false,
            input: Vec::new(),
            taken: 0,
        })
    }

    /// Over a socket that is connected already. What is unsent when it is dropped is thrown away.
    ///
    /// # Errors
    /// When it is gone.
    pub fn over(stream: std::net::TcpStream) -> Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream)?;
        stream.set_nodelay(true)?;
        stream.set_zero_linger()?;
        Ok(Self {
            stream,
            old: false,
            input: Vec::new(),
            taken: 0,
        })
    }

    /// Connected; the CONNACK must say 0.
    ///
    /// # Errors
    /// When it does not.
    pub async fn open(port: u16, from: usize, hello: &Hello) -> Result<Self> {
        let (peer, connack) = Self::ask(port, from, hello).await?;
        match connack {
            Some(packet) if packet.is_welcome() => Ok(peer),
            Some(packet) => bail!("CONNACK {:#04x} for {}", packet.code(), hello.client),
            None => bail!("no CONNACK for {}", hello.client),
        }
    }

    /// The same over a socket that is connected already.
    ///
    /// # Errors
    /// When it does not.
    pub async fn open_over(stream: std::net::TcpStream, hello: &Hello) -> Result<Self> {
        let mut peer = Self::over(stream)?;
        match peer.greet(hello).await? {
            Some(packet) if packet.is_welcome() => Ok(peer),
            other => bail!("{other:?} in place of a welcome for {}", hello.client),
        }
    }

    /// Sends a CONNECT and gives what comes.
    ///
    /// # Errors
    /// When nothing comes.
    pub async fn ask(port: u16, from: usize, hello: &Hello) -> Result<(Self, Option<Packet>)> {
        let mut peer = Self::bare(port, from).await?;
        let connack = peer.greet(hello).await?;
        Ok((peer, connack))
    }

    /// Sends a CONNECT on what was bare, and gives what comes; None: closed.
    ///
    /// # Errors
    /// When nothing comes.
    pub async fn greet(&mut self, hello: &Hello) -> Result<Option<Packet>> {
        self.old = hello.old;
        self.send_anyway(&wire::connect(hello)).await;
        self.next().await
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When the connection is gone, or takes nothing.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes))
            .await
            .context("the server takes nothing")??;
        Ok(())
    }

    /// The same where the server may have closed already.
    pub async fn send_anyway(&mut self, bytes: &[u8]) {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes)).await;
    }

    /// Says that nothing more comes; what the server sends may still be read.
    pub async fn finish(&mut self) {
        let _ = timeout(PATIENCE, self.stream.shutdown()).await;
    }

    /// The next packet; None: closed.
    ///
    /// # Errors
    /// When nothing comes in [`PATIENCE`].
    pub async fn next(&mut self) -> Result<Option<Packet>> {
        self.next_within(PATIENCE).await?.context("nothing came")
    }

    /// The next packet; `Some(None)`: closed; `None`: nothing in time. May be cancelled.
    ///
    /// # Errors
    /// None now.
    pub async fn next_within(&mut self, time: Duration) -> Result<Option<Option<Packet>>> {
        let until = Instant::now() + time;
        loop {
            let bytes = self.input.get(self.taken..).unwrap_or_default();
            if let Some((packet, length)) = Packet::parse(self.old, bytes) {
                self.taken += length;
                return Ok(Some(Some(packet)));
            }
            self.input.drain(..self.taken);
            self.taken = 0;
            let left = until.saturating_duration_since(Instant::now());
            match timeout(left, self.stream.read_buf(&mut self.input)).await {
                Err(_) => return Ok(None),
                Ok(Ok(count)) if count > 0 => {}
                Ok(_) => return Ok(Some(None)),
            }
        }
    }

    /// The next packet of this type; others are passed over.
    ///
    /// # Errors
    /// When the connection ends first, or nothing comes.
    pub async fn expect(&mut self, kind: u8) -> Result<Packet> {
        loop {
            match self.next().await? {
                Some(packet) if packet.kind() == kind => return Ok(packet),
                Some(packet) if packet.kind() == wire::kind::DISCONNECT => {
                    bail!("DISCONNECT {:#04x} in place of type {kind}", packet.code())
                }
                Some(_) => {}
                None => bail!("closed in place of type {kind}"),
            }
        }
    }

    /// Waits for the end; gives the code of a DISCONNECT (or CONNACK) before it.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn ended(&mut self, within: Duration) -> Result<Option<u8>> {
        let until = Instant::now() + within;
        let mut code = None;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.next_within(left).await? {
                None => bail!("still open after {within:?}"),
                Some(None) => return Ok(code),
                Some(Some(packet)) if matches!(packet.kind(), kind::DISCONNECT | kind::CONNACK) => {
                    code = Some(packet.code());
                }
                Some(Some(_)) => {}
            }
        }
    }

    /// SUBSCRIBE; the codes.
    ///
    /// # Errors
    /// When no SUBACK comes.
    pub async fn subscribe<S: AsRef<[u8]>>(&mut self, filters: &[S], qos: u8) -> Result<Vec<u8>> {
        self.send_anyway(&wire::subscribe(self.old, 9, filters, qos))
            .await;
        Ok(self.expect(kind::SUBACK).await?.codes().to_vec())
    }

    /// Publishes with QoS 1; the code.
    ///
    /// # Errors
    /// When no PUBACK comes.
    pub async fn publish(&mut self, topic: &str, payload: &[u8], retain: bool) -> Result<u8> {
        self.send_anyway(&wire::publish(self.old, topic, payload, 1, retain, 7))
            .await;
        Ok(self.expect(kind::PUBACK).await?.code())
    }

    /// A PINGREQ is answered: everything before it was read.
    ///
    /// # Errors
    /// When it is not.
    pub async fn ping(&mut self) -> Result<()> {
        self.send(&wire::PINGREQ).await?;
        self.expect(kind::PINGRESP).await.map(drop)
    }

    /// Bytes as they come, for what is not MQTT; empty: closed or nothing in time.
    pub async fn raw(&mut self, within: Duration) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 << 10);
        let _ = timeout(within, self.stream.read_buf(&mut bytes)).await;
        bytes
    }
}
