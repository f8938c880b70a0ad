//! What a connection runs over: a TCP socket, TLS on it, a WebSocket on either (in `websocket`), a pipe to another node (in `spliced`). All are bytes in and
//! bytes out, never blocking; nothing here knows MQTT.

use std::io::{self, Read, Write};
use std::time::Duration;

use rustls::ServerConnection;
use rustls::pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};

use super::proxy::Announcing;
use super::spliced::{Spliced, Told};
use super::tls::{Certified, certified};
use super::websocket::WebSocketStream;

/// Bytes given to TLS at a time: one record. It is of no use to the client before its last byte, so that a record that
/// was not wholly handed to the operating system was certainly not read.
const RECORD_BYTES: usize = 16 << 10;
/// Most reads of the socket (of 4 KiB) in one read: a handshake in crumbs has its end.
const TLS_READS: usize = 16;
/// Silence after which the operating system asks whether the other side is there, and the time between the questions, of
/// which it asks nine: about ten minutes from a lost network to the end, and no traffic worth a word.
const PROBE_AFTER: Duration = Duration::from_secs(300);
const PROBE_EVERY: Duration = Duration::from_secs(30);

/// A TLS session and its socket.
pub(crate) struct TlsStream {
    socket: mio::net::TcpStream,
    tls: Box<ServerConnection>,
    /// Bytes of the record that was given to TLS and is not wholly written.
    record: usize,
    cut: bool,
}

impl TlsStream {
    pub(crate) fn new(socket: mio::net::TcpStream, tls: Box<ServerConnection>) -> Self {
        Self {
            socket,
            tls,
            record: 0,
            cut: false,
        }
    }

    pub(crate) fn socket(&mut self) -> &mut mio::net::TcpStream {
        &mut self.socket
    }

    /// Whether the last read was ended by its bound rather than by an empty socket.
    pub(crate) fn cut(&self) -> bool {
        self.cut
    }

    /// The certificate of the client, and its authorities', that the handshake has verified, where it showed one.
    pub(crate) fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.tls.peer_certificates()
    }

    /// Says that nothing more will come, as far as the socket takes it now.
    pub(crate) fn end(&mut self) {
        self.tls.send_close_notify();
        let _ = self.push();
    }

    /// What is read next may cost a signature.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    fn push(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

impl Read for TlsStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.cut = false;
        for _ in 0..TLS_READS {
            match self.tls.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Ok(0),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
            let judged = self.tls.process_new_packets();
            // Handshake answers and alerts go out as far as the socket takes them; the rest at the next writability.
            match self.push() {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
            judged.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        self.cut = true;
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Only what the operating system has counts as written, so the same bytes are given again until it is.
impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push()?;
        let record = std::mem::take(&mut self.record);
        if record > 0 {
            return Ok(record);
        }
        if self.tls.is_handshaking() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = bytes.get(..RECORD_BYTES).unwrap_or(bytes);
        let taken = self.tls.writer().write(bytes)?;
        match self.push() {
            Ok(()) if taken > 0 => Ok(taken),
            Ok(()) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => {
                self.record = taken;
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

/// A connection's bytes.
pub(crate) enum Transport {
    Tcp(mio::net::TcpStream),
    Tls(Box<TlsStream>),
    WebSocket(Box<WebSocketStream>),
    /// Its client came to another node.
    Spliced(Box<Spliced>),
    /// A balancer has not announced its client yet; nothing is read or written.
    Announcing(Box<Announcing>),
}

impl Transport {
    /// `None`: it has none of its own.
    pub(crate) fn socket(&mut self) -> Option<&mut mio::net::TcpStream> {
        match self {
            Self::Tcp(socket) => Some(socket),
            Self::Tls(stream) => Some(stream.socket()),
            Self::WebSocket(stream) => Some(stream.socket()),
            Self::Spliced(_) => None,
            Self::Announcing(announcing) => Some(&mut announcing.socket),
        }
    }

    /// Bytes as they are on the way, to be thrown away.
    pub(crate) fn read_away(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Spliced(stream) => stream.read(into),
            other => other.socket().map_or(Ok(0), |socket| socket.read(into)),
        }
    }

    /// What another node told of it, until it was asked for.
    pub(super) fn told(&mut self) -> Option<Told> {
        match self {
            Self::Spliced(stream) => stream.told.take(),
            _ => None,
        }
    }

    /// Who the client is by its certificate, where it showed one; `None` in it: that names nobody.
    pub(super) fn certified(&self) -> Option<Option<Certified>> {
        match self {
            Self::Spliced(stream) => stream.certified.clone().map(Some),
            other => other.certificates()?.first().map(certified),
        }
    }

    /// The certificate of the client, and its authorities', that the handshake has verified, where it showed one.
    pub(crate) fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match self {
            Self::Tcp(_) | Self::Announcing(_) | Self::Spliced(_) => None,
            Self::Tls(stream) => stream.certificates(),
            Self::WebSocket(stream) => stream.certificates(),
        }
    }

    /// Its client is known now: more is held for it.
    pub(crate) fn let_in(&mut self) {
        if let Self::WebSocket(stream) = self {
            stream.let_in();
        }
    }

    /// Lets the operating system find out that the other side has vanished.
    pub(crate) fn probe(&mut self) {
        let keepalive = TcpKeepalive::new()
            .with_time(PROBE_AFTER)
            .with_interval(PROBE_EVERY);
        if let Some(socket) = self.socket() {
            // A socket that refuses it is gone and will say so.
            let _ = SockRef::from(&*socket).set_tcp_keepalive(&keepalive);
        }
    }

    /// What the other side has not taken goes when the socket is closed, not minutes later. A refusal changes no more than that.
    pub(crate) fn abort(&mut self) {
        if let Some(socket) = self.socket() {
            let _ = SockRef::from(&*socket).set_linger(Some(Duration::ZERO));
        }
    }

    /// Says that nothing more will come, as far as the socket takes it now. Failures mean that the other side is gone.
    pub(crate) fn end(&mut self) {
        match self {
            Self::Tcp(_) | Self::Announcing(_) => {}
            Self::Tls(stream) => stream.end(),
            Self::WebSocket(stream) => stream.end(),
            Self::Spliced(stream) => stream.pipe.shutdown(),
        }
        if let Some(socket) = self.socket() {
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
    }

    /// Whether a read that did not fill the buffer emptied the socket: then no further one is needed until the next
    /// readiness.
    pub(crate) fn short_read_is_empty(&self) -> bool {
        // The end of a spliced connection may have come with what was read, and is not told again.
        matches!(self, Self::Tcp(_))
    }

    /// Whether the last read, which would have blocked, was ended by its bound: there may be more without a readiness.
    pub(crate) fn cut(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Announcing(_) | Self::Spliced(_) => false,
            Self::Tls(stream) => stream.cut(),
            Self::WebSocket(stream) => stream.cut(),
        }
    }

    /// Whether what came was larger than is taken at all, below MQTT.
    pub(crate) fn has_refused(&self) -> bool {
        matches!(self, Self::WebSocket(stream) if stream.has_refused())
    }
}

impl Read for Transport {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(into),
            Self::Tls(stream) => stream.read(into),
            Self::WebSocket(stream) => stream.read(into),
            Self::Spliced(stream) => stream.read(into),
            Self::Announcing(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
            Self::WebSocket(stream) => stream.write(bytes),
            Self::Spliced(stream) => stream.write(bytes),
            Self::Announcing(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Announcing(_) => Ok(()),
            Self::Spliced(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
            Self::WebSocket(stream) => stream.flush(),
        }
    }
}
