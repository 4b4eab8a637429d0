//! `remora bench train`: decisions played, labels made and samples learnt per second.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, Distribution, Tensor};
use clap::Args as ClapArgs;
use cpu_time::ProcessTime;
use remora_env::{Scenario, Scenarios, World};
use remora_policies::learned::{INPUT_COUNT, Learned};
use remora_policies::rollout::{Figures, play, reference};
use remora_policies::{Policy, by_name};
use remora_trainer::Config;
use remora_trainer::course::Course;
use remora_trainer::learner::{Learner, Metrics};
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
    /// CPU minutes for which Stable-Baselines3 learns urban-sensing at α = 0.5. Then PPO here learns it from nothing too, without
    /// prices or labels, until it costs as little.
    #[arg(long, value_name = "MINUTES", requires = "python", default_value_t = 0)]
    learn: usize,
}

#[derive(Debug, Serialize)]
struct Row {
    phase: &'static str,
    /// Decisions, labels or samples per second, by all cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_s: Option<f64>,
    /// Of the time of an iteration.
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
    /// Arithmetic done, over what one core does at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio_to_limit: Option<f64>,
    /// CPU seconds of learning, and the cost over that of `greedy-marginal` that they led to.
    #[serde(skip_serializing_if = "Option::is_none")]
    learnt: Option<Learnt>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Learnt {
    cpu_s: f64,
    cost: f64,
}

impl Row {
    fn new(phase: &'static str, per_s: Option<f64>) -> Row {
        Row { phase, per_s, share: None, ratio_to_limit: None, learnt: None }
    }
}

pub fn run(args: &Args, json: bool) -> Result<()> {
    let limit = peak();
    let mut rows = Vec::new();
    let improve = phase(args, 0.0)?;
    let learnt_per_s = improve.gradient_samples / improve.update_s;
    let of_iteration = |seconds: f64| Some(seconds / (improve.collect_s + improve.update_s));
    rows.push(Row {
        share: of_iteration(improve.collect_s),
        ..Row::new("rollouts", Some(improve.decisions / improve.collect_s))
    });
    rows.push(Row {
        share: of_iteration(improve.update_s),
        ratio_to_limit: Some(learnt_per_s * sample_flops(&Config::default()) / limit),
        ..Row::new("update", Some(learnt_per_s))
    });
    rows.push(Row::new("end to end", Some(end_to_end(args)?)));
    let label = phase(args, 1.0)?;
    rows.push(Row {
        share: Some(label.collect_s / (label.collect_s + label.update_s)),
        ..Row::new("labels", Some(label.labels / label.collect_s))
    });
    if let Some(python) = &args.python {
        rows.extend(peers(python, args.learn)?);
        if let Some(peer) = rows.last().and_then(|row| row.learnt) {
            rows.push(Row { learnt: Some(learn(peer.cost)?), ..Row::new("the same here", None) });
        }
    }
    if json {
        return tables::print_rows(&rows);
    }
    let mut table =
        table(&["phase", "per second", "share of an iteration", "of the limit", "CPU s", "to a cost of"]);
    let optional =
        |value: Option<f64>, digits| value.map_or_else(String::new, |value| format!("{value:.digits$}"));
    for row in &rows {
        table.add_row([
            row.phase.to_owned(),
            optional(row.per_s, 0),
            optional(row.share, 2),
            optional(row.ratio_to_limit, 2),
            optional(row.learnt.map(|learnt| learnt.cpu_s), 0),
            optional(row.learnt.map(|learnt| learnt.cost), 3),
        ]);
    }
    print(table)?;
    print(format_args!(
        "Rollouts are decisions, updates gradient samples of one decision with its shortlist. The limit: {:.0} GFLOP/s\n\
         of one core, multiplying matrices of {SIDE} by {SIDE}. Costs: over greedy-marginal, ten held-out worlds.",
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

/// A learner of the phase that labels end before: from labels (`until` 1) or from own choices (0).
fn learner(args: &Args, until: f64, validate_every: u64) -> Result<Learner> {
    let mut config = Config { validate_every, ..Config::default() };
    (config.evolution.until, config.labels.until) = (0.0, until);
    let course = Course::new(Scenarios::load(&args.scenario)?, config.tasks);
    Ok(Learner::new(config, vec![course]))
}

/// Decisions per second of PPO as it runs: the next experience is collected while it learns from the last.
fn end_to_end(args: &Args) -> Result<f64> {
    let mut learner = learner(args, 0.0, u64::MAX)?;
    // There is nothing to learn from yet.
    step(&mut learner)?;
    let (started, mut decisions) = (Instant::now(), 0.0);
    for _ in 0..args.iterations.max(1) {
        decisions += step(&mut learner)?.decisions as f64;
    }
    Ok(decisions / started.elapsed().as_secs_f64())
}

fn step(learner: &mut Learner) -> Result<Metrics> {
    learner.step(0.0).map_err(|_| anyhow::anyhow!("a loss was no number"))
}

/// Iterations one after the other.
fn phase(args: &Args, until: f64) -> Result<Sums> {
    // Nothing is collected ahead, so that each phase is timed by itself.
    let mut learner = learner(args, until, 1)?;
    let mut sums = Sums::default();
    for _ in 0..args.iterations.max(1) {
        let before = learner.replay.len();
        let metrics = step(&mut learner)?;
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

/// What is learnt beside Stable-Baselines3, and on how many worlds it is judged.
const LEARNT: &str = "urban-sensing";
const ALPHA: f64 = 0.5;
const WORLDS: u64 = 10;
const MOST_ITERATIONS: usize = 200;

const PEERS: &str = include_str!("peers.py");
const SECONDS: usize = 3;

/// The same with PyTorch, and end to end with Stable-Baselines3.
fn peers(python: &PathBuf, minutes: usize) -> Result<Vec<Row>> {
    let config = Config::default();
    let (hidden, shortlist) = (config.network.hidden, config.network.shortlist);
    let shape = [INPUT_COUNT, hidden, shortlist, config.minibatch, config.epochs, SECONDS, minutes];
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
    for missing in ["pytorch_missing", "sb3_missing"] {
        if let Some(why) = figures[missing].as_str() {
            eprintln!("left out: {why}");
        }
    }
    let figure = |key: &str| figures[key].as_f64();
    let learnt = figure("sb3_cpu_s").zip(figure("sb3_cost")).map(|(cpu_s, cost)| Learnt { cpu_s, cost });
    let pytorch = Row::new("update in PyTorch, one thread", figure("pytorch"));
    let sb3 = Row { learnt, ..Row::new("end to end in Stable-Baselines3", figure("sb3")) };
    Ok([pytorch, sb3].into_iter().filter(|row| row.per_s.is_some()).collect())
}

/// PPO from random weights that no prices advise, until it costs as little.
fn learn(cost: f64) -> Result<Learnt> {
    let mut config = Config { alpha: Some(ALPHA), validate_every: 1, ..Config::default() };
    (config.evolution.until, config.labels.until, config.network.advised) = (0.0, 0.0, false);
    let scenario = Scenario::load(LEARNT)?;
    let course = Course::new(Scenarios::load(LEARNT)?, config.tasks);
    let reference = reference(&scenario);
    let worlds: Vec<Arc<World>> = (0..WORLDS).map(|seed| Arc::new(scenario.world(seed))).collect();
    let costs = |policy: &mut dyn Policy| -> Vec<f64> {
        let cost =
            |world| Figures::of(&play(world, policy, ALPHA, reference)).cost_per_task(ALPHA, reference);
        worlds.iter().map(cost).collect()
    };
    let greedy = costs(by_name("greedy-marginal", 0)?.as_mut());
    let mut learner = Learner::new(config, vec![course]);
    let mut cpu_s = 0.0;
    for _ in 0..MOST_ITERATIONS {
        let started = ProcessTime::now();
        step(&mut learner)?;
        cpu_s += started.elapsed().as_secs_f64();
        let ours = costs(&mut Learned::from_network("ppo", learner.playing()));
        let ratios = ours.iter().zip(&greedy).map(|(ours, its)| (ours / its).ln());
        let ours = (ratios.sum::<f64>() / WORLDS as f64).exp();
        if ours <= cost {
            return Ok(Learnt { cpu_s, cost: ours });
        }
    }
    bail!("PPO did not come to {cost:.3} of greedy-marginal in {MOST_ITERATIONS} iterations")
}
