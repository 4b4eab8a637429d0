//! The choice: published heuristics and a learned network, all with the same view.
//!
//! A [`Policy`] gives every candidate of an [`Observation`] a score; the highest wins and ties go to
//! the first. That is all a policy can do, so any two can be compared, swapped and explained.

pub mod bounds;
#[cfg(feature = "network")]
pub mod checkpoint;
#[cfg(feature = "network")]
pub mod forward;
pub mod graph;
pub mod heuristics;
#[cfg(feature = "network")]
pub mod learned;
pub mod look_ahead;
#[cfg(feature = "network")]
pub mod network;
pub mod packing;
pub mod prices;
pub mod rollout;
pub mod search;
pub mod tuned;

use std::time::Duration;

use remora_env::Observation;
use remora_env::topology::NodeId;

use heuristics::{GreedyCompletion, GreedyMarginal, RoundRobin, Skippy};
use look_ahead::Quick;

#[cfg(feature = "network")]
pub use checkpoint::Checkpoint;
#[cfg(feature = "network")]
pub use learned::Learned;
pub use look_ahead::{Guarded, LookAhead};

/// Something that places tasks.
pub trait Policy: Send {
    /// Name in tables, on the wire and in receipts.
    fn name(&self) -> &str;

    /// Writes one score per candidate, in the order of [`Observation::candidates`]; higher is
    /// better, negative infinity is "not considered". `scores` arrives empty.
    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>);

    /// How many of its choices a guard has overruled so far.
    fn overruled(&self) -> u64 {
        0
    }
}

/// The candidate that a policy chooses, with the scores of all.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Index into [`Observation::candidates`].
    pub index: usize,
    pub node: NodeId,
    pub scores: Vec<f64>,
}

/// Lets a policy choose.
pub fn choose(policy: &mut dyn Policy, observation: &Observation<'_>) -> Choice {
    let mut scores = Vec::with_capacity(observation.count());
    policy.score(observation, &mut scores);
    let index = argmax(&scores);
    Choice { index, node: observation.node(index), scores }
}

/// Index of the greatest score, the first of equals.
fn argmax(scores: &[f64]) -> usize {
    let (_, greatest) = range(scores);
    scores.iter().position(|score| *score == greatest).unwrap_or(0)
}

/// The least and the greatest, of as many as a processor compares at a time.
fn range(values: &[f64]) -> (f64, f64) {
    const LANES: usize = 8;
    let (mut least, mut greatest) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            least[lane] = if chunk[lane] < least[lane] { chunk[lane] } else { least[lane] };
            greatest[lane] = if chunk[lane] > greatest[lane] { chunk[lane] } else { greatest[lane] };
        }
    }
    let least = least.iter().chain(rest).copied().fold(f64::INFINITY, f64::min);
    (least, greatest.iter().chain(rest).copied().fold(f64::NEG_INFINITY, f64::max))
}

/// A policy that has a name of its own.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// Whether `remora evaluate` plays it when none is named.
    pub usual: bool,
    /// Makes it; the seed is for policies that draw.
    make: fn(u64) -> Box<dyn Policy>,
}

const fn named(
    name: &'static str,
    about: &'static str,
    usual: bool,
    make: fn(u64) -> Box<dyn Policy>,
) -> Named {
    Named { name, about, usual, make }
}

/// The policies that need no training, in the order of reports.
pub const HEURISTICS: [Named; 22] =
    [
        named("random", "any node that fits", true, |seed| Box::new(heuristics::Random { seed })),
        named("round-robin", "the next node that fits", false, |_| Box::new(RoundRobin::default())),
        named("first-fit", "the first node that fits", false, |_| Box::new(heuristics::FirstFit)),
        named("best-fit", "the node left with least room", false, |_| Box::new(heuristics::BestFit)),
        named("least-loaded", "the lowest share of CPU in use, as IPOL", false, |_| {
            Box::new(heuristics::LeastLoaded)
        }),
        named("kube-default", "today's default profile of Kubernetes", true, |seed| {
            Box::new(heuristics::KubeDefault::new(seed))
        }),
        named("kube-thin", "Kubernetes as Skippy's paper models it", false, |_| {
            Box::new(Skippy::kube_thin([1.0; 2]))
        }),
        named("skippy", "Skippy as published, all weights 1", true, |_| Box::new(Skippy::default())),
        named("skippy-repaired", "Skippy without its quirks", false, |_| {
            Box::new(Skippy::weighted("skippy-repaired", [1.0; 5]).repaired())
        }),
        named("skippy-urban-sensing", "with the weights its authors tuned for that scenario", false, |_| {
            Box::new(Skippy::published("skippy-urban-sensing"))
        }),
        named("skippy-industrial-iot", "with the weights its authors tuned for that scenario", false, |_| {
            Box::new(Skippy::published("skippy-industrial-iot"))
        }),
        named("skippy-cloud-regions", "with the weights its authors tuned for that scenario", false, |_| {
            Box::new(Skippy::published("skippy-cloud-regions"))
        }),
        named("skippy-tuned", "with weights that `remora tune` found on train-family", true, |_| {
            Box::new(Skippy::weighted("skippy-tuned", tuned::SKIPPY))
        }),
        named("delay-scheduling", "Spark's fixed waits for nodes near the data", false, |_| {
            Box::new(heuristics::DelayScheduling::default())
        }),
        named("firebird-like", "soonest end over the bandwidth left on links", false, |_| {
            Box::new(heuristics::FirebirdLike::default())
        }),
        named("min-list-one-node", "Guo et al.'s lists, one task at a time", false, |_| {
            Box::new(heuristics::MinListOneNode)
        }),
        named("heft", "HEFT's choice of a node", false, |_| Box::new(heuristics::Heft)),
        named("greedy-completion", "least expected completion time", true, |_| {
            Box::new(GreedyCompletion::default())
        }),
        named("greedy-completion-tuned", "the same with tuned coefficients", false, |_| {
            Box::new(GreedyCompletion::with("greedy-completion-tuned", tuned::COMPLETION))
        }),
        named("greedy-marginal", "least expected cost at the dial", true, |_| {
            Box::new(GreedyMarginal::default())
        }),
        named("greedy-marginal-tuned", "the same with tuned coefficients: the one to beat", true, |_| {
            Box::new(GreedyMarginal::with("greedy-marginal-tuned", tuned::MARGINAL.to_vec()))
        }),
        named("look-ahead", "simulates the best candidates forward; slow", false, |seed| {
            Box::new(LookAhead::new("look-ahead", tuned_greedy(), Box::new(tuned_greedy), seed))
        }),
    ];

/// Names of the heuristics that a comparison shows where none is named.
pub fn usual() -> impl Iterator<Item = &'static str> {
    HEURISTICS.iter().filter(|heuristic| heuristic.usual).map(|heuristic| heuristic.name)
}

/// Why a policy could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("no policy is called {0:?}: known are {known}, or the path of a checkpoint or of tuned weights", known = known())]
    Unknown(String),
    #[error("the budget {0:?} is not understood; want, for example, +look-ahead=20ms")]
    Budget(String),
    #[error(transparent)]
    Tuned(#[from] tuned::TunedError),
    #[cfg(feature = "network")]
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::CheckpointError),
}

fn known() -> String {
    let names: Vec<&str> = HEURISTICS.iter().map(|heuristic| heuristic.name).collect();
    format!("{}, pretrained", names.join(", "))
}

/// The heuristic that learned policies begin with, and that goes on where others look ahead.
pub fn tuned_greedy() -> Box<dyn Policy> {
    Box::new(GreedyMarginal::with("greedy-marginal-tuned", tuned::MARGINAL.to_vec()))
}

/// The policy of that name: a heuristic; the path of weights that `remora tune` found (`*.toml`);
/// `pretrained`; or a checkpoint's path, which is then called by its content hash. Behind the name may
/// stand `+look-ahead`, with a budget of time for each decision `+look-ahead=20ms`, and `+guard`. `seed`
/// is for policies that draw.
pub fn by_name(name: &str, seed: u64) -> Result<Box<dyn Policy>, PolicyError> {
    match name.rsplit_once('+') {
        Some((policy, "guard")) => {
            let quick = quick(policy)?;
            let policy = by_name(policy, seed)?;
            let name = format!("{}+guard", policy.name());
            Ok(Box::new(Guarded::new(&name, policy, quick, seed)))
        }
        Some((policy, suffix)) if suffix.starts_with("look-ahead") => {
            let budget = budget(suffix).ok_or_else(|| PolicyError::Budget(suffix.to_owned()))?;
            let quick = quick(policy)?;
            let policy = by_name(policy, seed)?;
            let look_ahead = LookAhead::new(&format!("{}+{suffix}", policy.name()), policy, quick, seed);
            Ok(Box::new(match budget {
                Some(budget) => look_ahead.within(budget),
                None => look_ahead,
            }))
        }
        _ => plain(name, seed),
    }
}

/// Whether the policy of that name takes its time, as much as it is given, on every processor.
pub fn takes_time(name: &str) -> bool {
    name.split('+').skip(1).any(|suffix| budget(suffix).flatten().is_some())
}

/// The budget in `look-ahead` or `look-ahead=20ms`; `None` where it is malformed.
fn budget(suffix: &str) -> Option<Option<Duration>> {
    let Some((_, budget)) = suffix.split_once('=') else { return (suffix == "look-ahead").then_some(None) };
    let milliseconds: f64 = budget.strip_suffix("ms")?.parse().ok()?;
    let seconds = milliseconds / 1e3;
    (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten().map(Some)
}

/// What goes on where the policy of that name looks ahead: the prices of a network, else the tuned greedy.
#[cfg(feature = "network")]
fn quick(name: &str) -> Result<Quick, PolicyError> {
    if let Some(checkpoint) = checkpoint(name.split('+').next().unwrap_or(name)) {
        let network = checkpoint?.network(&burn::tensor::Device::flex())?;
        let priced = network.priced();
        return Ok(Box::new(move || Box::new(priced.clone())));
    }
    Ok(Box::new(tuned_greedy))
}

#[cfg(not(feature = "network"))]
fn quick(_: &str) -> Result<Quick, PolicyError> {
    Ok(Box::new(tuned_greedy))
}

/// The checkpoint of that name, if it is one's.
#[cfg(feature = "network")]
fn checkpoint(name: &str) -> Option<Result<Checkpoint, checkpoint::CheckpointError>> {
    let path = std::path::Path::new(name);
    let weights = path.extension().is_some_and(|extension| extension == "toml");
    let heuristic = HEURISTICS.iter().any(|heuristic| heuristic.name == name);
    let is = name == "pretrained" || !heuristic && !weights && path.exists();
    is.then(|| Checkpoint::named(name))
}

/// The policy of a name without a suffix.
fn plain(name: &str, seed: u64) -> Result<Box<dyn Policy>, PolicyError> {
    if let Some(heuristic) = HEURISTICS.iter().find(|heuristic| heuristic.name == name) {
        return Ok((heuristic.make)(seed));
    }
    #[cfg(feature = "network")]
    if let Some(checkpoint) = checkpoint(name) {
        let checkpoint = checkpoint?;
        let called = if name == "pretrained" { name.to_owned() } else { checkpoint.id() };
        return Ok(Box::new(Learned::new(&called, &checkpoint)?));
    }
    let path = std::path::Path::new(name);
    match path.extension() {
        Some(extension) if extension == "toml" && path.exists() => Ok(tuned::load(path, seed)?),
        _ => Err(PolicyError::Unknown(name.to_owned())),
    }
}
