//! Fair comparison: every policy plays the same worlds, and each is paired with itself under the
//! others.

use std::sync::Arc;
use std::time::Instant;

use rayon::ThreadPoolBuilder;
use rayon::prelude::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use remora_env::observation::Reference;
use remora_env::topology::NodeId;
use remora_env::{Episode, Scenarios, World};
use remora_policies::bounds::{self, Found, Scheduled};
use remora_policies::heuristics::KubeDefault;
use remora_policies::rollout::{self, Figures, play};
use remora_policies::{Checkpoint, Policy, PolicyError, by_name, takes_time};
use serde::{Deserialize, Serialize};

use crate::journal::{Journal, JournalError, Played};
use crate::summary::{Evaluation, is_learned, summary};
use crate::timeline::Timeline;

/// Figures of one policy on one world at one α.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub scenario: String,
    pub policy: String,
    pub alpha: f64,
    pub seed: u64,
    /// Of a family, the member that the world is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<u64>,
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
    /// Share of its choices that a guard has overruled.
    #[serde(default)]
    pub overruled: f64,
    /// Wall time per decision, observation included; the only figure that differs between runs.
    pub decision_us: f64,
}

/// What to evaluate.
#[derive(Clone, Debug)]
pub struct Plan {
    pub scenarios: Vec<Scenarios>,
    /// Names as [`by_name`] knows them, paths of checkpoints or of weights, `hindsight` or `optimum`.
    pub policies: Vec<String>,
    pub alphas: Vec<f64>,
    /// Worlds 0 to `seeds` − 1 of each scenario, or so many of each family; training never sees these.
    pub seeds: u64,
    /// Of a family, how many of them are of one member.
    pub per_member: u64,
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
    member: Option<u64>,
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
    let play_all = || -> Result<Vec<Vec<Played>>, EvaluationError> {
        instances
            .par_iter()
            .map(|((scenarios, reference), seed)| instance(plan, journal, scenarios, *reference, *seed, tick))
            .collect()
    };
    // What a policy can do in its time depends on who else computes.
    let played = if plan.policies.iter().any(|policy| takes_time(policy)) {
        let alone = ThreadPoolBuilder::new().num_threads(1).build();
        alone.expect("one thread more can be had").install(play_all)
    } else {
        play_all()
    };
    let mut evaluation = summary(played?.into_iter().flatten().collect());
    // What looks ahead or is guarded is no checkpoint alone.
    let alone = plan.policies.iter().filter(|policy| is_learned(policy) && !policy.contains('+'));
    let hash = |policy: &String| Some((policy.clone(), Checkpoint::named(policy).ok()?.id()));
    evaluation.checkpoints = alone.filter_map(hash).collect();
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
    let member = seed / plan.per_member.max(1);
    let scenario = scenarios.at(member);
    let member = matches!(scenarios, Scenarios::Family(_)).then_some(member);
    let reference = reference.unwrap_or_else(|| rollout::reference(&scenario));
    let world = Arc::new(scenario.world(seed));
    let kube = Figures::of(&play(&world, &mut KubeDefault::new(seed), 0.5, reference));
    let play_case = |((policy, alpha), known): (&(&String, f64), &Option<Played>)| {
        let played = match known {
            Some(played) => played.clone(),
            None => {
                let (scenario, world, alpha) = (scenarios.name(), Arc::clone(&world), *alpha);
                let played =
                    run(&Job { scenario, member, world, reference, kube, policy, alpha, tries: plan.tries })?;
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
        let (name, found) = match self.policy {
            "hindsight" => {
                let start = self.best_known()?;
                ("hindsight", bounds::hindsight(&self.world, self.alpha, self.units(), start, self.tries))
            }
            "optimum" => ("optimum", self.optimum()?),
            policy => return Ok(by_name(policy, self.world.seed)?),
        };
        Ok(Box::new(Scheduled { name, nodes: found.nodes }))
    }

    fn optimum(&self) -> Result<Found, EvaluationError> {
        let fail = |problem| EvaluationError::Clairvoyant {
            policy: self.policy.to_owned(),
            scenario: self.scenario.to_owned(),
            seed: self.world.seed,
            problem,
        };
        if !bounds::applies(&self.world) {
            return Err(fail("has faults, bounded queues, or tasks that fit no node; try hindsight"));
        }
        bounds::optimum(&self.world, self.alpha, self.units(), OPTIMUM_LIMIT)
            .ok_or_else(|| fail("is too large to search all its decisions; try hindsight"))
    }

    /// The schedule that the best of a few policies made.
    fn best_known(&self) -> Result<Vec<NodeId>, EvaluationError> {
        let mut best: Option<(f64, Vec<NodeId>)> = None;
        for name in
            ["pretrained", "greedy-marginal-tuned", "greedy-marginal", "greedy-completion", "skippy-tuned"]
        {
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
        member: job.member,
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
        overruled: policy.overruled() as f64 / episode.outcomes().len().max(1) as f64,
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
