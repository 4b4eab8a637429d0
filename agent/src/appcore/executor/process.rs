//! Jobs as processes of this machine.
//!
//! ```text
//! service ── the order, then `save` or `now` ──► supervisor ── starts, measures, ends ──► command, and all that
//!         ◄─────────── its report ────────────                                            descends from it
//! ```
//!
//! The supervisor is this program once more, one for each job. It adopts what its descendants leave behind, so nothing
//! escapes it by leaving a group or session. Where the service stops listening to it, because it does not want the job
//! any more or was killed, its pipe comes to its end, and it ends the job. Where the supervisor itself is killed, the
//! leftovers are found by their marks. None of this is protection from malice: jobs run as the service's
//! user.

mod leftovers;
mod order;
mod supervisor;
mod table;

use std::convert::Infallible;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};
use tokio::sync::watch;

use super::super::run::Usage;
use super::{Executor, Exit, Job, Stop};
use order::Order;
pub use supervisor::supervise;

/// How long a process may take to save its state before it is killed.
pub const GRACE: Duration = Duration::from_secs(10);
/// The command of `remora` that is the supervisor.
pub const SUPERVISE: &str = "supervise";
/// Words to a supervisor, a line each.
const SAVE: &str = "save";
const NOW: &str = "now";

/// Runs jobs as processes of this machine, under the service's user.
#[derive(Clone, Debug)]
pub struct Processes {
    supervisor: PathBuf,
}

impl Default for Processes {
    fn default() -> Processes {
        Processes::new()
    }
}

impl Processes {
    /// For the program `remora` itself.
    pub fn new() -> Processes {
        // Not its path: the file there may have been replaced by another release meanwhile.
        Processes::supervised_by("/proc/self/exe")
    }

    /// For any other program: tells where `remora` is.
    pub fn supervised_by(remora: impl Into<PathBuf>) -> Processes {
        Processes { supervisor: remora.into() }
    }

    async fn supervised(
        &self,
        job: &Job,
        stop: watch::Receiver<Option<Stop>>,
    ) -> Result<(Exit, Usage), String> {
        let folder = job.folder.canonicalize();
        let folder = folder.map_err(|error| format!("folder {}: {error}", job.folder.display()))?;
        let order = serde_json::to_string(&Order::new(job, &folder)).map_err(|error| error.to_string())?;
        let mut supervisor = Command::new(&self.supervisor)
            .arg0("remora")
            .arg(SUPERVISE)
            .env_clear()
            .env(leftovers::MARK, &folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("its supervisor {}: {error}", self.supervisor.display()))?;
        let pipe = supervisor.stdin.take().ok_or("its supervisor has no input")?;
        let mut reports = supervisor.stdout.take().ok_or("its supervisor has no output")?;
        let mut report = Vec::new();
        tokio::select! {
            read = reports.read_to_end(&mut report) => read.map_err(|error| error.to_string())?,
            never = tell(pipe, order, stop) => match never {},
        };
        let ended = supervisor.wait().await.map_err(|error| error.to_string())?;
        if let Ok(report) = serde_json::from_slice(&report) {
            return Ok(report);
        }
        self.reap(&folder).await;
        Err(format!("its supervisor ended without a report: {ended}"))
    }
}

/// Tells a supervisor what to do. It ends its job once this is dropped, and the pipe with it.
async fn tell(mut pipe: ChildStdin, order: String, mut stop: watch::Receiver<Option<Stop>>) -> Infallible {
    let mut line = order;
    loop {
        line.push('\n');
        // A supervisor that does not listen has ended, and has reported or will be missed.
        let _ = pipe.write_all(line.as_bytes()).await;
        line = loop {
            if stop.changed().await.is_err() {
                pending::<()>().await;
            }
            match *stop.borrow_and_update() {
                Some(Stop::Save) => break SAVE.to_owned(),
                Some(Stop::Now) => break NOW.to_owned(),
                None => {}
            }
        };
    }
}

#[tonic::async_trait]
impl Executor for Processes {
    async fn run(&self, job: &Job, stop: watch::Receiver<Option<Stop>>) -> (Exit, Usage) {
        if stop.borrow().is_some() {
            return (Exit::Stopped, Usage::default());
        }
        let ran = self.supervised(job, stop).await;
        ran.unwrap_or_else(|wrong| (Exit::Broken(wrong), Usage::default()))
    }

    async fn reap(&self, folder: &Path) {
        // Processes know their folder by its one true name.
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        if let Err(error) = tokio::task::spawn_blocking(move || leftovers::kill(&folder)).await {
            tracing::error!(%error, "leftovers of a job were not looked for");
        }
    }
}
