//! The choice: published heuristics and a learned network, all with the same view.
//!
//! A [`Policy`] gives every candidate of an [`Observation`] a score; the highest wins and ties go to
//! the first. That is all a policy can do, so any two can be compared, swapped and explained.

//pub mod checkpoint;
pub mod heuristics;
//pub mod learned;
//pub mod network;
pub mod rollout;

use remora_env::Observation;
use remora_env::observation::Candidate;

//pub use checkpoint::Checkpoint;
//pub use learned::Learned;

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

