//! Clients at a node that is not their user's home: two nodes, and pipes between them without a network.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use godwit_cluster::own::{Body, Group, Homes as _, Layout, Roles, Seat, Standing};
use godwit_cluster::{Peers, Pipe, Router, WorkersHomes};
use godwit_store::coordination::StartId;
use godwit_wire::ids::{Key, UserId};
use godwit_wire::peer::{PeerAnswer, PeerRequest};
use uuid::Uuid;

use super::rig::{Client, Rig, Saw, connect, publish};
use crate::net::{NetConfig, spliced};
use crate::wire_trait::CloseReason;

const WINDOW: usize = 64 << 10;

type OnReady = Arc<dyn Fn() + Send + Sync>;

/// One pipe: the client's end is 0, the home's 1.
#[derive(Default)]
struct Both {
    /// What an end wrote and the other has not read.
    written: [VecDeque<u8>; 2],
    /// All that an end wrote.
    all: [usize; 2],
    ended: [bool; 2],
    closed: [bool; 2],
    is_broken: bool,
    ready: [Option<OnReady>; 2],
}

struct End(Arc<Mutex<Both>>, usize);

fn tell(both: &Mutex<Both>, end: usize) {
    let ready = both.lock().unwrap().ready[end].clone();
    if let Some(ready) = ready {
        ready();
    }
}

impl Pipe for End {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Self(both, me) = self;
        let mut state = both.lock().unwrap();
        if state.is_broken {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let was_full = state.written[1 - *me].len() == WINDOW;
        let mut read = state.written[1 - *me].read(into)?;
        read += state.written[1 - *me].read(&mut into[read..])?;
        if read == 0 && !state.ended[1 - *me] {
            return Err(ErrorKind::WouldBlock.into());
        }
        drop(state);
        if was_full {
            tell(both, 1 - *me);
        }
        Ok(read)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self(both, me) = self;
        let mut state = both.lock().unwrap();
        if state.is_broken {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if state.ended[*me] || state.closed[1 - *me] {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let written = bytes.len().min(WINDOW - state.written[*me].len());
        if written == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        state.written[*me].extend(&bytes[..written]);
        state.all[*me] += written;
        drop(state);
        tell(both, 1 - *me);
        Ok(written)
    }

    fn shutdown(&mut self) {
        self.0.lock().unwrap().ended[self.1] = true;
        tell(&self.0, 1 - self.1);
    }

    fn on_ready(&mut self, on_ready: OnReady) {
        self.0.lock().unwrap().ready[self.1] = Some(on_ready);
        tell(&self.0, self.1);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.0.lock().unwrap();
        (state.ended[self.1], state.closed[self.1]) = (true, true);
        state.ready[self.1] = None;
        drop(state);
        tell(&self.0, 1 - self.1);
    }
}

/// What is between two nodes, and the end that the home has not taken yet.
type Between = (Arc<Mutex<Both>>, Option<End>);

/// The way to the other node.
#[derive(Default)]
struct Way {
    to: OnceLock<Router>,
    /// The other node takes nothing up, and is not told.
    is_kept: AtomicBool,
    is_down: AtomicBool,
    pipes: Mutex<Vec<Between>>,
}

impl Peers for Way {
    fn send(&self, _: StartId, _: &mut VecDeque<PeerRequest>) {}
    fn answer(&self, _: StartId, _: &mut Vec<(u64, PeerAnswer)>) {}
    fn reference(&self, node: StartId) -> Option<Arc<str>> {
        (node != start(4)).then(|| format!("n{}:1883", node.as_u128()).into())
    }
    fn splice(&self, _: StartId, about: Bytes) -> io::Result<Box<dyn Pipe>> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(ErrorKind::NotConnected.into());
        }
        let both = Arc::new(Mutex::new(Both::default()));
        let theirs = End(both.clone(), 1);
        let kept = match self.is_kept.load(Ordering::SeqCst) {
            true => Some(theirs),
            false => {
                spliced(self.to.get().unwrap(), start(1), &about, Box::new(theirs));
                None
            }
        };
        self.pipes.lock().unwrap().push((both.clone(), kept));
        Ok(Box::new(End(both, 0)))
    }
}

/// Where a client comes, its user's home, and the way there.
pub(super) struct Two {
    pub(super) here: Rig,
    pub(super) home: Rig,
    way: Arc<Way>,
    user: UserId,
}

/// A view of nodes that stay and nodes that leave. The first is never a home.
pub(super) fn view(number: u64, stay: &[u128], leave: &[u128]) -> Arc<Standing> {
    let seat = |(node, leaving): (&u128, bool)| Seat {
        start: start(*node),
        name: format!("n{node}").into(),
        roles: if *node == 1 { Roles::API } else { Roles::ALL },
        leaving,
    };
    let stay = stay.iter().map(|node| (node, false));
    let seats = stay.chain(leave.iter().map(|node| (node, true))).map(seat);
    let body = Body {
        seats: seats.collect(),
        ..Body::default()
    };
    Arc::new(Standing::of(number, Uuid::nil(), body, Layout::PRODUCT))
}

fn start(node: u128) -> StartId {
    Uuid::from_u128(node)
}

pub(super) fn in_time(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Two {
    fn unknown() -> Self {
        let way = Arc::new(Way::default());
        let here = Rig::among(NetConfig::default(), way.clone());
        let home = Rig::among(NetConfig::default(), Arc::new(Way::default()));
        assert!(way.to.set(home.router().clone()).is_ok());
        Self {
            here,
            home,
            way,
            user: UserId::fresh(),
        }
    }

    /// The home takes the user up, and the other learns of it.
    fn take_up(&self) {
        let slot = Layout::PRODUCT.slot(Group::Users, Key::User(self.user).shard());
        let homes = WorkersHomes::new(self.home.router().clone());
        homes.begin(start(2));
        homes.take_up(1, vec![slot]);
        homes.moved(view(1, &[1, 2], &[]));
        self.tell(1, &view(1, &[1, 2], &[]));
    }

    /// A node learns how the others stand.
    pub(super) fn tell(&self, node: u128, standing: &Arc<Standing>) {
        let rig = if node == 1 { &self.here } else { &self.home };
        let homes = WorkersHomes::new(rig.router().clone());
        homes.begin(start(node));
        homes.moved(standing.clone());
    }

    /// The home gives the user up by this view.
    pub(super) fn give_up(&self, standing: &Arc<Standing>) {
        self.tell(2, standing);
        let slot = Layout::PRODUCT.slot(Group::Users, Key::User(self.user).shard());
        let homes = WorkersHomes::new(self.home.router().clone());
        // All that matters of it is done when the workers have taken it.
        drop(homes.let_go(standing.number, vec![slot]));
    }

    pub(super) fn new() -> Self {
        let two = Self::unknown();
        two.take_up();
        two
    }

    pub(super) fn connect(&self, level: u8) -> Vec<u8> {
        connect(level, "c", 0, Some((&self.user.to_string(), "good")))
    }

    /// Nothing of any connection is left, here or at home.
    pub(super) fn is_empty(&self) {
        in_time("something is left", || {
            let left = |rig: &Rig| {
                let metrics = &rig.metrics;
                metrics.connections.get() + metrics.spliced_here.get() + metrics.spliced_home.get()
            };
            left(&self.here) + left(&self.home) == 0
        });
        assert_eq!(self.here.metrics.kept_bytes.get(), 0);
        let pipes = self.way.pipes.lock().unwrap();
        assert!(
            pipes
                .iter()
                .all(|(both, _)| both.lock().unwrap().closed == [true; 2])
        );
    }
}

pub(super) fn comes_in(client: &mut Client) {
    let connack = client.packet().unwrap();
    assert_eq!((connack[0], connack[3]), (0x20, 0));
}

#[test]
fn clients_of_both_versions_are_served_at_any_node_and_their_disconnect_arrives() {
    let two = Two::new();
    for level in [4, 5] {
        let mut client = two.here.client();
        client.write(&two.connect(level));
        comes_in(&mut client);
        assert_eq!(two.here.metrics.spliced_here.get(), 1);
        assert_eq!(two.home.metrics.spliced_home.get(), 1);
        if level == 5 {
            client.write(&publish("large", 7, &[3; 250_000]));
            assert_eq!(client.packet().unwrap(), [0x40, 2, 0, 7]);
            two.home.wait_for(&Saw::Publish("large".into(), 250_000));
        }
        client.write(&[0xe0, 0]);
        let _ = client.0.shutdown(Shutdown::Write);
        two.home
            .wait(|saw| saw.iter().filter(|saw| **saw == Saw::Disconnect).count() == usize::from(level) - 3);
        assert_eq!(client.packet(), None);
    }
    two.is_empty();
    assert!(
        two.here.shared.saw.lock().unwrap().is_empty(),
        "it is not looked at here"
    );
}

#[test]
fn a_connect_goes_as_it_came_and_nothing_behind_it_before_the_home_has_spoken() {
    let two = Two::new();
    two.way.is_kept.store(true, Ordering::SeqCst);
    let mut client = two.here.client();
    let (first, then) = (two.connect(4), publish("t", 1, b"early"));
    client.write(&[&first[..], &then].concat());
    let mut end = loop {
        if let Some((_, end)) = two.way.pipes.lock().unwrap().first_mut() {
            break end.take().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    std::thread::sleep(Duration::from_millis(50));
    let mut got = [0; 4_096];
    let len = end.read(&mut got).unwrap();
    assert_eq!(&got[..len], &first[..]);
    end.write(&[0x20, 2, 0, 0]).unwrap();
    comes_in_v4(&mut client);
    let mut rest = Vec::new();
    in_time("the rest does not come", || {
        if let Ok(len) = end.read(&mut got) {
            rest.extend_from_slice(&got[..len]);
        }
        rest.len() >= then.len()
    });
    assert_eq!(rest, then);
    // What is said last arrives, and then the end.
    end.write(&[0xe0, 0]).unwrap();
    drop(end);
    assert_eq!(client.packet().unwrap(), [0xe0, 0]);
    assert!(client.ends_in_order());
    drop(client);
    two.is_empty();
}

fn comes_in_v4(client: &mut Client) {
    assert_eq!(client.packet().unwrap(), [0x20, 2, 0, 0]);
}

#[test]
fn who_does_not_read_holds_up_its_home_and_who_is_not_read_its_client() {
    let two = Two::new();
    let mut client = two.here.client();
    client.write(&two.connect(5));
    comes_in(&mut client);
    client.write(&publish("flood", 1, b""));
    std::thread::sleep(Duration::from_millis(300));
    let kept = two.here.metrics.kept_bytes.get();
    assert!(kept <= 16 << 10, "{kept} bytes are kept here");
    let (mut floods, mut acked) = (0, false);
    while floods < 4_000 || !acked {
        match client.packet().unwrap()[0] {
            0x30 => floods += 1,
            _ => acked = true,
        }
    }
    drop(client);
    two.home.wait_for(&Saw::Closed(CloseReason::Gone));
    two.is_empty();

    two.way.is_kept.store(true, Ordering::SeqCst);
    let mut client = two.here.client();
    client.write(&two.connect(5));
    let both = loop {
        if let Some((both, Some(end))) = two.way.pipes.lock().unwrap().get_mut(1) {
            end.write(&[0x20, 3, 0, 0, 0]).unwrap();
            break both.clone();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    comes_in(&mut client);
    client.0.set_nonblocking(true).unwrap();
    // Until neither the socket nor the pipe takes more, for a while.
    let (mut sent, mut quiet) = (0, 0);
    while quiet < 20 {
        match io::Write::write(&mut client.0, &[0; 64 << 10]) {
            Ok(len) => (sent, quiet) = (sent + len, 0),
            Err(_) => {
                quiet += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    let taken = both.lock().unwrap().all[0];
    assert!(taken < sent && taken <= WINDOW, "{taken} of {sent}");
    drop(client);
    two.way.pipes.lock().unwrap().clear();
    in_time("its place is held", || two.here.metrics.connections.get() == 0);
}

#[test]
fn who_comes_while_the_home_is_nobodys_gets_in_when_it_is_taken_up() {
    let two = Two::unknown();
    let mut client = two.here.client();
    client.write(&two.connect(4));
    in_time("it does not wait", || two.here.metrics.awaited_home.get() == 1);
    two.take_up();
    comes_in(&mut client);
    drop(client);
    two.is_empty();
}

#[test]
fn a_way_that_breaks_ends_the_connection_and_before_the_first_word_it_is_tried_again() {
    let two = Two::new();
    let cut = |at: usize| {
        let both = two.way.pipes.lock().unwrap()[at].0.clone();
        both.lock().unwrap().is_broken = true;
        tell(&both, 0);
        tell(&both, 1);
    };
    let mut client = two.here.client();
    client.write(&two.connect(5));
    comes_in(&mut client);
    cut(0);
    assert_eq!(client.packet(), None);
    two.home.wait_for(&Saw::Closed(CloseReason::Gone));
    drop(client);
    two.is_empty();

    two.way.is_kept.store(true, Ordering::SeqCst);
    let mut client = two.here.client();
    client.write(&two.connect(5));
    in_time("it is not passed on", || two.way.pipes.lock().unwrap().len() == 2);
    two.way.is_kept.store(false, Ordering::SeqCst);
    cut(1);
    comes_in(&mut client);
}

#[test]
fn who_cannot_be_passed_on_in_time_is_turned_away() {
    let two = Two::new();
    two.way.is_down.store(true, Ordering::SeqCst);
    let mut client = two.here.client();
    client.write(&two.connect(4));
    assert_eq!(
        client.packet().unwrap(),
        [0x20, 2, 0, 3],
        "3.1.1 says: server unavailable"
    );
    drop(client);
    two.is_empty();
    assert_eq!(two.here.refused("elsewhere"), 1);
}
