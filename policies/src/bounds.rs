//! How good could it be? What no policy can beat, and what knowledge of the future is worth.
//!
//! All three are of one world at one α, in cost per task ([`Reference::cost`] of data moved and response
//! time per task). They hold where every task completes whatever is decided: see [`applies`].
//!
//! - [`lower_bound`]: no schedule costs less. Every task runs where it costs least, alone, over idle
//!   links, with nothing to pull.
//! - [`relaxation`]: tighter, for small worlds. Images and data have to be brought, once for each node
//!   that uses them; which nodes those are is chosen at the least cost by a constraint solver.
//! - [`optimum`]: the least cost there is, proved by searching all decisions in the simulator itself; for
//!   a handful of tasks.
//! - [`hindsight`]: a good schedule, found by local search with full knowledge: above the optimum, and
//!   below what a policy can do that does not know what comes.

use std::sync::Arc;

use rand::RngExt;
use remora_env::cluster::Item;
use remora_env::observation::Reference;
use remora_env::random::{Purpose, stream};
use remora_env::topology::{Direction, NodeId};
use remora_env::{Cluster, Episode, Next, Observation, World};

use crate::Policy;

#[cfg(feature = "exact")]
mod relaxation;

#[cfg(feature = "exact")]
pub use relaxation::relaxation;

/// A schedule for a whole world, and what it costs per task.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Node of each task.
    pub nodes: Vec<NodeId>,
    pub cost: f64,
    /// Whether there is none better.
    pub proved: bool,
}

/// Whether bounds hold in a world: no faults and no limit on queues, so that no task can be lost, and some
/// node for every task.
pub fn applies(world: &World) -> bool {
    let cluster = world.initial_cluster();
    let nodes = 0..world.topology.nodes.len() as NodeId;
    let runs = |task| nodes.clone().any(|node| cluster.can_run(task, node));
    world.faults.processes.is_empty()
        && world.faults.telemetry.is_none()
        && world.topology.queue_limit.is_none()
        && world.tasks.iter().all(|planned| runs(&planned.task))
}

/// Least seconds and price-weighted bytes that a task takes on a node, whatever else happens.
#[derive(Clone, Copy, Debug)]
struct Least {
    seconds: f64,
    moved_bytes: f64,
}

/// For each node what a task takes there at least; `None` where it cannot run.
fn least(world: &World, cluster: &Cluster, task: u32, node: NodeId) -> Option<Least> {
    let planned = &world.tasks[task as usize];
    if !cluster.can_run(&planned.task, node) {
        return None;
    }
    let time = cluster.execution(&planned.task, node)?;
    let slowdown = world.faults.stragglers.map_or(1.0, |s| s.slowdown(world.seed, task, 0));
    let startup_s = world.topology.nodes[node as usize].startup_s;
    let mut least = Least { seconds: startup_s + time.quantile(planned.luck) * slowdown, moved_bytes: 0.0 };
    let mut store_s: f64 = 0.0;
    for &output in &planned.task.outputs {
        let dataset = &world.catalogue.datasets[output as usize];
        let home = dataset.homes.first().filter(|&&home| home != node);
        let path = home.and_then(|&home| world.topology.path(home, node, Direction::To));
        if let Some(path) = path {
            least.moved_bytes += dataset.bytes as f64 * path.price;
            // Several outputs may go at the same time, each over another way.
            store_s = store_s.max(dataset.bytes as f64 / path.bytes_per_s);
        }
    }
    least.seconds += store_s;
    Some(least)
}

/// The least cost of each task by itself.
fn least_costs(world: &World, alpha: f64, reference: Reference) -> Vec<f64> {
    let cluster = world.initial_cluster();
    let nodes = 0..world.topology.nodes.len() as NodeId;
    let of = |task: u32| {
        let least = nodes.clone().filter_map(|node| least(world, &cluster, task, node));
        let costs = least.map(|least| reference.cost(alpha, least.moved_bytes, least.seconds));
        costs.reduce(f64::min).unwrap_or(0.0)
    };
    (0..world.tasks.len() as u32).map(of).collect()
}

/// No schedule of this world costs less per task.
pub fn lower_bound(world: &World, alpha: f64, reference: Reference) -> f64 {
    least_costs(world, alpha, reference).iter().sum::<f64>() / world.tasks.len().max(1) as f64
}

/// Searches all decisions of a world for the least cost, depth first and the greedy choice first, cutting
/// off what cannot be better. `None` where more than `limit` decisions would have to be tried.
pub fn optimum(world: &Arc<World>, alpha: f64, reference: Reference, limit: u64) -> Option<Found> {
    let mut search = Exhaustive {
        alpha,
        reference,
        least: least_costs(world, alpha, reference),
        limit,
        path: vec![0; world.tasks.len()],
        best: None,
    };
    let undecided = search.least.iter().sum();
    search.descend(Episode::new(Arc::clone(world), alpha, reference), 0.0, undecided);
    let (cost, nodes) = search.best.filter(|_| search.limit > 0)?;
    Some(Found { nodes, cost: cost / world.tasks.len().max(1) as f64, proved: true })
}

struct Exhaustive {
    alpha: f64,
    reference: Reference,
    least: Vec<f64>,
    limit: u64,
    /// Node of each task, as far as decided.
    path: Vec<NodeId>,
    best: Option<(f64, Vec<NodeId>)>,
}

impl Exhaustive {
    /// Tries all ways to go on from an episode that has cost `spent`, whose undecided tasks cost at least
    /// `undecided`.
    fn descend(&mut self, episode: Episode, spent: f64, undecided: f64) {
        let Some(task) = episode.pending() else {
            if self.best.as_ref().is_none_or(|(best, _)| spent < *best) {
                self.best = Some((spent, self.path.clone()));
            }
            return;
        };
        let undecided = undecided - self.least[task as usize];
        for node in by_cost(&episode) {
            self.limit = self.limit.saturating_sub(1);
            if self.limit == 0 {
                return;
            }
            let mut next = episode.clone();
            let elapsed = next.step(node);
            let spent = spent + self.reference.cost(self.alpha, elapsed.moved_bytes, elapsed.task_seconds);
            // A rounding error is no reason to miss the best.
            let promising = |best: &(f64, Vec<NodeId>)| spent + undecided < best.0 * (1.0 + 1e-9);
            if self.best.as_ref().is_none_or(promising) {
                self.path[task as usize] = node;
                self.descend(next, spent, undecided);
            }
        }
    }
}

/// The candidates of the waiting task, the cheapest by estimate first.
fn by_cost(episode: &Episode) -> Vec<NodeId> {
    let Next::Decide(observation) = episode.next() else { return Vec::new() };
    let mut candidates = observation.candidates().to_vec();
    candidates.sort_by(|a, b| observation.cost(a).total_cmp(&observation.cost(b)));
    candidates.iter().map(|candidate| candidate.node).collect()
}

/// Plays given nodes in the order of decisions; returns the cost per task, or `None` where one of them
/// does not take its task.
fn cost_of(world: &Arc<World>, alpha: f64, reference: Reference, nodes: &[NodeId]) -> Option<f64> {
    let mut episode = Episode::new(Arc::clone(world), alpha, reference);
    let mut total = 0.0;
    // Decisions come in another order where tasks follow each other, so a node belongs to its task.
    while let Some(task) = episode.pending() {
        let node = nodes[task as usize];
        if !episode.accepts(node) {
            return None;
        }
        let elapsed = episode.step(node);
        total += reference.cost(alpha, elapsed.moved_bytes, elapsed.task_seconds);
    }
    Some(total / world.tasks.len().max(1) as f64)
}

/// Local search from the nodes that a policy chose (by task): another node for one task at a time, kept
/// where the whole schedule is better for it. Plays the world `tries` times.
pub fn hindsight(
    world: &Arc<World>,
    alpha: f64,
    reference: Reference,
    start: Vec<NodeId>,
    tries: u64,
) -> Option<Found> {
    let cluster = world.initial_cluster();
    let all = 0..world.topology.nodes.len() as NodeId;
    let runs =
        |task: usize| all.clone().filter(|&node| cluster.can_run(&world.tasks[task].task, node)).collect();
    let choices: Vec<Vec<NodeId>> = (0..world.tasks.len()).map(runs).collect();
    let mut cost = cost_of(world, alpha, reference, &start)?;
    let mut nodes = start;
    let mut rng = stream(world.seed, Purpose::LookAhead, u64::MAX >> 8);
    for _ in 0..tries {
        let task = rng.random_range(0..nodes.len());
        let node = choices[task][rng.random_range(0..choices[task].len())];
        let before = std::mem::replace(&mut nodes[task], node);
        match cost_of(world, alpha, reference, &nodes) {
            Some(better) if node != before && better < cost => cost = better,
            _ => nodes[task] = before,
        }
    }
    Some(Found { nodes, cost, proved: false })
}

/// A schedule as a policy: each task goes where it says.
#[derive(Clone, Debug)]
pub struct Scheduled {
    pub name: &'static str,
    /// Node of each task.
    pub nodes: Vec<NodeId>,
}

impl Policy for Scheduled {
    fn name(&self) -> &str {
        self.name
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        let chosen = self.nodes[observation.id as usize];
        scores.extend(observation.nodes().map(|node| if node == chosen { 1.0 } else { 0.0 }));
    }
}

/// Where an episode ran each task.
pub fn nodes_of(episode: &Episode) -> Vec<NodeId> {
    let mut nodes = vec![0; episode.world().tasks.len()];
    for outcome in episode.outcomes() {
        nodes[outcome.task as usize] = outcome.node.unwrap_or(0);
    }
    nodes
}

/// Items that a task needs on a node and that are not there at the start, with bytes, price and way; for
/// the relaxation.
#[cfg_attr(not(feature = "exact"), allow(dead_code))]
fn to_bring(world: &World, cluster: &Cluster, task: u32, node: NodeId) -> Vec<(Item, Least)> {
    let planned = &world.tasks[task as usize];
    let needs = cluster.needs(&planned.task, node).into_iter();
    // What tasks write is also where they ran, without being brought.
    let written = |item: &Item| {
        let writes = |dataset: &_| world.tasks.iter().any(|other| other.task.outputs.contains(dataset));
        matches!(item, Item::Dataset(dataset) if writes(dataset))
    };
    let missing = needs.filter(|item| !cluster.has_item(*item, node) && !written(item));
    missing
        .filter_map(|item| {
            let (bytes, source, waits) = match item {
                Item::Layer(layer) => {
                    (world.catalogue.layers[layer as usize].bytes, world.topology.registry_of(node), true)
                }
                Item::Dataset(dataset) => {
                    let dataset = &world.catalogue.datasets[dataset as usize];
                    (dataset.bytes, world.topology.cheapest(&dataset.homes, node), false)
                }
            };
            let path = source.and_then(|source| world.topology.path(source, node, Direction::From))?;
            // Layers come over one way, so that those who wait for them wait for their sum. Data may come
            // over another at the same time.
            let seconds = if waits { bytes as f64 / path.bytes_per_s } else { 0.0 };
            Some((item, Least { seconds, moved_bytes: bytes as f64 * path.price }))
        })
        .collect()
}
