//! A model as one safetensors file, which any tool for tensors opens, with a checksum over all of it.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::{About, Autoencoder, Model, Named};

/// Version of the file that this revision reads and writes.
pub const FORMAT: u32 = 1;
/// The entry of the file's metadata that is ours.
const KEY: &str = "sensor-anomaly";

#[derive(Serialize, Deserialize)]
struct Header {
    about: About,
    /// SHA-256 of `about` and all tensors.
    sha256: String,
}

impl Model {
    pub fn load(path: &Path) -> Result<Model> {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read the model {}", path.display()))?;
        Model::from_bytes(&bytes).with_context(|| format!("the model {} is refused", path.display()))
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let tensors = self.tensors();
        let header = Header { about: self.about.clone(), sha256: digest(&self.about, &tensors) };
        let header = serde_json::to_string(&header).expect("plain data becomes JSON");
        let data: Vec<Vec<u8>> = tensors.iter().map(|tensor| bytes_of(&tensor.values)).collect();
        let views = tensors.iter().zip(&data).map(|(tensor, data)| {
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), data);
            (&tensor.name, view.expect("a tensor has as many values as its shape says"))
        });
        let metadata = HashMap::from([(KEY.to_owned(), header)]);
        serialize(views, Some(metadata)).expect("named tensors fit the container")
    }

    fn from_bytes(bytes: &[u8]) -> Result<Model> {
        let foreign = "it is no model of sensor-anomaly, or it is cut off";
        let (_, metadata) = SafeTensors::read_metadata(bytes).context(foreign)?;
        let file = SafeTensors::deserialize(bytes).context(foreign)?;
        let header = metadata.metadata().as_ref().and_then(|entries| entries.get(KEY));
        let header = header.with_context(|| format!("it has no {KEY} entry")).context(foreign)?;
        let Header { about, sha256 } = serde_json::from_str(header).context(foreign)?;
        ensure!(about.format == FORMAT, "its format is {}; this version reads {FORMAT}", about.format);
        about.parameters.check()?;

        let channels = about.channels.len();
        let window = about.parameters.window * channels;
        let tensor = |name: &str, shape: &[usize]| {
            let tensor = file.tensor(name).with_context(|| format!("tensor {name} is missing"))?;
            let (found, kind) = (tensor.shape(), tensor.dtype());
            ensure!(kind == Dtype::F32 && found == shape, "{name} is {kind:?} {found:?}; want F32 {shape:?}");
            Ok(floats_of(tensor.data()))
        };
        let kept = file.tensor("replay").context("tensor replay is missing")?.shape().first().copied();
        let replay = tensor("replay", &[kept.unwrap_or(0), window])?;
        let model = Model {
            network: Autoencoder::from_tensors(&about.parameters, channels, tensor)?,
            mean: tensor("mean", &[channels])?,
            deviation: tensor("deviation", &[channels])?,
            replay: replay.chunks(window.max(1)).map(<[f32]>::to_vec).collect(),
            about,
        };
        let found = digest(&model.about, &model.tensors());
        ensure!(found == sha256, "it is damaged: its checksum is {found}, its header says {sha256}");
        Ok(model)
    }

    /// All that the file holds besides `about`, in a fixed order.
    fn tensors(&self) -> Vec<Named> {
        let channels = self.mean.len();
        let named = |name: &str, shape: &[usize], values: Vec<f32>| Named {
            name: name.to_owned(),
            shape: shape.to_vec(),
            values,
        };
        let mut tensors = self.network.tensors();
        tensors.push(named("mean", &[channels], self.mean.clone()));
        tensors.push(named("deviation", &[channels], self.deviation.clone()));
        let shape = [self.replay.len(), self.about.parameters.window * channels];
        tensors.push(named("replay", &shape, self.replay.concat()));
        tensors
    }
}

fn digest(about: &About, tensors: &[Named]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(serde_json::to_vec(about).expect("plain data becomes JSON"));
    for tensor in tensors {
        hasher.update(format!("{} {:?}", tensor.name, tensor.shape));
        hasher.update(bytes_of(&tensor.values));
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats_of(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use crate::model::{Model, Parameters};

    fn model() -> Model {
        let windows: [&[f32]; 2] = [&[1.0, 2.0, 3.0, 4.0], &[2.0, 3.0, 4.0, 6.0]];
        let parameters =
            Parameters { window: 4, hidden: 2, code: 1, steps: 2, replay: 2, ..Parameters::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut model = Model::fresh(&parameters, &["level".to_owned()], &windows, &mut rng);
        model.learn(&windows, &mut rng).expect("two steps do not diverge");
        model
    }

    #[test]
    fn a_round_trip_keeps_every_byte() {
        let bytes = model().to_bytes();
        assert_eq!(Model::from_bytes(&bytes).unwrap().to_bytes(), bytes);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let whole = model().to_bytes();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            if let Ok(read) = Model::from_bytes(&damaged) {
                assert_eq!(read.to_bytes(), whole, "byte {at} changed the content unnoticed");
            }
        }
    }

    #[test]
    fn a_file_cut_off_anywhere_is_refused() {
        let whole = model().to_bytes();
        for length in 0..whole.len() {
            assert!(Model::from_bytes(&whole[..length]).is_err(), "{length} bytes of {}", whole.len());
        }
    }
}
