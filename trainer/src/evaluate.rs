//! Fair comparison: every policy plays the same worlds, and each is paired with itself under the
//! others.

use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use remora_env::observation::Reference;
use remora_env::topology::NodeId;
use remora_env::{Episode, Scenarios, World};
use remora_policies::bounds::{self, Scheduled};
use remora_policies::heuristics::KubeDefault;
use remora_policies::rollout::{self, Figures, play};
use remora_policies::{Policy, PolicyError, by_name};
use serde::{Deserialize, Serialize};

use crate::journal::{Journal, JournalError, Played};
use crate::nsga2::{dominates, hypervolume};

use crate::statistics::{Ratio, geometric_mean, paired_ratio};
use crate::timeline::Timeline;

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
    /// What no schedule of this world costs less than; where tasks may be lost there is none.
    #[serde(default)]
    pub bound: Option<f64>,
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

/// How response times of a policy are spread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    pub scenario: String,
    pub policy: String,
    pub alpha: f64,
    /// What 0, 5, …, 100 % of the tasks stay under, seconds; means over the worlds.
    pub response_s: Vec<f64>,
}

/// What a policy offers on the way from response time to data moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Front {
    pub scenario: String,
    pub policy: String,
    /// Share of the rectangle between nothing and `kube-default` (response time by data moved) that its
    /// points dominate, over all α: 0 is no better than `kube-default`, 1 is free.
    pub hypervolume: f64,
    /// At which α no other policy is better in both.
    pub undominated_at: Vec<f64>,
}

/// A whole evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    pub rows: Vec<Row>,
    pub comparisons: Vec<Comparison>,
    #[serde(default)]
    pub fronts: Vec<Front>,
    #[serde(default)]
    pub distributions: Vec<Distribution>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
}

/// What to evaluate.
#[derive(Clone, Debug)]
pub struct Plan {
    pub scenarios: Vec<Scenarios>,
    /// Names as [`by_name`] knows them, paths of checkpoints or of weights, `hindsight` or `optimum`.
    pub policies: Vec<String>,
    pub alphas: Vec<f64>,
    /// Worlds 0 to `seeds` − 1 of each scenario, or so many members of each family; training never sees these.
    pub seeds: u64,
    /// How many schedules `hindsight` tries for each world.
    pub tries: u64,
}

/// Names that are no policies, since they know the future.
pub const CLAIRVOYANT: [&str; 2] = ["hindsight", "optimum"];
/// Decisions that `optimum` may try for one world.
const OPTIMUM_LIMIT: u64 = 2_000_000;

/// Why an evaluation stopped.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("{policy}: world {seed} of {scenario} {problem}")]
    Clairvoyant { policy: String, scenario: String, seed: u64, problem: &'static str },
    #[error(transparent)]
    Journal(#[from] JournalError),
}

struct Job<'a> {
    scenario: &'a str,
    world: Arc<World>,
    reference: Reference,
    kube: Figures,
    policy: &'a str,
    alpha: f64,
    tries: u64,
}

/// Plays everything, in parallel; rows are in the order of the plan. What the journal has is not played
/// again. `tick` is called once for every finished job.
pub fn evaluate(
    plan: &Plan,
    journal: &Journal,
    tick: &(dyn Fn() + Sync),
) -> Result<Evaluation, EvaluationError> {
    for policy in plan.policies.iter().filter(|policy| !CLAIRVOYANT.contains(&policy.as_str())) {
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
    let played: Result<Vec<Vec<Played>>, EvaluationError> = instances
        .par_iter()
        .map(|((scenarios, reference), seed)| instance(plan, journal, scenarios, *reference, *seed, tick))
        .collect();
    let mut evaluation = summary(played?.into_iter().flatten().collect());
    // Of the last policy that does not know the future.
    let acts = |policy: &&String| !CLAIRVOYANT.contains(&policy.as_str());
    if let (Some(first), Some(policy)) = (plan.scenarios.first(), plan.policies.iter().rfind(acts)) {
        evaluation.timeline = Some(Timeline::of(first, policy, evaluation.middle_alpha())?);
    }
    Ok(evaluation)
}

/// All policies at all α on one world.
fn instance(
    plan: &Plan,
    journal: &Journal,
    scenarios: &Scenarios,
    reference: Option<Reference>,
    seed: u64,
    tick: &(dyn Fn() + Sync),
) -> Result<Vec<Played>, EvaluationError> {
    let cases = plan.policies.iter().flat_map(|policy| plan.alphas.iter().map(move |&alpha| (policy, alpha)));
    let cases: Vec<(&String, f64)> = cases.collect();
    let known = |(policy, alpha): &(&String, f64)| journal.known(scenarios.name(), policy, *alpha, seed);
    let known: Vec<Option<Played>> = cases.iter().map(known).collect();
    if known.iter().all(Option::is_some) {
        known.iter().for_each(|_| tick());
        return Ok(known.into_iter().flatten().collect());
    }
    let scenario = scenarios.at(seed);
    let reference = reference.unwrap_or_else(|| rollout::reference(&scenario));
    let world = Arc::new(scenario.world(seed));
    let kube = Figures::of(&play(&world, &mut KubeDefault::new(seed), 0.5, reference));
    let play_case = |((policy, alpha), known): (&(&String, f64), &Option<Played>)| {
        let played = match known {
            Some(played) => played.clone(),
            None => {
                let (scenario, world, alpha) = (scenarios.name(), Arc::clone(&world), *alpha);
                let played =
                    run(&Job { scenario, world, reference, kube, policy, alpha, tries: plan.tries })?;
                journal.append(&played)?;
                played
            }
        };
        tick();
        Ok(played)
    };
    cases.par_iter().zip(&known).map(play_case).collect()
}

/// How many jobs a plan has.
pub fn job_count(plan: &Plan) -> u64 {
    plan.scenarios.len() as u64 * plan.policies.len() as u64 * plan.alphas.len() as u64 * plan.seeds
}

impl Job<'_> {
    /// What costs are measured in: `kube-default` on this very world.
    fn units(&self) -> Reference {
        const BYTE: f64 = 1.0;
        const NANOSECOND: f64 = 1e-9;
        Reference {
            response_s: self.kube.response_mean_s + NANOSECOND,
            moved_bytes: self.kube.moved_bytes_per_task() + BYTE,
        }
    }

    fn policy(&self) -> Result<Box<dyn Policy>, EvaluationError> {
        let name = match self.policy {
            "hindsight" => "hindsight",
            "optimum" => "optimum",
            policy => return Ok(by_name(policy, self.world.seed)?),
        };
        let fail = |problem| EvaluationError::Clairvoyant {
            policy: name.to_owned(),
            scenario: self.scenario.to_owned(),
            seed: self.world.seed,
            problem,
        };
        if !bounds::applies(&self.world) {
            return Err(fail("has faults, bounded queues, or tasks that fit no node"));
        }
        let found = if name == "optimum" {
            bounds::optimum(&self.world, self.alpha, self.units(), OPTIMUM_LIMIT)
                .ok_or_else(|| fail("is too large to search all its decisions; try hindsight"))?
        } else {
            let start = self.best_known()?;
            bounds::hindsight(&self.world, self.alpha, self.units(), start, self.tries)
                .ok_or_else(|| fail("cannot be played again"))?
        };
        Ok(Box::new(Scheduled { name, nodes: found.nodes }))
    }

    /// The schedule that the best of a few policies made.
    fn best_known(&self) -> Result<Vec<NodeId>, EvaluationError> {
        let mut best: Option<(f64, Vec<NodeId>)> = None;
        for name in ["greedy-marginal-tuned", "greedy-marginal", "greedy-completion", "skippy-tuned"] {
            let episode = play(&self.world, by_name(name, 0)?.as_mut(), self.alpha, self.reference);
            let cost = Figures::of(&episode).cost(self.alpha, &self.kube);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, bounds::nodes_of(&episode)));
            }
        }
        Ok(best.map(|(_, nodes)| nodes).unwrap_or_default())
    }
}

fn run(job: &Job<'_>) -> Result<Played, EvaluationError> {
    let mut policy = job.policy()?;
    let started = Instant::now();
    let episode = play(&job.world, policy.as_mut(), job.alpha, job.reference);
    let seconds = started.elapsed().as_secs_f64();
    episode.check();
    let figures = Figures::of(&episode);
    let completed = figures.completed().max(1) as f64;
    let bound = bounds::applies(&job.world).then(|| bounds::lower_bound(&job.world, job.alpha, job.units()));
    let row = Row {
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
        bound,
        unplaceable: figures.unplaceable,
        failed: figures.failed,
        retries: figures.retries,
        decision_us: seconds * 1e6 / completed,
    };
    Ok(Played { row, response_s: quantiles(&episode) })
}

/// What 0, 5, …, 100 % of the completed tasks' response times stay under, seconds.
fn quantiles(episode: &Episode) -> Vec<f64> {
    let completed = episode.outcomes().iter().filter(|outcome| outcome.is_completed());
    let mut responses: Vec<f64> = completed.map(|outcome| outcome.response_s()).collect();
    responses.sort_unstable_by(f64::total_cmp);
    let Some(last) = responses.len().checked_sub(1) else { return vec![0.0; QUANTILES + 1] };
    (0..=QUANTILES).map(|step| responses[(step * last).div_ceil(QUANTILES)]).collect()
}

const QUANTILES: usize = 20;

fn summary(played: Vec<Played>) -> Evaluation {
    let mut spread: Vec<(Distribution, f64)> = Vec::new();
    for Played { row, response_s } in &played {
        let of = |(d, _): &&mut (Distribution, f64)| {
            d.scenario == row.scenario && d.policy == row.policy && d.alpha == row.alpha
        };
        match spread.iter_mut().find(of) {
            Some((distribution, worlds)) => {
                *worlds += 1.0;
                for (sum, value) in distribution.response_s.iter_mut().zip(response_s) {
                    *sum += value;
                }
            }
            None => {
                let (scenario, policy, alpha) = (row.scenario.clone(), row.policy.clone(), row.alpha);
                spread.push((Distribution { scenario, policy, alpha, response_s: response_s.clone() }, 1.0));
            }
        }
    }
    let mean = |(mut distribution, worlds): (Distribution, f64)| {
        distribution.response_s.iter_mut().for_each(|sum| *sum /= worlds);
        distribution
    };
    let rows: Vec<Row> = played.into_iter().map(|played| played.row).collect();
    let comparisons = compare(&rows);
    let mut evaluation = Evaluation {
        rows,
        comparisons,
        distributions: spread.into_iter().map(mean).collect(),
        ..Evaluation::default()
    };
    evaluation.fronts = fronts(&evaluation);
    evaluation
}

/// Hypervolumes against `kube-default`, where it was played, and who is dominated where.
fn fronts(evaluation: &Evaluation) -> Vec<Front> {
    let (scenarios, policies, alphas) = evaluation.axes();
    let mut fronts = Vec::new();
    for scenario in &scenarios {
        let point = |policy: &str, alpha: f64| {
            let mean = |figure: fn(&Row) -> f64| evaluation.mean(scenario, policy, alpha, figure);
            vec![mean(|row| row.response_mean_s), mean(|row| row.data_moved_gb)]
        };
        let points = |policy: &str| alphas.iter().map(|&alpha| point(policy, alpha)).collect::<Vec<_>>();
        let all: Vec<Vec<f64>> = policies.iter().flat_map(|policy| points(policy)).collect();
        let kube = policies.iter().any(|policy| policy == "kube-default");
        let corner = kube.then(|| point("kube-default", alphas[0]));
        for policy in &policies {
            let hypervolume = corner.as_ref().map_or(f64::NAN, |corner| {
                hypervolume(&points(policy), corner) / corner.iter().product::<f64>().max(1e-12)
            });
            let free = |alpha: &f64| !all.iter().any(|other| dominates(other, &point(policy, *alpha)));
            fronts.push(Front {
                scenario: scenario.clone(),
                policy: policy.clone(),
                hypervolume: if hypervolume.is_finite() { hypervolume } else { 0.0 },
                undominated_at: alphas.iter().copied().filter(free).collect(),
            });
        }
    }
    fronts
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
        let fronts = self.fronts.iter_mut().map(|front| &mut front.policy);
        let spread = self.distributions.iter_mut().map(|distribution| &mut distribution.policy);
        let timeline = self.timeline.iter_mut().map(|timeline| &mut timeline.policy);
        for name in
            policies.chain(compared).chain(fronts).chain(spread).chain(timeline).filter(|name| *name == from)
        {
            to.clone_into(name);
        }
    }

    /// Mean over the worlds of one figure.
    pub fn mean(&self, scenario: &str, policy: &str, alpha: f64, figure: impl Fn(&Row) -> f64) -> f64 {
        let of = |row: &&Row| row.scenario == scenario && row.policy == policy && row.alpha == alpha;
        let values: Vec<f64> = self.rows.iter().filter(of).map(figure).collect();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    }

    /// Mean ratio of a policy's cost to what no schedule costs less than; `None` where there is no bound.
    pub fn over_bound(&self, scenario: &str, policy: &str, alpha: f64) -> Option<f64> {
        let of = |row: &&Row| row.scenario == scenario && row.policy == policy && row.alpha == alpha;
        let ratio = |row: &Row| row.bound.filter(|bound| *bound > 0.0).map(|bound| row.cost / bound);
        let ratios: Option<Vec<f64>> = self.rows.iter().filter(of).map(ratio).collect();
        ratios.filter(|ratios| !ratios.is_empty()).map(|ratios| geometric_mean(&ratios))
    }

    /// The α in the middle of those evaluated.
    pub fn middle_alpha(&self) -> f64 {
        let (_, _, mut alphas) = self.axes();
        alphas.sort_by(f64::total_cmp);
        alphas.get(alphas.len() / 2).copied().unwrap_or(0.5)
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
