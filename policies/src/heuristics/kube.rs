//! The Kubernetes scheduler, as it is today; as Skippy's evaluation models it, it is
//! [`Skippy::kube_thin`](super::Skippy::kube_thin).

use remora_env::Observation;
use remora_env::topology::NodeId;

use super::{draw, image_locality, nodes_to_score};
use crate::Policy;

/// Today's default profile of the Kubernetes scheduler, as far as it reads what a task here has:
/// `NodeResourcesFit` (LeastAllocated), `NodeResourcesBalancedAllocation` and `ImageLocality`, each
/// with weight 1 and scores of 0..100; a rotating, adaptive sample of the nodes; random ties.
///
/// Source: kubernetes `pkg/scheduler`, plugins `noderesources` and `imagelocality`, and
/// `numFeasibleNodesToFind`.
#[derive(Debug)]
pub struct KubeDefault {
    seed: u64,
    /// Of the three plugins.
    weights: [f64; 3],
    /// Where the next walk over the nodes begins.
    next: NodeId,
}

impl KubeDefault {
    pub fn new(seed: u64) -> KubeDefault {
        KubeDefault::weighted(seed, [1.0; 3])
    }

    /// With other weights of LeastAllocated, balanced allocation and image locality.
    pub fn weighted(seed: u64, weights: [f64; 3]) -> KubeDefault {
        KubeDefault { seed, weights, next: 0 }
    }
}

/// Fewer nodes than this are all scored.
const FEW: usize = 100;

impl Policy for KubeDefault {
    fn name(&self) -> &str {
        "kube-default"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        let nodes: Vec<NodeId> = observation.nodes().collect();
        let fits = |node: NodeId| observation.cluster.fits_now(observation.task, node);
        let none_fits = !nodes.iter().any(|&node| fits(node));
        let mut left = nodes_to_score(observation.cluster.nodes.len(), 0, FEW);
        let image = ImageLocality::new(observation);
        scores.resize(nodes.len(), f64::NEG_INFINITY);
        let first = nodes.partition_point(|&node| node < self.next);
        for index in (first..nodes.len()).chain(0..first) {
            let node = nodes[index];
            if fits(node) || none_fits {
                // Ties are broken at random: weighted scores are whole numbers where weights are.
                scores[index] = self.total(observation, node, image.score(observation, node))
                    + 0.5 * draw(self.seed, observation.id, node);
                left -= 1;
                if left == 0 {
                    self.next = node + 1;
                    break;
                }
            }
        }
    }
}

impl KubeDefault {
    fn total(&self, observation: &Observation<'_>, node: NodeId, image: f64) -> f64 {
        let (cpu, memory) = allocated_after(observation, node);
        let least_allocated =
            ((1.0 - cpu).max(0.0) * 100.0).floor() / 2.0 + ((1.0 - memory).max(0.0) * 100.0).floor() / 2.0;
        // The standard deviation of two numbers is half their difference.
        let balanced = (1.0 - (cpu.min(1.0) - memory.min(1.0)).abs() / 2.0) * 100.0;
        let scores = [least_allocated.floor(), balanced.floor(), image.floor()];
        scores.iter().zip(self.weights).map(|(score, weight)| score * weight).sum()
    }
}

/// Shares of CPU and memory allocated once the task is there.
fn allocated_after(observation: &Observation<'_>, node: NodeId) -> (f64, f64) {
    let spec = &observation.cluster.topology.nodes[node as usize];
    let state = &observation.cluster.nodes[node as usize];
    let requests = &observation.cluster.catalogue.kind(observation.task).requests;
    let share = |free: f64, request: f64, capacity: f64| 1.0 - (free - request) / capacity;
    (
        share(f64::from(state.cpu_free_millis), f64::from(requests.cpu_millis), f64::from(spec.cpu_millis)),
        share(state.memory_free_bytes as f64, requests.memory_bytes as f64, spec.memory_bytes as f64),
    )
}

/// [`image_locality`] of the nodes that have the task's image.
struct ImageLocality {
    image: Option<u32>,
    /// Nodes that have it, and all.
    with: f64,
    of: f64,
}

impl ImageLocality {
    fn new(observation: &Observation<'_>) -> ImageLocality {
        let image = observation.task.image;
        let with = image.map_or(0, |image| observation.cluster.image_spread(image));
        ImageLocality { image, with: f64::from(with), of: observation.cluster.nodes.len() as f64 }
    }

    fn score(&self, observation: &Observation<'_>, node: NodeId) -> f64 {
        let here = self.image.filter(|&image| observation.cluster.has_image(image, node));
        let Some(image) = here else { return 0.0 };
        let arch = observation.cluster.topology.nodes[node as usize].arch;
        let bytes = observation.cluster.catalogue.image_bytes(image, arch).unwrap_or(0) as f64;
        image_locality(bytes * (self.with / self.of), 100.0)
    }
}
