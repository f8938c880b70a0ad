//! A network of the attacker's own: a namespace behind a virtual cable that can be pulled. From then on nothing leaves or enters
//! it, no FIN, no RST, no acknowledgement. Needs root and `ip` (iproute2). Nothing of MQTT is here.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long a connection over the cable may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// For names; several may be there at a time.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// See the module. Gone with its drop.
#[derive(Debug)]
pub struct Network {
    /// Of the namespace, and of the cable's end there.
    name: String,
    /// The cable's end on our side.
    near: String,
    /// The server's address, as it is seen from within.
    server: Ipv4Addr,
}

/// `ip` with these words.
fn ip(words: &str) -> Result<()> {
    let done = Command::new("ip")
        .args(words.split(' '))
        .output()
        .context("`ip` of iproute2 is needed")?;
    if !done.status.success() {
        bail!("ip {words}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

impl Network {
    /// Makes it, the cable plugged in.
    ///
    /// # Errors
    /// Without root, `ip`, or a kernel with namespaces and `veth`.
    pub fn start() -> Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed) % 64;
        let process = std::process::id();
        // 15 bytes are an interface's name at most. The addresses are those for measurements (RFC 2544), a /30 each.
        let (name, near) = (format!("gw{process}f{number}"), format!("gw{process}n{number}"));
        let base = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + ((process % 512) << 8 | number << 2);
        let (server, own) = (Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2));
        ip(&format!("netns add {name}"))?;
        // Its drop takes away what was made of it.
        let made = Self { name, near, server };
        let (name, near) = (&made.name, &made.near);
        ip(&format!(
            "link add {near} type veth peer name {name} netns {name}"
        ))?;
        ip(&format!("addr add {server}/30 dev {near}"))?;
        ip(&format!("link set {near} up"))?;
        ip(&format!("-n {name} addr add {own}/30 dev {name}"))?;
        ip(&format!("-n {name} link set {name} up"))?;
        Ok(made)
    }

    /// Connections from within to a port of the server's; in order.
    ///
    /// # Errors
    /// When one is refused.
    pub async fn connect(&self, port: u16, count: usize) -> Result<Vec<TcpStream>> {
        let space = File::open(format!("/run/netns/{}", self.name))?;
        let to = SocketAddr::from((self.server, port));
        let work = move || -> Result<Vec<TcpStream>> {
            // A thread of its own is in there; the sockets stay there wherever they are used.
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
            let one = |_| TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("{to}"));
            (0..count).map(one).collect()
        };
        let joined = tokio::task::spawn_blocking(|| std::thread::spawn(work).join()).await?;
        joined.map_err(|_| anyhow!("the thread panicked"))?
    }

    /// Pulls the cable, for ever.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn cut(&self) -> Result<()> {
        ip(&format!("-n {0} link set {0} down", self.name))
    }

    /// Sockets that the operating system still has on our side for connections from within: (all, bytes in them that were
    /// not taken).
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn left(&self) -> Result<(usize, u64)> {
        let ours = format!("{:08X}:", u32::from(self.server).swap_bytes());
        let table = std::fs::read_to_string("/proc/net/tcp")?;
        let (mut sockets, mut bytes) = (0, 0);
        for line in table.lines().skip(1) {
            let mut words = line.split_whitespace().skip(1);
            let (Some(local), _, _, Some(queues)) = (words.next(), words.next(), words.next(), words.next())
            else {
                continue;
            };
            if local.starts_with(&ours) {
                sockets += 1;
                let waits = queues.split(':').next().unwrap_or_default();
                bytes += u64::from_str_radix(waits, 16).unwrap_or_default();
            }
        }
        Ok((sockets, bytes))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The namespace lives on while sockets of it do; its end of the cable goes with ours.
        let _ = ip(&format!("link del {}", self.near));
        let _ = ip(&format!("netns del {}", self.name));
    }
}
