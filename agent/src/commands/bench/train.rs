//! `remora bench train`: decisions played, labels made and samples learnt per second.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, Distribution, Tensor};
use clap::Args as ClapArgs;
use cpu_time::ProcessTime;
use remora_env::Scenarios;
use remora_policies::learned::INPUT_COUNT;
use remora_trainer::Config;
use remora_trainer::course::Course;
use remora_trainer::learner::Learner;
use serde::Serialize;

use crate::commands::{print, table, tables};

#[derive(ClapArgs, Debug)]
pub struct Args {
    /// What to train on.
    #[arg(long, default_value = "urban-sensing")]
    scenario: String,
    /// Iterations of each phase.
    #[arg(long, default_value_t = 3)]
    iterations: u64,
    /// A Python interpreter with torch, and with `remora_env` and sb3-contrib, to compare with.
    #[arg(long)]
    python: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Row {
    phase: &'static str,
    /// Decisions, labels or samples per second, by all cores.
    per_s: f64,
    /// Of the time of an iteration.
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
    /// Arithmetic done, over what one core does at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio_to_limit: Option<f64>,
}

pub fn run(args: &Args, json: bool) -> Result<()> {
    let limit = peak();
    let mut rows = Vec::new();
    let improve = phase(args, 0.0)?;
    let learnt_per_s = improve.gradient_samples / improve.update_s;
    let of_iteration = |seconds: f64| Some(seconds / (improve.collect_s + improve.update_s));
    rows.push(Row {
        phase: "rollouts",
        per_s: improve.decisions / improve.collect_s,
        share: of_iteration(improve.collect_s),
        ratio_to_limit: None,
    });
    rows.push(Row {
        phase: "update",
        per_s: learnt_per_s,
        share: of_iteration(improve.update_s),
        ratio_to_limit: Some(learnt_per_s * sample_flops(&Config::default()) / limit),
    });
    let (decisions, seconds) = (improve.decisions, improve.collect_s + improve.update_s);
    rows.push(Row { phase: "end to end", per_s: decisions / seconds, share: None, ratio_to_limit: None });
    let label = phase(args, 1.0)?;
    let share = label.collect_s / (label.collect_s + label.update_s);
    rows.push(Row {
        phase: "labels",
        per_s: label.labels / label.collect_s,
        share: Some(share),
        ratio_to_limit: None,
    });
    if let Some(python) = &args.python {
        rows.extend(peers(python)?);
    }
    if json {
        return tables::print_rows(&rows);
    }
    let mut table = table(&["phase", "per second", "share of an iteration", "of the limit"]);
    let optional = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2}"));
    for row in &rows {
        let cells = [format!("{:.0}", row.per_s), optional(row.share), optional(row.ratio_to_limit)];
        table.add_row([row.phase.to_owned()].into_iter().chain(cells));
    }
    print(table)?;
    print(format_args!(
        "Rollouts are decisions, updates gradient samples of one decision with its shortlist. The limit: {:.0} GFLOP/s\n\
         of one core, multiplying matrices of {SIDE} by {SIDE}.",
        limit / 1e9
    ))
}

/// What some iterations came to.
#[derive(Default)]
struct Sums {
    decisions: f64,
    labels: f64,
    gradient_samples: f64,
    collect_s: f64,
    update_s: f64,
}

/// Iterations of learning from labels (`until` 1) or from own choices (0).
fn phase(args: &Args, until: f64) -> Result<Sums> {
    let mut config = Config::default();
    (config.evolution.until, config.labels.until) = (0.0, until);
    // Nothing is collected ahead, so that each phase is timed by itself.
    config.validate_every = 1;
    let course = Course::new(Scenarios::load(&args.scenario)?, config.tasks);
    let mut learner = Learner::new(config, vec![course]);
    let mut sums = Sums::default();
    for _ in 0..args.iterations.max(1) {
        let before = learner.replay.len();
        let metrics = learner.step(0.0).map_err(|_| anyhow::anyhow!("a loss was no number"))?;
        sums.decisions += metrics.decisions as f64;
        sums.labels += (learner.replay.len() - before) as f64;
        sums.gradient_samples += metrics.gradient_samples as f64;
        sums.collect_s += metrics.collect_s;
        sums.update_s += metrics.update_s;
    }
    Ok(sums)
}

/// Floating-point operations for a gradient sample: forward, then backward to weights and, but for the first
/// layer, to inputs.
fn sample_flops(config: &Config) -> f64 {
    let hidden = config.network.hidden as f64;
    let (first, rest) = (INPUT_COUNT as f64 * hidden, hidden * hidden + hidden);
    config.network.shortlist as f64 * 2.0 * (2.0 * first + 3.0 * rest)
}

const SIDE: usize = 512;

/// Floating-point operations per second of one core, multiplying matrices that fit its cache.
fn peak() -> f64 {
    let device = Device::flex();
    let random = || Tensor::<2>::random([SIDE, SIDE], Distribution::Default, &device);
    let (a, b) = (random(), random());
    let mut best: f64 = 0.0;
    for _ in 0..20 {
        let (wall, cpu) = (Instant::now(), ProcessTime::now());
        let product = a.clone().matmul(b.clone());
        std::hint::black_box(product.into_data());
        let cores = (cpu.elapsed().as_secs_f64() / wall.elapsed().as_secs_f64()).max(1.0);
        best = best.max(2.0 * (SIDE as f64).powi(3) / wall.elapsed().as_secs_f64() / cores);
    }
    best
}

const PEERS: &str = include_str!("peers.py");
const SECONDS: usize = 3;

/// The same with PyTorch, and end to end with Stable-Baselines3.
fn peers(python: &PathBuf) -> Result<Vec<Row>> {
    let config = Config::default();
    let shape = [INPUT_COUNT, config.network.hidden, config.network.shortlist, config.minibatch, SECONDS];
    let output = Command::new(python)
        .args(["-c", PEERS])
        .args(shape.map(|number| number.to_string()))
        .output()
        .with_context(|| format!("cannot run {}", python.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", python.display(), String::from_utf8_lossy(&output.stderr));
    }
    let last = output.stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
    let figures: serde_json::Value = serde_json::from_slice(last.unwrap_or_default())?;
    let rows = [("update in PyTorch, one thread", "pytorch"), ("end to end in Stable-Baselines3", "sb3")];
    for missing in ["pytorch_missing", "sb3_missing"] {
        if let Some(why) = figures[missing].as_str() {
            eprintln!("left out: {why}");
        }
    }
    let row = |(phase, key): (&'static str, &str)| {
        figures[key].as_f64().map(|per_s| Row { phase, per_s, share: None, ratio_to_limit: None })
    };
    Ok(rows.into_iter().filter_map(row).collect())
}
