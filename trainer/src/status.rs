//! How a run fares, for those who look at its folder from outside: `status.json`, which is a note and no part of the run,
//! and a lock that is held for as long as somebody trains there, however that ends.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use remora_env::file::write_whole;
use serde::{Deserialize, Serialize};

use crate::run::{Budget, Finished, RunError, Validation};

/// The note.
pub const FILE: &str = "status.json";
const LOCK: &str = "lock";
/// The note is written at most this often: every time it is brought to disk.
const EVERY: Duration = Duration::from_secs(1);
/// Who looks whether the lock is held has it for a moment, so it is tried for some times.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(25);

/// What the note says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub state: State,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When this was written, milliseconds since 1970.
    pub at_ms: i64,
    pub iteration: u64,
    /// Share of the time or the iterations that is used, 0 to 1.
    pub progress: f64,
    /// Since this process began, validation included.
    pub decisions_per_s: f64,
    /// Seconds until it ends, as far as that can be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_s: Option<f64>,
    /// What it came to when it ended, which its metrics tell only where an iteration was validated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Running,
    Ended,
    Failed,
}

/// Somebody else trains in this folder.
#[derive(Debug)]
pub struct Taken;

/// Keeps the note while a run goes on.
#[derive(Debug)]
pub struct Notes {
    folder: PathBuf,
    budget: Budget,
    began: Instant,
    written: Option<Instant>,
    /// Progress with which this process began.
    before: f64,
    /// Decisions that it made since.
    decisions: usize,
    status: Status,
    /// Locked as long as this lives; nothing where the file system knows no locks.
    _lock: Option<File>,
}

impl Notes {
    /// # Errors
    /// When another process trains in this folder.
    pub fn begin(folder: &Path, budget: Budget) -> Result<Notes, Taken> {
        let status = Status {
            state: State::Running,
            reason: String::new(),
            at_ms: now_ms(),
            iteration: 0,
            progress: 0.0,
            decisions_per_s: 0.0,
            left_s: match budget {
                Budget::Minutes(minutes) => Some(60.0 * minutes),
                Budget::Iterations => None,
            },
            validation: None,
        };
        let mut notes = Notes {
            folder: folder.to_owned(),
            budget,
            began: Instant::now(),
            written: None,
            before: 0.0,
            decisions: 0,
            status,
            _lock: lock(folder)?,
        };
        notes.write();
        Ok(notes)
    }

    /// It begins, or goes on, with so much used up.
    pub fn begun(&mut self, progress: f64) {
        (self.before, self.decisions, self.began) = (progress, 0, Instant::now());
    }

    /// An iteration of so many decisions ended, with so much used up.
    pub fn iteration(&mut self, iteration: u64, progress: f64, decisions: usize) {
        let before = self.before;
        self.decisions += decisions;
        let took_s = self.began.elapsed().as_secs_f64();
        let left_s = match self.budget {
            Budget::Minutes(minutes) => Some((60.0 * minutes - took_s).max(0.0)),
            Budget::Iterations if progress > before => Some(took_s * (1.0 - progress) / (progress - before)),
            Budget::Iterations => None,
        };
        let status = &mut self.status;
        (status.iteration, status.progress) = (iteration, progress.clamp(0.0, 1.0));
        (status.decisions_per_s, status.left_s) = (self.decisions as f64 / took_s, left_s);
        if self.written.is_none_or(|written| written.elapsed() >= EVERY) {
            self.write();
        }
    }

    /// It is over.
    pub fn end(mut self, ended: &Result<Finished, RunError>) {
        let status = &mut self.status;
        status.left_s = None;
        match ended {
            Ok(finished) => {
                (status.state, status.progress) = (State::Ended, 1.0);
                status.validation = finished.lines.last().and_then(|line| line.validation.clone());
            }
            Err(error) => (status.state, status.reason) = (State::Failed, error.to_string()),
        }
        self.write();
    }

    /// A run that cannot write has other ways to say so.
    fn write(&mut self) {
        self.status.at_ms = now_ms();
        let text = serde_json::to_vec(&self.status).expect("plain data becomes JSON");
        let _ = write_whole(&self.folder.join(FILE), |file| file.write_all(&text));
        self.written = Some(Instant::now());
    }
}

fn lock(folder: &Path) -> Result<Option<File>, Taken> {
    let Ok(file) = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK)) else {
        return Ok(None);
    };
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => sleep(BETWEEN_TRIES),
            Err(TryLockError::Error(_)) => return Ok(None),
        }
    }
    Err(Taken)
}

/// Whether somebody trains in this folder now.
pub fn is_running(folder: &Path) -> bool {
    let Ok(file) = File::open(folder.join(LOCK)) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}
