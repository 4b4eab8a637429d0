//! Fair comparison: every policy plays the same worlds, and each is paired with itself under the
//! others.

use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};
use remora_env::observation::Reference;
use remora_env::{Scenarios, World};
use remora_policies::heuristics::KubeDefault;
use remora_policies::rollout::{self, Figures, play};
use remora_policies::{PolicyError, by_name};
use serde::{Deserialize, Serialize};

use crate::statistics::{Ratio, paired_ratio};

/// Figures of one policy on one world at one α.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub scenario: String,
    pub policy: String,
    pub alpha: f64,
    pub seed: u64,
    pub tasks: usize,
    /// Price-weighted.
    pub data_moved_gb: f64,
    /// Gigabytes that left a site, unweighted.
    pub wan_gb: f64,
    pub response_mean_s: f64,
    pub response_p95_s: f64,
    pub response_p99_s: f64,
    /// Share of the completed tasks that came after their deadline.
    pub deadline_miss: f64,
    /// What executions added to the nodes' idle draw, kilojoules.
    pub energy_kj: f64,
    /// Memory held in the cloud while executing, and bytes over links that cost.
    pub usd: f64,
    /// Against `kube-default` on the same world, whose cost is 1.
    pub cost: f64,
    pub unplaceable: usize,
    /// Tasks that were turned away or given up.
    pub failed: usize,
    /// How often tasks were lost and tried again.
    pub retries: usize,
    /// Wall time per decision, observation included; the only figure that differs between runs.
    pub decision_us: f64,
}

/// Cost of a policy over that of another on the same worlds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub scenario: String,
    pub policy: String,
    pub baseline: String,
    pub alpha: f64,
    #[serde(flatten)]
    pub cost: Ratio,
}

/// A whole evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    pub rows: Vec<Row>,
    pub comparisons: Vec<Comparison>,
}

/// What to evaluate.
#[derive(Clone, Debug)]
pub struct Plan {
    pub scenarios: Vec<Scenarios>,
    /// Names as [`by_name`] knows them, or paths of checkpoints.
    pub policies: Vec<String>,
    pub alphas: Vec<f64>,
    /// Worlds 0 to `seeds` − 1 of each scenario, or so many members of each family; training never sees these.
    pub seeds: u64,
}

struct Job<'a> {
    scenario: &'a str,
    world: Arc<World>,
    reference: Reference,
    kube: Figures,
    policy: &'a str,
    alpha: f64,
}

/// Plays everything, in parallel; rows are in the order of the plan. `tick` is called once for
/// every finished job.
pub fn evaluate(plan: &Plan, tick: &(dyn Fn() + Sync)) -> Result<Evaluation, PolicyError> {
    for policy in &plan.policies {
        by_name(policy, 0)?;
    }
    // A scenario is measured once, each member of a family by itself.
    let measured = |scenarios: &Scenarios| match scenarios {
        Scenarios::One(scenario) => Some(rollout::reference(scenario)),
        Scenarios::Family(_) => None,
    };
    let measured: Vec<Option<Reference>> = plan.scenarios.par_iter().map(measured).collect();
    let known = plan.scenarios.iter().zip(measured);
    let instances: Vec<_> = known.flat_map(|known| (0..plan.seeds).map(move |seed| (known, seed))).collect();
    let jobs: Vec<Job<'_>> = instances
        .par_iter()
        .flat_map_iter(|((scenarios, reference), seed)| jobs(plan, scenarios, *reference, *seed))
        .collect();
    let rows: Result<Vec<Row>, PolicyError> = jobs
        .par_iter()
        .map(|job| {
            let row = run(job);
            tick();
            row
        })
        .collect();
    let rows = rows?;
    let comparisons = compare(&rows);
    Ok(Evaluation { rows, comparisons })
}

/// All policies at all α on one world.
fn jobs<'a>(
    plan: &'a Plan,
    scenarios: &'a Scenarios,
    reference: Option<Reference>,
    seed: u64,
) -> Vec<Job<'a>> {
    let scenario = scenarios.at(seed);
    let reference = reference.unwrap_or_else(|| rollout::reference(&scenario));
    let world = Arc::new(scenario.world(seed));
    let kube = Figures::of(&play(&world, &mut KubeDefault::new(seed), 0.5, reference));
    let job = |policy: &'a String, alpha: f64| Job {
        scenario: scenarios.name(),
        world: Arc::clone(&world),
        reference,
        kube,
        policy,
        alpha,
    };
    plan.policies
        .iter()
        .flat_map(|policy| plan.alphas.iter().map(|&alpha| job(policy, alpha)).collect::<Vec<_>>())
        .collect()
}

/// How many jobs a plan has.
pub fn job_count(plan: &Plan) -> u64 {
    plan.scenarios.len() as u64 * plan.policies.len() as u64 * plan.alphas.len() as u64 * plan.seeds
}

fn run(job: &Job<'_>) -> Result<Row, PolicyError> {
    let mut policy = by_name(job.policy, job.world.seed)?;
    let started = Instant::now();
    let episode = play(&job.world, policy.as_mut(), job.alpha, job.reference);
    let seconds = started.elapsed().as_secs_f64();
    episode.check();
    let figures = Figures::of(&episode);
    let completed = figures.completed().max(1) as f64;
    Ok(Row {
        scenario: job.scenario.to_owned(),
        policy: job.policy.to_owned(),
        alpha: job.alpha,
        seed: job.world.seed,
        tasks: figures.tasks,
        data_moved_gb: figures.moved_bytes / 1e9,
        wan_gb: figures.wan_bytes / 1e9,
        response_mean_s: figures.response_mean_s,
        response_p95_s: figures.response_p95_s,
        response_p99_s: figures.response_p99_s,
        deadline_miss: figures.deadline_missed as f64 / completed,
        energy_kj: figures.energy_j / 1e3,
        usd: figures.usd,
        cost: figures.cost(job.alpha, &job.kube),
        unplaceable: figures.unplaceable,
        failed: figures.failed,
        retries: figures.retries,
        decision_us: seconds * 1e6 / completed,
    })
}

/// Pairs every policy with every other, scenario by scenario and α by α.
fn compare(rows: &[Row]) -> Vec<Comparison> {
    let mut keys: Vec<(&str, &str, f64)> = Vec::new();
    for row in rows {
        let key = (row.scenario.as_str(), row.policy.as_str(), row.alpha);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let costs = |scenario: &str, policy: &str, alpha: f64| -> Vec<f64> {
        let of = |row: &&Row| row.scenario == scenario && row.policy == policy && row.alpha == alpha;
        rows.iter().filter(of).map(|row| row.cost).collect()
    };
    let mut comparisons = Vec::new();
    for &(scenario, policy, alpha) in &keys {
        for &(_, baseline, _) in
            keys.iter().filter(|key| key.0 == scenario && key.2 == alpha && key.1 != policy)
        {
            let cost = paired_ratio(&costs(scenario, policy, alpha), &costs(scenario, baseline, alpha));
            let (scenario, policy) = (scenario.to_owned(), policy.to_owned());
            comparisons.push(Comparison { scenario, policy, baseline: baseline.to_owned(), alpha, cost });
        }
    }
    comparisons
}

impl Evaluation {
    /// Calls a policy by another name, such as a checkpoint by its role.
    pub fn rename(&mut self, from: &str, to: &str) {
        let policies = self.rows.iter_mut().map(|row| &mut row.policy);
        let compared = self.comparisons.iter_mut().flat_map(|c| [&mut c.policy, &mut c.baseline]);
        for name in policies.chain(compared).filter(|name| *name == from) {
            to.clone_into(name);
        }
    }

    /// Mean over the worlds of one figure.
    pub fn mean(&self, scenario: &str, policy: &str, alpha: f64, figure: impl Fn(&Row) -> f64) -> f64 {
        let of = |row: &&Row| row.scenario == scenario && row.policy == policy && row.alpha == alpha;
        let values: Vec<f64> = self.rows.iter().filter(of).map(figure).collect();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    }

    /// The comparison of one policy with another.
    pub fn comparison(&self, scenario: &str, policy: &str, baseline: &str, alpha: f64) -> Option<Ratio> {
        let of = |c: &&Comparison| {
            c.scenario == scenario && c.policy == policy && c.baseline == baseline && c.alpha == alpha
        };
        self.comparisons.iter().find(of).map(|comparison| comparison.cost)
    }

    /// Scenarios, policies and values of α, each in order of first appearance.
    pub fn axes(&self) -> (Vec<String>, Vec<String>, Vec<f64>) {
        let (mut scenarios, mut policies, mut alphas) = (Vec::new(), Vec::new(), Vec::new());
        for row in &self.rows {
            if !scenarios.contains(&row.scenario) {
                scenarios.push(row.scenario.clone());
            }
            if !policies.contains(&row.policy) {
                policies.push(row.policy.clone());
            }
            if !alphas.contains(&row.alpha) {
                alphas.push(row.alpha);
            }
        }
        (scenarios, policies, alphas)
    }
}
