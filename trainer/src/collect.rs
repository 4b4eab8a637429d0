//! Experience: several rollouts of the same world, so that each decision is judged against what
//! the others' decisions about the same task led to.

use std::sync::Arc;

use burn::tensor::Device;
use burn::tensor::activation::log_softmax;
use ndarray::Array2;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use remora_env::observation::Reference;
use remora_env::outcome::Elapsed;
use remora_env::random::{Purpose, stream};
use remora_env::{Episode, Next, Scenario, World};
use remora_policies::heuristics::GreedyCompletion;
use remora_policies::learned::Batch;
use remora_policies::network::ActorCritic;
use remora_policies::rollout::{self, Figures};

use crate::config::Config;

/// Training seeds start here. Evaluation uses small seeds, validation [`VALIDATION_SEEDS`],
/// references others still: the ranges cannot meet.
const TRAINING_SEEDS: u64 = 1 << 32;

/// First seed of the worlds on which checkpoints are compared.
pub const VALIDATION_SEEDS: u64 = 1 << 24;

/// A scenario with what its figures are measured in.
#[derive(Clone, Debug)]
pub struct Course {
    pub scenario: Scenario,
    /// What the dial's ends are measured in: `kube-default`.
    pub reference: Reference,
    /// Figures of `greedy-completion`: the unit of rewards and horizons.
    pub greedy: Reference,
}

impl Course {
    /// Measures a scenario with episodes of `tasks` tasks.
    pub fn new(mut scenario: Scenario, tasks: u32) -> Course {
        let reference = rollout::reference(&scenario);
        scenario.file.workload.tasks = Some(tasks);
        let world = Arc::new(scenario.world(VALIDATION_SEEDS - 1));
        let greedy = Figures::of(&rollout::play(&world, &mut GreedyCompletion, 0.0, reference)).reference();
        Course { scenario, reference, greedy }
    }
}

/// Decisions of one iteration, flat, with what became of them.
#[derive(Clone, Debug, Default)]
pub struct Experience {
    pub batch: Batch,
    /// Position in the shortlist that was chosen.
    pub actions: Vec<i32>,
    /// Log-probability of the choice when it was made.
    pub log_probs: Vec<f32>,
    pub advantages: Vec<f32>,
    /// What the critic should have said.
    pub targets: Vec<f32>,
    /// Mean cost per task over greedy's, for the log: one per world.
    pub relative_costs: Vec<f32>,
}

impl Experience {
    pub fn len(&self) -> usize {
        self.actions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// Appends another world's decisions.
    pub fn append(&mut self, mut other: Experience) {
        self.batch.shortlists.append(&mut other.batch.shortlists);
        self.batch.features.append(&mut other.batch.features);
        self.batch.mask.append(&mut other.batch.mask);
        self.actions.append(&mut other.actions);
        self.log_probs.append(&mut other.log_probs);
        self.advantages.append(&mut other.advantages);
        self.targets.append(&mut other.targets);
        self.relative_costs.append(&mut other.relative_costs);
    }
}

/// One decision of one rollout.
struct Step {
    task: usize,
    row: usize,
    action: i32,
    log_prob: f32,
    reward: f64,
    seconds: f64,
}

/// The `index`-th world of a training run: its course, seed and α.
fn draw(config: &Config, courses: &[Course], index: u64) -> (usize, u64, f64) {
    let seed = TRAINING_SEEDS + (config.seed << 40) + index;
    let mut rng = stream(seed, Purpose::Policy, 0);
    // Half of them at the ends and quarters of the dial, half anywhere on it.
    let alpha = if rng.random() { f64::from(rng.random_range(0..5_u8)) / 4.0 } else { rng.random() };
    (index as usize % courses.len(), seed, alpha)
}

/// Plays all rollouts of the `index`-th world, one batched forward pass per decision.
pub fn collect(config: &Config, courses: &[Course], network: &ActorCritic, index: u64) -> Experience {
    let (course, seed, alpha) = draw(config, courses, index);
    let course = &courses[course];
    let world = Arc::new(course.scenario.world(seed));
    let size = config.network.shortlist;
    let unit = course.reference.cost(alpha, course.greedy.moved_bytes, course.greedy.response_s);
    let mut episodes: Vec<Episode> =
        (0..config.rollouts).map(|_| Episode::new(Arc::clone(&world), alpha, course.reference)).collect();
    let mut rngs: Vec<ChaCha8Rng> =
        (0..config.rollouts).map(|rollout| stream(seed, Purpose::Policy, rollout as u64 + 1)).collect();
    let mut steps: Vec<Vec<Step>> = (0..config.rollouts).map(|_| Vec::new()).collect();
    let mut batch = Batch::default();
    loop {
        let now = batch.shortlists.len();
        let mut deciding = Vec::new();
        let mut candidates = Vec::new();
        for (rollout, episode) in episodes.iter().enumerate() {
            if let Next::Decide(observation) = episode.next() {
                batch.push(&observation, size);
                let shortlist = &batch.shortlists[batch.shortlists.len() - 1];
                candidates.push(shortlist.iter().map(|&i| observation.candidates[i]).collect::<Vec<_>>());
                deciding.push(rollout);
            }
        }
        if deciding.is_empty() {
            break;
        }
        let log_probs = judge(network, &batch, now, size);
        for (row, (&rollout, candidates)) in deciding.iter().zip(&candidates).enumerate() {
            let row_log_probs = &log_probs[row * size..(row + 1) * size];
            let action = sample(row_log_probs, &mut rngs[rollout]);
            let task = episodes[rollout].pending().expect("a deciding episode has a task") as usize;
            let elapsed = episodes[rollout].step(&candidates[action]);
            steps[rollout].push(Step {
                task,
                row: now + row,
                action: action as i32,
                log_prob: row_log_probs[action],
                reward: reward(&elapsed, alpha, course.reference) / unit,
                seconds: elapsed.seconds,
            });
        }
    }
    let horizon_s = config.horizon * course.greedy.response_s;
    let mean_cost = steps.iter().flatten().map(|step| -step.reward).sum::<f64>()
        / steps.iter().map(Vec::len).sum::<usize>().max(1) as f64;
    let mut experience = credit(&steps, batch, world.tasks.len(), horizon_s);
    experience.relative_costs.push(mean_cost as f32);
    experience
}

/// Minus the cost of what happened: price-weighted data in σ, and the time integral of the tasks
/// in the system in τ (by Little's law its sum is the sum of the response times).
fn reward(elapsed: &Elapsed, alpha: f64, reference: Reference) -> f64 {
    -reference.cost(alpha, elapsed.moved_bytes, elapsed.task_seconds)
}

/// Log-probabilities of the decisions from `first` on, `[decisions, size]` row by row.
fn judge(network: &ActorCritic, batch: &Batch, first: usize, size: usize) -> Vec<f32> {
    let rows = Batch {
        shortlists: batch.shortlists[first..].to_vec(),
        features: batch.features[first * size * remora_env::observation::FEATURE_COUNT..].to_vec(),
        mask: batch.mask[first * size..].to_vec(),
    };
    let (features, mask) = rows.tensors(size, &Device::flex());
    let logits = network.forward(features, mask).logits;
    log_softmax(logits, 1).into_data().try_to_vec().expect("log-probabilities are 32-bit floats")
}

/// Draws a position with these log-probabilities.
fn sample(log_probs: &[f32], rng: &mut impl Rng) -> usize {
    let mut left: f64 = rng.random();
    let mut last = 0;
    for (position, log_prob) in log_probs.iter().enumerate() {
        let p = f64::from(*log_prob).exp();
        if p > 0.0 {
            last = position;
            left -= p;
            if left < 0.0 {
                break;
            }
        }
    }
    last
}

/// Discounted returns, and advantages against the mean return of the same task's decisions in all
/// rollouts: the arrivals, the luck and the links are the same, so the mean is a baseline that
/// knows the future without biasing the gradient (Mao et al. 2018, *Variance Reduction for
/// Reinforcement Learning in Input-Driven Environments*). Discounting is by elapsed time.
fn credit(steps: &[Vec<Step>], batch: Batch, tasks: usize, horizon_s: f64) -> Experience {
    let rollouts = steps.len();
    let mut returns = Array2::<f64>::from_elem((rollouts, tasks), f64::NAN);
    for (rollout, steps) in steps.iter().enumerate() {
        let mut future = 0.0;
        for step in steps.iter().rev() {
            future = step.reward + (-step.seconds / horizon_s).exp() * future;
            returns[[rollout, step.task]] = future;
        }
    }
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let (sum, count) = values.filter(|v| !v.is_nan()).fold((0.0, 0), |(s, n), v| (s + v, n + 1));
        sum / f64::from(count.max(1))
    };
    let baselines: Vec<f64> =
        (0..tasks).map(|task| mean(&mut returns.column(task).iter().copied())).collect();
    let spread = mean(&mut returns.indexed_iter().map(|((_, task), r)| (r - baselines[task]).powi(2))).sqrt();
    // The critic learns returns in units of their mean size, so that its loss is of order one.
    let size = mean(&mut returns.iter().map(|r| r.abs())).max(1e-9);

    let decisions = batch.shortlists.len();
    let mut experience = Experience {
        batch,
        actions: vec![0; decisions],
        log_probs: vec![0.0; decisions],
        advantages: vec![0.0; decisions],
        targets: vec![0.0; decisions],
        relative_costs: Vec::new(),
    };
    for (rollout, steps) in steps.iter().enumerate() {
        for step in steps {
            let value = returns[[rollout, step.task]];
            let advantage = (value - baselines[step.task]) / spread.max(1e-9);
            experience.actions[step.row] = step.action;
            experience.log_probs[step.row] = step.log_prob;
            experience.advantages[step.row] = advantage.clamp(-5.0, 5.0) as f32;
            experience.targets[step.row] = (value / size) as f32;
        }
    }
    experience
}

/// The world of a course that a validation or evaluation seed stands for.
pub fn world(course: &Course, seed: u64) -> Arc<World> {
    Arc::new(course.scenario.world(seed))
}
