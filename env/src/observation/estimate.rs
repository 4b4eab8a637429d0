//! What placing a task on a node is expected to take.

use crate::catalogue::{Dataset, DatasetId, ExecutionTime, ImageId, Kind, LayerId, Task};
use crate::cluster::{Cluster, Expected, Item};
use crate::fit::Class;
use crate::time::Time;
use crate::topology::{Direction, NodeId, Path, VertexId};

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
    pub(super) fn pulled_bytes(&self) -> u64 {
        self.missing_image_bytes.saturating_sub(self.arriving_image_bytes)
    }

    /// Bytes that the task brings to the disk of its node before it starts.
    pub(super) fn brought_bytes(&self) -> u64 {
        self.pulled_bytes() + self.missing_input_bytes
    }

    /// What a commitment keeps of it.
    pub fn expected(&self) -> Expected {
        let wait = Time::ZERO.after_s(self.wait_s);
        let span = Time::ZERO.after_s(self.completion_s()) - wait;
        Expected { wait, span, brought_bytes: self.brought_bytes() }
    }
}

/// Estimates one task on node after node.
pub(super) struct Estimator<'a> {
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
    pub(super) fn new(cluster: &'a Cluster, task: &'a Task) -> Estimator<'a> {
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
    pub(super) fn takes(&self, node: NodeId) -> Option<f64> {
        let time = self.executions[self.cluster.class_of(node) as usize].as_ref()?;
        let class = self.cluster.class(node);
        let has_disk = self.disk_needed[class.arch as usize].is_some_and(|bytes| bytes <= class.disk_bytes);
        (has_disk && self.cluster.takes(self.task, node)).then_some(time.mean_s)
    }

    /// Fills in what placing the task on a node that takes it is expected to take.
    #[inline(always)]
    pub(super) fn estimate(&mut self, node: NodeId, alone_s: f64, candidate: &mut Candidate) {
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
