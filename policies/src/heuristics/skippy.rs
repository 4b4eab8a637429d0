//! Skippy, the scheduler of the edgerun platform.
//!
//! Source: Rausch, Rashed, Dustdar, *Optimized container scheduling for data-intensive serverless edge
//! computing*, FGCS 114 (2021), and its code, edgerun/skippy-core 0.1.1.

mod facts;

use remora_env::Observation;
use remora_env::topology::NodeId;

use super::{nodes_to_score, whole};
use crate::Policy;
use facts::Facts;

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
        let first = observation.nodes().take_while(|node| *node < self.next).count();
        let Scored { nodes, indices, .. } = &mut self.scored;
        nodes.clear();
        indices.clear();
        nodes.reserve(observation.count());
        indices.reserve(observation.count());
        for range in [first..observation.count(), 0..first] {
            for (index, node) in range.clone().zip(observation.nodes().skip(range.start)) {
                if nodes.len() < most && (!any_fits || fits(node)) {
                    nodes.push(node);
                    indices.push(index as u32);
                }
            }
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
                Priority::LatencyAwareImageLocality if self.faithful => {
                    figures.extend(nodes.map(|&node| facts.whole_pull_s(node)));
                }
                Priority::LatencyAwareImageLocality => {
                    figures.extend(nodes.map(|&node| facts.pull_s(node)));
                }
                Priority::LocalityType => figures.extend(nodes.map(|&node| facts.class(node).edge)),
                Priority::DataLocality => figures.extend(nodes.map(|&node| facts.data_s(node))),
                Priority::Capability if facts.wishes_nothing() => figures.resize(nodes.len(), 0.0),
                Priority::Capability => figures.extend(nodes.map(|&node| facts.class(node).capabilities)),
                Priority::ImageLocality => figures.extend(nodes.map(|&node| facts.image_locality(node))),
            }
        }
    }

    /// The same on a scale of 0 to 10.
    fn reduce(&mut self) {
        let faithful = self.faithful;
        let cut = |score: f64| if faithful { whole(score) } else { score };
        // skippy-core maps from the least seconds or labels to 0 or 10, but the pull from 0 seconds on.
        let pull = |t, min, max| if max == 0.0 { 0.0 } else { cut(10.0 * (max - t + min) / max) };
        let data = |t, min, max| if max == min { 0.0 } else { cut((t - max) / (min - max) * 10.0) };
        let labels = |n, min, max| if max == min { 0.0 } else { cut((n - min) / (max - min) * 10.0) };
        let Scored { mapped, reduced, .. } = &mut self.scored;
        for (((priority, _), figures), scores) in self.priorities.iter().zip(mapped).zip(reduced) {
            match priority {
                Priority::LatencyAwareImageLocality => scale(figures, scores, pull),
                Priority::DataLocality => scale(figures, scores, data),
                Priority::Capability => scale(figures, scores, labels),
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

/// Each value with the least and the greatest of all, on another scale.
fn scale(values: &[f64], scaled: &mut Vec<f64>, scale: impl Fn(f64, f64, f64) -> f64) {
    let (min, max) = crate::range(values);
    scaled.clear();
    scaled.extend(values.iter().map(|&value| scale(value, min, max)));
}
