//! Channels over links: bytes, windows, ends.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use common::*;
use godwit_links::{ABOUT_BYTES, Channel, WINDOW};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Random bytes, of which every channel sends a part.
fn random() -> Vec<u8> {
    let mut bytes = vec![0; 1024 * 1024];
    StdRng::seed_from_u64(7).fill(&mut bytes[..]);
    bytes
}

/// One end of a channel with something to send and something that it waits for.
struct End<'a> {
    channel: Channel,
    sends: &'a [u8],
    waits: &'a [u8],
    has_ended: bool,
}

impl End<'_> {
    /// Moves what moves; whether everything came, and the end.
    fn turn(&mut self, buffer: &mut [u8]) -> bool {
        if !self.sends.is_empty() {
            match self.channel.write(self.sends) {
                Ok(written) => self.sends = &self.sends[written..],
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            if self.sends.is_empty() {
                self.channel.shutdown();
            }
        }
        if !self.has_ended {
            match self.channel.read(buffer) {
                Ok(0) => {
                    assert!(self.waits.is_empty(), "ended too early");
                    self.has_ended = true;
                }
                Ok(read) => {
                    self.channel.taken(read);
                    assert!(self.waits.starts_with(&buffer[..read]), "not what was sent");
                    self.waits = &self.waits[read..];
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        self.has_ended && self.sends.is_empty()
    }
}

fn finish(mut ends: Vec<End<'_>>) {
    let mut buffer = vec![0; 16 * 1024];
    until("all ends", || {
        ends.retain_mut(|end| !end.turn(&mut buffer));
        ends.is_empty()
    });
}

#[test]
fn a_thousand_channels_carry_random_bytes_both_ways_to_their_ends() {
    let runtime = runtime();
    let (a, b) = two(runtime.handle());
    let random = random();
    let mut rng = StdRng::seed_from_u64(8);
    let (mut heres, mut theres) = (Vec::new(), Vec::new());
    for n in 0..1_000u32 {
        let about = Bytes::from(format!("channel {n}"));
        // Either side opens.
        let (from, to) = if n % 4 == 0 { (&b, &a) } else { (&a, &b) };
        let channel = from.links.open_channel(to.start, about.clone()).unwrap();
        let mut part = |longest: usize| {
            let length = rng.random_range(0..longest);
            let at = rng.random_range(0..random.len() - length);
            &random[at..at + length]
        };
        let (there, back) = (part(2 * WINDOW), part(2 * WINDOW));
        heres.push(End {
            channel,
            sends: there,
            waits: back,
            has_ended: false,
        });
        theres.push((to, about, there, back));
    }
    // What has nothing to send ends at once.
    for end in &heres {
        if end.sends.is_empty() {
            end.channel.shutdown();
        }
    }
    let theres: Vec<_> = theres
        .into_iter()
        .map(|(to, about, there, back)| {
            let channel = to.channel(&about);
            if back.is_empty() {
                channel.shutdown();
            }
            End {
                channel,
                sends: back,
                waits: there,
                has_ended: false,
            }
        })
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| finish(heres));
        finish(theres);
    });
    until("none left", || {
        a.metrics.channels() == 0 && b.metrics.channels() == 0
    });
}

#[test]
fn who_does_not_read_is_sent_a_window_and_holds_up_no_other_channel_and_no_request() {
    let runtime = runtime();
    let (a, b) = two(runtime.handle());
    let random = random();
    let open = |about: &'static str| {
        let about = Bytes::from(about);
        let channel = a.links.open_channel(b.start, about.clone()).unwrap();
        (channel, b.channel(&about))
    };
    let (slow, reader) = open("slow");
    let ready = counted(&slow);
    assert_eq!(slow.write(&random[..WINDOW + 1]).unwrap(), WINDOW);
    assert_eq!(slow.write(&random).unwrap_err().kind(), ErrorKind::WouldBlock);

    let (other, there) = open("other");
    let ends = [(other, &random[..], &[][..]), (there, &[][..], &random[..])];
    let ends = ends.map(|(channel, sends, waits)| {
        if sends.is_empty() {
            channel.shutdown();
        }
        End {
            channel,
            sends,
            waits,
            has_ended: false,
        }
    });
    finish(ends.into());
    a.send_all(b.start, &mut (1..=1_000).map(|n| request(n, n)).collect());
    until("answers", || a.answered() == 1_000);
    assert_eq!(slow.write(&random).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(ready.load(Ordering::SeqCst), 0);

    let mut all = Vec::new();
    let mut buffer = [0; 1_000];
    while all.len() < WINDOW {
        let read = reader.read(&mut buffer).unwrap();
        all.extend_from_slice(&buffer[..read]);
    }
    assert!(all == random[..WINDOW]);
    assert_eq!(
        reader.read(&mut buffer).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    assert_eq!(slow.untaken(), WINDOW, "what is only read is not taken");
    reader.taken(WINDOW);
    until("writable", || ready.load(Ordering::SeqCst) > 0);
    let late = counted(&slow);
    assert_eq!(late.load(Ordering::SeqCst), 1, "who asks late is told at once");
    assert!(slow.write(&random).unwrap() > 0);
}

/// How often it was said to be ready.
fn counted(channel: &Channel) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    channel.on_ready(Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    }));
    count
}

#[test]
fn ready_is_told_once_bytes_come_and_at_the_end_and_at_once_where_they_are_there() {
    let runtime = runtime();
    let (a, b) = two(runtime.handle());
    let about = Bytes::from("x");
    let here = a.links.open_channel(b.start, about.clone()).unwrap();
    let there = b.channel(&about);
    let ready = counted(&there);
    assert_eq!(ready.load(Ordering::SeqCst), 0);
    here.write(b"one").unwrap();
    until("ready", || ready.load(Ordering::SeqCst) == 1);
    assert_eq!(
        counted(&there).load(Ordering::SeqCst),
        1,
        "it can be read already"
    );
    let ready = counted(&there);
    let mut buffer = [0; 8];
    assert_eq!(there.read(&mut buffer).unwrap(), 3);
    here.shutdown();
    until("the end", || ready.load(Ordering::SeqCst) == 2);
    assert_eq!(there.read(&mut buffer).unwrap(), 0);
    assert_eq!(here.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
    // The other way is open still.
    there.taken(2);
    there.write(b"two").unwrap();
    until("the other way", || {
        here.read(&mut buffer).is_ok_and(|read| read == 3)
    });
    assert_eq!(here.untaken(), 3, "of what is at its end nothing is told");
    here.taken(2);
    assert_eq!(there.untaken(), 3);
    drop(here);
    until("the last word says what was taken", || there.untaken() == 1);
}

#[test]
fn a_channel_that_is_dropped_sends_what_was_written_and_ends_both_ways() {
    let runtime = runtime();
    let (a, b) = two(runtime.handle());
    let about = Bytes::from("x");
    let here = a.links.open_channel(b.start, about.clone()).unwrap();
    here.write(b"last words").unwrap();
    drop(here);
    let there = b.channel(&about);
    let mut buffer = [0; 64];
    let mut read = 0;
    until("the end", || match there.read(&mut buffer[read..]) {
        Ok(0) => true,
        Ok(more) => {
            read += more;
            false
        }
        Err(_) => false,
    });
    assert_eq!(&buffer[..read], b"last words");
    until("closed", || {
        there
            .write(b"x")
            .is_err_and(|error| error.kind() == ErrorKind::BrokenPipe)
    });
    drop(there);
    until("forgotten", || {
        a.metrics.channels() == 0 && b.metrics.channels() == 0
    });
}

#[test]
fn a_channel_that_the_node_does_not_take_ends() {
    let runtime = runtime();
    let (a, b) = two(runtime.handle());
    b.here.is_closed.store(true, Ordering::SeqCst);
    let channel = a.links.open_channel(b.start, Bytes::from("x")).unwrap();
    until("ended", || matches!(channel.read(&mut [0]), Ok(0)));
    until("closed", || {
        channel
            .write(b"x")
            .is_err_and(|error| error.kind() == ErrorKind::BrokenPipe)
    });
    let long = a.links.open_channel(b.start, vec![0; ABOUT_BYTES + 1].into());
    assert_eq!(long.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn channels_end_with_their_link_and_both_sides_see_that_it_was_no_proper_end() {
    let runtime = runtime();
    let (a, b) = (Node::start(runtime.handle(), 1), Node::start(runtime.handle(), 2));
    let proxy = Proxy::start(runtime.handle(), b.addr);
    let all = [a.is(), (b.start, proxy.addr.to_string())];
    a.links.known(&all);
    let none = a.links.open_channel(b.start, Bytes::new());
    assert_eq!(none.unwrap_err().kind(), ErrorKind::NotConnected);
    b.links.known(&all);
    up(&a, &b);
    let about = Bytes::from("x");
    let here = a.links.open_channel(b.start, about.clone()).unwrap();
    let there = b.channel(&about);
    let readies = [counted(&here), counted(&there)];
    proxy.cut();
    until("both told", || {
        readies.iter().all(|ready| ready.load(Ordering::SeqCst) == 1)
    });
    for channel in [&here, &there] {
        assert_eq!(
            channel.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        assert_eq!(
            channel.write(b"x").unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    }
    until("another link", || a.metrics.made() > 1);
    up(&a, &b);
    assert_eq!((a.metrics.channels(), b.metrics.channels()), (0, 0));
    let again = a.links.open_channel(b.start, Bytes::from("y")).unwrap();
    b.channel(&Bytes::from("y"));
    drop((here, there));
    until("ended", || matches!(again.read(&mut [0]), Ok(0)));
}

/// Bytes a second of one hundred channels; a figure, not a test.
#[test]
#[ignore = "a measurement"]
fn throughput_of_channels() {
    const CHANNELS: usize = 100;
    let runtime = runtime();
    let (a, b) = two(runtime.handle());
    let random = random();
    let abouts = (0..CHANNELS).map(|n| Bytes::from(n.to_string()));
    let end = |channel, sends, waits| End {
        channel,
        sends,
        waits,
        has_ended: false,
    };
    let pairs = abouts.map(|about| {
        let here = a.links.open_channel(b.start, about.clone()).unwrap();
        let there = b.channel(&about);
        there.shutdown();
        (end(here, &random[..], &[][..]), end(there, &[][..], &random[..]))
    });
    let (heres, theres): (Vec<_>, Vec<_>) = pairs.unzip();
    let from = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| finish(heres));
        finish(theres);
    });
    let rate = (CHANNELS * random.len()) as f64 / from.elapsed().as_secs_f64() / 1e6;
    println!("{CHANNELS} channels: {rate:.0} MB a second");
}
