//! AppCore as a whole: started beside the service, reached through one handle.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use super::core::Core;
use super::executor::Executor;
use super::executor::kubernetes::Jobs;
use super::executor::process::Processes;
use super::executor::simulated::Simulated;
use super::housekeeping;
use super::launcher::Launcher;
use super::owner::{self, Handle};
use super::placing::{KUBERNETES, LOCAL, PROCESS, Placing, SIMULATED};
use super::watcher;
use crate::service::{Clock, Door};
use crate::storage::Storage;

/// What AppCore is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where runs and unpacked code lie.
    pub folder: PathBuf,
    /// The cluster over whose nodes runs are placed.
    pub cluster: String,
    /// What runs jobs on this machine.
    pub processes: Processes,
    /// What plays jobs on nodes that exist in a scenario alone.
    pub simulated: Simulated,
    /// What runs them in Kubernetes, where that is configured.
    pub jobs: Option<Jobs>,
}

impl Options {
    /// Over this machine alone.
    pub fn new(folder: impl Into<PathBuf>, processes: Processes) -> Options {
        let (folder, cluster) = (folder.into(), LOCAL.to_owned());
        Options { folder, cluster, processes, simulated: Simulated { speed: 1.0 }, jobs: None }
    }

    /// What runs jobs, by the label of nodes.
    fn executors(&self) -> BTreeMap<String, Arc<dyn Executor>> {
        let processes: Arc<dyn Executor> = Arc::new(self.processes.clone());
        let simulated: Arc<dyn Executor> = Arc::new(self.simulated);
        let jobs = self.jobs.clone().map(|jobs| Arc::new(jobs) as Arc<dyn Executor>);
        let always = [(PROCESS, processes), (SIMULATED, simulated)];
        let all = always.into_iter().chain(jobs.map(|jobs| (KUBERNETES, jobs)));
        all.map(|(label, executor)| (label.to_owned(), executor)).collect()
    }
}

/// Access to AppCore.
#[derive(Clone, Debug)]
pub struct Apps {
    pub handle: Handle,
    pub launcher: Launcher,
    /// The cluster over whose nodes runs are placed.
    pub cluster: String,
}

impl Apps {
    /// Goes on from what was kept: what an earlier service left running is ended first.
    ///
    /// # Errors
    /// When what was kept cannot be read, or the folder cannot be written.
    pub async fn start(
        options: Options,
        storage: Arc<Storage>,
        door: Door,
        clock: Clock,
    ) -> Result<(Apps, JoinHandle<()>)> {
        let cluster = options.cluster.clone();
        let executors = options.executors();
        let placing = Placing::new(door, options.cluster);
        let folder = options.folder;
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot write {}", folder.display()))?;
        let folder = folder.canonicalize()?;
        let (handle, effects, owning) = owner::start(storage, clock.clone()).await?;
        // Folders stay where a run is to go on from them; its effects wait until the others are gone.
        let begun = |core: &Core| -> Vec<String> {
            let runs = core.apps().values().flat_map(|app| app.runs.values());
            runs.filter(|run| run.attempt > 0).map(|run| run.id.clone()).collect()
        };
        Launcher::clear(&folder, &executors, &handle.ask(begun).await?).await?;
        let launcher = Launcher::new(handle.clone(), folder, placing, executors);
        tokio::spawn(launcher.clone().work(effects));
        tokio::spawn(watcher::watch(handle.clone()));
        tokio::spawn(housekeeping::keep_house(handle.clone(), clock));
        Ok((Apps { handle, launcher, cluster }, owning))
    }
}
