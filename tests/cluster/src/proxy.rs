//! TCP proxies between nodes, and between nodes and the store: bytes come later, now and then much later, and answers of lightweight transactions
//! not at all (`frames`). Which proxy stands where is `nodes`'.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::frames::{Claims, Fate, Moved, Reader, readers};

/// What is read at a time, bytes.
const PIECE: usize = 16 * 1024;
/// Pieces under way in one direction of a connection: 4 MiB, more than 200 ms of any load here.
const UNDER_WAY: usize = 256;
/// How long a stalled piece, and all that is behind it, waits besides, milliseconds: as long as TCP takes to send a lost segment again, once or twice.
const STALL_MS: std::ops::Range<u64> = 200..1_200;

/// How what passes is treated; shared by all proxies of a kind.
#[derive(Debug, Default)]
pub struct Pace {
    delay_ms: AtomicU64,
    /// Of 10,000 pieces.
    stalls: AtomicU32,
    stalled: AtomicU64,
}

impl Pace {
    /// From now on everything is so much late in each direction, and so many pieces of 10,000 stall.
    pub fn slow(&self, delay: Duration, stalls: u32) {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.delay_ms.store(millis, Ordering::Relaxed);
        self.stalls.store(stalls, Ordering::Relaxed);
    }

    /// From now on everything passes as it comes.
    pub fn fast(&self) {
        self.slow(Duration::ZERO, 0);
    }

    /// Pieces that were stalled.
    pub fn stalled(&self) -> u64 {
        self.stalled.load(Ordering::Relaxed)
    }

    fn due(&self) -> Instant {
        let mut millis = self.delay_ms.load(Ordering::Relaxed);
        let stalls = self.stalls.load(Ordering::Relaxed);
        if stalls > 0 {
            let mut random = rand::rng();
            if random.random_range(0..10_000) < stalls {
                self.stalled.fetch_add(1, Ordering::Relaxed);
                millis += random.random_range(STALL_MS);
            }
        }
        Instant::now() + Duration::from_millis(millis)
    }
}

/// Listens until it is dropped; connections end with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    task: AbortHandle,
}

impl Proxy {
    /// On a free port of this address, for `to`, which need not be there yet. With `claims`, what passes is CQL.
    ///
    /// # Errors
    /// When the address is not ours.
    pub fn start(
        runtime: &Handle,
        on: Ipv4Addr,
        to: SocketAddrV4,
        pace: &Arc<Pace>,
        claims: Option<&Arc<Claims>>,
    ) -> Result<Self> {
        let listener = runtime
            .block_on(TcpListener::bind((on, 0)))
            .with_context(|| format!("a proxy on {on}"))?;
        let address = listener.local_addr()?;
        let (pace, claims) = (Arc::clone(pace), claims.cloned());
        let moved = Moved {
            from: *to.ip(),
            to: on,
        };
        let task = runtime.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((near, _)) = listener.accept() => {
                        let (pace, claims) = (Arc::clone(&pace), claims.clone());
                        connections.spawn(async move {
                            // Nobody there: closed, as it would be.
                            if let Ok(far) = TcpStream::connect(to).await {
                                let reads = claims.as_ref().map(|claims| readers(claims, moved));
                                serve(near, far, pace, reads.unzip()).await;
                            }
                        });
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self {
            address,
            task: task.abort_handle(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(near: TcpStream, far: TcpStream, pace: Arc<Pace>, reads: (Option<Reader>, Option<Reader>)) {
    for stream in [&near, &far] {
        let _ = stream.set_nodelay(true);
    }
    let (asks, answers) = reads;
    let ((near_reads, near_writes), (far_reads, far_writes)) = (near.into_split(), far.into_split());
    let mut both = JoinSet::new();
    both.spawn(pass(near_reads, far_writes, Arc::clone(&pace), asks));
    both.spawn(pass(far_reads, near_writes, pace, answers));
    // An orderly end of one direction is passed on, and the other goes on; a broken connection ends both.
    while let Some(Ok(Ok(()))) = both.join_next().await {}
}

async fn pass(
    mut from: OwnedReadHalf,
    to: OwnedWriteHalf,
    pace: Arc<Pace>,
    mut reader: Option<Reader>,
) -> std::io::Result<()> {
    let (pieces, sent) = mpsc::channel::<(Instant, Bytes)>(UNDER_WAY);
    let mut tasks = JoinSet::new();
    tasks.spawn(write(to, sent));
    let mut came = vec![0; PIECE];
    loop {
        let length = tokio::select! {
            read = from.read(&mut came) => read?,
            // The other end takes no more.
            Some(ended) = tasks.join_next() => match ended {
                Ok(Err(error)) => return Err(error),
                _ => continue,
            },
        };
        if length == 0 {
            break;
        }
        let came = &came[..length];
        let out = match &mut reader {
            Some(reader) => reader.take(came),
            None => vec![(Bytes::copy_from_slice(came), Fate::Passes)],
        };
        for (piece, fate) in out {
            match fate {
                Fate::Lost => {}
                Fate::Passes => {
                    if pieces.send((pace.due(), piece)).await.is_err() {
                        break;
                    }
                }
                Fate::Late(time) => {
                    let pieces = pieces.clone();
                    tasks.spawn(async move {
                        tokio::time::sleep(time).await;
                        let _ = pieces.send((Instant::now(), piece)).await;
                        Ok(())
                    });
                }
            }
        }
    }
    drop(pieces);
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(std::io::Error::other)??;
    }
    Ok(())
}

/// Writes pieces when they are due, in order.
async fn write(mut to: OwnedWriteHalf, mut pieces: mpsc::Receiver<(Instant, Bytes)>) -> std::io::Result<()> {
    while let Some((due, piece)) = pieces.recv().await {
        tokio::time::sleep_until(due).await;
        to.write_all(&piece).await?;
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_the_same_bytes_in_order_and_later_when_it_is_slow() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let here = Ipv4Addr::LOCALHOST;
        let pace = Arc::new(Pace::default());
        let echo = runtime.block_on(TcpListener::bind((here, 0))).expect("a port");
        let to = SocketAddrV4::new(here, echo.local_addr().expect("bound").port());
        let proxy = Proxy::start(runtime.handle(), here, to, &pace, None).expect("a proxy");
        runtime.spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                let (mut reads, mut writes) = stream.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
            }
        });
        let all: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
        for (delay, stalls) in [(0, 0), (40, 10_000)] {
            pace.slow(Duration::from_millis(delay), stalls);
            let took = runtime.block_on(async {
                let began = Instant::now();
                let stream = TcpStream::connect(proxy.address()).await.expect("connected");
                let (mut reads, mut writes) = stream.into_split();
                let sent = all.clone();
                let sending = tokio::spawn(async move {
                    writes.write_all(&sent).await.expect("sent");
                    writes.shutdown().await.expect("ended");
                });
                let mut back = Vec::new();
                reads.read_to_end(&mut back).await.expect("all");
                sending.await.expect("sent");
                assert!(back == all, "{} bytes of {}", back.len(), all.len());
                began.elapsed()
            });
            assert!(took >= Duration::from_millis(2 * delay), "{took:?}");
        }
        assert!(pace.stalled() > 1);
    }
}
