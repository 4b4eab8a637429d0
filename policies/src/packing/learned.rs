//! A learned packer: what a choice does to a node, weighted.
//!
//! The score of a node, and of a GPU there for a pod that shares one, is a sum of the features below, each
//! times a weight. Weights are shared by all nodes; pods without GPU, with a part of one and with whole ones
//! have their own. A *step* is 0.04 of a GPU, which is what fgd's scores still tell apart.
//!
//! | feature | unit | range | why |
//! |---|---|---|---|
//! | coarse | steps | −50..50 | fgd's own score: how much fragmentation falls, cut to whole numbers |
//! | small, large, whole | 5 steps | −40..40 | the fall uncut, for typical pods of ≤ ½ GPU, of more, of whole ones |
//! | waste | 5 steps | −5..5 | growth of what no set of typical pods fills of the GPU that it shares |
//! | short of CPU | GPUs | −8..8 | growth of idle GPUs without the CPU that typical pods want with them |
//! | spare CPU | GPUs | −8..8 | growth of CPU without idle GPUs, by the GPUs that it would serve |
//! | left on GPU | GPUs | 0..1 | what the pod leaves of the GPU that it shares |
//! | filled | – | 0 or 1 | it leaves nothing of it |
//! | opened | – | 0 or 1 | nobody used that GPU before |
//! | fresh | – | 0 or 1 | nothing ran on the node |
//! | GPUs left | of 8 | 0..1 | how full the node gets |
//! | idle left | of 8 | 0..1 | GPUs of the node that stay whole |
//! | CPU left | of 128 cores | 0..1 | for pods that want more of it than typical ones |
//! | memory left | of 1 TiB | 0..1 | fgd does not look at it |
//! | alignment | cosine | 0..1 | between what the pod asks for and what the node has |
//! | size | of 8 | 0..1 | how many GPUs the node has, idle or not |
//! | order | – | 0..1 | the node's place in the order of nodes, by which rules break their ties |

use std::collections::BTreeMap;

use super::Packer;
use super::baselines::{LARGEST_CPU_MILLIS, LARGEST_GPU_MILLIS, sigmoid};
use super::cluster::{MAX_GPUS, Node, Pod, WHOLE_GPU};
use super::fragmentation::{ByKind, TypicalPods};

/// The features by name.
pub const FEATURES: [&str; 18] = [
    "coarse",
    "small",
    "large",
    "whole",
    "waste",
    "short of CPU",
    "spare CPU",
    "left on GPU",
    "filled",
    "opened",
    "fresh",
    "GPUs left",
    "idle left",
    "CPU left",
    "memory left",
    "alignment",
    "size",
    "order",
];
/// Pods without GPU, with a part of one, with whole ones.
pub const KINDS: usize = 3;
/// How many weights there are.
pub const WEIGHTS: usize = KINDS * FEATURES.len();
/// Of each feature, those for each kind of pods.
pub type Weights = [f64; WEIGHTS];

/// Those with which it is fgd: the coarse score, and the order of nodes where that is equal.
pub const AS_FGD: Weights = {
    let mut weights = [0.0; WEIGHTS];
    let mut kind = 0;
    while kind < KINDS {
        weights[kind] = 1.0;
        weights[ORDER * KINDS + kind] = -1.0;
        kind += 1;
    }
    weights
};

/// What `policies/examples/learn-packing.rs` finds with seed 1: 96.13 % of the GPUs on its validation seeds, where
/// fgd has 95.38 %. It knows the default list of pods; `docs/baselines.md` has what it is worth there and elsewhere.
#[rustfmt::skip]
pub const LEARNED: Weights = [
    0.767, 0.018, 0.672, // coarse
    0.657, 1.359, -0.255, // small
    -0.510, -0.413, -0.072, // large
    0.131, 0.440, 0.785, // whole
    -1.025, -1.944, 0.641, // waste
    -0.146, -0.881, -0.228, // short of CPU
    -0.596, 0.265, -0.345, // spare CPU
    -0.475, -0.440, 0.655, // left on GPU
    -0.024, 0.477, 0.288, // filled
    -0.723, 0.162, 0.508, // opened
    0.034, -0.535, 0.060, // fresh
    -0.072, -0.033, -0.050, // GPUs left
    -0.209, 0.391, -0.098, // idle left
    -0.322, 0.812, 0.178, // CPU left
    0.672, 0.198, -0.162, // memory left
    0.527, 0.170, 0.859, // alignment
    -0.141, -0.151, -0.801, // size
    -1.355, -0.837, -1.270, // order
];

/// 1 TiB.
const LARGEST_MEMORY_MIB: f64 = 1_048_576.0;
/// Thousandths of a GPU in a step.
const STEP: f64 = 40.0;
/// Steps in a unit of the finer features, so that their weights are about as large as others.
const STEPS: f64 = 5.0;
/// Where the node's place stands among the features.
const ORDER: usize = FEATURES.len() - 1;

/// A packer that weighs features.
#[derive(Debug)]
pub struct Learned {
    /// By kind of pod.
    weights: [[f64; FEATURES.len()]; KINDS],
    typical: TypicalPods,
    cpu_per_gpu: f64,
    /// The best of each node for a pod, and the node for which that holds.
    known: BTreeMap<Pod, Vec<Option<(Node, Best)>>>,
}

/// The best GPU of a node, with its score but for the node's place in the order.
type Best = (f64, usize);

impl Learned {
    /// One with these weights that expects pods like these.
    pub fn new(weights: Weights, pods: &[Pod]) -> Learned {
        let typical = TypicalPods::of(pods);
        let cpu_per_gpu = typical.cpu_per_gpu();
        let of = |kind| std::array::from_fn(|feature| weights[feature * KINDS + kind]);
        Learned { weights: std::array::from_fn(of), typical, cpu_per_gpu, known: BTreeMap::new() }
    }

    fn best(&self, pod: &Pod, node: &Node) -> Best {
        let weights = &self.weights[kind(pod)];
        View { pod, node, weights, typical: &self.typical, cpu_per_gpu: self.cpu_per_gpu }.best()
    }
}

impl Packer for Learned {
    fn name(&self) -> &str {
        "learned"
    }

    fn score(&mut self, pod: &Pod, nodes: &[Node], feasible: &[usize], scores: &mut Vec<f64>) {
        let mut known = self.known.remove(pod).unwrap_or_default();
        known.resize(nodes.len(), None);
        let order = self.weights[kind(pod)][ORDER] / nodes.len() as f64;
        scores.extend(feasible.iter().map(|node| {
            let now = &nodes[*node];
            let best = match known[*node] {
                Some((then, best)) if then == *now => best,
                _ => self.best(pod, now),
            };
            known[*node] = Some((*now, best));
            best.0 + order * *node as f64
        }));
        self.known.insert(*pod, known);
    }

    fn gpu(&mut self, pod: &Pod, node: &Node) -> usize {
        self.best(pod, node).1
    }
}

fn kind(pod: &Pod) -> usize {
    match pod.gpus {
        0 => 0,
        _ if pod.shares_gpu() => 1,
        _ => 2,
    }
}

/// A pod looks at a node.
struct View<'a> {
    pod: &'a Pod,
    node: &'a Node,
    weights: &'a [f64; FEATURES.len()],
    typical: &'a TypicalPods,
    cpu_per_gpu: f64,
}

impl View<'_> {
    /// The best GPU, the first of equals.
    fn best(&self) -> Best {
        let before = self.typical.by_kind(self.node);
        let score = |gpu| {
            let features = self.features(&before, gpu);
            features.iter().zip(self.weights).map(|(feature, weight)| feature * weight).sum::<f64>()
        };
        if !self.pod.shares_gpu() {
            return (score(0), 0);
        }
        let scored = self.node.distinct_gpus(self.pod).map(|gpu| (score(gpu), gpu));
        scored.reduce(|best, next| if next.0 > best.0 { next } else { best }).expect("the node is feasible")
    }

    /// What choosing a GPU does to the node, in the order of [`FEATURES`]; the node's place is not known here.
    fn features(&self, before: &ByKind, gpu: usize) -> [f64; FEATURES.len()] {
        let (pod, node) = (self.pod, self.node);
        let mut after = *node;
        after.bind(pod, gpu);
        let unusable = self.typical.by_kind(&after);
        let [_, small, large, whole] =
            std::array::from_fn(|kind| self.steps(before[kind], unusable[kind]) / STEPS);
        let coarse = self.steps(before.iter().sum(), unusable.iter().sum());
        let (short_before, spare_before) = self.unbalanced(node);
        let (short, spare) = self.unbalanced(&after);
        let shared = |feature: f64| if pod.shares_gpu() { feature } else { 0.0 };
        let [had, left] = [node, &after].map(|node| node.gpus().get(gpu).copied().unwrap_or(0));
        let waste = |left: u32| f64::from(self.typical.waste(left)) / STEP / STEPS;
        [
            (100.0 * sigmoid(coarse * STEP / 1000.0)).floor() - 50.0,
            small,
            large,
            whole,
            shared(waste(left) - waste(had)),
            short - short_before,
            spare - spare_before,
            shared(gpus(left)),
            shared(flag(left == 0)),
            shared(flag(had == WHOLE_GPU)),
            flag(node.sizes == 0),
            gpus(after.gpu_millis()) / MAX_GPUS as f64,
            after.idle_gpus() as f64 / MAX_GPUS as f64,
            f64::from(after.cpu_millis) / LARGEST_CPU_MILLIS,
            f64::from(after.memory_mib) / LARGEST_MEMORY_MIB,
            alignment(pod, node),
            node.gpus().len() as f64 / MAX_GPUS as f64,
            0.0,
        ]
    }

    /// By how much falls what typical pods cannot use, in expectation.
    fn steps(&self, before: u64, after: u64) -> f64 {
        (self.typical.expected(before) - self.typical.expected(after)) / STEP
    }

    /// Idle GPUs without CPU and CPU without idle GPUs, in GPUs, at what typical pods want.
    fn unbalanced(&self, node: &Node) -> (f64, f64) {
        let spare = f64::from(node.cpu_millis) / self.cpu_per_gpu - gpus(node.gpu_millis());
        (f64::max(0.0, -spare), f64::max(0.0, spare))
    }
}

fn gpus(millis: u32) -> f64 {
    f64::from(millis) / f64::from(WHOLE_GPU)
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

/// Cosine between what a pod asks for and what a node has left, each resource by that of the largest node.
fn alignment(pod: &Pod, node: &Node) -> f64 {
    let scaled = |cpu: u32, memory: u32, gpu: u32| {
        let [cpu, memory, gpu] = [cpu, memory, gpu].map(f64::from);
        [cpu / LARGEST_CPU_MILLIS, memory / LARGEST_MEMORY_MIB, gpu / f64::from(LARGEST_GPU_MILLIS)]
    };
    let asked = scaled(pod.cpu_millis, pod.memory_mib, pod.gpu_demand());
    let left = scaled(node.cpu_millis, node.memory_mib, node.gpu_millis());
    let dot = |a: [f64; 3], b: [f64; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    let lengths = (dot(asked, asked) * dot(left, left)).sqrt();
    if lengths > 0.0 { dot(asked, left) / lengths } else { 0.0 }
}
