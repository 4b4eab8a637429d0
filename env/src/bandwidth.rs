//! Measured bandwidth over time, which the capacity of a link can follow.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::import::{ImportError, Table};
use crate::time::MOST_S;

/// A recording, as the share of its own mean that the bandwidth has from each point on.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// `(seconds since the first point, bandwidth over the recording's mean)`, in order of time; the
    /// first is at 0.
    pub points: Vec<(f64, f64)>,
    /// After this many seconds it begins anew.
    pub period_s: f64,
}

/// Points closer than this say nothing that a transfer could notice.
const LEAST_STEP_S: f64 = 0.001;

const COLUMNS: [&str; 3] = ["trace", "t_s", "mbit_s"];

impl Recording {
    /// Reads the `wanted` of the recordings in a CSV file with the columns `trace`, `t_s` and `mbit_s`;
    /// those that it does not have stay out. Times must rise within a trace.
    pub fn read(path: &Path, wanted: &BTreeSet<&str>) -> Result<BTreeMap<String, Recording>, ImportError> {
        let table = Table::read(path, &COLUMNS, "bandwidth recordings with trace, t_s and mbit_s")?;
        let mut raw: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for row in table.rows().filter(|row| wanted.contains(row.text("trace"))) {
            let t_s = row.number("t_s", "seconds", 0.0..=MOST_S)?;
            let mbit_s = row.number("mbit_s", "Mbit/s", 0.0..=1e9)?;
            let points = raw.entry(row.text("trace").to_owned()).or_default();
            if points.last().is_some_and(|&(before, _)| before + LEAST_STEP_S > t_s) {
                return Err(row.not("t_s", "at least a millisecond after the row before of this trace"));
            }
            points.push((t_s, mbit_s));
        }
        let recording =
            |(name, points): (String, Vec<(f64, f64)>)| match Recording::of(&points) {
                Some(recording) => Ok((name, recording)),
                None => Err(table
                    .wrong(format!("trace {name:?} has no bandwidth at all; want two points, one above 0"))),
            };
        raw.into_iter().map(recording).collect()
    }

    /// `(seconds, bandwidth)` in order of time; each holds until the next, the last as long as the
    /// ones before it on average. `None` for fewer than two points or no bandwidth.
    fn of(points: &[(f64, f64)]) -> Option<Recording> {
        let (&(first, _), &(last, _)) = (points.first()?, points.last()?);
        let gaps = points.len().checked_sub(1).filter(|gaps| *gaps > 0)?;
        let period_s = (last - first) * (1.0 + 1.0 / gaps as f64);
        let ends = points[1..].iter().map(|(t, _)| *t).chain([first + period_s]);
        let volume: f64 = points.iter().zip(ends).map(|((t, mbit_s), end)| mbit_s * (end - t)).sum();
        let mean = volume / period_s;
        let points = points.iter().map(|(t, mbit_s)| (t - first, mbit_s / mean)).collect();
        (mean > 0.0).then_some(Recording { points, period_s })
    }

    /// Index of the point that holds `t_s` seconds after the beginning, within the first period.
    pub fn index_at(&self, t_s: f64) -> usize {
        self.points.partition_point(|&(t, _)| t <= t_s % self.period_s).saturating_sub(1)
    }

    /// Seconds that the point `index` holds.
    pub fn duration_s(&self, index: usize) -> f64 {
        let end = self.points.get(index + 1).map_or(self.period_s, |(t, _)| *t);
        end - self.points[index].0
    }
}
