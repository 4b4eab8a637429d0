//! Calibration: from what was decided and what became of it, how much slower or faster the real nodes and
//! links are than the scenario says.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::episode::{Episode, Next};
use crate::observation::Reference;
use crate::outcome::Outcome;
use crate::scenario::{LinkFile, Scenario, SiteFile};
use crate::topology::NodeId;
use crate::trace::{Ended, Record, Trace};
use crate::world::World;

/// What had to be changed, and what it was good for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// By task kind and device kind: execution times, over those of the scenario.
    pub executions: Vec<Factor>,
    /// By outermost site, or group of nodes outside of sites: durations of transfers to it, over those of
    /// the scenario.
    pub transfers: Vec<Factor>,
    /// Median over the tasks of |simulated − recorded| response time, over the recorded: before and after.
    pub error: [f64; 2],
    /// Tasks that were compared.
    pub tasks: usize,
}

/// A factor, and on how many tasks it rests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Factor {
    pub of: String,
    pub factor: f64,
    pub tasks: usize,
}

/// Fewer tasks say nothing.
const LEAST_TASKS: usize = 5;
/// Contention couples what is corrected: it is corrected so many times.
const ROUNDS: usize = 3;
/// Bytes below which a transfer's duration is that of its delay.
const LEAST_BYTES: u64 = 100_000;

/// A task as recorded and as simulated.
struct Pair<'a> {
    kind: &'a str,
    node: NodeId,
    recorded: &'a Ended,
    simulated: Outcome,
}

/// Plays the recorded decisions of a scenario with a recorded trace again, compares what becomes of them, and
/// scales execution times and links until the two agree. `None` where nothing can be compared: no trace, or
/// no task with a decision and an outcome.
pub fn calibrate(recording: &Scenario, seed: u64) -> Option<(Scenario, Calibration)> {
    let mut scenario = recording.clone();
    let (mut executions, mut transfers) = (BTreeMap::new(), BTreeMap::new());
    let mut errors = Vec::new();
    let mut tasks = 0;
    for round in 0..=ROUNDS {
        let world = Arc::new(scenario.world(seed));
        let trace = recording.trace.as_ref()?;
        let pairs = pairs(&world, trace);
        if pairs.is_empty() {
            return None;
        }
        tasks = pairs.len();
        errors.push(median(pairs.iter().map(response_error).collect()));
        if round == ROUNDS {
            break;
        }
        let execution = |pair: &Pair<'_>| {
            let node = &world.topology.nodes[pair.node as usize];
            let simulated = pair.simulated.executed.since_s(pair.simulated.started);
            Some((
                (pair.kind.to_owned(), node.kind.clone()),
                pair.recorded.executed_s - pair.recorded.started_s,
                simulated,
            ))
        };
        for ((kind, device), factor) in factors(&pairs, execution) {
            scale_execution(&mut scenario, &world, &kind, &device, factor.0);
            merge(&mut executions, format!("{kind} on {device}"), factor);
        }
        let transfer = |pair: &Pair<'_>| {
            let moved = |image: u64, input: u64| image + input >= LEAST_BYTES;
            let both = moved(pair.recorded.image_bytes, pair.recorded.input_bytes)
                && moved(pair.simulated.image_bytes, pair.simulated.input_bytes);
            let group = group(&recording.file.topology, &world.topology.nodes[pair.node as usize].name)?;
            let simulated = pair.simulated.fetched.since_s(pair.simulated.admitted);
            both.then_some((group, pair.recorded.fetched_s - pair.recorded.admitted_s, simulated))
        };
        for (group, factor) in factors(&pairs, transfer) {
            scale_links(&mut scenario, &group, factor.0);
            merge(&mut transfers, group, factor);
        }
    }
    let list = |factors: BTreeMap<String, (f64, usize)>| {
        factors.into_iter().map(|(of, (factor, tasks))| Factor { of, factor, tasks }).collect()
    };
    let calibration = Calibration {
        executions: list(executions),
        transfers: list(transfers),
        error: [errors[0], errors[ROUNDS]],
        tasks,
    };
    Some((scenario, calibration))
}

/// What becomes of recorded decisions in the simulator: each try of a task goes to the node that it went to. Where that
/// node is no candidate, or no decision is left, the cheapest is taken.
pub fn replay(world: &Arc<World>, trace: &Trace) -> Vec<Outcome> {
    let mut decided: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for record in &trace.records {
        if let Record::Decision(decision) = record {
            decided.entry(&decision.task).or_default().push(&decision.node);
        }
    }
    let names: Vec<&str> = trace.arrivals().map(|arrival| arrival.name.as_str()).collect();
    let nodes = nodes(world);
    let mut episode = Episode::new(Arc::clone(world), 0.5, Reference::new(1.0, 1e6));
    let mut tries: BTreeMap<u64, usize> = BTreeMap::new();
    while let Next::Decide(observation) = episode.next() {
        let task = observation.id;
        let tried = tries.entry(task).or_default();
        let recorded = decided.get(names[task as usize]).and_then(|nodes| nodes.get(*tried));
        *tried += 1;
        let node = recorded.and_then(|name| nodes.get(name)).copied();
        let cheapest = || {
            let costs = observation.candidates().iter().map(|c| (observation.cost(c), c.node));
            costs.min_by(|a, b| a.0.total_cmp(&b.0)).expect("an observation has a candidate").1
        };
        // Where the cluster was another at that moment: what a scheduler would do then.
        let node =
            node.filter(|node| observation.nodes().any(|other| other == *node)).unwrap_or_else(cheapest);
        episode.step(node);
    }
    episode.outcomes().to_vec()
}

fn nodes(world: &World) -> BTreeMap<&str, NodeId> {
    (0..).zip(&world.topology.nodes).map(|(id, node)| (node.name.as_str(), id)).collect()
}

/// Every task that completed as recorded and as simulated under the same decisions, on the same node.
fn pairs<'a>(world: &'a Arc<World>, trace: &'a Trace) -> Vec<Pair<'a>> {
    let mut ended: BTreeMap<&str, &Ended> = BTreeMap::new();
    for record in &trace.records {
        if let Record::Outcome(outcome) = record {
            ended.insert(&outcome.task, outcome);
        }
    }
    let names: Vec<&str> = trace.arrivals().map(|arrival| arrival.name.as_str()).collect();
    let nodes = nodes(world);
    let pair = |simulated: &Outcome| {
        let recorded: &Ended = ended.get(names[simulated.task as usize])?;
        let node = *nodes.get(recorded.node.as_deref()?)?;
        let kind = world.tasks[simulated.task as usize].task.kind;
        let same = recorded.end == simulated.end && simulated.is_completed() && simulated.node == Some(node);
        let kind = &world.catalogue.kinds[kind as usize].name;
        same.then(|| Pair { kind, node, recorded, simulated: simulated.clone() })
    };
    replay(world, trace).iter().filter_map(pair).collect()
}

fn response_error(pair: &Pair<'_>) -> f64 {
    let recorded = (pair.recorded.at_s - pair.recorded.arrived_s).max(1e-9);
    (pair.simulated.response_s() - recorded).abs() / recorded
}

/// The median of recorded over simulated seconds for each key, with the number of tasks, where there are
/// enough.
fn factors<'a, K: Ord>(
    pairs: &[Pair<'a>],
    of: impl Fn(&Pair<'a>) -> Option<(K, f64, f64)>,
) -> BTreeMap<K, (f64, usize)> {
    let mut ratios: BTreeMap<K, Vec<f64>> = BTreeMap::new();
    for (key, recorded, simulated) in pairs.iter().filter_map(of) {
        if recorded > 0.0 && simulated > 0.0 {
            ratios.entry(key).or_default().push(recorded / simulated);
        }
    }
    let enough = ratios.into_iter().filter(|(_, ratios)| ratios.len() >= LEAST_TASKS);
    enough
        .map(|(key, ratios)| {
            let count = ratios.len();
            (key, (median(ratios), count))
        })
        .collect()
}

fn merge(all: &mut BTreeMap<String, (f64, usize)>, of: String, (factor, tasks): (f64, usize)) {
    let entry = all.entry(of).or_insert((1.0, tasks));
    *entry = (entry.0 * factor, tasks);
}

/// Makes a kind's executions on a device so many times as long. Kinds that only the trace knows stay.
fn scale_execution(scenario: &mut Scenario, world: &World, kind: &str, device: &str, factor: f64) {
    let now = world.catalogue.kinds.iter().find(|known| known.name == kind);
    let now = now.and_then(|known| known.execution_on(device));
    let file = scenario.file.catalogue.tasks.iter_mut().find(|file| file.name == kind);
    if let (Some(file), Some(now)) = (file, now) {
        file.execution.insert(device.to_owned(), now.to_file(factor));
    }
}

/// The outermost site of a node, or its group where it has none.
fn group(topology: &crate::scenario::TopologyFile, node: &str) -> Option<String> {
    let outermost = node.split('/').next().unwrap_or(node);
    let is = |name: &str| {
        let rest = outermost.strip_prefix(name);
        rest.is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix('-').is_some_and(|n| n.parse::<u32>().is_ok())
        })
    };
    let sites = topology.sites.iter().map(|site| &site.name);
    sites.chain(topology.nodes.iter().map(|nodes| &nodes.name)).find(|name| is(name)).cloned()
}

/// Makes transfers over the links of a site, or of a group of nodes outside of sites, so many times as long.
fn scale_links(scenario: &mut Scenario, group: &str, factor: f64) {
    fn slow(link: &mut LinkFile, factor: f64) {
        link.up_mbps /= factor;
        link.down_mbps = link.down_mbps.map(|mbps| mbps / factor);
    }
    fn slow_site(site: &mut SiteFile, factor: f64) {
        slow(&mut site.uplink, factor);
        site.nodes.iter_mut().for_each(|nodes| slow(&mut nodes.link, factor));
        site.sites.iter_mut().for_each(|site| slow_site(site, factor));
    }
    let topology = &mut scenario.file.topology;
    topology.sites.iter_mut().filter(|site| site.name == group).for_each(|site| slow_site(site, factor));
    let nodes = topology.nodes.iter_mut().filter(|nodes| nodes.name == group);
    nodes.for_each(|nodes| slow(&mut nodes.link, factor));
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
