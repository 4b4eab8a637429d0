//! What a user would try first.

use remora_env::Observation;
use remora_env::topology::NodeId;

use super::{draw, score_fitting};
use crate::Policy;

/// Any node on which the requests are free, with equal chances.
#[derive(Debug)]
pub struct Random {
    pub seed: u64,
}

impl Policy for Random {
    fn name(&self) -> &str {
        "random"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        score_fitting(observation, scores, |node| draw(self.seed, observation.id, node));
    }
}

/// The next node after the last one chosen, on which the requests are free.
#[derive(Debug, Default)]
pub struct RoundRobin {
    next: NodeId,
}

impl Policy for RoundRobin {
    fn name(&self) -> &str {
        "round-robin"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        let count = observation.cluster.nodes.len() as NodeId;
        let next = self.next;
        let distance = |node: NodeId| f64::from((node + count - next % count) % count);
        score_fitting(observation, scores, |node| -distance(node));
        let chosen = observation.nodes().zip(scores).max_by(|(_, a), (_, b)| a.total_cmp(b));
        self.next = chosen.map_or(0, |(node, _)| node + 1);
    }
}

/// The lowest workload, as the dispatcher of IPOL (the demo system of the journal *Image Processing On
/// Line*) chooses its runner: CPU that tasks use over the cores there are; queued tasks count as one
/// core each, which IPOL has no queue to see. Ties go to the first.
///
/// Source: <https://github.com/ipol-journal/ipolDevel>, dispatcher, policy `lowest_workload`.
#[derive(Debug)]
pub struct LeastLoaded;

impl Policy for LeastLoaded {
    fn name(&self) -> &str {
        "least-loaded"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        const CORE: f64 = 1000.0;
        score_fitting(observation, scores, |node| {
            let state = &observation.cluster.nodes[node as usize];
            let capacity = f64::from(observation.cluster.topology.nodes[node as usize].cpu_millis);
            -(state.cpu_use_millis as f64 + CORE * f64::from(state.queued)) / capacity
        });
    }
}

/// The first node on which the requests are free.
#[derive(Debug)]
pub struct FirstFit;

impl Policy for FirstFit {
    fn name(&self) -> &str {
        "first-fit"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        score_fitting(observation, scores, |node| -f64::from(node));
    }
}

/// The node that the task leaves least room on: the sum of its free shares of CPU and memory.
#[derive(Debug)]
pub struct BestFit;

impl Policy for BestFit {
    fn name(&self) -> &str {
        "best-fit"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        score_fitting(observation, scores, |node| {
            let state = &observation.cluster.nodes[node as usize];
            let spec = &observation.cluster.topology.nodes[node as usize];
            let requests = &observation.cluster.catalogue.kind(observation.task).requests;
            let cpu = f64::from(state.cpu_free_millis) - f64::from(requests.cpu_millis);
            let memory = state.memory_free_bytes as f64 - requests.memory_bytes as f64;
            -(cpu / f64::from(spec.cpu_millis) + memory / spec.memory_bytes as f64)
        });
    }
}
