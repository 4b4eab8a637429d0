//! A Gym-like episode: each step places one task.

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::observation::{Candidate, Observation, Reference};
use crate::outcome::{Elapsed, End, Outcome};
use crate::resume::Arrivals;
use crate::simulation::Simulation;
use crate::topology::NodeId;
use crate::world::World;

/// What comes next. "Ended" and "cut off" are different: only what was cut off has a future to
/// estimate.
#[derive(Debug)]
pub enum Next<'a> {
    /// A task waits for a node.
    Decide(Observation<'a>),
    /// The step limit was reached with tasks still to come; this is where it stood.
    Truncated(Observation<'a>),
    /// Every task has its outcome.
    Terminated,
}

/// One run of a [`World`] under somebody's decisions.
///
/// - Observation: [`Observation`], one row per node that could run the task.
/// - Action: a node among the candidates.
/// - Snapshot and restore: [`Clone`]; [`Episode::branch`] where only the future matters.
/// - Facts between decisions: [`Elapsed`], from which the reward is computed.
/// - End: `Terminated` when every task has its outcome; `Truncated` at the step limit.
#[derive(Clone, Debug)]
pub struct Episode {
    world: Arc<World>,
    simulation: Simulation,
    alpha: f64,
    reference: Reference,
    limit: usize,
    decisions: usize,
    pending: Option<u32>,
    elapsed: Elapsed,
}

impl Episode {
    /// An episode that ends when all tasks have ended. `alpha` is in 0..=1.
    pub fn new(world: Arc<World>, alpha: f64, reference: Reference) -> Episode {
        let simulation = Simulation::new(Arc::clone(&world));
        let mut episode = Episode {
            world,
            simulation,
            alpha,
            reference,
            limit: usize::MAX,
            decisions: 0,
            pending: None,
            elapsed: Elapsed::default(),
        };
        episode.advance();
        episode
    }

    /// Cuts the episode off after this many decisions.
    pub fn with_limit(mut self, decisions: usize) -> Episode {
        self.limit = decisions;
        self
    }

    /// Checks all books after every event from now on, which is slow; see [`Episode::check`].
    pub fn audited(mut self) -> Episode {
        self.simulation.audited = true;
        self
    }

    /// What the policy has to answer now.
    pub fn next(&self) -> Next<'_> {
        let Some(task) = self.pending else { return Next::Terminated };
        let observation = self.observe(task).expect("a pending task has a candidate");
        if self.decisions >= self.limit { Next::Truncated(observation) } else { Next::Decide(observation) }
    }

    fn observe(&self, task: u32) -> Option<Observation<'_>> {
        let planned = &self.world.tasks[task as usize].task;
        let cluster = self.simulation.observed();
        let observation = Observation::new(cluster, planned, u64::from(task), self.alpha, self.reference);
        observation.map(|observation| observation.of_episode(self))
    }

    /// Whether a decision is to be made; false at the end and where the episode is cut off.
    pub fn goes_on(&self) -> bool {
        self.pending.is_some() && self.decisions < self.limit
    }

    /// Whether the node is a candidate for the task that waits; false if none waits.
    pub fn accepts(&self, node: NodeId) -> bool {
        let cluster = self.simulation.observed();
        self.pending.is_some_and(|task| {
            let task = &self.world.tasks[task as usize].task;
            cluster.can_run(task, node) && cluster.takes(task, node)
        })
    }

    /// Index in [`World::tasks`] of the task that waits, if one does.
    pub fn pending(&self) -> Option<u32> {
        self.pending
    }

    /// Places the waiting task on the node of one of its candidates and runs on to the next decision.
    /// Returns what happened in between.
    ///
    /// # Panics
    /// When nothing waits or the node is no candidate of this decision: see [`Episode::next`].
    pub fn step(&mut self, node: NodeId) -> Elapsed {
        let task = self.pending.take().expect("a step answers a waiting task");
        let planned = &self.world.tasks[task as usize].task;
        let cluster = self.simulation.observed();
        let choice = Candidate::of(cluster, planned, node);
        let choice = choice.unwrap_or_else(|| panic!("node {node} is no candidate for task {task}"));
        self.simulation.place(task, node, choice.expected());
        self.decisions += 1;
        self.advance();
        std::mem::take(&mut self.elapsed)
    }

    /// Runs to the next task that some node takes.
    fn advance(&mut self) {
        while let Some(task) = self.simulation.next_arrival() {
            let planned = &self.world.tasks[task as usize].task;
            let cluster = self.simulation.observed();
            let mut nodes = 0..self.world.topology.nodes.len() as NodeId;
            if nodes.clone().any(|node| cluster.can_run(planned, node) && cluster.takes(planned, node)) {
                self.pending = Some(task);
                break;
            }
            let runs = |node: NodeId| cluster.can_run(planned, node);
            if !nodes.clone().any(runs) {
                self.simulation.end(task, End::Unplaceable);
            } else if nodes.any(|node| runs(node) && cluster.nodes[node as usize].up) {
                self.simulation.end(task, End::TurnedAway);
            } else {
                // All nodes that could run it are away.
                self.simulation.postpone(task);
            }
        }
        self.elapsed = self.simulation.take_elapsed();
    }

    /// A copy for looking ahead, which begins without outcomes.
    pub fn branch(&mut self) -> Episode {
        Episode {
            world: Arc::clone(&self.world),
            simulation: self.simulation.branch(),
            elapsed: self.elapsed,
            ..*self
        }
    }

    /// A future of `tasks` more arrivals that could follow this moment, drawn with `seed` from what a
    /// policy may know: arrivals are those of the recent past over again, and nothing that has not
    /// happened yet happens as it will. Where the cluster's state is reported late, the present is imagined
    /// too. For looking ahead. `None` where nothing waits for a node, or what waits was lost since the last
    /// report.
    pub fn imagine(&self, seed: u64, tasks: usize) -> Option<Episode> {
        let simulation = self.simulation.imagine(self.pending?, seed, tasks)?;
        let world = Arc::clone(&simulation.world);
        let (limit, decisions, elapsed) = (usize::MAX, 0, Elapsed::default());
        Some(Episode { world, simulation, limit, decisions, elapsed, ..*self })
    }

    /// The same where there are only facts: see [`Observation::after`].
    pub(crate) fn resume(
        observation: &Observation<'_>,
        arrivals: &Arrivals,
        seed: u64,
        tasks: usize,
    ) -> Option<Episode> {
        let Observation { cluster, task, alpha, reference, .. } = *observation;
        let mut simulation = Simulation::resume(cluster, task, arrivals, seed, tasks);
        let pending = simulation.next_arrival();
        simulation.take_elapsed();
        Some(Episode {
            world: Arc::clone(&simulation.world),
            simulation,
            alpha,
            reference,
            limit: usize::MAX,
            decisions: 0,
            pending: Some(pending?),
            elapsed: Elapsed::default(),
        })
    }

    /// What came to pass costs at this episode's α, in units of its reference: see [`Reference::cost`].
    pub fn cost_of(&self, elapsed: Elapsed) -> f64 {
        self.reference.cost(self.alpha, elapsed.moved_bytes, elapsed.task_seconds)
    }

    /// Events processed so far, for benchmarks.
    pub fn events(&self) -> u64 {
        self.simulation.processed
    }

    /// The facts as they stand; what policies see may be older.
    pub fn cluster(&self) -> &Cluster {
        &self.simulation.cluster
    }

    /// Weight of data moved against response time, 0 to 1.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// What the dial's ends are measured in.
    pub fn reference(&self) -> Reference {
        self.reference
    }

    /// What is played.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Outcomes so far, in order of completion.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.simulation.outcomes
    }

    /// Checks all books.
    ///
    /// # Panics
    /// When they do not balance: a bug of this crate.
    pub fn check(&self) {
        self.simulation.check();
    }
}
