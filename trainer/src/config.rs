//! Every hyper-parameter of a training run in one place.

use remora_policies::network::NetworkConfig;
use serde::{Deserialize, Serialize};

/// Configuration of a training run: the `config.toml` of its folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub seed: u64,
    /// What to train on, in turn: built-in names, families or files.
    pub scenarios: Vec<String>,
    /// Iterations of collecting and updating.
    pub iterations: u64,
    /// Of them, the first ones imitate `greedy-marginal` on the states that the network reaches.
    pub imitate: u64,
    /// Worlds per iteration, each with its own seed and α.
    pub worlds: usize,
    /// Rollouts of each world; their mean return is the baseline of each.
    pub rollouts: usize,
    /// Tasks per episode.
    pub tasks: u32,
    /// Discount horizon, in mean response times of `greedy-completion`.
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

impl Default for Config {
    fn default() -> Config {
        Config {
            seed: 0,
            scenarios: remora_env::scenario::built_in().map(str::to_owned).collect(),
            iterations: 100,
            imitate: 10,
            worlds: 6,
            rollouts: 8,
            tasks: 200,
            horizon: 4.0,
            epochs: 6,
            minibatch: 256,
            learning_rate: 3e-3,
            clip: 0.2,
            entropy: 0.003,
            value_weight: 0.5,
            gradient_norm: 0.5,
            target_kl: 0.03,
            validate_every: 10,
            network: NetworkConfig::default(),
        }
    }
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
        for (name, value) in [("entropy", self.entropy), ("value_weight", self.value_weight)] {
            demand(value.is_finite() && value >= 0.0, format!("{name} is {value}, want a number from 0"));
        }
        problems
    }
}
