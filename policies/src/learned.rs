//! The network as a policy: it looks at a shortlist and scores it.

use burn::tensor::{Device, Tensor, TensorData};
use remora_env::Observation;
use remora_env::observation::{FEATURE_COUNT, FEATURES, Feature, feature_schema, fine_log};

use crate::Policy;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::forward::Forward;
use crate::network::ActorCritic;
use crate::prices::{PARTS, SITUATIONS};

/// What the network's prices say of a candidate, beside the facts of [`FEATURES`]: its cost above the least, in
/// u, the median cost of the candidates looked at.
pub const ADVICE: [Feature; 2] = [
    Feature { name: "priced-regret", unit: "u", range: "0..20" },
    Feature { name: "log-priced-regret", unit: "fine of u", range: "0.." },
];

/// Numbers per candidate that the network reads: [`FEATURES`], then [`ADVICE`].
pub const INPUT_COUNT: usize = FEATURE_COUNT + ADVICE.len();

/// Every input of the network, in order.
pub fn inputs() -> impl Iterator<Item = &'static Feature> {
    FEATURES.iter().chain(&ADVICE)
}

/// Text that changes whenever the meaning of an input does; a checkpoint carries its hash.
pub fn input_schema() -> String {
    let advice: String = ADVICE.iter().map(|f| format!("{}|{}|{}\n", f.name, f.unit, f.range)).collect();
    format!("{}{advice}{PARTS:?}\n{SITUATIONS:?}\n", feature_schema())
}

/// Observations as the rows that a network takes: shortlist, features and mask of each.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Indices of the candidates looked at, one list per decision.
    pub shortlists: Vec<Vec<usize>>,
    /// `[decisions, shortlist, INPUT_COUNT]`, row by row, zero where padded.
    pub features: Vec<f32>,
    /// `[decisions, shortlist]`, 1 where there is a candidate.
    pub mask: Vec<f32>,
}

impl Inputs {
    /// Adds one decision as a network sees it, padded to its shortlist. Returns the position in the shortlist of what
    /// the network's prices advise, if it is advised.
    pub fn push(&mut self, observation: &Observation<'_>, network: &ActorCritic) -> Option<usize> {
        let size = network.config.shortlist;
        let shortlist = observation.shortlist(size);
        let start = self.features.len();
        self.features.resize(start + size * INPUT_COUNT, 0.0);
        let rows = &mut self.features[start..];
        let looks = observation.look(&shortlist);
        let unit = observation.features(&looks, rows.chunks_exact_mut(INPUT_COUNT));
        let advised = network.config.advised.then(|| {
            let costs = network.prices.costs(observation, &looks);
            advise(&costs, unit, rows)
        });
        network.config.hide(rows);
        self.mask.extend((0..size).map(|index| f32::from(u8::from(index < shortlist.len()))));
        self.shortlists.push(shortlist);
        advised
    }

    /// None yet, with room for so many, so that none of them is moved as they become more.
    pub fn with_room(decisions: usize, size: usize) -> Inputs {
        Inputs {
            shortlists: Vec::with_capacity(decisions),
            features: Vec::with_capacity(decisions * size * INPUT_COUNT),
            mask: Vec::with_capacity(decisions * size),
        }
    }

    /// Adds the decisions of others after those of this one.
    pub fn append(&mut self, mut other: Inputs) {
        self.shortlists.append(&mut other.shortlists);
        self.features.append(&mut other.features);
        self.mask.append(&mut other.mask);
    }

    /// Candidates of each decision, with the padding.
    pub fn size(&self) -> usize {
        self.mask.len() / self.shortlists.len().max(1)
    }

    /// Some of the decisions.
    pub fn rows(&self, rows: &[usize]) -> Inputs {
        let mut picked = Inputs::with_room(rows.len(), self.size());
        rows.iter().for_each(|&row| picked.push_row(self, row));
        picked
    }

    /// Adds one decision of others.
    pub fn push_row(&mut self, others: &Inputs, row: usize) {
        let size = others.size();
        let width = size * INPUT_COUNT;
        self.shortlists.push(others.shortlists[row].clone());
        self.features.extend_from_slice(&others.features[row * width..(row + 1) * width]);
        self.mask.extend_from_slice(&others.mask[row * size..(row + 1) * size]);
    }

    /// Values of one feature of all candidates.
    pub fn feature(&self, index: usize) -> impl Iterator<Item = f32> + Clone {
        let values = self.features.iter().skip(index).step_by(INPUT_COUNT);
        values.zip(&self.mask).filter(|(_, present)| **present > 0.0).map(|(value, _)| *value)
    }

    /// Takes away all decisions.
    fn clear(&mut self) {
        self.shortlists.clear();
        self.features.clear();
        self.mask.clear();
    }

    /// Takes away the first decisions.
    pub fn forget(&mut self, count: usize) {
        let size = self.size();
        self.shortlists.drain(..count);
        self.features.drain(..count * size * INPUT_COUNT);
        self.mask.drain(..count * size);
    }

    /// Features `[decisions, size, INPUT_COUNT]` and mask `[decisions, size]`.
    pub fn into_tensors(self, size: usize, device: &Device) -> (Tensor<3>, Tensor<2>) {
        let decisions = self.shortlists.len();
        let features = TensorData::new(self.features, [decisions, size, INPUT_COUNT]);
        let mask = TensorData::new(self.mask, [decisions, size]);
        (Tensor::from_data(features, device), Tensor::from_data(mask, device))
    }
}

/// Writes [`ADVICE`] on candidates of these costs into the last places of their rows; returns the first of the cheapest.
fn advise(costs: &[f64], unit: f64, rows: &mut [f32]) -> usize {
    let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
    for (cost, row) in costs.iter().zip(rows.chunks_exact_mut(INPUT_COUNT)) {
        let regret = (cost - least) / unit;
        row[FEATURE_COUNT..].copy_from_slice(&[regret.min(20.0) as f32, fine_log(regret)]);
    }
    costs.iter().position(|cost| *cost == least).unwrap_or(0)
}

/// Rows of a flat matrix with `width` columns.
pub fn pick(values: &[f32], rows: &[usize], width: usize) -> Vec<f32> {
    let mut picked = Vec::with_capacity(rows.len() * width);
    for &row in rows {
        picked.extend_from_slice(&values[row * width..(row + 1) * width]);
    }
    picked
}

/// A network on the processor, ready to be asked one decision after another.
#[derive(Clone, Debug)]
pub struct Scorer {
    network: ActorCritic,
    /// The network without tensors, where it can do without.
    forward: Option<Forward>,
}

impl Scorer {
    pub fn new(network: ActorCritic) -> Scorer {
        Scorer { forward: Forward::of(&network), network }
    }

    pub fn network(&self) -> &ActorCritic {
        &self.network
    }

    /// Tells the network's preference for each candidate of the last decision of `inputs`, by its position in the
    /// shortlist.
    pub fn logits(&mut self, inputs: &Inputs, mut tell: impl FnMut(usize, f32)) {
        let last = inputs.shortlists.len() - 1;
        let (size, count) = (self.network.config.shortlist, inputs.shortlists[last].len());
        match &mut self.forward {
            Some(forward) => {
                let rows = inputs.features[last * size * INPUT_COUNT..].chunks_exact(INPUT_COUNT);
                forward.logits((0..count).zip(rows), tell);
            }
            None => {
                let (features, mask) = inputs.rows(&[last]).into_tensors(size, &Device::flex());
                let logits = self.network.logits(features, mask).into_data().try_to_vec::<f32>();
                let logits = logits.expect("logits are 32-bit floats").into_iter().take(count);
                logits.enumerate().for_each(|(position, logit)| tell(position, logit));
            }
        }
    }
}

/// A trained network that places.
#[derive(Clone, Debug)]
pub struct Learned {
    name: String,
    scorer: Scorer,
    /// What it was asked last: only the room is used again.
    inputs: Inputs,
}

impl Learned {
    pub fn new(name: &str, checkpoint: &Checkpoint) -> Result<Learned, CheckpointError> {
        let network = checkpoint.network(&Device::flex())?;
        Ok(Learned::from_network(name, network))
    }

    /// A network in training, as it stands.
    pub fn from_network(name: &str, network: ActorCritic) -> Learned {
        Learned { name: name.to_owned(), scorer: Scorer::new(network), inputs: Inputs::default() }
    }
}

impl Policy for Learned {
    fn name(&self) -> &str {
        &self.name
    }

    /// Logits of the shortlist, with the network's [`Caution`](crate::network::Caution) on what the
    /// prices advise; the rest is not considered.
    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        scores.resize(observation.count(), f64::NEG_INFINITY);
        let Learned { scorer, inputs, .. } = self;
        inputs.clear();
        let advised = inputs.push(observation, scorer.network());
        scorer.logits(inputs, |position, logit| {
            scores[inputs.shortlists[0][position]] = f64::from(logit);
        });
        if let Some(advised) = advised {
            scores[inputs.shortlists[0][advised]] += scorer.network().config.caution.at(observation.alpha);
        }
    }
}
