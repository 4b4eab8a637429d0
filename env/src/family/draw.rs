//! What members are drawn with.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::Family;
use crate::random::{Purpose, stream};

/// Draws for one member. Figures have three significant digits, so that a member reads well.
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    pub(super) fn new(family: Family, index: u64) -> Draw {
        Draw(stream(index, Purpose::Family, family as u64))
    }

    pub(super) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        neat(low + (high - low) * self.0.random::<f64>())
    }

    pub(super) fn log_uniform(&mut self, low: f64, high: f64) -> f64 {
        neat((low.ln() + (high / low).ln() * self.0.random::<f64>()).exp())
    }

    /// A whole number, both ends included.
    pub(super) fn count(&mut self, low: u32, high: u32) -> u32 {
        self.0.random_range(low..=high)
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.0.random_bool(probability)
    }

    /// One of them; there is at least one.
    pub(super) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.0.random_range(0..of.len())]
    }

    /// Some of them, each once.
    pub(super) fn some<T: Copy>(&mut self, of: &[T], count: usize) -> Vec<T> {
        let mut left = of.to_vec();
        (0..count.min(of.len())).map(|_| left.remove(self.0.random_range(0..left.len()))).collect()
    }
}

/// Rounded to three significant digits.
pub(super) fn neat(value: f64) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    // Through the decimal text: what a person would write, and the same on every machine.
    format!("{value:.2e}").parse().expect("a printed number reads back")
}
