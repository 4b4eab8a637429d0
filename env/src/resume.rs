//! Futures that could follow the facts of a live cluster, of which there is no simulation: one that goes on from them.
//!
//! What is admitted executes until its expected end, whatever it has still to do; what is queued begins when there is
//! room. What is on its way to a node arrives over the links that it crosses, which carry nothing else. Links stay as they
//! are now and nodes that are away stay away. Arrivals are those of the recent past over again (a bootstrap, each with
//! the gap before it), execution times are drawn.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::catalogue::Task;
use crate::cluster::{Cluster, Item, TaskId};
use crate::faults::Faults;
use crate::imagine::{HISTORY, again};
use crate::outcome::Outcome;
use crate::random::{Purpose, unit};
use crate::simulation::{Active, Event, Simulation};
use crate::time::Time;
use crate::topology::{Direction, NodeId};
use crate::transfers::{Cargo, Transfer};
use crate::world::{Planned, When, World};

/// The last tasks that arrived, in order.
#[derive(Clone, Debug, Default)]
pub struct Arrivals(VecDeque<(Time, Arc<Task>)>);

impl Arrivals {
    /// A task arrived; the oldest is forgotten where there are many.
    pub fn note(&mut self, now: Time, task: Arc<Task>) {
        if self.0.len() == HISTORY {
            self.0.pop_front();
        }
        self.0.push_back((now, task));
    }

    /// Up to `tasks` more arrivals from now on, none that no node could take.
    fn again(&self, cluster: &Cluster, seed: u64, tasks: usize) -> Vec<(Time, Arc<Task>)> {
        let before = self.0.iter().take(1).chain(&self.0);
        let gaps_s = self.0.iter().zip(before).map(|((at, _), (before, _))| at.since_s(*before)).collect();
        let drawn = again(gaps_s, cluster.now, seed).take(tasks);
        let placeable = |(_, task): &(Time, Arc<Task>)| {
            let takes = |node| cluster.nodes[node as usize].up && cluster.can_run(task, node);
            (0..cluster.nodes.len() as NodeId).any(takes)
        };
        drawn.map(|(at, chosen)| (at, Arc::clone(&self.0[chosen].1))).filter(placeable).collect()
    }
}

impl Simulation {
    /// Goes on from the facts of a cluster, where `pending` has just arrived.
    pub(crate) fn resume(
        facts: &Cluster,
        pending: &Task,
        arrivals: &Arrivals,
        seed: u64,
        tasks: usize,
    ) -> Simulation {
        let now = facts.now;
        let mut cluster = facts.clone();
        let (under_way, mut planned) = (cluster.take_loads(), cluster.renumber(seed));
        let first = planned.len() as u32;
        let pending = (now, Arc::new(pending.clone()));
        for (at, task) in std::iter::once(pending).chain(arrivals.again(facts, seed, tasks)) {
            planned.push(plan(seed, planned.len(), at, task));
        }
        let world = Arc::new(World {
            name: String::new(),
            seed,
            topology: Arc::clone(&facts.topology),
            catalogue: Arc::clone(&facts.catalogue),
            tasks: planned,
            faults: Faults::default(),
            warm: Vec::new(),
        });
        let mut simulation = Simulation::of(Arc::clone(&world), cluster);
        for (index, planned) in world.tasks.iter().enumerate().skip(first as usize) {
            if let When::At(at) = planned.when {
                simulation.schedule(at, Event::Arrive(index as u32));
            }
        }
        simulation.resume_transfers(under_way);
        for node in 0..facts.nodes.len() as NodeId {
            simulation.resume_tasks(node);
        }
        simulation
    }

    /// Sends what is left of everything that is on its way.
    fn resume_transfers(&mut self, under_way: Vec<(NodeId, Item, f64)>) {
        for (node, item, share) in under_way {
            let (root, bytes, version) = self.source(node, item);
            let Some(root) = root else {
                self.cluster.store(node, item, true);
                continue;
            };
            let left = (bytes as f64 * share).ceil() as u64;
            let cargo = Cargo::Item { node, item, version };
            self.carry(Transfer::new(cargo, root, node, Direction::From, left.max(1)), 0.0);
        }
    }

    /// What is admitted on a node executes, what is queued there waits for it.
    fn resume_tasks(&mut self, node: NodeId) {
        let now = self.cluster.now;
        let capacity = f64::from(self.world.topology.nodes[node as usize].cpu_millis);
        let state = Arc::clone(&self.cluster.nodes[node as usize]);
        let speed = (capacity / state.cpu_use_millis as f64).min(1.0);
        for commitment in &state.commitments {
            let outcome = Outcome { node: Some(node), ..Outcome::arrived(commitment.id, now) };
            let active = Active { awaiting: 0, pinned: Vec::new(), outcome };
            self.active.insert(commitment.id as u32, active);
            if commitment.admitted {
                let left_s = commitment.expected_end_from(now).since_s(now);
                let cpu_millis = self.world.catalogue.kind(&commitment.task).cpu_use_millis;
                self.executors[node as usize].begin(now, commitment.id as u32, left_s * speed, cpu_millis);
            }
        }
        self.announce_execution(node);
        for admitted in self.cluster.admit_queued(node) {
            self.admitted(admitted as u32, node);
        }
    }
}

impl Cluster {
    /// Numbers what is placed from 0 on and plans it so: what is admitted has nothing more to move. What could never be
    /// admitted is taken away.
    fn renumber(&mut self, seed: u64) -> Vec<Planned> {
        let mut planned = Vec::new();
        for node in 0..self.nodes.len() as NodeId {
            let never = |queued: &Task| !self.nodes[node as usize].up || !self.can_run(queued, node);
            let placed = self.nodes[node as usize].commitments.iter();
            let lost: Vec<TaskId> =
                placed.filter(|other| !other.admitted && never(&other.task)).map(|other| other.id).collect();
            for id in lost {
                self.release(id, node);
            }
            for commitment in self.commitments_mut(node) {
                let task = &commitment.task;
                let bare = || {
                    Arc::new(Task { kind: task.kind, image: None, inputs: Vec::new(), outputs: Vec::new() })
                };
                let left = if commitment.admitted { bare() } else { Arc::clone(task) };
                commitment.id = planned.len() as TaskId;
                planned.push(plan(seed, planned.len(), Time::ZERO, left));
            }
        }
        planned
    }
}

fn plan(seed: u64, index: usize, at: Time, task: Arc<Task>) -> Planned {
    Planned {
        name: Arc::from(""),
        task,
        when: When::At(at),
        renews: None,
        followers: Vec::new(),
        awaits: 0,
        luck: unit(seed, Purpose::Execution, index as u64, 0),
    }
}
