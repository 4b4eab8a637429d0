//! Look-ahead labels: what each of a few candidates leads to, found by simulating it forward through
//! imagined futures, and learnt by the network. A step of policy improvement with far less noise than
//! what an episode of sampled choices says of each of them.
//!
//! Sources: rollout classification policy iteration (Lagoudakis and Parr, ICML 2003); the loss is the
//! expected cost under the policy, its gradient exact over all candidates.

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, RngExt};
use remora_env::random::{Purpose, stream};
use remora_env::topology::NodeId;
use remora_env::{Episode, Next, Observation};
use remora_policies::Policy;
use remora_policies::checkpoint::{from_little_endian, to_little_endian};
use remora_policies::learned::{Inputs, Scorer, pick};
use remora_policies::look_ahead::{Depth, promising, race};
use remora_policies::network::ActorCritic;
use remora_policies::rollout::Figures;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::course::{Course, Exercise, Units, exercise};
use crate::learner::{BadBatch, Learner, Metrics, SHOWN, log_probs_and_entropy};

/// How labels are made and learnt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LabelConfig {
    /// Share of the run after which no more are made, and PPO follows.
    pub until: f64,
    /// Worlds per iteration.
    pub worlds: usize,
    /// Decisions of each that are looked at for a label.
    pub per_world: u32,
    /// How far a candidate is simulated.
    pub depth: Depth,
    /// Labels kept to learn from again.
    pub replay: usize,
    /// Gradient steps per iteration.
    pub updates: usize,
    /// Labels per gradient step.
    pub minibatch: usize,
}

impl Default for LabelConfig {
    fn default() -> LabelConfig {
        LabelConfig {
            until: 1.0,
            worlds: 16,
            per_world: 80,
            depth: Depth { candidates: 4, futures: 24, tasks: 30 },
            replay: 40_000,
            updates: 120,
            minibatch: 512,
        }
    }
}

/// Labelled decisions, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    pub inputs: Inputs,
    /// `[decisions, shortlist]`: cost of a candidate above the mean of all, in units of a task of greedy's; what
    /// prices say where it was not tried.
    pub costs: Vec<f32>,
    /// `[decisions, shortlist]`, 1 where it was tried.
    pub tried: Vec<f32>,
    /// Mean cost per task over greedy's, for the log: one per world.
    relative_costs: Vec<f64>,
    /// Decisions played to get them, simulated ones not counted.
    played: usize,
}

/// Names of the matrices in a file of labels.
const COLUMNS: [&str; 4] = ["features", "mask", "costs", "tried"];

/// Of the decisions that estimates settle, how many are learnt for one that is simulated.
const PLAIN: f64 = 0.25;

/// Costs beyond this say no more than that a choice is bad.
const MOST: f64 = 2.0;

impl Labels {
    pub fn len(&self) -> usize {
        self.inputs.shortlists.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn append(&mut self, mut other: Labels) {
        self.inputs.append(other.inputs);
        self.costs.append(&mut other.costs);
        self.tried.append(&mut other.tried);
    }

    /// The bytes of a safetensors file, for [`Labels::from_bytes`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let width = |values: &[f32]| values.len() / self.len().max(1);
        let bytes = self.columns().map(|(name, values)| (name, width(values), to_little_endian(values)));
        let views = bytes.iter().map(|(name, width, bytes)| {
            let view = TensorView::new(Dtype::F32, vec![self.len(), *width], bytes);
            (*name, view.expect("as many bytes as the shape wants"))
        });
        safetensors::serialize(views, None).expect("a few matrices fit the format")
    }

    /// Labels as saved; an error says what is wrong with the file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Labels, String> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let column = |name: &str| -> Result<(usize, Vec<f32>), String> {
            let view = file.tensor(name).map_err(|error| error.to_string())?;
            Ok((view.shape().first().copied().unwrap_or(0), from_little_endian(view.data())))
        };
        let [features, mask, costs, tried] = COLUMNS.map(column);
        let (rows, mask) = mask?;
        let width = mask.len() / rows.max(1);
        let count = |row: &[f32]| row.iter().filter(|present| **present > 0.0).count();
        let shortlists = mask.chunks(width.max(1)).map(|row| (0..count(row)).collect()).collect();
        let inputs = Inputs { shortlists, features: features?.1, mask };
        Ok(Labels { inputs, costs: costs?.1, tried: tried?.1, ..Labels::default() })
    }

    fn columns(&self) -> [(&'static str, &[f32]); 4] {
        let Labels { inputs, costs, tried, .. } = self;
        let [a, b, c, d] = COLUMNS;
        [(a, &inputs.features), (b, &inputs.mask), (c, costs), (d, tried)]
    }

    /// Forgets the oldest beyond `most`.
    fn keep(&mut self, most: usize) {
        let excess = self.len().saturating_sub(most);
        if excess > 0 {
            let size = self.costs.len() / self.len();
            self.inputs.forget(excess);
            self.costs.drain(..excess * size);
            self.tried.drain(..excess * size);
        }
    }
}

/// Plays the `index`-th world with the network as it stands and labels some of its decisions; where one is
/// labelled, the best is played.
pub(crate) fn label(config: &Config, courses: &[Course], network: &ActorCritic, index: u64) -> Labels {
    let Exercise { seed, alpha, lesson } = exercise(config, courses, index);
    let Units { reference, greedy: unit } = lesson.units;
    let unit = reference.cost(alpha, unit.moved_bytes, unit.response_s);
    let mut rng = stream(seed, Purpose::LookAhead, 0);
    let priced = network.priced();
    let quick = || -> Box<dyn Policy> { Box::new(priced.clone()) };
    let share = f64::from(config.labels.per_world) / lesson.world.tasks.len() as f64;
    let mut episode = Episode::new(lesson.world, alpha, reference);
    let mut scorer = Scorer::new(network.clone());
    let mut logits = Vec::new();
    let mut labels = Labels::default();
    while let Next::Decide(observation) = episode.next() {
        let mut inputs = Inputs::default();
        inputs.push(&observation, network);
        logits.clear();
        scorer.logits(&inputs, |_, logit| logits.push(logit));
        let by_logit = |a: &usize, b: &usize| logits[*a].total_cmp(&logits[*b]);
        let mut best = (0..logits.len()).max_by(by_logit).expect("an observation has a candidate");
        let shortlist = &inputs.shortlists[0];
        let chosen = rng.random::<f64>();
        let estimates = || -> Vec<f64> {
            let looks = observation.look(shortlist);
            network.prices.costs(&observation, &looks).iter().map(|cost| cost / unit).collect()
        };
        if !is_contested(&observation, shortlist) {
            if chosen < share * PLAIN {
                let all: Vec<usize> = (0..shortlist.len()).collect();
                labels.add(inputs.clone(), &all, &estimates(), config.network.shortlist);
            }
        } else if chosen < share {
            let depth = config.labels.depth;
            let tried = candidates(&observation, shortlist, &logits, depth, &mut rng);
            let nodes: Vec<NodeId> =
                tried.iter().map(|&position| observation.node(shortlist[position])).collect();
            if let Some(gains) = race(&quick, &observation, &nodes, depth, rng.random(), None) {
                let most = (0..gains.len()).max_by(|&a, &b| gains[a].sure().total_cmp(&gains[b].sure()));
                best = tried[most.expect("at least one was tried")];
                // What was simulated, where it is beyond doubt, else what the prices say.
                let mut costs = estimates();
                let first = costs[tried[0]];
                for (&position, gain) in tried.iter().zip(&gains) {
                    let guess = (first - costs[position]) * unit;
                    costs[position] = first - gain.nearest(guess) / unit;
                }
                labels.add(inputs.clone(), &tried, &costs, config.network.shortlist);
            }
        }
        let node = observation.node(inputs.shortlists[0][best]);
        labels.played += 1;
        episode.step(node);
    }
    labels.relative_costs.push(Figures::of(&episode).cost_per_task(alpha, reference) / unit);
    labels
}

impl Labels {
    /// Adds a decision whose candidates cost so much, in units of a task; some of them were tried.
    fn add(&mut self, inputs: Inputs, tried: &[usize], costs: &[f64], size: usize) {
        let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
        let costs: Vec<f64> = costs.iter().map(|cost| (cost - least).min(MOST)).collect();
        let mean = costs.iter().sum::<f64>() / costs.len() as f64;
        let first = self.costs.len();
        self.costs.resize(first + size, 0.0);
        self.tried.resize(first + size, 0.0);
        self.costs[first..].iter_mut().zip(&costs).for_each(|(to, cost)| *to = (cost - mean) as f32);
        tried.iter().for_each(|&position| self.tried[first + position] = 1.0);
        self.inputs.append(inputs);
    }
}

/// Whether more than one candidate is near the least expected cost, or would be with the image there: else
/// there is nothing to learn.
fn is_contested(observation: &Observation<'_>, shortlist: &[usize]) -> bool {
    const NEAR: f64 = 2.0;
    let candidates = || shortlist.iter().map(|&index| &observation.candidates()[index]);
    let least = candidates().map(|c| observation.cost(c)).fold(f64::INFINITY, f64::min);
    candidates().filter(|c| observation.warm_cost(c) <= NEAR * least).count() > 1
}

/// Positions to try: promising ones, and a random other.
fn candidates(
    observation: &Observation<'_>,
    shortlist: &[usize],
    logits: &[f32],
    depth: Depth,
    rng: &mut impl Rng,
) -> Vec<usize> {
    let position = |index: usize| shortlist.binary_search(&index).expect("it is of the shortlist");
    let score = |index: usize| f64::from(logits[position(index)]);
    let promising = promising(observation, shortlist, score, depth.candidates.saturating_sub(1).max(1));
    let mut tried: Vec<usize> = promising.into_iter().map(position).collect();
    let others: Vec<usize> = (0..shortlist.len()).filter(|position| !tried.contains(position)).collect();
    if !others.is_empty() {
        tried.push(others[rng.random_range(0..others.len())]);
    }
    tried
}

impl Learner {
    /// Makes labels and learns them, with those of earlier iterations.
    pub(crate) fn learn_labels(&mut self, progress: f64) -> Result<Metrics, BadBatch> {
        let started = Instant::now();
        let parts = self.worlds(self.iteration).label();
        let mut metrics = Metrics {
            relative_cost: parts.iter().flat_map(|part| &part.relative_costs).sum::<f64>()
                / parts.len().max(1) as f64,
            decisions: parts.iter().map(|part| part.played).sum(),
            ..Metrics::default()
        };
        parts.into_iter().for_each(|part| self.replay.append(part));
        self.replay.keep(self.config.labels.replay);
        metrics.collect_s = started.elapsed().as_secs_f64();
        if !self.replay.is_empty() {
            let replay = std::mem::take(&mut self.replay);
            let threads = Arc::clone(&self.threads);
            let learnt =
                threads.descending.install(|| self.update_on_labels(&replay, progress, &mut metrics));
            let shown: Vec<usize> = (replay.len().saturating_sub(SHOWN)..replay.len()).collect();
            metrics.seen = replay.inputs.rows(&shown);
            self.replay = replay;
            learnt?;
        }
        metrics.update_s = started.elapsed().as_secs_f64() - metrics.collect_s;
        Ok(metrics)
    }

    fn update_on_labels(
        &mut self,
        replay: &Labels,
        progress: f64,
        metrics: &mut Metrics,
    ) -> Result<(), BadBatch> {
        let (rate, entropy_weight) = self.schedule(progress);
        let LabelConfig { updates, minibatch, .. } = self.config.labels;
        let size = self.config.network.shortlist;
        let mut sums = [0.0; 3];
        let passes = 0..(updates * minibatch).div_ceil(replay.len());
        let order: Vec<usize> = passes.flat_map(|pass| self.shuffled(replay.len(), pass)).collect();
        let loss = |network: &ActorCritic, device: &Device, rows: &[usize]| {
            let matrix = |values: &[f32]| {
                let data = TensorData::new(pick(values, rows, size), [rows.len(), size]);
                Tensor::<2>::from_data(data, device)
            };
            let (costs, tried) = (matrix(&replay.costs), matrix(&replay.tried)); // [rows, size]
            let (features, mask) = replay.inputs.rows(rows).into_tensors(size, device);
            let logits = network.logits(features, mask.clone()); // [rows, size]
            let regret = regret(logits.clone(), costs.clone(), tried);
            let (log_probs, entropy) = log_probs_and_entropy(logits, mask);
            let expected = (log_probs.exp() * costs).sum_dim(1).mean();
            (expected.clone() - entropy.clone() * entropy_weight, [expected, entropy, regret])
        };
        for rows in order.chunks(minibatch).take(updates) {
            let bad = || BadBatch { inputs: replay.inputs.rows(rows), rows: rows.to_vec() };
            let (figures, norm) = self.descend(rows, rate, &loss).ok_or_else(bad)?;
            sums.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure / updates as f64);
            metrics.gradient_norm += norm / updates as f64;
            metrics.gradient_samples += rows.len();
        }
        let [policy_loss, entropy, regret] = sums;
        (metrics.policy_loss, metrics.entropy, metrics.label_regret) = (policy_loss, entropy, Some(regret));
        Ok(())
    }
}

/// Mean cost of the network's choice among the candidates tried above the best of them, `[1]`; all
/// arguments are `[rows, size]`.
fn regret(logits: Tensor<2>, costs: Tensor<2>, tried: Tensor<2>) -> Tensor<1> {
    const FAR: f32 = 1e9;
    let chosen = (logits + (tried.clone() - 1.0) * FAR).argmax(1); // [rows, 1]
    let least = (costs.clone() - (tried - 1.0) * FAR).min_dim(1); // [rows, 1]
    (costs.gather(1, chosen) - least).mean()
}
