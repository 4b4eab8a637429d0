//! `remora bench shortlist`: what it costs to look closer at a few candidates only.

use std::sync::Arc;

use anyhow::{Result, bail};
use burn::tensor::Device;
use clap::Args as ClapArgs;
use remora_env::observation::{Observation, Reference};
use remora_env::{Episode, Next, Scenario};
use remora_policies::network::ActorCritic;
use remora_policies::{Checkpoint, Learned, choose};
use serde::Serialize;

use super::env::mixed;
use crate::commands::{print, table, tables};

#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Whose choices: `pretrained`, or the path of a checkpoint.
    #[arg(long, default_value = "pretrained")]
    policy: String,
    /// Cluster sizes.
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,10000")]
    nodes: Vec<u32>,
    /// A scenario in their place, such as one that a service recorded.
    #[arg(long)]
    scenario: Option<String>,
    /// Candidates that are looked at.
    #[arg(long, value_delimiter = ',', default_value = "4,8,16,32,64")]
    sizes: Vec<usize>,
    /// Decisions that are looked back on.
    #[arg(long, default_value_t = 1000)]
    decisions: usize,
    /// The dial.
    #[arg(long, default_value_t = 0.5, value_parser = crate::commands::alpha)]
    alpha: f64,
}

/// What one size of the shortlist came to. Costs are those that the network's prices expect.
#[derive(Clone, Debug, Serialize)]
struct Row {
    nodes: usize,
    shortlist: usize,
    decisions: usize,
    /// Share of the decisions whose cheapest candidate was not on the list.
    left_out: f64,
    /// How much dearer the cheapest on the list was than the cheapest of all: mean and most.
    regret: f64,
    worst_regret: f64,
    /// Share in which the network chose another node than with all candidates on its list, and how much dearer its
    /// choices were on average; below 0 where they were cheaper.
    differs: f64,
    dearer: f64,
}

/// Sums over decisions.
#[derive(Clone, Debug, Default)]
struct Sums {
    left_out: f64,
    regret: f64,
    worst_regret: f64,
    differs: f64,
    cost: f64,
}

/// Has a network decide with short lists of several sizes, and prints what each size costs.
///
/// # Errors
/// When an argument is wrong, or a policy or scenario cannot be loaded.
pub fn run(args: &Args, json: bool) -> Result<()> {
    if args.sizes.contains(&0) || args.decisions == 0 {
        bail!("--sizes and --decisions want numbers above 0");
    }
    let network = Checkpoint::named(&args.policy)?.network(&Device::flex())?;
    let scenarios = match &args.scenario {
        Some(name) => vec![Scenario::load(name)?],
        None => args
            .nodes
            .iter()
            .map(|&nodes| Scenario::parse(&mixed(nodes), "bench", None))
            .collect::<Result<_, _>>()?,
    };
    let mut rows = Vec::new();
    for scenario in scenarios {
        rows.extend(measure(&scenario, &network, args));
    }
    if json { tables::print_rows(&rows) } else { print(show(&rows)) }
}

/// The network with another shortlist.
fn looking_at(network: &ActorCritic, size: usize) -> Learned {
    let mut network = network.clone();
    network.config.shortlist = size;
    Learned::from_network("network", network)
}

/// Lets the network play, and at each decision tries other sizes.
fn measure(scenario: &Scenario, network: &ActorCritic, args: &Args) -> Vec<Row> {
    let world = Arc::new(scenario.world(1));
    let nodes = world.topology.nodes.len();
    let mut episode = Episode::new(world, args.alpha, Reference::new(10.0, 1e8));
    let (mut player, mut all) = (looking_at(network, network.config.shortlist), looking_at(network, nodes));
    let mut tried: Vec<_> =
        args.sizes.iter().map(|&size| (looking_at(network, size), Sums::default())).collect();
    let (mut decisions, mut cost) = (0, 0.0);
    while decisions < args.decisions {
        let Next::Decide(observation) = episode.next() else { break };
        let everybody: Vec<_> = (0..observation.count()).collect();
        let costs = network.prices.costs(&observation, &observation.look(&everybody));
        let chosen = choose(&mut all, &observation).index;
        for ((policy, sums), &size) in tried.iter_mut().zip(&args.sizes) {
            sums.add(&observation, &costs, size, chosen, choose(policy, &observation).index);
        }
        cost += costs[chosen];
        decisions += 1;
        let node = choose(&mut player, &observation).node;
        episode.step(node);
    }
    let count = decisions.max(1) as f64;
    let row = |((_, sums), &shortlist): (&(Learned, Sums), &usize)| Row {
        nodes,
        shortlist,
        decisions,
        left_out: sums.left_out / count,
        regret: sums.regret / count,
        worst_regret: sums.worst_regret,
        differs: sums.differs / count,
        dearer: sums.cost / cost - 1.0,
    };
    tried.iter().zip(&args.sizes).map(row).collect()
}

impl Sums {
    /// A decision with what all candidates cost, the network's choice among all, and its choice of the shortlist.
    fn add(&mut self, observation: &Observation<'_>, costs: &[f64], size: usize, all: usize, chosen: usize) {
        let least = |costs: &mut dyn Iterator<Item = f64>| costs.fold(f64::INFINITY, f64::min);
        let best = least(&mut costs.iter().copied());
        let listed = least(&mut observation.shortlist(size).iter().map(|&index| costs[index]));
        let regret = if best > 0.0 { listed / best - 1.0 } else { 0.0 };
        self.left_out += f64::from(listed > best);
        self.regret += regret;
        self.worst_regret = self.worst_regret.max(regret);
        self.differs += f64::from(all != chosen);
        self.cost += costs[chosen];
    }
}

fn show(rows: &[Row]) -> String {
    let header = ["nodes", "shortlist", "best left out", "regret", "at worst", "other choice", "dearer"];
    let mut table = table(&header);
    for row in rows {
        let percent = |share: f64| format!("{:.2} %", 100.0 * share);
        table.add_row([
            row.nodes.to_string(),
            row.shortlist.to_string(),
            percent(row.left_out),
            percent(row.regret),
            percent(row.worst_regret),
            percent(row.differs),
            percent(row.dearer),
        ]);
    }
    format!(
        "{table}\nCosts are what the network's own prices expect. Regret: of the cheapest on the list against the cheapest \
         of all\ncandidates. Other choice: the network chose otherwise than with everybody on its list; dearer: what its \
         choices\ncost against those."
    )
}
