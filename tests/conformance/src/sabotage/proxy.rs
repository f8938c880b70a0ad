//! The saboteur's sockets: stands between a case and the server, cuts both directions into packets (or WebSocket frames)
//! and asks the mutation what becomes of each. Without a mutation it changes nothing and records what passes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::link::{Common, Link, Order, Turn};
use super::mutation::{Event, Mutation};
use super::sent::length;
use super::web;
use crate::wire::Version;

/// What is recorded of one case at most; the longest repeat themselves.
const RECORDED: usize = 3_000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All proxies of one case have one of these.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) version: Version,
    pub(crate) mutation: Arc<Mutation>,
    /// How often the mutation did something.
    pub(crate) fired: AtomicUsize,
    /// What passed, with the number of its connection; only where asked for.
    pub(crate) record: Option<Mutex<Vec<(u64, Event)>>>,
    common: Arc<Mutex<Common>>,
    wires: Mutex<BTreeMap<u64, Arc<Wires>>>,
    numbers: AtomicU64,
    over: AtomicBool,
}

/// Both ends of a connection, to write to.
#[derive(Debug)]
pub(crate) struct Wires {
    client: Mutex<TcpStream>,
    server: Mutex<TcpStream>,
}

impl Wires {
    pub(crate) fn to_client(&self, bytes: &[u8]) {
        let _ = lock(&self.client).write_all(bytes);
    }

    pub(crate) fn to_server(&self, bytes: &[u8]) {
        let _ = lock(&self.server).write_all(bytes);
    }

    fn cut(&self) {
        let _ = lock(&self.client).shutdown(Shutdown::Both);
        let _ = lock(&self.server).shutdown(Shutdown::Both);
    }
}

impl Work {
    pub(crate) fn new(version: Version, mutation: Arc<Mutation>, record: bool) -> Arc<Self> {
        Arc::new(Self {
            version,
            mutation,
            fired: AtomicUsize::new(0),
            record: record.then(Mutex::default),
            common: Arc::default(),
            wires: Mutex::default(),
            numbers: AtomicU64::new(0),
            over: AtomicBool::new(false),
        })
    }

    /// What becomes of it, with the orders that were given. Counts if that is anything but to let it pass.
    pub(crate) fn turn(&self, number: u64, link: &Mutex<Link>, event: &Event) -> (Turn, Vec<Order>) {
        if let Some(record) = &self.record {
            let mut record = lock(record);
            if record.len() < RECORDED {
                record.push((number, event.clone()));
            }
        }
        let mut link = lock(link);
        let turn = self.mutation.turn(&mut link, event);
        let orders = std::mem::take(&mut link.orders);
        drop(link);
        if turn != Turn::Keep || !orders.is_empty() {
            self.fired.fetch_add(1, Ordering::Relaxed);
        }
        (turn, orders)
    }

    /// Does what was ordered.
    pub(crate) fn obey(&self, wires: &Arc<Wires>, orders: Vec<Order>) {
        for order in orders {
            match order {
                Order::ToClient(bytes) => wires.to_client(&bytes),
                Order::ToServer(bytes) => wires.to_server(&bytes),
                Order::Later(time, bytes) => {
                    let wires = Arc::clone(wires);
                    thread::spawn(move || {
                        thread::sleep(Duration::from_millis(time));
                        wires.to_client(&bytes);
                    });
                }
                Order::LaterToServer(time, bytes) => {
                    let wires = Arc::clone(wires);
                    thread::spawn(move || {
                        thread::sleep(Duration::from_millis(time));
                        wires.to_server(&bytes);
                    });
                }
                Order::Hold(time) => thread::sleep(Duration::from_millis(time)),
                Order::Cut => wires.cut(),
                Order::CutAll => lock(&self.wires).values().for_each(|wires| wires.cut()),
            }
        }
    }
}

/// A listener for one server; ends, with all its connections, when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) at: SocketAddr,
    work: Arc<Work>,
}

impl Proxy {
    /// Listens for connections to `server`, which speak MQTT, or, where `web`, MQTT over WebSocket.
    ///
    /// # Errors
    /// When there is no port.
    pub(crate) fn start(server: SocketAddr, web: bool, work: &Arc<Work>) -> Result<Self, String> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|error| format!("listen: {error}"))?;
        let at = listener.local_addr().map_err(|error| error.to_string())?;
        let shared = Arc::clone(work);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.over.load(Ordering::Relaxed) {
                    return;
                }
                let work = Arc::clone(&shared);
                thread::spawn(move || connection(&work, client, server, web));
            }
        });
        Ok(Self {
            at,
            work: Arc::clone(work),
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.work.over.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(self.at);
        lock(&self.work.wires).values().for_each(|wires| wires.cut());
    }
}

fn connection(work: &Arc<Work>, client: TcpStream, server: SocketAddr, web: bool) {
    let Ok(server) = TcpStream::connect(server) else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (Ok(client_reads), Ok(server_reads)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    let wires = Arc::new(Wires {
        client: Mutex::new(client),
        server: Mutex::new(server),
    });
    let number = work.numbers.fetch_add(1, Ordering::Relaxed);
    lock(&work.wires).insert(number, Arc::clone(&wires));
    let link = Mutex::new(Link::new(work.version, Arc::clone(&work.common)));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut conversation = web.then(web::Side::default);
            pump(work, number, server_reads, |bytes| match &mut conversation {
                Some(side) => side.server(work, number, &link, &wires, bytes),
                None => from_server(work, number, &link, &wires, bytes),
            });
            let (turn, orders) = work.turn(number, &link, &Event::ServerEnd);
            work.obey(&wires, orders);
            if turn == Turn::Keep {
                let _ = lock(&wires.client).shutdown(Shutdown::Write);
            }
        });
        let mut conversation = web.then(web::Side::default);
        pump(work, number, client_reads, |bytes| match &mut conversation {
            Some(side) => side.client(work, number, &link, &wires, bytes),
            None => from_client(work, number, &link, &wires, bytes),
        });
        let (turn, orders) = work.turn(number, &link, &Event::ClientEnd);
        work.obey(&wires, orders);
        if let Turn::Instead(last) = turn {
            last.iter().for_each(|bytes| wires.to_server(bytes));
        }
        let _ = lock(&wires.server).shutdown(Shutdown::Write);
    });
    lock(&work.wires).remove(&number);
}

/// Reads until the end; `take` takes what it can from the front of what came.
fn pump(work: &Work, _number: u64, mut from: TcpStream, mut take: impl FnMut(&mut Vec<u8>)) {
    let mut bytes = Vec::new();
    let mut chunk = vec![0_u8; 16_384];
    loop {
        match from.read(&mut chunk) {
            Ok(count) if count > 0 && !work.over.load(Ordering::Relaxed) => {
                bytes.extend(chunk.get(..count).unwrap_or_default());
                take(&mut bytes);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

fn from_client(work: &Work, number: u64, link: &Mutex<Link>, wires: &Arc<Wires>, bytes: &mut Vec<u8>) {
    while !bytes.is_empty() {
        // What has no end is passed on as it is.
        let whole = match length(bytes) {
            Some(usize::MAX) => bytes.len(),
            Some(length) if length <= bytes.len() => length,
            _ => {
                let (_, orders) = work.turn(number, link, &Event::Piece(bytes.clone()));
                return work.obey(wires, orders);
            }
        };
        let packet: Vec<u8> = bytes.drain(..whole).collect();
        let event = Event::FromClient(packet);
        let (turn, orders) = work.turn(number, link, &event);
        work.obey(wires, orders);
        match (turn, event) {
            (Turn::Keep, Event::FromClient(packet)) => wires.to_server(&packet),
            (Turn::Instead(all), _) => all.iter().for_each(|bytes| wires.to_server(bytes)),
            _ => {}
        }
    }
}

fn from_server(work: &Work, number: u64, link: &Mutex<Link>, wires: &Arc<Wires>, bytes: &mut Vec<u8>) {
    while let Some(length) = length(bytes).filter(|length| *length <= bytes.len()) {
        let packet: Vec<u8> = bytes.drain(..length).collect();
        let event = Event::FromServer(packet);
        let (turn, orders) = work.turn(number, link, &event);
        work.obey(wires, orders);
        match (turn, event) {
            (Turn::Keep, Event::FromServer(packet)) => wires.to_client(&packet),
            (Turn::Instead(all), _) => all.iter().for_each(|bytes| wires.to_client(bytes)),
            _ => {}
        }
    }
}
