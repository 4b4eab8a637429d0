//! Recordings: an episode as a trace, with the scenario that replays it.

use std::collections::BTreeSet;

use crate::episode::Episode;
use crate::import::Imported;
use crate::outcome::Outcome;
use crate::scenario::Scenario;
use crate::time::Time;
use crate::topology::NodeId;
use crate::trace::{Arrival, Decision, Ended, Header, Record, Trace, VERSION};
use crate::world::{Planned, When, World};

/// Takes down the decisions of an episode while it is played.
#[derive(Clone, Debug)]
pub struct Recorder {
    policy: String,
    decisions: Vec<(Time, u32, NodeId)>,
}

impl Recorder {
    /// A recorder of what `policy` decides.
    pub fn new(policy: &str) -> Recorder {
        Recorder { policy: policy.to_owned(), decisions: Vec::new() }
    }

    /// Takes down that the waiting task goes to `node`; to be called before the step. Nothing where no
    /// task waits.
    pub fn decide(&mut self, episode: &Episode, node: NodeId) {
        let now = episode.cluster().now;
        self.decisions.extend(episode.pending().map(|task| (now, task, node)));
    }

    /// The episode so far: arrivals, decisions and outcomes, and the scenario to replay them on.
    ///
    /// Under the seed of the recorded world and the same decisions, the replay comes to the same
    /// outcomes, to the nanosecond. Under another seed the same tasks arrive with the same luck, and
    /// what is drawn about the cluster differs: where datasets live, what is warm, what fails.
    pub fn finish(self, scenario: &Scenario, episode: &Episode) -> Imported {
        let world = episode.world();
        let source = format!(
            "{} under {} at α = {}, seed {}",
            scenario.name(),
            self.policy,
            episode.alpha(),
            world.seed
        );
        let played =
            Played { source, policy: self.policy, alpha: episode.alpha(), decisions: self.decisions };
        played.on(scenario, world, episode.outcomes())
    }
}

/// What was decided in a world, in the simulator or elsewhere.
#[derive(Clone, Debug)]
pub struct Played {
    /// Where it comes from, for people.
    pub source: String,
    pub policy: String,
    pub alpha: f64,
    /// When which task went to which node, in any order.
    pub decisions: Vec<(Time, u32, NodeId)>,
}

impl Played {
    /// A trace of a world's arrivals with these decisions and outcomes, and the scenario that it replays on.
    pub fn on(self, scenario: &Scenario, world: &World, outcomes: &[Outcome]) -> Imported {
        let names = names(world);
        let mut records = arrivals(scenario, world, &names);
        records.extend(self.decisions.iter().map(|&(at, task, node)| {
            let decision = Decision {
                at_s: at.as_s(),
                task: names[task as usize].clone(),
                node: world.topology.nodes[node as usize].name.clone(),
                policy: self.policy.clone(),
                alpha: self.alpha,
                score: None,
                fallback: String::new(),
            };
            (at, Record::Decision(decision))
        }));
        let ended = |outcome| ended(world, &names, outcome);
        records.extend(outcomes.iter().map(|outcome| (outcome.completed, ended(outcome))));
        // At the same moment the order stays: a task arrives, is placed, and ends.
        records.sort_by_key(|(at, _)| *at);
        let mut file = scenario.file.clone();
        file.workload.streams.clear();
        file.workload.tasks = None;
        Imported {
            scenario: file,
            trace: Trace {
                header: Header { remora_trace: VERSION, source: self.source },
                records: records.into_iter().map(|(_, record)| record).collect(),
            },
            notes: vec![format!("the recorded world comes back under seed {}", world.seed)],
        }
    }
}

/// A name for every task, each another: those of the world, numbered on where two are alike.
fn names(world: &World) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let name = |(index, planned): (usize, &Planned)| {
        let mut name = planned.name.to_string();
        while !taken.insert(name.clone()) {
            name = format!("{}-{index}", name);
        }
        name
    };
    world.tasks.iter().enumerate().map(name).collect()
}

/// All arrivals, in their order. What comes after other tasks is known from the one before it on.
fn arrivals(scenario: &Scenario, world: &World, names: &[String]) -> Vec<(Time, Record)> {
    let mut after: Vec<Vec<String>> = vec![Vec::new(); world.tasks.len()];
    for (index, planned) in world.tasks.iter().enumerate() {
        for &follower in &planned.followers {
            after[follower as usize].push(names[index].clone());
        }
    }
    // What a replayed trace says of its tasks itself.
    let given: Vec<&Arrival> = scenario.trace.iter().flat_map(Trace::arrivals).collect();
    let mut known = Time::ZERO;
    let mut arrivals = Vec::new();
    for (index, planned) in world.tasks.iter().enumerate() {
        if let When::At(at) = planned.when {
            known = at;
        }
        let named = || named(world, planned);
        let mut arrival = given.get(index).map_or_else(named, |given| (*given).clone());
        arrival.at_s = known.as_s();
        arrival.name.clone_from(&names[index]);
        arrival.after = std::mem::take(&mut after[index]);
        arrival.luck = Some(planned.luck);
        arrivals.push((known, Record::Arrival(arrival)));
    }
    arrivals
}

/// A task by the names of the catalogue.
fn named(world: &World, planned: &Planned) -> Arrival {
    let catalogue = &world.catalogue;
    let datasets = |ids: &[u32]| ids.iter().map(|&id| catalogue.datasets[id as usize].name.clone()).collect();
    let task = &planned.task;
    Arrival {
        kind: Some(catalogue.kinds[task.kind as usize].name.clone()),
        image: task.image.map(|id| catalogue.images[id as usize].name.clone()),
        inputs: datasets(&task.inputs),
        outputs: datasets(&task.outputs),
        renews: planned.renews.map(|id| catalogue.datasets[id as usize].name.clone()),
        ..Arrival::default()
    }
}

fn ended(world: &World, names: &[String], outcome: &Outcome) -> Record {
    Record::Outcome(Ended {
        at_s: outcome.completed.as_s(),
        task: names[outcome.task as usize].clone(),
        end: outcome.end,
        node: outcome.node.map(|node| world.topology.nodes[node as usize].name.clone()),
        arrived_s: outcome.arrived.as_s(),
        admitted_s: outcome.admitted.as_s(),
        fetched_s: outcome.fetched.as_s(),
        started_s: outcome.started.as_s(),
        executed_s: outcome.executed.as_s(),
        image_bytes: outcome.image_bytes,
        input_bytes: outcome.input_bytes,
        output_bytes: outcome.output_bytes,
        moved_bytes: outcome.moved_bytes,
        wan_bytes: outcome.wan_bytes,
        retries: outcome.retries,
        deadline_missed: outcome.deadline_missed,
    })
}
