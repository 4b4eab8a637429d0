//! A Gym-like episode: each step places one task.

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::observation::{Candidate, Observation, Reference};
use crate::outcome::{Elapsed, Outcome};
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

    /// What the policy has to answer now.
    pub fn next(&self) -> Next<'_> {
        let Some(task) = self.pending else { return Next::Terminated };
        let observation = self.observe(task).expect("a pending task has a candidate");
        if self.decisions >= self.limit { Next::Truncated(observation) } else { Next::Decide(observation) }
    }

    fn observe(&self, task: u32) -> Option<Observation<'_>> {
        let planned = &self.world.tasks[task as usize].task;
        Observation::new(&self.simulation.cluster, planned, u64::from(task), self.alpha, self.reference)
    }

    /// Index in [`World::tasks`] of the task that waits, if one does.
    pub fn pending(&self) -> Option<u32> {
        self.pending
    }

    /// Places the waiting task on one of its candidates and runs on to the next decision. Returns
    /// what happened in between.
    ///
    /// # Panics
    /// When nothing waits or the candidate is not of this decision: see [`Episode::next`].
    pub fn step(&mut self, choice: &Candidate) -> Elapsed {
        let task = self.pending.take().expect("a step answers a waiting task");
        let planned = &self.world.tasks[task as usize].task;
        let cluster = &self.simulation.cluster;
        assert!(cluster.can_run(planned, choice.node), "node {} cannot run task {task}", choice.node);
        let expected_end = cluster.now.after_s(choice.completion_s());
        self.simulation.place(task, choice.node, expected_end);
        self.decisions += 1;
        self.advance();
        std::mem::take(&mut self.elapsed)
    }

    /// Runs to the next task that some node can run.
    fn advance(&mut self) {
        while let Some(task) = self.simulation.next_arrival() {
            if self.can_be_placed(task) {
                self.pending = Some(task);
                break;
            }
            self.simulation.reject(task);
        }
        self.elapsed = self.simulation.take_elapsed();
    }

    fn can_be_placed(&self, task: u32) -> bool {
        let planned = &self.world.tasks[task as usize].task;
        (0..self.world.topology.nodes.len())
            .any(|node| self.simulation.cluster.can_run(planned, node as NodeId))
    }

    /// The facts as they stand.
    pub fn cluster(&self) -> &Cluster {
        &self.simulation.cluster
    }

    pub fn alpha(&self) -> f64 {
        self.alpha
    }

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
