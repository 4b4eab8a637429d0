//! A trained network as one file: weights, shape, the meaning of its inputs, where it came from.
//!
//! The container is safetensors; its only metadata entry, `remora`, holds the rest as JSON together
//! with a checksum over all of it. Loading refuses what does not fit and names both sides; a single
//! flipped bit is detected.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use remora_env::file::write_whole;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::learned::input_schema;
use crate::network::{ActorCritic, NetworkConfig, Weight};

/// What a checkpoint says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    pub format: u32,
    pub network: NetworkConfig,
    /// SHA-256 of the feature table that it was trained on.
    pub feature_schema: String,
    /// Version of Remora that trained it.
    pub revision: String,
    pub seed: u64,
    /// Updates made.
    pub iterations: u64,
    /// Configuration of the training run.
    pub training: serde_json::Value,
    /// Figures of its evaluation at the end of training.
    pub evaluation: serde_json::Value,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    about: About,
    /// SHA-256 of `about` and all weights.
    sha256: String,
}

/// A network's weights with what is known about them.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    pub about: About,
    pub weights: Vec<Weight>,
}

/// Why a checkpoint was refused.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("cannot read checkpoint {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write checkpoint {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("not a checkpoint of Remora: {0}")]
    Foreign(String),
    #[error("the checkpoint is damaged: its checksum is {found}, its header says {stated}")]
    Damaged { found: String, stated: String },
    #[error(
        "the checkpoint was trained on features {found}, this version computes {ours}: train it again with this version"
    )]
    Schema { found: String, ours: String },
    #[error("the checkpoint's weights do not fit its network: {0}")]
    Shape(String),
}

/// Version of the format that this revision reads and writes.
const FORMAT: u32 = 1;
const KEY: &str = "remora";

/// SHA-256 of the table of inputs of this revision.
pub fn schema_hash() -> String {
    hex(&Sha256::digest(input_schema()))
}

/// Names this build in checkpoints.
pub fn revision() -> String {
    option_env!("REMORA_REVISION").unwrap_or(concat!("v", env!("CARGO_PKG_VERSION"))).to_owned()
}

impl Checkpoint {
    /// Seals a network.
    pub fn new(
        network: &ActorCritic,
        seed: u64,
        iterations: u64,
        training: serde_json::Value,
        evaluation: serde_json::Value,
    ) -> Checkpoint {
        let about = About {
            format: FORMAT,
            network: network.config,
            feature_schema: schema_hash(),
            revision: revision(),
            seed,
            iterations,
            training,
            evaluation,
        };
        Checkpoint { about, weights: network.weights() }
    }

    /// The checkpoint that ships with Remora.
    pub fn pretrained() -> Result<Checkpoint, CheckpointError> {
        Checkpoint::from_bytes(include_bytes!("../pretrained/policy.safetensors"))
    }

    /// The checkpoint called so: `pretrained`, or the path of a file.
    pub fn named(name: &str) -> Result<Checkpoint, CheckpointError> {
        if name == "pretrained" { Checkpoint::pretrained() } else { Checkpoint::load(Path::new(name)) }
    }

    pub fn load(path: &Path) -> Result<Checkpoint, CheckpointError> {
        let bytes =
            std::fs::read(path).map_err(|source| CheckpointError::Read { path: path.to_owned(), source })?;
        Checkpoint::from_bytes(&bytes)
    }

    /// Writes the file whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        let bytes = self.to_bytes();
        write_whole(path, |file| file.write_all(&bytes))
            .map_err(|source| CheckpointError::Write { path: path.to_owned(), source })
    }

    /// Content hash of the file: the checkpoint's identity.
    pub fn id(&self) -> String {
        hex(&Sha256::digest(self.to_bytes()))[..16].to_owned()
    }

    /// The network, ready on a device.
    pub fn network(&self, device: &Device) -> Result<ActorCritic, CheckpointError> {
        ActorCritic::from_weights(&self.about.network, &self.weights, device).map_err(CheckpointError::Shape)
    }

    fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(serde_json::to_vec(&self.about).expect("plain data becomes JSON"));
        for weight in &self.weights {
            hasher.update(weight.name);
            for &side in &weight.shape {
                hasher.update((side as u64).to_le_bytes());
            }
            hasher.update(to_little_endian(&weight.values));
        }
        hex(&hasher.finalize())
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let sealed = Sealed { about: self.about.clone(), sha256: self.digest() };
        let header = serde_json::to_string(&sealed).expect("plain data becomes JSON");
        #[expect(
            clippy::disallowed_types,
            reason = "the container's own type; with one entry it has one order"
        )]
        let metadata = std::collections::HashMap::from([(KEY.to_owned(), header)]);
        let data: Vec<_> = self.weights.iter().map(|weight| to_little_endian(&weight.values)).collect();
        let views = self.weights.iter().zip(&data).map(|(weight, data)| {
            let view = TensorView::new(Dtype::F32, weight.shape.clone(), data);
            (weight.name, view.expect("a weight has as many values as its shape says"))
        });
        serialize(views, Some(metadata)).expect("named tensors fit the container")
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
        let foreign = |error: &dyn std::fmt::Display| CheckpointError::Foreign(error.to_string());
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| foreign(&error))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| foreign(&error))?;
        let header = metadata.metadata().as_ref().and_then(|entries| entries.get(KEY));
        let header = header.ok_or_else(|| foreign(&"it has no `remora` entry"))?;
        let Sealed { about, sha256 } = serde_json::from_str(header).map_err(|error| foreign(&error))?;
        if about.format != FORMAT {
            return Err(foreign(&format!("format {} is not supported, only {FORMAT}", about.format)));
        }
        let mut weights = Vec::new();
        for name in ActorCritic::parameter_names() {
            let tensor = tensors.tensor(name).map_err(|error| foreign(&error))?;
            if tensor.dtype() != Dtype::F32 {
                return Err(foreign(&format!("{name} is {:?}, want F32", tensor.dtype())));
            }
            let values = from_little_endian(tensor.data());
            weights.push(Weight { name, shape: tensor.shape().to_vec(), values });
        }
        let checkpoint = Checkpoint { about, weights };
        let found = checkpoint.digest();
        if found != sha256 {
            return Err(CheckpointError::Damaged { found, stated: sha256 });
        }
        if checkpoint.about.feature_schema != schema_hash() {
            let ours = schema_hash()[..12].to_owned();
            let found = checkpoint.about.feature_schema.chars().take(12).collect();
            return Err(CheckpointError::Schema { found, ours });
        }
        Ok(checkpoint)
    }
}

/// Numbers as a safetensors file holds them.
pub fn to_little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The numbers again.
pub fn from_little_endian(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{Checkpoint, CheckpointError};
    use crate::network::{ActorCritic, NetworkConfig};
    use burn::tensor::Device;

    fn checkpoint() -> Checkpoint {
        let config = NetworkConfig { hidden: 8, ..NetworkConfig::default() };
        let network = ActorCritic::init(&config, 3, &Device::flex());
        Checkpoint::new(&network, 3, 0, serde_json::Value::Null, serde_json::Value::Null)
    }

    #[test]
    fn a_round_trip_keeps_every_bit() {
        let bytes = checkpoint().to_bytes();
        let again = Checkpoint::from_bytes(&bytes).unwrap();
        assert_eq!(again, checkpoint());
        assert_eq!(again.to_bytes(), bytes);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = checkpoint().to_bytes();
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            if let Ok(read) = Checkpoint::from_bytes(&damaged) {
                assert_eq!(read, checkpoint(), "byte {at} changed the content unnoticed");
            }
        }
    }

    #[test]
    fn other_features_are_refused_with_both_sides() {
        let mut foreign = checkpoint();
        foreign.about.feature_schema = "0123456789abcdef".to_owned();
        let error = Checkpoint::from_bytes(&foreign.to_bytes()).unwrap_err();
        assert!(
            matches!(error, CheckpointError::Schema { ref found, .. } if found == "0123456789ab"),
            "{error}"
        );
    }

    #[test]
    fn a_network_of_another_size_is_refused_by_name() {
        let mut other = checkpoint();
        other.about.network.hidden = 9;
        let error = other.network(&Device::flex()).unwrap_err().to_string();
        assert!(error.contains("embed.weight has shape [47, 8], the network wants [47, 9]"), "{error}");
    }
}
