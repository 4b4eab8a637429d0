//! AppCore as a whole: started beside the service, reached through one handle.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use super::executor::Executor;
use super::executor::process::Processes;
use super::housekeeping;
use super::launcher::Launcher;
use super::owner::{self, Handle};
use super::placing::{PROCESS, Placing};
use super::run::Status;
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
}

/// Access to AppCore.
#[derive(Clone, Debug)]
pub struct Apps {
    pub handle: Handle,
    pub launcher: Launcher,
    pub clock: Clock,
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
        let placing = Placing::new(door, options.cluster);
        // Folders stay where a paused run is to go on from them.
        let before = storage.apps_before().await?;
        let (core, ..) = owner::replay(before.snapshot, &before.entries)?;
        let runs = core.apps().values().flat_map(|app| app.runs.values());
        let keep: Vec<_> =
            runs.filter(|run| run.status != Status::Queued).map(|run| run.id.clone()).collect();
        drop(core);
        let executors: BTreeMap<String, Arc<dyn Executor>> =
            [(PROCESS.to_owned(), Arc::new(options.processes) as Arc<dyn Executor>)].into();
        let folder = options.folder.clone();
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot write {}", folder.display()))?;
        let folder = folder.canonicalize()?;
        Launcher::clear(&folder, &executors, &keep).await?;
        let (handle, effects, owning) = owner::start(storage, clock.clone()).await?;
        let launcher = Launcher::new(handle.clone(), folder, placing, executors);
        tokio::spawn(launcher.clone().work(effects));
        tokio::spawn(watcher::watch(handle.clone()));
        tokio::spawn(housekeeping::keep_house(handle.clone(), clock.clone()));
        Ok((Apps { handle, launcher, clock }, owning))
    }
}
