//! A policy in training: the network, its optimiser, and one iteration of learning at a time.
//!
//! A run begins by finding prices that do well ([`crate::evolution`]), goes on with look-ahead labels
//! ([`crate::labels`]) and ends with policy optimisation ([`crate::ppo`]), as far as it is asked to.

use std::sync::Arc;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Bytes, Device, Int, Tensor, TensorData};
use rand::seq::SliceRandom;
use rayon::prelude::{IntoParallelIterator, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};
use remora_env::random::{Purpose, stream};
use remora_policies::Checkpoint;
use remora_policies::learned::Inputs;
use remora_policies::network::ActorCritic;
use serde::{Deserialize, Serialize};

use crate::collect::{Experience, collect};
use crate::config::Config;
use crate::course::{Course, Lesson, exercise};
use crate::labels::{Labels, label};

/// What an iteration learns from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Which prices do best.
    #[default]
    Evolve,
    /// What simulating candidates forward showed.
    Label,
    /// What its own choices led to.
    Improve,
}

/// Figures of one iteration.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub phase: Phase,
    /// Mean cost per task while exploring, over greedy's.
    pub relative_cost: f64,
    pub policy_loss: f64,
    /// Of the critic, where there is one; and the share of the returns' variance that it explains.
    pub value_loss: Option<f64>,
    pub explained_variance: Option<f64>,
    pub entropy: f64,
    pub kl: f64,
    pub clip_fraction: f64,
    /// Mean cost of the network's choices above the best tried, in units of a task of greedy's.
    pub label_regret: Option<f64>,
    /// Mean norm of the gradient before clipping.
    pub gradient_norm: f64,
    pub decisions: usize,
    pub gradient_samples: usize,
    pub collect_s: f64,
    pub update_s: f64,
    /// Some of the decisions that it learnt from.
    pub seen: Inputs,
    /// Probabilities of the choices made, while exploring.
    pub probabilities: Vec<f32>,
}

/// Decisions whose features are shown.
pub(crate) const SHOWN: usize = 512;

/// A batch whose loss or gradient is no number.
#[derive(Clone, Debug)]
pub struct BadBatch {
    /// Of the iteration.
    pub inputs: Inputs,
    /// Its rows.
    pub rows: Vec<usize>,
}

/// A policy in training.
pub struct Learner {
    pub config: Config,
    courses: Arc<[Course]>,
    pub network: ActorCritic,
    optimizer: ModuleOptimizer,
    pub(crate) device: Device,
    pub(crate) threads: Arc<Threads>,
    pub iteration: u64,
    /// Labels to learn from again.
    pub replay: Labels,
    /// What evolving prices play, in every iteration.
    pub(crate) lessons: Vec<Lesson>,
    /// The next iteration's experience, where it is collected already.
    pub(crate) ahead: Option<Experience>,
}

impl std::fmt::Debug for Learner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Learner").field("config", &self.config).field("iteration", &self.iteration).finish()
    }
}

/// Who learns while others play.
#[derive(Debug)]
pub(crate) struct Threads {
    /// One thread takes gradient steps: products of our matrices are too small to be shared, waiting for the other half
    /// of one costs more than the half.
    pub descending: ThreadPool,
    /// One for each processor that is left.
    pub playing: ThreadPool,
}

impl Threads {
    fn new() -> Threads {
        let threads = |count| ThreadPoolBuilder::new().num_threads(count).build();
        let others = (rayon::current_num_threads() - 1).max(1);
        Threads {
            descending: threads(1).expect("one thread more can be had"),
            playing: threads(others).expect("as many threads more as there are can be had"),
        }
    }
}

/// The worlds of one iteration, and who plays them.
#[derive(Debug)]
pub(crate) struct Worlds {
    config: Config,
    courses: Arc<[Course]>,
    network: ActorCritic,
    iteration: u64,
}

impl Worlds {
    /// Experience of `config.worlds` of them.
    pub fn collect(&self) -> Experience {
        let parts = self
            .each(self.config.worlds, |network, world| collect(&self.config, &self.courses, network, world));
        let mut experience = Experience::default();
        parts.into_iter().for_each(|part| experience.append(part));
        experience
    }

    /// Labels of decisions in `config.labels.worlds` of them.
    pub fn label(&self) -> Vec<Labels> {
        self.each(self.config.labels.worlds, |network, world| {
            label(&self.config, &self.courses, network, world)
        })
    }

    /// What `of` makes of each of `count` worlds, in parallel and in their order, so that the result does
    /// not depend on the number of threads.
    fn each<T: Send>(&self, count: usize, of: impl Fn(&ActorCritic, u64) -> T + Sync) -> Vec<T> {
        // Iterations have worlds of their own, whatever they learn from.
        let first = self.iteration * self.config.worlds.max(self.config.labels.worlds) as u64;
        (first..first + count as u64).into_par_iter().map(|world| of(&self.network.clone(), world)).collect()
    }
}

/// The loss of a few decisions, with figures to log.
pub(crate) type Loss<'a, const N: usize> =
    dyn Fn(&ActorCritic, &Device, &[usize]) -> (Tensor<1>, [Tensor<1>; N]) + 'a;

impl Learner {
    /// A learner that knows nothing yet: weights drawn with the configuration's seed.
    ///
    /// # Panics
    /// Where the configuration has problems, or the system gives no more threads.
    pub fn new(config: Config, courses: Vec<Course>) -> Learner {
        let device = config.device.device().expect("a configuration without problems").autodiff();
        let network = ActorCritic::init(&config.network, config.seed, &device);
        let optimizer = Learner::optimizer(&config);
        let (courses, replay) = (courses.into(), Labels::default());
        Learner {
            config,
            courses,
            network,
            optimizer,
            device,
            threads: Arc::new(Threads::new()),
            iteration: 0,
            replay,
            lessons: Vec::new(),
            ahead: None,
        }
    }

    /// Takes up the weights of a checkpoint and the optimiser's state saved with it; an error says
    /// what is wrong with either.
    pub fn restore(&mut self, checkpoint: &Checkpoint, optimizer: Vec<u8>) -> Result<(), String> {
        let fresh = Learner::optimizer(&self.config);
        self.optimizer =
            fresh.from_bytes(Bytes::from_bytes_vec(optimizer)).map_err(|error| error.to_string())?;
        self.begin_from(checkpoint)?;
        self.iteration = checkpoint.about.iterations;
        Ok(())
    }

    /// Takes up the weights of a checkpoint alone.
    pub fn begin_from(&mut self, checkpoint: &Checkpoint) -> Result<(), String> {
        self.network = checkpoint.network(&self.device).map_err(|error| error.to_string())?;
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

    /// What the next iteration learns from, `progress` (0..1) into the run.
    pub fn phase(&self, progress: f64) -> Phase {
        if progress < self.config.evolution.until {
            Phase::Evolve
        } else if progress < self.config.labels.until {
            Phase::Label
        } else {
            Phase::Improve
        }
    }

    /// One iteration: collect, then update. `progress` in 0..1 drives the schedules.
    ///
    /// A batch whose loss or gradient is no number ends it, before the weights take part in it.
    pub fn step(&mut self, progress: f64) -> Result<Metrics, BadBatch> {
        let phase = self.phase(progress);
        match phase {
            Phase::Improve => self.replay = Labels::default(),
            Phase::Label => self.ahead = None,
            Phase::Evolve => {}
        }
        let mut metrics = match phase {
            Phase::Evolve => Ok(self.evolve(progress)),
            Phase::Label => self.learn_labels(progress),
            Phase::Improve => self.improve(progress),
        }?;
        metrics.phase = phase;
        self.iteration += 1;
        Ok(metrics)
    }

    /// The worlds of an iteration, with the policy as it stands.
    pub(crate) fn worlds(&self, iteration: u64) -> Worlds {
        let (config, courses) = (self.config.clone(), Arc::clone(&self.courses));
        Worlds { config, courses, network: self.playing(), iteration }
    }

    /// The first `count` lessons of the run, whatever the iteration.
    pub(crate) fn first_lessons(&self, count: usize) -> Vec<Lesson> {
        let lesson = |index| exercise(&self.config, &self.courses, index).lesson;
        (0..count as u64).into_par_iter().map(lesson).collect()
    }

    /// The network as it stands, for playing on the processor.
    pub fn playing(&self) -> ActorCritic {
        self.network.valid().to_device(&Device::flex())
    }

    /// Learning rate and weight of the entropy bonus.
    pub(crate) fn schedule(&self, progress: f64) -> (f64, f64) {
        (self.config.learning_rate * (1.0 - 0.95 * progress), self.config.entropy * (1.0 - progress))
    }

    /// All of `0..count` in an order that depends on the run, the iteration and `pass` alone.
    pub(crate) fn shuffled(&self, count: usize, pass: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        let draw = (self.iteration << 8) | pass as u64;
        order.shuffle(&mut stream(self.config.seed, Purpose::Shuffle, draw));
        order
    }

    /// One gradient step on the decisions `rows`; returns the figures of `loss`, its own first, and the norm of
    /// the gradient. `None`, and no step, where one of them is no number.
    pub(crate) fn descend<const N: usize>(
        &mut self,
        rows: &[usize],
        rate: f64,
        loss: &Loss<'_, N>,
    ) -> Option<([f64; N], f64)> {
        let (loss, figures) = loss(&self.network, &self.device, rows);
        let gradients = GradientsParams::from_grads(loss.backward(), &self.network);
        let norm = norm(&self.network, &gradients);
        let figures = figures.map(|figure| f64::from(figure.into_scalar::<f32>()));
        if !norm.is_finite() || !figures[0].is_finite() {
            return None;
        }
        self.network = self.optimizer.step(rate, self.network.clone(), gradients);
        Some((figures, norm))
    }
}

/// A column of figures of some decisions, `[rows]`.
pub(crate) fn column(values: &[f32], rows: &[usize], device: &Device) -> Tensor<1> {
    let picked: Vec<f32> = rows.iter().map(|&row| values[row]).collect();
    Tensor::from_data(TensorData::new(picked, [rows.len()]), device)
}

/// A column of positions, `[rows, 1]`.
pub(crate) fn positions(values: &[i32], rows: &[usize], device: &Device) -> Tensor<2, Int> {
    let picked: Vec<i32> = rows.iter().map(|&row| values[row]).collect();
    Tensor::from_data(TensorData::new(picked, [rows.len(), 1]), device)
}

/// Log-probabilities of a batch, `[rows, size]`, and their mean entropy, `[1]`.
pub(crate) fn log_probs_and_entropy(logits: Tensor<2>, mask: Tensor<2>) -> (Tensor<2>, Tensor<1>) {
    let log_probs = log_softmax(logits, 1); // [rows, size]
    let entropy = -(log_probs.clone().exp() * log_probs.clone() * mask).sum_dim(1).mean();
    (log_probs, entropy)
}

/// Euclidean norm of all gradients together.
fn norm(network: &ActorCritic, gradients: &GradientsParams) -> f64 {
    struct Squares<'a> {
        gradients: &'a GradientsParams,
        sum: f64,
    }
    impl ModuleVisitor for Squares<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.gradients.get::<D>(param.id) {
                self.sum += f64::from(gradient.powi_scalar(2).sum().into_scalar::<f32>());
            }
        }
    }
    let mut squares = Squares { gradients, sum: 0.0 };
    network.visit(&mut squares);
    squares.sum.sqrt()
}
