//! `remora evaluate`: policies side by side on worlds that training never sees.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use remora_env::Scenarios;
use remora_env::scenario::built_in;
use remora_policies::usual;
use remora_trainer::evaluate::{Plan, evaluate, job_count};
use remora_trainer::journal::Journal;
use remora_trainer::report::{Page, render};
use remora_trainer::run::Line;
use remora_trainer::summary::Evaluation;

use super::{print, tables};
use crate::files::write;

/// Compare policies on worlds that training never sees.
#[derive(ClapArgs, Debug)]
#[command(
    after_help = "Example:\n  remora evaluate --scenario urban-sensing --policy kube-default,skippy,pretrained --alpha 0,0.5,1 --html report.html"
)]
pub struct Args {
    /// Built-in names, families or files [default: the built-in scenarios].
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Names of heuristics, `pretrained`, paths of checkpoints or of tuned weights, or what knows the future:
    /// `hindsight` and, for a handful of tasks, `optimum` [default: the usual heuristics and pretrained].
    #[arg(long, value_delimiter = ',')]
    policy: Vec<String>,
    /// Number of worlds per scenario; of a family each is of another member.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Of a family, how many of these worlds are of one member; intervals are over members.
    #[arg(long, default_value_t = 1)]
    per_member: u64,
    /// Positions of the dial, 0 (only response time) to 1 (only data moved).
    #[arg(long, value_delimiter = ',', default_value = "0.5", value_parser = super::alpha)]
    alpha: Vec<f64>,
    /// Also write a page with plots.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Folder for everything: rows as they are played, evaluation.json, report.html. An evaluation that was
    /// interrupted goes on where it was; one that is done is read again.
    #[arg(long)]
    out: Option<PathBuf>,
    /// How many schedules `hindsight` tries for each world.
    #[arg(long, default_value_t = 1000)]
    tries: u64,
}

pub fn run(args: &Args, json: bool) -> Result<()> {
    // Training and validation draw from larger seeds.
    const MOST: u64 = 1_000_000;
    if !(1..=MOST).contains(&args.seeds) {
        bail!("--seeds is {}, want 1 to {MOST}", args.seeds);
    }
    if args.per_member == 0 {
        bail!("--per-member is 0, want at least 1");
    }
    let plan = plan(args)?;
    let journal = match &args.out {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            Journal::open(&folder.join("rows.jsonl"), &plan)?
        }
        None => Journal::default(),
    };
    let evaluation = run_plan(&plan, &journal)?;
    let summary = format!("{} worlds per scenario, the same for every policy.", args.seeds);
    let in_folder = args.out.as_ref().map(|folder| folder.join("report.html"));
    for path in args.html.iter().chain(&in_folder) {
        write_report(path, "Remora: evaluation", &summary, &evaluation, &[])?;
        eprintln!("wrote {}", path.display());
    }
    if let Some(folder) = &args.out {
        write(&folder.join("evaluation.json"), serde_json::to_string_pretty(&evaluation)?)?;
    }
    if json {
        return tables::print_json(&evaluation);
    }
    for &alpha in &args.alpha {
        print(format_args!("α = {alpha}, mean of {} worlds per scenario", args.seeds))?;
        print(tables::evaluation(&evaluation, alpha))?;
    }
    print(tables::LEGEND)
}

fn plan(args: &Args) -> Result<Plan> {
    let scenarios: Vec<String> = if args.scenario.is_empty() {
        built_in().map(str::to_owned).collect()
    } else {
        args.scenario.clone()
    };
    let mut policies = args.policy.clone();
    if policies.is_empty() {
        policies = usual().map(str::to_owned).collect();
        policies.push("pretrained".to_owned());
    }
    let scenarios: Result<Vec<_>, _> = scenarios.iter().map(|name| Scenarios::load(name)).collect();
    let Args { seeds, per_member, tries, .. } = *args;
    Ok(Plan { scenarios: scenarios?, policies, alphas: args.alpha.clone(), seeds, per_member, tries })
}

/// Evaluates behind a progress bar.
pub fn run_plan(plan: &Plan, journal: &Journal) -> Result<Evaluation> {
    let bar = tables::progress(job_count(plan), "evaluating {bar:30} {pos}/{len} episodes  {eta} left");
    let evaluation = evaluate(plan, journal, &|| bar.inc(1));
    bar.finish_and_clear();
    Ok(evaluation?)
}

/// Writes the page with the plots.
pub fn write_report(
    path: &Path,
    title: &str,
    summary: &str,
    evaluation: &Evaluation,
    lines: &[Line],
) -> Result<()> {
    write(path, render(&Page { title, summary, evaluation, lines }))
}
