//! A training run and its folder: configuration, metrics, TensorBoard events, checkpoints. A run
//! that was interrupted goes on where its last checkpoint stands.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module;
use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};
use remora_env::file::write_whole;
use remora_env::{Scenarios, scenario::ScenarioError};
use remora_policies::checkpoint::CheckpointError;
use remora_policies::heuristics::GreedyMarginal;
use remora_policies::rollout::{Figures, play};
use remora_policies::{Checkpoint, Learned, Policy};
use serde::{Deserialize, Serialize};
use tensorboard_rs::summary_writer::SummaryWriter;

use crate::collect::{Course, Lesson, VALIDATION_SEEDS};
use crate::config::Config;
use crate::ppo::{Learner, Metrics};
use crate::statistics::geometric_mean;

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// After the configuration's iterations: the same seed gives the same bytes.
    Iterations,
    /// After this wall time; how far that goes depends on the machine.
    Minutes(f64),
}

/// Where to train and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    pub folder: PathBuf,
    pub budget: Budget,
    /// Go on with the run in `folder`.
    pub resume: bool,
}

/// Why a run could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the configuration has problems:\n  {}", .0.join("\n  "))]
    Config(Vec<String>),
    #[error("{0} holds a run already: name another folder with --out, or go on with --resume")]
    Exists(PathBuf),
    #[error("{0} holds no run to resume: its config.toml is missing")]
    Nothing(PathBuf),
    #[error("cannot write {path}: {source}; choose another folder with --out")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot read {path}: {reason}")]
    Read { path: PathBuf, reason: String },
    #[error(
        "iteration {0} ended in weights that are not numbers; lower learning_rate (the last good checkpoint is kept)"
    )]
    Diverged(u64),
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    pub iteration: u64,
    /// Decisions made so far.
    pub decisions: u64,
    /// Mean cost per task while exploring, over that of `greedy-completion`.
    pub exploring_cost: f64,
    pub policy_loss: f64,
    pub value_loss: f64,
    pub explained_variance: f64,
    pub entropy: f64,
    pub kl: f64,
    pub clip_fraction: f64,
    /// Cost over `greedy-marginal` on the validation worlds, where it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
}

/// Cost over `greedy-marginal` on worlds that training does not see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Geometric mean over scenarios, seeds and α.
    pub cost: f64,
    /// Geometric mean at each of [`ALPHAS`].
    pub by_alpha: Vec<f64>,
}

/// Positions of the dial at which policies are compared.
pub const ALPHAS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
const VALIDATION_WORLDS: u64 = 4;
const VALIDATION_MEMBERS: u64 = 16;

/// What a run tells while it goes.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    pub line: &'a Line,
    /// Share of the budget that is used.
    pub progress: f64,
    pub decisions_per_s: f64,
}

/// What a finished run leaves.
#[derive(Clone, Debug)]
pub struct Finished {
    pub best: PathBuf,
    pub validation: f64,
    pub iterations: u64,
    pub lines: Vec<Line>,
}

/// The files of a run.
struct Folder(PathBuf);

impl Folder {
    fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }
    fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }
    fn latest(&self) -> PathBuf {
        self.0.join("checkpoints/latest.safetensors")
    }
    fn best(&self) -> PathBuf {
        self.0.join("checkpoints/best.safetensors")
    }
    fn optimizer(&self, iteration: u64) -> PathBuf {
        self.0.join(format!("checkpoints/optimizer-{iteration}.bpk"))
    }
}

fn writing(path: &Path) -> impl Fn(std::io::Error) -> RunError + '_ {
    move |source| RunError::Write { path: path.to_owned(), source }
}

/// Trains. `watch` is called after every iteration.
pub fn train(
    config: Config,
    options: &Options,
    watch: &mut dyn FnMut(&Report<'_>),
) -> Result<Finished, RunError> {
    let folder = Folder(options.folder.clone());
    let config = if options.resume { read_config(&folder, &config)? } else { prepare(&folder, config)? };
    let mut run = Run::new(config, folder, options.resume)?;
    let started = Instant::now();
    loop {
        let progress = match options.budget {
            Budget::Iterations => run.learner.iteration as f64 / run.learner.config.iterations as f64,
            Budget::Minutes(minutes) => started.elapsed().as_secs_f64() / 60.0 / minutes,
        };
        if progress >= 1.0 {
            break;
        }
        let metrics = run.learner.step(progress);
        let line = run.record(&metrics)?;
        let decisions_per_s = metrics.decisions as f64 / (metrics.collect_s + metrics.update_s);
        watch(&Report { line: &line, progress, decisions_per_s });
        run.lines.push(line);
    }
    run.finish()
}

fn prepare(folder: &Folder, config: Config) -> Result<Config, RunError> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(RunError::Config(problems));
    }
    if folder.config().exists() {
        return Err(RunError::Exists(folder.0.clone()));
    }
    let checkpoints = folder.0.join("checkpoints");
    fs::create_dir_all(&checkpoints).map_err(writing(&checkpoints))?;
    let text = toml::to_string(&config).expect("plain data becomes TOML");
    write_whole(&folder.config(), |file| file.write_all(text.as_bytes()))
        .map_err(writing(&folder.config()))?;
    Ok(config)
}

/// The configuration that the run began with; only the number of iterations may be changed.
fn read_config(folder: &Folder, wanted: &Config) -> Result<Config, RunError> {
    let path = folder.config();
    let text = fs::read_to_string(&path).map_err(|_| RunError::Nothing(folder.0.clone()))?;
    let config: Config =
        toml::from_str(&text).map_err(|error| RunError::Read { path, reason: error.to_string() })?;
    Ok(Config { iterations: wanted.iterations, ..config })
}

struct Run {
    folder: Folder,
    learner: Learner,
    /// The validation worlds.
    lessons: Vec<Lesson>,
    /// Cost of `greedy-marginal` on each validation world at each α.
    greedy: Vec<f64>,
    best: f64,
    decisions: u64,
    lines: Vec<Line>,
    board: SummaryWriter,
}

impl Run {
    fn new(config: Config, folder: Folder, resume: bool) -> Result<Run, RunError> {
        let courses: Result<Vec<Course>, RunError> = config
            .scenarios
            .iter()
            .map(|name| Ok(Course::new(Scenarios::load(name)?, config.tasks)))
            .collect();
        let courses = courses?;
        let lessons = lessons(&courses);
        let learner = Learner::new(config, courses);
        let board = SummaryWriter::new(folder.0.join("tensorboard"));
        let greedy = validate(&lessons, &|| Box::new(GreedyMarginal::default()));
        let mut run = Run {
            folder,
            learner,
            lessons,
            greedy,
            best: f64::INFINITY,
            decisions: 0,
            lines: Vec::new(),
            board,
        };
        if resume {
            run.restore()?;
        }
        Ok(run)
    }

    /// Takes up the state of the last checkpoint and forgets what was recorded after it.
    fn restore(&mut self) -> Result<(), RunError> {
        let latest = self.folder.latest();
        if !latest.exists() {
            // Interrupted before its first checkpoint: it begins anew.
            let path = self.folder.metrics();
            return write_whole(&path, |_| Ok(())).map_err(writing(&path));
        }
        let checkpoint = Checkpoint::load(&latest)?;
        let iteration = checkpoint.about.iterations;
        let path = self.folder.optimizer(iteration);
        let read = |reason: String| RunError::Read { path: path.clone(), reason };
        let state = fs::read(&path).map_err(|error| read(error.to_string()))?;
        self.learner.restore(&checkpoint, state).map_err(read)?;
        let path = self.folder.metrics();
        let read = |reason: String| RunError::Read { path: path.clone(), reason };
        for line in fs::read_to_string(&path).map_err(|error| read(error.to_string()))?.lines() {
            // The last line may be torn; everything up to the checkpoint is whole.
            let Ok(line) = serde_json::from_str::<Line>(line) else { break };
            if line.iteration > iteration {
                break;
            }
            self.decisions = line.decisions;
            self.best = line.validation.as_ref().map_or(self.best, |v| v.cost.min(self.best));
            self.lines.push(line);
        }
        let lines = &self.lines;
        write_whole(&path, |file| lines.iter().try_for_each(|line| write_line(file, line)))
            .map_err(writing(&path))
    }

    /// Books an iteration: metrics, TensorBoard, and now and then a validation with a checkpoint.
    fn record(&mut self, metrics: &Metrics) -> Result<Line, RunError> {
        let iteration = self.learner.iteration;
        if !metrics.policy_loss.is_finite() || !metrics.value_loss.is_finite() {
            return Err(RunError::Diverged(iteration));
        }
        self.decisions += metrics.decisions as u64;
        let mut line = Line {
            iteration,
            decisions: self.decisions,
            exploring_cost: metrics.relative_cost,
            policy_loss: metrics.policy_loss,
            value_loss: metrics.value_loss,
            explained_variance: metrics.explained_variance,
            entropy: metrics.entropy,
            kl: metrics.kl,
            clip_fraction: metrics.clip_fraction,
            validation: None,
        };
        if iteration.is_multiple_of(self.learner.config.validate_every) {
            line.validation = Some(self.validate()?);
        }
        let path = self.folder.metrics();
        let mut file =
            fs::OpenOptions::new().create(true).append(true).open(&path).map_err(writing(&path))?;
        write_line(&mut file, &line).map_err(writing(&path))?;
        self.show(&line, metrics);
        if let Some(validation) = &line.validation {
            self.save(validation)?;
        }
        Ok(line)
    }

    /// Measures the network as it stands and keeps it if it is the best so far.
    fn validate(&mut self) -> Result<Validation, RunError> {
        let network = self.learner.network.valid();
        let config = self.learner.config.network;
        let costs =
            validate(&self.lessons, &|| Box::new(Learned::from_network("training", network.clone(), config)));
        let ratios: Vec<f64> = costs.iter().zip(&self.greedy).map(|(ours, greedy)| ours / greedy).collect();
        let at =
            |alpha: usize| -> Vec<f64> { ratios.iter().skip(alpha).step_by(ALPHAS.len()).copied().collect() };
        let by_alpha = (0..ALPHAS.len()).map(|alpha| geometric_mean(&at(alpha))).collect();
        let validation = Validation { cost: geometric_mean(&ratios), by_alpha };
        if validation.cost < self.best {
            self.best = validation.cost;
            self.checkpoint(&validation).save(&self.folder.best())?;
        }
        Ok(validation)
    }

    fn checkpoint(&self, validation: &Validation) -> Checkpoint {
        let config = &self.learner.config;
        Checkpoint::new(
            &self.learner.network.valid(),
            config.network,
            config.seed,
            self.learner.iteration,
            serde_json::to_value(config).expect("plain data becomes JSON"),
            serde_json::json!({ "alphas": ALPHAS, "cost_over_greedy_marginal": validation }),
        )
    }

    /// Saves what a resumed run needs; the checkpoint goes last, so that it never lacks its
    /// optimiser.
    fn save(&self, validation: &Validation) -> Result<(), RunError> {
        let iteration = self.learner.iteration;
        let path = self.folder.optimizer(iteration);
        let state = self.learner.optimizer_bytes();
        write_whole(&path, |file| file.write_all(&state)).map_err(writing(&path))?;
        self.checkpoint(validation).save(&self.folder.latest())?;
        let before = iteration.saturating_sub(self.learner.config.validate_every);
        // Best effort: a leftover is harmless.
        let _ = fs::remove_file(self.folder.optimizer(before));
        Ok(())
    }

    fn show(&mut self, line: &Line, metrics: &Metrics) {
        let step = line.iteration as usize;
        let total_s = metrics.collect_s + metrics.update_s;
        let scalars = [
            ("cost/exploring_over_greedy_completion", line.exploring_cost),
            ("policy/loss", line.policy_loss),
            ("policy/entropy", line.entropy),
            ("policy/kl", line.kl),
            ("policy/clip_fraction", line.clip_fraction),
            ("critic/loss", line.value_loss),
            ("critic/explained_variance", line.explained_variance),
            ("speed/decisions_per_s", metrics.decisions as f64 / total_s),
            ("speed/gradient_samples_per_s", metrics.gradient_samples as f64 / metrics.update_s),
            ("speed/collect_s", metrics.collect_s),
            ("speed/update_s", metrics.update_s),
        ];
        for (tag, value) in scalars {
            self.board.add_scalar(tag, value as f32, step);
        }
        if let Some(validation) = &line.validation {
            self.board.add_scalar("validation/cost_over_greedy_marginal", validation.cost as f32, step);
            for (alpha, cost) in ALPHAS.iter().zip(&validation.by_alpha) {
                self.board.add_scalar(&format!("validation/alpha_{alpha}"), *cost as f32, step);
            }
        }
        self.board.flush();
    }

    fn finish(mut self) -> Result<Finished, RunError> {
        let measured = self.lines.last().is_some_and(|line| line.validation.is_some());
        if !measured {
            let validation = self.validate()?;
            self.save(&validation)?;
            if let Some(line) = self.lines.last_mut() {
                line.validation = Some(validation);
            }
        }
        self.board.flush();
        Ok(Finished {
            best: self.folder.best(),
            validation: self.best,
            iterations: self.learner.iteration,
            lines: self.lines,
        })
    }
}

fn write_line(file: &mut dyn Write, line: &Line) -> std::io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}

/// The worlds on which checkpoints are compared: as many of each course, more of a family.
fn lessons(courses: &[Course]) -> Vec<Lesson> {
    let seeds = |course: &Course| {
        let worlds = if course.is_family() { VALIDATION_MEMBERS } else { VALIDATION_WORLDS };
        VALIDATION_SEEDS..VALIDATION_SEEDS + worlds
    };
    let wanted: Vec<(Course, u64)> =
        courses.iter().flat_map(|course| seeds(course).map(|seed| (course.for_validation(), seed))).collect();
    wanted.par_iter().map(|(course, seed)| course.lesson(*seed)).collect()
}

/// Costs on the validation worlds: for each scenario and seed, at each of [`ALPHAS`].
fn validate(lessons: &[Lesson], policy: &(dyn Fn() -> Box<dyn Policy> + Sync)) -> Vec<f64> {
    lessons
        .par_iter()
        .flat_map_iter(|Lesson { world, units }| {
            ALPHAS.into_iter().map(|alpha| {
                let episode = play(world, policy().as_mut(), alpha, units.reference);
                let figures = Figures::of(&episode);
                units.reference.cost(alpha, figures.moved_bytes_per_task(), figures.response_mean_s)
            })
        })
        .collect()
}
