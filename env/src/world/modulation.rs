//! Rates of arrival that rise and fall: by the time of day, and in bursts.

use std::f64::consts::TAU;

use crate::random::{Purpose, unit};
use crate::scenario::{BurstsFile, DiurnalFile, StreamFile};

/// Turns gaps between arrivals at the mean rate into gaps at the rate of the moment: an arrival
/// comes when the integral of the relative rate has grown by the gap (time rescaling; Daley and
/// Vere-Jones, *An Introduction to the Theory of Point Processes*, section 7.4).
#[derive(Clone, Debug)]
pub(super) struct Modulation {
    diurnal: Option<DiurnalFile>,
    bursts: Option<Bursts>,
}

/// A two-state Markov chain in continuous time.
#[derive(Clone, Debug)]
struct Bursts {
    file: BurstsFile,
    seed: u64,
    stream: u64,
    /// Even: calm, odd: burst.
    phase: u64,
    phase_ends_s: f64,
}

impl Modulation {
    /// That of a stream; all its instances have their bursts together.
    pub fn new(file: &StreamFile, seed: u64, stream: u64) -> Modulation {
        let bursts = file.bursts.map(|file| {
            let mut bursts = Bursts { file, seed, stream, phase: 0, phase_ends_s: 0.0 };
            bursts.phase_ends_s = bursts.length_s();
            bursts
        });
        Modulation { diurnal: file.diurnal.filter(|diurnal| diurnal.amplitude > 0.0), bursts }
    }

    /// The moment when, after `from_s`, as much as `gap_s` of time at the mean rate has passed.
    pub fn after(&mut self, from_s: f64, gap_s: f64) -> f64 {
        let (mut at_s, mut left) = (from_s, gap_s);
        loop {
            let Some(bursts) = &mut self.bursts else { return self.within(at_s, left, 1.0) };
            if bursts.phase_ends_s <= at_s {
                bursts.phase += 1;
                bursts.phase_ends_s += bursts.length_s();
                continue;
            }
            let (rate, ends_s) = (bursts.rate(), bursts.phase_ends_s);
            let until_end = rate * self.integral(at_s, ends_s);
            if until_end >= left {
                return self.within(at_s, left, rate);
            }
            left -= until_end;
            at_s = ends_s;
        }
    }

    /// Integral of the daily course of the rate, whose mean is 1.
    fn integral(&self, from_s: f64, to_s: f64) -> f64 {
        let swing = self.diurnal.map_or(0.0, |DiurnalFile { period_s, amplitude }| {
            let turn = TAU / period_s;
            amplitude / turn * ((turn * from_s).cos() - (turn * to_s).cos())
        });
        to_s - from_s + swing
    }

    /// When `left` has passed after `from_s`, at `rate` times the daily course: by bisection.
    fn within(&self, from_s: f64, left: f64, rate: f64) -> f64 {
        let Some(diurnal) = self.diurnal else { return from_s + left / rate };
        let (mut low, mut high) = (from_s, from_s + left / rate + diurnal.period_s);
        for _ in 0..80 {
            let middle = low + (high - low) / 2.0;
            if rate * self.integral(from_s, middle) < left { low = middle } else { high = middle }
        }
        high
    }
}

impl Bursts {
    /// Length of the present phase, seconds.
    fn length_s(&self) -> f64 {
        let mean_s =
            if self.phase.is_multiple_of(2) { self.file.mean_calm_s } else { self.file.mean_burst_s };
        -mean_s * unit(self.seed, Purpose::Bursts, self.stream, self.phase).ln()
    }

    /// Relative rate of the present phase; 1 on average.
    fn rate(&self) -> f64 {
        let BurstsFile { factor, mean_calm_s, mean_burst_s } = self.file;
        let calm = (mean_calm_s + mean_burst_s) / (mean_calm_s + factor * mean_burst_s);
        if self.phase.is_multiple_of(2) { calm } else { calm * factor }
    }
}

#[cfg(test)]
mod tests {
    use super::Modulation;
    use crate::scenario::{BurstsFile, DiurnalFile, StreamFile};

    fn arrivals(file: &StreamFile, count: usize) -> Vec<f64> {
        let mut modulation = Modulation::new(file, 3, 0);
        let mut at_s = 0.0;
        (0..count)
            .map(|_| {
                at_s = modulation.after(at_s, 1.0);
                at_s
            })
            .collect()
    }

    #[test]
    fn the_mean_rate_stays_and_the_course_of_the_day_is_kept() {
        let diurnal = Some(DiurnalFile { period_s: 1000.0, amplitude: 0.8 });
        let arrivals = arrivals(&StreamFile { diurnal, ..StreamFile::default() }, 10_000);
        // Ten whole days of a thousand arrivals each.
        assert!((arrivals[9_999] - 10_000.0).abs() < 1e-6, "{}", arrivals[9_999]);
        let first_half = arrivals.iter().filter(|at| **at % 1000.0 < 500.0).count() as f64;
        // ∫ over the half with the high sun: 1/2 + 0.8/π.
        let share = 0.5 + 0.8 / std::f64::consts::PI;
        assert!((first_half / 10_000.0 - share).abs() < 0.002, "{first_half}");
    }

    #[test]
    fn bursts_are_dense_and_keep_the_mean_rate() {
        let bursts = Some(BurstsFile { factor: 8.0, mean_calm_s: 90.0, mean_burst_s: 10.0 });
        let arrivals = arrivals(&StreamFile { bursts, ..StreamFile::default() }, 200_000);
        let mean_gap = arrivals[199_999] / 200_000.0;
        assert!((mean_gap - 1.0).abs() < 0.02, "{mean_gap}");
        let dense = arrivals.windows(2).filter(|pair| pair[1] - pair[0] < 0.5).count() as f64 / 200_000.0;
        // Of the arrivals 8·10 / (90 + 8·10) come in bursts.
        assert!((dense - 80.0 / 170.0).abs() < 0.02, "{dense}");
    }
}
