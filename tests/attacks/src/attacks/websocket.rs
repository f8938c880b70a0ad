//! Compression of nothing: over WebSocket none is negotiated, frames that claim it or are huge end the connection, and
//! zeros cost what other bytes cost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::bed::{Bed, Setup};
use crate::judge::Attack;
use crate::peer::{PATIENCE, Peer};
use crate::wire;

/// A masked frame; the length as it is claimed.
fn frame(first: u8, claimed: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match u8::try_from(claimed) {
        Ok(length) if length < 126 => out.push(0x80 | length),
        _ => {
            out.push(0xff);
            out.extend(claimed.to_be_bytes());
        }
    }
    // The mask is zero: what is masked is itself.
    out.extend([0; 4]);
    out.extend(bytes);
    out
}

pub(super) fn whole(bytes: &[u8]) -> Vec<u8> {
    frame(0x82, bytes.len() as u64, bytes)
}

/// A connection after its upgrade, compression offered; what the server answered.
pub(super) async fn upgraded(bed: &Bed, from: usize) -> Result<(Peer, String)> {
    let mut peer = Peer::bare(bed.http(), from).await?;
    let request = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; server_no_context_takeover\r\n\r\n";
    peer.send(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let more = peer.raw(PATIENCE).await;
        ensure!(
            !more.is_empty(),
            "no upgrade: {}",
            String::from_utf8_lossy(&answer)
        );
        answer.extend(more);
    }
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    ensure!(answer.starts_with("http/1.1 101"), "{answer}");
    Ok((peer, answer))
}

/// Connected over WebSocket.
async fn connected(bed: &Bed, from: usize) -> Result<Peer> {
    let (mut peer, answer) = upgraded(bed, from).await?;
    ensure!(
        !answer.contains("sec-websocket-extensions"),
        "compression was negotiated: {answer}"
    );
    ensure!(!answer.contains("deflate"), "{answer}");
    let hello = bed.hello(0, &format!("ws{from}"));
    peer.send(&whole(&wire::connect(&hello))).await?;
    let connack = peer.raw(PATIENCE).await;
    // Frame header of two bytes, then the CONNACK.
    ensure!(
        connack.get(2) == Some(&0x20) && connack.get(5) == Some(&0),
        "CONNACK {connack:02x?}"
    );
    Ok(peer)
}

async fn closed(peer: &mut Peer, what: &str) -> Result<()> {
    let until = std::time::Instant::now() + PATIENCE;
    while std::time::Instant::now() < until {
        // A close frame may come first.
        let begun = std::time::Instant::now();
        if peer.raw(Duration::from_secs(2)).await.is_empty() && begun.elapsed() < Duration::from_secs(2) {
            return Ok(());
        }
    }
    bail!("{what}: still open")
}

/// See the module.
pub fn compression(long: bool) -> Attack {
    let (rounds, zeros) = if long { (500, 2_000) } else { (20, 150) };
    let setup = Setup {
        offenders: 1,
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let deflated = [0xaa, 0x56, 0x4a, 0x4c, 0x4a, 0x06, 0x00];
        for round in 0..rounds {
            for (what, bytes) in [
                ("a frame with the sign of compression", frame(0xc2, 7, &deflated)),
                ("a frame of 2^40 bytes", frame(0x82, 1 << 40, &[0; 4_096])),
                ("a frame of 2^63 bytes", frame(0x82, u64::MAX >> 1, &[0; 4_096])),
                ("a frame of 2 MiB", frame(0x82, 2 << 20, &[0; 4_096])),
                ("zeros, which are no MQTT", whole(&[0; 4_096])),
                ("text", frame(0x81, 4, b"text")),
            ] {
                let mut peer = connected(&bed, round).await?;
                peer.send_anyway(&bytes).await;
                closed(&mut peer, what).await?;
            }
            let (mut peer, _) = upgraded(&bed, round).await?;
            peer.send_anyway(&frame(0x82, 20 << 10, &[0; 4_096])).await;
            closed(&mut peer, "a frame of 20 KiB before authentication").await?;
        }
        // Allowed, and huge: publishes of 250 KB of zeros, and a million empty frames' worth of headers.
        let mut peer = connected(&bed, 9_999).await?;
        let publish = whole(&wire::publish(
            false,
            "iot/mallory0/z",
            &[0; 250_000],
            0,
            false,
            0,
        ));
        for _ in 0..zeros {
            peer.send(&publish).await?;
        }
        let empty = frame(0x82, 0, b"").repeat(1_000);
        for _ in 0..zeros {
            peer.send(&empty).await?;
        }
        peer.send(&whole(&wire::PINGREQ)).await?;
        let answer = peer.raw(PATIENCE).await;
        ensure!(answer.get(2) == Some(&0xd0), "PINGRESP {answer:02x?}");
        Ok(vec![
            "permessage-deflate offered and not negotiated".into(),
            format!(
                "{rounds} times frames marked as compressed, of 2 MiB, 2^40 and 2^63 bytes, of text, of 20 KiB before authentication: each \
                 connection closed"
            ),
            format!(
                "{zeros} publishes of 250 KB of zeros and {} empty frames: taken as any other bytes",
                zeros * 1_000
            ),
        ])
    };
    Attack::new("compression of nothing", setup, long, run).memory(
        48 << 20,
        "1 MiB of a frame and 256 KiB of a packet a connection, and 46 MiB",
    )
}
