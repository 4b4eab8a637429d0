//! How much of the idle GPUs the usual workload cannot use.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::cluster::{Models, Node, Pod, WHOLE_GPU};

/// Share of the pods that the typical ones make up, per cent.
///
/// Source: default of `--pod-popularity-threshold` in the simulator of Weng et al.
const POPULARITY: u64 = 95;

/// The most frequent requests of a workload, each with how often it comes: the paper's target workload M.
#[derive(Clone, Debug)]
pub struct TypicalPods {
    requests: Vec<Request>,
    total: u64,
    /// Of so many thousandths of a GPU, those that no set of typical pods can fill.
    waste: Vec<u32>,
}

/// Typical pods that ask for the same GPUs; how much CPU they want beside them is all that tells them apart.
#[derive(Clone, Debug)]
struct Request {
    gpus: u32,
    gpu_millis: u32,
    models: Models,
    /// Thousandths of a core, from the least on, each with how many pods want that much or less.
    cpus: Vec<(u32, u64)>,
}

/// What pods of one kind cannot use, summed over those pods: none, a part of a GPU, a larger part, whole ones.
pub(super) type ByKind = [u64; 4];

impl TypicalPods {
    /// The fewest requests that make up 95 % of the pods. Memory does not count, as in the reference.
    pub fn of(pods: &[Pod]) -> TypicalPods {
        let mut counts = BTreeMap::<Pod, u64>::new();
        for pod in pods {
            *counts.entry(Pod { memory_mib: 0, ..*pod }).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable_by_key(|(pod, count)| Reverse((*count, *pod)));
        let mut total = 0;
        let enough = pods.len() as u64 * POPULARITY;
        let typical = counts.into_iter().take_while(|(_, count)| {
            let wanted = total * 100 < enough;
            total += if wanted { *count } else { 0 };
            wanted
        });
        let requests = requests(typical.collect());
        let waste = waste(&requests);
        TypicalPods { requests, total, waste }
    }

    /// How much of a node's idle GPUs a typical pod cannot use, thousandths of a GPU, in expectation.
    ///
    /// For one pod that is everything where the node cannot run it or it wants no GPU, and else what is left
    /// of the GPUs that have too little room for it. Sums are of whole numbers: what a pod does not change
    /// stays the same to the last bit.
    ///
    /// Source: the measure F_n(M) = Σ p_m F_n(m) of Weng et al., with its three cases; `pkg/utils/frag.go` of
    /// their simulator.
    pub fn fragmentation(&self, node: &Node) -> f64 {
        self.expected(self.by_kind(node).iter().sum())
    }

    /// A sum over all typical pods as their mean.
    pub(super) fn expected(&self, sum: u64) -> f64 {
        sum as f64 / self.total as f64
    }

    /// Thousandths of a node's idle GPUs that typical pods cannot use, summed over the pods of each kind.
    pub(super) fn by_kind(&self, node: &Node) -> ByKind {
        let mut sums = ByKind::default();
        for request in &self.requests {
            sums[request.kind()] += request.unusable(node);
        }
        sums
    }

    /// Of what is left of a GPU, thousandths that no set of typical pods can fill.
    pub(super) fn waste(&self, left: u32) -> u32 {
        self.waste[left as usize]
    }

    /// Thousandths of a core that typical pods want for each whole GPU.
    pub(super) fn cpu_per_gpu(&self) -> f64 {
        let with_gpu = || self.requests.iter().filter(|request| request.gpus > 0);
        let gpus: u64 = with_gpu().map(|one| one.count() * u64::from(one.gpus * one.gpu_millis)).sum();
        let cpu: u64 = with_gpu().map(Request::cpu_demand).sum();
        cpu as f64 / gpus.max(1) as f64 * f64::from(WHOLE_GPU)
    }
}

/// Gathers pods by what they ask of GPUs.
fn requests(mut pods: Vec<(Pod, u64)>) -> Vec<Request> {
    let gpus = |pod: &Pod| (pod.gpus, pod.gpu_millis, pod.models);
    pods.sort_unstable_by_key(|(pod, _)| (gpus(pod), pod.cpu_millis));
    let alike = pods.chunk_by(|(a, _), (b, _)| gpus(a) == gpus(b));
    let request = |pods: &[(Pod, u64)]| {
        let (gpus, gpu_millis, models) = gpus(&pods[0].0);
        let mut so_far = 0;
        let cpus = pods.iter().map(|(pod, count)| {
            so_far += count;
            (pod.cpu_millis, so_far)
        });
        Request { gpus, gpu_millis, models, cpus: cpus.collect() }
    };
    alike.map(request).collect()
}

/// For 0 to 1000 thousandths of a GPU, the least that is left over when requests fill it.
fn waste(requests: &[Request]) -> Vec<u32> {
    let asked: Vec<_> = requests.iter().map(|request| request.gpu_millis).collect();
    let mut waste: Vec<u32> = Vec::new();
    for left in 0..=WHOLE_GPU {
        let fitting = asked.iter().filter(|asked| (1..=left).contains(*asked));
        let filled = fitting.map(|asked| waste[(left - asked) as usize]);
        let least = filled.min().unwrap_or(left);
        waste.push(least);
    }
    waste
}

impl Request {
    fn count(&self) -> u64 {
        self.cpus.last().map_or(0, |(_, count)| *count)
    }

    /// Thousandths of a core that all of its pods want together.
    fn cpu_demand(&self) -> u64 {
        let before = std::iter::once(0).chain(self.cpus.iter().map(|(_, count)| *count));
        self.cpus.iter().zip(before).map(|((cpu, count), before)| u64::from(*cpu) * (count - before)).sum()
    }

    fn kind(&self) -> usize {
        match self.gpu_millis {
            0 => 0,
            WHOLE_GPU => 3,
            part => 1 + usize::from(part > WHOLE_GPU / 2),
        }
    }

    /// How many of its pods a node can run.
    fn runnable(&self, node: &Node) -> u64 {
        let with_room = node.gpus().iter().filter(|free| **free >= self.gpu_millis).count();
        if self.gpus == 0 || !self.models.meets(node.model) || with_room < self.gpus as usize {
            return 0;
        }
        let modest = self.cpus.partition_point(|(cpu, _)| *cpu <= node.cpu_millis);
        modest.checked_sub(1).map_or(0, |last| self.cpus[last].1)
    }

    /// Thousandths of a node's idle GPUs that its pods cannot use, summed over the pods.
    fn unusable(&self, node: &Node) -> u64 {
        let too_small = node.gpus().iter().filter(|free| **free < self.gpu_millis).sum::<u32>();
        let runnable = self.runnable(node);
        runnable * u64::from(too_small) + (self.count() - runnable) * u64::from(node.gpu_millis())
    }
}
