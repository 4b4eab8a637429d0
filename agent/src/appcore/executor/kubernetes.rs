//! Jobs as Jobs of Kubernetes: a pod each, on the node that was chosen.
//!
//! ```text
//! folder ── one volume, mounted here and there under the same path ──► pod: image, command, limits
//!        ◄──────────── what it writes; its log is copied ─────────────
//! ```
//!
//! A Job's name follows from run and attempt, so whoever asks again finds it. It never begins again by itself, and ends
//! in time where the service does not come back. What a pod uses is not measured; its limits hold all the same.

mod ends;
mod object;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::io::AsyncReadExt;
use k8s_openapi::api::batch::v1::Job as Object;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::{Api, Client};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::{Executor, Exit, Job, OUTPUT, Stop};
use crate::appcore::folder;
use crate::appcore::run::{LOG, Usage};
use object::{CONTAINER, RUN};

/// How often a Job is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long an API server that does not answer is asked again, and a Job may take to be gone.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a log may still come after its pod has ended.
const LAST_LINES: Duration = Duration::from_secs(10);

/// Where Jobs are made, and how their folders get there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Namespace of the Jobs and of the claim.
    pub namespace: String,
    /// The claim of a volume that all nodes can write at the same time.
    pub claim: String,
    /// Where the same volume is mounted here; the folder of the applications lies in it.
    pub path: PathBuf,
}

/// Makes Jobs, and sees how they end.
#[derive(Clone, Debug)]
pub struct Jobs {
    jobs: Api<Object>,
    pods: Api<Pod>,
    settings: Settings,
    look: Duration,
}

impl Jobs {
    pub fn new(client: Client, settings: Settings) -> Jobs {
        let jobs = Api::namespaced(client.clone(), &settings.namespace);
        let pods = Api::namespaced(client, &settings.namespace);
        Jobs { jobs, pods, settings, look: LOOK }
    }

    /// Looks so often.
    pub fn looking_every(self, look: Duration) -> Jobs {
        Jobs { look, ..self }
    }

    /// Makes the Job, unless it is there.
    async fn make(&self, object: &Object) -> kube::Result<()> {
        let usual = PostParams::default();
        match self.patiently(|| self.jobs.create(&usual, object)).await {
            Err(error) if code(&error) == Some(409) => Ok(()),
            made => made.map(drop),
        }
    }

    /// Names of a run's Jobs.
    async fn of(&self, run: &str) -> kube::Result<Vec<String>> {
        let of = ListParams::default().labels(&format!("{RUN}={run}"));
        let jobs = self.jobs.list(&of).await?.items;
        Ok(jobs.into_iter().filter_map(|object| object.metadata.name).collect())
    }

    /// Its newest pod.
    async fn pod(&self, name: &str) -> kube::Result<Option<Pod>> {
        let of = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
        let pods = self.patiently(|| self.pods.list(&of)).await?.items;
        Ok(pods.into_iter().max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|made| made.0)))
    }

    /// Sees it to its end.
    async fn watch(
        &self,
        job: &Job,
        name: &str,
        log: &mut Option<JoinHandle<kube::Result<()>>>,
    ) -> kube::Result<Exit> {
        loop {
            let Some(object) = self.patiently(|| self.jobs.get_opt(name)).await? else {
                return Ok(Exit::Broken("somebody else deleted its Job".to_owned()));
            };
            let pod = self.pod(name).await?;
            if let Some(pod) = pod.as_ref().filter(|pod| log.is_none() && ends::began(pod)) {
                let pod = pod.metadata.name.clone().unwrap_or_default();
                *log = Some(tokio::spawn(copy_log(self.pods.clone(), pod, job.clone())));
            }
            if let Some(exit) = ends::exit(&object, pod.as_ref()) {
                return Ok(exit);
            }
            if written(&job.folder).await > u64::from(job.limits.output_mib) << 20 {
                return Ok(Exit::Output);
            }
            sleep(self.look).await;
        }
    }

    /// Removes a Job with its pods, and waits until nothing of it runs any more.
    async fn remove(&self, name: &str, how: &Stop) -> Result<(), String> {
        let told = |error: kube::Error| format!("its Job cannot be ended: {error}");
        let params = DeleteParams::foreground();
        match self.patiently(|| self.jobs.delete(name, &params)).await {
            Err(error) if code(&error) == Some(404) => return Ok(()),
            deleted => drop(deleted.map_err(told)?),
        }
        if *how == Stop::Now
            && let Some(pod) = self.pod(name).await.map_err(told)?.and_then(|pod| pod.metadata.name)
        {
            // The least that waits until the node says that it is dead.
            let at_once = DeleteParams::default().grace_period(1);
            match self.patiently(|| self.pods.delete(&pod, &at_once)).await {
                Err(error) if code(&error) != Some(404) => return Err(told(error)),
                _ => {}
            }
        }
        let began = Instant::now();
        while self.patiently(|| self.jobs.get_opt(name)).await.map_err(told)?.is_some() {
            if began.elapsed() > PATIENCE {
                return Err(format!("Job {name} is to end and does not"));
            }
            sleep(self.look).await;
        }
        Ok(())
    }

    async fn carry_out(&self, job: &Job, mut stop: watch::Receiver<Option<Stop>>) -> Result<Exit, String> {
        let object = object::of(job, &self.settings)?;
        let name = object::name(&job.run);
        // What the API server could not be asked about at the start would write into the same folder.
        let earlier = self.patiently(|| self.of(&job.run.id)).await;
        for left in earlier.map_err(|error| format!("earlier Jobs are not known: {error}"))? {
            if left != name {
                self.remove(&left, &Stop::Now).await?;
            }
        }
        self.make(&object).await.map_err(|error| format!("its Job cannot be made: {error}"))?;
        let mut log = None;
        let (exit, how) = tokio::select! {
            exit = self.watch(job, &name, &mut log) => {
                let exit = exit.map_err(|error| format!("nobody knows how its Job goes: {error}"));
                (exit.unwrap_or_else(Exit::Broken), Stop::Now)
            }
            // A sender that is gone stops nothing.
            Ok(how) = async { stop.wait_for(Option::is_some).await.map(|how| how.clone()) } => {
                (Exit::Stopped, how.unwrap_or(Stop::Now))
            }
        };
        if matches!(exit, Exit::Code(_) | Exit::Memory) {
            // Its pod has ended: nobody needs to wait for what is only tidied up.
            let params = DeleteParams::background();
            self.copied(log).await;
            let tidied = self.patiently(|| self.jobs.delete(&name, &params)).await;
            if let Err(error) = tidied.map(drop)
                && code(&error) != Some(404)
            {
                tracing::warn!(%error, job = name, "a Job that has ended was not deleted");
            }
        } else {
            self.remove(&name, &how).await?;
            self.copied(log).await;
        }
        let much = written(&job.folder).await > u64::from(job.limits.output_mib) << 20;
        Ok(if much && exit == Exit::Code(0) { Exit::Output } else { exit })
    }

    /// Waits until its log is copied.
    async fn copied(&self, log: Option<JoinHandle<kube::Result<()>>>) {
        let Some(mut log) = log else { return };
        match timeout(LAST_LINES, &mut log).await {
            Ok(Ok(Err(error))) => tracing::warn!(%error, "a log was not copied to its end"),
            Err(_) => log.abort(),
            _ => {}
        }
    }

    /// Asks until there is an answer; no longer where it would be the same again.
    async fn patiently<T, F>(&self, ask: impl Fn() -> F) -> kube::Result<T>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let began = Instant::now();
        loop {
            match ask().await {
                Err(error) if passes(&error) && began.elapsed() < PATIENCE => sleep(self.look).await,
                answer => return answer,
            }
        }
    }
}

/// The status with which the API server refused.
fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// It may be otherwise when asked again.
fn passes(error: &kube::Error) -> bool {
    code(error).is_none_or(|code| code >= 500 || code == 429)
}

/// Bytes of output and log.
async fn written(folder: &Path) -> u64 {
    let folder = folder.to_owned();
    let sum = move || {
        let mut files = folder::files(&folder.join(OUTPUT)).unwrap_or_default();
        files.push((LOG.to_owned(), folder.join(LOG)));
        files.iter().filter_map(|(_, path)| Some(path.metadata().ok()?.len())).sum()
    };
    // The folder may lie on a volume that other machines use too.
    spawn_blocking(sum).await.unwrap_or_default()
}

/// Copies what a pod says while it says it, as far as it may write.
async fn copy_log(pods: Api<Pod>, pod: String, job: Job) -> kube::Result<()> {
    let most = (i64::from(job.limits.output_mib) << 20) + 1;
    let container = Some(CONTAINER.to_owned());
    let params = LogParams { follow: true, container, limit_bytes: Some(most), ..LogParams::default() };
    let mut said = std::pin::pin!(pods.log_stream(&pod, &params).await?);
    let mut copy = File::create(job.folder.join(LOG)).map_err(wrong)?;
    let mut piece = vec![0; 16 << 10];
    loop {
        match said.read(&mut piece).await.map_err(wrong)? {
            0 => return Ok(()),
            length => copy.write_all(&piece[..length]).map_err(wrong)?,
        }
    }
}

fn wrong(error: std::io::Error) -> kube::Error {
    kube::Error::Service(Box::new(error))
}

#[tonic::async_trait]
impl Executor for Jobs {
    async fn run(&self, job: &Job, stop: watch::Receiver<Option<Stop>>) -> (Exit, Usage) {
        if stop.borrow().is_some() {
            return (Exit::Stopped, Usage::default());
        }
        let exit = self.carry_out(job, stop).await.unwrap_or_else(Exit::Broken);
        (exit, Usage { output_bytes: written(&job.folder).await, ..Usage::default() })
    }

    async fn reap(&self, folder: &Path) {
        let Some(run) = folder.file_name().map(|name| name.to_string_lossy().into_owned()) else { return };
        let left = match self.of(&run).await {
            Ok(left) => left,
            // The service starts whether there is an API server or not; a run's next attempt looks again.
            Err(error) => return tracing::warn!(%error, run, "leftovers of a job were not looked for"),
        };
        for name in left {
            if let Err(error) = self.remove(&name, &Stop::Now).await {
                tracing::error!(error, run, "something is left of a job");
            }
        }
    }
}
