//! Published heuristics and simple ones. Each is a name, a score and a tie-break.

mod dag;
mod delay;
mod firebird;
mod greedy;
mod kube;
mod simple;
pub mod skippy;

pub use dag::{Heft, MinListOneNode};
pub use delay::DelayScheduling;
pub use firebird::FirebirdLike;
pub use greedy::{Coefficients, GreedyCompletion, GreedyMarginal};
pub use kube::KubeDefault;
pub use simple::{BestFit, FirstFit, LeastLoaded, Random, RoundRobin};
pub use skippy::Skippy;

use remora_env::Observation;
use remora_env::topology::NodeId;

/// Scores only the nodes on which the task's requests are free; when there is none, all of them,
/// which is to say that the task queues where the score is best.
fn score_fitting(observation: &Observation<'_>, scores: &mut Vec<f64>, mut score: impl FnMut(NodeId) -> f64) {
    let fits = |node| observation.cluster.fits_now(observation.task, node);
    let mut any = false;
    scores.extend(observation.nodes().map(|node| {
        let fits = fits(node);
        any |= fits;
        if fits { score(node) } else { f64::NEG_INFINITY }
    }));
    if !any {
        scores.clear();
        scores.extend(observation.nodes().map(score));
    }
}

/// A number in [0, 1) that depends on seed, task and node alone (splitmix64).
fn draw(seed: u64, task: u64, node: u32) -> f64 {
    let mut z = seed
        .wrapping_add(task.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .wrapping_add(u64::from(node).wrapping_mul(0xD1B5_4A32_D192_ED03));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// How many feasible nodes a Kubernetes scheduler scores of `nodes`: all of fewer than `few`, else a
/// percentage (where that is 0 an adaptive one: 50 − nodes/125, at least 5), never fewer than 100.
///
/// Source: kubernetes `pkg/scheduler`, `numFeasibleNodesToFind`.
fn nodes_to_score(nodes: usize, percentage: u32, few: usize) -> usize {
    if nodes < few || percentage >= 100 {
        return nodes;
    }
    let adaptive = || (50.0 - nodes as f64 / 125.0).max(5.0);
    let percentage = if percentage == 0 { adaptive() } else { f64::from(percentage) };
    ((nodes as f64 * percentage / 100.0) as usize).max(100)
}

/// `most` for an image of 1,000 MiB or more that all nodes have, nothing for one of 23 MiB or less:
/// Kubernetes counts its bytes times the share of the nodes that have it.
///
/// Source: kubernetes `pkg/scheduler/framework/plugins/imagelocality`.
fn image_locality(spread_bytes: f64, most: f64) -> f64 {
    const MIB: f64 = 1024.0 * 1024.0;
    let (low, high) = (23.0 * MIB, 1000.0 * MIB);
    most * (whole(spread_bytes).clamp(low, high) - low) / (high - low)
}

/// The whole part of a number that is not negative; quicker than a call of `floor`.
#[inline]
fn whole(value: f64) -> f64 {
    // From 2⁵² on a number has no fraction.
    const WHOLE: f64 = 4_503_599_627_370_496.0;
    let nearest = (value + WHOLE) - WHOLE;
    if nearest > value { nearest - 1.0 } else { nearest }
}
