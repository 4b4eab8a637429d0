//! One seeded instance of a scenario: everything that is decided before the first task arrives.

mod arrivals;
mod catalogue;
mod faults;
mod modulation;
mod topology;

use std::sync::Arc;

pub(crate) use arrivals::job;
pub(crate) use catalogue::homes_among;
pub(crate) use topology::{build_topology, member};

use crate::catalogue::{Catalogue, DatasetId, Task};
use crate::cluster::{Cluster, Item};
use crate::faults::Faults;
use crate::scenario::Scenario;
use crate::time::Time;
use crate::topology::{NodeId, Topology};

/// When a planned task arrives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    At(Time),
    /// When all tasks that list it as a follower have completed.
    Later,
}

/// A task that will arrive.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub name: Arc<str>,
    pub task: Arc<Task>,
    pub when: When,
    /// Dataset of which new data appears at its home with this arrival.
    pub renews: Option<DatasetId>,
    /// Tasks that wait for this one to complete, each at a higher index than this one.
    pub followers: Vec<u32>,
    /// How many tasks it waits for itself.
    pub awaits: u32,
    /// Quantile of the execution time, in (0, 1): the same on whatever node it runs, so that
    /// policies are compared on equal luck.
    pub luck: f64,
}

/// One seeded instance of a scenario.
#[derive(Clone, Debug)]
pub struct World {
    pub name: String,
    pub seed: u64,
    pub topology: Arc<Topology>,
    pub catalogue: Arc<Catalogue>,
    /// In order of arrival; followers come after the tasks they follow.
    pub tasks: Vec<Planned>,
    pub faults: Faults,
    /// What is on disks at the start besides the datasets' homes.
    pub(crate) warm: Vec<(NodeId, Item)>,
}

impl World {
    pub(crate) fn new(scenario: &Scenario, seed: u64) -> World {
        let (topology, varying) = topology::build(scenario);
        let topology = Arc::new(topology);
        let mut catalogue = catalogue::build_catalogue(scenario, &topology, seed);
        let tasks = match &scenario.trace {
            Some(trace) => {
                let limit = scenario.file.workload.tasks.map_or(usize::MAX, |tasks| tasks as usize);
                arrivals::replay(trace.arrivals().take(limit), &mut catalogue, seed)
            }
            None => arrivals::draw(scenario, seed),
        };
        let warm = catalogue::draw_warm(scenario, &topology, &catalogue, seed);
        let faults = faults::build_faults(scenario, &topology, &varying, seed);
        let name = scenario.file.name.clone();
        World { name, seed, topology, catalogue: Arc::new(catalogue), tasks, faults, warm }
    }

    /// The cluster before the first arrival.
    pub fn initial_cluster(&self) -> Cluster {
        let mut cluster = Cluster::new(Arc::clone(&self.topology), Arc::clone(&self.catalogue));
        for &(node, item) in &self.warm {
            cluster.store(node, item, true);
        }
        cluster
    }
}
