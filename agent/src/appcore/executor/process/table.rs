//! The operating system's processes, as `/proc` tells of them.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// What makes a process itself until the machine starts anew: numbers are used again, with a later start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    /// Clock ticks between the start of the machine and its own.
    pub start: u64,
}

/// A process that runs, not one that ended and waits for its parent to notice.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pub identity: Identity,
    pub parent: i32,
    pub session: i32,
}

/// Fields of `stat` after the name, which may hold anything: the state is the first.
fn fields(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(')')?.1.split_ascii_whitespace().collect())
}

/// Seconds of processor time, user and system, of all children that this process has waited for, with what those had
/// waited for.
pub fn cpu_s_of_children() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = |at: usize| fields(&stat)?.get(at)?.parse::<f64>().ok();
    (ticks(13).unwrap_or(0.0) + ticks(14).unwrap_or(0.0)) / rustix::param::clock_ticks_per_second() as f64
}

impl Process {
    pub fn read(pid: i32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields = fields(&stat)?;
        if matches!(*fields.first()?, "Z" | "X") {
            return None;
        }
        let identity = Identity { pid, start: fields.get(19)?.parse().ok()? };
        Some(Process {
            identity,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
        })
    }

    pub fn all() -> Vec<Process> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| Process::read(entry.file_name().to_str()?.parse().ok()?)).collect()
    }

    /// What descends from a process. Nothing is missing where all of it stands still and the process adopts orphans.
    pub fn descendants(of: i32) -> Vec<Process> {
        let mut found = Vec::new();
        let mut open = vec![of];
        while let Some(parent) = open.pop() {
            let children = children(parent);
            open.extend(children.iter().map(|child| child.identity.pid));
            found.extend(children);
        }
        found
    }

    /// Sends a signal to it, and to no other that has its number meanwhile.
    pub fn signal(&self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.identity.pid) else { return };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if self.identity.runs() {
            // It may end at any time, and then there is nothing to signal.
            let _ = pidfd_send_signal(handle, signal);
        }
    }

    /// Bytes of memory that it has, without what the kernel can drop, such as programs and files that it looks into.
    pub fn memory(&self) -> u64 {
        self.bytes("status", ["RssAnon:", "RssShmem:"]).unwrap_or(0)
    }

    /// The same, but of what it shares with other processes only its part. Far slower to find out.
    pub fn share_of_memory(&self) -> u64 {
        self.bytes("smaps_rollup", ["Pss_Anon:", "Pss_Shmem:"]).unwrap_or_else(|| self.memory())
    }

    /// The sum of two lines in KiB; none where they are not told.
    fn bytes(&self, file: &str, keys: [&str; 2]) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.identity.pid)).ok()?;
        let kib = |key| text.lines().find_map(|line| line.strip_prefix(key)?.split_ascii_whitespace().next());
        let [first, second] = keys.map(|key| kib(key)?.parse::<u64>().ok());
        Some(1024 * (first? + second?))
    }

    /// It began with this variable in its environment.
    pub fn has(&self, variable: &[u8]) -> bool {
        let environment = fs::read(format!("/proc/{}/environ", self.identity.pid)).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|entry| entry == variable)
    }
}

impl Identity {
    pub fn runs(&self) -> bool {
        Process::read(self.pid).is_some_and(|process| process.identity == *self)
    }
}

fn children(of: i32) -> Vec<Process> {
    /// Most kernels list children, which spares a look at all processes.
    static LISTED: LazyLock<bool> = LazyLock::new(|| Path::new("/proc/thread-self/children").exists());
    let mut children = if *LISTED { listed_children(of) } else { Process::all() };
    children.retain(|child| child.parent == of);
    children
}

fn listed_children(of: i32) -> Vec<Process> {
    let threads = fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .filter_map(Process::read)
        .collect()
}
