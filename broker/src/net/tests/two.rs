//! Two nodes, and pipes between them without a network: what the tests of connections that are passed on speak to.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _};
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

use super::rig::{Client, Rig, connect};
use crate::net::{NetConfig, spliced};

pub(super) const WINDOW: usize = 64 << 10;

type OnReady = Arc<dyn Fn() + Send + Sync>;

/// One pipe: the client's end is 0, the home's 1.
#[derive(Default)]
pub(super) struct Both {
    /// What an end wrote and the other has not read.
    pub(super) written: [VecDeque<u8>; 2],
    /// All that an end wrote.
    pub(super) all: [usize; 2],
    /// Of which the other has not taken so many.
    pub(super) untaken: [usize; 2],
    pub(super) ended: [bool; 2],
    pub(super) closed: [bool; 2],
    pub(super) is_broken: bool,
    pub(super) ready: [Option<OnReady>; 2],
}

pub(super) struct End(pub(super) Arc<Mutex<Both>>, pub(super) usize);

pub(super) fn tell(both: &Mutex<Both>, end: usize) {
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
        let mut read = state.written[1 - *me].read(into)?;
        read += state.written[1 - *me].read(&mut into[read..])?;
        if read == 0 && !state.ended[1 - *me] {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(read)
    }

    fn taken(&mut self, bytes: usize) {
        let Self(both, me) = self;
        let mut state = both.lock().unwrap();
        let was_full = state.untaken[1 - *me] == WINDOW;
        state.untaken[1 - *me] -= bytes;
        drop(state);
        if was_full {
            tell(both, 1 - *me);
        }
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
        let written = bytes.len().min(WINDOW - state.untaken[*me]);
        if written == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        state.written[*me].extend(&bytes[..written]);
        state.all[*me] += written;
        state.untaken[*me] += written;
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
pub(super) type Between = (Arc<Mutex<Both>>, Option<End>);

/// The way to the other node.
#[derive(Default)]
pub(super) struct Way {
    pub(super) to: OnceLock<Router>,
    /// The other node takes nothing up, and is not told.
    pub(super) is_kept: AtomicBool,
    pub(super) is_down: AtomicBool,
    /// What this node asks of the other, which does not hear it.
    pub(super) sent: Mutex<Vec<PeerRequest>>,
    /// What was told of the last connection.
    pub(super) about: Mutex<Bytes>,
    pub(super) pipes: Mutex<Vec<Between>>,
}

impl Peers for Way {
    fn send(&self, _: StartId, requests: &mut VecDeque<PeerRequest>) {
        self.sent.lock().unwrap().extend(requests.drain(..));
    }
    fn answer(&self, _: StartId, _: &mut Vec<(u64, PeerAnswer)>) {}
    fn reference(&self, node: StartId) -> Option<Arc<str>> {
        (node != start(4)).then(|| format!("n{}:1883", node.as_u128()).into())
    }
    fn splice(&self, _: StartId, about: Bytes) -> io::Result<Box<dyn Pipe>> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(ErrorKind::NotConnected.into());
        }
        *self.about.lock().unwrap() = about.clone();
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
    pub(super) way: Arc<Way>,
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

pub(super) fn start(node: u128) -> StartId {
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
    pub(super) fn unknown() -> Self {
        Self::with_tls(None, UserId::fresh())
    }

    /// The client comes by TLS.
    pub(super) fn with_tls(tls: Option<Arc<rustls::ServerConfig>>, user: UserId) -> Self {
        let way = Arc::new(Way::default());
        let here = Rig::among(NetConfig::default(), tls, way.clone());
        let home = Rig::among(NetConfig::default(), None, Arc::new(Way::default()));
        assert!(way.to.set(home.router().clone()).is_ok());
        Self {
            here,
            home,
            way,
            user,
        }
    }

    /// The home takes the user up, and the other learns of it.
    pub(super) fn take_up(&self) {
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

    pub(super) fn user(&self) -> UserId {
        self.user
    }

    pub(super) fn connect(&self, level: u8) -> Vec<u8> {
        connect(level, "c", 0, Some((&self.user.to_string(), "good")))
    }

    /// How much of what clients said has gone to the home.
    pub(super) fn passed(&self) -> usize {
        let pipes = self.way.pipes.lock().unwrap();
        pipes.iter().map(|(both, _)| both.lock().unwrap().all[0]).sum()
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
