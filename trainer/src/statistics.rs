//! Paired comparison with confidence.

use std::fmt;

use rand::RngExt;
use remora_env::random::{Purpose, stream};
use serde::{Deserialize, Serialize};

/// A ratio with its 95 % confidence interval; a single pair has none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    pub ratio: f64,
    pub low: Option<f64>,
    pub high: Option<f64>,
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.low, self.high) {
            (Some(low), Some(high)) => write!(f, "{:.3} [{low:.3}, {high:.3}]", self.ratio),
            _ => write!(f, "{:.3}", self.ratio),
        }
    }
}

const RESAMPLES: usize = 2000;

/// Geometric mean of paired ratios with the percentile bootstrap interval over the pairs; the
/// resampling is seeded, so that the same pairs give the same interval.
pub fn paired_ratio(ours: &[f64], theirs: &[f64]) -> Ratio {
    let logs: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| (a.max(1e-12) / b.max(1e-12)).ln()).collect();
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / logs.len().max(1) as f64;
    let centre = mean(&mut logs.iter().copied());
    if logs.len() < 2 {
        return Ratio { ratio: centre.exp(), low: None, high: None };
    }
    let mut rng = stream(logs.len() as u64, Purpose::Bootstrap, 0);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| mean(&mut (0..logs.len()).map(|_| logs[rng.random_range(0..logs.len())])))
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let percentile = |p: f64| means[((p * RESAMPLES as f64) as usize).min(RESAMPLES - 1)].exp();
    Ratio { ratio: centre.exp(), low: Some(percentile(0.025)), high: Some(percentile(0.975)) }
}

/// What the mean of the values from which these were drawn surely exceeds, with this one-sided confidence: the
/// percentile bootstrap's lower end, seeded. Nothing for fewer than two values.
pub fn sure_mean(values: &[f64], confidence: f64) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mut rng = stream(values.len() as u64, Purpose::Bootstrap, 0);
    let mut mean = || {
        let drawn = (0..values.len()).map(|_| values[rng.random_range(0..values.len())]);
        drawn.sum::<f64>() / values.len() as f64
    };
    let mut means: Vec<f64> = (0..RESAMPLES).map(|_| mean()).collect();
    means.sort_unstable_by(f64::total_cmp);
    let below = ((1.0 - confidence) * RESAMPLES as f64) as usize;
    Some(means[below.min(RESAMPLES - 1)])
}

/// Arithmetic mean; 0 of nothing.
pub fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let sums = values.into_iter().fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sums.0 / f64::max(sums.1, 1.0)
}

/// Geometric mean of positive numbers.
pub fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|value| value.max(1e-12).ln()).sum::<f64>() / values.len().max(1) as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::{mean, paired_ratio};

    #[test]
    fn nothing_has_the_mean_0() {
        assert_eq!((mean([]), mean([3.0]), mean([1.0, 2.0, 6.0])), (0.0, 3.0, 3.0));
    }

    #[test]
    fn a_constant_ratio_is_certain() {
        let theirs = [1.0, 5.0, 0.2, 7.0];
        let ours = theirs.map(|cost| cost * 0.9);
        let ratio = paired_ratio(&ours, &theirs);
        for value in [Some(ratio.ratio), ratio.low, ratio.high] {
            assert!((value.unwrap() - 0.9).abs() < 1e-12, "{ratio:?}");
        }
    }

    #[test]
    fn a_wide_spread_has_a_wide_interval() {
        let ratio = paired_ratio(&[0.5, 2.0, 0.4, 2.5, 1.0], &[1.0; 5]);
        assert!((ratio.ratio - 1.0).abs() < 1e-9, "{ratio:?}");
        assert!(ratio.low.unwrap() < 0.7 && ratio.high.unwrap() > 1.4, "{ratio:?}");
    }
}
