//! Skippy, the scheduler of the edgerun platform.
//!
//! Source: Rausch, Rashed, Dustdar, *Optimized container scheduling for data-intensive serverless edge
//! computing*, FGCS 114 (2021), and its code, edgerun/skippy-core 0.1.1.

use std::num::NonZeroU32;

use remora_env::Observation;
use remora_env::bottleneck::Bottleneck;
use remora_env::catalogue::{DatasetId, Kind};
use remora_env::cluster::Class;
use remora_env::device::Arch;
use remora_env::topology::{Direction, NodeId, VertexId};

use super::nodes_to_score;
use crate::Policy;

/// What a node is judged by, as skippy-core names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Requests against what is left: equal shares of CPU and memory are best.
    BalancedResource,
    /// Seconds to pull the image; least is best.
    LatencyAwareImageLocality,
    /// The edge before the cloud.
    LocalityType,
    /// Seconds to read the input and to store the output; least is best.
    DataLocality,
    /// How many of the capability labels that the task would like.
    Capability,
    /// How much of the image is there, counting for more the more nodes have it: Kubernetes' own.
    ImageLocality,
}

impl Priority {
    /// Skippy's five, in the order of its weights.
    pub const SKIPPY: [Priority; 5] = [
        Priority::BalancedResource,
        Priority::LatencyAwareImageLocality,
        Priority::LocalityType,
        Priority::DataLocality,
        Priority::Capability,
    ];
    /// Those of the Kubernetes scheduler as Skippy's evaluation models it.
    pub const KUBE: [Priority; 2] = [Priority::BalancedResource, Priority::ImageLocality];
}

/// Fewer nodes than this are all scored: upstream compares with its least percentage, 5.
const FEW: usize = 5;

/// Weights that its authors tuned, each for the scenario that the name ends with.
const PUBLISHED: [(&str, [f64; 5]); 3] = [
    ("skippy-urban-sensing", [6.66109, 2.77657, 6.69114, 8.47306, 1.06714]),
    ("skippy-industrial-iot", [8.29646, 1.54538, 0.62121, 9.67983, 6.96152]),
    ("skippy-cloud-regions", [0.65992, 6.92733, 0.73502, 5.81942, 0.67110]),
];

/// skippy-core's scheduler: weighted priorities over the nodes that fit, at nominal bandwidths of idle
/// links.
#[derive(Debug)]
pub struct Skippy {
    name: &'static str,
    priorities: Vec<(Priority, f64)>,
    /// Share of the nodes to score; 0 is adaptive, 100 all.
    percentage: u32,
    /// As published, quirks included: seconds and scores are cut to whole numbers, of several holders of
    /// data the *slowest* counts, only the first input and the first output are looked at, the output
    /// only where an older version of it exists, and images share no layers. Otherwise fractions count,
    /// each dataset comes from where it would be read, and layers that are there need no pull.
    faithful: bool,
    /// Where the next walk over the nodes begins.
    next: NodeId,
    scored: Scored,
}

/// What the priorities gave the nodes scored last.
#[derive(Clone, Debug, Default)]
pub struct Scored {
    /// In the order of the walk.
    pub nodes: Vec<NodeId>,
    /// For each priority the figure of every node, then that on a scale of 0 to 10.
    pub mapped: Vec<Vec<f64>>,
    pub reduced: Vec<Vec<f64>>,
    /// Where each node is among those that take the task.
    indices: Vec<u32>,
    totals: Vec<f64>,
}

impl Default for Skippy {
    /// As published, all weights 1, all nodes.
    fn default() -> Skippy {
        Skippy::weighted("skippy", [1.0; 5])
    }
}

impl Skippy {
    /// With weights of [`Priority::SKIPPY`].
    pub fn weighted(name: &'static str, weights: [f64; 5]) -> Skippy {
        Skippy::judging_by(name, &Priority::SKIPPY, &weights)
    }

    /// The Kubernetes scheduler as Skippy's evaluation models it: balanced resources and image locality,
    /// no spreading, ties to the first.
    pub fn kube_thin(weights: [f64; 2]) -> Skippy {
        Skippy::judging_by("kube-thin", &Priority::KUBE, &weights)
    }

    /// With the weights that its authors tuned for a scenario of their evaluation, in that evaluation's
    /// code (faas-sim, 2020): one of `PUBLISHED`, called by its name.
    pub fn published(name: &'static str) -> Skippy {
        let preset = PUBLISHED.iter().find(|(preset, _)| *preset == name);
        Skippy::weighted(name, preset.expect("a preset is one of the published").1)
    }

    fn judging_by(name: &'static str, priorities: &[Priority], weights: &[f64]) -> Skippy {
        let priorities: Vec<_> = priorities.iter().copied().zip(weights.iter().copied()).collect();
        let scored = Scored {
            mapped: vec![Vec::new(); priorities.len()],
            reduced: vec![Vec::new(); priorities.len()],
            ..Scored::default()
        };
        Skippy { name, priorities, percentage: 100, faithful: true, next: 0, scored }
    }

    /// Scores a share of the nodes; 0 is adaptive.
    pub fn scoring(mut self, percentage: u32) -> Skippy {
        self.percentage = percentage;
        self
    }

    /// Without the quirks.
    pub fn repaired(mut self) -> Skippy {
        self.faithful = false;
        self
    }

    /// What the priorities gave the nodes scored last.
    pub fn scored(&self) -> &Scored {
        &self.scored
    }

    /// The nodes to score, in the order of the walk: those that fit, or all where none does.
    fn walk(&mut self, observation: &Observation<'_>) {
        let all = observation.cluster.nodes.len();
        let most = nodes_to_score(all, self.percentage, FEW);
        let requests = &observation.cluster.catalogue.kind(observation.task).requests;
        let fits = |node: NodeId| observation.cluster.fit_now(requests, node);
        let any_fits = observation.nodes().any(fits);
        let Scored { nodes, indices, .. } = &mut self.scored;
        nodes.clear();
        indices.clear();
        let begin = self.next;
        nodes.reserve(observation.count());
        indices.reserve(observation.count());
        let mut visit = |now: bool| {
            for (index, node) in observation.nodes().enumerate() {
                if (node >= begin) == now && nodes.len() < most && (!any_fits || fits(node)) {
                    nodes.push(node);
                    indices.push(index as u32);
                }
            }
        };
        visit(true);
        if begin > 0 {
            visit(false);
        }
        self.next = nodes.last().map_or(0, |last| (last + 1) % all as NodeId);
    }

    /// The figures of each priority for the nodes of the walk.
    fn map(&mut self, observation: &Observation<'_>) {
        let mut facts = Facts::new(observation, self.faithful);
        let Scored { nodes, mapped, .. } = &mut self.scored;
        for ((priority, _), figures) in self.priorities.iter().zip(mapped) {
            figures.clear();
            let nodes = nodes.iter();
            match priority {
                Priority::BalancedResource => figures.extend(nodes.map(|&node| facts.balanced(node))),
                Priority::LatencyAwareImageLocality => {
                    figures.extend(nodes.map(|&node| facts.pull_s(node)));
                }
                Priority::LocalityType => figures.extend(nodes.map(|&node| facts.class(node).edge)),
                Priority::DataLocality => figures.extend(nodes.map(|&node| facts.data_s(node))),
                Priority::Capability => figures.extend(nodes.map(|&node| facts.class(node).capabilities)),
                Priority::ImageLocality => figures.extend(nodes.map(|&node| facts.image_locality(node))),
            }
        }
    }

    /// The same on a scale of 0 to 10.
    fn reduce(&mut self) {
        let faithful = self.faithful;
        let cut = |score: f64| if faithful { whole(score) } else { score };
        let Scored { mapped, reduced, .. } = &mut self.scored;
        for (((priority, _), figures), scores) in self.priorities.iter().zip(mapped).zip(reduced) {
            match priority {
                Priority::LatencyAwareImageLocality => {
                    scale(
                        figures,
                        scores,
                        |t, min, max| {
                            if max == 0.0 { 0.0 } else { cut(10.0 * (max - t + min) / max) }
                        },
                    )
                }
                Priority::DataLocality => {
                    scale(
                        figures,
                        scores,
                        |t, min, max| {
                            if max == min { 0.0 } else { cut((t - max) / (min - max) * 10.0) }
                        },
                    )
                }
                Priority::Capability => {
                    scale(
                        figures,
                        scores,
                        |c, min, max| {
                            if max == min { 0.0 } else { cut((c - min) / (max - min) * 10.0) }
                        },
                    )
                }
                _ => scores.clone_from(figures),
            }
        }
    }

    /// Weighted sums; of equals the first of the walk gets the highest.
    fn weigh(&mut self, scores: &mut [f64]) {
        let Scored { nodes, indices, reduced, totals, .. } = &mut self.scored;
        totals.clear();
        totals.resize(nodes.len(), 0.0);
        for (priority, (_, weight)) in reduced.iter().zip(&self.priorities) {
            for (total, score) in totals.iter_mut().zip(priority) {
                *total += weight * score;
            }
        }
        let best = crate::argmax(totals);
        let greatest = totals.get(best).copied().unwrap_or(0.0);
        for (rank, (&index, &total)) in indices.iter().zip(totals.iter()).enumerate() {
            let tied = rank != best && total == greatest;
            scores[index as usize] = if tied { total.next_down() } else { total };
        }
    }
}

impl Policy for Skippy {
    fn name(&self) -> &str {
        self.name
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        self.walk(observation);
        self.map(observation);
        self.reduce();
        scores.resize(observation.count(), f64::NEG_INFINITY);
        self.weigh(scores);
    }
}

/// The whole part of a number that is not negative; quicker than a call of `floor`.
#[inline]
fn whole(value: f64) -> f64 {
    // From 2⁵² on a number has no fraction.
    const WHOLE: f64 = 4_503_599_627_370_496.0;
    let nearest = (value + WHOLE) - WHOLE;
    if nearest > value { nearest - 1.0 } else { nearest }
}

/// The least and the greatest, of as many as a processor compares at a time.
fn range(values: &[f64]) -> (f64, f64) {
    const LANES: usize = 8;
    let (mut least, mut greatest) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            least[lane] = if chunk[lane] < least[lane] { chunk[lane] } else { least[lane] };
            greatest[lane] = if chunk[lane] > greatest[lane] { chunk[lane] } else { greatest[lane] };
        }
    }
    let least = least.iter().chain(rest).copied().fold(f64::INFINITY, f64::min);
    (least, greatest.iter().chain(rest).copied().fold(f64::NEG_INFINITY, f64::max))
}

/// Each value with the least and the greatest of all, on another scale.
fn scale(values: &[f64], scaled: &mut Vec<f64>, scale: impl Fn(f64, f64, f64) -> f64) {
    let (min, max) = range(values);
    scaled.clear();
    scaled.extend(values.iter().map(|&value| scale(value, min, max)));
}

/// What nodes alike have in common here.
#[derive(Clone, Copy, Debug)]
struct ClassFacts {
    arch: Arch,
    /// 10 at the edge, else nothing.
    edge: f64,
    /// How many wished-for capability labels the nodes have.
    capabilities: f64,
}

/// Facts of one decision.
struct Facts<'a> {
    observation: &'a Observation<'a>,
    faithful: bool,
    classes: Vec<ClassFacts>,
    cpu_millis: f64,
    memory_bytes: f64,
    /// Whole size of the image on each architecture.
    image_bytes: [f64; 3],
    /// Share of all nodes that have it.
    image_spread: f64,
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
    /// Seconds for data, unless some of it is on the node itself.
    data_s: f64,
}

/// A dataset and where it is stored.
struct Stored<'a> {
    dataset: DatasetId,
    bytes: f64,
    holders: Vec<(NodeId, Bottleneck<'a>)>,
}

impl<'a> Facts<'a> {
    fn new(observation: &'a Observation<'a>, faithful: bool) -> Facts<'a> {
        let (cluster, task) = (observation.cluster, observation.task);
        let Kind { prefers: wishes, requests, .. } = cluster.catalogue.kind(task);
        let spread = task.image.map(|image| cluster.image_spread(image));
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
            image_spread: f64::from(spread.unwrap_or(0)) / cluster.nodes.len() as f64,
            registry: None,
            here: Here::default(),
            holders: data
                .iter()
                .flat_map(|stored| stored.holders.iter().map(|(holder, _)| *holder))
                .collect(),
            data,
        }
    }

    fn class(&self, node: NodeId) -> ClassFacts {
        self.classes[self.observation.cluster.class_of(node) as usize]
    }

    #[inline]
    fn balanced(&self, node: NodeId) -> f64 {
        let state = &self.observation.cluster.nodes[node as usize];
        let cpu = self.cpu_millis / f64::from(state.cpu_free_millis.max(1));
        let memory = self.memory_bytes / state.memory_free_bytes.max(1) as f64;
        if cpu >= 1.0 || memory >= 1.0 { 0.0 } else { whole((1.0 - (cpu - memory).abs()) * 10.0) }
    }

    /// 0 to 10 for 23 to 1,000 MiB, where the image is there or on its way.
    fn image_locality(&self, node: NodeId) -> f64 {
        const MIB: f64 = 1024.0 * 1024.0;
        let arch = self.class(node).arch;
        let lacks = self.lacks(arch, node);
        let bytes = if lacks { 0.0 } else { self.image_bytes[arch as usize] };
        let (low, high) = (23.0 * MIB, 1000.0 * MIB);
        whole(10.0 * (whole(bytes * self.image_spread).clamp(low, high) - low) / (high - low))
    }

    /// Whether part of the image is neither on the node nor on its way there.
    #[inline]
    fn lacks(&self, arch: Arch, node: NodeId) -> bool {
        // A task without image lacks none of it.
        self.there[arch as usize].get(node as usize / 64).is_some_and(|word| word >> (node % 64) & 1 == 0)
    }

    /// Seconds to pull the image if it is not there and nobody pulls it.
    fn pull_s(&mut self, node: NodeId) -> f64 {
        let Some(image) = self.observation.task.image else { return 0.0 };
        let arch = self.class(node).arch;
        let cluster = self.observation.cluster;
        self.go_to(node);
        if self.faithful {
            let lacks = self.lacks(arch, node);
            return self.here.pull_s[arch as usize] * f64::from(u8::from(lacks));
        }
        let (missing, _) = cluster.missing_image_bytes(image, node);
        self.here.pull_per_s.map_or(0.0, |bytes_per_s| missing as f64 / bytes_per_s)
    }

    /// Seconds to read the input and to store the output.
    fn data_s(&mut self, node: NodeId) -> f64 {
        self.go_to(node);
        if self.faithful && !self.holders.contains(&node) { self.here.data_s } else { self.find_data_s(node) }
    }

    /// Looks at the network from a node, if it was not looked at from another at its place.
    #[inline]
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
        let data_s = if self.faithful { self.find_data_s(node) } else { 0.0 };
        self.here = Here { place, pull_per_s, pull_s, data_s };
    }

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
