//! How much of the idle GPUs the usual workload cannot use.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::cluster::{Node, Pod};

/// Share of the pods that the typical ones make up, per cent.
///
/// Source: default of `--pod-popularity-threshold` in the simulator of Weng et al.
const POPULARITY: u64 = 95;

/// The most frequent requests of a workload, each with how often it comes: the paper's target workload M.
#[derive(Clone, Debug)]
pub struct TypicalPods {
    pods: Vec<(Pod, u64)>,
    total: u64,
}

impl TypicalPods {
    /// The fewest requests that make up 95 % of the pods. Memory does not count, as in the reference.
    pub fn of(pods: &[Pod]) -> TypicalPods {
        let mut counts = BTreeMap::<Pod, u64>::new();
        for pod in pods {
            *counts.entry(Pod { memory_mib: 0, ..*pod }).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable_by_key(|(pod, count)| Reverse((*count, *pod)));
        let mut total = 0;
        let enough = pods.len() as u64 * POPULARITY;
        let typical = counts.into_iter().take_while(|(_, count)| {
            let wanted = total * 100 < enough;
            total += if wanted { *count } else { 0 };
            wanted
        });
        TypicalPods { pods: typical.collect(), total }
    }

    /// How much of a node's idle GPUs a typical pod cannot use, thousandths of a GPU, in expectation.
    ///
    /// For one pod that is everything where the node cannot run it or it wants no GPU, and else what is left
    /// of the GPUs that have too little room for it. Sums are of whole numbers: what a pod does not change
    /// stays the same to the last bit.
    ///
    /// Source: the measure F_n(M) = Σ p_m F_n(m) of Weng et al., with its three cases; `pkg/utils/frag.go` of
    /// their simulator.
    pub fn fragmentation(&self, node: &Node) -> f64 {
        let sum: u64 = self.pods.iter().map(|(pod, count)| count * u64::from(unusable(pod, node))).sum();
        sum as f64 / self.total as f64
    }
}

/// Thousandths of a node's idle GPUs that a pod cannot use.
fn unusable(pod: &Pod, node: &Node) -> u32 {
    if pod.gpus == 0 || !node.fits(pod) {
        return node.gpu_millis();
    }
    node.gpus().iter().filter(|free| **free < pod.gpu_millis).sum()
}
