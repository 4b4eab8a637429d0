//! Skippy, the scheduler of the edgerun platform.
//!
//! Source: Rausch, Rashed, Dustdar, *Optimized container scheduling for data-intensive serverless edge
//! computing*, FGCS 114 (2021), and its code, edgerun/skippy-core 0.1.1.

use remora_env::Observation;
use remora_env::bottleneck::Bottleneck;
use remora_env::catalogue::{DatasetId, Kind};
use remora_env::device::{Arch, LOCALITY};
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
        let fits = |node: NodeId| observation.cluster.fits_now(observation.task, node);
        let any_fits = observation.nodes().any(fits);
        let Scored { nodes, indices, .. } = &mut self.scored;
        nodes.clear();
        indices.clear();
        let begin = self.next;
        let numbered = || observation.nodes().enumerate();
        let later = numbered().skip_while(|(_, node)| *node < begin);
        let walk = later.chain(numbered().take_while(|(_, node)| *node < begin));
        for (index, node) in walk.filter(|(_, node)| !any_fits || fits(*node)).take(most) {
            nodes.push(node);
            indices.push(index as u32);
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
        let cut = if self.faithful { f64::floor } else { |score| score };
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
        let mut best = 0;
        for (rank, &total) in totals.iter().enumerate() {
            if total > totals[best] {
                best = rank;
            }
        }
        for (rank, (&index, &total)) in indices.iter().zip(totals.iter()).enumerate() {
            let tied = rank != best && total == totals[best];
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

/// Each value with the least and the greatest of all, on another scale.
fn scale(values: &[f64], scaled: &mut Vec<f64>, scale: impl Fn(f64, f64, f64) -> f64) {
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
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
    /// Registry of the last node, and the way from it.
    registry: Option<(VertexId, Bottleneck<'a>)>,
    inputs: Vec<Stored<'a>>,
    outputs: Vec<Stored<'a>>,
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
        let of_class = |node: NodeId| {
            let spec = &cluster.topology.nodes[node as usize];
            let granted = wishes.iter().filter(|(key, value)| spec.label(key) == Some(value)).count();
            let edge = if spec.label(LOCALITY) == Some("edge") { 10.0 } else { 0.0 };
            ClassFacts { arch: spec.arch, edge, capabilities: granted as f64 }
        };
        let image_bytes = |arch| task.image.and_then(|image| cluster.catalogue.image_bytes(image, arch));
        let looked_at = |datasets: &[DatasetId]| datasets.len().min(if faithful { 1 } else { usize::MAX });
        let stored = |dataset: &DatasetId, direction| Stored::new(observation, *dataset, direction, faithful);
        let inputs = &task.inputs[..looked_at(&task.inputs)];
        let outputs = &task.outputs[..looked_at(&task.outputs)];
        Facts {
            observation,
            faithful,
            classes: cluster.class_examples().map(of_class).collect(),
            cpu_millis: f64::from(requests.cpu_millis),
            memory_bytes: requests.memory_bytes as f64,
            image_bytes: Arch::ALL.map(|arch| image_bytes(arch).unwrap_or(0) as f64),
            image_spread: f64::from(spread.unwrap_or(0)) / cluster.nodes.len() as f64,
            registry: None,
            inputs: inputs.iter().map(|dataset| stored(dataset, Direction::From)).collect(),
            outputs: outputs.iter().map(|dataset| stored(dataset, Direction::To)).collect(),
        }
    }

    fn class(&self, node: NodeId) -> ClassFacts {
        self.classes[self.observation.cluster.class_of(node) as usize]
    }

    fn seconds(&self, bytes: f64, bytes_per_s: Option<f64>) -> f64 {
        let seconds = bytes_per_s.map_or(0.0, |bytes_per_s| bytes / bytes_per_s);
        if self.faithful { seconds.floor() } else { seconds }
    }

    #[inline]
    fn balanced(&self, node: NodeId) -> f64 {
        let state = &self.observation.cluster.nodes[node as usize];
        let cpu = self.cpu_millis / f64::from(state.cpu_free_millis.max(1));
        let memory = self.memory_bytes / state.memory_free_bytes.max(1) as f64;
        if cpu >= 1.0 || memory >= 1.0 { 0.0 } else { ((1.0 - (cpu - memory).abs()) * 10.0).floor() }
    }

    /// 0 to 10 for 23 to 1,000 MiB, where the image is there or on its way.
    fn image_locality(&self, node: NodeId) -> f64 {
        const MIB: f64 = 1024.0 * 1024.0;
        let Some(image) = self.observation.task.image else { return 0.0 };
        let (missing, arriving) = self.observation.cluster.missing_image_bytes(image, node);
        let here = missing == arriving;
        let bytes = if here { self.image_bytes[self.class(node).arch as usize] } else { 0.0 };
        let (low, high) = (23.0 * MIB, 1000.0 * MIB);
        (10.0 * ((bytes * self.image_spread).floor().clamp(low, high) - low) / (high - low)).floor()
    }

    /// Seconds to pull the image if it is not there and nobody pulls it.
    fn pull_s(&mut self, node: NodeId) -> f64 {
        let Some(image) = self.observation.task.image else { return 0.0 };
        let arch = self.class(node).arch;
        let (missing, arriving) = self.observation.cluster.missing_image_bytes(image, node);
        if missing == arriving {
            return 0.0;
        }
        let bytes = if self.faithful { self.image_bytes[arch as usize] } else { missing as f64 };
        let topology = &*self.observation.cluster.topology;
        let Some(registry) = topology.registry_of(node) else { return 0.0 };
        if self.registry.as_ref().is_none_or(|(known, _)| *known != registry) {
            self.registry = Some((registry, Bottleneck::new(topology, registry, Direction::From)));
        }
        let way = self.registry.as_mut().and_then(|(_, way)| way.bytes_per_s(node));
        self.seconds(bytes, way)
    }

    /// Seconds to read the input and to store the output.
    fn data_s(&mut self, node: NodeId) -> f64 {
        let mut seconds = 0.0;
        for stored in self.inputs.iter_mut().chain(&mut self.outputs) {
            let time = stored.seconds(self.observation, node, self.faithful);
            seconds += if self.faithful { time.floor() } else { time };
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
    fn seconds(&mut self, observation: &Observation<'_>, node: NodeId, faithful: bool) -> f64 {
        if !faithful && observation.cluster.has_dataset(self.dataset, node) && self.is_input(observation) {
            return 0.0;
        }
        if self.holders.iter().any(|(holder, _)| *holder == node) {
            return 0.0;
        }
        let ways = self.holders.iter_mut().filter_map(|(_, way)| way.bytes_per_s(node));
        let speed = if faithful { ways.reduce(f64::min) } else { ways.reduce(f64::max) };
        speed.map_or(0.0, |bytes_per_s| self.bytes / bytes_per_s)
    }

    fn is_input(&self, observation: &Observation<'_>) -> bool {
        observation.task.inputs.contains(&self.dataset)
    }
}
