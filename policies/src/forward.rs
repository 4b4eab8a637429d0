//! The network's answer to one decision without tensors: weights laid out once, no allocation.
//!
//! The same arithmetic as [`ActorCritic::logits`] up to the order of sums. A tensor operation costs more to begin than
//! sixteen candidates cost to score, and half of what a rectifier lets through is zero and can be passed over.

use pulp::Arch;

use crate::learned::{ADVICE, INPUT_COUNT};
use crate::network::{ActorCritic, Weight};

/// Outputs that are summed up side by side: as many as keep a processor adding until a sum can be added to again, four
/// vectors of 64 bytes or eight of 32.
const LANES: usize = 64;
/// Terms of a score that are summed up side by side.
const TERMS: usize = 32;
type Lanes = [f32; LANES];

/// A layer: outputs in blocks of [`LANES`], the last one padded with zeros.
#[derive(Clone, Debug)]
struct Layer {
    inputs: usize,
    /// Of each block, and within it of each input, the weights.
    weights: Vec<Lanes>,
    /// Of each block.
    bias: Vec<Lanes>,
}

impl Layer {
    /// `weight`: `[inputs, outputs]`; `bias`: `[outputs]`.
    fn new(weight: &Weight, bias: &Weight) -> Layer {
        let (inputs, outputs) = (weight.shape[0], weight.shape[1]);
        let block = |row: &[f32], first: usize| {
            std::array::from_fn(|lane| if first + lane < outputs { row[first + lane] } else { 0.0 })
        };
        let firsts = || (0..outputs).step_by(LANES);
        let rows = |first| weight.values.chunks_exact(outputs).map(move |row| block(row, first));
        Layer {
            inputs,
            weights: firsts().flat_map(rows).collect(),
            bias: firsts().map(|first| block(&bias.values, first)).collect(),
        }
    }

    /// Rectified outputs `[blocks]` of inputs that are given without their zeros, with their places.
    #[inline(always)]
    fn rectified(&self, x: &[(u32, f32)], y: &mut [Lanes]) {
        let blocks = self.weights.chunks_exact(self.inputs).zip(&self.bias);
        for ((weights, bias), y) in blocks.zip(y) {
            let mut sums = [0.0; LANES];
            for &(place, x) in x {
                let weights = &weights[place as usize];
                for lane in 0..LANES {
                    sums[lane] += x * weights[lane];
                }
            }
            for lane in 0..LANES {
                let sum = sums[lane] + bias[lane];
                // What is no number stays none.
                y[lane] = if sum < 0.0 { 0.0 } else { sum };
            }
        }
    }
}

/// Inputs that are not zero, into `places` `[inputs]`; how many there are.
#[inline(always)]
fn nonzero<'a>(x: impl Iterator<Item = &'a f32>, places: &mut [(u32, f32)]) -> usize {
    let mut count = 0;
    for (place, &x) in x.enumerate() {
        places[count] = (place as u32, x);
        count += usize::from(x != 0.0);
    }
    count
}

/// A network that scores candidates one by one.
#[derive(Clone, Debug)]
pub struct Forward {
    arch: Arch,
    embed: Layer,
    mix: Layer,
    /// Weights of the last activations, and of the advice; what is added to both.
    score: Vec<Lanes>,
    advice: [f32; ADVICE.len()],
    bias: f32,
    // What is between the layers.
    places: Vec<(u32, f32)>,
    embedded: Vec<Lanes>,
    mixed: Vec<Lanes>,
}

impl Forward {
    /// `None` where each candidate is scored knowing the others: that is left to tensors.
    pub fn of(network: &ActorCritic) -> Option<Forward> {
        if network.config.context {
            return None;
        }
        let weights = network.weights();
        let find =
            |name: &str| weights.iter().find(|weight| weight.name == name).expect("it has every layer");
        let layer = |name: &str| Layer::new(find(&format!("{name}.weight")), find(&format!("{name}.bias")));
        let (embed, mix) = (layer("embed"), layer("mix"));
        let mut score = vec![[0.0; LANES]; mix.bias.len()];
        for (lane, weight) in score.iter_mut().flatten().zip(&find("score.weight").values) {
            *lane = *weight;
        }
        let advice = &find("advice.weight").values;
        Some(Forward {
            arch: Arch::new(),
            advice: std::array::from_fn(|index| advice[index]),
            bias: find("score.bias").values[0] + find("advice.bias").values[0],
            places: vec![(0, 0.0); embed.inputs.max(mix.inputs)],
            embedded: vec![[0.0; LANES]; embed.bias.len()],
            mixed: vec![[0.0; LANES]; mix.bias.len()],
            embed,
            mix,
            score,
        })
    }

    /// Tells the preference for each candidate, given by a key and features `[INPUT_COUNT]`. Wide vectors, where the
    /// processor has them, change no number: each output is summed up in the same order.
    pub fn logits<'a, K>(
        &mut self,
        rows: impl Iterator<Item = (K, &'a [f32])>,
        mut tell: impl FnMut(K, f32),
    ) {
        let arch = self.arch;
        arch.dispatch(
            // Only what is inlined here is compiled for these vectors.
            #[inline(always)]
            || {
                for (key, row) in rows {
                    tell(key, self.logit(row));
                }
            },
        );
    }

    #[inline(always)]
    fn logit(&mut self, features: &[f32]) -> f32 {
        let count = nonzero(features.iter(), &mut self.places);
        self.embed.rectified(&self.places[..count], &mut self.embedded);
        // The padding at the end is zero.
        let count = nonzero(self.embedded.iter().flatten().take(self.mix.inputs), &mut self.places);
        self.mix.rectified(&self.places[..count], &mut self.mixed);
        let mut sums = [0.0; TERMS];
        let (x, weights) = (self.mixed.as_flattened(), self.score.as_flattened());
        for (x, weights) in x.chunks_exact(TERMS).zip(weights.chunks_exact(TERMS)) {
            for lane in 0..TERMS {
                sums[lane] += x[lane] * weights[lane];
            }
        }
        let advice = features[INPUT_COUNT - ADVICE.len()..].iter().zip(&self.advice);
        sums.iter().sum::<f32>() + advice.map(|(x, weight)| x * weight).sum::<f32>() + self.bias
    }
}
