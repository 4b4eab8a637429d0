//! The network as a policy: it looks at a shortlist and scores it.

use burn::tensor::{Device, Tensor, TensorData};
use remora_env::Observation;
use remora_env::observation::FEATURE_COUNT;

use crate::Policy;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::network::{ActorCritic, NetworkConfig};

/// Observations as the rows that a network takes: shortlist, features and mask of each.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Indices of the candidates looked at, one list per decision.
    pub shortlists: Vec<Vec<usize>>,
    /// `[decisions, shortlist, FEATURE_COUNT]`, row by row, zero where padded.
    pub features: Vec<f32>,
    /// `[decisions, shortlist]`, 1 where there is a candidate.
    pub mask: Vec<f32>,
}

impl Inputs {
    /// Adds one decision as a network of this configuration sees it, padded to its shortlist.
    pub fn push(&mut self, observation: &Observation<'_>, config: &NetworkConfig) {
        let size = config.shortlist;
        let shortlist = observation.shortlist(size);
        let start = self.features.len();
        self.features.resize(start + size * FEATURE_COUNT, 0.0);
        observation.features(&shortlist, &mut self.features[start..]);
        config.hide(&mut self.features[start..]);
        self.mask.extend((0..size).map(|index| f32::from(u8::from(index < shortlist.len()))));
        self.shortlists.push(shortlist);
    }

    /// Adds the decisions of others after those of this one.
    pub fn append(&mut self, mut other: Inputs) {
        self.shortlists.append(&mut other.shortlists);
        self.features.append(&mut other.features);
        self.mask.append(&mut other.mask);
    }

    /// Some of the decisions.
    pub fn rows(&self, rows: &[usize]) -> Inputs {
        let size = self.mask.len() / self.shortlists.len().max(1);
        Inputs {
            shortlists: rows.iter().map(|&row| self.shortlists[row].clone()).collect(),
            features: pick(&self.features, rows, size * FEATURE_COUNT),
            mask: pick(&self.mask, rows, size),
        }
    }

    /// What a network on the processor says of them, `[decisions, size]` row by row.
    pub fn logits(&self, network: &ActorCritic, size: usize) -> Vec<f32> {
        let (features, mask) = self.tensors(size, &Device::flex());
        network.logits(features, mask).into_data().try_to_vec().expect("logits are 32-bit floats")
    }

    /// Values of one feature of all candidates.
    pub fn feature(&self, index: usize) -> impl Iterator<Item = f32> + Clone {
        let values = self.features.iter().skip(index).step_by(FEATURE_COUNT);
        values.zip(&self.mask).filter(|(_, present)| **present > 0.0).map(|(value, _)| *value)
    }

    /// Takes away the first decisions.
    pub fn forget(&mut self, count: usize) {
        let size = self.mask.len() / self.shortlists.len().max(1);
        self.shortlists.drain(..count);
        self.features.drain(..count * size * FEATURE_COUNT);
        self.mask.drain(..count * size);
    }

    /// Features `[rows, size, FEATURE_COUNT]` and mask `[rows, size]` of some of the decisions.
    pub fn batch(&self, rows: &[usize], size: usize, device: &Device) -> (Tensor<3>, Tensor<2>) {
        let features = pick(&self.features, rows, size * FEATURE_COUNT);
        let features = TensorData::new(features, [rows.len(), size, FEATURE_COUNT]);
        let mask = TensorData::new(pick(&self.mask, rows, size), [rows.len(), size]);
        (Tensor::from_data(features, device), Tensor::from_data(mask, device))
    }

    /// Features `[decisions, size, FEATURE_COUNT]` and mask `[decisions, size]`.
    pub fn tensors(&self, size: usize, device: &Device) -> (Tensor<3>, Tensor<2>) {
        let decisions = self.shortlists.len();
        let features = TensorData::new(self.features.clone(), [decisions, size, FEATURE_COUNT]);
        let mask = TensorData::new(self.mask.clone(), [decisions, size]);
        (Tensor::from_data(features, device), Tensor::from_data(mask, device))
    }
}

/// Rows of a flat matrix with `width` columns.
pub fn pick(values: &[f32], rows: &[usize], width: usize) -> Vec<f32> {
    let mut picked = Vec::with_capacity(rows.len() * width);
    for &row in rows {
        picked.extend_from_slice(&values[row * width..(row + 1) * width]);
    }
    picked
}

/// A trained network that places.
#[derive(Debug)]
pub struct Learned {
    name: String,
    network: ActorCritic,
    config: NetworkConfig,
}

impl Learned {
    pub fn new(name: &str, checkpoint: &Checkpoint) -> Result<Learned, CheckpointError> {
        let network = checkpoint.network(&Device::flex())?;
        Ok(Learned { name: name.to_owned(), network, config: checkpoint.about.network })
    }

    /// A network in training, as it stands.
    pub fn from_network(name: &str, network: ActorCritic, config: NetworkConfig) -> Learned {
        Learned { name: name.to_owned(), network, config }
    }
}

impl Policy for Learned {
    fn name(&self) -> &str {
        &self.name
    }

    /// Logits of the shortlist; the rest is not considered.
    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        scores.resize(observation.count(), f64::NEG_INFINITY);
        let mut inputs = Inputs::default();
        inputs.push(observation, &self.config);
        let logits = inputs.logits(&self.network, self.config.shortlist);
        for (&index, &logit) in inputs.shortlists[0].iter().zip(&logits) {
            scores[index] = f64::from(logit);
        }
    }
}
