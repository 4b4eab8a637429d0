//! What Skippy reads of a cluster to judge its nodes, each fact once for all nodes that share it.

use std::cell::OnceCell;
use std::num::NonZeroU32;

use remora_env::Observation;
use remora_env::bottleneck::Bottleneck;
use remora_env::catalogue::{DatasetId, Kind};
use remora_env::cluster::Class;
use remora_env::device::Arch;
use remora_env::topology::{Direction, NodeId, VertexId};

use crate::heuristics::{image_locality, whole};

/// What nodes alike have in common here.
#[derive(Clone, Copy, Debug)]
pub struct ClassFacts {
    arch: Arch,
    /// 10 at the edge, else nothing.
    pub edge: f64,
    /// How many wished-for capability labels the nodes have.
    pub capabilities: f64,
}

/// Facts of one decision.
pub struct Facts<'a> {
    observation: &'a Observation<'a>,
    faithful: bool,
    classes: Vec<ClassFacts>,
    cpu_millis: f64,
    memory_bytes: f64,
    /// Whole size of the image on each architecture.
    image_bytes: [f64; 3],
    /// Share of all nodes that have it.
    image_spread: OnceCell<f64>,
    /// For each architecture a bit for each node: whether the image is there or on its way there.
    there: [Vec<u64>; 3],
    /// Registry of the last node, and the way from it.
    registry: Option<(VertexId, Bottleneck<'a>)>,
    here: Here,
    /// What is read, and what is stored.
    data: Vec<Stored<'a>>,
    /// Who holds any of it.
    holders: Vec<NodeId>,
}

/// What nodes at one place of the network have in common: they stand together in the list of nodes.
#[derive(Clone, Copy, Debug, Default)]
struct Here {
    place: Option<NonZeroU32>,
    /// Nominal bytes per second from the registry.
    pull_per_s: Option<f64>,
    /// Whole seconds to pull the whole image on each architecture.
    pull_s: [f64; 3],
    /// Whether a node here holds some of the data.
    holds_data: bool,
    /// Seconds for data on the others, once known.
    data_s: Option<f64>,
}

/// A dataset and where it is stored.
struct Stored<'a> {
    dataset: DatasetId,
    bytes: f64,
    holders: Vec<(NodeId, Bottleneck<'a>)>,
}

impl<'a> Facts<'a> {
    pub fn new(observation: &'a Observation<'a>, faithful: bool) -> Facts<'a> {
        let (cluster, task) = (observation.cluster, observation.task);
        let Kind { prefers: wishes, requests, .. } = cluster.catalogue.kind(task);
        let of_class = |class: &Class| {
            let node = &cluster.topology.nodes[class.node as usize];
            let granted = wishes.iter().filter(|(key, value)| node.label(key) == Some(value)).count();
            let edge = if class.at_edge { 10.0 } else { 0.0 };
            ClassFacts { arch: class.arch, edge, capabilities: granted as f64 }
        };
        let layers = |arch: Arch| {
            task.image.map_or(&[][..], |image| cluster.catalogue.images[image as usize].layers(arch))
        };
        let image_bytes = |arch| task.image.and_then(|image| cluster.catalogue.image_bytes(image, arch));
        let looked_at = |datasets: &[DatasetId]| datasets.len().min(if faithful { 1 } else { usize::MAX });
        let stored = |dataset: &DatasetId, direction| Stored::new(observation, *dataset, direction, faithful);
        let inputs = &task.inputs[..looked_at(&task.inputs)];
        let outputs = &task.outputs[..looked_at(&task.outputs)];
        let inputs = inputs.iter().map(|dataset| stored(dataset, Direction::From));
        let data: Vec<_> =
            inputs.chain(outputs.iter().map(|dataset| stored(dataset, Direction::To))).collect();
        Facts {
            observation,
            faithful,
            classes: cluster.classes().iter().map(of_class).collect(),
            cpu_millis: f64::from(requests.cpu_millis),
            memory_bytes: requests.memory_bytes as f64,
            image_bytes: Arch::ALL.map(|arch| image_bytes(arch).unwrap_or(0) as f64),
            there: Arch::ALL.map(|arch| match layers(arch) {
                [] => Vec::new(),
                layers => cluster.have_or_await(layers),
            }),
            image_spread: OnceCell::new(),
            registry: None,
            here: Here::default(),
            holders: data
                .iter()
                .flat_map(|stored| stored.holders.iter().map(|(holder, _)| *holder))
                .collect(),
            data,
        }
    }

    /// Whether the task has no wish that a node could fulfil or not.
    pub fn wishes_nothing(&self) -> bool {
        self.classes.iter().all(|class| class.capabilities == 0.0)
    }

    #[inline]
    pub fn class(&self, node: NodeId) -> &ClassFacts {
        &self.classes[self.observation.cluster.class_of(node) as usize]
    }

    #[inline]
    pub fn balanced(&self, node: NodeId) -> f64 {
        let state = &self.observation.cluster.nodes[node as usize];
        let cpu = self.cpu_millis / f64::from(state.cpu_free_millis.max(1));
        let memory = self.memory_bytes / state.memory_free_bytes.max(1) as f64;
        if cpu >= 1.0 || memory >= 1.0 { 0.0 } else { whole((1.0 - (cpu - memory).abs()) * 10.0) }
    }

    /// 0 to 10, where the image is there or on its way.
    pub fn image_locality(&self, node: NodeId) -> f64 {
        let arch = self.class(node).arch;
        let bytes = if self.lacks(arch, node) { 0.0 } else { self.image_bytes[arch as usize] };
        whole(image_locality(bytes * self.image_spread(), 10.0))
    }

    fn image_spread(&self) -> f64 {
        let Observation { cluster, task, .. } = self.observation;
        *self.image_spread.get_or_init(|| {
            let with = task.image.map_or(0, |image| cluster.image_spread(image));
            f64::from(with) / cluster.nodes.len() as f64
        })
    }

    /// Whether part of the image is neither on the node nor on its way there.
    #[inline]
    fn lacks(&self, arch: Arch, node: NodeId) -> bool {
        // A task without image lacks none of it.
        self.there[arch as usize].get(node as usize / 64).is_some_and(|word| word >> (node % 64) & 1 == 0)
    }

    /// Whole seconds to pull the whole image if it is not there and nobody pulls it.
    #[inline(always)]
    pub fn whole_pull_s(&mut self, node: NodeId) -> f64 {
        let arch = self.class(node).arch;
        self.go_to(node);
        if self.lacks(arch, node) { self.here.pull_s[arch as usize] } else { 0.0 }
    }

    /// Seconds to pull what the node lacks of the image.
    pub fn pull_s(&mut self, node: NodeId) -> f64 {
        let Some(image) = self.observation.task.image else { return 0.0 };
        self.go_to(node);
        let (missing, _) = self.observation.cluster.missing_image_bytes(image, node);
        self.here.pull_per_s.map_or(0.0, |bytes_per_s| missing as f64 / bytes_per_s)
    }

    /// Seconds to read the input and to store the output.
    #[inline(always)]
    pub fn data_s(&mut self, node: NodeId) -> f64 {
        self.go_to(node);
        if self.here.holds_data && self.holders.contains(&node) || !self.faithful {
            return self.find_data_s(node);
        }
        match self.here.data_s {
            Some(data_s) => data_s,
            None => *self.here.data_s.insert(self.find_data_s(node)),
        }
    }

    /// Looks at the network from a node, if it was not looked at from another at its place.
    #[inline(always)]
    fn go_to(&mut self, node: NodeId) {
        let place = self.observation.cluster.topology.place_of(node);
        if place.is_none() || self.here.place != place {
            self.look_around(node, place);
        }
    }

    #[inline(never)]
    fn look_around(&mut self, node: NodeId, place: Option<NonZeroU32>) {
        let topology = &*self.observation.cluster.topology;
        let registry = topology.registry_of(node);
        if self.registry.as_ref().map(|(known, _)| *known) != registry {
            let way = |registry| (registry, Bottleneck::new(topology, registry, Direction::From));
            self.registry = registry.map(way);
        }
        let pull_per_s = self.registry.as_ref().and_then(|(_, way)| way.bytes_per_s(node));
        let seconds = |bytes: f64| pull_per_s.map_or(0.0, |bytes_per_s| whole(bytes / bytes_per_s));
        let pull_s = self.image_bytes.map(seconds);
        let holds_data = self.holders.iter().any(|&holder| topology.place_of(holder) == place);
        self.here = Here { place, pull_per_s, pull_s, holds_data, data_s: None };
    }

    #[inline(never)]
    fn find_data_s(&self, node: NodeId) -> f64 {
        let mut seconds = 0.0;
        for stored in &self.data {
            let time = stored.seconds(self.observation, node, self.faithful);
            seconds += if self.faithful { whole(time) } else { time };
        }
        seconds
    }
}

impl<'a> Stored<'a> {
    fn new(
        observation: &'a Observation<'a>,
        dataset: DatasetId,
        direction: Direction,
        faithful: bool,
    ) -> Stored<'a> {
        let cluster = observation.cluster;
        let entry = &cluster.catalogue.datasets[dataset as usize];
        let holders = match (entry.homes.as_slice(), direction) {
            _ if faithful && cluster.holders(dataset).is_empty() => &[],
            ([], _) => cluster.holders(dataset),
            (homes, Direction::From) => homes,
            // Outputs are stored at the first home.
            (homes, Direction::To) => &homes[..if faithful { homes.len() } else { 1 }],
        };
        let way = |&holder: &NodeId| (holder, Bottleneck::new(&cluster.topology, holder, direction));
        Stored { dataset, bytes: entry.bytes as f64, holders: holders.iter().map(way).collect() }
    }

    /// Seconds over the slowest of the ways, or over that which would be taken.
    fn seconds(&self, observation: &Observation<'_>, node: NodeId, faithful: bool) -> f64 {
        if !faithful && observation.cluster.has_dataset(self.dataset, node) && self.is_input(observation) {
            return 0.0;
        }
        let mut speed: Option<f64> = None;
        for (holder, way) in &self.holders {
            if *holder == node {
                return 0.0;
            }
            let Some(bytes_per_s) = way.bytes_per_s(node) else { continue };
            let better = |known: f64| if faithful { known.min(bytes_per_s) } else { known.max(bytes_per_s) };
            speed = Some(speed.map_or(bytes_per_s, better));
        }
        speed.map_or(0.0, |bytes_per_s| self.bytes / bytes_per_s)
    }

    fn is_input(&self, observation: &Observation<'_>) -> bool {
        observation.task.inputs.contains(&self.dataset)
    }
}
