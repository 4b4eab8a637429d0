//! Whether what was recorded comes out again on a part of the worlds.

use std::collections::BTreeSet;

use remora_trainer::statistics::Ratio;
use remora_trainer::summary::Comparison;

use super::record::Record;

/// A comparison, as it was recorded and as it came out now.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    pub scenario: String,
    pub policy: String,
    pub baseline: String,
    pub alpha: f64,
    pub recorded: Ratio,
    pub now: Ratio,
}

/// Half of what two intervals may be apart.
const MARGIN: f64 = 0.005;

impl Compared {
    /// Whether the two 95 % intervals come within a hundredth of each other: few worlds may be more alike than chance
    /// is, and a hundredth of the cost is no difference that matters. With a single world there is no interval, and
    /// nothing to be said.
    pub fn agrees(&self) -> bool {
        let ends = |of: &Ratio| Some((of.low? - MARGIN, of.high? + MARGIN));
        match (ends(&self.recorded), ends(&self.now)) {
            (Some((low, high)), Some((from, to))) => low <= to && from <= high,
            _ => true,
        }
    }
}

/// All comparisons that both have.
pub fn compare(recorded: &Record, now: &Record) -> Vec<Compared> {
    let same = |a: &Comparison, b: &Comparison| {
        (&a.scenario, &a.policy, &a.baseline, a.alpha) == (&b.scenario, &b.policy, &b.baseline, b.alpha)
    };
    let both = |now: &Comparison| {
        let recorded = recorded.comparisons.iter().find(|recorded| same(recorded, now))?;
        Some(Compared {
            scenario: now.scenario.clone(),
            policy: now.policy.clone(),
            baseline: now.baseline.clone(),
            alpha: now.alpha,
            recorded: recorded.cost,
            now: now.cost,
        })
    };
    now.comparisons.iter().filter_map(both).collect()
}

/// Whether rows that no comparison is made of say what those that were recorded say: figures of a machine, or of learning
/// that was cut short, come out otherwise every time.
///
/// # Errors
/// What they do not have in common.
pub fn alike(recorded: &Record, now: &Record) -> Result<(), String> {
    let keys = |record: &Record| -> BTreeSet<String> {
        record.rows.iter().flat_map(|row| row.keys().cloned()).collect()
    };
    let (recorded, now) = (keys(recorded), keys(now));
    if now.is_empty() {
        return Err("it came to no rows".to_owned());
    }
    let new: Vec<_> = now.difference(&recorded).map(String::as_str).collect();
    if new.is_empty() { Ok(()) } else { Err(format!("what is recorded has no {}", new.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::{Compared, Ratio};

    fn agrees(recorded: (f64, f64), now: (f64, f64)) -> bool {
        let ratio = |(low, high): (f64, f64)| Ratio { ratio: low, low: Some(low), high: Some(high) };
        let (recorded, now) = (ratio(recorded), ratio(now));
        let name = String::new();
        Compared { scenario: name.clone(), policy: name.clone(), baseline: name, alpha: 0.5, recorded, now }
            .agrees()
    }

    #[test]
    fn intervals_agree_where_they_meet() {
        assert!(
            agrees((0.9, 0.95), (0.8, 0.91))
                && agrees((0.9, 0.95), (0.94, 1.2))
                && agrees((1.0, 1.0), (1.0, 1.0))
        );
        assert!(agrees((1.002, 1.01), (1.0, 1.0)));
        assert!(!agrees((0.9, 0.95), (0.98, 1.2)) && !agrees((0.9, 0.95), (0.5, 0.87)));
    }
}
