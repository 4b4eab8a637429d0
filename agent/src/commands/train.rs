//! `remora train`: a policy from experience.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use remora_policies::Checkpoint;
use remora_trainer::Config;
use remora_trainer::device::Accelerator;
use remora_trainer::run::{Budget, Finished, Options, Report, train};

use super::{print, tables};

/// Train a policy.
#[derive(ClapArgs, Debug)]
#[command(
    after_help = "Example:\n  remora train --scenario urban-sensing --out runs/first --minutes 5\n  tensorboard --logdir runs"
)]
pub struct Args {
    /// What to train on: built-in names, families or files [default: the built-in scenarios].
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Folder of the run [default: runs/seed-N, numbered on where it exists].
    #[arg(long, required_if_eq("resume", "true"))]
    out: Option<PathBuf>,
    /// TOML file with hyper-parameters; see config.toml of any run.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The same seed and steps give the same bytes.
    #[arg(long)]
    seed: Option<u64>,
    /// Stop after this many iterations.
    #[arg(long, conflicts_with = "minutes")]
    steps: Option<u64>,
    /// Stop after this much time; how far that goes depends on the machine.
    #[arg(long)]
    minutes: Option<f64>,
    /// Go on with the interrupted run in --out.
    #[arg(long)]
    resume: bool,
    /// Begin with the weights of a checkpoint: its path, or `pretrained`.
    #[arg(long, conflicts_with = "resume")]
    from: Option<String>,
    /// What computes the gradients: cpu, wgpu or cuda.
    #[arg(long, value_parser = device)]
    device: Option<Accelerator>,
}

fn device(text: &str) -> Result<Accelerator, String> {
    let named = Accelerator::ALL.iter().find(|(name, _)| *name == text);
    named.map(|(_, device)| *device).ok_or_else(|| "want cpu, wgpu or cuda".to_owned())
}

pub fn run(args: &Args, json: bool) -> Result<()> {
    let config = configuration(args)?;
    let budget = match args.minutes {
        Some(minutes) if minutes.is_finite() && minutes > 0.0 => Budget::Minutes(minutes),
        Some(minutes) => bail!("--minutes is {minutes}, want a number above 0"),
        None => Budget::Iterations,
    };
    let folder = args.out.clone().unwrap_or_else(|| free_folder(config.seed));
    let from = args.from.as_deref().map(Checkpoint::named).transpose()?;
    let options = Options { folder: folder.clone(), budget, resume: args.resume, from };
    let finished = with_progress(config, &options)?;
    if json {
        return tables::print_rows(&[serde_json::json!({
            "checkpoint": finished.best,
            "iterations": finished.iterations,
            "validation_cost_over_greedy_marginal": finished.validation,
        })]);
    }
    print(format_args!(
        "{} iterations; the best checkpoint costs {:.3} of greedy-marginal on validation worlds",
        finished.iterations, finished.validation
    ))?;
    print(format_args!("checkpoint: {}", finished.best.display()))?;
    print(format_args!("curves:     tensorboard --logdir {}", folder.display()))?;
    print(format_args!(
        "next:       remora evaluate --scenario urban-sensing --policy kube-default,greedy-marginal,{}",
        finished.best.display()
    ))
}

/// The first of `runs/seed-N`, `runs/seed-N-2`, … that does not exist.
fn free_folder(seed: u64) -> PathBuf {
    let name = |attempt: u32| match attempt {
        1 => PathBuf::from(format!("runs/seed-{seed}")),
        _ => PathBuf::from(format!("runs/seed-{seed}-{attempt}")),
    };
    (1..).map(name).find(|folder| !folder.exists()).expect("some number is free")
}

fn configuration(args: &Args) -> Result<Config> {
    let mut config = configuration_from(args.config.as_deref())?;
    if !args.scenario.is_empty() {
        config.scenarios.clone_from(&args.scenario);
    }
    config.seed = args.seed.unwrap_or(config.seed);
    config.device = args.device.unwrap_or(config.device);
    config.iterations = args.steps.unwrap_or(config.iterations);
    Ok(config)
}

/// The configuration in a file, or the default one.
pub fn configuration_from(path: Option<&Path>) -> Result<Config> {
    let Some(path) = path else { return Ok(Config::default()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Config::parse(&text).with_context(|| path.display().to_string())
}

/// Trains behind a progress bar.
pub fn with_progress(config: Config, options: &Options) -> Result<Finished> {
    const PARTS: u64 = 1000;
    let bar = tables::progress(PARTS, "training {bar:30} {percent:>3} %  {msg}  {eta} left");
    let mut against_greedy = String::from("—");
    let mut watch = |report: &Report<'_>| {
        if let Some(validation) = &report.line.validation {
            against_greedy = format!("{:.3}", validation.cost);
        }
        bar.set_position((report.progress * PARTS as f64) as u64);
        bar.set_message(format!(
            "iteration {}  {against_greedy} of greedy's cost  {:.0} decisions/s",
            report.line.iteration, report.decisions_per_s
        ));
    };
    let finished = train(config, options, &mut watch);
    bar.finish_and_clear();
    Ok(finished?)
}
