//! Carries out what AppCore wants done: has a node chosen, makes a folder ready, has an executor run the command there,
//! archives what it left, and tells AppCore and the placement service how it went.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::core::{Definition, Effect, Input, Launch};
use super::executor::{Executor, Exit, INPUT, Job, OUTPUT, Stop};
use super::folder;
use super::own::{self, Keeper};
use super::owner::Handle;
use super::placing::{PROCESS, Place, Placing};
use super::run::{Blob, DATA_ERROR, End, LOG, Left, MODEL, Run, RunKind, SCORES, Usage};

/// Lines of its log that say why a command failed.
const LAST_WORDS: usize = 3;

/// How to stop runs, by run and attempt.
type UnderWay = BTreeMap<(String, u32), watch::Sender<Option<Stop>>>;

/// To wake, which time, and as what; or to sleep.
type Order = Option<(u64, Box<Definition>)>;

/// What carries out effects; clones are the same one.
#[derive(Clone, Debug)]
pub struct Launcher(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    handle: Handle,
    /// Where runs and unpacked code lie.
    folder: PathBuf,
    placing: Placing,
    executors: BTreeMap<String, Arc<dyn Executor>>,
    /// Has the policy served that the application of Remora's own promotes.
    keeper: Keeper,
    /// What is under way.
    under_way: Mutex<UnderWay>,
    /// What is to wake and to sleep, each application in order.
    wakers: Mutex<BTreeMap<String, mpsc::UnboundedSender<Order>>>,
}

impl Launcher {
    pub fn new(
        handle: Handle,
        folder: PathBuf,
        placing: Placing,
        executors: BTreeMap<String, Arc<dyn Executor>>,
    ) -> Launcher {
        let (under_way, wakers) = (Mutex::default(), Mutex::default());
        let keeper = Keeper::new(handle.clone(), placing.door().clone());
        Launcher(Arc::new(Parts { handle, folder, placing, executors, keeper, under_way, wakers }))
    }

    /// Ends what an earlier service left running below this folder, and throws away what is not to be kept.
    pub async fn clear(
        folder: &Path,
        executors: &BTreeMap<String, Arc<dyn Executor>>,
        keep: &[String],
    ) -> Result<()> {
        let runs = folder.join("runs");
        std::fs::create_dir_all(&runs).with_context(|| format!("cannot write {}", runs.display()))?;
        for entry in std::fs::read_dir(&runs).with_context(|| format!("cannot read {}", runs.display()))? {
            let folder = entry?.path();
            for executor in executors.values() {
                executor.reap(&folder).await;
            }
            let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
            if !name.is_some_and(|name| keep.contains(&name)) {
                folder::remove(&folder);
            }
        }
        Ok(())
    }

    /// Carries out effects until AppCore is gone; then what still runs is ended.
    pub async fn work(self, mut effects: mpsc::UnboundedReceiver<Effect>) {
        let mut runs = JoinSet::new();
        tokio::spawn(self.0.keeper.clone().keep());
        while let Some(effect) = effects.recv().await {
            while runs.try_join_next().is_some() {}
            match effect {
                Effect::Wake { app, wake, definition } => self.waker(app, Some((wake, definition))),
                Effect::Sleep { app } => self.waker(app, None),
                Effect::Launch(launch) => {
                    let (told, stop) = watch::channel(None);
                    self.under_way().insert((launch.run.id.clone(), launch.run.attempt), told);
                    let launcher = self.clone();
                    runs.spawn(async move { launcher.launch(*launch, stop).await });
                }
                Effect::Stop { run, attempt, save, reason } => {
                    tracing::info!(run, reason, "stopping");
                    if let Some(stop) = self.under_way().get(&(run, attempt)) {
                        stop.send_replace(Some(if save { Stop::Save } else { Stop::Now }));
                    }
                }
                Effect::Promoted { app, version } => {
                    tracing::info!(app, version = version.number, "promoted");
                    self.0.keeper.look();
                }
                Effect::Over(_) => {}
            }
        }
        self.0.wakers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
        self.0.keeper.look();
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, UnderWay> {
        self.0.under_way.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Has an application woken or put to sleep, after what was asked before.
    fn waker(&self, app: String, wake: Order) {
        let mut wakers = self.0.wakers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let waker = wakers.entry(app.clone()).or_insert_with(|| {
            let (sender, mut orders) = mpsc::unbounded_channel::<Order>();
            let launcher = self.clone();
            tokio::spawn(async move {
                while let Some(order) = orders.recv().await {
                    let input = match order {
                        Some((wake, definition)) => {
                            let woken = launcher.wake(&app, &definition).await;
                            let error = woken.err().map(|error| format!("{error:#}"));
                            Input::Woken { app: app.clone(), wake: Some(wake), error }
                        }
                        None => Input::Slept { app: app.clone() },
                    };
                    launcher.0.handle.inform(input).await;
                }
            });
            sender
        });
        waker.send(wake).unwrap_or(());
    }

    /// Unpacks the code and lets the wake command prepare what it needs.
    async fn wake(&self, app: &str, definition: &Definition) -> Result<()> {
        let code = self.code(definition).await?;
        let Some(execute) = &definition.manifest.execute else { return Ok(()) };
        if execute.awake.wake.is_empty() {
            return Ok(());
        }
        let folder = self.0.folder.join("runs").join(format!("{app}.wake"));
        folder::fresh(&folder)?;
        folder::link_files(&code, &folder)?;
        let limits = super::manifest::Limits { timeout_s: execute.awake.wake_deadline_s, ..execute.limits };
        let environment = vec![("REMORA_APP".to_owned(), app.to_owned())];
        let job = Job {
            run: Run::new(&format!("{app}.wake"), app, RunKind::Execute),
            command: execute.awake.wake.clone(),
            image: execute.image.clone(),
            limits,
            folder: folder.clone(),
            environment,
            node: String::new(),
        };
        let (_told, stop) = watch::channel(None);
        let here = self.0.executors.get(PROCESS).context("this service runs nothing on its own machine")?;
        let (exit, _) = here.run(&job, stop).await;
        match exit {
            Exit::Code(0) => Ok(()),
            exit => bail!("its wake command {}", told(&exit, &folder)),
        }
    }

    /// The folder with a definition's files.
    async fn code(&self, definition: &Definition) -> Result<PathBuf> {
        let code = self.0.folder.join("code");
        let Some(blob) = &definition.code else {
            let empty = code.join("none");
            std::fs::create_dir_all(&empty).with_context(|| format!("cannot write {}", empty.display()))?;
            return Ok(empty);
        };
        let folder = code.join(&blob.hash);
        if !folder.exists() {
            let bytes = self.0.handle.storage().blob(&blob.hash).await.context("the application's code")?;
            folder::unpack(&bytes, &folder)?;
        }
        Ok(folder)
    }

    async fn launch(self, launch: Launch, stop: watch::Receiver<Option<Stop>>) {
        let key = (launch.run.id.clone(), launch.run.attempt);
        let (end, left) = self.run(&launch, stop).await;
        self.under_way().remove(&key);
        if end != End::Saved {
            folder::remove(&self.folder_of(&launch.run));
        }
        self.0.handle.inform(Input::Ended { run: key.0, attempt: key.1, end, left }).await;
    }

    fn folder_of(&self, run: &Run) -> PathBuf {
        self.0.folder.join("runs").join(&run.id)
    }

    /// Runs it from placement to archive.
    async fn run(&self, launch: &Launch, stop: watch::Receiver<Option<Stop>>) -> (End, Left) {
        let failure = |error: anyhow::Error| End::Failure { reason: format!("{error:#}"), exit: None };
        let place = match self.0.placing.place(launch).await {
            Ok(place) => place,
            Err(error) => return (failure(error.context("no node takes it")), Left::default()),
        };
        let began = Instant::now();
        let ran = self.on(launch, &place, stop).await;
        let (end, left) = match ran {
            Ok((end, left)) => (end, left),
            Err(error) => (failure(error), Left::default()),
        };
        self.0.placing.report(launch, &place, &end, began.elapsed()).await;
        (end, left)
    }

    /// Runs it on its node.
    async fn on(
        &self,
        launch: &Launch,
        place: &Place,
        stop: watch::Receiver<Option<Stop>>,
    ) -> Result<(End, Left)> {
        let Some(executor) = self.0.executors.get(&place.executor) else {
            bail!("node {} wants the executor {:?}, which this service has not", place.node, place.executor);
        };
        let given = match own::given(&self.0.handle, self.0.placing.door(), launch).await {
            Ok(given) => given,
            // Which is nobody's failure.
            Err(error) if error.is::<own::Nothing>() => {
                return Ok((End::Refused { reason: error.to_string() }, Left::default()));
            }
            Err(error) => return Err(error.context("what it is to learn from cannot be read")),
        };
        let mut launch = Cow::Borrowed(launch);
        if !given.is_empty() {
            launch.to_mut().run.inputs.extend_from_slice(&given);
            let (run, attempt) = (launch.run.id.clone(), launch.run.attempt);
            self.0.handle.inform(Input::Given { run, attempt, inputs: given }).await;
        }
        let launch = &*launch;
        let folder = self.folder_of(&launch.run);
        self.make_ready(launch, &folder).await?;
        let job = Job {
            run: launch.run.clone(),
            command: launch.command.clone(),
            image: launch.image.clone(),
            limits: launch.limits,
            folder: folder.clone(),
            environment: environment(launch, &folder, place),
            node: place.node.clone(),
        };
        let started = Input::Started {
            run: launch.run.id.clone(),
            attempt: launch.run.attempt,
            node: place.node.clone(),
            decision: place.decision.clone(),
        };
        self.0.handle.inform(started).await;
        let saving = stop.clone();
        let (exit, usage) = executor.run(&job, stop).await;
        let saved = exit == Exit::Stopped && *saving.borrow() == Some(Stop::Save);
        let left = self.archive(&folder, usage).await?;
        let end = if saved { End::Saved } else { ended(&exit, launch.run.kind, &folder) };
        Ok((end, left))
    }

    async fn make_ready(&self, launch: &Launch, folder: &Path) -> Result<()> {
        // What a paused run saved is what it goes on from.
        folder::fresh_but(folder, CHECKPOINT)?;
        let code = self.code(&launch.definition).await?;
        folder::link_files(&code, folder)?;
        for inner in [INPUT, OUTPUT, CHECKPOINT] {
            let inner = folder.join(inner);
            std::fs::create_dir_all(&inner).with_context(|| format!("cannot write {}", inner.display()))?;
        }
        let mut files: Vec<(PathBuf, &Blob)> = Vec::new();
        for blob in &launch.run.inputs {
            files.push((folder.join(INPUT).join(folder::safe(&blob.name)?), blob));
        }
        files.extend(launch.model.as_ref().map(|model| (folder.join(MODEL), model)));
        files.extend(launch.champion.as_ref().map(|model| (folder.join(CHAMPION), model)));
        for (path, blob) in files {
            let bytes = self.0.handle.storage().blob(&blob.hash).await;
            let bytes = bytes.with_context(|| format!("{} is not kept any more", blob.name))?;
            std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let parameters = serde_json::to_vec_pretty(&launch.definition.manifest.parameters)?;
        let path = folder.join(PARAMETERS);
        std::fs::write(&path, parameters).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Keeps all that it wrote, and its log.
    async fn archive(&self, folder: &Path, usage: Usage) -> Result<Left> {
        let mut outputs = Vec::new();
        let mut files = folder::files(&folder.join(OUTPUT))?;
        let log = folder.join(LOG);
        if log.exists() {
            files.push((LOG.to_owned(), log));
        }
        for (name, path) in files {
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            outputs.push(self.0.handle.keep(name, bytes).await.context("what it wrote cannot be kept")?);
        }
        Ok(Left { outputs, usage })
    }

    /// The log of a run that is under way.
    pub fn log(&self, run: &str) -> PathBuf {
        self.0.folder.join("runs").join(run).join(LOG)
    }
}

/// Names in a run's folder, besides those of executors.
const CHAMPION: &str = "champion";
const PARAMETERS: &str = "parameters.json";
const CHECKPOINT: &str = "checkpoint";

/// What a command is told.
fn environment(launch: &Launch, folder: &Path, place: &Place) -> Vec<(String, String)> {
    let run = &launch.run;
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let mut told = vec![
        ("REMORA_APP", run.app.clone()),
        ("REMORA_RUN", run.id.clone()),
        ("REMORA_KIND", run.kind.name().to_owned()),
        ("REMORA_SEED", run.seed.to_string()),
        ("REMORA_NODE", place.node.clone()),
        ("REMORA_INPUT", path(INPUT)),
        ("REMORA_OUTPUT", path(OUTPUT)),
        ("REMORA_CHECKPOINT", path(CHECKPOINT)),
        ("REMORA_PARAMETERS", path(PARAMETERS)),
    ];
    told.extend(launch.model.as_ref().map(|_| ("REMORA_MODEL", path(MODEL))));
    told.extend(launch.champion.as_ref().map(|_| ("REMORA_CHAMPION", path(CHAMPION))));
    told.extend(place.simulated_s.map(|seconds| ("REMORA_SIMULATED_S", seconds.to_string())));
    told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What an exit means.
fn ended(exit: &Exit, kind: RunKind, folder: &Path) -> End {
    match exit {
        Exit::Code(0) if kind == RunKind::Evaluate => match scores(folder) {
            Ok(scores) => End::Success { scores },
            Err(error) => End::Failure { reason: format!("{error:#}"), exit: Some(0) },
        },
        Exit::Code(0) => End::Success { scores: None },
        Exit::Code(code) if *code == i32::from(DATA_ERROR) => End::Refused { reason: told(exit, folder) },
        Exit::Stopped => End::Cancelled { reason: "stopped".to_owned() },
        Exit::Code(code) => End::Failure { reason: told(exit, folder), exit: Some(*code) },
        _ => End::Failure { reason: told(exit, folder), exit: None },
    }
}

fn scores(folder: &Path) -> Result<Option<super::gate::Scores>> {
    let path = folder.join(OUTPUT).join(SCORES);
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {SCORES}"))?;
    let scores = serde_json::from_str(&text).with_context(|| format!("{SCORES} is not as it should be"))?;
    Ok(Some(scores))
}

/// An exit in words, with the last that the command said.
fn told(exit: &Exit, folder: &Path) -> String {
    let how = match exit {
        Exit::Code(code) => format!("ended with code {code}"),
        Exit::Signal(signal) => format!("was killed by signal {signal}"),
        Exit::TimedOut => "ran longer than timeout_s allows".to_owned(),
        Exit::Memory => "used more memory than memory_mib allows".to_owned(),
        Exit::Output => "wrote more than output_mib allows".to_owned(),
        Exit::Stopped => "was stopped".to_owned(),
        Exit::Broken(why) => why.clone(),
    };
    let log = std::fs::read(folder.join(LOG)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let said: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = said[said.len().saturating_sub(LAST_WORDS)..].join("; ");
    let last: String = last.chars().take(500).collect();
    if last.is_empty() { how } else { format!("{how}: {last}") }
}
