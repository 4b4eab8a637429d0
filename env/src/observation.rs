//! What a policy sees when a task asks for a place: the nodes that could run it, and what placing it on each of them is
//! expected to take.
//!
//! The simulator and the live service build it with the same function, [`Observation::new`]; what a network reads of it is
//! [`Observation::features`].

mod estimate;
mod features;

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

pub use self::estimate::Candidate;
use self::estimate::Estimator;
pub use self::features::{FEATURE_COUNT, FEATURES, Feature, feature_schema, fine_log};
use crate::catalogue::{Dataset, DatasetId, Task};
use crate::cluster::{Cluster, Item, Lack, TaskId};
use crate::episode::Episode;
use crate::resume::Arrivals;
use crate::time::Time;
use crate::topology::{Direction, NodeId, Path};

/// What the two ends of the dial are measured in: response time and data per task under the
/// Kubernetes default scheduler on the same cluster and load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// τ, seconds per task.
    pub response_s: f64,
    /// σ, price-weighted bytes per task.
    pub moved_bytes: f64,
}

/// Below these a reference says nothing: five milliseconds and ten kilobytes.
const LEAST: Reference = Reference { response_s: 0.005, moved_bytes: 10_000.0 };

impl Reference {
    /// A reference with a floor under both figures, so that dividing by them is safe.
    pub fn new(response_s: f64, moved_bytes: f64) -> Reference {
        Reference {
            response_s: response_s.max(LEAST.response_s),
            moved_bytes: moved_bytes.max(LEAST.moved_bytes),
        }
    }

    /// `α · moved / σ + (1 − α) · response / τ`.
    pub fn cost(&self, alpha: f64, moved_bytes: f64, response_s: f64) -> f64 {
        alpha / self.moved_bytes * moved_bytes + (1.0 - alpha) / self.response_s * response_s
    }
}

/// What is known of a candidate at a closer look, which only those of a shortlist are worth.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The candidate with the bytes that it comes to in the end: [`Observation::net`].
    pub net: Candidate,
    /// Seconds that the tasks placed on its node still expect to take, all together.
    pub backlog_s: f64,
    /// Seconds that all its transfers would take over idle links.
    pub idle_transfer_s: f64,
}

/// Everything a policy may know about one decision.
#[derive(Debug)]
pub struct Observation<'a> {
    pub cluster: &'a Cluster,
    pub task: &'a Task,
    /// Identity of the task, from which randomised policies draw.
    pub id: TaskId,
    /// Weight of data moved against response time, 0 to 1.
    pub alpha: f64,
    pub reference: Reference,
    /// Nodes that take the task, in order of their number, with the mean execution time alone there.
    takers: Vec<Taker>,
    estimates: OnceLock<Estimates>,
    episode: Option<&'a Episode>,
    arrivals: Option<&'a Arrivals>,
}

/// A node that takes the task.
#[derive(Clone, Copy, Debug)]
struct Taker {
    node: NodeId,
    alone_s: f64,
}

/// What placing the task on each of the nodes that take it is expected to take.
#[derive(Debug)]
struct Estimates {
    candidates: Vec<Candidate>,
    /// How many of them have the image, and on how many it would wait.
    with_image: u32,
    waiting: u32,
}

impl<'a> Observation<'a> {
    /// Looks at every node; `None` when none takes the task now.
    pub fn new(
        cluster: &'a Cluster,
        task: &'a Task,
        id: TaskId,
        alpha: f64,
        reference: Reference,
    ) -> Option<Observation<'a>> {
        Observation::among(cluster, task, id, alpha, reference, 0..cluster.nodes.len() as NodeId)
    }

    /// Looks at these nodes alone, which are in ascending order.
    pub fn among(
        cluster: &'a Cluster,
        task: &'a Task,
        id: TaskId,
        alpha: f64,
        reference: Reference,
        nodes: impl ExactSizeIterator<Item = NodeId>,
    ) -> Option<Observation<'a>> {
        let estimator = Estimator::new(cluster, task);
        let mut takers = Vec::with_capacity(nodes.len());
        for node in nodes {
            if let Some(alone_s) = estimator.takes(node) {
                takers.push(Taker { node, alone_s });
            }
        }
        let (estimates, episode, arrivals) = (OnceLock::new(), None, None);
        let any = !takers.is_empty();
        any.then_some(Observation {
            cluster,
            task,
            id,
            alpha,
            reference,
            takers,
            estimates,
            episode,
            arrivals,
        })
    }

    /// The observation with the episode that it is of.
    pub(crate) fn of_episode(mut self, episode: &'a Episode) -> Observation<'a> {
        self.episode = Some(episode);
        self
    }

    /// The observation with what arrived before, where no simulator but a live cluster is behind it.
    pub fn after(mut self, arrivals: &'a Arrivals) -> Observation<'a> {
        self.arrivals = Some(arrivals);
        self
    }

    /// A future that could follow, for looking ahead: see [`Episode::imagine`]. Of a live cluster one that goes on from
    /// the facts. `None` also where neither a simulator nor what arrived before is known.
    pub fn imagine(&self, seed: u64, tasks: usize) -> Option<Episode> {
        match (self.episode, self.arrivals) {
            (Some(episode), _) => episode.imagine(seed, tasks),
            (None, Some(arrivals)) => Episode::resume(self, arrivals, seed, tasks),
            (None, None) => None,
        }
    }

    /// Number of nodes that take the task: at least one.
    pub fn count(&self) -> usize {
        self.takers.len()
    }

    /// Node of a candidate, by its index.
    pub fn node(&self, index: usize) -> NodeId {
        self.takers[index].node
    }

    /// The nodes that take the task, in order of their number: those of [`Observation::candidates`],
    /// for policies that need no estimates.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = NodeId> {
        self.takers.iter().map(|taker| taker.node)
    }

    /// The nodes that take the task, in order of their number, with what placing it there is expected
    /// to take. Estimated when first asked for.
    pub fn candidates(&self) -> &[Candidate] {
        &self.estimates().candidates
    }

    fn estimates(&self) -> &Estimates {
        self.estimates.get_or_init(|| {
            let mut estimator = Estimator::new(self.cluster, self.task);
            let mut candidates = Vec::with_capacity(self.takers.len());
            let (mut with_image, mut waiting) = (0, 0);
            for taker in &self.takers {
                // Filled in where it stays: there are up to ten thousand of them.
                candidates.push(Candidate::UNKNOWN);
                let candidate = candidates.last_mut().expect("one was pushed");
                estimator.estimate(taker.node, taker.alone_s, candidate);
                with_image += u32::from(candidate.missing_image_bytes == 0);
                waiting += u32::from(!candidate.fits_now);
            }
            Estimates { candidates, with_image, waiting }
        })
    }

    /// Expected cost of a candidate at this α; the best candidate of `greedy` has the least.
    pub fn cost(&self, candidate: &Candidate) -> f64 {
        self.reference.cost(self.alpha, candidate.moved_bytes, candidate.completion_s())
    }

    /// What a second and a byte cost at this α.
    pub fn rates(&self) -> (f64, f64) {
        (self.reference.cost(self.alpha, 0.0, 1.0), self.reference.cost(self.alpha, 1.0, 0.0))
    }

    /// Share of the candidates where the task would have to wait.
    pub fn congestion(&self) -> f64 {
        f64::from(self.estimates().waiting) / self.candidates().len() as f64
    }

    /// The cost if the image were on the node already: without what pulling it invests.
    pub fn warm_cost(&self, candidate: &Candidate) -> f64 {
        let moved = candidate.moved_bytes - candidate.image_moved_bytes;
        self.reference.cost(self.alpha, moved, candidate.completion_s() - candidate.pull_s)
    }

    /// The candidate with the bytes that it comes to in the end. What leaves a disk for what the task brings counts as brought
    /// back. What tasks waited where they found a dataset, or their image, and what they displaced where the image was, is set
    /// against what another copy costs: it is bought, where the task need not wait, once its lack has cost as much. Were it
    /// there at once and all waiting for want of it, that would never be more than twice as dear as the best in hindsight (rent
    /// or buy; for replicas of files: Black and Sleator, *Competitive algorithms for replication and migration problems*,
    /// CMU-CS-89-201, 1989).
    pub fn net(&self, c: &Candidate) -> Candidate {
        let (second, byte) = self.rates();
        let mut net = *c;
        net.moved_bytes += self.displaced_bytes(c);
        if !c.fits_now || byte == 0.0 {
            return net;
        }
        if let Some(image) = self.task.image {
            let Lack { waited_s, displaced_bytes } = self.cluster.image_lack(image);
            // What left was to be brought back at about the price of the image.
            let price = c.image_moved_bytes / c.pulled_bytes().max(1) as f64;
            let earned = waited_s * second / byte + displaced_bytes * price;
            net.image_moved_bytes = (c.image_moved_bytes - earned).max(0.0);
            net.moved_bytes -= c.image_moved_bytes - net.image_moved_bytes;
        }
        if c.missing_input_bytes > 0 {
            net.moved_bytes -= self.earned_input_bytes(c.node);
        }
        net.moved_bytes = net.moved_bytes.max(0.0);
        net
    }

    /// Bytes that have to leave the disk of a candidate's node for what the task brings, each times the price of what it
    /// brings.
    fn displaced_bytes(&self, c: &Candidate) -> f64 {
        let brought = c.brought_bytes();
        match self.cluster.displaced_bytes(c.node, brought) {
            0 => 0.0,
            displaced => displaced as f64 * c.moved_bytes / (brought + c.output_bytes) as f64,
        }
    }

    /// Of the bytes to move for inputs that a node lacks, those that are earned.
    fn earned_input_bytes(&self, node: NodeId) -> f64 {
        let (second, byte) = self.rates();
        let cluster = self.cluster;
        let earned = |&input: &DatasetId| {
            let waited_s = cluster.waited_for_copy_s(input);
            if waited_s == 0.0 || cluster.has_or_awaits(Item::Dataset(input), node) {
                return 0.0;
            }
            let source = cluster.dataset_source(input, node);
            let path = source.and_then(|source| cluster.topology.path(source, node, Direction::From));
            let bytes = cluster.catalogue.datasets[input as usize].bytes as f64;
            path.map_or(0.0, |path| (bytes * path.price).min(waited_s * second / byte))
        };
        self.task.inputs.iter().map(earned).sum()
    }

    /// At most `size` candidates worth a closer look, as ascending indices: the cheapest, the
    /// soonest, the leanest, and the cheapest if the image were there already (investments).
    pub fn shortlist(&self, size: usize) -> Vec<usize> {
        if self.candidates().len() <= size {
            return (0..self.candidates().len()).collect();
        }
        let (each, investments) = (size / 8, size / 4);
        let cheap = size - 2 * each - investments;
        let (_, byte) = self.rates();
        let keys = |c: &Candidate| {
            let displaced = self.displaced_bytes(c);
            [self.cost(c) + displaced * byte, c.completion_s(), c.moved_bytes + displaced, self.warm_cost(c)]
        };
        let keys: Vec<[f64; 4]> = self.candidates().iter().map(keys).collect();
        let mut chosen = Vec::with_capacity(size);
        for (key, count) in [cheap, each, each, investments].into_iter().enumerate() {
            add_least(&mut chosen, count, keys.iter().map(|keys| keys[key]));
        }
        chosen.sort_unstable();
        chosen
    }

    /// A closer look at each of the candidates at `shortlist`, in their order.
    ///
    /// # Panics
    /// Where there is no candidate at an index.
    pub fn look(&self, shortlist: &[usize]) -> Vec<Look> {
        let look = |&index: &usize| {
            let candidate = &self.candidates()[index];
            Look {
                net: self.net(candidate),
                backlog_s: self.backlog_s(candidate.node),
                idle_transfer_s: self.idle_transfer_s(candidate),
            }
        };
        shortlist.iter().map(look).collect()
    }

    fn idle_transfer_s(&self, c: &Candidate) -> f64 {
        let (read_s, store_s) = self.nominal_data_s(c.node);
        self.nominal_pull_s(c.node, c.missing_image_bytes) + read_s + store_s
    }

    fn backlog_s(&self, node: NodeId) -> f64 {
        let now = self.cluster.now;
        let commitments = self.cluster.nodes[node as usize].commitments.iter();
        let left = commitments
            .map(|placed| if placed.admitted { placed.expected_end_from(now) - now } else { placed.span });
        left.map(Time::as_s).sum()
    }

    // Facts that published heuristics read, at nominal capacity and without load.

    /// Seconds to pull `missing` bytes of the image over idle links.
    pub fn nominal_pull_s(&self, node: NodeId, missing: u64) -> f64 {
        let path = self.cluster.topology.registry_path(node);
        path.map_or(0.0, |path| missing as f64 / path.bytes_per_s)
    }

    /// Seconds to read all inputs and to store all outputs over idle links; an input on the node or
    /// an output that stays there takes none.
    pub fn nominal_data_s(&self, node: NodeId) -> (f64, f64) {
        let topology = &self.cluster.topology;
        let datasets = &self.cluster.catalogue.datasets;
        let seconds =
            |bytes: u64, path: Option<Path>| path.map_or(0.0, |path| bytes as f64 / path.bytes_per_s);
        let read = |&dataset: &u32| {
            if self.cluster.has_dataset(dataset, node) {
                return 0.0;
            }
            let source = self.cluster.dataset_source(dataset, node);
            let path = source.and_then(|source| topology.path(source, node, Direction::From));
            seconds(datasets[dataset as usize].bytes, path)
        };
        let store = |&dataset: &u32| {
            let Dataset { bytes, homes, .. } = &datasets[dataset as usize];
            let path = homes.first().and_then(|&home| topology.path(home, node, Direction::To));
            seconds(*bytes, path)
        };
        (self.task.inputs.iter().map(read).sum(), self.task.outputs.iter().map(store).sum())
    }
}

/// Adds the indices of so many of the least keys that are not chosen yet; of equals the first.
fn add_least(chosen: &mut Vec<usize>, count: usize, keys: impl Iterator<Item = f64>) {
    let mut least: Vec<(f64, usize)> = Vec::with_capacity(count);
    for (index, key) in keys.enumerate() {
        let full = least.len() == count;
        if full && least.last().is_none_or(|last| key >= last.0) || chosen.contains(&index) {
            continue;
        }
        if full {
            least.pop();
        }
        least.insert(least.partition_point(|less| less.0 <= key), (key, index));
    }
    chosen.extend(least.iter().map(|(_, index)| index));
}
