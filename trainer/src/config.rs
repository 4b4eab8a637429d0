//! Every hyper-parameter of a training run in one place.

use remora_env::family::Family;
use remora_policies::network::{Caution, NetworkConfig};
use serde::{Deserialize, Serialize};

use crate::device::Accelerator;
use crate::evolution::EvolutionConfig;
use crate::labels::LabelConfig;

/// Configuration of a training run: the `config.toml` of its folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub seed: u64,
    /// What computes the gradients.
    #[serde(skip_serializing_if = "is_default")]
    pub device: Accelerator,
    /// The checkpoint that it began from, by its content hash; else from weights drawn with the seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What to train on, in turn: built-in names, families or files.
    pub scenarios: Vec<String>,
    /// Iterations of collecting and updating.
    pub iterations: u64,
    /// How prices are found, to begin with.
    pub evolution: EvolutionConfig,
    /// The look-ahead labels that it learns from next.
    pub labels: LabelConfig,
    /// Train for one position of the dial, not for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// What a decision's return is compared with.
    pub baseline: Baseline,
    /// Worlds per iteration, each with its own seed and α.
    pub worlds: usize,
    /// Rollouts of each world; their mean return is the baseline of each.
    pub rollouts: usize,
    /// Tasks per episode.
    pub tasks: u32,
    /// Discount horizon, in arrivals.
    pub horizon: f64,
    /// Passes over each iteration's decisions.
    pub epochs: usize,
    /// Decisions per gradient step.
    pub minibatch: usize,
    /// Learning rate at the start; falls linearly to a twentieth.
    pub learning_rate: f64,
    /// PPO clip range ε.
    pub clip: f64,
    /// Entropy bonus at the start; falls linearly to zero.
    pub entropy: f64,
    /// Weight of the critic's loss.
    pub value_weight: f64,
    /// Norm to which the gradient of each parameter is clipped.
    pub gradient_norm: f32,
    /// Mean KL divergence from the collecting policy at which an iteration's updates stop.
    pub target_kl: f64,
    /// Iterations between validations.
    pub validate_every: u64,
    pub network: NetworkConfig,
}

fn is_default(device: &Accelerator) -> bool {
    *device == Accelerator::default()
}

/// What a decision's return is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Baseline {
    /// The mean of the same task's decisions in all rollouts of its world.
    Group,
    /// What a critic expects.
    Critic,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            seed: 0,
            device: Accelerator::Cpu,
            from: None,
            scenarios: default_scenarios(),
            iterations: 75,
            evolution: EvolutionConfig::default(),
            labels: LabelConfig::default(),
            alpha: None,
            baseline: Baseline::Group,
            worlds: 6,
            rollouts: 8,
            tasks: 400,
            horizon: 30.0,
            epochs: 2,
            minibatch: 256,
            learning_rate: 1e-3,
            clip: 0.2,
            entropy: 0.003,
            value_weight: 0.5,
            gradient_norm: 0.5,
            target_kl: 0.03,
            validate_every: 5,
            network: NetworkConfig::default(),
        }
    }
}

/// The built-in scenarios, and three members of the train family for each of their worlds.
fn default_scenarios() -> Vec<String> {
    let family = Family::Train.name();
    let four = |scenario: &str| [family, family, family, scenario].map(str::to_owned);
    remora_env::scenario::built_in().flat_map(four).collect()
}

impl Config {
    /// Reads a configuration from TOML; what is not given keeps its default, unknown keys are
    /// refused.
    pub fn parse(text: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(text)
    }

    /// Everything that is wrong with the figures; none if a run can start.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut demand = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        let count = |name: &str, value: u64| (value >= 1, format!("{name} is {value}, want at least 1"));
        for (name, value) in [
            ("worlds", self.worlds as u64),
            ("tasks", u64::from(self.tasks)),
            ("epochs", self.epochs as u64),
            ("minibatch", self.minibatch as u64),
            ("validate_every", self.validate_every),
            ("network.hidden", self.network.hidden as u64),
            ("evolution.worlds", self.evolution.worlds as u64),
            ("labels.worlds", self.labels.worlds as u64),
            ("labels.per_world", u64::from(self.labels.per_world)),
            ("labels.depth.futures", self.labels.depth.futures as u64),
            ("labels.depth.tasks", self.labels.depth.tasks as u64),
            ("labels.replay", self.labels.replay as u64),
            ("labels.updates", self.labels.updates as u64),
            ("labels.minibatch", self.labels.minibatch as u64),
        ] {
            let (holds, problem) = count(name, value);
            demand(holds, problem);
        }
        demand(!self.scenarios.is_empty(), "scenarios is empty, want at least one".to_owned());
        demand(
            self.rollouts >= 2,
            format!("rollouts is {}, want at least 2: they are each other's baseline", self.rollouts),
        );
        demand(
            (8..=256).contains(&self.network.shortlist),
            format!("network.shortlist is {}, want 8 to 256", self.network.shortlist),
        );
        for (name, value) in [
            ("horizon", self.horizon),
            ("learning_rate", self.learning_rate),
            ("clip", self.clip),
            ("gradient_norm", f64::from(self.gradient_norm)),
            ("target_kl", self.target_kl),
        ] {
            demand(value.is_finite() && value > 0.0, format!("{name} is {value}, want a number above 0"));
        }
        if let Some(alpha) = self.alpha {
            demand((0.0..=1.0).contains(&alpha), format!("alpha is {alpha}, want 0 to 1"));
        }
        let LabelConfig { until, depth, .. } = self.labels;
        for (name, until) in [("labels", until), ("evolution", self.evolution.until)] {
            demand((0.0..=1.0).contains(&until), format!("{name}.until is {until}, want 0 to 1"));
        }
        let EvolutionConfig { population, deviation, .. } = self.evolution;
        demand(
            population >= 4 && population.is_multiple_of(2),
            format!("evolution.population is {population}, want an even number from 4"),
        );
        demand(
            deviation.is_finite() && deviation > 0.0,
            format!("evolution.deviation is {deviation}, want a number above 0"),
        );
        demand(
            depth.candidates >= 2,
            format!("labels.depth.candidates is {}, want at least 2 to compare", depth.candidates),
        );
        let built = self.device.device().is_some();
        let device = self.device.name();
        demand(
            built,
            format!(
                "device is {device}, which this build was made without: build it with --features {device}"
            ),
        );
        let Caution(caution) = self.network.caution;
        let none = self.network.caution.is_none();
        demand(none, format!("network.caution is {caution:?}, want none: validation finds it"));
        for (name, value) in [("entropy", self.entropy), ("value_weight", self.value_weight)] {
            demand(value.is_finite() && value >= 0.0, format!("{name} is {value}, want a number from 0"));
        }
        problems
    }
}
