//! What a policy sees when a task asks for a place: one row per node that could run it.
//!
//! The simulator and the live service build it with the same function, [`Observation::new`], and
//! [`Observation::features`] is the only place where facts become the numbers that a network
//! reads. Seconds and bytes enter as the cost that they cause at the present α ([`Reference`]), in
//! units of u, the median cost of the candidates looked at: so a policy trained on one cluster
//! reads another, and what the dial makes irrelevant vanishes. `log` means ln(1 + x), `fine`
//! ln(1 + 100 x) / 2. Bytes are those that a candidate comes to in the end ([`Observation::net`]).
//!
//! | index | name | unit | range | why |
//! |---|---|---|---|---|
//! | 0 | cost | log of u | 0.. | expected cost of placing it here |
//! | 1 | time-cost | log of u | 0.. | the part of it that is response time |
//! | 2 | data-cost | log of u | 0.. | the part of it that is data moved |
//! | 3 | wait | log of u | 0.. | time in the node's queue |
//! | 4 | pull | log of u | 0.. | time to pull the missing image layers |
//! | 5 | fetch | log of u | 0.. | time to read the inputs |
//! | 6 | start | log of u | 0.. | time to start the container |
//! | 7 | execution | log of u | 0.. | time to execute, with today's CPU contention |
//! | 8 | store | log of u | 0.. | time to store the output at its home |
//! | 9 | image-data | log of u | 0.. | moving the image |
//! | 10 | other-data | log of u | 0.. | moving inputs and output |
//! | 11 | regret | u | 0..20 | cost above the best candidate: the greedy order |
//! | 12 | log-regret | fine of u | 0.. | the same, resolved near zero |
//! | 13 | time-regret | fine of u | 0.. | time above the soonest candidate |
//! | 14 | data-regret | fine of u | 0.. | data above the leanest candidate |
//! | 15 | warm-regret | fine of u | 0.. | cost above the best if the image were here already: what pulling invests in |
//! | 16 | image-here | flag | 0, 1 | nothing to pull |
//! | 17 | image-arriving | flag | 0, 1 | another task is pulling it |
//! | 18 | inputs-here | flag | 0, 1 | nothing to read |
//! | 19 | output-home | flag | 0, 1 | the output is stored where it is made |
//! | 20 | fits-now | flag | 0, 1 | its requests are free |
//! | 21 | cpu-free | share | 0..1 | room left for others |
//! | 22 | memory-free | share | 0..1 | room left for others |
//! | 23 | accelerators-free | share | 0..1 | accelerators that a heavier task may need; 0 where there are none |
//! | 24 | accelerator-wasted | flag | 0, 1 | the node has accelerators and the task asks for none |
//! | 25 | queued | log | 0.. | tasks waiting here |
//! | 26 | committed | log | 0.. | tasks placed here |
//! | 27 | backlog | log of u | 0.. | time that what is placed here still expects to take |
//! | 28 | overdue | share | 0..1 | of the tasks placed here those past their expected end: estimates are too low |
//! | 29 | contention | log | 0.. | slowdown of everybody here, this task included |
//! | 30 | crowding | log of u | 0.. | time that the others here lose while it executes |
//! | 31 | slowness | log | 0.. | execution against the fastest device: the node's aptitude |
//! | 32 | busy-path | log | 0.. | transfers on the busiest link from the registry |
//! | 33 | busy-data | log | 0.. | transfers on the busiest link that its data would cross |
//! | 34 | idle-transfer | log of u | 0.. | time of its transfers if nothing else crossed the links: what is above it, others lose too |
//! | 35 | image-demand | log of u | 0.. | what a minute's tasks of this image would pay to pull it: what having it here saves |
//! | 36 | alpha | 1 | 0..1 | the dial: weight of data moved |
//! | 37 | feasible | log/4 | 0.. | candidates in the cluster |
//! | 38 | image-spread | share | 0..1 | candidates that have the image |
//! | 39 | load | log of tasks | 0.. | arrivals during the soonest completion |
//! | 40 | mean-backlog | log of u | 0.. | backlog of the candidates looked at |
//! | 41 | congestion | share | 0..1 | candidates where it would have to wait |
//! | 42 | input-data | log of u | 0.. | moving all its inputs over a local link |
//! | 43 | output-data | log of u | 0.. | moving its output over a local link |
//! | 44 | shortest-execution | log of u | 0.. | how heavy it is at best |

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::catalogue::{Dataset, DatasetId, ExecutionTime, ImageId, Kind, LayerId, Task};
use crate::cluster::{Cluster, Expected, Item, Lack, TaskId};
use crate::episode::Episode;
use crate::fit::Class;
use crate::resume::Arrivals;
use crate::time::Time;
use crate::topology::{Direction, NodeId, Path, VertexId};

/// One number per candidate that the network reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    pub name: &'static str,
    pub unit: &'static str,
    pub range: &'static str,
}

const fn feature(name: &'static str, unit: &'static str, range: &'static str) -> Feature {
    Feature { name, unit, range }
}

/// The columns of [`Observation::features`], as in the table of this module.
pub const FEATURES: [Feature; 45] = [
    feature("cost", "log of u", "0.."),
    feature("time-cost", "log of u", "0.."),
    feature("data-cost", "log of u", "0.."),
    feature("wait", "log of u", "0.."),
    feature("pull", "log of u", "0.."),
    feature("fetch", "log of u", "0.."),
    feature("start", "log of u", "0.."),
    feature("execution", "log of u", "0.."),
    feature("store", "log of u", "0.."),
    feature("image-data", "log of u", "0.."),
    feature("other-data", "log of u", "0.."),
    feature("regret", "u", "0..20"),
    feature("log-regret", "fine of u", "0.."),
    feature("time-regret", "fine of u", "0.."),
    feature("data-regret", "fine of u", "0.."),
    feature("warm-regret", "fine of u", "0.."),
    feature("image-here", "flag", "0, 1"),
    feature("image-arriving", "flag", "0, 1"),
    feature("inputs-here", "flag", "0, 1"),
    feature("output-home", "flag", "0, 1"),
    feature("fits-now", "flag", "0, 1"),
    feature("cpu-free", "share", "0..1"),
    feature("memory-free", "share", "0..1"),
    feature("accelerators-free", "share", "0..1"),
    feature("accelerator-wasted", "flag", "0, 1"),
    feature("queued", "log", "0.."),
    feature("committed", "log", "0.."),
    feature("backlog", "log of u", "0.."),
    feature("overdue", "share", "0..1"),
    feature("contention", "log", "0.."),
    feature("crowding", "log of u", "0.."),
    feature("slowness", "log", "0.."),
    feature("busy-path", "log", "0.."),
    feature("busy-data", "log", "0.."),
    feature("idle-transfer", "log of u", "0.."),
    feature("image-demand", "log of u", "0.."),
    feature("alpha", "1", "0..1"),
    feature("feasible", "log/4", "0.."),
    feature("image-spread", "share", "0..1"),
    feature("load", "log of tasks", "0.."),
    feature("mean-backlog", "log of u", "0.."),
    feature("congestion", "share", "0..1"),
    feature("input-data", "log of u", "0.."),
    feature("output-data", "log of u", "0.."),
    feature("shortest-execution", "log of u", "0.."),
];

/// Number of features per candidate.
pub const FEATURE_COUNT: usize = FEATURES.len();

/// Text that changes whenever the meaning of a feature does; a checkpoint carries its hash.
pub fn feature_schema() -> String {
    FEATURES.iter().map(|f| format!("{}|{}|{}\n", f.name, f.unit, f.range)).collect()
}

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

/// What placing the task on one node is expected to take, from the facts of now: links as they are
/// shared at this moment, mean execution times, no knowledge of what comes. Where it is to wait, what is on its
/// way there comes closer meanwhile, and what those before it in the queue need will be there: they bring it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub node: NodeId,
    pub fits_now: bool,
    pub wait_s: f64,
    pub pull_s: f64,
    pub fetch_s: f64,
    pub start_s: f64,
    pub execution_s: f64,
    pub store_s: f64,
    /// Bytes of the image that the node lacks and nobody in its queue brings, and how many of them are on their way.
    pub missing_image_bytes: u64,
    pub arriving_image_bytes: u64,
    /// Bytes of inputs to copy: neither there nor on their way, nor brought by anybody in its queue.
    pub missing_input_bytes: u64,
    /// Bytes to send to the output's home.
    pub output_bytes: u64,
    /// Bytes to move, each times the price of the dearest link on its path.
    pub moved_bytes: f64,
    /// Of `moved_bytes`, the part for the image.
    pub image_moved_bytes: f64,
    pub wan_bytes: u64,
    /// Factor by which everything on the node slows down with this task, at least 1.
    pub contention: f64,
    /// Mean execution time of the task on this device, alone, seconds.
    pub alone_s: f64,
}

impl Candidate {
    /// What placing the task on a node is expected to take; `None` where the node does not take it.
    pub fn of(cluster: &Cluster, task: &Task, node: NodeId) -> Option<Candidate> {
        let mut estimator = Estimator::new(cluster, task);
        let alone_s = estimator.takes(node)?;
        let mut candidate = Candidate::UNKNOWN;
        estimator.estimate(node, alone_s, &mut candidate);
        Some(candidate)
    }

    /// Nothing to do, nothing to move.
    pub const UNKNOWN: Candidate = Candidate {
        node: 0,
        fits_now: false,
        wait_s: 0.0,
        pull_s: 0.0,
        fetch_s: 0.0,
        start_s: 0.0,
        execution_s: 0.0,
        store_s: 0.0,
        missing_image_bytes: 0,
        arriving_image_bytes: 0,
        missing_input_bytes: 0,
        output_bytes: 0,
        moved_bytes: 0.0,
        image_moved_bytes: 0.0,
        wan_bytes: 0,
        contention: 1.0,
        alone_s: 0.0,
    };

    /// Expected response time, seconds.
    pub fn completion_s(&self) -> f64 {
        self.wait_s + self.pull_s + self.fetch_s + self.start_s + self.execution_s + self.store_s
    }

    /// Bytes of the image to pull: neither there nor on their way.
    fn pulled_bytes(&self) -> u64 {
        self.missing_image_bytes.saturating_sub(self.arriving_image_bytes)
    }

    /// Bytes that the task brings to the disk of its node before it starts.
    fn brought_bytes(&self) -> u64 {
        self.pulled_bytes() + self.missing_input_bytes
    }

    /// What a commitment keeps of it.
    pub fn expected(&self) -> Expected {
        let wait = Time::ZERO.after_s(self.wait_s);
        let span = Time::ZERO.after_s(self.completion_s()) - wait;
        Expected { wait, span, brought_bytes: self.brought_bytes() }
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

    /// Writes the features of the candidates looked at, of which there is one at least, into the first
    /// [`FEATURE_COUNT`] places of each of `rows`; returns u, the cost that they are measured in.
    pub fn features<'r>(&self, looks: &[Look], rows: impl Iterator<Item = &'r mut [f32]>) -> f64 {
        let scale = Scale::of(self, looks);
        let global = self.global_features(looks, &scale);
        for (look, row) in looks.iter().zip(rows) {
            let (own, shared) = row[..FEATURE_COUNT].split_at_mut(FEATURE_COUNT - global.len());
            own.copy_from_slice(&self.candidate_features(look, &scale));
            shared.copy_from_slice(&global);
        }
        scale.unit
    }

    fn candidate_features(&self, look: &Look, scale: &Scale) -> [f32; 36] {
        let c = &look.net;
        let flag = |value: bool| f32::from(u8::from(value));
        let time = |seconds: f64| log(scale.time(seconds));
        let data = |bytes: f64| log(scale.data(bytes));
        let spec = &self.cluster.topology.nodes[c.node as usize];
        let state = &self.cluster.nodes[c.node as usize];
        let requests = &self.cluster.catalogue.kind(self.task).requests;
        let accelerators = state.accelerator_free_millis.len() as f64 * 1000.0;
        let accelerators_free = f64::from(state.accelerator_free_millis.iter().sum::<u32>());
        let regret = (self.cost(c) - scale.least_cost) / scale.unit;
        let now = self.cluster.now;
        let overdue = state.commitments.iter().filter(|commitment| commitment.expected_end < now).count();
        [
            log(self.cost(c) / scale.unit),
            time(c.completion_s()),
            data(c.moved_bytes),
            time(c.wait_s),
            time(c.pull_s),
            time(c.fetch_s),
            time(c.start_s),
            time(c.execution_s),
            time(c.store_s),
            data(c.image_moved_bytes),
            data(c.moved_bytes - c.image_moved_bytes),
            regret.min(20.0) as f32,
            fine_log(regret),
            fine_log(scale.time(c.completion_s() - scale.least_completion_s)),
            fine_log(scale.data(c.moved_bytes - scale.least_moved_bytes)),
            fine_log((self.warm_cost(c) - scale.least_warm_cost) / scale.unit),
            flag(c.missing_image_bytes == 0),
            flag(c.arriving_image_bytes > 0),
            flag(c.missing_input_bytes == 0),
            flag(c.output_bytes == 0),
            flag(c.fits_now),
            share(f64::from(state.cpu_free_millis), f64::from(spec.cpu_millis)),
            share(state.memory_free_bytes as f64, spec.memory_bytes as f64),
            share(accelerators_free, accelerators),
            flag(accelerators > 0.0 && requests.accelerators == 0),
            log(f64::from(state.queued)),
            log(state.commitments.len() as f64),
            time(look.backlog_s),
            share(overdue as f64, state.commitments.len() as f64),
            log(c.contention - 1.0),
            time(self.crowding_s(c)),
            log(c.alone_s / scale.least_alone_s - 1.0),
            self.busy_path(c.node),
            self.busy_data(c),
            time(look.idle_transfer_s),
            self.image_demand(c.node, scale),
        ]
    }

    fn global_features(&self, looks: &[Look], scale: &Scale) -> [f32; 9] {
        let datasets = &self.cluster.catalogue.datasets;
        let bytes = |dataset: &u32| datasets[*dataset as usize].bytes as f64;
        let count = self.candidates().len() as f64;
        [
            self.alpha as f32,
            log(count) / 4.0,
            share(f64::from(self.estimates().with_image), count),
            log(self.cluster.total_rate_per_s() * scale.least_completion_s),
            log(scale.time(looks.iter().map(|look| look.backlog_s).sum::<f64>() / looks.len() as f64)),
            self.congestion() as f32,
            log(scale.data(self.task.inputs.iter().map(bytes).sum())),
            log(scale.data(self.task.outputs.iter().map(bytes).sum())),
            log(scale.time(scale.least_alone_s)),
        ]
    }

    /// Transfers on the busiest link between the registry and the node.
    fn busy_path(&self, node: NodeId) -> f32 {
        let registry = self.cluster.topology.registry_of(node);
        log(f64::from(registry.map_or(0, |registry| self.busiest(registry, node, Direction::From))))
    }

    /// Transfers on the busiest link that missing inputs and the output would cross.
    fn busy_data(&self, c: &Candidate) -> f32 {
        let cluster = self.cluster;
        let missing = self.task.inputs.iter().filter(|&&input| !cluster.has_dataset(input, c.node));
        let sources = missing.filter_map(|&input| cluster.dataset_source(input, c.node));
        let homes = self.task.outputs.iter().filter_map(|&output| {
            cluster.catalogue.datasets[output as usize].homes.first().filter(|home| **home != c.node)
        });
        let reads = sources.map(|source| self.busiest(source, c.node, Direction::From));
        let writes = homes.map(|&home| self.busiest(home, c.node, Direction::To));
        log(f64::from(reads.chain(writes).max().unwrap_or(0)))
    }

    fn idle_transfer_s(&self, c: &Candidate) -> f64 {
        let (read_s, store_s) = self.nominal_data_s(c.node);
        self.nominal_pull_s(c.node, c.missing_image_bytes) + read_s + store_s
    }

    /// Transfers on the busiest link of a way.
    fn busiest(&self, root: VertexId, node: NodeId, direction: Direction) -> u32 {
        let mut busiest = 0;
        self.cluster.topology.visit_route(root, node, direction, |channel, _| {
            busiest = busiest.max(self.cluster.channel_load(channel));
        });
        busiest
    }

    /// Seconds that the tasks executing on the node lose together while this one executes too.
    fn crowding_s(&self, c: &Candidate) -> f64 {
        let state = &self.cluster.nodes[c.node as usize];
        let capacity = f64::from(self.cluster.class(c.node).cpu_millis);
        let before = (state.cpu_use_millis as f64 / capacity).max(1.0);
        let others = state.admitted().count();
        others as f64 * c.execution_s * (1.0 - before / c.contention.max(before))
    }

    fn backlog_s(&self, node: NodeId) -> f64 {
        let now = self.cluster.now;
        let commitments = self.cluster.nodes[node as usize].commitments.iter();
        let left = commitments
            .map(|placed| if placed.admitted { placed.expected_end_from(now) - now } else { placed.span });
        left.map(Time::as_s).sum()
    }

    /// What the tasks of this image that arrive in a minute would pay, each on its own, to pull it
    /// to this node over idle links.
    fn image_demand(&self, node: NodeId, scale: &Scale) -> f32 {
        let Some(image) = self.task.image else { return 0.0 };
        let topology = &self.cluster.topology;
        let bytes =
            self.cluster.catalogue.image_bytes(image, topology.nodes[node as usize].arch).unwrap_or(0) as f64;
        let path = topology.registry_path(node);
        let pull =
            path.map_or(0.0, |path| scale.time(bytes / path.bytes_per_s) + scale.data(bytes * path.price));
        log(pull * self.cluster.image_rate_per_s(image) * 60.0)
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

/// What the features of one decision are measured in and against.
struct Scale {
    /// u: the median cost of the candidates looked at.
    unit: f64,
    /// Cost, in u, of a second and of a byte at the present α.
    per_s: f64,
    per_byte: f64,
    least_cost: f64,
    least_warm_cost: f64,
    least_completion_s: f64,
    least_moved_bytes: f64,
    least_alone_s: f64,
}

/// Below this the unit says nothing (all candidates are free): a thousandth of the reference cost.
const LEAST_UNIT: f64 = 1e-3;

impl Scale {
    fn of(observation: &Observation<'_>, looks: &[Look]) -> Scale {
        let candidates = || looks.iter().map(|look| &look.net);
        let least = |key: &dyn Fn(&Candidate) -> f64| candidates().map(key).fold(f64::INFINITY, f64::min);
        let mut costs: Vec<f64> = candidates().map(|c| observation.cost(c)).collect();
        costs.sort_unstable_by(f64::total_cmp);
        let unit = costs[costs.len() / 2].max(LEAST_UNIT);
        let (second, byte) = observation.rates();
        Scale {
            unit,
            per_s: second / unit,
            per_byte: byte / unit,
            least_cost: costs[0],
            least_warm_cost: least(&|c| observation.warm_cost(c)),
            least_completion_s: least(&Candidate::completion_s),
            least_moved_bytes: least(&|c| c.moved_bytes),
            least_alone_s: least(&|c| c.alone_s).max(1e-3),
        }
    }

    fn time(&self, seconds: f64) -> f64 {
        seconds * self.per_s
    }

    fn data(&self, bytes: f64) -> f64 {
        bytes * self.per_byte
    }
}

fn log(x: f64) -> f32 {
    // Rounded to 32 bits this is as good as `ln_1p`, and faster; many are zero.
    if x > 0.0 { (1.0 + x).ln() as f32 } else { 0.0 }
}

/// Resolves differences of a hundredth as well as of a hundred.
pub fn fine_log(x: f64) -> f32 {
    log(100.0 * x) / 2.0
}

fn share(part: f64, whole: f64) -> f32 {
    if whole > 0.0 { (part / whole) as f32 } else { 0.0 }
}

/// Estimates one task on node after node.
struct Estimator<'a> {
    cluster: &'a Cluster,
    task: &'a Task,
    kind: &'a Kind,
    disk_needed: [Option<u64>; 3],
    /// Execution time on the nodes of each class.
    executions: &'a [Option<ExecutionTime>],
    /// Ways between a root and a switch that were walked for the node before: those of a site share
    /// them. One for each of the first few ways of a task.
    walked: [Walked; 4],
    /// What waits in the queue of the node at hand; of a queue that needs more than the disk holds only the last.
    queue: Vec<&'a Task>,
    /// It is such a queue: what is on the disk now leaves it again, unless one of the last needs it.
    forgotten: bool,
}

#[derive(Clone, Copy)]
struct Walked {
    root: VertexId,
    switch: VertexId,
    direction: Direction,
    path: Path,
}

impl Walked {
    const NOWHERE: Walked =
        Walked { root: VertexId::MAX, switch: VertexId::MAX, direction: Direction::From, path: Path::HERE };
}

impl<'a> Estimator<'a> {
    fn new(cluster: &'a Cluster, task: &'a Task) -> Estimator<'a> {
        let kind = cluster.catalogue.kind(task);
        Estimator {
            cluster,
            task,
            kind,
            disk_needed: cluster.disk_needed(task),
            executions: cluster.executions(task),
            walked: [Walked::NOWHERE; 4],
            queue: Vec::new(),
            forgotten: false,
        }
    }

    /// Mean execution time of the task alone on a node, seconds; `None` where it cannot be placed now.
    #[inline(always)]
    fn takes(&self, node: NodeId) -> Option<f64> {
        let time = self.executions[self.cluster.class_of(node) as usize].as_ref()?;
        let class = self.cluster.class(node);
        let has_disk = self.disk_needed[class.arch as usize].is_some_and(|bytes| bytes <= class.disk_bytes);
        (has_disk && self.cluster.takes(self.task, node)).then_some(time.mean_s)
    }

    /// Fills in what placing the task on a node that takes it is expected to take.
    #[inline(always)]
    fn estimate(&mut self, node: NodeId, alone_s: f64, candidate: &mut Candidate) {
        let class = self.cluster.class(node);
        let state = &self.cluster.nodes[node as usize];
        let own = u64::from(self.kind.cpu_use_millis);
        candidate.node = node;
        candidate.fits_now = self.cluster.fits_now(self.task, node);
        let used = if candidate.fits_now {
            state.cpu_use_millis + own
        } else {
            candidate.wait_s = self.cluster.expected_room(node).since_s(self.cluster.now);
            // Who makes room for it is gone by then.
            state.cpu_use_millis.max(own)
        };
        self.queue.clear();
        self.forgotten = false;
        if state.queued > 0 {
            let waiting = state.commitments.iter().filter(|commitment| !commitment.admitted);
            self.queue.extend(waiting.map(|waiting| &*waiting.task));
            self.forget_displaced(class);
        }
        candidate.start_s = class.startup_s;
        candidate.alone_s = alone_s;
        candidate.execution_s = alone_s;
        if used > u64::from(class.cpu_millis) {
            candidate.contention = used as f64 / f64::from(class.cpu_millis);
            candidate.execution_s *= candidate.contention;
        }
        self.pull(candidate);
        self.read_inputs(candidate);
        self.store_outputs(candidate);
    }

    /// Leaves those last in the queue whose inputs have room on the disk together, beside what the task needs itself: what those
    /// before them bring, or find, will have left again by its turn.
    fn forget_displaced(&mut self, class: &Class) {
        let datasets = &self.cluster.catalogue.datasets;
        let bytes =
            |inputs: &[DatasetId]| -> u64 { inputs.iter().map(|&i| datasets[i as usize].bytes).sum() };
        let own = self.disk_needed[class.arch as usize].unwrap_or(0);
        let mut room = class.disk_bytes.saturating_sub(own);
        if self.queue.iter().map(|task| bytes(&task.inputs)).sum::<u64>() <= room {
            return;
        }
        let mut first = self.queue.len();
        while first > 0 {
            let inputs = &self.queue[first - 1].inputs;
            let known = |input: &DatasetId| {
                self.task.inputs.contains(input)
                    || self.queue[first..].iter().any(|t| t.inputs.contains(input))
            };
            let new: u64 = inputs.iter().filter(|i| !known(i)).map(|&i| datasets[i as usize].bytes).sum();
            if new > room {
                break;
            }
            room -= new;
            first -= 1;
        }
        self.forgotten = first > 0;
        self.queue.drain(..first);
    }

    /// What a new transfer could expect now on the way between `root` and a node.
    #[inline(always)]
    fn path(&mut self, root: VertexId, node: NodeId, direction: Direction) -> Option<Path> {
        let topology = &*self.cluster.topology;
        let hop = topology.hop(node, direction).filter(|_| root != node);
        let Some((switch, channel, latency_s)) = hop else { return self.walk(root, node, direction) };
        let known = |w: &&Walked| w.root == root && w.switch == switch && w.direction == direction;
        let beyond = match self.walked.iter().find(known) {
            Some(walked) => walked.path,
            None => self.walk_on(root, switch, direction)?,
        };
        let share = self.cluster.channel_share(channel);
        Some(beyond.behind(&topology.channels()[channel as usize], share, latency_s))
    }

    #[inline(never)]
    fn walk(&self, root: VertexId, vertex: VertexId, direction: Direction) -> Option<Path> {
        let share = |channel| self.cluster.channel_share(channel);
        self.cluster.topology.path_with(root, vertex, direction, share)
    }

    /// Walks from a switch, and remembers the way in place of the oldest.
    #[inline(never)]
    fn walk_on(&mut self, root: VertexId, switch: VertexId, direction: Direction) -> Option<Path> {
        let path = self.walk(root, switch, direction)?;
        self.walked.rotate_right(1);
        self.walked[0] = Walked { root, switch, direction, path };
        Some(path)
    }

    #[inline(always)]
    fn pull(&mut self, candidate: &mut Candidate) {
        let Some(image) = self.task.image else { return };
        let (mut missing, arriving) = self.cluster.missing_image_bytes(image, candidate.node);
        if missing == 0 {
            return;
        }
        let (cluster, arch) = (self.cluster, self.cluster.class(candidate.node).arch);
        let layers = cluster.catalogue.images[image as usize].layers(arch);
        if !self.queue.is_empty() {
            let lacking = layers.iter().filter(|&&layer| self.lacks(layer, candidate.node));
            let bytes = lacking.map(|&layer| cluster.catalogue.layers[layer as usize].bytes);
            missing = arriving + bytes.sum::<u64>();
        }
        candidate.missing_image_bytes = missing;
        candidate.arriving_image_bytes = arriving;
        if cluster.topology.peers {
            for &layer in layers {
                self.pull_layer(layer, candidate);
            }
        } else if missing > arriving {
            self.pull_from(cluster.topology.registry_of(candidate.node), missing - arriving, candidate);
        }
        if arriving > 0 {
            let left_s = |&layer: &LayerId| cluster.arriving_s(Item::Layer(layer), candidate.node);
            let last_s = layers.iter().filter_map(left_s).fold(0.0, f64::max);
            candidate.pull_s = candidate.pull_s.max(last_s - candidate.wait_s);
        }
    }

    /// Whether a layer is neither on the node nor on its way there, and nobody in its queue brings it.
    fn lacks(&self, layer: LayerId, node: NodeId) -> bool {
        let (images, arch) = (&self.cluster.catalogue.images, self.cluster.class(node).arch);
        let needs = |image: ImageId| images[image as usize].layers(arch).contains(&layer);
        let brought = || self.queue.iter().any(|task| task.image.is_some_and(needs));
        !self.cluster.has_or_awaits(Item::Layer(layer), node) && !brought()
    }

    fn pull_layer(&mut self, layer: LayerId, candidate: &mut Candidate) {
        if self.lacks(layer, candidate.node) {
            let source = self.cluster.layer_source(layer, candidate.node);
            self.pull_from(source, self.cluster.catalogue.layers[layer as usize].bytes, candidate);
        }
    }

    /// Adds the time and the move of so many bytes.
    fn pull_from(&mut self, source: Option<VertexId>, bytes: u64, candidate: &mut Candidate) {
        let Some(path) = source.and_then(|s| self.path(s, candidate.node, Direction::From)) else { return };
        candidate.pull_s += path.latency_s + bytes as f64 / path.bytes_per_s;
        let moved = bytes as f64 * path.price;
        candidate.image_moved_bytes += moved;
        candidate.moved_bytes += moved;
        candidate.wan_bytes += if path.wan { bytes } else { 0 };
    }

    #[inline(always)]
    fn read_inputs(&mut self, candidate: &mut Candidate) {
        for &dataset in &self.task.inputs {
            let brought = || self.queue.iter().any(|task| task.inputs.contains(&dataset));
            let home = || self.cluster.is_home(Item::Dataset(dataset), candidate.node);
            let stays = !self.forgotten || brought() || home();
            if stays && self.cluster.has_dataset(dataset, candidate.node) {
                continue;
            }
            if let Some(left_s) = self.cluster.arriving_s(Item::Dataset(dataset), candidate.node) {
                candidate.fetch_s = candidate.fetch_s.max(left_s - candidate.wait_s);
                continue;
            }
            if brought() {
                continue;
            }
            let source =
                self.cluster.dataset_source(dataset, candidate.node).filter(|&s| s != candidate.node);
            let Some(path) = source.and_then(|s| self.path(s, candidate.node, Direction::From)) else {
                continue;
            };
            let bytes = self.cluster.catalogue.datasets[dataset as usize].bytes;
            candidate.missing_input_bytes += bytes;
            candidate.fetch_s += path.latency_s + bytes as f64 / path.bytes_per_s;
            candidate.moved_bytes += bytes as f64 * path.price;
            candidate.wan_bytes += if path.wan { bytes } else { 0 };
        }
    }

    #[inline(always)]
    fn store_outputs(&mut self, candidate: &mut Candidate) {
        for &dataset in &self.task.outputs {
            let Dataset { bytes, homes, .. } = &self.cluster.catalogue.datasets[dataset as usize];
            let home = homes.first().copied().filter(|&home| home != candidate.node);
            let Some(path) = home.and_then(|home| self.path(home, candidate.node, Direction::To)) else {
                continue;
            };
            candidate.output_bytes += *bytes;
            candidate.store_s += path.latency_s + *bytes as f64 / path.bytes_per_s;
            candidate.moved_bytes += *bytes as f64 * path.price;
            candidate.wan_bytes += if path.wan { *bytes } else { 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FEATURES;

    /// The table at the top of this file is the specification; the code must agree with it.
    #[test]
    fn table_and_code_agree() {
        let rows: Vec<Vec<&str>> = include_str!("observation.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | "))
            .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
            .map(|line| line.trim_end_matches(" |").split(" | ").collect())
            .collect();
        assert_eq!(rows.len(), FEATURES.len());
        for (index, (row, feature)) in rows.iter().zip(FEATURES).enumerate() {
            assert_eq!(row[..4], [index.to_string().as_str(), feature.name, feature.unit, feature.range]);
        }
    }
}
