//! The six packers of the published comparison.
//!
//! Scores are whole numbers from 0 to 100, as Kubernetes wants them; what is cut off makes ties, and ties
//! decide much here.
//!
//! Source of the rules: Weng et al. and `pkg/simulator/plugin` of their simulator.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use remora_env::random::{Purpose, stream};

use super::cluster::{Node, Pod, WHOLE_GPU};
use super::fragmentation::TypicalPods;
use super::{Packer, Workload};

/// Resources of the largest node, by which requests are measured: 128 cores and 8 GPUs, in thousandths.
pub(super) const LARGEST_CPU_MILLIS: f64 = 128_000.0;
pub(super) const LARGEST_GPU_MILLIS: u32 = 8_000;

/// A packer of the published comparison.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    /// Name in tables.
    pub name: &'static str,
    /// What the authors' own runs have at 130 % of arrived demand on the default trace, per cent of the
    /// GPUs: mean and standard deviation of seeds 42 to 51.
    ///
    /// Source: `experiments/analysis/expected_results/analysis_allo_discrete.csv` of their repository.
    pub published: (f64, f64),
    make: fn(&Workload, u64) -> Box<dyn Packer>,
}

impl Baseline {
    /// Makes it; the seed is for what it draws.
    pub fn packer(&self, workload: &Workload, seed: u64) -> Box<dyn Packer> {
        (self.make)(workload, seed)
    }
}

const fn baseline(
    name: &'static str,
    published: (f64, f64),
    make: fn(&Workload, u64) -> Box<dyn Packer>,
) -> Baseline {
    Baseline { name, published, make }
}

/// All of them, in the order of the paper.
pub const BASELINES: [Baseline; 6] = [
    baseline("random", (87.47, 0.32), |_, seed| Box::new(Random::new(seed))),
    baseline("dot-product", (90.85, 0.20), |_, _| Rule::boxed("dot-product", dot_product)),
    baseline("clustering", (91.88, 0.63), |_, _| Rule::boxed("clustering", clustering)),
    baseline("packing", (92.00, 0.55), |_, _| Rule::boxed("packing", packing)),
    baseline("best-fit", (93.08, 0.14), |_, _| Rule::boxed("best-fit", best_fit)),
    baseline("fgd", (95.39, 0.08), |workload, _| Box::new(Fgd::new(&workload.pods))),
];

/// Any feasible node and any GPU with room there, with equal chances.
#[derive(Debug)]
pub struct Random {
    luck: ChaCha8Rng,
}

impl Random {
    /// One that draws under `seed`.
    pub fn new(seed: u64) -> Random {
        Random { luck: stream(seed, Purpose::Policy, 0) }
    }
}

impl Packer for Random {
    fn name(&self) -> &str {
        "random"
    }

    fn score(&mut self, _: &Pod, _: &[Node], feasible: &[usize], scores: &mut Vec<f64>) {
        scores.resize(feasible.len(), 0.0);
        scores[self.luck.random_range(0..feasible.len())] = 1.0;
    }

    fn gpu(&mut self, pod: &Pod, node: &Node) -> usize {
        let with_room: Vec<_> =
            (0..node.gpus().len()).filter(|gpu| node.gpus()[*gpu] >= pod.gpu_millis).collect();
        with_room[self.luck.random_range(0..with_room.len())]
    }
}

/// A score of pod and node alone; a part of a GPU goes where it fits most tightly.
#[derive(Debug)]
struct Rule {
    name: &'static str,
    score: fn(&Pod, &Node) -> f64,
}

impl Rule {
    fn boxed(name: &'static str, score: fn(&Pod, &Node) -> f64) -> Box<dyn Packer> {
        Box::new(Rule { name, score })
    }
}

impl Packer for Rule {
    fn name(&self) -> &str {
        self.name
    }

    fn score(&mut self, pod: &Pod, nodes: &[Node], feasible: &[usize], scores: &mut Vec<f64>) {
        scores.extend(feasible.iter().map(|node| (self.score)(pod, &nodes[*node]).floor()));
    }
}

/// Least product of what is asked and what is left, over CPU and the node's GPUs together.
///
/// The dot product of Tetris (Grandl et al., SIGCOMM 2014) turned round: the larger the worse.
fn dot_product(pod: &Pod, node: &Node) -> f64 {
    let product =
        |asked: u32, left: u32, largest: f64| f64::from(asked) / largest * (f64::from(left) / largest);
    let cpu = product(pod.cpu_millis, node.cpu_millis, LARGEST_CPU_MILLIS);
    let gpu = product(pod.gpu_demand(), node.gpu_millis(), f64::from(LARGEST_GPU_MILLIS));
    100.0 * (1.0 - (cpu + gpu) / 2.0)
}

/// Beside requests of the same size: a node that has only those, then one that has them among others, then an
/// empty one, then any; the fuller first. Pods without GPU go anywhere.
fn clustering(pod: &Pod, node: &Node) -> f64 {
    if pod.gpus == 0 {
        return 0.0;
    }
    let class = match node.sizes {
        sizes if sizes == pod.size() => 75,
        sizes if sizes & pod.size() != 0 => 50,
        0 => 25,
        _ => 0,
    };
    f64::from(class + 25 * (LARGEST_GPU_MILLIS - node.gpu_millis()) / LARGEST_GPU_MILLIS)
}

/// First GPUs in use, by how little would be left; then idle ones of nodes in use, the fewer the better; then
/// those of nodes with all GPUs idle, small nodes first. Pods without GPU go anywhere.
fn packing(pod: &Pod, node: &Node) -> f64 {
    if pod.gpus == 0 {
        return 0.0;
    }
    let idle = node.idle_gpus();
    if idle == node.gpus().len() {
        return 33.0 - idle as f64;
    }
    match node.tightest_gpu(pod).map(|gpu| node.gpus()[gpu]) {
        Some(left) if left < WHOLE_GPU => f64::from(100 - left / 100),
        _ => 50.0 - f64::from(pod.gpus),
    }
}

/// The least left over of CPU and of the node's GPUs together, equally weighted.
fn best_fit(pod: &Pod, node: &Node) -> f64 {
    let cpu = f64::from(node.cpu_millis - pod.cpu_millis) / LARGEST_CPU_MILLIS;
    let gpu = f64::from(node.gpu_millis() - pod.gpu_demand()) / f64::from(LARGEST_GPU_MILLIS);
    100.0 * (1.0 - (cpu + gpu) / 2.0)
}

/// Fragmentation gradient descent: where the node's fragmentation grows least.
///
/// The growth Δ, in thousandths of a GPU, becomes the score ⌊100 σ(−Δ/1000)⌋.
///
/// Source: Weng et al.; `fgd_score.go` of their simulator.
#[derive(Debug)]
pub struct Fgd {
    typical: TypicalPods,
}

impl Fgd {
    /// One that expects pods like these.
    pub fn new(pods: &[Pod]) -> Fgd {
        Fgd { typical: TypicalPods::of(pods) }
    }

    /// The best GPU of a node for a pod, the first of equals, with its score.
    fn best(&self, pod: &Pod, node: &Node) -> (f64, usize) {
        let before = self.typical.fragmentation(node);
        let score = |gpu| {
            let mut after = *node;
            after.bind(pod, gpu);
            (100.0 * sigmoid((before - self.typical.fragmentation(&after)) / 1000.0)).floor()
        };
        if !pod.shares_gpu() {
            return (score(0), 0);
        }
        let scored = node.distinct_gpus(pod).map(|gpu| (score(gpu), gpu));
        scored.reduce(|best, next| if next.0 > best.0 { next } else { best }).expect("the node is feasible")
    }
}

impl Packer for Fgd {
    fn name(&self) -> &str {
        "fgd"
    }

    fn score(&mut self, pod: &Pod, nodes: &[Node], feasible: &[usize], scores: &mut Vec<f64>) {
        scores.extend(feasible.iter().map(|node| self.best(pod, &nodes[*node]).0));
    }

    fn gpu(&mut self, pod: &Pod, node: &Node) -> usize {
        self.best(pod, node).1
    }
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
