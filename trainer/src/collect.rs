//! Experience: several rollouts of the same world, so that each decision is judged against what
//! the others' decisions about the same task led to.

use std::sync::Arc;

use burn::tensor::Device;
use ndarray::Array2;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::{IntoParallelIterator, ParallelIterator};
use remora_env::outcome::Outcome;
use remora_env::random::{Purpose, stream};
use remora_env::world::When;
use remora_env::{Episode, Next, Time, World};
use remora_policies::learned::{Inputs, Scorer};
use remora_policies::network::ActorCritic;

use crate::config::{Baseline, Config};
use crate::course::{Course, Exercise, Lesson, Units, exercise};

/// Decisions of one iteration, flat, with what became of them.
#[derive(Clone, Debug, Default)]
pub struct Experience {
    /// Of each rollout. They are most of its memory and stay where they were written.
    played: Vec<Inputs>,
    /// The rollout of each decision, and its row there.
    places: Vec<(usize, usize)>,
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

    /// What the network saw of some of the decisions.
    pub fn inputs(&self, rows: &[usize]) -> Inputs {
        let size = self.played.first().map_or(0, Inputs::size);
        let mut inputs = Inputs::with_room(rows.len(), size);
        for &row in rows {
            let (rollout, row) = self.places[row];
            inputs.push_row(&self.played[rollout], row);
        }
        inputs
    }

    /// Appends another world's decisions.
    pub fn append(&mut self, mut other: Experience) {
        let before = self.played.len();
        self.played.append(&mut other.played);
        self.places.extend(other.places.into_iter().map(|(rollout, row)| (before + rollout, row)));
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
    /// Position in the shortlist that was chosen.
    action: usize,
    /// Its log-probability.
    log_prob: f32,
    /// When it was made.
    at: Time,
}

/// One way in which a world went.
struct Rollout {
    inputs: Inputs,
    /// One for each row of the inputs.
    steps: Vec<Step>,
    ledger: Ledger,
}

impl Rollout {
    /// Plays a world to its end, drawing each choice with the network's probabilities.
    fn play(exercise: &Exercise, network: &ActorCritic, mut rng: ChaCha8Rng) -> Rollout {
        let Exercise { alpha, lesson: Lesson { world, units }, .. } = exercise;
        let mut episode = Episode::new(Arc::clone(world), *alpha, units.reference);
        let mut scorer = Scorer::new(network.clone());
        let mut inputs = Inputs::with_room(world.tasks.len(), network.config.shortlist);
        let mut steps = Vec::new();
        let mut log_probs = Vec::new();
        while let Next::Decide(observation) = episode.next() {
            inputs.push(&observation, network);
            log_probs.clear();
            scorer.logits(&inputs, |_, logit| log_probs.push(logit));
            log_softmax(&mut log_probs);
            let action = sample(&log_probs, &mut rng);
            let shortlist = &inputs.shortlists[inputs.shortlists.len() - 1];
            let node = observation.candidates()[shortlist[action]].node;
            steps.push(Step {
                task: episode.pending().expect("a deciding episode has a task") as usize,
                action,
                log_prob: log_probs[action],
                at: episode.cluster().now,
            });
            episode.step(node);
        }
        let ledger = Ledger::of(&episode, &steps, *alpha, units);
        Rollout { inputs, steps, ledger }
    }
}

/// Plays all rollouts of the `index`-th world.
pub fn collect(config: &Config, courses: &[Course], network: &ActorCritic, index: u64) -> Experience {
    let exercise = exercise(config, courses, index);
    let play = |rollout: usize| {
        let rng = stream(exercise.seed, Purpose::Policy, rollout as u64 + 1);
        Rollout::play(&exercise, network, rng)
    };
    let rollouts: Vec<Rollout> = (0..config.rollouts).into_par_iter().map(play).collect();
    let clocks = clocks(&exercise.lesson.world);
    let ledgers = rollouts.iter().map(|rollout| &rollout.ledger);
    let total: f64 = ledgers.map(|ledger| ledger.left(Time::ZERO, |_| 1.0)).sum();
    let critic = (config.baseline == Baseline::Critic).then_some(network);
    let mut experience = credit(rollouts, &clocks, config.horizon, critic);
    experience.relative_costs.push((total / (config.rollouts * clocks.len()) as f64) as f32);
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
    fn of(episode: &Episode, steps: &[Step], alpha: f64, units: &Units) -> Ledger {
        let Units { reference, greedy } = units;
        let unit = reference.cost(alpha, greedy.moved_bytes, greedy.response_s);
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

/// What a critic expects of some decisions, in units of their mean size.
fn expect(network: &ActorCritic, inputs: &Inputs) -> Vec<f32> {
    let (features, mask) = inputs.clone().into_tensors(network.config.shortlist, &Device::flex());
    network.value(features, mask).into_data().try_to_vec().expect("values are 32-bit floats")
}

/// Makes logits the logarithms of the probabilities that they stand for.
fn log_softmax(logits: &mut [f32]) {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|logit| (logit - most).exp()).sum();
    let total = most + sum.ln();
    logits.iter_mut().for_each(|logit| *logit -= total);
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
fn credit(rollouts: Vec<Rollout>, clocks: &[f64], horizon: f64, critic: Option<&ActorCritic>) -> Experience {
    let tasks = clocks.len();
    let mut returns = Array2::<f64>::from_elem((rollouts.len(), tasks), f64::NAN);
    for (rollout, Rollout { steps, ledger, .. }) in rollouts.iter().enumerate() {
        for (task, value) in self::returns(steps, ledger, clocks, horizon) {
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

    let mut experience = Experience::default();
    let mut gains = Vec::new();
    for (rollout, Rollout { inputs, steps, .. }) in rollouts.into_iter().enumerate() {
        let expected = critic.map(|network| expect(network, &inputs));
        experience.played.push(inputs);
        for (row, step) in steps.iter().enumerate() {
            experience.places.push((rollout, row));
            let value = returns[[rollout, step.task]];
            let baseline =
                expected.as_ref().map_or(baselines[step.task], |values| size * f64::from(values[row]));
            gains.push(value - baseline);
            experience.actions.push(step.action as i32);
            experience.log_probs.push(step.log_prob);
            experience.targets.push((value / size) as f32);
        }
    }
    let middle = mean(&mut gains.iter().copied());
    let spread = mean(&mut gains.iter().map(|gain| (gain - middle).powi(2))).sqrt().max(1e-9);
    let advantage = |gain: &f64| ((gain - middle) / spread).clamp(-5.0, 5.0) as f32;
    experience.advantages = gains.iter().map(advantage).collect();
    experience
}
