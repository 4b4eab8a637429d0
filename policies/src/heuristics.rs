//! Published heuristics and simple ones. Each is a name, a score and a tie-break.

use remora_env::Observation;
use remora_env::device::LOCALITY;
use remora_env::observation::Candidate;

use crate::Policy;

/// Scores only the candidates whose requests are free; when there is none, all of them, which is
/// to say that the task queues where the score is best.
fn score_fitting(
    observation: &Observation<'_>,
    scores: &mut Vec<f64>,
    mut score: impl FnMut(usize, &Candidate) -> f64,
) {
    let any = observation.candidates.iter().any(|candidate| candidate.fits_now);
    scores.extend(observation.candidates.iter().enumerate().map(|(index, candidate)| {
        if candidate.fits_now || !any { score(index, candidate) } else { f64::NEG_INFINITY }
    }));
}

/// A number in [0, 1) that depends on seed, task and node alone (splitmix64).
fn draw(seed: u64, task: u64, node: u32) -> f64 {
    let mut z = seed
        .wrapping_add(task.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .wrapping_add(u64::from(node).wrapping_mul(0xD1B5_4A32_D192_ED03));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Any candidate whose requests are free, with equal chances.
#[derive(Debug)]
pub struct Random {
    pub seed: u64,
}

impl Policy for Random {
    fn name(&self) -> &str {
        "random"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        score_fitting(observation, scores, |_, candidate| draw(self.seed, observation.id, candidate.node));
    }
}

/// Today's default profile of the Kubernetes scheduler, as far as it reads what a task here has:
/// `NodeResourcesFit` (LeastAllocated), `NodeResourcesBalancedAllocation` and `ImageLocality`, each
/// with weight 1 and scores of 0..100; a rotating, adaptive sample of the nodes; random ties.
///
/// Source: kubernetes `pkg/scheduler`, plugins `noderesources` and `imagelocality`, and
/// `numFeasibleNodesToFind`.
#[derive(Debug)]
pub struct KubeDefault {
    seed: u64,
    /// Where the next walk over the nodes begins.
    next: usize,
}

impl KubeDefault {
    pub fn new(seed: u64) -> KubeDefault {
        KubeDefault { seed, next: 0 }
    }

    /// How many feasible nodes are scored of `nodes`: (50 − nodes/125) %, at least 5 %, never fewer
    /// than 100.
    fn sample_size(nodes: usize) -> usize {
        let percent = (50.0 - nodes as f64 / 125.0).max(5.0);
        ((nodes as f64 * percent / 100.0) as usize).max(100)
    }
}

const MB: f64 = 1024.0 * 1024.0;

impl Policy for KubeDefault {
    fn name(&self) -> &str {
        "kube-default"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        let count = observation.candidates.len();
        let fitting = observation.candidates.iter().filter(|candidate| candidate.fits_now).count();
        let sample = KubeDefault::sample_size(count);
        let mut seen = 0;
        scores.resize(count, f64::NEG_INFINITY);
        let start = self.next;
        for offset in 0..count {
            if seen == sample {
                break;
            }
            let index = (start + offset) % count;
            self.next = (index + 1) % count;
            let candidate = &observation.candidates[index];
            if candidate.fits_now || fitting == 0 {
                seen += 1;
                // Ties are broken at random: scores are whole numbers.
                scores[index] = kube_score(observation, candidate)
                    + 0.5 * draw(self.seed, observation.id, candidate.node);
            }
        }
    }
}

fn kube_score(observation: &Observation<'_>, candidate: &Candidate) -> f64 {
    let (cpu, memory) = allocated_after(observation, candidate);
    let least_allocated =
        ((1.0 - cpu).max(0.0) * 100.0).floor() / 2.0 + ((1.0 - memory).max(0.0) * 100.0).floor() / 2.0;
    // The standard deviation of two numbers is half their difference.
    let balanced = (1.0 - (cpu.min(1.0) - memory.min(1.0)).abs() / 2.0) * 100.0;
    least_allocated.floor() + balanced.floor() + image_locality(observation, candidate).floor()
}

/// Shares of CPU and memory allocated once the task is there.
fn allocated_after(observation: &Observation<'_>, candidate: &Candidate) -> (f64, f64) {
    let spec = &observation.cluster.topology.nodes[candidate.node as usize];
    let state = &observation.cluster.nodes[candidate.node as usize];
    let requests = &observation.cluster.catalogue.kind(observation.task).requests;
    let share = |free: f64, request: f64, capacity: f64| 1.0 - (free - request) / capacity;
    (
        share(f64::from(state.cpu_free_millis), f64::from(requests.cpu_millis), f64::from(spec.cpu_millis)),
        share(state.memory_free_bytes as f64, requests.memory_bytes as f64, spec.memory_bytes as f64),
    )
}

/// Size of the image if the node has it, scaled by the share of nodes that have it, between 23 MiB
/// (score 0) and 1,000 MiB (score 100).
fn image_locality(observation: &Observation<'_>, candidate: &Candidate) -> f64 {
    let Some(image) = observation.task.image else { return 0.0 };
    if candidate.missing_image_bytes > 0 {
        return 0.0;
    }
    let arch = observation.cluster.topology.nodes[candidate.node as usize].arch;
    let bytes = observation.cluster.catalogue.image_bytes(image, arch).unwrap_or(0) as f64;
    let spread = f64::from(observation.cluster.image_spread(image)) / observation.cluster.nodes.len() as f64;
    let (low, high) = (23.0 * MB, 1000.0 * MB);
    100.0 * ((bytes * spread).clamp(low, high) - low) / (high - low)
}

/// The Kubernetes scheduler as Skippy's evaluation models it: balanced resources and image locality,
/// weight 1 each, over all nodes that fit; no spreading, ties to the first.
///
/// Source: as for [`Skippy`].
#[derive(Debug)]
pub struct KubeThin;

impl Policy for KubeThin {
    fn name(&self) -> &str {
        "kube-thin"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        // Upstream scores image locality from 0 to 10 here.
        let image = |c: &Candidate| (image_locality(observation, c) / 10.0).floor();
        score_fitting(observation, scores, |_, c| balanced_resource(observation, c) + image(c));
    }
}

/// Skippy's five weighted priorities, over all nodes that fit.
///
/// Source: Rausch, Rashed, Dustdar, *Optimized container scheduling for data-intensive serverless
/// edge computing*, FGCS 114 (2021), and its code. Scores of 0..10 are cut to whole numbers as there,
/// bandwidths are nominal and links idle.
#[derive(Debug)]
pub struct Skippy {
    name: &'static str,
    /// Of balanced resources, image latency, edge, data locality and capability.
    weights: [f64; 5],
}

impl Default for Skippy {
    /// All weights 1.
    fn default() -> Skippy {
        Skippy { name: "skippy", weights: [1.0; 5] }
    }
}

impl Skippy {
    /// The weights that its authors tuned for a scenario of their evaluation, in that evaluation's
    /// code (faas-sim, 2020); `None` for any other scenario.
    pub fn tuned(scenario: &str) -> Option<Skippy> {
        let weights = match scenario {
            "urban-sensing" => [6.66109, 2.77657, 6.69114, 8.47306, 1.06714],
            "industrial-iot" => [8.29646, 1.54538, 0.62121, 9.67983, 6.96152],
            "cloud-regions" => [0.65992, 6.92733, 0.73502, 5.81942, 0.67110],
            _ => return None,
        };
        Some(Skippy { name: "skippy-tuned", weights })
    }
}

impl Policy for Skippy {
    fn name(&self) -> &str {
        self.name
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        let any = observation.candidates.iter().any(|candidate| candidate.fits_now);
        let feasible: Vec<&Candidate> =
            observation.candidates.iter().filter(|candidate| candidate.fits_now || !any).collect();
        let seconds = |value: f64| value.floor();
        let pull = feasible.iter().map(|c| seconds(observation.nominal_pull_s(c))).collect();
        let data = feasible.iter().map(|c| {
            let (read, store) = observation.nominal_data_s(c);
            seconds(read) + seconds(store)
        });
        let data = data.collect();
        let capability = feasible.iter().map(|c| capabilities(observation, c)).collect();
        let priorities: [Vec<f64>; 5] = [
            feasible.iter().map(|c| balanced_resource(observation, c)).collect(),
            image_latency(pull),
            feasible.iter().map(|c| locality_type(observation, c)).collect(),
            inverse_min_max(data),
            min_max(capability),
        ];
        let mut rank = 0;
        score_fitting(observation, scores, |_, _| {
            let weighted = priorities.iter().zip(self.weights);
            let total = weighted.map(|(priority, weight)| weight * priority[rank]).sum();
            rank += 1;
            total
        });
    }
}

/// `BalancedResourcePriority`: requests against what is *left*, equal shares are best.
fn balanced_resource(observation: &Observation<'_>, candidate: &Candidate) -> f64 {
    let state = &observation.cluster.nodes[candidate.node as usize];
    let requests = &observation.cluster.catalogue.kind(observation.task).requests;
    let cpu = f64::from(requests.cpu_millis) / f64::from(state.cpu_free_millis);
    let memory = requests.memory_bytes as f64 / state.memory_free_bytes as f64;
    if cpu >= 1.0 || memory >= 1.0 || cpu.is_nan() || memory.is_nan() {
        return 0.0;
    }
    ((1.0 - (cpu - memory).abs()) * 10.0).floor()
}

/// `LatencyAwareImageLocalityPriority`: whole seconds to pull what is missing, least is best.
fn image_latency(seconds: Vec<f64>) -> Vec<f64> {
    let (min, max) = range(&seconds);
    let scale = |t: f64| if max == 0.0 { 0.0 } else { (10.0 * (max - t + min) / max).floor() };
    seconds.into_iter().map(scale).collect()
}

/// `LocalityTypePriority`: the edge gets 10, the cloud nothing.
fn locality_type(observation: &Observation<'_>, candidate: &Candidate) -> f64 {
    let spec = &observation.cluster.topology.nodes[candidate.node as usize];
    if spec.label(LOCALITY) == Some("edge") { 10.0 } else { 0.0 }
}

/// `CapabilityPriority`: how many wished-for capability labels the node has.
fn capabilities(observation: &Observation<'_>, candidate: &Candidate) -> f64 {
    let spec = &observation.cluster.topology.nodes[candidate.node as usize];
    let wishes = &observation.cluster.catalogue.kind(observation.task).prefers;
    wishes.iter().filter(|(key, value)| spec.label(key) == Some(value)).count() as f64
}

fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), &v| (min.min(v), max.max(v)))
}

fn min_max(values: Vec<f64>) -> Vec<f64> {
    let (min, max) = range(&values);
    let scale = |v: f64| if max == min { 0.0 } else { ((v - min) / (max - min) * 10.0).floor() };
    values.into_iter().map(scale).collect()
}

fn inverse_min_max(values: Vec<f64>) -> Vec<f64> {
    let (min, max) = range(&values);
    let scale = |v: f64| if max == min { 0.0 } else { ((v - max) / (min - max) * 10.0).floor() };
    values.into_iter().map(scale).collect()
}

/// The candidate with the least expected completion time.
#[derive(Debug)]
pub struct GreedyCompletion;

impl Policy for GreedyCompletion {
    fn name(&self) -> &str {
        "greedy-completion"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        scores.extend(observation.candidates.iter().map(|candidate| -candidate.completion_s()));
    }
}

/// The candidate with the least expected cost at the present α, from the same estimates that the
/// network sees: the opponent that a learned policy has to beat.
#[derive(Debug)]
pub struct GreedyMarginal;

impl Policy for GreedyMarginal {
    fn name(&self) -> &str {
        "greedy-marginal"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        scores.extend(observation.candidates.iter().map(|candidate| -observation.cost(candidate)));
    }
}
