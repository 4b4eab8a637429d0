//! A search for the weights of a rule that is scored by playing it: a separable natural evolution strategy.
//!
//! Every generation draws candidates around a centre, in mirrored pairs; the better ranks pull centre and spread
//! towards them.
//!
//! Source: Wierstra et al., "Natural Evolution Strategies", JMLR 15 (2014): the separable one, with its utilities and
//! rates; the cooling is ours.

use rand::{Rng, RngExt};

/// Pairs of mirrored candidates in a generation.
const PAIRS: usize = 8;
/// What is left of all standard deviations after a generation, beside what the search makes of each.
const COOLING: f64 = 0.97;

/// A normal distribution of `N` weights, each on its own.
#[derive(Clone, Debug)]
pub struct Search<const N: usize> {
    pub centre: [f64; N],
    /// Standard deviations.
    pub spread: [f64; N],
}

impl<const N: usize> Search<N> {
    /// Around a centre, with the same standard deviation for all.
    pub fn around(centre: [f64; N], spread: f64) -> Search<N> {
        Search { centre, spread: [spread; N] }
    }

    /// One generation, towards candidates that are worth more; the mean of what they are worth.
    pub fn step(&mut self, luck: &mut impl Rng, worth: impl Fn(&[f64; N]) -> f64) -> f64 {
        let mut draws: Vec<(f64, [f64; N])> = Vec::new();
        for _ in 0..PAIRS {
            let draw: [f64; N] = std::array::from_fn(|_| normal(luck));
            for draw in [draw, draw.map(|x| -x)] {
                let candidate = std::array::from_fn(|i| self.centre[i] + self.spread[i] * draw[i]);
                draws.push((worth(&candidate), draw));
            }
        }
        draws.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.follow(&draws);
        draws.iter().map(|(worth, _)| worth).sum::<f64>() / draws.len() as f64
    }

    /// Moves by what was drawn, best first.
    fn follow(&mut self, draws: &[(f64, [f64; N])]) {
        let size = N as f64;
        let rate = (3.0 + size.ln()) / (5.0 * size.sqrt());
        let utilities = utilities(draws.len());
        for i in 0..N {
            let sum = |of: fn(f64) -> f64| -> f64 {
                draws.iter().zip(&utilities).map(|((_, draw), utility)| utility * of(draw[i])).sum()
            };
            self.centre[i] += self.spread[i] * sum(|x| x);
            self.spread[i] *= COOLING * (rate / 2.0 * sum(|x| x * x - 1.0)).exp();
        }
    }

    /// The centre to three decimals: weights as they are written down.
    pub fn rounded(&self) -> [f64; N] {
        self.centre.map(|weight| (1000.0 * weight).round() / 1000.0)
    }
}

/// What ranks count, best first; together nothing.
pub fn utilities(ranks: usize) -> Vec<f64> {
    let half = (ranks as f64 / 2.0 + 1.0).ln();
    let raw: Vec<f64> = (1..=ranks).map(|rank| f64::max(0.0, half - (rank as f64).ln())).collect();
    let sum: f64 = raw.iter().sum();
    raw.iter().map(|utility| utility / sum - 1.0 / ranks as f64).collect()
}

/// A standard normal number, after Box and Muller.
fn normal(luck: &mut impl Rng) -> f64 {
    let (radius, angle): (f64, f64) = (luck.random(), luck.random());
    (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

#[cfg(test)]
mod tests {
    use remora_env::random::{Purpose, stream};

    use super::Search;

    #[test]
    fn it_finds_the_top_of_a_hill() {
        let mut search = Search::around([0.0; 3], 0.5);
        let top = [1.0, -0.5, 0.25];
        let mut luck = stream(1, Purpose::Tuning, 0);
        for _ in 0..80 {
            search.step(&mut luck, |at| -at.iter().zip(top).map(|(a, b)| (a - b).powi(2)).sum::<f64>());
        }
        assert!(search.centre.iter().zip(top).all(|(a, b)| (a - b).abs() < 0.05), "{search:?}");
    }
}
