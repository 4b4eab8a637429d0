//! How good could it be? What no policy can beat, and what knowledge of the future is worth.
//!
//! All of them are of one world at one α, in cost per task ([`Reference::cost`] of data moved and response
//! time per task). The first three hold where every task completes whatever is decided: see [`applies`].
//!
//! - [`lower_bound`]: no schedule costs less. Every task runs where it costs least, alone, over idle
//!   links, with nothing to pull.
//! - [`relaxation`]: tighter, for small worlds. Images and data have to be brought, once for each node
//!   that uses them; which nodes those are is chosen at the least cost by a constraint solver.
//! - [`optimum`]: the least cost there is, proved by searching all decisions in the simulator itself; for
//!   a handful of tasks.
//! - [`hindsight`]: a good schedule, found by local search with full knowledge, also of faults: above the
//!   optimum, and as a rule below what a policy can do that does not know what comes.

use std::sync::Arc;

use remora_env::cluster::Item;
use remora_env::observation::{Candidate, Reference};
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
            let spent = spent + next.cost_of(elapsed);
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

/// What became of a whole world: tasks that did not complete, and what it cost. Less of the first is better whatever
/// the second.
type Total = (usize, f64);

/// Plays an episode to its end with given nodes, by task, and the node that costs least by estimate where one takes its
/// task no longer; `before` is what came to pass until now.
fn finish(mut episode: Episode, nodes: &[NodeId], before: Total) -> Total {
    let (failed, mut cost) = before;
    // Decisions come in another order where tasks follow each other, so a node belongs to its task.
    while let Some(task) = episode.pending() {
        cost += step_to(&mut episode, nodes[task as usize]);
    }
    (failed + failures(&episode), cost)
}

/// Places the waiting task on a node, or where it costs least by estimate if it is not taken there; returns what came to
/// pass until the next decision costs.
fn step_to(episode: &mut Episode, node: NodeId) -> f64 {
    let node = if episode.accepts(node) { node } else { by_cost(episode)[0] };
    let elapsed = episode.step(node);
    episode.cost_of(elapsed)
}

/// Tasks of an episode that have ended without a result.
fn failures(episode: &Episode) -> usize {
    episode.outcomes().iter().filter(|outcome| !outcome.is_completed()).count()
}

/// Local search from the nodes that a policy chose (by task), with full knowledge of the world: in the order of the
/// decisions, each of a task's most promising nodes is tried with everything else as it was, and the best is kept;
/// again and again, until nothing is gained any more or `tries` schedules were played. Faults strike as they do.
pub fn hindsight(
    world: &Arc<World>,
    alpha: f64,
    reference: Reference,
    start: Vec<NodeId>,
    tries: u64,
) -> Found {
    let begin = || Episode::new(Arc::clone(world), alpha, reference);
    let mut search = Sweeps { best: finish(begin(), &start, (0, 0.0)), nodes: start, tries };
    loop {
        let before = search.best;
        search.sweep(begin());
        if search.tries == 0 || !is_less(search.best, before) {
            break;
        }
    }
    let cost = search.best.1 / world.tasks.len().max(1) as f64;
    Found { nodes: search.nodes, cost, proved: false }
}

/// Whether one total is better than another by more than rounding.
fn is_less(a: Total, b: Total) -> bool {
    a.0 < b.0 || a.0 == b.0 && a.1 < b.1 * (1.0 - 1e-9)
}

struct Sweeps {
    nodes: Vec<NodeId>,
    /// What these nodes come to.
    best: Total,
    /// Schedules that may still be played.
    tries: u64,
}

/// Nodes of a task that a sweep tries.
const WIDTH: usize = 8;

impl Sweeps {
    /// Once over all decisions of an episode.
    fn sweep(&mut self, mut episode: Episode) {
        let mut spent = (0, 0.0);
        while let Next::Decide(observation) = episode.next() {
            let task = observation.id as usize;
            let promising: Vec<NodeId> =
                observation.shortlist(WIDTH).into_iter().map(|index| observation.node(index)).collect();
            for node in promising {
                let before = std::mem::replace(&mut self.nodes[task], node);
                if node == before || self.tries == 0 {
                    self.nodes[task] = before;
                    continue;
                }
                self.tries -= 1;
                let total = finish(episode.branch(), &self.nodes, spent);
                if is_less(total, self.best) {
                    self.best = total;
                } else {
                    self.nodes[task] = before;
                }
            }
            let cost = step_to(&mut episode, self.nodes[task]);
            spent = (failures(&episode), spent.1 + cost);
        }
    }
}

/// A schedule as a policy: each task goes where it says, or where it costs least by estimate if it is not taken there.
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
        let score = |candidate: &Candidate| match candidate.node == chosen {
            true => f64::INFINITY,
            false => -observation.cost(candidate),
        };
        scores.extend(observation.candidates().iter().map(score));
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
