//! What a connection runs over: a TCP socket, TLS on it, a WebSocket on either. All are bytes in and bytes out, never
//! blocking; nothing here knows MQTT.

use std::io::{self, Read, Write};

use rustls::ServerConnection;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

/// A TLS session and its socket.
pub(crate) struct TlsStream {
    socket: mio::net::TcpStream,
    tls: Box<ServerConnection>,
}

impl TlsStream {
    pub(crate) fn new(socket: mio::net::TcpStream, tls: Box<ServerConnection>) -> Self {
        Self { socket, tls }
    }

    /// Says that nothing more will come, as far as the socket takes it now.
    fn end(&mut self) {
        self.tls.send_close_notify();
        let _ = self.push();
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
        loop {
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
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push()?;
        if self.tls.is_handshaking() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = self.tls.writer().write(bytes)?;
        match self.push() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ if taken == 0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

/// What a WebSocket runs over.
pub(crate) enum Stream {
    Tcp(mio::net::TcpStream),
    Tls(TlsStream),
}

impl Stream {
    pub(crate) fn socket(&mut self) -> &mut mio::net::TcpStream {
        match self {
            Self::Tcp(socket) => socket,
            Self::Tls(stream) => &mut stream.socket,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A WebSocket whose binary frames carry a stream of MQTT packets, split anywhere.
pub(crate) struct WebSocketStream {
    socket: Box<WebSocket<Stream>>,
    /// What of the last frame was not read yet.
    rest: bytes::Bytes,
}

/// Largest frame taken; packets may span frames, so it does not bound packets.
const FRAME_BYTES: usize = 1 << 20;
/// Most bytes waiting in the WebSocket for the socket; the connection keeps the rest.
const WAITING_BYTES: usize = 64 << 10;

impl WebSocketStream {
    pub(crate) fn new(stream: Stream, already_read: &[u8]) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(FRAME_BYTES))
            .max_frame_size(Some(FRAME_BYTES))
            .read_buffer_size(4 << 10)
            .write_buffer_size(0)
            .max_write_buffer_size(WAITING_BYTES);
        let socket =
            WebSocket::from_partially_read(stream, already_read.to_vec(), Role::Server, Some(config));
        Self {
            socket: Box::new(socket),
            rest: bytes::Bytes::new(),
        }
    }
}

fn plain(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::WriteBufferFull(_) => io::ErrorKind::WouldBlock.into(),
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            io::ErrorKind::ConnectionAborted.into()
        }
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

impl Read for WebSocketStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.socket.read().map_err(plain)? {
                Message::Binary(bytes) => self.rest = bytes,
                Message::Close(_) => return Ok(0),
                // MQTT 5, 6.0: data frames are binary.
                Message::Text(_) => return Err(io::ErrorKind::InvalidData.into()),
                _ => {}
            }
        }
        let taken = self.rest.len().min(into.len());
        into[..taken].copy_from_slice(&self.rest.split_to(taken));
        Ok(taken)
    }
}

impl Write for WebSocketStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What waits goes first: a full WebSocket does not try by itself.
        self.flush()?;
        let taken = bytes.len().min(WAITING_BYTES / 2);
        let message = Message::Binary(bytes::Bytes::copy_from_slice(&bytes[..taken]));
        match self.socket.write(message) {
            Ok(()) => {}
            // The frame is kept by the WebSocket and goes out with a later flush.
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(plain(error)),
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush().map_err(plain)
    }
}

/// A connection's bytes.
pub(crate) enum Transport {
    Tcp(mio::net::TcpStream),
    Tls(Box<TlsStream>),
    WebSocket(Box<WebSocketStream>),
}

impl Transport {
    pub(crate) fn socket(&mut self) -> &mut mio::net::TcpStream {
        match self {
            Self::Tcp(socket) => socket,
            Self::Tls(stream) => &mut stream.socket,
            Self::WebSocket(stream) => stream.socket.get_mut().socket(),
        }
    }

    /// Says that nothing more will come, as far as the socket takes it now. Failures mean that the other side is gone.
    pub(crate) fn end(&mut self) {
        match self {
            Self::Tcp(_) => {}
            Self::Tls(stream) => stream.end(),
            Self::WebSocket(stream) => {
                let _ = stream.socket.close(None);
                let _ = stream.socket.flush();
                if let Stream::Tls(tls) = stream.socket.get_mut() {
                    tls.end();
                }
            }
        }
        let _ = self.socket().shutdown(std::net::Shutdown::Write);
    }

    /// Whether a read that did not fill the buffer emptied the socket: then no further one is needed until the next
    /// readiness.
    pub(crate) fn short_read_is_empty(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }
}

impl Read for Transport {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(into),
            Self::Tls(stream) => stream.read(into),
            Self::WebSocket(stream) => stream.read(into),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
            Self::WebSocket(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
            Self::WebSocket(stream) => stream.flush(),
        }
    }
}
