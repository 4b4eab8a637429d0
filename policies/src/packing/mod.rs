//! Packing pods onto GPUs that they share: how much of a cluster can be allocated before nothing fits.
//!
//! The model of Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation
//! Gradient Descent", USENIX ATC 2023, as their simulator (hkust-adsl/kubernetes-scheduler-simulator) plays
//! it:
//!
//! | | |
//! |---|---|
//! | cluster | the nodes with GPUs, in an order drawn per seed, which breaks all ties |
//! | arrivals | the pod list in drawn order, then pods drawn from it with replacement up to 130 % of all GPUs |
//! | departures | none |
//! | feasible | CPU, memory, GPU model, and enough GPUs with room; what fits nowhere is refused for good |
//! | choice | the feasible node with the greatest [`Packer::score`], there the [`Packer::gpu`] |
//! | figure | allocated over all GPUs, mean over the arrivals whose cumulative demand rounds to that per cent |
//!
//! ```no_run
//! # use remora_policies::packing::{BASELINES, Workload, play};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let workload = Workload::read("openb_node_list_gpu_node.csv".as_ref(), "openb_pod_list_default.csv".as_ref())?;
//! let instance = workload.instance(42);
//! for baseline in &BASELINES {
//!     let curve = play(&instance, baseline.packer(&workload, 42).as_mut());
//!     println!("{}: {:.2} % at 130 %", baseline.name, curve.allocated[130]);
//! }
//! # Ok(())
//! # }
//! ```

mod baselines;
mod cluster;
mod fragmentation;
mod learned;
mod workload;

use std::collections::BTreeMap;

pub use baselines::{BASELINES, Baseline, Fgd, Random};
pub use cluster::{MAX_GPUS, Models, Node, Pod, WHOLE_GPU};
pub use fragmentation::TypicalPods;
pub use learned::{AS_FGD, FEATURES, KINDS, LEARNED, Learned, WEIGHTS, Weights};
pub use workload::{Instance, Workload};

use crate::argmax;

/// How far demand grows, per cent of the cluster's GPUs.
pub const MOST_PERCENT: usize = 130;

/// Something that chooses a node, and a GPU there, for a pod: a published rule or a learned one.
pub trait Packer: Send {
    /// Name in tables.
    fn name(&self) -> &str;

    /// Appends a score for each of the nodes `feasible` (indices into `nodes`, never none), in that order. The
    /// greatest wins, the first of equals. `scores` arrives empty.
    fn score(&mut self, pod: &Pod, nodes: &[Node], feasible: &[usize], scores: &mut Vec<f64>);

    /// The GPU, with room for it, that a pod which shares one gets on the chosen node. Only asked for those.
    /// Unless said otherwise the one where it fits most tightly.
    fn gpu(&mut self, pod: &Pod, node: &Node) -> usize {
        node.tightest_gpu(pod).expect("the node is feasible")
    }
}

/// What became of a cluster while demand grew.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Allocated, per cent of the GPUs, at each whole per cent of arrived demand from 0 to [`MOST_PERCENT`].
    pub allocated: Vec<f64>,
    /// Pods that fitted nowhere when they came.
    pub refused: usize,
}

/// Lets a packer place what arrives.
///
/// # Panics
/// If the packer names a GPU without room.
pub fn play(instance: &Instance, packer: &mut dyn Packer) -> Curve {
    let mut nodes = instance.nodes.clone();
    let mut meter = Meter::new(&nodes);
    let mut room = Room::default();
    let mut refused = 0;
    for pod in &instance.arrivals {
        let node = choose(pod, &nodes, room.feasible(pod, &nodes), packer);
        if let Some(node) = node {
            let gpu = if pod.shares_gpu() { packer.gpu(pod, &nodes[node]) } else { 0 };
            nodes[node].bind(pod, gpu);
            room.bound.push(node);
        }
        refused += usize::from(node.is_none());
        meter.record(pod, node.is_some());
    }
    Curve { allocated: meter.means(), refused }
}

/// The node that a packer chooses, if the pod fits on any.
fn choose(pod: &Pod, nodes: &[Node], feasible: &[usize], packer: &mut dyn Packer) -> Option<usize> {
    if feasible.is_empty() {
        return None;
    }
    let mut scores = Vec::with_capacity(feasible.len());
    packer.score(pod, nodes, feasible, &mut scores);
    Some(feasible[argmax(&scores)])
}

/// Where pods fit. Nothing departs: a node is looked at again only after it took something in, and does not
/// come back.
#[derive(Default)]
struct Room {
    /// Nodes that took something in, in that order.
    bound: Vec<usize>,
    /// Nodes on which such a pod fits, with how many of `bound` that has regard to.
    feasible: BTreeMap<Pod, (Vec<usize>, usize)>,
}

impl Room {
    fn feasible(&mut self, pod: &Pod, nodes: &[Node]) -> &[usize] {
        let all = || ((0..nodes.len()).filter(|node| nodes[*node].fits(pod)).collect(), self.bound.len());
        let (feasible, seen) = self.feasible.entry(*pod).or_insert_with(all);
        for node in self.bound[*seen..].iter().filter(|node| !nodes[**node].fits(pod)) {
            feasible.binary_search(node).map(|place| feasible.remove(place)).ok();
        }
        *seen = self.bound.len();
        feasible
    }
}

/// Sums up allocation by arrived demand, both in thousandths of a GPU.
struct Meter {
    capacity: u64,
    arrived: u64,
    allocated: u64,
    /// Sum and number of the allocations seen at each per cent of arrived demand.
    seen: Vec<(f64, u32)>,
}

impl Meter {
    fn new(nodes: &[Node]) -> Meter {
        let capacity = nodes.iter().map(|node| u64::from(node.gpu_millis())).sum();
        Meter { capacity, arrived: 0, allocated: 0, seen: vec![(0.0, 0); MOST_PERCENT + 1] }
    }

    fn percent(&self, millis: u64) -> f64 {
        100.0 * millis as f64 / self.capacity as f64
    }

    fn record(&mut self, pod: &Pod, placed: bool) {
        let demand = u64::from(pod.gpu_demand());
        self.arrived += demand;
        self.allocated += if placed { demand } else { 0 };
        let allocated = self.percent(self.allocated);
        let arrived = self.percent(self.arrived).round_ties_even() as usize;
        if let Some((sum, count)) = self.seen.get_mut(arrived) {
            *sum += allocated;
            *count += 1;
        }
    }

    /// Where nothing arrived at some per cent, what was there before holds.
    fn means(&self) -> Vec<f64> {
        let mut mean = 0.0;
        let step = |(sum, count): &(f64, u32)| {
            mean = if *count > 0 { sum / f64::from(*count) } else { mean };
            mean
        };
        self.seen.iter().map(step).collect()
    }
}
