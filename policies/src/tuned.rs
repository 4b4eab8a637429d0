//! Heuristics with weights: those that have some, what was found for them, and their files.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Policy;
use crate::heuristics::{Coefficients, GreedyCompletion, GreedyMarginal, KubeDefault, Skippy};

// What `remora tune` found on train-family and what it costs, over the plain weights, on as many members of
// validation-family (geometric mean with its 95 % interval).

/// Weights of Skippy: `--policy skippy --worlds 64 --population 32 --generations 12`, the cheapest at α = ½;
/// 0.875 [0.814, 0.933].
pub const SKIPPY: [f64; 5] = [0.751, 2.154, 0.0, 1.023, 0.662];

const fn coefficients(figures: [f64; 6]) -> Coefficients {
    let [wait, pull, transfer, image_data, crowding, accelerator] = figures;
    Coefficients { wait, pull, transfer, image_data, crowding, accelerator }
}

/// Coefficients of greedy marginal cost at α = 0, ½ and 1: `--policy greedy-marginal --alpha A --objectives
/// cost --worlds 160 --population 16 --generations 12 --seed 1`; 0.949 [0.908, 0.987], 0.941 [0.911, 0.971]
/// and 0.985 [0.970, 0.997].
pub const MARGINAL: [Coefficients; 3] = [
    coefficients([0.506, 0.490, 2.157, 1.885, 2.258, 1.168]),
    coefficients([2.931, 1.423, 1.492, 0.313, 2.575, 0.378]),
    coefficients([2.251, 0.161, 2.483, 0.458, 0.635, 0.068]),
];
/// Coefficients of greedy completion: those of greedy marginal cost where only time counts.
pub const COMPLETION: Coefficients = MARGINAL[0];

/// A heuristic with weights.
#[derive(Clone, Copy, Debug)]
pub struct Tunable {
    /// The policy that it is with all weights as they are.
    pub name: &'static str,
    /// Its weights, each with the range to look in.
    pub weights: &'static [(&'static str, f64, f64)],
    /// What they are without tuning.
    pub plain: &'static [f64],
    make: fn(&[f64], u64) -> Box<dyn Policy>,
}

const COEFFICIENTS: [(&str, f64, f64); 6] = [
    (Coefficients::NAMES[0], 0.0, 4.0),
    (Coefficients::NAMES[1], 0.0, 2.0),
    (Coefficients::NAMES[2], 0.0, 4.0),
    (Coefficients::NAMES[3], 0.0, 2.0),
    (Coefficients::NAMES[4], 0.0, 4.0),
    (Coefficients::NAMES[5], 0.0, 2.0),
];
const PLAIN: [f64; 6] = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0];

/// All of them.
pub const TUNABLE: [Tunable; 5] = [
    Tunable {
        name: "kube-default",
        weights: &[("least-allocated", 0.0, 10.0), ("balanced", 0.0, 10.0), ("image-locality", 0.0, 10.0)],
        plain: &[1.0; 3],
        make: |weights, seed| Box::new(KubeDefault::weighted(seed, array(weights))),
    },
    Tunable {
        name: "kube-thin",
        weights: &[("balanced", 0.0, 10.0), ("image-locality", 0.0, 10.0)],
        plain: &[1.0; 2],
        make: |weights, _| Box::new(Skippy::kube_thin(array(weights))),
    },
    Tunable {
        name: "skippy",
        weights: &[
            ("balanced", 0.0, 10.0),
            ("image-latency", 0.0, 10.0),
            ("edge", 0.0, 10.0),
            ("data-locality", 0.0, 10.0),
            ("capability", 0.0, 10.0),
        ],
        plain: &[1.0; 5],
        make: |weights, _| Box::new(Skippy::weighted("skippy", array(weights))),
    },
    Tunable {
        name: "greedy-completion",
        weights: &COEFFICIENTS,
        plain: &PLAIN,
        make: |weights, _| {
            Box::new(GreedyCompletion::with("greedy-completion", Coefficients::from_array(array(weights))))
        },
    },
    Tunable {
        name: "greedy-marginal",
        weights: &COEFFICIENTS,
        plain: &PLAIN,
        make: |weights, _| {
            Box::new(GreedyMarginal::with("greedy-marginal", vec![Coefficients::from_array(array(weights))]))
        },
    },
];

fn array<const N: usize>(weights: &[f64]) -> [f64; N] {
    weights.try_into().expect("a heuristic is made with as many weights as it has")
}

impl Tunable {
    /// The heuristic of that name, if it has weights.
    pub fn named(name: &str) -> Option<&'static Tunable> {
        TUNABLE.iter().find(|tunable| tunable.name == name)
    }

    /// The heuristic with these weights, in the order of [`Tunable::weights`].
    ///
    /// # Panics
    /// When they are not as many.
    pub fn with(&self, weights: &[f64], seed: u64) -> Box<dyn Policy> {
        (self.make)(weights, seed)
    }
}

/// A heuristic with the weights found for it, as a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunedFile {
    /// Name of the heuristic.
    pub policy: String,
    /// Its weights by name, all of them.
    pub weights: std::collections::BTreeMap<String, f64>,
}

/// Why such a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TunedError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}: {problem}")]
    Wrong { path: String, problem: String },
}

/// The policy of a file of weights, which is called by the file's name.
pub fn load(path: &Path, seed: u64) -> Result<Box<dyn Policy>, TunedError> {
    let at = || path.display().to_string();
    let wrong = |problem: String| TunedError::Wrong { path: at(), problem };
    let text = std::fs::read_to_string(path).map_err(|source| TunedError::Read { path: at(), source })?;
    let file: TunedFile = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let tunable = Tunable::named(&file.policy).ok_or_else(|| {
        let known: Vec<&str> = TUNABLE.iter().map(|tunable| tunable.name).collect();
        wrong(format!("policy is {:?}, want one that has weights: {}", file.policy, known.join(", ")))
    })?;
    let names: Vec<&str> = tunable.weights.iter().map(|(name, ..)| *name).collect();
    if let Some(unknown) = file.weights.keys().find(|name| !names.contains(&name.as_str())) {
        return Err(wrong(format!(
            "weights.{unknown} is not known: {} has {}",
            file.policy,
            names.join(", ")
        )));
    }
    let weights: Result<Vec<f64>, TunedError> = names
        .iter()
        .map(|name| {
            let weight = file.weights.get(*name).copied();
            weight.filter(|weight| weight.is_finite()).ok_or_else(|| {
                wrong(format!(
                    "weights.{name} is {}, want a number",
                    weight.map_or("missing".to_owned(), |w| w.to_string())
                ))
            })
        })
        .collect();
    let stem =
        path.file_stem().map_or_else(|| file.policy.clone(), |stem| stem.to_string_lossy().into_owned());
    Ok(Box::new(Renamed { name: stem, policy: tunable.with(&weights?, seed) }))
}

/// A policy under another name.
struct Renamed {
    name: String,
    policy: Box<dyn Policy>,
}

impl Policy for Renamed {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&mut self, observation: &remora_env::Observation<'_>, scores: &mut Vec<f64>) {
        self.policy.score(observation, scores);
    }
}
