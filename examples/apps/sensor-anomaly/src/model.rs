//! What is learnt: an autoencoder that reproduces windows of normal readings and little else.

use anyhow::{Context, Result, ensure};
use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};
use rand::Rng;
use rand_distr::{Distribution, Normal};
use serde::{Deserialize, Serialize};

/// The manifest's parameters; what is left out has these defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Rows of a window.
    pub window: usize,
    /// Width of the layers before and behind the code.
    pub hidden: usize,
    /// Width of the code: into so few numbers a window is pressed.
    pub code: usize,
    /// Gradient steps of a run that learns.
    pub steps: usize,
    /// Of the first of them; falls to nearly zero.
    pub learning_rate: f64,
    /// Windows learnt from whose score stays below the threshold, as a share.
    pub quantile: f64,
    /// Old windows that the model keeps, to learn them again beside new ones.
    pub replay: usize,
}

impl Default for Parameters {
    fn default() -> Parameters {
        Parameters {
            window: 16,
            hidden: 16,
            code: 8,
            steps: 2000,
            learning_rate: 0.005,
            quantile: 0.995,
            replay: 48,
        }
    }
}

impl Parameters {
    /// The first parameter out of its range, with that range.
    pub fn check(&self) -> Result<()> {
        let wholes = [
            ("window", self.window, 4..=1024),
            ("hidden", self.hidden, 1..=256),
            ("code", self.code, 1..=64),
            ("steps", self.steps, 1..=100_000),
            ("replay", self.replay, 0..=1024),
        ];
        for (name, value, range) in wholes {
            let (from, to) = (range.start(), range.end());
            ensure!(range.contains(&value), "parameter {name} is {value}; want {from} to {to}");
        }
        let (rate, quantile) = (self.learning_rate, self.quantile);
        ensure!((1e-6..=0.1).contains(&rate), "parameter learning_rate is {rate}; want 1e-6 to 0.1");
        ensure!((0.5..=1.0).contains(&quantile), "parameter quantile is {quantile}; want 0.5 to 1");
        Ok(())
    }
}

/// What a model says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    pub format: u32,
    pub channels: Vec<String>,
    pub parameters: Parameters,
    /// Windows with a higher score are anomalies.
    pub threshold: f32,
    /// Windows offered to the replay so far.
    pub seen: u64,
}

/// A tensor of the model's file, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// Everything that is kept from one run to the next.
#[derive(Clone, Debug)]
pub struct Model {
    pub about: About,
    pub network: Autoencoder,
    /// Of each channel, in the windows that the first run learnt from. Later runs keep them, for weights mean nothing without.
    pub mean: Vec<f32>,
    pub deviation: Vec<f32>,
    /// Some of all windows seen, drawn evenly, normalised.
    pub replay: Vec<Vec<f32>>,
}

/// Window in, window out, through a narrow code.
#[derive(Module, Debug)]
pub struct Autoencoder {
    layers: Vec<Linear>,
}

/// Normalised readings are cut off here: a sensor so far out is broken, and numbers stay finite.
const FARTHEST: f32 = 1e4;

impl Model {
    /// A model that has learnt nothing yet but how the channels of these windows are spread.
    pub fn fresh(
        parameters: &Parameters,
        channels: &[String],
        windows: &[&[f32]],
        rng: &mut impl Rng,
    ) -> Model {
        let count = channels.len();
        let (mean, deviation) = (0..count).map(|channel| spread(channel, count, windows)).unzip();
        let network = Autoencoder::fresh(parameters, count, rng);
        let (channels, parameters) = (channels.to_vec(), parameters.clone());
        let about = About { format: crate::file::FORMAT, channels, parameters, threshold: 0.0, seen: 0 };
        Model { about, network, mean, deviation, replay: Vec::new() }
    }

    /// Takes up the parameters of a further run, which may not change the network's shape.
    pub fn continue_with(&mut self, parameters: &Parameters) -> Result<()> {
        let shape = |of: &Parameters| format!("window {}, hidden {}, code {}", of.window, of.hidden, of.code);
        let (ours, theirs) = (shape(&self.about.parameters), shape(parameters));
        ensure!(
            ours == theirs,
            "the parameters say {theirs}, the model to continue from has {ours}; want them equal"
        );
        self.replay.truncate(parameters.replay);
        self.about.parameters = parameters.clone();
        Ok(())
    }

    /// A window in units of each channel's deviation.
    pub fn normalised(&self, window: &[f32]) -> Vec<f32> {
        let channels = self.mean.iter().zip(&self.deviation).cycle();
        let value = |(value, (mean, deviation)): (&f32, (&f32, &f32))| (value - mean) / deviation;
        window.iter().zip(channels).map(value).map(|value| value.clamp(-FARTHEST, FARTHEST)).collect()
    }

    /// Of each window and channel the mean squared error of its reproduction, in squared deviations; the windows are
    /// normalised.
    pub fn errors(&self, windows: &[Vec<f32>]) -> Vec<Vec<f32>> {
        if windows.is_empty() {
            return Vec::new();
        }
        let (count, channels) = (windows.len(), self.mean.len());
        let input = batch(windows.iter(), &Device::flex()); // [count, window * channels]
        let error = (self.network.forward(input.clone()) - input).square();
        let error = error.reshape([count, self.about.parameters.window, channels]).mean_dim(1); // [count, 1, channels]
        let error = error.into_data().try_to_vec::<f32>().expect("errors are 32-bit floats");
        error.chunks(channels).map(<[f32]>::to_vec).collect()
    }
}

/// Windows as one tensor, `[count, window * channels]`.
pub fn batch<'a>(windows: impl ExactSizeIterator<Item = &'a Vec<f32>>, device: &Device) -> Tensor<2> {
    let count = windows.len();
    let values: Vec<f32> = windows.flatten().copied().collect();
    let width = values.len() / count.max(1);
    Tensor::from_data(TensorData::new(values, [count, width]), device)
}

/// Mean and standard deviation of a channel; a channel that does not move keeps its unit.
fn spread(channel: usize, channels: usize, windows: &[&[f32]]) -> (f32, f32) {
    let values = || {
        windows.iter().flat_map(|window| window.iter().skip(channel).step_by(channels)).map(|&v| f64::from(v))
    };
    let count = values().count().max(1) as f64;
    let mean = values().sum::<f64>() / count;
    let deviation = (values().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
    let moves = deviation > 1e-6 * mean.abs().max(1e-6);
    (mean as f32, if moves { deviation as f32 } else { 1.0 })
}

impl Autoencoder {
    /// Inputs and outputs of each layer.
    fn shapes(parameters: &Parameters, channels: usize) -> [[usize; 2]; 4] {
        let (inputs, hidden, code) = (parameters.window * channels, parameters.hidden, parameters.code);
        [[inputs, hidden], [hidden, code], [code, hidden], [hidden, inputs]]
    }

    /// Weights of variance 2 / (inputs + outputs) (Glorot and Bengio 2010), biases of zero.
    fn fresh(parameters: &Parameters, channels: usize, rng: &mut impl Rng) -> Autoencoder {
        let layer = |[inputs, outputs]: [usize; 2]| {
            let deviation = (2.0 / (inputs + outputs) as f32).sqrt();
            let normal = Normal::new(0.0, deviation).expect("the deviation is a finite number");
            let weight: Vec<f32> = (0..inputs * outputs).map(|_| normal.sample(rng)).collect();
            linear([inputs, outputs], weight, vec![0.0; outputs])
        };
        Autoencoder { layers: Autoencoder::shapes(parameters, channels).map(layer).into() }
    }

    /// The reproduction of windows, `[count, window * channels]` as they are.
    pub fn forward(&self, windows: Tensor<2>) -> Tensor<2> {
        let (last, before) = self.layers.split_last().expect("there are four layers");
        let x = before.iter().fold(windows, |x, layer| layer.forward(x).tanh()); // [count, hidden]
        last.forward(x)
    }

    /// The weights as they go into the file.
    pub fn tensors(&self) -> Vec<Named> {
        let values = |data: TensorData| data.try_to_vec::<f32>().expect("weights are 32-bit floats");
        let layers = self.layers.iter().enumerate().flat_map(|(index, layer)| {
            let (weight, bias) =
                (layer.weight.val(), layer.bias.as_ref().expect("every layer has a bias").val());
            let (shape, width) = (weight.dims().to_vec(), bias.dims().to_vec());
            [
                Named { name: format!("layer{index}.weight"), shape, values: values(weight.into_data()) },
                Named { name: format!("layer{index}.bias"), shape: width, values: values(bias.into_data()) },
            ]
        });
        layers.collect()
    }

    /// The network whose weights `tensor` gives by name and shape.
    pub fn from_tensors(
        parameters: &Parameters,
        channels: usize,
        tensor: impl Fn(&str, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<Autoencoder> {
        let layers =
            Autoencoder::shapes(parameters, channels).into_iter().enumerate().map(|(index, shape)| {
                let weight = tensor(&format!("layer{index}.weight"), &shape)?;
                let bias = tensor(&format!("layer{index}.bias"), &shape[1..])?;
                Ok(linear(shape, weight, bias))
            });
        Ok(Autoencoder { layers: layers.collect::<Result<_>>().context("the weights do not fit")? })
    }
}

fn linear(shape: [usize; 2], weight: Vec<f32>, bias: Vec<f32>) -> Linear {
    let device = Device::flex();
    let bias = Tensor::<1>::from_data(TensorData::new(bias, [shape[1]]), &device);
    let weight = Tensor::<2>::from_data(TensorData::new(weight, shape), &device);
    Linear { weight: Param::from_tensor(weight), bias: Some(Param::from_tensor(bias)) }
}
