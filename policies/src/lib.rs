//! The choice: published heuristics and a learned network, all with the same view.
//!
//! A [`Policy`] gives every candidate of an [`Observation`] a score; the highest wins and ties go to
//! the first. That is all a policy can do, so any two can be compared, swapped and explained.

#[cfg(feature = "network")]
pub mod checkpoint;
pub mod heuristics;
#[cfg(feature = "network")]
pub mod learned;
#[cfg(feature = "network")]
pub mod network;
pub mod rollout;

use remora_env::Observation;
use remora_env::observation::Candidate;

#[cfg(feature = "network")]
pub use checkpoint::Checkpoint;
#[cfg(feature = "network")]
pub use learned::Learned;

/// Something that places tasks.
pub trait Policy: Send {
    /// Name in tables, on the wire and in receipts.
    fn name(&self) -> &str;

    /// Writes one score per candidate, in the order of [`Observation::candidates`]; higher is
    /// better, negative infinity is "not considered". `scores` arrives empty.
    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>);
}

/// The candidate that a policy chooses, with the scores of all.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Index into [`Observation::candidates`].
    pub index: usize,
    pub candidate: Candidate,
    pub scores: Vec<f64>,
}

/// Lets a policy choose.
pub fn choose(policy: &mut dyn Policy, observation: &Observation<'_>) -> Choice {
    let mut scores = Vec::with_capacity(observation.candidates.len());
    policy.score(observation, &mut scores);
    let index = argmax(&scores);
    Choice { index, candidate: observation.candidates[index], scores }
}

/// Index of the greatest score, the first of equals.
fn argmax(scores: &[f64]) -> usize {
    let mut best = 0;
    for (index, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = index;
        }
    }
    best
}

/// Names of the heuristics, in the order of reports.
pub const BASELINES: [&str; 5] = ["random", "kube-default", "skippy", "greedy-completion", "greedy-marginal"];

/// Why a policy could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("no policy is called {0:?}: known are {known}, or the path of a checkpoint", known = known())]
    Unknown(String),
    #[cfg(feature = "network")]
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::CheckpointError),
}

fn known() -> String {
    format!("{}, kube-thin, pretrained", BASELINES.join(", "))
}

/// The policy of that name: a heuristic, `pretrained`, or a checkpoint's path; the latter is called by
/// its content hash. `seed` is for policies that draw.
pub fn by_name(name: &str, seed: u64) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(match name {
        "random" => Box::new(heuristics::Random { seed }),
        "kube-default" => Box::new(heuristics::KubeDefault::new(seed)),
        "kube-thin" => Box::new(heuristics::KubeThin),
        "skippy" => Box::new(heuristics::Skippy::default()),
        "greedy-completion" => Box::new(heuristics::GreedyCompletion),
        "greedy-marginal" => Box::new(heuristics::GreedyMarginal),
        #[cfg(feature = "network")]
        "pretrained" => Box::new(Learned::new("pretrained", &Checkpoint::pretrained()?)?),
        #[cfg(feature = "network")]
        path if std::path::Path::new(path).exists() => {
            let checkpoint = Checkpoint::load(std::path::Path::new(path))?;
            Box::new(Learned::new(&checkpoint.id(), &checkpoint)?)
        }
        other => return Err(PolicyError::Unknown(other.to_owned())),
    })
}
