//! The actor-critic: one scorer with shared weights for every candidate, so that a cluster of any
//! size fits, and a critic over what all candidates look like together.

use burn::module::{Module, Param, ParamId};
use burn::nn::Linear;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use remora_env::random::{Purpose, stream};
use serde::{Deserialize, Serialize};

use crate::learned::{ADVICE, INPUT_COUNT, inputs};
use crate::prices::{ANCHORS, PARTS, Priced, Prices, SITUATIONS, between};

/// Shape of the network; saved beside its weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Width of the hidden layers.
    pub hidden: usize,
    /// How many candidates it looks at: see `Observation::shortlist`.
    pub shortlist: usize,
    /// Whether each candidate is scored knowing what all of them look like together.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub context: bool,
    /// Whether it is advised by prices, and begins with doing what they say.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub advised: bool,
    /// Training sets what validates best.
    #[serde(default, skip_serializing_if = "Caution::is_none")]
    pub caution: Caution,
    /// What it does not see, to find out what that is worth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blind_to: Option<Blind>,
}

fn yes() -> bool {
    true
}

/// How much rather than the candidate that its prices advise a network has to prefer another, as a difference of logits, to
/// choose it: at five positions of the dial from 0 to 1, interpolated between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Caution(pub [f32; 5]);

impl Caution {
    pub fn at(&self, alpha: f64) -> f64 {
        let (below, above, share) = between(self.0.len(), alpha);
        (1.0 - share) * f64::from(self.0[below]) + share * f64::from(self.0[above])
    }

    pub fn is_none(&self) -> bool {
        *self == Caution::default()
    }
}

/// Features that a network may be blind to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blind {
    /// Where the dial stands.
    Alpha,
    /// How a candidate compares with the best of them.
    Relative,
    /// What its cost consists of.
    Parts,
    /// What is on the node already.
    Storage,
    /// How much the node has to do.
    Nodes,
    /// What crosses its links.
    Links,
    /// What is the same for all candidates: the task, the cluster.
    Whole,
}

impl Blind {
    pub const ALL: [Blind; 7] = [
        Blind::Alpha,
        Blind::Relative,
        Blind::Parts,
        Blind::Storage,
        Blind::Nodes,
        Blind::Links,
        Blind::Whole,
    ];

    /// Whether the feature of that name is hidden.
    fn hides(self, feature: &str) -> bool {
        match self {
            Blind::Alpha => feature == "alpha",
            Blind::Relative => feature.ends_with("regret"),
            Blind::Parts => matches!(
                feature,
                "wait" | "pull" | "fetch" | "start" | "execution" | "store" | "image-data" | "other-data"
            ),
            Blind::Storage => matches!(
                feature,
                "image-here"
                    | "image-arriving"
                    | "inputs-here"
                    | "output-home"
                    | "image-demand"
                    | "image-spread"
            ),
            Blind::Nodes => {
                matches!(
                    feature,
                    "fits-now" | "cpu-free" | "memory-free" | "queued" | "committed" | "backlog"
                ) || matches!(feature, "accelerators-free" | "accelerator-wasted" | "overdue" | "slowness")
                    || matches!(feature, "contention" | "crowding")
            }
            Blind::Links => matches!(feature, "busy-path" | "busy-data" | "idle-transfer"),
            Blind::Whole => {
                matches!(feature, "feasible" | "load" | "mean-backlog" | "congestion")
                    || matches!(feature, "input-data" | "output-data" | "shortest-execution")
            }
        }
    }
}

impl Default for NetworkConfig {
    fn default() -> NetworkConfig {
        NetworkConfig {
            hidden: 64,
            shortlist: 16,
            context: false,
            advised: true,
            caution: Caution::default(),
            blind_to: None,
        }
    }
}

impl NetworkConfig {
    /// Wipes from rows of features what the network does not see.
    pub fn hide(&self, features: &mut [f32]) {
        let Some(blind) = self.blind_to else { return };
        for (index, _) in inputs().enumerate().filter(|(_, input)| blind.hides(input.name)) {
            features.iter_mut().skip(index).step_by(INPUT_COUNT).for_each(|value| *value = 0.0);
        }
    }
}

/// One named parameter: shape and values, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    pub name: &'static str,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Weight {
    fn of(prices: &Prices) -> Weight {
        let shape = vec![ANCHORS.len(), SITUATIONS.len(), PARTS.len()];
        Weight { name: PRICES, shape, values: prices.flat() }
    }
}

/// Name of the prices in [`Weight`] lists: they go last.
const PRICES: &str = "prices";

/// Names of the layers, each with a `weight` and a `bias`, in the order of [`Weight`] lists.
const PARAMETERS: [[&str; 2]; 6] = [
    ["embed.weight", "embed.bias"],
    ["mix.weight", "mix.bias"],
    ["score.weight", "score.bias"],
    ["pool.weight", "pool.bias"],
    ["value.weight", "value.bias"],
    ["advice.weight", "advice.bias"],
];

/// Inputs and outputs of the layers, in the order of [`PARAMETERS`].
fn layer_shapes(config: &NetworkConfig) -> [[usize; 2]; 6] {
    let h = config.hidden;
    [[INPUT_COUNT, h], [h, h], [h, 1], [2 * h, h], [h, 1], [ADVICE.len(), 1]]
}

/// Scorer and critic.
#[derive(Module, Debug)]
pub struct ActorCritic {
    embed: Linear,
    mix: Linear,
    score: Linear,
    pool: Linear,
    value: Linear,
    /// From the advice straight to the logits.
    advice: Linear,
    /// Where the advice comes from. No gradients: an evolution strategy learns them.
    #[module(skip)]
    pub prices: Prices,
    #[module(skip)]
    pub config: NetworkConfig,
}

/// Weight of the advice in the logits of a network that has learnt nothing: a candidate advised against by
/// a hundredth of u is a quarter as likely, by a tenth a hundredth.
const TRUST: [f32; ADVICE.len()] = [0.0, -4.0];

/// Taken off the logits of candidates that are not there.
const ABSENT: f32 = 1e9;

impl ActorCritic {
    /// Weights drawn from `seed`: variance 2 / inputs before a rectifier (He et al. 2015), and nearly
    /// zero at the heads (Andrychowicz et al. 2021). The first policy does what it is advised, or, not advised,
    /// is nearly uniform.
    pub fn init(config: &NetworkConfig, seed: u64, device: &Device) -> ActorCritic {
        let mut rng = stream(seed, Purpose::Weights, 0);
        let mut weights: Vec<Weight> = PARAMETERS
            .iter()
            .zip(layer_shapes(config))
            .flat_map(|([weight, bias], [inputs, outputs])| {
                let deviation = if outputs == 1 { 0.01 } else { (2.0 / inputs as f64).sqrt() };
                let drawn = normal(inputs * outputs, deviation, &mut rng);
                let values = match (*weight, config.advised) {
                    ("advice.weight", true) => TRUST.to_vec(),
                    ("advice.weight", false) | ("score.weight", true) => vec![0.0; inputs],
                    _ => drawn,
                };
                [
                    Weight { name: weight, shape: vec![inputs, outputs], values },
                    Weight { name: bias, shape: vec![outputs], values: vec![0.0; outputs] },
                ]
            })
            .collect();
        weights.push(Weight::of(&Prices::default()));
        ActorCritic::from_weights(config, &weights, device).expect("drawn weights have the network's shapes")
    }

    /// A network with these weights; an error names the first that is missing or misshapen.
    pub fn from_weights(
        config: &NetworkConfig,
        weights: &[Weight],
        device: &Device,
    ) -> Result<ActorCritic, String> {
        let find = |name: &str, shape: &[usize]| {
            let found = weights.iter().find(|w| w.name == name).ok_or(format!("{name} is missing"))?;
            if found.shape != shape {
                return Err(format!("{name} has shape {:?}, the network wants {shape:?}", found.shape));
            }
            Ok(found.values.clone())
        };
        let prices = find(PRICES, &[ANCHORS.len(), SITUATIONS.len(), PARTS.len()])?;
        let prices = Prices::from_flat(&prices).ok_or(format!("{PRICES} is cut off"))?;
        let mut layers = Vec::new();
        for (index, ([weight, bias], [inputs, outputs])) in
            PARAMETERS.iter().zip(layer_shapes(config)).enumerate()
        {
            let data = |name: &str, shape: &[usize]| {
                Ok::<_, String>(TensorData::new(find(name, shape)?, shape.to_vec()))
            };
            // Fixed identities: the optimiser's state finds its parameter again after a restart.
            let id = |offset: usize| ParamId::from((2 * index + offset + 1) as u64);
            let tensor = Tensor::<2>::from_data(data(weight, &[inputs, outputs])?, device);
            let bias = Tensor::<1>::from_data(data(bias, &[outputs])?, device);
            layers.push(Linear {
                weight: Param::initialized(id(0), tracked(tensor)),
                bias: Some(Param::initialized(id(1), tracked(bias))),
            });
        }
        let [embed, mix, score, pool, value, advice] =
            <[Linear; 6]>::try_from(layers).expect("one layer for each entry of PARAMETERS");
        Ok(ActorCritic { embed, mix, score, pool, value, advice, prices, config: *config })
    }

    /// Names of all parameters, in the order of [`ActorCritic::weights`].
    pub fn parameter_names() -> impl Iterator<Item = &'static str> {
        PARAMETERS.iter().flatten().copied().chain([PRICES])
    }

    /// The weights, in a fixed order.
    pub fn weights(&self) -> Vec<Weight> {
        let layers = [&self.embed, &self.mix, &self.score, &self.pool, &self.value, &self.advice];
        let values = |data: TensorData| data.try_to_vec::<f32>().expect("weights are 32-bit floats");
        let layers = PARAMETERS.iter().zip(layers).flat_map(|([weight, bias], layer)| {
            let w = layer.weight.val();
            let b = layer.bias.as_ref().expect("every layer has a bias").val();
            [
                Weight { name: weight, shape: w.dims().to_vec(), values: values(w.into_data()) },
                Weight { name: bias, shape: b.dims().to_vec(), values: values(b.into_data()) },
            ]
        });
        layers.chain([Weight::of(&self.prices)]).collect()
    }

    /// Preference for each candidate of a batch of decisions, `[batch, candidates]`; hugely negative where
    /// masked.
    ///
    /// # Shapes
    /// - `features`: `[batch, candidates, INPUT_COUNT]`
    /// - `mask`: `[batch, candidates]`, 1 where there is a candidate, 0 where there is padding
    pub fn logits(&self, features: Tensor<3>, mask: Tensor<2>) -> Tensor<2> {
        let [batch, candidates, width] = features.dims();
        let rows = batch * candidates;
        let features = features.reshape([rows, width]); // [rows, INPUT_COUNT]
        let advice = features.clone().narrow(1, width - ADVICE.len(), ADVICE.len()); // [rows, 2]
        let mut x = self.look(features); // [rows, hidden]
        if self.config.context {
            let each = x.reshape([batch, candidates, self.config.hidden]); // [batch, candidates, hidden]
            let pooled = self.together(each.clone(), mask.clone()); // [batch, hidden]
            x = (each + pooled.unsqueeze_dim(1)).reshape([rows, self.config.hidden]); // [rows, hidden]
        }
        let logits = self.score.forward(x) + self.advice.forward(advice); // [rows, 1]
        logits.reshape([batch, candidates]) + (mask - 1.0) * ABSENT
    }

    /// Expected return of each decision of a batch, `[batch]`; shapes as for [`ActorCritic::logits`].
    pub fn value(&self, features: Tensor<3>, mask: Tensor<2>) -> Tensor<1> {
        let [batch, candidates, width] = features.dims();
        let x = self.look(features.reshape([batch * candidates, width])); // [rows, hidden]
        let x = x.reshape([batch, candidates, self.config.hidden]); // [batch, candidates, hidden]
        let pooled = self.together(x, mask); // [batch, hidden]
        self.value.forward(pooled).reshape([batch]) // [batch]
    }

    /// What its prices alone would choose: quick, and not much worse.
    pub fn priced(&self) -> Priced {
        Priced { prices: self.prices.clone(), shortlist: self.config.shortlist }
    }

    /// Each candidate by itself, one a row whatever decision it is of: one product of large matrices in place of
    /// one of small matrices for each decision, which takes twice as long.
    fn look(&self, features: Tensor<2>) -> Tensor<2> {
        let x = relu(self.embed.forward(features)); // [rows, hidden]
        relu(self.mix.forward(x)) // [rows, hidden]
    }

    /// All candidates of a decision together: their mean and their maximum.
    fn together(&self, x: Tensor<3>, mask: Tensor<2>) -> Tensor<2> {
        let [batch, candidates, _] = x.dims();
        // Rectified activations are not negative, so a masked zero never wins the maximum.
        let present = mask.clone().reshape([batch, candidates, 1]); // [batch, candidates, 1]
        let x = x * present;
        let count = mask.sum_dim(1).clamp_min(1.0); // [batch, 1]
        let mean = x.clone().sum_dim(1).squeeze_dim::<2>(1) / count; // [batch, hidden]
        let most = x.max_dim(1).squeeze_dim::<2>(1); // [batch, hidden]
        relu(self.pool.forward(Tensor::cat(vec![mean, most], 1))) // [batch, hidden]
    }
}

/// Marks a parameter for gradients where the device keeps them.
fn tracked<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.device().is_autodiff() { tensor.require_grad() } else { tensor }
}

fn normal(count: usize, deviation: f64, rng: &mut impl Rng) -> Vec<f32> {
    (0..count)
        .map(|_| {
            let z: f64 = StandardNormal.sample(rng);
            (z * deviation) as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Blind, inputs};

    #[test]
    fn every_input_but_the_cost_belongs_to_one_group() {
        for input in inputs() {
            let groups = Blind::ALL.into_iter().filter(|group| group.hides(input.name)).count();
            let cost = ["cost", "time-cost", "data-cost"].contains(&input.name);
            assert_eq!(groups, usize::from(!cost), "{}", input.name);
        }
    }
}
