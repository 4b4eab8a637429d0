//! A training run and its folder: configuration, metrics, TensorBoard events, checkpoints. A run
//! that was interrupted goes on where its last checkpoint stands.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};
use remora_env::file::write_whole;
use remora_env::{Scenarios, scenario::ScenarioError};
use remora_policies::checkpoint::CheckpointError;
use remora_policies::heuristics::GreedyMarginal;
use remora_policies::learned::inputs;
use remora_policies::network::{ActorCritic, Caution, NetworkConfig};
use remora_policies::rollout::{Figures, play};
use remora_policies::{Checkpoint, Learned, Policy};
use serde::{Deserialize, Serialize};

use crate::board::Board;
use crate::config::Config;
use crate::course::{Course, Lesson, Units, VALIDATION_SEEDS};
use crate::labels::Labels;
use crate::learner::{BadBatch, Learner, Metrics, Phase};
use crate::statistics::geometric_mean;
use crate::status::Notes;

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
    /// Begin with these weights, on a network of their shape.
    pub from: Option<Checkpoint>,
}

/// Why a run could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the configuration has problems:\n  {}", .0.join("\n  "))]
    Config(Vec<String>),
    #[error("{0} holds a run already: name another folder with --out, or go on with --resume")]
    Exists(PathBuf),
    #[error("another process trains in {0}: wait for its end, or name another folder with --out")]
    Taken(PathBuf),
    #[error("{0} holds no run to resume: its config.toml is missing")]
    Nothing(PathBuf),
    #[error("cannot write {path}: {source}; choose another folder with --out")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot read {path}: {reason}")]
    Read { path: PathBuf, reason: String },
    #[error(
        "iteration {iteration} came to a loss that is no number and was stopped; lower learning_rate. The last good \
         checkpoint is kept, and the batch is in {batch}"
    )]
    Diverged { iteration: u64, batch: PathBuf },
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    pub iteration: u64,
    /// What it learnt from.
    #[serde(default)]
    pub phase: Phase,
    /// Decisions made so far.
    pub decisions: u64,
    /// Mean cost per task while exploring, over that of `greedy-completion`.
    pub exploring_cost: f64,
    pub policy_loss: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_loss: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explained_variance: Option<f64>,
    pub entropy: f64,
    pub kl: f64,
    pub clip_fraction: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_regret: Option<f64>,
    #[serde(default)]
    pub gradient_norm: f64,
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
    /// With so much caution, the best of some at each of [`ALPHAS`].
    #[serde(default, skip_serializing_if = "Caution::is_none")]
    pub caution: Caution,
}

/// How cautious a network may come to be, see [`Caution`]. What little labels make it prefer is mostly chance. The first is
/// none at all.
const CAUTIONS: [f32; 3] = [0.0, 3.0, 10.0];

/// Positions of the dial at which policies are compared.
pub const ALPHAS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
const VALIDATION_WORLDS: u64 = 4;
const VALIDATION_MEMBERS: u64 = 48;

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
    fn replay(&self, iteration: u64) -> PathBuf {
        self.0.join(format!("checkpoints/labels-{iteration}.safetensors"))
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
    let config = match &options.from {
        _ if options.resume => read_config(&folder, &config)?,
        Some(from) => prepare(&folder, continued(config, from))?,
        None => prepare(&folder, config)?,
    };
    let notes = Notes::begin(&folder.0, options.budget);
    let mut notes = notes.map_err(|_| RunError::Taken(folder.0.clone()))?;
    let trained = go_on(config, folder, options, &mut notes, watch);
    notes.end(&trained);
    trained
}

/// Trains to the end of the budget.
fn go_on(
    config: Config,
    folder: Folder,
    options: &Options,
    notes: &mut Notes,
    watch: &mut dyn FnMut(&Report<'_>),
) -> Result<Finished, RunError> {
    let mut run = Run::new(config, folder, options)?;
    let started = Instant::now();
    let used = |learner: &Learner| match options.budget {
        Budget::Iterations => learner.iteration as f64 / learner.config.iterations as f64,
        Budget::Minutes(minutes) => started.elapsed().as_secs_f64() / 60.0 / minutes,
    };
    notes.begun(used(&run.learner));
    loop {
        let progress = used(&run.learner);
        if progress >= 1.0 {
            break;
        }
        let metrics = run.learner.step(progress).map_err(|batch| run.diverged(&batch))?;
        let line = run.record(&metrics)?;
        let decisions_per_s = metrics.decisions as f64 / (metrics.collect_s + metrics.update_s);
        notes.iteration(line.iteration, used(&run.learner), metrics.decisions);
        watch(&Report { line: &line, progress, decisions_per_s });
        run.lines.push(line);
    }
    run.finish()
}

/// The configuration of a run that begins with the weights of a checkpoint.
fn continued(config: Config, from: &Checkpoint) -> Config {
    // How cautious it is to be is found anew.
    Config {
        from: Some(from.id()),
        network: NetworkConfig { caution: Caution::default(), ..from.about.network },
        ..config
    }
}

/// Bytes that a run writes before it has anything to show for them.
const PROBE: usize = 32 << 20;

/// Writes as much as a run will, and takes it away again: better to fail now than after an hour.
fn probe(checkpoints: &Path) -> Result<(), RunError> {
    let path = checkpoints.join("probe");
    let written = write_whole(&path, |file| file.write_all(&vec![0; PROBE])).map_err(writing(&path));
    // Best effort: a leftover is harmless.
    let _ = fs::remove_file(&path);
    written
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
    probe(&checkpoints)?;
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

/// What a network comes to on the validation worlds if another candidate than its prices advise has to be ahead by so many
/// logits: cost over `greedy-marginal`, and where it stands, at each of [`ALPHAS`].
struct Tried {
    logits: f32,
    by_alpha: Vec<f64>,
    points: Vec<(f64, f64)>,
}

struct Run {
    folder: Folder,
    learner: Learner,
    /// The validation worlds.
    lessons: Vec<Lesson>,
    /// Cost of `greedy-marginal` on each validation world at each α.
    greedy: Vec<f64>,
    /// Where it stands between response time and data moved at each α, and where the network stood last.
    greedy_points: Vec<(f64, f64)>,
    points: Vec<(f64, f64)>,
    best: f64,
    decisions: u64,
    lines: Vec<Line>,
    board: Board,
}

impl Run {
    fn new(config: Config, folder: Folder, options: &Options) -> Result<Run, RunError> {
        let courses: Result<Vec<Course>, RunError> = config
            .scenarios
            .iter()
            .map(|name| Ok(Course::new(Scenarios::load(name)?, config.tasks)))
            .collect();
        let courses = courses?;
        // What is named more often is trained on more often, and is validated once.
        let named_before = |index: usize| config.scenarios[..index].contains(&config.scenarios[index]);
        let once = courses.iter().enumerate().filter(|(index, _)| !named_before(*index));
        let lessons = lessons(once.map(|(_, course)| course));
        let mut learner = Learner::new(config, courses);
        if let Some(from) = &options.from {
            learner.begin_from(from).map_err(CheckpointError::Shape)?;
        }
        let hyperparameters = serde_json::to_value(&learner.config).expect("plain data becomes JSON");
        let board = Board::new(&folder.0.join("tensorboard"), &hyperparameters);
        let (greedy, greedy_points) = validate(&lessons, &|| Box::new(GreedyMarginal::default()));
        let mut run = Run {
            folder,
            learner,
            lessons,
            greedy,
            greedy_points,
            points: Vec::new(),
            best: f64::INFINITY,
            decisions: 0,
            lines: Vec::new(),
            board,
        };
        if options.resume {
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
        let path = self.folder.replay(iteration);
        if path.exists() {
            let read = |reason: String| RunError::Read { path: path.clone(), reason };
            let bytes = fs::read(&path).map_err(|error| read(error.to_string()))?;
            self.learner.replay = Labels::from_bytes(&bytes).map_err(read)?;
        }
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

    /// Saves a batch that the network could not learn from.
    fn diverged(&self, batch: &BadBatch) -> RunError {
        let path = self.folder.0.join("bad-batch.json");
        let BadBatch { inputs, rows } = batch;
        let text = serde_json::json!({ "rows": rows, "features": inputs.features, "mask": inputs.mask });
        match write_whole(&path, |file| Ok(serde_json::to_writer(file, &text)?)) {
            Ok(()) => RunError::Diverged { iteration: self.learner.iteration + 1, batch: path },
            Err(source) => RunError::Write { path, source },
        }
    }

    /// Books an iteration: metrics, TensorBoard, and now and then a validation with a checkpoint.
    fn record(&mut self, metrics: &Metrics) -> Result<Line, RunError> {
        let iteration = self.learner.iteration;
        self.decisions += metrics.decisions as u64;
        let mut line = Line {
            iteration,
            phase: metrics.phase,
            decisions: self.decisions,
            exploring_cost: metrics.relative_cost,
            policy_loss: metrics.policy_loss,
            value_loss: metrics.value_loss,
            explained_variance: metrics.explained_variance,
            entropy: metrics.entropy,
            kl: metrics.kl,
            clip_fraction: metrics.clip_fraction,
            label_regret: metrics.label_regret,
            gradient_norm: metrics.gradient_norm,
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

    /// Measures the network as it stands, as cautious as it does best, and keeps it if it is the best so far.
    fn validate(&mut self) -> Result<Validation, RunError> {
        // As long as it does what its prices advise, caution changes nothing.
        let learner = &self.learner;
        let differs =
            learner.config.network.advised && (!learner.replay.is_empty() || learner.config.from.is_some());
        let cautions = if differs { &CAUTIONS[..] } else { &CAUTIONS[..1] };
        let tried: Vec<Tried> = cautions.iter().map(|&logits| self.validate_with(logits)).collect();
        // An episode is played at one position of the dial, so each has the caution that is best there.
        let best: [&Tried; ALPHAS.len()] = std::array::from_fn(|alpha| {
            let cost = |tried: &&Tried| tried.by_alpha[alpha];
            tried.iter().min_by(|a, b| cost(a).total_cmp(&cost(b))).expect("there is a caution")
        });
        let by_alpha: Vec<f64> = best.iter().enumerate().map(|(alpha, best)| best.by_alpha[alpha]).collect();
        let caution = Caution(best.map(|best| best.logits));
        let validation = Validation { cost: geometric_mean(&by_alpha), by_alpha, caution };
        self.points = best.iter().enumerate().map(|(alpha, best)| best.points[alpha]).collect();
        if validation.cost < self.best {
            self.best = validation.cost;
            self.checkpoint(&validation).save(&self.folder.best())?;
        }
        Ok(validation)
    }

    /// What the network comes to with so much caution at every α.
    fn validate_with(&self, logits: f32) -> Tried {
        let network = self.playing(Caution([logits; ALPHAS.len()]));
        let (costs, points) =
            validate(&self.lessons, &|| Box::new(Learned::from_network("training", network.clone())));
        let ratios: Vec<f64> = costs.iter().zip(&self.greedy).map(|(ours, greedy)| ours / greedy).collect();
        let at =
            |alpha: usize| -> Vec<f64> { ratios.iter().skip(alpha).step_by(ALPHAS.len()).copied().collect() };
        let by_alpha = (0..ALPHAS.len()).map(|alpha| geometric_mean(&at(alpha))).collect();
        Tried { logits, by_alpha, points }
    }

    fn playing(&self, caution: Caution) -> ActorCritic {
        let mut network = self.learner.playing();
        network.config.caution = caution;
        network
    }

    fn checkpoint(&self, validation: &Validation) -> Checkpoint {
        let config = &self.learner.config;
        Checkpoint::new(
            &self.playing(validation.caution),
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
        if !self.learner.replay.is_empty() {
            let path = self.folder.replay(iteration);
            let labels = self.learner.replay.to_bytes();
            write_whole(&path, |file| file.write_all(&labels)).map_err(writing(&path))?;
        }
        self.checkpoint(validation).save(&self.folder.latest())?;
        let before = iteration.saturating_sub(self.learner.config.validate_every);
        for leftover in [self.folder.optimizer(before), self.folder.replay(before)] {
            // Best effort: a leftover is harmless.
            let _ = fs::remove_file(leftover);
        }
        Ok(())
    }

    fn show(&mut self, line: &Line, metrics: &Metrics) {
        let step = line.iteration;
        let total_s = metrics.collect_s + metrics.update_s;
        let scalars = [
            ("cost/exploring_over_greedy_completion", line.exploring_cost),
            ("policy/loss", line.policy_loss),
            ("policy/entropy", line.entropy),
            ("policy/kl", line.kl),
            ("policy/clip_fraction", line.clip_fraction),
            ("policy/gradient_norm", line.gradient_norm),
            ("speed/decisions_per_s", metrics.decisions as f64 / total_s),
            ("speed/gradient_samples_per_s", metrics.gradient_samples as f64 / metrics.update_s.max(1e-9)),
            ("speed/collect_s", metrics.collect_s),
            ("speed/update_s", metrics.update_s),
        ];
        let sometimes = [
            ("critic/loss", line.value_loss),
            ("critic/explained_variance", line.explained_variance),
            ("labels/regret", line.label_regret),
        ];
        let sometimes = sometimes.into_iter().filter_map(|(tag, value)| Some((tag, value?)));
        for (tag, value) in scalars.into_iter().chain(sometimes) {
            self.board.scalar(tag, value, step);
        }
        if let Some(validation) = &line.validation {
            self.board.scalar("validation/cost_over_greedy_marginal", validation.cost, step);
            for (alpha, cost) in ALPHAS.iter().zip(&validation.by_alpha) {
                self.board.scalar(&format!("validation/alpha_{alpha}"), *cost, step);
                self.board.scalar(&format!("caution/alpha_{alpha}"), validation.caution.at(*alpha), step);
            }
            self.board.front("validation/front", &self.points, &self.greedy_points, step);
            self.board.histogram("policy/probability", metrics.probabilities.iter().copied(), step);
            for (index, input) in inputs().enumerate() {
                self.board.histogram(&format!("features/{}", input.name), metrics.seen.feature(index), step);
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
fn lessons<'a>(courses: impl Iterator<Item = &'a Course>) -> Vec<Lesson> {
    let seeds = |course: &Course| {
        let worlds = if course.is_family() { VALIDATION_MEMBERS } else { VALIDATION_WORLDS };
        VALIDATION_SEEDS..VALIDATION_SEEDS + worlds
    };
    let wanted: Vec<(Course, u64)> =
        courses.flat_map(|course| seeds(course).map(|seed| (course.for_validation(), seed))).collect();
    wanted.par_iter().map(|(course, seed)| course.lesson(*seed, 1)).collect()
}

/// Costs on the validation worlds, for each scenario and seed at each of [`ALPHAS`]; and at each α the
/// geometric means of response time and data moved, over the references.
fn validate(
    lessons: &[Lesson],
    policy: &(dyn Fn() -> Box<dyn Policy> + Sync),
) -> (Vec<f64>, Vec<(f64, f64)>) {
    let played: Vec<(f64, f64, f64)> = lessons
        .par_iter()
        .flat_map_iter(|Lesson { world, units: Units { reference, .. } }| {
            ALPHAS.into_iter().map(|alpha| {
                let figures = Figures::of(&play(world, policy().as_mut(), alpha, *reference));
                let (moved, response_s) = (figures.moved_bytes_per_task(), figures.response_mean_s);
                let relative = (response_s / reference.response_s, moved / reference.moved_bytes);
                (reference.cost(alpha, moved, response_s), relative.0, relative.1)
            })
        })
        .collect();
    let mean = |alpha: usize, of: fn(&(f64, f64, f64)) -> f64| {
        // What moves no data at all still has a logarithm.
        let values = played.iter().skip(alpha).step_by(ALPHAS.len()).map(|played| of(played).max(1e-6));
        geometric_mean(&values.collect::<Vec<_>>())
    };
    let points = (0..ALPHAS.len()).map(|alpha| (mean(alpha, |p| p.1), mean(alpha, |p| p.2)));
    (played.iter().map(|played| played.0).collect(), points.collect())
}
