//! Where a cluster lives: its addresses and its folder, held by a lock, so that several clusters stand on one machine. No processes here.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::Options;

/// CQL's port, on every node's own address.
pub(crate) const CQL_PORT: u16 = 9042;
/// The port on which nodes talk to each other.
pub(crate) const STORAGE_PORT: u16 = 7000;
/// Nodes of a cluster at most: more than three show nothing that three do not, and each takes most of a gigabyte.
pub(crate) const MAX_NODES: usize = 3;
/// How many clusters one user may run at a time on one machine: 127.0.0.x to 127.0.63.x.
const PLACES: u8 = 64;

/// The addresses and the folder of one cluster. Dropped, the folder goes, then the lock.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) addresses: Vec<Ipv4Addr>,
    pub(crate) folder: PathBuf,
    /// Held for as long as the place is ours; the kernel lets go of it however the process ends.
    _lock: File,
}

impl Place {
    /// Takes the first place that nobody has. What an earlier owner, dead by now, left in its folder is removed.
    pub(crate) fn take(nodes: usize, options: &Options) -> Result<Self> {
        if !options.addresses.is_empty() && options.addresses.len() != nodes {
            bail!("{nodes} nodes, but {} addresses", options.addresses.len());
        }
        let uid = rustix::process::getuid().as_raw();
        let root = std::env::temp_dir().join(format!("godwit-cassandra-{uid}"));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)
            .with_context(|| format!("cannot create {}", root.display()))?;
        let mut taken = String::from("all are in use by other tests");
        for number in 0..PLACES {
            let lock = File::create(root.join(format!("{number}.lock")))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
            let addresses = if options.addresses.is_empty() {
                // All of them, also for one node: whoever comes next can be sure of the three.
                let all: Vec<Ipv4Addr> = (1..=MAX_NODES as u8)
                    .map(|node| Ipv4Addr::new(127, 0, number, node))
                    .collect();
                if let Err(error) = free(&all) {
                    taken = error.to_string();
                    continue;
                }
                all[..nodes].to_vec()
            } else {
                free(&options.addresses)?;
                options.addresses.clone()
            };
            let folder = root.join(number.to_string());
            empty(&folder)?;
            fs::create_dir(&folder)?;
            return Ok(Self {
                addresses,
                folder,
                _lock: lock,
            });
        }
        bail!(
            "no free loopback addresses for Cassandra in 127.0.0.1–127.0.{}.3: {taken}",
            PLACES - 1
        )
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Best effort: who takes the place next empties it first.
        let _ = empty(&self.folder);
    }
}

/// Whether both ports of each address can be listened on.
fn free(addresses: &[Ipv4Addr]) -> Result<()> {
    for address in addresses {
        for port in [CQL_PORT, STORAGE_PORT] {
            TcpListener::bind((*address, port))
                .with_context(|| format!("{address}:{port} cannot be listened on"))?;
        }
    }
    Ok(())
}

/// Removes a folder, if there is one.
fn empty(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_places_at_once_have_other_addresses_and_other_folders_and_leave_nothing() {
        let first = Place::take(3, &Options::default()).expect("a place");
        let second = Place::take(1, &Options::default()).expect("a place");
        assert_eq!((first.addresses.len(), second.addresses.len()), (3, 1));
        assert!(!first.addresses.contains(&second.addresses[0]));
        assert_ne!(first.folder, second.folder);
        let folder = first.folder.clone();
        assert!(folder.is_dir());
        drop(first);
        assert!(!folder.exists());
    }

    #[test]
    fn an_address_in_use_is_passed_over() {
        let first = Place::take(1, &Options::default()).expect("a place");
        let wanted = first.addresses[0];
        let _other = TcpListener::bind((wanted, CQL_PORT)).expect("free");
        drop(first);
        let second = Place::take(1, &Options::default()).expect("a place");
        assert_ne!(second.addresses[0], wanted);
    }
}
