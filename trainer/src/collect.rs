//! Experience: several rollouts of the same world, so that each decision is judged against what
//! the others' decisions about the same task led to.

use std::sync::Arc;

use burn::tensor::Device;
use burn::tensor::activation::log_softmax;
use ndarray::Array2;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use remora_env::observation::Reference;
use remora_env::outcome::Outcome;
use remora_env::random::{Purpose, stream};
use remora_env::world::When;
use remora_env::{Episode, Next, Time, World};
use remora_policies::learned::Inputs;
use remora_policies::network::ActorCritic;

use crate::config::{Baseline, Config};
use crate::course::{Course, Exercise, Lesson, Units, exercise};

/// Decisions of one iteration, flat, with what became of them.
#[derive(Clone, Debug, Default)]
pub struct Experience {
    pub inputs: Inputs,
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
        self.inputs.append(other.inputs);
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
    /// When it was made.
    at: Time,
}

/// Plays all rollouts of the `index`-th world, one batched forward pass per decision.
pub fn collect(config: &Config, courses: &[Course], network: &ActorCritic, index: u64) -> Experience {
    let Exercise { seed, alpha, lesson } = exercise(config, courses, index);
    let Lesson { world, units: Units { reference, greedy: unit } } = lesson;
    let size = config.network.shortlist;
    let unit = reference.cost(alpha, unit.moved_bytes, unit.response_s);
    let mut episodes: Vec<Episode> =
        (0..config.rollouts).map(|_| Episode::new(Arc::clone(&world), alpha, reference)).collect();
    let mut rngs: Vec<ChaCha8Rng> =
        (0..config.rollouts).map(|rollout| stream(seed, Purpose::Policy, rollout as u64 + 1)).collect();
    let mut steps: Vec<Vec<Step>> = (0..config.rollouts).map(|_| Vec::new()).collect();
    let mut inputs = Inputs::default();
    loop {
        let first = inputs.shortlists.len();
        let mut asked = Inputs::default();
        let mut deciding = Vec::new();
        let mut candidates = Vec::new();
        for (rollout, episode) in episodes.iter().enumerate() {
            if let Next::Decide(observation) = episode.next() {
                asked.push(&observation, network);
                let shortlist = &asked.shortlists[asked.shortlists.len() - 1];
                candidates.push(shortlist.iter().map(|&i| observation.candidates()[i]).collect::<Vec<_>>());
                deciding.push(rollout);
            }
        }
        if deciding.is_empty() {
            break;
        }
        let log_probs = judge(network, &asked, size);
        inputs.append(asked);
        for (row, (&rollout, candidates)) in deciding.iter().zip(&candidates).enumerate() {
            let row_log_probs = &log_probs[row * size..(row + 1) * size];
            let action = sample(row_log_probs, &mut rngs[rollout]);
            let task = episodes[rollout].pending().expect("a deciding episode has a task") as usize;
            let at = episodes[rollout].cluster().now;
            episodes[rollout].step(candidates[action].node);
            steps[rollout].push(Step {
                task,
                row: first + row,
                action: action as i32,
                log_prob: row_log_probs[action],
                at,
            });
        }
    }
    let played = episodes.iter().zip(&steps);
    let ledgers: Vec<Ledger> =
        played.map(|(episode, steps)| Ledger::of(episode, steps, alpha, reference, unit)).collect();
    let clocks = clocks(&world);
    let expected = (config.baseline == Baseline::Critic).then(|| expect(network, &inputs, size));
    let mut experience = credit(&steps, inputs, &ledgers, &clocks, config.horizon, expected.as_deref());
    let total: f64 = ledgers.iter().map(|ledger| ledger.left(Time::ZERO, |_| 1.0)).sum();
    experience.relative_costs.push((total / (ledgers.len() * clocks.len()) as f64) as f32);
    experience
}

/// What the completed tasks of an episode cost, in units of greedy's mean.
struct Ledger {
    entries: Vec<Entry>,
    /// What a second costs.
    second: f64,
}

struct Entry {
    task: usize,
    arrived: Time,
    /// When it was placed, the last time.
    placed: Time,
    completed: Time,
    /// What the data that it moved cost.
    data: f64,
}

impl Ledger {
    fn of(episode: &Episode, steps: &[Step], alpha: f64, reference: Reference, unit: f64) -> Ledger {
        let mut placed = vec![Time::ZERO; episode.world().tasks.len()];
        steps.iter().for_each(|step| placed[step.task] = step.at);
        let entry = |outcome: &Outcome| Entry {
            task: outcome.task as usize,
            arrived: outcome.arrived,
            placed: placed[outcome.task as usize],
            completed: outcome.completed,
            data: reference.cost(alpha, outcome.moved_bytes, 0.0) / unit,
        };
        let completed = episode.outcomes().iter().filter(|outcome| outcome.is_completed());
        Ledger { entries: completed.map(entry).collect(), second: reference.cost(alpha, 0.0, 1.0) / unit }
    }

    /// What is still to pay at `now`, each task with its weight.
    fn left(&self, now: Time, weight: impl Fn(usize) -> f64) -> f64 {
        let open = self.entries.iter().filter(|entry| entry.completed >= now);
        let left = open.map(|entry| {
            let data = if entry.placed >= now { entry.data } else { 0.0 };
            weight(entry.task) * (data + self.second * entry.completed.since_s(entry.arrived.max(now)))
        });
        left.sum()
    }
}

/// The place of each task in the order of arrivals, which no decision can shift: a follower has that of the
/// task that its chain began with.
fn clocks(world: &World) -> Vec<f64> {
    let mut clocks = vec![0.0; world.tasks.len()];
    let mut arrivals = 0.0;
    for (index, planned) in world.tasks.iter().enumerate() {
        if let When::At(_) = planned.when {
            clocks[index] = arrivals;
            arrivals += 1.0;
        }
        for &follower in &planned.followers {
            clocks[follower as usize] = clocks[index];
        }
    }
    clocks
}

/// Log-probabilities of all positions of some decisions, `[decisions, size]` row by row.
fn judge(network: &ActorCritic, asked: &Inputs, size: usize) -> Vec<f32> {
    let (features, mask) = asked.tensors(size, &Device::flex());
    let logits = network.logits(features, mask);
    log_softmax(logits, 1).into_data().try_to_vec().expect("log-probabilities are 32-bit floats")
}

/// What a critic expects of some decisions, in units of their mean size.
fn expect(network: &ActorCritic, inputs: &Inputs, size: usize) -> Vec<f32> {
    let (features, mask) = inputs.tensors(size, &Device::flex());
    network.value(features, mask).into_data().try_to_vec().expect("values are 32-bit floats")
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

/// Returns of one rollout's decisions: minus what was still to pay for all tasks when the decision was made,
/// each with the weight exp(−Δ / horizon), where Δ is how many arrivals later it came.
///
/// What is paid already, no decision can change: counted, it would tell apart rollouts in which a long task
/// has just ended from those in which it is about to. And the discount goes by clocks that no decision can
/// shift: with the usual discount by elapsed time, running a task slowly pays, as it puts off what follows.
fn returns(steps: &[Step], ledger: &Ledger, clocks: &[f64], horizon: f64) -> Vec<(usize, f64)> {
    let of = |step: &Step| {
        let now = clocks[step.task];
        let weight = |task: usize| (-(clocks[task] - now).max(0.0) / horizon).exp();
        (step.task, -ledger.left(step.at, weight))
    };
    steps.iter().map(of).collect()
}

/// Advantages against the mean return of the same task's decisions in all rollouts: the arrivals,
/// the luck and the links are the same, so the mean is a baseline that knows the future without
/// biasing the gradient (Mao et al. 2018, *Variance Reduction for Reinforcement Learning in
/// Input-Driven Environments*). Or against what a critic `expected` of each row, and, as that may be wrong about all
/// of them, against the mean of what remains.
fn credit(
    steps: &[Vec<Step>],
    inputs: Inputs,
    ledgers: &[Ledger],
    clocks: &[f64],
    horizon: f64,
    expected: Option<&[f32]>,
) -> Experience {
    let (rollouts, tasks) = (steps.len(), clocks.len());
    let mut returns = Array2::<f64>::from_elem((rollouts, tasks), f64::NAN);
    for (rollout, steps) in steps.iter().enumerate() {
        for (task, value) in self::returns(steps, &ledgers[rollout], clocks, horizon) {
            returns[[rollout, task]] = value;
        }
    }
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let (sum, count) = values.filter(|v| !v.is_nan()).fold((0.0, 0), |(s, n), v| (s + v, n + 1));
        sum / f64::from(count.max(1))
    };
    let baselines: Vec<f64> =
        (0..tasks).map(|task| mean(&mut returns.column(task).iter().copied())).collect();
    // The critic learns returns in units of their mean size, so that its loss is of order one.
    let size = mean(&mut returns.iter().map(|r| r.abs())).max(1e-9);

    let decisions = inputs.shortlists.len();
    let mut experience = Experience {
        inputs,
        actions: vec![0; decisions],
        log_probs: vec![0.0; decisions],
        advantages: Vec::new(),
        targets: vec![0.0; decisions],
        relative_costs: Vec::new(),
    };
    let mut gains = vec![0.0; decisions];
    for (rollout, steps) in steps.iter().enumerate() {
        for step in steps {
            let value = returns[[rollout, step.task]];
            let baseline = expected.map_or(baselines[step.task], |values| size * f64::from(values[step.row]));
            gains[step.row] = value - baseline;
            experience.actions[step.row] = step.action;
            experience.log_probs[step.row] = step.log_prob;
            experience.targets[step.row] = (value / size) as f32;
        }
    }
    let middle = mean(&mut gains.iter().copied());
    let spread = mean(&mut gains.iter().map(|gain| (gain - middle).powi(2))).sqrt().max(1e-9);
    let advantage = |gain: &f64| ((gain - middle) / spread).clamp(-5.0, 5.0) as f32;
    experience.advantages = gains.iter().map(advantage).collect();
    experience
}
