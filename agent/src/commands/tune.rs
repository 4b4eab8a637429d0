//! `remora tune`: weights of a heuristic.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use remora_env::Scenarios;
use remora_policies::tuned::{TUNABLE, Tunable, TunedFile};
use remora_trainer::tune::{Objective, Plan, Tuned, Weighted, tune};

use super::{print, table, tables};
use crate::files::write;

/// Find weights for a heuristic: a Pareto set by NSGA-II, judged on worlds that the search did not see.
#[derive(ClapArgs, Debug)]
#[command(
    after_help = "Example:\n  remora tune --policy skippy --out runs/skippy\n  remora evaluate --policy skippy,runs/skippy/skippy-tuned.toml"
)]
pub struct Args {
    /// A heuristic with weights: kube-default, kube-thin, skippy, greedy-completion, greedy-marginal.
    #[arg(long, value_parser = tunable)]
    policy: &'static Tunable,
    /// What to search on: built-in names, families or files.
    #[arg(long, value_delimiter = ',', default_value = "train-family")]
    scenario: Vec<String>,
    /// Worlds per scenario, or members per family.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    worlds: u64,
    /// Position of the dial, 0 (only response time) to 1 (only data moved).
    #[arg(long, default_value = "0.5", value_parser = super::alpha)]
    alpha: f64,
    /// What is to be small: data, response, edge (share of execution outside it), usd, cost (at alpha).
    #[arg(long, value_delimiter = ',', default_value = "data,response,edge,usd,cost", value_parser = objective)]
    objectives: Vec<Objective>,
    /// How many weights live at a time; even.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(4..=1000))]
    population: u16,
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    generations: u16,
    /// The same seed finds the same weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for front.json and the cheapest weights as NAME-tuned.toml [default: runs/tune-NAME].
    #[arg(long)]
    out: Option<PathBuf>,
}

fn tunable(name: &str) -> Result<&'static Tunable, String> {
    let names: Vec<&str> = TUNABLE.iter().map(|tunable| tunable.name).collect();
    Tunable::named(name).ok_or_else(|| format!("has no weights, want one of {}", names.join(", ")))
}

fn objective(name: &str) -> Result<Objective, String> {
    let names: Vec<&str> = Objective::ALL.iter().map(|(name, _)| *name).collect();
    let known = Objective::ALL.iter().find(|(known, _)| *known == name);
    known.map(|(_, objective)| *objective).ok_or_else(|| format!("want some of {}", names.join(", ")))
}

pub fn run(args: &Args, json: bool) -> Result<()> {
    if args.population % 2 == 1 {
        bail!("--population is {}, want an even number", args.population);
    }
    let scenarios: Result<Vec<_>, _> = args.scenario.iter().map(|name| Scenarios::load(name)).collect();
    let plan = Plan {
        tunable: args.policy,
        scenarios: scenarios?,
        worlds: args.worlds,
        alpha: args.alpha,
        objectives: args.objectives.clone(),
        population: args.population.into(),
        generations: args.generations.into(),
        seed: args.seed,
    };
    let default = || PathBuf::from(format!("runs/tune-{}", args.policy.name));
    let folder = args.out.clone().unwrap_or_else(default);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let bar = tables::progress(plan.episodes(), "tuning {bar:30} {pos}/{len} episodes  {eta} left");
    let tuned = tune(&plan, &|| bar.inc(1));
    bar.finish_and_clear();
    keep(&folder, args.policy, &tuned)?;
    if json {
        return tables::print_rows(&[serde_json::to_value(&tuned)?]);
    }
    report(&folder, args.policy, &tuned)
}

fn keep(folder: &Path, tunable: &Tunable, tuned: &Tuned) -> Result<()> {
    write(&folder.join("front.json"), serde_json::to_string_pretty(tuned)?)?;
    let names = tunable.weights.iter().map(|(name, ..)| (*name).to_owned());
    let weights = names.zip(tuned.front[0].weights.iter().copied()).collect();
    let file = toml::to_string(&TunedFile { policy: tunable.name.to_owned(), weights })?;
    write(&folder.join(format!("{}-tuned.toml", tunable.name)), file)
}

fn report(folder: &Path, tunable: &Tunable, tuned: &Tuned) -> Result<()> {
    let names = tunable.weights.iter().map(|(name, ..)| *name);
    let header: Vec<&str> = ["cost", "moved", "response", "cloud", "usd"].into_iter().chain(names).collect();
    let mut table = table(&header);
    for Weighted { weights, data_moved, response, cloud_share, usd, cost } in &tuned.front {
        let figures =
            [*cost, *data_moved, *response, *cloud_share, *usd].map(|figure| format!("{figure:.3}"));
        table.add_row(figures.into_iter().chain(weights.iter().map(|weight| format!("{weight:.2}"))));
    }
    print(table)?;
    print(format_args!(
        "\n\
         None of these is worse than another in every objective; the cheapest at α = {} comes first.\n\
         cost, moved, response  against kube-default on the same worlds\n\
         cloud                  share of execution outside the edge\n\
         usd                    per thousand tasks\n\n\
         On worlds that the search did not see, the first costs {} of {} as it is.\n\
         wrote {} and {}-tuned.toml",
        tuned.alpha,
        tuned.validation,
        tunable.name,
        folder.join("front.json").display(),
        folder.join(tunable.name).display(),
    ))
}
