//! Readings of a pump that runs through its days, for those who have no data of their own at hand.

use std::f64::consts::TAU;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Makes readings of a pump, one row every quarter of an hour
#[derive(Debug, clap::Args)]
pub struct Generate {
    /// Of all that is random: the same seed gives the same file
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Rows of the file
    #[arg(long, default_value_t = 4000)]
    rows: usize,
    /// How worn the pump is: 0 as new, 1 needs twice the current for the same flow
    #[arg(long, default_value_t = 0.0)]
    drift: f64,
    /// Anomalies to put in, spread evenly
    #[arg(long, default_value_t = 0)]
    anomalies: usize,
    /// CSV file to write
    #[arg(long)]
    out: PathBuf,
    /// CSV file to write with a column `anomaly`: 1 in the rows of anomalies, 0 elsewhere
    #[arg(long)]
    labels: Option<PathBuf>,
}

const CHANNELS: [&str; 4] = ["flow_l_min", "pressure_bar", "current_a", "vibration_mm_s"];
/// What a reading is off by, as a standard deviation.
const NOISE: [f64; 4] = [2.0, 0.05, 0.15, 0.05];
/// Rows of a day.
const DAY: f64 = 96.0;
/// Rows of an anomaly.
const LASTS: usize = 12;

/// What goes wrong; each kind stays within the range of normal readings.
#[derive(Clone, Copy, Debug)]
enum Anomaly {
    /// The flow meter shows what it showed first.
    Stuck,
    /// A part of the flow is lost, and pressure with it.
    Leak,
    /// It shakes, more and less.
    Bearing,
    /// It draws more current than it needs.
    Friction,
}

const ANOMALIES: [Anomaly; 4] = [Anomaly::Stuck, Anomaly::Leak, Anomaly::Bearing, Anomaly::Friction];

/// Readings as CSV.
///
/// # Errors
/// When a number is out of its range.
pub fn readings(seed: u64, rows: usize, drift: f64, anomalies: usize) -> Result<String> {
    let (out, labels) = (PathBuf::new(), None);
    Generate { seed, rows, drift, anomalies, out, labels }.make().map(|(text, _)| text)
}

impl Generate {
    pub fn run(&self) -> Result<()> {
        let (text, labels) = self.make()?;
        write(&self.out, &text)?;
        let Some(path) = &self.labels else { return Ok(()) };
        let marks = labels.into_iter().map(|label| if label { "1\n" } else { "0\n" });
        write(path, &("anomaly\n".to_owned() + &marks.collect::<String>()))
    }

    /// The readings as CSV, and which rows are anomalies.
    fn make(&self) -> Result<(String, Vec<bool>)> {
        let Generate { rows, anomalies, drift, .. } = *self;
        ensure!((1..=10_000_000).contains(&rows), "--rows is {rows}; want 1 to 10000000");
        ensure!((-0.9..=10.0).contains(&drift), "--drift is {drift}; want -0.9 to 10");
        let most = rows / (2 * LASTS);
        ensure!(anomalies <= most, "--anomalies is {anomalies}; {rows} rows have room for {most}");

        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut values = self.normal(&mut rng);
        let mut labels = vec![false; rows];
        for number in 0..anomalies {
            let slot = rows / anomalies;
            let first = number * slot + rng.random_range(0..=slot - LASTS);
            inject(ANOMALIES[number % ANOMALIES.len()], &mut values[first..first + LASTS], &mut rng);
            labels[first..first + LASTS].fill(true);
        }

        let mut text = CHANNELS.join(",") + "\n";
        for [flow, pressure, current, vibration] in values {
            writeln!(text, "{flow:.2},{pressure:.3},{current:.3},{vibration:.3}")?;
        }
        Ok((text, labels))
    }

    /// A series without anomalies. All channels follow the load, which has its course of the day and wanders slowly.
    fn normal(&self, rng: &mut ChaCha8Rng) -> Vec<[f64; 4]> {
        let begin = rng.random_range(0.0..DAY);
        let mut wander = 0.0;
        let row = |row| {
            let day = TAU * (begin + row as f64) / DAY;
            let mut noise = |deviation: f64| deviation * Distribution::<f64>::sample(&StandardNormal, rng);
            wander = 0.98 * wander + noise(0.01);
            let load = 0.55 + 0.2 * day.sin() + 0.06 * (4.0 * day + 0.7).sin() + wander;
            let ideal = [
                200.0 * load * (1.0 - 0.2 * self.drift),
                6.0 - 3.0 * load * load,
                3.0 + 12.0 * load * (1.0 + self.drift),
                1.0 + load + 2.0 * self.drift,
            ];
            std::array::from_fn(|channel| ideal[channel] + noise(NOISE[channel]))
        };
        (0..self.rows).map(row).collect()
    }
}

/// Puts an anomaly into rows.
fn inject(anomaly: Anomaly, rows: &mut [[f64; 4]], rng: &mut ChaCha8Rng) {
    let stuck = rows[0][0];
    for [flow, pressure, current, vibration] in rows {
        match anomaly {
            Anomaly::Stuck => *flow = stuck,
            Anomaly::Leak => (*flow, *pressure) = (*flow * 0.85, *pressure - 0.2),
            Anomaly::Bearing => *vibration += 0.2 * Distribution::<f64>::sample(&StandardNormal, rng),
            Anomaly::Friction => *current += 1.2,
        }
    }
}

fn write(path: &PathBuf, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
