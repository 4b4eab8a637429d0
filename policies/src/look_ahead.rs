//! Deciding by trying: what would each of the best candidates lead to?

use remora_env::random::{Purpose, unit};
use remora_env::{Episode, Next, Observation};

use crate::{Policy, choose};

/// Rolls the simulator forward from each of a policy's best candidates, under that policy, through
/// futures that could follow ([`Observation::imagine`]: arrivals of the recent past over again, nothing
/// that nobody can know), the same ones for every candidate; the least mean cost wins. One step of
/// policy improvement (rollout algorithm: Bertsekas, Tsitsiklis, Wu, *Rollout algorithms for
/// combinatorial optimization*, J. Heuristics 3, 1997).
///
/// Where there is no simulator behind an observation, the policy itself decides.
pub struct LookAhead {
    name: String,
    base: Box<dyn Policy>,
    seed: u64,
    /// How many of the base policy's best candidates are tried.
    pub candidates: usize,
    /// In how many futures.
    pub futures: usize,
    /// How many arrivals each has.
    pub tasks: usize,
}

impl std::fmt::Debug for LookAhead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LookAhead { name, candidates, futures, tasks, .. } = self;
        write!(f, "{name}: {candidates} candidates, {futures} futures of {tasks} tasks")
    }
}

impl LookAhead {
    /// Looks ahead from the best candidates of `base`.
    pub fn new(name: &str, base: Box<dyn Policy>, seed: u64) -> LookAhead {
        LookAhead { name: name.to_owned(), base, seed, candidates: 4, futures: 6, tasks: 40 }
    }

    /// Indices of the base policy's best candidates, best first.
    fn best(&self, scores: &[f64]) -> Vec<usize> {
        let mut best: Vec<usize> = (0..scores.len()).filter(|&index| scores[index].is_finite()).collect();
        best.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        best.truncate(self.candidates);
        best
    }

    /// What placing the waiting task on `node` and then going on with the base policy costs in a future.
    fn cost(&mut self, future: &Episode, node: u32, alpha: f64) -> f64 {
        let mut episode = future.clone();
        let reference = episode.reference();
        let mut total = 0.0;
        let mut add = |elapsed: remora_env::outcome::Elapsed| {
            total += reference.cost(alpha, elapsed.moved_bytes, elapsed.task_seconds);
        };
        add(episode.step(node));
        while let Next::Decide(observation) = episode.next() {
            let node = choose(self.base.as_mut(), &observation).node;
            add(episode.step(node));
        }
        total
    }
}

impl Policy for LookAhead {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        self.base.score(observation, scores);
        let best = self.best(scores);
        if best.len() < 2 {
            return;
        }
        let nodes: Vec<u32> = observation.nodes().collect();
        let mut costs = vec![0.0; best.len()];
        for future in 0..self.futures as u64 {
            let seed = (unit(self.seed, Purpose::LookAhead, observation.id, future) * 2f64.powi(52)) as u64;
            let Some(future) = observation.imagine(seed, self.tasks) else { return };
            for (cost, &index) in costs.iter_mut().zip(&best) {
                *cost += self.cost(&future, nodes[index], observation.alpha) / self.futures as f64;
            }
        }
        scores.fill(f64::NEG_INFINITY);
        for (cost, &index) in costs.iter().zip(&best) {
            scores[index] = -cost;
        }
    }
}
