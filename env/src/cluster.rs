//! The facts about a cluster at one moment: what is allocated, what is queued, what is stored
//! where, which links are busy.
//!
//! The simulator keeps one as its truth, the service keeps one from what orchestrators report, and
//! both hand it to the same [`Observation`](crate::Observation). Nothing here knows the future.

mod allocation;
mod arrivals;
mod lack;
mod links;
mod storage;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use self::arrivals::Rate;
pub use self::lack::Lack;
pub use self::storage::Item;
use self::storage::{Arriving, LayerNodes, Stored};
use crate::catalogue::{Catalogue, DatasetId, Task};
pub use crate::fit::Class;
use crate::fit::Fits;
use crate::time::Time;
use crate::topology::{NodeId, Topology};

/// Identity of a placed task; the simulator counts arrivals, the service counts decisions.
pub type TaskId = u64;

/// A task that was placed and has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Commitment {
    pub id: TaskId,
    pub task: Arc<Task>,
    /// When it is expected to end: estimated at its placement, again when its node admits it, and as those
    /// that it shares the node with come and go.
    pub expected_end: Time,
    /// How long it is expected to take once admitted.
    pub span: Time,
    /// Whether the node has set its requests aside; otherwise it waits in the node's queue.
    pub admitted: bool,
    /// Which accelerators it holds, as indices into [`NodeState::accelerator_free_millis`].
    pub accelerators: Vec<u32>,
}

/// How long a task is expected to wait in the queue of its node, and to take from then on, and what it brings there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    pub wait: Time,
    pub span: Time,
    /// Bytes of its image and inputs that are neither there nor on their way.
    pub brought_bytes: u64,
}

impl Commitment {
    /// When it is expected to end, as it looks at `now`: see [`Time::expected_from`].
    pub fn expected_end_from(&self, now: Time) -> Time {
        self.expected_end.expected_from(now, self.span)
    }
}

impl NodeState {
    /// What the node has set resources aside for.
    pub fn admitted(&self) -> impl Iterator<Item = &Commitment> {
        self.commitments.iter().filter(|commitment| commitment.admitted)
    }
}

/// What is true of one node now.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeState {
    /// It is there and runs what it is given.
    pub up: bool,
    /// It may be given more.
    pub accepting: bool,
    pub cpu_free_millis: u32,
    pub memory_free_bytes: u64,
    /// CPU that admitted tasks use while executing; may exceed the capacity.
    pub cpu_use_millis: u64,
    /// Thousandths free of each accelerator.
    pub accelerator_free_millis: Vec<u32>,
    /// Tasks placed here that have not ended, oldest first.
    pub commitments: Vec<Commitment>,
    /// Of those, how many wait for resources.
    pub queued: u32,
    pub disk_used_bytes: u64,
    disk: BTreeMap<Item, Stored>,
}

/// The facts about a cluster at one moment.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub topology: Arc<Topology>,
    pub catalogue: Arc<Catalogue>,
    pub now: Time,
    /// Shared between clones until one of them changes: a clone costs a count per node.
    pub nodes: Vec<Arc<NodeState>>,
    fits: Arc<Fits>,
    /// Transfers under way on each channel.
    channel_load: Vec<u32>,
    /// What each channel can carry now, bytes per second.
    channel_capacity: Vec<f64>,
    /// What one more transfer could expect of each channel; follows from the two above.
    channel_share: Vec<f64>,
    layer_present: LayerNodes,
    layer_arriving: LayerNodes,
    arriving: BTreeMap<(Item, NodeId), Arriving>,
    /// For each dataset to how many nodes it is on its way.
    dataset_arriving: Vec<u32>,
    /// Nodes with the current version of each dataset, in ascending order.
    dataset_holders: Vec<Arc<Vec<NodeId>>>,
    /// How often each dataset was renewed: a copy of an older version is worthless.
    dataset_version: Vec<u32>,
    /// See [`Cluster::waited_for_copy_s`] and [`Cluster::image_lack`].
    dataset_waited_s: Vec<f64>,
    image_lack: Vec<Lack>,
    /// Arrivals per image, and of all tasks.
    image_rate: Vec<Rate>,
    total_rate: Rate,
}

impl Cluster {
    /// An idle cluster: datasets at their homes, no image anywhere.
    pub fn new(topology: Arc<Topology>, catalogue: Arc<Catalogue>) -> Cluster {
        let nodes = topology
            .nodes
            .iter()
            .map(|node| NodeState {
                up: true,
                accepting: true,
                cpu_free_millis: node.cpu_millis,
                memory_free_bytes: node.memory_bytes,
                cpu_use_millis: 0,
                accelerator_free_millis: vec![
                    1000;
                    node.accelerator.as_ref().map_or(0, |(_, n)| *n as usize)
                ],
                commitments: Vec::new(),
                queued: 0,
                disk_used_bytes: 0,
                disk: BTreeMap::new(),
            })
            .map(Arc::new)
            .collect();
        let layers = LayerNodes::new(catalogue.layers.len(), topology.nodes.len());
        let mut cluster = Cluster {
            now: Time::ZERO,
            nodes,
            fits: Arc::new(Fits::new(&topology, &catalogue)),
            channel_load: vec![0; topology.channels().len()],
            channel_capacity: topology.channels().iter().map(|c| c.capacity_bytes_per_s).collect(),
            channel_share: topology.channels().iter().map(|c| c.capacity_bytes_per_s).collect(),
            layer_present: layers.clone(),
            layer_arriving: layers,
            arriving: BTreeMap::new(),
            dataset_arriving: vec![0; catalogue.datasets.len()],
            dataset_holders: vec![Arc::default(); catalogue.datasets.len()],
            dataset_version: vec![0; catalogue.datasets.len()],
            dataset_waited_s: vec![0.0; catalogue.datasets.len()],
            image_lack: vec![Lack::default(); catalogue.images.len()],
            image_rate: vec![Rate::default(); catalogue.images.len()],
            total_rate: Rate::default(),
            topology,
            catalogue,
        };
        for dataset in 0..cluster.catalogue.datasets.len() {
            for &home in &Arc::clone(&cluster.catalogue).datasets[dataset].homes {
                cluster.store(home, Item::Dataset(dataset as DatasetId), true);
            }
        }
        cluster
    }

    fn node_mut(&mut self, node: NodeId) -> &mut NodeState {
        Arc::make_mut(&mut self.nodes[node as usize])
    }

    /// Checks that every count equals the sum of its parts.
    ///
    /// # Panics
    /// On a book that does not balance: a bug of this crate, never of its input.
    pub fn check(&self) {
        for (index, state) in self.nodes.iter().enumerate() {
            let spec = &self.topology.nodes[index];
            let admitted = || state.commitments.iter().filter(|commitment| commitment.admitted);
            let kind = |commitment: &Commitment| self.catalogue.kind(&commitment.task).clone();
            let sum = |of: &dyn Fn(&Commitment) -> u64| admitted().map(of).sum::<u64>();
            let cpu = sum(&|c| u64::from(kind(c).requests.cpu_millis));
            assert_eq!(
                cpu + u64::from(state.cpu_free_millis),
                u64::from(spec.cpu_millis),
                "cpu of {}",
                spec.name
            );
            let memory = sum(&|c| kind(c).requests.memory_bytes);
            assert_eq!(memory + state.memory_free_bytes, spec.memory_bytes, "memory of {}", spec.name);
            let used = sum(&|c| u64::from(kind(c).cpu_use_millis));
            assert_eq!(used, state.cpu_use_millis, "cpu use of {}", spec.name);
            let held = sum(&|c| c.accelerators.len() as u64 * u64::from(kind(c).requests.accelerator_millis));
            let free: u64 = state.accelerator_free_millis.iter().map(|&free| u64::from(free)).sum();
            let whole = 1000 * state.accelerator_free_millis.len() as u64;
            assert_eq!(held + free, whole, "accelerators of {}", spec.name);
            let queued = state.commitments.len() - admitted().count();
            assert_eq!(queued, state.queued as usize, "queue of {}", spec.name);
            let disk: u64 = state.disk.values().map(|stored| stored.bytes).sum();
            assert_eq!(disk, state.disk_used_bytes, "disk of {}", spec.name);
        }
    }
}
