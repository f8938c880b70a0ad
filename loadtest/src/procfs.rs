//! What Linux tells about a process: CPU time, resident memory, bytes written, and who listens on a port. Only reading.

use std::{fs, path::Path};

/// Clock ticks per second in /proc/PID/stat; fixed in Linux's interface to user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process that is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// This process.
    pub(crate) fn current() -> Self {
        Self(std::process::id())
    }

    /// User and system CPU seconds so far; `None` when the process is gone.
    pub(crate) fn cpu_seconds(self) -> Option<f64> {
        cpu_seconds(&self.read("stat")?)
    }

    /// Resident bytes.
    pub(crate) fn rss_bytes(self) -> Option<u64> {
        Some(field(&self.read("status")?, "VmRSS:")? * 1024)
    }

    /// Bytes that the process caused to be sent to the storage layer so far.
    pub(crate) fn written_bytes(self) -> Option<u64> {
        field(&self.read("io")?, "write_bytes:")
    }

    /// Name of the program.
    pub(crate) fn name(self) -> Option<String> {
        Some(self.read("comm")?.trim().to_owned())
    }

    fn read(self, file: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.0)).ok()
    }
}

/// CPU seconds that this machine has spent on anything so far, all cores together.
pub(crate) fn machine_cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<f64> = stat
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        .flat_map(str::parse)
        .collect();
    // user, nice, system, (idle, waiting,) interrupts, soft interrupts, stolen
    let busy = [0, 1, 2, 5, 6, 7]
        .iter()
        .filter_map(|field| ticks.get(*field))
        .sum::<f64>();
    Some(busy / TICKS_PER_SECOND)
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name in parentheses may hold spaces, so fields are counted from its end; user and system time are 14 and 15.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line[name.len()..].split_whitespace().next()?.parse().ok()
}

/// The process that listens on a TCP port of this machine; `None` when there is none or it is another user's.
pub(crate) fn listener(port: u16) -> Option<Process> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            table
                .lines()
                .filter_map(|line| listening_inode(line, port))
                .collect::<Vec<_>>()
        })
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid: &u32| holds(Path::new(&format!("/proc/{pid}/fd")), &inodes))
        .map(Process)
}

fn listening_inode(line: &str, port: u16) -> Option<String> {
    let mut fields = line.split_whitespace().skip(1);
    let local = fields.next()?;
    let state = fields.nth(1)?;
    let matches = state == "0A" && u16::from_str_radix(local.rsplit_once(':')?.1, 16) == Ok(port);
    matches.then(|| fields.nth(5).map(str::to_owned))?
}

fn holds(descriptors: &Path, inodes: &[String]) -> bool {
    fs::read_dir(descriptors).is_ok_and(|entries| {
        entries
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()))
    })
}

/// How many files one process may open.
pub(crate) fn open_file_limit() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listener_on_a_port_is_found_and_is_this_process() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("bound").port();
        assert_eq!(listener(port), Some(Process::current()));
        drop(socket);
        assert_eq!(listener(port), None);
    }

    #[test]
    fn cpu_time_is_read_behind_a_name_with_spaces_and_parentheses() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 5 6 7";
        assert_eq!(cpu_seconds(stat), Some(3.0));
    }

    #[test]
    fn this_process_has_memory_and_a_file_limit() {
        assert!(
            Process::current()
                .rss_bytes()
                .is_some_and(|bytes| bytes > 100_000)
        );
        assert!(Process::current().cpu_seconds().is_some());
        assert!(open_file_limit().is_some_and(|limit| limit >= 64));
    }
}
