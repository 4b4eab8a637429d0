//! What a service that was killed may leave: who belongs to a job is written in its folder, and in the environment of
//! its processes.

use std::fs;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::table::{Identity, Process};

/// The variable whose value is the job's folder.
pub const MARK: &str = "REMORA_JOB";
/// The file in it.
const RECORD: &str = ".processes";
/// How long a supervisor may take to notice that its service is gone, and to end its job by itself.
const PATIENCE: Duration = Duration::from_secs(3);
/// What cannot be killed for so long hangs in the kernel.
const HOPELESS: Duration = Duration::from_secs(15);

/// Who a job consists of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// Of the machine: another since which numbers began anew.
    boot: String,
    supervisor: Option<Identity>,
    command: Option<Identity>,
}

impl Record {
    pub fn write(folder: &Path, supervisor: i32, command: Option<i32>) -> io::Result<()> {
        let identity = |pid| Some(Process::read(pid)?.identity);
        let command = command.and_then(identity);
        let record = Record { boot: boot(), supervisor: identity(supervisor), command };
        fs::write(folder.join(RECORD), serde_json::to_vec(&record)?)
    }

    /// What still holds. A record that cannot be read, such as one that was half written, says nothing.
    fn read(folder: &Path) -> Record {
        let record = fs::read(folder.join(RECORD)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        record.filter(|record: &Record| record.boot == boot()).unwrap_or_default()
    }

    pub fn remove(folder: &Path) {
        // Where the folder is gone, so is the record.
        let _ = fs::remove_file(folder.join(RECORD));
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Ends what is left of the job in this folder, which must be an absolute path without links.
pub fn kill(folder: &Path) {
    let record = Record::read(folder);
    let began = Instant::now();
    while record.supervisor.is_some_and(|it| it.runs()) && began.elapsed() < PATIENCE {
        sleep(Duration::from_millis(5));
    }
    loop {
        let left = left(folder, &record);
        if left.is_empty() {
            return Record::remove(folder);
        }
        if began.elapsed() > HOPELESS {
            let pids: Vec<_> = left.iter().map(|process| process.identity.pid).collect();
            return tracing::warn!(?folder, ?pids, "processes of an earlier job do not end");
        }
        for process in left {
            process.signal(Signal::KILL);
        }
        sleep(Duration::from_millis(5));
    }
}

/// Those that bear the mark or are recorded, their children, and all in sessions that they lead.
fn left(folder: &Path, record: &Record) -> Vec<Process> {
    let mark = [MARK.as_bytes(), b"=", folder.as_os_str().as_encoded_bytes()].concat();
    let known = [record.supervisor, record.command];
    let ours = std::process::id().cast_signed();
    let others = Process::all().into_iter().filter(|process| process.identity.pid != ours);
    let (mut left, mut others): (Vec<_>, Vec<_>) =
        others.partition(|process| known.contains(&Some(process.identity)) || process.has(&mark));
    loop {
        let of = |process: &Process| {
            left.iter().any(|one| [process.parent, process.session].contains(&one.identity.pid))
        };
        let (more, rest): (Vec<_>, Vec<_>) = others.into_iter().partition(of);
        if more.is_empty() {
            return left;
        }
        left.extend(more);
        others = rest;
    }
}
