//! Learning on: what was recorded is replayed through a calibrated simulator, the champion learns from it, and
//! what comes out is promoted only where it proved better on what it has not seen and forgot nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::{IntoParallelIterator, ParallelIterator};
use remora_env::calibrate::{Calibration, calibrate};
use remora_env::family::Family;
use remora_env::import::{ImportError, Imported};
use remora_env::{Scenario, Scenarios, scenario::ScenarioError};
use remora_policies::checkpoint::CheckpointError;
use remora_policies::rollout::{self, Figures, play};
use remora_policies::{Checkpoint, Learned, Policy, PolicyError, by_name};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::statistics::{Ratio, paired_ratio};

/// Tasks per window of a recording.
pub const WINDOW: usize = 400;
/// Share of the windows, the last ones, that are kept to judge by.
const HELD_OUT: f64 = 0.3;
/// Positions of the dial at which champion and candidate are compared.
const ALPHAS: [f64; 3] = [0.0, 0.5, 1.0];

/// What a candidate must show.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// Members of the test family on which nothing may be forgotten.
    pub members: u64,
    /// Cost over the champion's on them that is still allowed.
    pub tolerance: f64,
    /// Worlds of each held-out window.
    pub seeds: u64,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate { members: 30, tolerance: 1.01, seeds: 4 }
    }
}

/// Why nothing could be learnt.
#[derive(Debug, thiserror::Error)]
pub enum ContinualError {
    #[error("{0} records no outcomes: want a scenario whose trace has decisions and outcomes")]
    NoOutcomes(String),
    #[error(
        "{name} records {tasks} tasks: want at least {}, to learn from some and to judge by others",
        2 * WINDOW
    )]
    TooShort { name: String, tasks: usize },
    #[error(transparent)]
    Window(#[from] ImportError),
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// A recording made ready to learn from.
#[derive(Clone, Debug)]
pub struct Lessons {
    pub calibration: Calibration,
    /// Scenario files to learn from, and those to judge by, which come later.
    pub learn: Vec<PathBuf>,
    pub judge: Vec<PathBuf>,
}

/// Calibrates a recording, whose world had `seed`, and cuts it into windows, as scenario files in `folder`.
pub fn prepare(recording: &Scenario, seed: u64, folder: &Path) -> Result<Lessons, ContinualError> {
    let name = || recording.name().to_owned();
    let (calibrated, calibration) =
        calibrate(recording, seed).ok_or_else(|| ContinualError::NoOutcomes(name()))?;
    let trace = calibrated.trace.as_ref().ok_or_else(|| ContinualError::NoOutcomes(name()))?;
    let windows = trace.windows(WINDOW, &calibrated.file.catalogue.homeless());
    if windows.len() < 2 {
        return Err(ContinualError::TooShort { name: name(), tasks: trace.arrivals().count() });
    }
    let mut paths = Vec::new();
    for (index, trace) in windows.into_iter().enumerate() {
        let mut scenario = calibrated.file.clone();
        scenario.name = format!("{}-{index}", scenario.name);
        scenario.workload.tasks = None;
        let path = folder.join(format!("window-{index}.toml"));
        Imported { scenario, trace, notes: Vec::new() }.write(&path)?;
        paths.push(path);
    }
    let held_out = ((paths.len() as f64 * HELD_OUT).ceil() as usize).clamp(1, paths.len() - 1);
    let judge = paths.split_off(paths.len() - held_out);
    Ok(Lessons { calibration, learn: paths, judge })
}

/// What to train on: the recorded windows and, in turn with them, what the champion was trained on.
pub fn curriculum(lessons: &Lessons, config: Config) -> Config {
    let known = Config::default().scenarios;
    let scenarios = lessons.learn.iter().zip(known.iter().cycle());
    let scenarios =
        scenarios.flat_map(|(window, known)| [window.to_string_lossy().into_owned(), known.clone()]);
    Config { scenarios: scenarios.collect(), ..config }
}

/// What champion and candidate came to, and what follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub promoted: bool,
    pub reason: String,
    /// Cost of the candidate over the champion's on windows that it did not learn from.
    pub recorded: Ratio,
    /// The same on the test family.
    pub known: Ratio,
    pub gate: Gate,
}

/// Compares a candidate with the champion: better on the recorded windows `judge` beyond doubt, and no worse
/// on the test family than the gate allows.
pub fn verdict(
    champion: &Checkpoint,
    candidate: &Checkpoint,
    judge: &[PathBuf],
    gate: Gate,
) -> Result<Verdict, ContinualError> {
    let played = examine(&[Player::learned(candidate)?, Player::learned(champion)?], judge, gate)?;
    let ratio = |pairs: &[Pair]| {
        let [ours, theirs] = [0, 1].map(|who| pairs.iter().map(|it| it.costs[who]).collect::<Vec<f64>>());
        paired_ratio(&ours, &theirs)
    };
    let (recorded, known) = (ratio(&played.recorded), ratio(&played.known));
    let better = recorded.high.is_some_and(|high| high < 1.0);
    let remembers = known.ratio <= gate.tolerance;
    let reason = match (better, remembers) {
        (true, true) => "better on what was recorded, and nothing forgotten".to_owned(),
        (false, _) => format!("not better beyond doubt on what was recorded: {recorded}"),
        (true, false) => format!("forgot: {known} on test-family, at most {} is allowed", gate.tolerance),
    };
    Ok(Verdict { promoted: better && remembers, reason, recorded, known, gate })
}

/// One of those who are compared.
pub struct Player(Box<dyn Fn() -> Box<dyn Policy> + Send + Sync>);

impl std::fmt::Debug for Player {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Player")
    }
}

impl Player {
    pub fn learned(checkpoint: &Checkpoint) -> Result<Player, CheckpointError> {
        let policy = Learned::new("learned", checkpoint)?;
        Ok(Player(Box::new(move || Box::new(policy.clone()))))
    }

    /// A heuristic.
    pub fn named(name: &str) -> Result<Player, PolicyError> {
        by_name(name, 0)?;
        let name = name.to_owned();
        Ok(Player(Box::new(move || by_name(&name, 0).expect("it was made once"))))
    }
}

/// What all came to on one world at one position of the dial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    pub scenario: String,
    pub seed: u64,
    pub alpha: f64,
    /// Cost per task of each player, in their order; 1 is about that of `kube-default`.
    pub costs: Vec<f64>,
}

/// What all came to where a candidate is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Examined {
    /// On windows that nobody learnt from.
    pub recorded: Vec<Pair>,
    /// On the test family.
    pub known: Vec<Pair>,
}

/// Lets all play the held-out windows and the test family.
pub fn examine(players: &[Player], judge: &[PathBuf], gate: Gate) -> Result<Examined, ContinualError> {
    let family = Scenarios::Family(Family::Test);
    let members = (0..gate.members).map(|index| (family.at(index).into_owned(), index)).collect();
    Ok(Examined { recorded: on_windows(players, judge, gate.seeds)?, known: compare(players, members) })
}

/// Lets all play windows of a recording, each with worlds of so many seeds.
pub fn on_windows(players: &[Player], windows: &[PathBuf], seeds: u64) -> Result<Vec<Pair>, ContinualError> {
    let windows: Result<Vec<Scenario>, ScenarioError> =
        windows.iter().map(|path| Scenario::load(&path.to_string_lossy())).collect();
    let windows = windows?;
    let worlds = windows.iter().flat_map(|window| (0..seeds).map(move |seed| (window.clone(), seed)));
    Ok(compare(players, worlds.collect()))
}

/// Lets all play the same worlds, at all of [`ALPHAS`].
fn compare(players: &[Player], worlds: Vec<(Scenario, u64)>) -> Vec<Pair> {
    let play = |(scenario, seed): (Scenario, u64)| {
        let reference = rollout::reference(&scenario);
        let world = Arc::new(scenario.world(seed));
        ALPHAS.map(|alpha| {
            let cost = |player: &Player| {
                Figures::of(&play(&world, player.0().as_mut(), alpha, reference))
                    .cost_per_task(alpha, reference)
            };
            let costs = players.iter().map(cost).collect();
            Pair { scenario: scenario.name().to_owned(), seed, alpha, costs }
        })
    };
    worlds.into_par_iter().flat_map_iter(play).collect()
}
