//! `remora testbed compare`: several policies, here and in the simulator.

use std::sync::Arc;

use anyhow::{Result, bail};
use remora_env::Scenario;
use remora_trainer::statistics::Ratio;

use super::{Common, Folder, played, prepare};
use crate::commands::{learn, print, table, tables};
use crate::files::write;
use crate::testbed::compare::{Bytes, Comparison, Errors, Figure, Ranking, Row, compare};
use crate::testbed::network::Network;
use crate::testbed::run::{Plan, Played};

/// Play worlds with several policies, here and in the simulator, and compare the two.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  remora testbed compare testbed --policies kube-default,skippy,greedy-marginal --tasks 60 --seeds 3"
)]
pub struct Args {
    /// Scenario: `testbed`, which is made for this, another built-in one, or a file.
    scenario: String,
    /// Who decides: names of heuristics, `pretrained`, paths of checkpoints.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "greedy-marginal,greedy-completion,skippy,kube-default,round-robin"
    )]
    policies: Vec<String>,
    /// How many worlds, from --seed on; intervals are over them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    #[command(flatten)]
    pub common: Common,
}

/// Plays all worlds with all policies, and prints how far the simulator is from what came of them.
///
/// # Errors
/// When an argument is wrong, the folder cannot be written, or something breaks or went wrong on the testbed.
pub async fn run(args: Args, json: bool) -> Result<()> {
    let Common { seed, speed, out, .. } = args.common.clone();
    let scenario = prepare(&args.scenario, &args.common)?;
    for policy in &args.policies {
        remora_policies::by_name(policy, seed)?;
    }
    let folder = Folder::new(out.as_deref())?;
    let runs = play_all(&args, &scenario, &folder).await?;
    let comparison = compare(&runs)?;
    if let Folder::Given(out) = &folder {
        write(&out.join("comparison.json"), serde_json::to_vec_pretty(&comparison)?)?;
    }
    if json {
        return tables::print_json(&comparison);
    }
    let network = runs.first().map_or("", |(_, played)| played.network);
    print(format_args!("{} on the {network} network, times and sizes divided by {speed}", scenario.name()))?;
    show(&comparison)
}

/// World by world, each policy in turn: what changes on the machine meanwhile falls on all of them.
async fn play_all(args: &Args, scenario: &Scenario, folder: &Folder) -> Result<Vec<(Plan, Played)>> {
    let first = args.common.seed;
    let mut runs: Vec<(Plan, Played)> = Vec::new();
    let mut network = None;
    for seed in first..first + args.seeds {
        let world = scenario.world(seed);
        // A network is made once for all: a name of a link is taken once, and seeds change no link.
        let network = match &network {
            Some(network) => network,
            None => network.insert(Arc::new(Network::new(world.topology).await?)),
        };
        for policy in &args.policies {
            let folder = folder.path().join(format!("{}-{seed}", policy.replace('/', "-")));
            let plan = Plan { seed, ..args.common.plan(scenario.clone(), policy.clone(), &folder) };
            let count = world.tasks.len();
            let played = played(&plan, network, count).await?;
            let problems = played.problems(count);
            if !problems.is_empty() {
                bail!("{policy}, seed {seed}: {}", problems.join("\n  "));
            }
            runs.push((plan, played));
        }
    }
    Ok(runs)
}

fn show(comparison: &Comparison) -> Result<()> {
    let rows = &comparison.rows;
    print(means(rows))?;
    print(over_first(rows))?;
    print(tasks(rows))?;
    print(causes(rows))?;
    print(orders(&comparison.ranking))?;
    if let Some(calibration) = &comparison.calibration {
        learn::show(calibration)?;
    }
    print(LEGEND)
}

/// Means over worlds.
fn means(rows: &[Row]) -> impl std::fmt::Display {
    let mut table = table(&[
        "policy",
        "response s",
        "simulated",
        "ratio",
        "moved MB",
        "simulated",
        "ratio",
        "cost",
        "simulated",
    ]);
    for row in rows {
        let figure = |Figure { measured, simulated, ratio, .. }: &Figure, unit: f64, digits: usize| {
            [measured, simulated]
                .map(|value| format!("{:.digits$}", value / unit))
                .into_iter()
                .chain([ratio.to_string()])
        };
        let cost = figure(&row.cost, 1.0, 3).take(2);
        let cells = figure(&row.response_s, 1.0, 2).chain(figure(&row.moved_bytes, 1e6, 1)).chain(cost);
        table.add_row([row.policy.clone()].into_iter().chain(cells));
    }
    table
}

/// Who costs what of the first policy.
fn over_first(rows: &[Row]) -> impl std::fmt::Display {
    let first = rows.first().map_or("", |row| &row.policy);
    let mut table = table(&[&format!("cost over {first}"), "measured", "simulated"]);
    for row in rows.iter().skip(1) {
        let ratios =
            [row.measured_over_first, row.simulated_over_first].map(|ratio: Ratio| ratio.to_string());
        table.add_row([row.policy.clone()].into_iter().chain(ratios));
    }
    table
}

/// Errors of tasks.
fn tasks(rows: &[Row]) -> impl std::fmt::Display {
    let mut table = table(&[
        "per task",
        "same node",
        "error s",
        "replayed",
        "calibrated",
        "error %",
        "replayed",
        "calibrated",
        "bytes %",
        "replayed",
    ]);
    for row in rows {
        let errors: [Errors; 3] = [row.decided, row.replayed, row.calibrated];
        let seconds = errors.map(|errors| format!("{:.3}", errors.response_s));
        let shares = errors.map(|errors| format!("{:.1}", 100.0 * errors.response_share));
        let moved = [row.decided, row.replayed].map(|errors| format!("{:.1}", 100.0 * errors.moved_share));
        let same = format!("{:.0} %", 100.0 * row.same_node);
        table.add_row([row.policy.clone(), same].into_iter().chain(seconds).chain(shares).chain(moved));
    }
    table
}

/// Whether both put policies in the same order.
fn orders(ranking: &[Ranking]) -> impl std::fmt::Display {
    let mut table = table(&["order of the policies by", "simulator", "Kendall's τ", "of single worlds"]);
    for Ranking { simulator, figure, tau, low, high } in ranking {
        let single = format!("{low:.2} to {high:.2}");
        table.add_row([(*figure).to_owned(), (*simulator).to_owned(), format!("{tau:.2}"), single]);
    }
    table
}

/// Why bytes differ.
fn causes(rows: &[Row]) -> impl std::fmt::Display {
    let mut table = table(&[
        "bytes, % of measured",
        "excess",
        "other decisions",
        "images",
        "inputs",
        "outputs",
        "other source",
        "not in both",
        "for another task",
    ]);
    for row in rows {
        let Bytes {
            excess,
            other_decisions,
            images,
            inputs,
            outputs,
            other_source,
            not_in_both,
            for_another_task,
        } = row.bytes;
        let shares = [excess, other_decisions, images, inputs, outputs, other_source, not_in_both];
        let shares = shares.map(|share| format!("{:+.1}", 100.0 * share));
        let shifted = format!("{:.1}", 100.0 * for_another_task);
        table.add_row([row.policy.clone()].into_iter().chain(shares).chain([shifted]));
    }
    table
}

const LEGEND: &str = "\
ratio             simulated over measured, with the 95 % interval of the paired worlds
error             median over tasks of |simulated − measured| response time; the policy decides in both
replayed          the same, the simulator under the decisions made here
calibrated        replayed in the simulator that was calibrated with the first run
bytes %           sum over tasks of |simulated − measured| bytes moved, of those measured
excess            simulated less measured bytes of all tasks; its causes, which add up to it:
other decisions   the policy decided otherwise in the simulator
images … outputs  under the same decisions, moved in one of the two only: evicted, shared, renewed meanwhile
other source      under the same decisions, the same bytes from elsewhere, at another price
not in both       tasks that completed in one of the two only
for another task  moved to the same node in both, for another of its tasks: errors of tasks that cancel in the sum";
