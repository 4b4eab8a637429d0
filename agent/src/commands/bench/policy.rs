//! `remora bench policy`: CPU time of one decision, observation included.

use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use cpu_time::ProcessTime;
use remora_env::observation::Reference;
use remora_env::{Episode, Next, Scenario};
use remora_policies::{HEURISTICS, Policy, by_name, choose};
use serde::Serialize;

use super::env::mixed;
use crate::commands::{print, table, tables};

#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Names of heuristics, `pretrained`, or paths [default: all heuristics but look-ahead, and pretrained].
    #[arg(long, value_delimiter = ',')]
    policy: Vec<String>,
    /// Cluster sizes.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000")]
    nodes: Vec<u32>,
    /// Each case is measured so often; the best counts.
    #[arg(long, default_value_t = 5)]
    repeats: u32,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    policy: String,
    nodes: u32,
    us_per_decision: f64,
    /// How many times as fast as skippy-core decides at the nearest size that it was measured at, for the
    /// policies that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio_to_skippy_core: Option<f64>,
}

/// CPU milliseconds per pod of skippy-core 0.1.1 at 100, 1,000 and 10,000 nodes, all nodes scored, Python
/// 3.8, one core of a shared machine of our kind: Skippy, and its model of Kubernetes.
const SKIPPY_CORE_MS: [(&str, [(u32, f64); 3]); 2] = [
    ("skippy", [(100, 1.17), (1000, 13.0), (10_000, 151.0)]),
    ("kube-thin", [(100, 0.66), (1000, 6.7), (10_000, 75.0)]),
];

/// Moments of an episode that are decided over and over.
const MOMENTS: usize = 16;
/// Decisions between two of them.
const APART: usize = 40;
/// Shortest measurement, seconds.
const AT_LEAST_S: f64 = 0.05;

pub fn run(args: &Args, json: bool) -> Result<()> {
    let mut policies = args.policy.clone();
    if policies.is_empty() {
        let quick = HEURISTICS.iter().map(|heuristic| heuristic.name).filter(|name| *name != "look-ahead");
        policies = quick.chain(["pretrained"]).map(str::to_owned).collect();
    }
    let mut rows = Vec::new();
    for &nodes in &args.nodes {
        let moments = moments(nodes)?;
        for name in &policies {
            let us_per_decision = measure(by_name(name, 0)?.as_mut(), &moments, args.repeats);
            let ratio_to_skippy_core = against_skippy_core(name, nodes, us_per_decision);
            rows.push(Row { policy: name.clone(), nodes, us_per_decision, ratio_to_skippy_core });
        }
    }
    if json {
        return tables::print_rows(&rows);
    }
    let mut table = table(&["policy", "nodes", "µs/decision", "skippy-core ×"]);
    for row in &rows {
        table.add_row([
            row.policy.clone(),
            row.nodes.to_string(),
            format!("{:.2}", row.us_per_decision),
            row.ratio_to_skippy_core.map_or_else(String::new, |ratio| format!("{ratio:.0}")),
        ]);
    }
    print(table)?;
    print(
        "CPU time of one core, the best of the repeats: finding the nodes that take the task, what the policy\n\
         reads of them, and its choice. The last column: how many times as fast as skippy-core in Python.",
    )
}

/// An episode at several moments, under some load.
fn moments(nodes: u32) -> Result<Vec<Episode>> {
    let world = Arc::new(Scenario::parse(&mixed(nodes), "bench", None)?.world(1));
    let mut episode = Episode::new(world, 0.5, Reference::new(10.0, 1e8));
    let mut policy = by_name("greedy-completion", 0)?;
    let mut moments = Vec::new();
    while moments.len() < MOMENTS {
        for _ in 0..APART {
            let Next::Decide(observation) = episode.next() else { break };
            let node = choose(policy.as_mut(), &observation).node;
            episode.step(node);
        }
        let moment = episode.imagine(0, 0).context("no task of the benchmark waits for a node any more")?;
        moments.push(moment);
    }
    Ok(moments)
}

/// CPU microseconds per decision, the best of `repeats`.
fn measure(policy: &mut dyn Policy, moments: &[Episode], repeats: u32) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..repeats.max(1) {
        let started = ProcessTime::now();
        let mut decisions = 0;
        while started.elapsed().as_secs_f64() < AT_LEAST_S {
            for moment in moments {
                let Next::Decide(observation) = moment.next() else { continue };
                std::hint::black_box(choose(policy, &observation).node);
                decisions += 1;
            }
        }
        best = best.min(started.elapsed().as_secs_f64() * 1e6 / f64::from(decisions));
    }
    best
}

fn against_skippy_core(policy: &str, nodes: u32, us: f64) -> Option<f64> {
    let (_, sizes) = SKIPPY_CORE_MS.iter().find(|(name, _)| *name == policy)?;
    let distance = |size: u32| (f64::from(size) / f64::from(nodes)).ln().abs();
    let nearest = sizes.iter().min_by(|(a, _), (b, _)| distance(*a).total_cmp(&distance(*b)));
    nearest.map(|(_, ms)| ms * 1e3 / us)
}
