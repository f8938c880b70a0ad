//! A WebSocket as a transport: binary frames that carry a stream of MQTT packets, split anywhere. Bounds what it holds
//! and what one read may cost; knows no MQTT.

use std::io::{self, Read, Write};

use rustls::pki_types::CertificateDer;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use super::GREETING_BYTES;
use super::frame_head::FrameHead;
use super::transport::TlsStream;

/// Largest frame, and largest message of fragments, before a client is let in: as its CONNECT.
const GREETING_FRAME_BYTES: usize = GREETING_BYTES;
/// The same afterwards. Clients put several packets into one frame, so it does not bound packets.
const FRAME_BYTES: usize = 1 << 20;
/// Bytes put into one frame.
const CHUNK_BYTES: usize = 32 << 10;
/// Most bytes waiting in the WebSocket for the socket: a frame and the pongs behind it.
const WAITING_BYTES: usize = 64 << 10;
/// Bytes taken from the socket at a time, and the buffer that each WebSocket holds for them.
const READ_BYTES: usize = 4 << 10;
/// Most bytes taken from the socket in one read: frames without content are looked at without end else.
const BYTES_A_READ: usize = 64 << 10;
/// Most messages without content in one read. Each ping of them costs a write.
const EMPTY_A_READ: usize = 64;

const _: () = assert!(
    CHUNK_BYTES + 16 < WAITING_BYTES,
    "an empty WebSocket takes a chunk"
);

/// What a WebSocket runs over.
pub(crate) enum Stream {
    Tcp(mio::net::TcpStream),
    Tls(TlsStream),
}

impl Stream {
    fn socket(&mut self) -> &mut mio::net::TcpStream {
        match self {
            Self::Tcp(socket) => socket,
            Self::Tls(stream) => stream.socket(),
        }
    }
}

/// A stream that counts: at the end of what one read may take it says that nothing is there.
struct Metered {
    stream: Stream,
    /// Bytes that may still be taken in this read.
    left: usize,
    /// This read was ended by its bound: there may be more.
    cut: bool,
    /// Bytes handed on since it was last set to 0.
    written: usize,
    /// Until its client is let in.
    head: Option<Box<FrameHead>>,
}

impl Read for Metered {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.cut = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let most = into.len().min(self.left);
        let into = into.get_mut(..most).unwrap_or_default();
        let read = match &mut self.stream {
            Stream::Tcp(socket) => socket.read(into),
            Stream::Tls(stream) => {
                let read = stream.read(into);
                self.cut |= stream.cut();
                read
            }
        };
        if let Ok(len) = read {
            self.left -= len;
            if let Some(head) = &mut self.head {
                head.came(into.get(..len).unwrap_or_default());
            }
        }
        read
    }
}

impl Write for Metered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.stream {
            Stream::Tcp(socket) => socket.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }?;
        self.written += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(socket) => socket.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

/// A WebSocket of the server's side.
pub(crate) struct WebSocketStream {
    socket: Box<WebSocket<Metered>>,
    /// What of the last frame was not read yet.
    rest: bytes::Bytes,
    /// The frame under way: the bytes of its content, and how many of them were said to be written.
    frame: Option<(usize, usize)>,
    /// A frame was larger than is taken. The library would go on to gather it.
    refused: bool,
}

fn config(frame_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(frame_bytes))
        .max_frame_size(Some(frame_bytes))
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(WAITING_BYTES)
}

/// The bytes before the content of a frame that is not masked (RFC 6455, 5.2).
fn header_len(content: usize) -> usize {
    match content {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

impl WebSocketStream {
    /// A WebSocket after its upgrade. Takes frames of [`GREETING_BYTES`] at most until [`Self::let_in`].
    pub(crate) fn new(stream: Stream, already_read: Vec<u8>) -> Self {
        let mut head = Box::new(FrameHead::default());
        head.came(&already_read);
        let stream = Metered {
            stream,
            left: 0,
            cut: false,
            written: 0,
            head: Some(head),
        };
        let config = config(GREETING_FRAME_BYTES);
        Self {
            socket: Box::new(WebSocket::from_partially_read(
                stream,
                already_read,
                Role::Server,
                Some(config),
            )),
            rest: bytes::Bytes::new(),
            frame: None,
            refused: false,
        }
    }

    /// Its client is known now: larger frames are taken.
    pub(crate) fn let_in(&mut self) {
        self.socket.get_mut().head = None;
        self.socket.set_config(|given| *given = config(FRAME_BYTES));
    }

    pub(crate) fn socket(&mut self) -> &mut mio::net::TcpStream {
        self.socket.get_mut().stream.socket()
    }

    /// Whether the last read was ended by its bound rather than by an empty socket.
    pub(crate) fn cut(&self) -> bool {
        self.socket.get_ref().cut
    }

    /// Whether a frame came that is larger than is taken.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused
    }

    /// The certificate of the client, and its authorities', that the handshake has verified, where it showed one.
    pub(crate) fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match &self.socket.get_ref().stream {
            Stream::Tcp(_) => None,
            Stream::Tls(stream) => stream.certificates(),
        }
    }

    /// Says goodbye, as far as the socket takes it now.
    pub(crate) fn end(&mut self) {
        let _ = self.socket.close(None);
        let _ = self.socket.flush();
        if let Stream::Tls(tls) = &mut self.socket.get_mut().stream {
            tls.end();
        }
    }

    /// A frame is larger than is taken. Before its client is let in, its beginning is given once, so that a CONNECT that is
    /// too large is answered.
    fn too_large(&mut self) -> io::Result<Message> {
        self.refused = true;
        let head = self.socket.get_mut().head.take();
        match head.map(|head| head.content()) {
            Some(content) if !content.is_empty() => Ok(Message::Binary(content.into())),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// How much of the frame under way went to the operating system since it was asked last.
    fn progress(&mut self) -> usize {
        let Some((content, said)) = self.frame else {
            return 0;
        };
        let written = self.socket.get_ref().written;
        let done = written.saturating_sub(header_len(content)).min(content);
        self.frame = (done < content).then_some((content, done));
        done - said
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
        let metered = self.socket.get_mut();
        (metered.left, metered.cut) = (BYTES_A_READ, false);
        for _ in 0..EMPTY_A_READ {
            if !self.rest.is_empty() {
                let taken = self.rest.len().min(into.len());
                into[..taken].copy_from_slice(&self.rest.split_to(taken));
                return Ok(taken);
            }
            if self.refused {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let message = match self.socket.read() {
                Err(tungstenite::Error::Capacity(_)) => self.too_large()?,
                read => read.map_err(plain)?,
            };
            match message {
                Message::Binary(bytes) => self.rest = bytes,
                Message::Close(_) => return Ok(0),
                // MQTT 5, 6.0: data frames are binary.
                Message::Text(_) => return Err(io::ErrorKind::InvalidData.into()),
                _ => {}
            }
        }
        self.socket.get_mut().cut = true;
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Only what the operating system has counts as written, so the same bytes are given again until it is.
impl Write for WebSocketStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let flushed = match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            flushed => flushed,
        };
        let progress = self.progress();
        if progress > 0 {
            return Ok(progress);
        }
        flushed?;
        let content = bytes.get(..CHUNK_BYTES).unwrap_or(bytes);
        self.socket.get_mut().written = 0;
        self.frame = Some((content.len(), 0));
        let message = Message::Binary(bytes::Bytes::copy_from_slice(content));
        match self.socket.write(message) {
            Ok(()) => {}
            // The frame is kept by the WebSocket and goes out with a later flush.
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(plain(error)),
        }
        match self.progress() {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            progress => Ok(progress),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush().map_err(plain)
    }
}
