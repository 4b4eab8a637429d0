//! `remora own`: a run of the application that is Remora's own policy. The service starts it, and tells it in the
//! environment what to do.

use std::env::var_os;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use remora_env::Scenario;
use remora_policies::Checkpoint;
use remora_trainer::Config;
use remora_trainer::continual::{
    ContinualError, Examined, Gate, Lessons, Pair, Player, curriculum, examine, on_windows, prepare,
};
use remora_trainer::run::{Budget, Options, Report, train};
use remora_trainer::statistics::geometric_mean;
use serde::Serialize;

use super::print;
use crate::appcore::gate::Scores;
use crate::appcore::own::{Parameters, RECORDING, SERVED};
use crate::appcore::run::{DATA_ERROR, MODEL, RunKind, SCORES};
use crate::files;

/// The heuristic that a candidate must beat, whoever is champion.
const GREEDY: &str = "greedy-marginal-tuned";
/// Windows of the recording, in the run's folder. Checkpoints name them, so the path is the same in every run.
const WINDOWS: &str = "windows";

/// Does what the environment asks for.
pub fn run() -> ExitCode {
    let done = Given::read().and_then(|given| match given.kind {
        RunKind::Learn => given.learn(),
        RunKind::Evaluate => given.evaluate(),
        RunKind::Execute => bail!("REMORA_KIND: is execute, but tasks are placed by the service"),
    });
    let Err(error) = done else { return ExitCode::SUCCESS };
    eprintln!("{error:#}");
    let useless = |error: &ContinualError| {
        matches!(error, ContinualError::NoOutcomes(_) | ContinualError::TooShort { .. })
    };
    match error.downcast_ref::<ContinualError>() {
        Some(error) if useless(error) => ExitCode::from(DATA_ERROR),
        _ => ExitCode::FAILURE,
    }
}

/// What a run is given.
struct Given {
    kind: RunKind,
    parameters: Parameters,
    seed: u64,
    input: PathBuf,
    output: PathBuf,
    checkpoint: PathBuf,
}

fn variable(name: &str) -> Result<PathBuf> {
    let value = var_os(name).map(PathBuf::from);
    value.with_context(|| format!("{name}: is not set; the service starts this command"))
}

/// The checkpoint in a file that a variable names; nothing where it is not set.
fn model(name: &str) -> Result<Option<Checkpoint>> {
    let path = var_os(name).map(PathBuf::from);
    path.map(|path| Checkpoint::load(&path).with_context(|| name.to_owned())).transpose()
}

fn write(path: &Path, content: &impl Serialize) -> Result<()> {
    files::write(path, serde_json::to_vec_pretty(content)?)
}

impl Given {
    fn read() -> Result<Given> {
        let text = |name| variable(name).map(|value| value.to_string_lossy().into_owned());
        let kind = text("REMORA_KIND")?;
        let kind = RunKind::named(&kind).ok_or_else(|| anyhow!("REMORA_KIND: is {kind:?}"))?;
        let seed = text("REMORA_SEED")?.parse().context("REMORA_SEED: want a whole number")?;
        let parameters = std::fs::read(variable("REMORA_PARAMETERS")?).context("REMORA_PARAMETERS")?;
        let parameters = Parameters::read(serde_json::from_slice(&parameters).context("REMORA_PARAMETERS")?)?;
        let (input, output) = (variable("REMORA_INPUT")?, variable("REMORA_OUTPUT")?);
        Ok(Given { kind, parameters, seed, input, output, checkpoint: variable("REMORA_CHECKPOINT")? })
    }

    /// The recording, calibrated and cut into windows: the same for learning and for judging.
    fn lessons(&self) -> Result<Lessons> {
        let recording = Scenario::load(&self.input.join(RECORDING).to_string_lossy())?;
        let windows = Path::new(WINDOWS);
        std::fs::create_dir_all(windows).with_context(|| format!("cannot write {WINDOWS}"))?;
        let lessons = prepare(&recording, 0, windows)?;
        let [before, after] = lessons.calibration.error.map(|error| 100.0 * error);
        print(format_args!(
            "{} tasks; the simulation is off by {before:.1} % (median), calibrated by {after:.1} %",
            lessons.calibration.tasks
        ))?;
        Ok(lessons)
    }

    /// Learns on from the champion, or from the shipped policy where that is the cheaper one on what is learnt from.
    fn learn(&self) -> Result<()> {
        let lessons = self.lessons()?;
        let from = begin(model("REMORA_MODEL")?, &lessons.learn)?;
        let Parameters { minutes, steps, config, .. } = &self.parameters;
        let iterations = steps.unwrap_or(config.iterations);
        let config = Config { seed: self.seed, iterations, ..curriculum(&lessons, config.clone()) };
        let folder = self.checkpoint.join("run");
        // What an earlier attempt saved is gone on from.
        let resume = folder.join("config.toml").exists();
        let budget = if steps.is_some() { Budget::Iterations } else { Budget::Minutes(*minutes) };
        let options = Options { folder, budget, resume, from: Some(from) };
        let mut watch = |report: &Report<'_>| {
            if let Some(validation) = &report.line.validation {
                let (iteration, cost) = (report.line.iteration, validation.cost);
                // A log that is full ends nothing.
                let _ = print(format_args!("iteration {iteration}: {cost:.3} of greedy-marginal"));
            }
        };
        let finished = train(config, &options, &mut watch)?;
        let learnt = Checkpoint::load(&finished.best)?;
        learnt.save(&self.output.join(MODEL))?;
        print(format_args!("learnt {} in {} iterations", learnt.id(), finished.iterations))
    }

    /// Plays candidate, champion and greedy against each other, and writes what each pair came to.
    fn evaluate(&self) -> Result<()> {
        let lessons = self.lessons()?;
        let candidate =
            model("REMORA_MODEL")?.context("REMORA_MODEL: is not set, and there is nothing to judge")?;
        let served = std::fs::read_to_string(self.input.join(SERVED)).ok();
        let champion = match (model("REMORA_CHAMPION")?, &served) {
            (_, Some(heuristic)) => Player::named(heuristic)?,
            (Some(champion), None) => Player::learned(&champion)?,
            (None, None) => Player::learned(&Checkpoint::pretrained()?)?,
        };
        let players = [Player::learned(&candidate)?, champion, Player::named(GREEDY)?];
        let Parameters { seeds, members, .. } = self.parameters;
        let gate = Gate { seeds, members, ..Gate::default() };
        let examined = examine(&players, &lessons.judge, gate)?;
        let scores = scores(&examined, gate.tolerance);
        print(format_args!("{}: {} pairs", scores.metric, scores.candidate.len()))?;
        write(&self.output.join("pairs.json"), &examined)?;
        write(&self.output.join(SCORES), &scores)
    }
}

/// Whom learning begins with.
fn begin(champion: Option<Checkpoint>, windows: &[PathBuf]) -> Result<Checkpoint> {
    let shipped = Checkpoint::pretrained()?;
    let Some(champion) = champion.filter(|champion| champion.id() != shipped.id()) else {
        return Ok(shipped);
    };
    let played = on_windows(&[Player::learned(&champion)?, Player::learned(&shipped)?], windows, 1)?;
    let ratios: Vec<f64> =
        played.iter().map(|pair| pair.costs[0].max(1e-12) / pair.costs[1].max(1e-12)).collect();
    let ratio = geometric_mean(&ratios);
    print(format_args!("on what is learnt from, the champion costs {ratio:.3} of the shipped policy"))?;
    Ok(if ratio > 1.0 { shipped } else { champion })
}

/// The scores for the gate. A pair is one world at one α; against the candidate stands the better of champion and greedy
/// on it. Where the candidate forgot what the champion knows, these pairs of test-family alone are what counts: there it
/// is worse on average, so the gate refuses it.
fn scores(Examined { recorded, known }: &Examined, tolerance: f64) -> Scores {
    let candidate = |pairs: &[&Pair]| pairs.iter().map(|pair| pair.costs[0]).collect::<Vec<f64>>();
    let champion = |pairs: &[&Pair]| pairs.iter().map(|pair| pair.costs[1]).collect::<Vec<f64>>();
    let rival = |pair: &&Pair| pair.costs[1].min(pair.costs[2]);
    let mut pairs: Vec<&Pair> = known.iter().collect();
    let (ours, theirs) = (candidate(&pairs), champion(&pairs));
    if ours.iter().sum::<f64>() > tolerance * theirs.iter().sum::<f64>() {
        let metric = "cost on test-family, of which more was forgotten than is allowed".to_owned();
        return Scores { metric, candidate: ours, champion: Some(theirs) };
    }
    pairs.splice(0..0, recorded);
    let metric =
        "cost on later windows and on test-family, against the better of champion and greedy".to_owned();
    Scores { metric, candidate: candidate(&pairs), champion: Some(pairs.iter().map(rival).collect()) }
}
