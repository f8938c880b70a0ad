//! What a client of HTTP can hold: its place as long as it takes what it asked for.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use super::*;

/// Larger than what sockets keep on their own.
const ANSWER: usize = 32 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

struct Rig {
    at: SocketAddr,
    room: Arc<Semaphore>,
    refused: Refused,
    shutdown: Shutdown,
    _runtime: tokio::runtime::Runtime,
}

/// A door with room for two that answers each request with [`ANSWER`] bytes.
fn rig(pace: Pace) -> Rig {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let at = listener.local_addr().unwrap();
    let (room, refused, shutdown) = (
        Arc::new(Semaphore::new(2)),
        Refused::default(),
        Shutdown::default(),
    );
    let door = Door {
        name: "http",
        listener: TcpListener::from_std(listener).unwrap(),
        tls: None,
        greeting: Greeting {
            time: PATIENCE,
            proxies: None,
            shares: Shares::new(400, 0),
            pace,
            refused: refused.clone(),
        },
        app: axum::Router::new().fallback(|| async { vec![b'x'; ANSWER] }),
        room: room.clone(),
    };
    runtime.spawn(door.serve(shutdown.clone(), Duration::ZERO));
    Rig {
        at,
        room,
        refused,
        shutdown,
        _runtime: runtime,
    }
}

impl Rig {
    fn ask(&self) -> TcpStream {
        let mut client = TcpStream::connect(self.at).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    /// Waits until a client was closed for what it did not take, and its place is free.
    fn loses_one(&self) {
        // The door has the other place, for who comes next.
        let is_so = || self.refused.1.get() == 1 && self.room.available_permits() == 1;
        let until = std::time::Instant::now() + PATIENCE;
        while !is_so() {
            assert!(std::time::Instant::now() < until, "a place is held for ever");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

const HASTY: Pace = Pace {
    time: Duration::from_millis(300),
    bytes: 4 << 20,
};

#[test]
fn who_does_not_take_its_answer_loses_its_place() {
    let rig = rig(HASTY);
    let silent = rig.ask();
    rig.loses_one();
    drop(silent);
}

#[test]
fn who_takes_it_in_crumbs_loses_its_place_too() {
    let rig = rig(HASTY);
    let mut client = rig.ask();
    let (end, ended) = mpsc::channel::<()>();
    let dribble = std::thread::spawn(move || {
        while ended.recv_timeout(Duration::from_millis(5)) == Err(mpsc::RecvTimeoutError::Timeout) {
            // The socket's window is opened now and then, by too little.
            let _ = client.read(&mut [0; 16 << 10]);
        }
    });
    rig.loses_one();
    drop(end);
    dribble.join().unwrap();
}

#[test]
fn who_takes_it_slowly_gets_all_of_it_and_may_ask_again() {
    let rig = rig(Pace {
        time: Duration::from_secs(5),
        bytes: 1 << 20,
    });
    let mut client = rig.ask();
    for _ in 0..2 {
        let (mut taken, mut buffer) = (0, vec![0; 4 << 20]);
        while taken < ANSWER {
            std::thread::sleep(Duration::from_millis(20));
            taken += client.read(&mut buffer).unwrap();
        }
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    }
    assert_eq!(rig.refused.1.get(), 0);
}
