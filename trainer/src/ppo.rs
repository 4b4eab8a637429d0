//! Proximal policy optimisation (Schulman et al. 2017), read top to bottom: collect, then a few
//! epochs of minibatches with a clipped ratio, an entropy bonus and a critic.

use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Bytes, Device, Int, Tensor, TensorData};
use rand::seq::SliceRandom;
use rayon::prelude::{IntoParallelIterator, ParallelIterator};
use remora_env::observation::FEATURE_COUNT;
use remora_env::random::{Purpose, stream};
use remora_policies::Checkpoint;
use remora_policies::network::ActorCritic;

use crate::collect::{Course, Experience, collect};
use crate::config::Config;

/// Figures of one iteration; names as they appear in TensorBoard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Metrics {
    /// Mean cost per task while exploring, over greedy's.
    pub relative_cost: f64,
    pub policy_loss: f64,
    pub value_loss: f64,
    /// Share of the returns' variance that the critic explains.
    pub explained_variance: f64,
    pub entropy: f64,
    pub kl: f64,
    pub clip_fraction: f64,
    pub decisions: usize,
    pub gradient_samples: usize,
    pub collect_s: f64,
    pub update_s: f64,
}

/// A policy in training.
pub struct Learner {
    pub config: Config,
    pub courses: Vec<Course>,
    pub network: ActorCritic,
    optimizer: ModuleOptimizer,
    device: Device,
    pub iteration: u64,
}

impl std::fmt::Debug for Learner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Learner").field("config", &self.config).field("iteration", &self.iteration).finish()
    }
}

/// What a minibatch's losses come to.
struct Losses {
    policy: f64,
    value: f64,
    entropy: f64,
    kl: f64,
    clipped: f64,
}

impl Learner {
    pub fn new(config: Config, courses: Vec<Course>) -> Learner {
        let device = Device::flex().autodiff();
        let network = ActorCritic::init(&config.network, config.seed, &device);
        let optimizer = Learner::optimizer(&config);
        Learner { config, courses, network, optimizer, device, iteration: 0 }
    }

    /// Takes up the weights of a checkpoint and the optimiser's state saved with it; an error says
    /// what is wrong with either.
    pub fn restore(&mut self, checkpoint: &Checkpoint, optimizer: Vec<u8>) -> Result<(), String> {
        let fresh = Learner::optimizer(&self.config);
        self.optimizer =
            fresh.from_bytes(Bytes::from_bytes_vec(optimizer)).map_err(|error| error.to_string())?;
        self.network = checkpoint.network(&self.device).map_err(|error| error.to_string())?;
        self.iteration = checkpoint.about.iterations;
        Ok(())
    }

    /// The optimiser's state, for [`Learner::restore`].
    pub fn optimizer_bytes(&self) -> Vec<u8> {
        self.optimizer.into_bytes().expect("the optimiser's state fits its container").to_vec()
    }

    fn optimizer(config: &Config) -> ModuleOptimizer {
        AdamConfig::new()
            .with_epsilon(1e-5)
            .with_grad_clipping(Some(GradientClippingConfig::Norm(config.gradient_norm)))
            .init()
    }

    /// One iteration: collect, then update. `progress` in 0..1 drives the schedules.
    pub fn step(&mut self, progress: f64) -> Metrics {
        let started = std::time::Instant::now();
        let experience = self.collect();
        let collect_s = started.elapsed().as_secs_f64();
        let mut metrics = self.update(&experience, progress);
        metrics.collect_s = collect_s;
        metrics.update_s = started.elapsed().as_secs_f64() - collect_s;
        self.iteration += 1;
        metrics
    }

    /// All worlds of this iteration, in parallel; joined in their order, so that the result does
    /// not depend on the number of threads.
    fn collect(&self) -> Experience {
        let network = self.network.valid();
        let first = self.iteration * self.config.worlds as u64;
        let parts: Vec<Experience> = (first..first + self.config.worlds as u64)
            .into_par_iter()
            .map(|world| collect(&self.config, &self.courses, &network.clone(), world))
            .collect();
        let mut all = Experience::default();
        parts.into_iter().for_each(|part| all.append(part));
        all
    }

    fn update(&mut self, experience: &Experience, progress: f64) -> Metrics {
        let rate = self.config.learning_rate * (1.0 - 0.95 * progress);
        let entropy_weight = self.config.entropy * (1.0 - progress);
        let mut metrics = Metrics {
            relative_cost: mean(&experience.relative_costs),
            decisions: experience.len(),
            ..Metrics::default()
        };
        let mut order: Vec<usize> = (0..experience.len()).collect();
        let mut count = 0.0;
        for epoch in 0..self.config.epochs {
            let draw = self.iteration * self.config.epochs as u64 + epoch as u64;
            order.shuffle(&mut stream(self.config.seed, Purpose::Shuffle, draw));
            let mut epoch_kl = 0.0;
            let minibatches: Vec<&[usize]> = order.chunks(self.config.minibatch).collect();
            for rows in &minibatches {
                let losses = self.minibatch(experience, rows, rate, entropy_weight);
                metrics.policy_loss += losses.policy;
                metrics.value_loss += losses.value;
                metrics.entropy += losses.entropy;
                metrics.clip_fraction += losses.clipped;
                metrics.gradient_samples += rows.len();
                epoch_kl += losses.kl;
                count += 1.0;
            }
            metrics.kl = epoch_kl / minibatches.len().max(1) as f64;
            if metrics.kl > self.config.target_kl && self.iteration >= self.config.imitate {
                break;
            }
        }
        for sum in [
            &mut metrics.policy_loss,
            &mut metrics.value_loss,
            &mut metrics.entropy,
            &mut metrics.clip_fraction,
        ] {
            *sum /= f64::max(count, 1.0);
        }
        let variance = variance(&experience.targets);
        metrics.explained_variance = 1.0 - 2.0 * metrics.value_loss / variance.max(1e-9);
        metrics
    }

    /// One gradient step on the decisions `rows`.
    fn minibatch(
        &mut self,
        experience: &Experience,
        rows: &[usize],
        rate: f64,
        entropy_weight: f64,
    ) -> Losses {
        let size = self.config.network.shortlist;
        let b = rows.len();
        let column = |values: &[f32]| {
            let picked: Vec<f32> = rows.iter().map(|&row| values[row]).collect();
            Tensor::<1>::from_data(TensorData::new(picked, [b]), &self.device)
        };
        let features = pick(&experience.inputs.features, rows, size * FEATURE_COUNT);
        let features =
            Tensor::<3>::from_data(TensorData::new(features, [b, size, FEATURE_COUNT]), &self.device);
        let mask = pick(&experience.inputs.mask, rows, size);
        let mask = Tensor::<2>::from_data(TensorData::new(mask, [b, size]), &self.device);
        let actions: Vec<i32> = rows.iter().map(|&row| experience.actions[row]).collect();
        let actions = Tensor::<2, Int>::from_data(TensorData::new(actions, [b, 1]), &self.device);
        let greedy: Vec<i32> = rows.iter().map(|&row| experience.greedy[row]).collect();
        let greedy = Tensor::<2, Int>::from_data(TensorData::new(greedy, [b, 1]), &self.device);
        let old = column(&experience.log_probs); // [b]
        let advantages = column(&experience.advantages); // [b]
        let targets = column(&experience.targets); // [b]

        let judgement = self.network.forward(features, mask.clone());
        let log_probs = log_softmax(judgement.logits, 1); // [b, size]
        let chosen = log_probs.clone().gather(1, actions).reshape([b]); // [b]
        let log_probs_of_greedy = log_probs.clone().gather(1, greedy).reshape([b]); // [b]
        let log_ratio = chosen - old; // [b]
        let ratio = log_ratio.clone().exp(); // [b]
        let clipped = ratio.clone().clamp(1.0 - self.config.clip, 1.0 + self.config.clip); // [b]
        let gain = (ratio.clone() * advantages.clone()).min_pair(clipped * advantages); // [b]
        let entropy = -(log_probs.clone().exp() * log_probs * mask).sum_dim(1).mean();
        let policy_loss =
            if self.iteration < self.config.imitate { -log_probs_of_greedy.mean() } else { -gain.mean() };
        let value_loss = (judgement.value - targets).powi_scalar(2).mean() * 0.5;
        let loss = policy_loss.clone() + value_loss.clone() * self.config.value_weight
            - entropy.clone() * entropy_weight;

        let kl = (ratio.clone() - 1.0 - log_ratio).mean();
        let outside = (ratio - 1.0).abs().greater_elem(self.config.clip).float().mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &self.network);
        self.network = self.optimizer.step(rate, self.network.clone(), gradients);
        Losses {
            policy: scalar(policy_loss),
            value: scalar(value_loss),
            entropy: scalar(entropy),
            kl: scalar(kl),
            clipped: scalar(outside),
        }
    }
}

fn scalar(tensor: Tensor<1>) -> f64 {
    f64::from(tensor.into_scalar::<f32>())
}

/// Rows of a flat matrix with `width` columns.
fn pick(values: &[f32], rows: &[usize], width: usize) -> Vec<f32> {
    let mut picked = Vec::with_capacity(rows.len() * width);
    for &row in rows {
        picked.extend_from_slice(&values[row * width..(row + 1) * width]);
    }
    picked
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len().max(1) as f64
}

fn variance(values: &[f32]) -> f64 {
    let mean = mean(values);
    values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / values.len().max(1) as f64
}
