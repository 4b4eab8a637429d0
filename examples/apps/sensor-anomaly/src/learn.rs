//! Learning: gradient descent on new windows, with some old ones among them so that nothing is forgotten.

use anyhow::{Result, ensure};
use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use rand::{Rng, RngExt};

use crate::model::{Model, batch};

/// Windows of a gradient step; of a model that has seen some before, a third are old ones.
const BATCH: usize = 48;

impl Model {
    /// Learns from windows, and sets the threshold.
    pub fn learn(&mut self, windows: &[&[f32]], rng: &mut impl Rng) -> Result<()> {
        let windows: Vec<_> = windows.iter().map(|window| self.normalised(window)).collect();
        self.descend(&windows, rng)?;
        let mut scores: Vec<f32> = scores(&self.errors(&windows)).collect();
        scores.extend(self::scores(&self.errors(&self.replay)));
        scores.sort_by(f32::total_cmp);
        let place = self.about.parameters.quantile * (scores.len() - 1) as f64;
        self.about.threshold = scores[place.ceil() as usize];
        windows.iter().for_each(|window| self.remember(window, rng));
        Ok(())
    }

    /// Gradient steps on windows drawn at random, at a rate that falls to nearly zero.
    fn descend(&mut self, windows: &[Vec<f32>], rng: &mut impl Rng) -> Result<()> {
        let device = Device::flex().autodiff();
        let mut network = self.network.clone().train();
        let clipping = GradientClippingConfig::Norm(1.0);
        let mut optimizer: ModuleOptimizer = AdamConfig::new().with_grad_clipping(Some(clipping)).init();
        let old = if self.replay.is_empty() { 0 } else { BATCH / 3 };
        let steps = self.about.parameters.steps;
        for step in 0..steps {
            let mut drawn: Vec<&Vec<f32>> = Vec::with_capacity(BATCH);
            for (count, from) in [(BATCH - old, windows), (old, &self.replay)] {
                drawn.extend((0..count).map(|_| &from[rng.random_range(0..from.len())]));
            }
            let input = batch(drawn.into_iter(), &device); // [BATCH, window * channels]
            let loss = (network.forward(input.clone()) - input).square().mean(); // [1]
            let gradients = GradientsParams::from_grads(loss.backward(), &network);
            let rate = self.about.parameters.learning_rate * (1.0 - 0.99 * step as f64 / steps as f64);
            network = optimizer.step(rate, network, gradients);
        }
        self.network = network.valid();
        let finite = self.network.tensors().iter().all(|tensor| tensor.values.iter().all(|v| v.is_finite()));
        ensure!(finite, "learning diverged; want a smaller parameter learning_rate");
        Ok(())
    }

    /// Keeps every window ever seen with the same probability (Vitter 1985, algorithm R).
    fn remember(&mut self, window: &[f32], rng: &mut impl Rng) {
        self.about.seen += 1;
        if self.replay.len() < self.about.parameters.replay {
            self.replay.push(window.to_vec());
        } else if let Some(place) = self.replay.get_mut(rng.random_range(0..self.about.seen) as usize) {
            *place = window.to_vec();
        }
    }
}

/// Score of each window: its mean error over all channels.
pub fn scores(errors: &[Vec<f32>]) -> impl Iterator<Item = f32> {
    errors.iter().map(|channels| channels.iter().sum::<f32>() / channels.len() as f32)
}
