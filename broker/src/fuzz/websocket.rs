//! WebSocket frames of a client, split anywhere: what comes out does not depend on where, is exactly what the frames
//! carried, and nothing larger than allowed is taken. The socket is a pair of this process.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::input::Input;
use crate::net::fuzzed::{GREETING_BYTES, Stream, WebSocketStream};

/// Most bytes of a stream: what the pair holds, so that nothing is ever held back.
const MOST: usize = 64 << 10;
/// Most bytes of a frame that is made, its header included.
const FRAME: usize = 255 * 100 + 14;

/// How a stream came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It did not.
    Open,
    /// The client said so.
    Closed,
    /// It broke the protocol or a limit.
    Failed,
}

/// The first byte says whether the rest are bytes or choices of which frames are made, and whether its client was let in;
/// the second where the stream is split.
pub fn websocket(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (form, seed) = (input.byte(), input.byte());
    let let_in = form & 2 != 0;
    if form & 1 == 0 {
        let stream = input.bytes(MOST);
        let whole = Client::new(let_in).take(stream, usize::MAX, seed);
        let split = Client::new(let_in).take(stream, 1 + usize::from(seed), seed);
        assert_eq!(
            whole.1, split.1,
            "how it ends depends on where the stream was split"
        );
        let (short, long) = match whole.0.len() < split.0.len() {
            true => (&whole.0, &split.0),
            false => (&split.0, &whole.0),
        };
        assert!(
            long.starts_with(short) && long.len() - short.len() <= begun(whole.1),
            "what comes out depends on where the stream was split: {} {}",
            long.escape_ascii(),
            short.escape_ascii()
        );
        return;
    }
    let (stream, expected) = frames(&mut input, let_in);
    let mut client = Client::new(let_in);
    let (content, end) = client.take(&stream, 1 + usize::from(seed) * 7, seed);
    assert_eq!(end, expected.end, "its end");
    let more = content.strip_prefix(&expected.content[..]).map(<[u8]>::len);
    assert!(
        more.is_some_and(|more| more <= begun(end)),
        "what the frames carried comes out: {} bytes, {more:?} more of {}",
        content.len(),
        expected.content.len()
    );
    if end == End::Open {
        client.write(&expected.content);
    }
    let pongs = client.pongs();
    assert!(pongs.len() <= expected.pings.len(), "no more answers than pings");
    assert!(
        pongs.iter().all(|pong| expected.pings.contains(pong)),
        "answers repeat pings"
    );
}

/// How much of a frame that is too large may come out: its beginning, so that who sent it can be told.
fn begun(end: End) -> usize {
    if end == End::Failed { 26 } else { 0 }
}

/// What should come of some frames.
struct Expected {
    content: Vec<u8>,
    end: End,
    pings: Vec<Vec<u8>>,
}

/// Frames as a right client makes them, but that they may be too large.
fn frames(input: &mut Input<'_>, let_in: bool) -> (Vec<u8>, Expected) {
    let most = if let_in { 1 << 20 } else { GREETING_BYTES };
    let mut expected = Expected {
        content: Vec::new(),
        end: End::Open,
        pings: Vec::new(),
    };
    let (mut stream, mut message) = (Vec::new(), None::<Vec<u8>>);
    while !input.is_empty() && expected.end != End::Closed && stream.len() + FRAME <= MOST {
        let (kind, len) = (input.byte(), usize::from(input.byte()));
        let control = || vec![kind; len % 126];
        let (first, content) = match kind & 7 {
            4 => {
                expected.pings.push(control());
                (0x89, control())
            }
            5 => (0x8a, control()),
            6 if kind & 0xf8 == 0xf8 && expected.end == End::Open => {
                expected.end = End::Closed;
                (0x88, Vec::new())
            }
            _ => {
                let content = vec![kind ^ 0x5a; if kind & 0x20 == 0 { len } else { len * 100 }];
                let last = kind & 0x40 != 0;
                let code = if message.is_some() { 0 } else { 2 };
                let so_far = message.get_or_insert_default();
                so_far.extend_from_slice(&content);
                if so_far.len() > most {
                    expected.end = End::Failed;
                } else if last && expected.end == End::Open {
                    expected.content.append(&mut message.take().unwrap_or_default());
                }
                (u8::from(last) << 7 | code, content)
            }
        };
        masked(&mut stream, first, &content, [kind, 0, len as u8, 0x77]);
    }
    (stream, expected)
}

fn masked(into: &mut Vec<u8>, first: u8, content: &[u8], mask: [u8; 4]) {
    into.push(first);
    // It fits: a frame has less than 2^16 bytes.
    match content.len() {
        len @ 0..126 => into.push(0x80 | len as u8),
        len => {
            into.push(0x80 | 126);
            into.extend_from_slice(&(len as u16).to_be_bytes());
        }
    }
    into.extend_from_slice(&mask);
    into.extend(
        content
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
}

/// Both ends.
struct Client {
    server: WebSocketStream,
    client: UnixStream,
    /// What the server wrote.
    answered: Vec<u8>,
}

impl Client {
    fn new(let_in: bool) -> Self {
        let (ours, client) = UnixStream::pair().expect("the system has two descriptors");
        for socket in [&ours, &client] {
            socket.set_nonblocking(true).expect("an open socket");
        }
        // The WebSocket only reads and writes it.
        let ours = TcpStream::from(OwnedFd::from(ours));
        let mut server = WebSocketStream::new(Stream::Tcp(mio::net::TcpStream::from_std(ours)), Vec::new());
        if let_in {
            server.let_in();
        }
        Self {
            server,
            client,
            answered: Vec::new(),
        }
    }

    /// Sends the stream in chunks of at most `most` bytes and reads what comes out after each.
    fn take(&mut self, stream: &[u8], most: usize, seed: u8) -> (Vec<u8>, End) {
        let (mut content, mut rest, mut state) = (Vec::new(), stream, usize::from(seed) + 1);
        while !rest.is_empty() {
            state = state.wrapping_mul(0x9e37_79b1).rotate_left(7);
            let (chunk, after) = rest.split_at((1 + state % most).min(rest.len()));
            rest = after;
            self.client.write_all(chunk).expect("the pair has room");
            let end = self.read(&mut content, chunk.len());
            self.hear();
            if end != End::Open {
                return (content, end);
            }
        }
        (content, End::Open)
    }

    /// Reads until nothing is left of what was sent.
    fn read(&mut self, content: &mut Vec<u8>, sent: usize) -> End {
        let mut buffer = [0; 4_096];
        // Each read that is cut has taken something: a byte, or a frame without content of two at least.
        for _ in 0..sent + MOST {
            match self.server.read(&mut buffer) {
                Ok(0) => return End::Closed,
                Ok(len) => content.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !self.server.cut() {
                        return End::Open;
                    }
                    self.hear();
                }
                Err(_) => return End::Failed,
            }
        }
        panic!("reading does not end");
    }

    /// Takes what the server wrote.
    fn hear(&mut self) {
        let mut buffer = [0; 4_096];
        while let Ok(len @ 1..) = self.client.read(&mut buffer) {
            self.answered.extend_from_slice(&buffer[..len]);
        }
    }

    /// Writes through the WebSocket: the client gets these bytes.
    fn write(&mut self, bytes: &[u8]) {
        self.hear();
        let before = self.frames().len();
        let mut rest = bytes;
        for _ in 0..bytes.len() + 64 {
            if rest.is_empty() {
                break;
            }
            match self.server.write(rest) {
                Ok(len) => rest = &rest[len..],
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
            self.hear();
        }
        assert!(rest.is_empty(), "writing does not end");
        let frames = self.frames();
        let data = frames[before..].iter().filter(|(first, _)| *first == 0x82);
        let got: Vec<u8> = data.flat_map(|(_, content)| content.iter().copied()).collect();
        assert!(got == bytes, "what is written arrives");
    }

    /// What the server wrote, frame by frame: first byte and content.
    fn frames(&self) -> Vec<(u8, Vec<u8>)> {
        let (mut frames, mut rest) = (Vec::new(), &self.answered[..]);
        while let [first, len, after @ ..] = rest {
            let (len, after) = match *len {
                126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
                len => (usize::from(len), after),
            };
            frames.push((*first, after[..len].to_vec()));
            rest = &after[len..];
        }
        frames
    }

    fn pongs(&self) -> Vec<Vec<u8>> {
        let all = self.frames().into_iter();
        all.filter(|(first, _)| *first == 0x8a)
            .map(|(_, content)| content)
            .collect()
    }
}
