//! Weights of a heuristic, searched on scenarios of training and judged on those of validation.

use std::sync::Arc;

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};
use remora_env::device::LOCALITY;
use remora_env::observation::Reference;
use remora_env::{Episode, Scenarios, World};
use remora_policies::heuristics::KubeDefault;
use remora_policies::rollout::{self, Figures, play};
use remora_policies::tuned::Tunable;
use serde::{Deserialize, Serialize};

use crate::course::{TRAINING_SEEDS, VALIDATION_SEEDS};
use crate::nsga2::{Search, search};
use crate::statistics::{Ratio, paired_ratio};

/// What to tune, on what, and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    pub tunable: &'static Tunable,
    pub scenarios: Vec<Scenarios>,
    /// Worlds of each scenario, or members of each family.
    pub worlds: u64,
    pub alpha: f64,
    pub objectives: Vec<Objective>,
    pub population: usize,
    pub generations: usize,
    pub seed: u64,
}

/// What is to be small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// Data moved.
    Data,
    /// Mean response time.
    Response,
    /// What runs in the cloud rather than at the edge.
    Edge,
    /// Dollars.
    Usd,
    /// The cost at α, which weighs the first two.
    Cost,
}

impl Objective {
    /// All, with their names.
    pub const ALL: [(&str, Objective); 5] = [
        ("data", Objective::Data),
        ("response", Objective::Response),
        ("edge", Objective::Edge),
        ("usd", Objective::Usd),
        ("cost", Objective::Cost),
    ];
}

/// Weights with what they lead to; each objective is better the smaller it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weighted {
    /// In the order of [`Tunable::weights`].
    pub weights: Vec<f64>,
    /// Geometric means over the worlds, against `kube-default`.
    pub data_moved: f64,
    pub response: f64,
    /// Share of the time executing that was spent in the cloud: one less the edge's.
    pub cloud_share: f64,
    /// Dollars per thousand tasks.
    pub usd: f64,
    /// Geometric mean of the cost at α against `kube-default`.
    pub cost: f64,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    pub policy: String,
    pub alpha: f64,
    /// Those that none found dominates, cheapest at α first.
    pub front: Vec<Weighted>,
    /// Cost of the cheapest over that of the plain weights, on worlds that the search did not see.
    pub validation: Ratio,
}

/// A world with what its costs are measured in.
struct Ground {
    world: Arc<World>,
    reference: Reference,
    kube: Figures,
}

impl Plan {
    /// How many episodes the search plays.
    pub fn episodes(&self) -> u64 {
        let evaluations = self.population * (self.generations + 1);
        evaluations as u64 * self.worlds * self.scenarios.len() as u64
    }
}

/// Searches. `tick` is called once for every episode.
pub fn tune(plan: &Plan, tick: &(dyn Fn() + Sync)) -> Tuned {
    let ground = grounds(&plan.scenarios, TRAINING_SEEDS, plan.worlds);
    let ranges = plan.tunable.weights.iter().map(|&(_, low, high)| (low, high)).collect();
    let Plan { population, generations, seed, .. } = *plan;
    let wanted = Search { ranges, population, generations, seed };
    let evaluate = |weights: &[Vec<f64>]| {
        let found = |weights: &Vec<f64>| weigh(plan, &ground, weights, tick);
        let of =
            |found: Weighted| plan.objectives.iter().map(|&objective| found.objective(objective)).collect();
        weights.par_iter().map(found).map(of).collect()
    };
    let front = search(&wanted, &[plan.tunable.plain.to_vec()], evaluate);
    let mut front: Vec<Weighted> =
        front.par_iter().map(|found| weigh(plan, &ground, &found.genes, &|| ())).collect();
    front.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    let judged: Vec<Scenarios> = plan.scenarios.iter().map(Scenarios::for_validation).collect();
    let held_out = grounds(&judged, VALIDATION_SEEDS, plan.worlds);
    let costs = |weights: &[f64]| -> Vec<f64> {
        held_out
            .par_iter()
            .map(|ground| played(plan, ground, weights).0.cost(plan.alpha, &ground.kube))
            .collect()
    };
    let validation = paired_ratio(&costs(&front[0].weights), &costs(plan.tunable.plain));
    Tuned { policy: plan.tunable.name.to_owned(), alpha: plan.alpha, front, validation }
}

fn grounds(scenarios: &[Scenarios], first: u64, count: u64) -> Vec<Ground> {
    let instances: Vec<_> = scenarios
        .iter()
        .flat_map(|scenarios| (first..first + count).map(move |seed| (scenarios, seed)))
        .collect();
    let ground = |(scenarios, seed): &(&Scenarios, u64)| {
        let scenario = scenarios.at(*seed);
        let reference = rollout::reference(&scenario);
        let world = Arc::new(scenario.world(*seed));
        let kube = Figures::of(&play(&world, &mut KubeDefault::new(*seed), 0.5, reference));
        Ground { world, reference, kube }
    };
    instances.par_iter().map(ground).collect()
}

fn played(plan: &Plan, ground: &Ground, weights: &[f64]) -> (Figures, f64) {
    let mut policy = plan.tunable.with(weights, ground.world.seed);
    let episode = play(&ground.world, policy.as_mut(), plan.alpha, ground.reference);
    (Figures::of(&episode), cloud_share(&episode))
}

fn cloud_share(episode: &Episode) -> f64 {
    let (mut cloud_s, mut all_s) = (0.0, 0.0);
    for outcome in episode.outcomes() {
        let Some(node) = outcome.node else { continue };
        let seconds = outcome.executed.since_s(outcome.started);
        let at_edge = episode.world().topology.nodes[node as usize].label(LOCALITY) == Some("edge");
        all_s += seconds;
        cloud_s += if at_edge { 0.0 } else { seconds };
    }
    if all_s > 0.0 { cloud_s / all_s } else { 0.0 }
}

fn weigh(plan: &Plan, grounds: &[Ground], weights: &[f64], tick: &(dyn Fn() + Sync)) -> Weighted {
    let mut logs = [0.0; 3];
    let (mut cloud, mut usd, mut tasks) = (0.0, 0.0, 0.0);
    for ground in grounds {
        let (figures, share) = played(plan, ground, weights);
        tick();
        // At either end of the dial the cost is one figure alone.
        for (log, alpha) in logs.iter_mut().zip([1.0, 0.0, plan.alpha]) {
            *log += figures.cost(alpha, &ground.kube).max(1e-12).ln() / grounds.len() as f64;
        }
        cloud += share / grounds.len() as f64;
        usd += figures.usd;
        tasks += figures.tasks as f64;
    }
    let [data_moved, response, cost] = logs.map(f64::exp);
    let usd = usd / tasks.max(1.0) * 1000.0;
    Weighted { weights: weights.to_vec(), data_moved, response, cloud_share: cloud, usd, cost }
}

impl Weighted {
    fn objective(&self, objective: Objective) -> f64 {
        match objective {
            Objective::Data => self.data_moved,
            Objective::Response => self.response,
            Objective::Edge => self.cloud_share,
            Objective::Usd => self.usd,
            Objective::Cost => self.cost,
        }
    }
}
