//! `remora ablate`: what each part of the learner is worth.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use remora_policies::network::Blind;
use remora_trainer::Config;
use remora_trainer::config::Baseline;
use remora_trainer::run::{ALPHAS, Budget, Finished, Options, Validation};
use serde::Serialize;

use super::train::{configuration_from, with_progress};
use super::{print, table, tables};

/// Train variants of the learner for the same time each, and compare them.
#[derive(ClapArgs, Debug)]
#[command(after_help = "Example:\n  remora ablate --minutes 10 --out runs/ablation")]
pub struct Args {
    /// Folder for the runs, one in it for each variant.
    #[arg(long)]
    out: PathBuf,
    /// Time for each variant.
    #[arg(long, default_value_t = 10.0, conflicts_with = "steps")]
    minutes: f64,
    /// Iterations for each variant instead.
    #[arg(long)]
    steps: Option<u64>,
    /// TOML file with the hyper-parameters that all variants share.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Only these variants.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// A change of the recipe.
struct Variant {
    name: &'static str,
    change: fn(&mut Config),
}

/// The shipped recipe finds prices and learns from labels. What a network makes of its inputs shows without
/// prices, which say most of it already.
const VARIANTS: [Variant; 16] = [
    Variant { name: "shipped", change: |_| {} },
    Variant { name: "prices-only", change: |config| config.evolution.until = 1.0 },
    Variant { name: "labels-only", change: |config| config.evolution.until = 0.0 },
    Variant { name: "ppo-only", change: |config| phases(config, 0.0, 0.0) },
    Variant { name: "prices-then-ppo", change: |config| phases(config, config.evolution.until, 0.0) },
    Variant {
        name: "critic",
        change: |config| {
            phases(config, 0.0, 0.0);
            config.baseline = Baseline::Critic;
        },
    },
    Variant { name: "no-prices", change: unadvised },
    Variant { name: "no-prices-no-alpha", change: |config| blind(config, Blind::Alpha) },
    Variant { name: "no-prices-no-relative-features", change: |config| blind(config, Blind::Relative) },
    Variant { name: "no-prices-no-parts", change: |config| blind(config, Blind::Parts) },
    Variant { name: "no-prices-no-storage", change: |config| blind(config, Blind::Storage) },
    Variant { name: "no-prices-no-nodes", change: |config| blind(config, Blind::Nodes) },
    Variant { name: "no-prices-no-links", change: |config| blind(config, Blind::Links) },
    Variant { name: "no-prices-no-whole", change: |config| blind(config, Blind::Whole) },
    Variant { name: "context", change: |config| config.network.context = true },
    Variant { name: "shortlist-of-64", change: |config| config.network.shortlist = 64 },
];

/// Until where in a run prices evolve, and labels are made.
fn phases(config: &mut Config, evolution: f64, labels: f64) {
    (config.evolution.until, config.labels.until) = (evolution, labels);
}

fn unadvised(config: &mut Config) {
    config.network.advised = false;
    config.evolution.until = 0.0;
}

fn blind(config: &mut Config, to: Blind) {
    unadvised(config);
    config.network.blind_to = Some(to);
}

#[derive(Debug, Serialize)]
struct Row {
    variant: &'static str,
    iterations: u64,
    decisions: u64,
    #[serde(flatten)]
    validation: Validation,
}

pub fn run(args: &Args, json: bool) -> Result<()> {
    let known = || VARIANTS.iter().map(|variant| variant.name);
    if let Some(unknown) = args.only.iter().find(|name| !known().any(|known| known == *name)) {
        bail!("--only {unknown:?} is no variant: known are {}", known().collect::<Vec<_>>().join(", "));
    }
    if !(args.minutes.is_finite() && args.minutes > 0.0) {
        bail!("--minutes is {}, want a number above 0", args.minutes);
    }
    let mut shared = configuration_from(args.config.as_deref())?;
    shared.iterations = args.steps.unwrap_or(shared.iterations);
    let budget = if args.steps.is_some() { Budget::Iterations } else { Budget::Minutes(args.minutes) };
    let mut rows = Vec::new();
    for variant in
        VARIANTS.iter().filter(|v| args.only.is_empty() || args.only.iter().any(|name| name == v.name))
    {
        let mut config = shared.clone();
        (variant.change)(&mut config);
        let options = Options { folder: args.out.join(variant.name), budget, resume: false, from: None };
        eprintln!("{}", variant.name);
        rows.push(row(variant.name, &with_progress(config, &options)?)?);
    }
    if json {
        return tables::print_rows(&rows);
    }
    print(show(&rows))?;
    print(
        "Cost over greedy-marginal on validation worlds at the best checkpoint, all α and each; below 1 is better.",
    )
}

fn row(variant: &'static str, finished: &Finished) -> Result<Row> {
    let measured = finished.lines.iter().filter_map(|line| line.validation.as_ref());
    let best = measured.min_by(|a, b| a.cost.total_cmp(&b.cost)).context("a run ends with a validation")?;
    Ok(Row {
        variant,
        iterations: finished.iterations,
        decisions: finished.lines.last().map_or(0, |line| line.decisions),
        validation: best.clone(),
    })
}

fn show(rows: &[Row]) -> impl std::fmt::Display {
    let alphas: Vec<String> = ALPHAS.iter().map(|alpha| format!("α = {alpha}")).collect();
    let mut header = vec!["variant", "iterations", "all α"];
    header.extend(alphas.iter().map(String::as_str));
    let mut table = table(&header);
    for row in rows {
        let mut cells = vec![row.variant.to_owned(), row.iterations.to_string()];
        let costs = std::iter::once(&row.validation.cost).chain(&row.validation.by_alpha);
        cells.extend(costs.map(|cost| format!("{cost:.3}")));
        table.add_row(cells);
    }
    table
}
