//! The facts about a cluster at one moment: what is allocated, what is queued, what is stored
//! where, which links are busy.
//!
//! The simulator keeps one as its truth, the service keeps one from what orchestrators report, and
//! both hand it to the same [`Observation`](crate::Observation). Nothing here knows the future.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use crate::catalogue::{Catalogue, DatasetId, ExecutionTime, ImageId, LayerId, Requests, Task};
use crate::device::Arch;
pub use crate::fit::Class;
use crate::fit::Fits;
use crate::time::Time;
use crate::topology::{ChannelId, Direction, NodeId, Topology, VertexId};

/// Identity of a placed task; the simulator counts arrivals, the service counts decisions.
pub type TaskId = u64;

/// A task that was placed and has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Commitment {
    pub id: TaskId,
    pub task: Arc<Task>,
    /// When it is expected to end: estimated at its placement, again when its node admits it, and as those
    /// that it shares the node with come and go.
    pub expected_end: Time,
    /// How long it is expected to take once admitted.
    pub span: Time,
    /// Whether the node has set its requests aside; otherwise it waits in the node's queue.
    pub admitted: bool,
    /// Which accelerators it holds, as indices into [`NodeState::accelerator_free_millis`].
    pub accelerators: Vec<u32>,
}

/// How long a task is expected to wait in the queue of its node, and to take from then on, and what it brings there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    pub wait: Time,
    pub span: Time,
    /// Bytes of its image and inputs that are neither there nor on their way.
    pub brought_bytes: u64,
}

/// What it has cost since an image was last pulled, while nobody was pulling it, that it is nowhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lack {
    /// Seconds that tasks were to wait where they found it.
    pub waited_s: f64,
    /// Bytes that had to leave disks for what those tasks brought there.
    pub displaced_bytes: f64,
}

impl Commitment {
    /// When it is expected to end, as it looks at `now`: see [`Time::expected_from`].
    pub fn expected_end_from(&self, now: Time) -> Time {
        self.expected_end.expected_from(now, self.span)
    }
}

impl NodeState {
    /// What the node has set resources aside for.
    pub fn admitted(&self) -> impl Iterator<Item = &Commitment> {
        self.commitments.iter().filter(|commitment| commitment.admitted)
    }
}

/// Something on a node's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    Layer(LayerId),
    Dataset(DatasetId),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Stored {
    bytes: u64,
    last_used: Time,
    /// Tasks that need it now; a pinned item is not evicted.
    pins: u32,
    /// False while its transfer is under way.
    present: bool,
    /// Kept for good: the node is one of the dataset's homes, or made it and it has none.
    home: bool,
}

/// What is true of one node now.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeState {
    /// It is there and runs what it is given.
    pub up: bool,
    /// It may be given more.
    pub accepting: bool,
    pub cpu_free_millis: u32,
    pub memory_free_bytes: u64,
    /// CPU that admitted tasks use while executing; may exceed the capacity.
    pub cpu_use_millis: u64,
    /// Thousandths free of each accelerator.
    pub accelerator_free_millis: Vec<u32>,
    /// Tasks placed here that have not ended, oldest first.
    pub commitments: Vec<Commitment>,
    /// Of those, how many wait for resources.
    pub queued: u32,
    pub disk_used_bytes: u64,
    disk: BTreeMap<Item, Stored>,
}

/// A transfer to a node's disk that is under way.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Arriving {
    begun: Time,
    /// When it is to end, as it looked when it began.
    expected: Time,
}

/// Recent arrivals of one sort: a count that decays by half every five minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    count: f64,
    at: Time,
}

const RATE_HALF_LIFE_S: f64 = 300.0;
/// What a link that is down counts as being left of it.
const LEAST_SHARE: f64 = 1e-2;

impl Rate {
    fn from_per_s(per_s: f64, now: Time) -> Rate {
        Rate { count: per_s * RATE_HALF_LIFE_S / std::f64::consts::LN_2, at: now }
    }

    fn add(&mut self, now: Time) {
        self.count = self.decayed(now) + 1.0;
        self.at = now;
    }

    fn decayed(&self, now: Time) -> f64 {
        self.count * (-now.since_s(self.at) / RATE_HALF_LIFE_S).exp2()
    }

    /// Arrivals per second, estimated from the decayed count.
    pub fn per_s(&self, now: Time) -> f64 {
        self.decayed(now) * std::f64::consts::LN_2 / RATE_HALF_LIFE_S
    }
}

/// One bit for each layer and node.
#[derive(Clone, Debug, Default, PartialEq)]
struct LayerNodes {
    /// Words per layer.
    stride: usize,
    words: Vec<u64>,
}

impl LayerNodes {
    fn new(layers: usize, nodes: usize) -> LayerNodes {
        let stride = nodes.div_ceil(64);
        LayerNodes { stride, words: vec![0; layers * stride] }
    }

    #[inline]
    fn contains(&self, layer: LayerId, node: NodeId) -> bool {
        self.words[layer as usize * self.stride + node as usize / 64] >> (node % 64) & 1 == 1
    }

    /// The words of a layer.
    fn of(&self, layer: LayerId) -> &[u64] {
        &self.words[layer as usize * self.stride..][..self.stride]
    }

    fn set(&mut self, layer: LayerId, node: NodeId, value: bool) {
        let word = &mut self.words[layer as usize * self.stride + node as usize / 64];
        let bit = 1 << (node % 64);
        if value { *word |= bit } else { *word &= !bit }
    }

    fn any(&self, layer: LayerId) -> bool {
        self.of(layer).iter().any(|&word| word != 0)
    }

    fn count(&self, layer: LayerId) -> u32 {
        let first = layer as usize * self.stride;
        self.words[first..first + self.stride].iter().map(|word| word.count_ones()).sum()
    }
}

/// The facts about a cluster at one moment.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub topology: Arc<Topology>,
    pub catalogue: Arc<Catalogue>,
    pub now: Time,
    /// Shared between clones until one of them changes: a clone costs a count per node.
    pub nodes: Vec<Arc<NodeState>>,
    fits: Arc<Fits>,
    /// Transfers under way on each channel.
    channel_load: Vec<u32>,
    /// What each channel can carry now, bytes per second.
    channel_capacity: Vec<f64>,
    /// What one more transfer could expect of each channel; follows from the two above.
    channel_share: Vec<f64>,
    layer_present: LayerNodes,
    layer_arriving: LayerNodes,
    arriving: BTreeMap<(Item, NodeId), Arriving>,
    /// For each dataset to how many nodes it is on its way.
    dataset_arriving: Vec<u32>,
    /// Nodes with the current version of each dataset, in ascending order.
    dataset_holders: Vec<Arc<Vec<NodeId>>>,
    /// How often each dataset was renewed: a copy of an older version is worthless.
    dataset_version: Vec<u32>,
    /// See [`Cluster::waited_for_copy_s`] and [`Cluster::image_lack`].
    dataset_waited_s: Vec<f64>,
    image_lack: Vec<Lack>,
    /// Arrivals per image, and of all tasks.
    image_rate: Vec<Rate>,
    total_rate: Rate,
}

impl Cluster {
    /// An idle cluster: datasets at their homes, no image anywhere.
    pub fn new(topology: Arc<Topology>, catalogue: Arc<Catalogue>) -> Cluster {
        let nodes = topology
            .nodes
            .iter()
            .map(|node| NodeState {
                up: true,
                accepting: true,
                cpu_free_millis: node.cpu_millis,
                memory_free_bytes: node.memory_bytes,
                cpu_use_millis: 0,
                accelerator_free_millis: vec![
                    1000;
                    node.accelerator.as_ref().map_or(0, |(_, n)| *n as usize)
                ],
                commitments: Vec::new(),
                queued: 0,
                disk_used_bytes: 0,
                disk: BTreeMap::new(),
            })
            .map(Arc::new)
            .collect();
        let layers = LayerNodes::new(catalogue.layers.len(), topology.nodes.len());
        let mut cluster = Cluster {
            now: Time::ZERO,
            nodes,
            fits: Arc::new(Fits::new(&topology, &catalogue)),
            channel_load: vec![0; topology.channels().len()],
            channel_capacity: topology.channels().iter().map(|c| c.capacity_bytes_per_s).collect(),
            channel_share: topology.channels().iter().map(|c| c.capacity_bytes_per_s).collect(),
            layer_present: layers.clone(),
            layer_arriving: layers,
            arriving: BTreeMap::new(),
            dataset_arriving: vec![0; catalogue.datasets.len()],
            dataset_holders: vec![Arc::default(); catalogue.datasets.len()],
            dataset_version: vec![0; catalogue.datasets.len()],
            dataset_waited_s: vec![0.0; catalogue.datasets.len()],
            image_lack: vec![Lack::default(); catalogue.images.len()],
            image_rate: vec![Rate::default(); catalogue.images.len()],
            total_rate: Rate::default(),
            topology,
            catalogue,
        };
        for dataset in 0..cluster.catalogue.datasets.len() {
            for &home in &Arc::clone(&cluster.catalogue).datasets[dataset].homes {
                cluster.store(home, Item::Dataset(dataset as DatasetId), true);
            }
        }
        cluster
    }

    // Allocation.

    fn node_mut(&mut self, node: NodeId) -> &mut NodeState {
        Arc::make_mut(&mut self.nodes[node as usize])
    }

    /// Whether the node could ever run the task: architecture, device kind, labels, whole capacity.
    pub fn can_run(&self, task: &Task, node: NodeId) -> bool {
        self.execution(task, node).is_some() && self.has_disk_for(task, node)
    }

    /// Execution time of the task on the nodes of each class.
    pub(crate) fn executions(&self, task: &Task) -> &[Option<ExecutionTime>] {
        self.fits.row(task.kind, &self.topology, &self.catalogue)
    }

    /// Execution time of the task on the node, if its requests and labels allow it there.
    #[inline]
    pub fn execution(&self, task: &Task, node: NodeId) -> Option<&ExecutionTime> {
        self.fits.execution(task.kind, node, &self.topology, &self.catalogue)
    }

    fn has_disk_for(&self, task: &Task, node: NodeId) -> bool {
        let class = self.class(node);
        self.disk_needed(task)[class.arch as usize].is_some_and(|bytes| bytes <= class.disk_bytes)
    }

    /// What the node has in common with others alike.
    #[inline]
    pub(crate) fn class(&self, node: NodeId) -> &Class {
        self.fits.class(node)
    }

    /// Nodes of a class differ in nothing but name and place.
    pub fn classes(&self) -> &[Class] {
        self.fits.classes()
    }

    /// Index of the node's class in [`Cluster::classes`].
    #[inline]
    pub fn class_of(&self, node: NodeId) -> u32 {
        self.fits.class_of(node)
    }

    /// Bytes of disk that the task takes on a node of each of [`Arch::ALL`]; `None` where its image
    /// does not exist.
    pub fn disk_needed(&self, task: &Task) -> [Option<u64>; 3] {
        let datasets = task.inputs.iter().chain(&task.outputs);
        let data: u64 = datasets.map(|&d| self.catalogue.datasets[d as usize].bytes).sum();
        Arch::ALL.map(|arch| {
            let image = task.image.map_or(Some(0), |image| self.catalogue.image_bytes(image, arch));
            image.map(|image| image + data)
        })
    }

    /// Whether the node, which could run the task, takes it now: it is up and accepting, and has room or a
    /// place in its queue.
    #[inline]
    pub fn takes(&self, task: &Task, node: NodeId) -> bool {
        let state = &self.nodes[node as usize];
        let limit = self.topology.queue_limit.unwrap_or(u32::MAX);
        state.up && state.accepting && (state.queued < limit || self.fits_now(task, node))
    }

    /// Whether the task's requests are free on the node and nobody waits before it.
    #[inline]
    pub fn fits_now(&self, task: &Task, node: NodeId) -> bool {
        self.nodes[node as usize].queued == 0 && self.has_room(task, node)
    }

    #[inline]
    fn has_room(&self, task: &Task, node: NodeId) -> bool {
        self.has_room_for(&self.catalogue.kind(task).requests, node)
    }

    /// [`Cluster::fits_now`] for a task with these requests.
    #[inline]
    pub fn fit_now(&self, requests: &Requests, node: NodeId) -> bool {
        self.nodes[node as usize].queued == 0 && self.has_room_for(requests, node)
    }

    #[inline]
    fn has_room_for(&self, requests: &Requests, node: NodeId) -> bool {
        let state = &self.nodes[node as usize];
        state.up
            && requests.cpu_millis <= state.cpu_free_millis
            && requests.memory_bytes <= state.memory_free_bytes
            && (requests.accelerators == 0 || free_accelerators(state, requests) >= requests.accelerators)
    }

    /// Commits a task to a node; it is admitted at once where it fits and nobody waits, else it
    /// joins the node's queue, and is expected to wait and then to take so long. Returns whether it was
    /// admitted.
    pub fn place(&mut self, id: TaskId, task: Arc<Task>, node: NodeId, expected: Expected) -> bool {
        let admitted = self.fits_now(&task, node);
        let Expected { wait, span, .. } = expected;
        self.note_lack(&task, node, expected);
        let expected_end = self.now + wait + span;
        let accelerators = Vec::new();
        let mut commitment = Commitment { id, task, expected_end, span, admitted: false, accelerators };
        if admitted {
            let before = self.nodes[node as usize].cpu_use_millis;
            self.admit(node, &mut commitment);
            self.stretch(node, before);
        } else {
            self.node_mut(node).queued += 1;
        }
        self.node_mut(node).commitments.push(commitment);
        admitted
    }

    /// Notes that a task is to wait on a node, and what it displaces there, for what it finds there; what it does not find is
    /// copied now. A dataset that somebody before it in the queue brings is found.
    fn note_lack(&mut self, task: &Task, node: NodeId, expected: Expected) {
        let wait_s = expected.wait.as_s();
        let displaced_bytes = self.displaced_bytes(node, expected.brought_bytes) as f64;
        let lacking = wait_s > 0.0 || displaced_bytes > 0.0;
        if let Some(image) = task.image {
            let (missing, arriving) = self.missing_image_bytes(image, node);
            let layers = self.catalogue.images[image as usize].layers(self.class(node).arch);
            let lack = &mut self.image_lack[image as usize];
            if missing > arriving {
                *lack = Lack::default();
            } else if lacking && layers.iter().all(|&layer| !self.layer_arriving.any(layer)) {
                lack.waited_s += wait_s;
                lack.displaced_bytes += displaced_bytes;
            }
        }
        let catalogue = Arc::clone(&self.catalogue);
        let bytes = |&dataset: &DatasetId| catalogue.datasets[dataset as usize].bytes as f64;
        let all: f64 = task.inputs.iter().map(bytes).sum();
        for dataset in task.inputs.iter().filter(|_| all > 0.0) {
            if !self.has_dataset(*dataset, node) && !self.queue_brings(*dataset, node) {
                self.dataset_waited_s[*dataset as usize] = 0.0;
            } else if self.dataset_arriving[*dataset as usize] == 0 {
                self.dataset_waited_s[*dataset as usize] += wait_s * bytes(dataset) / all;
            }
        }
    }

    /// Whether somebody in the queue of a node reads the dataset, and so has it there afterwards.
    fn queue_brings(&self, dataset: DatasetId, node: NodeId) -> bool {
        let state = &self.nodes[node as usize];
        let mut queue = state.commitments.iter().filter(|commitment| !commitment.admitted);
        state.queued > 0 && queue.any(|waiting| waiting.task.inputs.contains(&dataset))
    }

    fn admit(&mut self, node: NodeId, commitment: &mut Commitment) {
        let catalogue = Arc::clone(&self.catalogue);
        let kind = catalogue.kind(&commitment.task);
        let state = self.node_mut(node);
        state.cpu_free_millis -= kind.requests.cpu_millis;
        state.memory_free_bytes -= kind.requests.memory_bytes;
        state.cpu_use_millis += u64::from(kind.cpu_use_millis);
        if commitment.accelerators.is_empty() {
            commitment.accelerators = choose_accelerators(state, &kind.requests);
        }
        for &index in &commitment.accelerators {
            state.accelerator_free_millis[index as usize] -= kind.requests.accelerator_millis;
        }
        commitment.admitted = true;
    }

    /// After the CPU in use on a node has changed from `before` thousandths: where that is or was more than
    /// there is, what is left of those executing is stretched or shrinks with it.
    fn stretch(&mut self, node: NodeId, before: u64) {
        let (now, capacity) = (self.now, u64::from(self.class(node).cpu_millis));
        let state = self.node_mut(node);
        let (before, after) = (before.max(capacity), state.cpu_use_millis.max(capacity));
        if before != after {
            let executing = state.commitments.iter_mut().filter(|commitment| commitment.admitted);
            for commitment in executing.filter(|commitment| commitment.expected_end > now) {
                let left_s = commitment.expected_end.since_s(now) * after as f64 / before as f64;
                commitment.expected_end = now.after_s(left_s);
            }
        }
    }

    /// When the room for one more task on a node is expected, if nothing is placed there in between: first
    /// come, first served, each that ends makes room for one.
    pub fn expected_room(&self, node: NodeId) -> Time {
        let state = &self.nodes[node as usize];
        let mut ends: BinaryHeap<Reverse<Time>> =
            state.admitted().map(|running| Reverse(running.expected_end_from(self.now))).collect();
        for waiting in state.commitments.iter().filter(|waiting| !waiting.admitted) {
            let room = ends.pop().map_or(self.now, |Reverse(end)| end);
            ends.push(Reverse(room + waiting.span));
        }
        ends.pop().map_or(self.now, |Reverse(end)| end)
    }

    /// Enters a task that runs or waits on the node already, as an orchestrator reports it. An
    /// admitted one that names no accelerators gets those that fit most tightly. Returns false, with
    /// nothing changed, when it is said to be admitted but what it requests or holds is not free.
    pub fn restore(&mut self, node: NodeId, mut commitment: Commitment) -> bool {
        if !commitment.admitted {
            commitment.accelerators.clear();
            self.node_mut(node).queued += 1;
        } else if self.has_room(&commitment.task, node) && self.can_hold(node, &commitment) {
            self.admit(node, &mut commitment);
        } else {
            return false;
        }
        self.node_mut(node).commitments.push(commitment);
        true
    }

    /// Whether the accelerators that a commitment names are as many as requested, distinct and free.
    fn can_hold(&self, node: NodeId, commitment: &Commitment) -> bool {
        let requests = &self.catalogue.kind(&commitment.task).requests;
        let free = &self.nodes[node as usize].accelerator_free_millis;
        let named = &commitment.accelerators;
        let distinct = named.iter().enumerate().all(|(at, index)| !named[..at].contains(index));
        let share =
            |index: &u32| free.get(*index as usize).is_some_and(|&free| free >= requests.accelerator_millis);
        named.is_empty()
            || named.len() == requests.accelerators as usize && distinct && named.iter().all(share)
    }

    /// Ends a task wherever it stands and admits those of the queue that now fit: the highest
    /// priority first, then first come, first served. Returns the admitted ones; `None` when the node
    /// has no such task.
    pub fn release(&mut self, id: TaskId, node: NodeId) -> Option<Vec<TaskId>> {
        let catalogue = Arc::clone(&self.catalogue);
        let state = self.node_mut(node);
        let index = state.commitments.iter().position(|commitment| commitment.id == id)?;
        let ended = state.commitments.remove(index);
        if ended.admitted {
            let kind = catalogue.kind(&ended.task);
            state.cpu_free_millis += kind.requests.cpu_millis;
            state.memory_free_bytes += kind.requests.memory_bytes;
            state.cpu_use_millis -= u64::from(kind.cpu_use_millis);
            for &index in &ended.accelerators {
                state.accelerator_free_millis[index as usize] += kind.requests.accelerator_millis;
            }
            let before = state.cpu_use_millis + u64::from(kind.cpu_use_millis);
            self.stretch(node, before);
        } else {
            state.queued -= 1;
        }
        Some(self.admit_queued(node))
    }

    /// Admits those of the node's queue that fit now, in the order of [`Cluster::release`].
    pub fn admit_queued(&mut self, node: NodeId) -> Vec<TaskId> {
        let mut admitted = Vec::new();
        while self.nodes[node as usize].queued > 0 {
            let index = self.head_of_queue(node);
            if !self.has_room(&self.nodes[node as usize].commitments[index].task, node) {
                break;
            }
            let mut commitment = self.node_mut(node).commitments.remove(index);
            let before = self.nodes[node as usize].cpu_use_millis;
            self.admit(node, &mut commitment);
            self.stretch(node, before);
            commitment.expected_end = self.now + commitment.span;
            admitted.push(commitment.id);
            let state = self.node_mut(node);
            state.commitments.insert(index, commitment);
            state.queued -= 1;
        }
        admitted
    }

    /// Index of the commitment that is admitted next, where some wait.
    fn head_of_queue(&self, node: NodeId) -> usize {
        let commitments = self.nodes[node as usize].commitments.iter().enumerate();
        let waiting = commitments.filter(|(_, commitment)| !commitment.admitted);
        // Of equals the first.
        let head = waiting.rev().max_by_key(|(_, waiting)| self.catalogue.kind(&waiting.task).priority);
        head.expect("the queue counts the commitments that are not admitted").0
    }

    /// A node goes, with everything placed on it, or comes back idle. Its disk stays as it is. Returns
    /// what was placed there, oldest first.
    pub fn set_up(&mut self, node: NodeId, up: bool) -> Vec<TaskId> {
        self.node_mut(node).up = up;
        let lost: Vec<_> = self.nodes[node as usize].commitments.iter().map(|lost| lost.id).collect();
        for &id in &lost {
            // Nothing is admitted to a node that is down.
            self.release(id, node);
        }
        lost
    }

    /// From now on a node takes new tasks, or does not; what is placed there stays.
    pub fn set_accepting(&mut self, node: NodeId, accepting: bool) {
        self.node_mut(node).accepting = accepting;
    }

    // Storage.

    /// Whether the node has the whole image.
    pub fn has_image(&self, image: ImageId, node: NodeId) -> bool {
        self.missing_image_bytes(image, node).0 == 0
    }

    /// Bytes of the image that the node lacks, and how many of those are on their way.
    #[inline]
    pub fn missing_image_bytes(&self, image: ImageId, node: NodeId) -> (u64, u64) {
        let arch = self.class(node).arch;
        let (mut missing, mut arriving) = (0, 0);
        for &layer in self.catalogue.images[image as usize].layers(arch) {
            if !self.layer_present.contains(layer, node) {
                let bytes = self.catalogue.layers[layer as usize].bytes;
                missing += bytes;
                if self.layer_arriving.contains(layer, node) {
                    arriving += bytes;
                }
            }
        }
        (missing, arriving)
    }

    /// A bit for each node, 64 to a word: whether all these layers are there or on their way there.
    pub fn have_or_await(&self, layers: &[LayerId]) -> Vec<u64> {
        let mut all = vec![u64::MAX; self.layer_present.stride];
        for &layer in layers {
            let words = self.layer_present.of(layer).iter().zip(self.layer_arriving.of(layer));
            for (all, (present, arriving)) in all.iter_mut().zip(words) {
                *all &= present | arriving;
            }
        }
        all
    }

    /// How many nodes hold the whole image for their architecture.
    pub fn image_spread(&self, image: ImageId) -> u32 {
        let image = &self.catalogue.images[image as usize];
        let held =
            |arch: &Arch| image.layers(*arch).iter().map(|&layer| self.layer_present.count(layer)).min();
        Arch::ALL.iter().filter_map(held).sum()
    }

    /// Whether the node has the current version.
    pub fn has_dataset(&self, dataset: DatasetId, node: NodeId) -> bool {
        self.dataset_holders[dataset as usize].binary_search(&node).is_ok()
    }

    /// Nodes with the current version of a dataset, in ascending order.
    pub fn holders(&self, dataset: DatasetId) -> &[NodeId] {
        &self.dataset_holders[dataset as usize]
    }

    /// How often the dataset was renewed.
    pub fn dataset_version(&self, dataset: DatasetId) -> u32 {
        self.dataset_version[dataset as usize]
    }

    /// Seconds that tasks were to wait where they found a dataset since it was last renewed or copied for a task, while no
    /// copy was on its way: what the lack of another copy has cost so far. Of a task that reads several, each counts by
    /// its share of their bytes.
    pub fn waited_for_copy_s(&self, dataset: DatasetId) -> f64 {
        self.dataset_waited_s[dataset as usize]
    }

    /// What the lack of an image elsewhere has cost since it was last pulled.
    pub fn image_lack(&self, image: ImageId) -> Lack {
        self.image_lack[image as usize]
    }

    /// Sets what [`Cluster::waited_for_copy_s`] tells, as it was reported.
    pub fn set_waited_for_copy_s(&mut self, dataset: DatasetId, waited_s: f64) {
        self.dataset_waited_s[dataset as usize] = waited_s;
    }

    /// Sets what [`Cluster::image_lack`] tells, as it was reported.
    pub fn set_image_lack(&mut self, image: ImageId, lack: Lack) {
        self.image_lack[image as usize] = lack;
    }

    /// Whether the item is there, whole and current.
    pub fn has_item(&self, item: Item, node: NodeId) -> bool {
        match item {
            Item::Layer(layer) => self.layer_present.contains(layer, node),
            Item::Dataset(dataset) => self.has_dataset(dataset, node),
        }
    }

    /// Whether the item is on its way there.
    pub fn is_arriving(&self, item: Item, node: NodeId) -> bool {
        self.nodes[node as usize].disk.get(&item).is_some_and(|stored| !stored.present)
    }

    /// Whether the item is there or on its way there.
    pub fn has_or_awaits(&self, item: Item, node: NodeId) -> bool {
        self.has_item(item, node) || self.is_arriving(item, node)
    }

    /// Seconds until an item on its way to the node is expected there; `None` where it is not on its way. See
    /// [`Time::expected_from`].
    #[inline]
    pub fn arriving_s(&self, item: Item, node: NodeId) -> Option<f64> {
        if let Item::Dataset(dataset) = item
            && self.dataset_arriving[dataset as usize] == 0
        {
            return None;
        }
        let Arriving { begun, expected } = *self.arriving.get(&(item, node))?;
        Some(expected.expected_from(self.now, expected - begun).since_s(self.now))
    }

    /// What is on its way to a node: how long until it is expected there, in seconds and negative where it is
    /// late, and how many seconds it was to take.
    pub fn arriving_at(&self, node: NodeId) -> impl Iterator<Item = (Item, f64, f64)> {
        self.arriving.iter().filter(move |((_, to), _)| *to == node).map(|((item, _), arriving)| {
            let Arriving { begun, expected } = *arriving;
            (*item, expected.signed_s_since(self.now), expected.since_s(begun))
        })
    }

    /// Corrects what is expected of an item on its way to a node, as [`Cluster::arriving_at`] tells it.
    pub fn expect(&mut self, node: NodeId, item: Item, remaining_s: f64, span_s: f64) {
        let now = self.now;
        if let Some(arriving) = self.arriving.get_mut(&(item, node)) {
            arriving.expected = now.shifted_s(remaining_s);
            arriving.begun = arriving.expected - Time::recorded(span_s);
        }
    }

    /// Takes all transfers off the links, which carry at least a hundredth of what they were made for. Returns what is on
    /// its way, and which share of it is still to come if all goes as expected.
    pub(crate) fn take_loads(&mut self) -> Vec<(NodeId, Item, f64)> {
        for channel in 0..self.channel_load.len() as ChannelId {
            let least = self.topology.channels()[channel as usize].capacity_bytes_per_s * LEAST_SHARE;
            self.channel_load[channel as usize] = 0;
            self.set_channel_capacity(channel, self.channel_capacity[channel as usize].max(least));
        }
        let share = |(&(item, node), arriving): (&(Item, NodeId), &Arriving)| {
            let span = arriving.expected - arriving.begun;
            let left_s = arriving.expected.expected_from(self.now, span).since_s(self.now);
            (node, item, (left_s / span.as_s()).clamp(0.0, 1.0))
        };
        self.arriving.iter().map(share).collect()
    }

    /// What is placed on a node, to be numbered anew.
    pub(crate) fn commitments_mut(&mut self, node: NodeId) -> &mut [Commitment] {
        &mut self.node_mut(node).commitments
    }

    /// Nothing of the item is on its way to the node any more.
    fn arrived(&mut self, item: Item, node: NodeId) {
        if let (Some(_), Item::Dataset(dataset)) = (self.arriving.remove(&(item, node)), item) {
            self.dataset_arriving[dataset as usize] -= 1;
        }
    }

    /// Seconds that one more transfer of the item to the node would take now.
    fn transfer_s(&self, node: NodeId, item: Item) -> f64 {
        let source = match item {
            Item::Layer(layer) => self.layer_source(layer, node),
            Item::Dataset(dataset) => self.dataset_source(dataset, node),
        };
        let share = |channel| self.channel_share(channel);
        let path = source.and_then(|source| self.topology.path_with(source, node, Direction::From, share));
        path.map_or(0.0, |path| path.latency_s + self.item_bytes(item) as f64 / path.bytes_per_s)
    }

    fn item_bytes(&self, item: Item) -> u64 {
        match item {
            Item::Layer(layer) => self.catalogue.layers[layer as usize].bytes,
            Item::Dataset(dataset) => self.catalogue.datasets[dataset as usize].bytes,
        }
    }

    pub fn is_home(&self, item: Item, node: NodeId) -> bool {
        match item {
            Item::Layer(_) => false,
            Item::Dataset(dataset) => self.catalogue.datasets[dataset as usize].homes.contains(&node),
        }
    }

    /// Makes room for an item, least recently used first, and enters it. A `present` item can be
    /// used from now on; otherwise its bytes are reserved while it arrives. When everything else is
    /// pinned the disk runs over: the transfer is already paid for, and `check` allows it.
    pub fn store(&mut self, node: NodeId, item: Item, present: bool) {
        let bytes = self.item_bytes(item);
        let now = self.now;
        if let Some(stored) = self.node_mut(node).disk.get_mut(&item) {
            stored.present |= present;
            stored.last_used = now;
        } else {
            self.evict_for(node, bytes);
            let home = self.is_home(item, node);
            let state = self.node_mut(node);
            state.disk_used_bytes += bytes;
            state.disk.insert(item, Stored { bytes, last_used: now, pins: 0, present, home });
            if !present {
                let expected = now.after_s(self.transfer_s(node, item));
                self.arriving.insert((item, node), Arriving { begun: now, expected });
                if let Item::Dataset(dataset) = item {
                    self.dataset_arriving[dataset as usize] += 1;
                }
            }
        }
        if present {
            self.arrived(item, node);
        }
        self.index(node, item);
    }

    /// Bytes that have to leave a node's disk for so many that are brought there.
    pub fn displaced_bytes(&self, node: NodeId, brought: u64) -> u64 {
        let capacity = self.topology.nodes[node as usize].disk_bytes;
        brought.saturating_sub(capacity.saturating_sub(self.nodes[node as usize].disk_used_bytes))
    }

    fn evict_for(&mut self, node: NodeId, bytes: u64) {
        let capacity = self.topology.nodes[node as usize].disk_bytes;
        while self.nodes[node as usize].disk_used_bytes + bytes > capacity {
            let state = &self.nodes[node as usize];
            let idle =
                state.disk.iter().filter(|(_, stored)| stored.pins == 0 && stored.present && !stored.home);
            let Some((&item, _)) = idle.min_by_key(|(item, stored)| (stored.last_used, **item)) else {
                return;
            };
            self.remove(node, item);
        }
    }

    /// Takes an item off a node's disk.
    pub fn remove(&mut self, node: NodeId, item: Item) {
        let state = self.node_mut(node);
        if let Some(stored) = state.disk.remove(&item) {
            state.disk_used_bytes -= stored.bytes;
        }
        self.arrived(item, node);
        self.index(node, item);
    }

    /// Brings the reverse indices in line with the node's disk.
    fn index(&mut self, node: NodeId, item: Item) {
        let stored = self.nodes[node as usize].disk.get(&item).map(|stored| stored.present);
        match item {
            Item::Layer(layer) => {
                self.layer_present.set(layer, node, stored == Some(true));
                self.layer_arriving.set(layer, node, stored == Some(false));
            }
            Item::Dataset(dataset) => {
                let holders = Arc::make_mut(&mut self.dataset_holders[dataset as usize]);
                match (holders.binary_search(&node), stored == Some(true)) {
                    (Err(at), true) => holders.insert(at, node),
                    (Ok(at), false) => drop(holders.remove(at)),
                    _ => {}
                }
            }
        }
    }

    /// Marks an item as needed (`true`) or no longer needed by one task.
    pub fn pin(&mut self, node: NodeId, item: Item, needed: bool) {
        let now = self.now;
        if let Some(stored) = self.node_mut(node).disk.get_mut(&item) {
            stored.pins = if needed { stored.pins + 1 } else { stored.pins.saturating_sub(1) };
            stored.last_used = now;
        }
    }

    /// A new version of a dataset exists on `origin` only: other copies are out of date and go.
    /// Tasks that read an old copy go on with what they have.
    pub fn renew_dataset(&mut self, dataset: DatasetId, origin: NodeId) {
        let item = Item::Dataset(dataset);
        self.dataset_version[dataset as usize] += 1;
        self.dataset_waited_s[dataset as usize] = 0.0;
        for &node in std::mem::take(&mut self.dataset_holders[dataset as usize]).iter() {
            if node != origin {
                self.remove(node, item);
            }
        }
        self.store(origin, item, true);
    }

    /// A task on `producer` ended with a new version of a dataset: it is at its first home and where
    /// it was made. One without home stays there for good.
    pub fn publish(&mut self, dataset: DatasetId, producer: NodeId) {
        let item = Item::Dataset(dataset);
        let home = self.catalogue.datasets[dataset as usize].homes.first().copied();
        self.renew_dataset(dataset, home.unwrap_or(producer));
        match home {
            Some(home) if home != producer => self.store(producer, item, true),
            Some(_) => {}
            None => {
                let stored = self.node_mut(producer).disk.get_mut(&item);
                stored.expect("a renewed dataset is where it is renewed").home = true;
            }
        }
    }

    /// What a task needs on a node's disk: the layers of its image for that architecture, its inputs.
    pub fn needs(&self, task: &Task, node: NodeId) -> Vec<Item> {
        let arch = self.topology.nodes[node as usize].arch;
        let layers = task.image.map_or(&[][..], |image| self.catalogue.images[image as usize].layers(arch));
        let layers = layers.iter().map(|&layer| Item::Layer(layer));
        layers.chain(task.inputs.iter().map(|&dataset| Item::Dataset(dataset))).collect()
    }

    // Links.

    /// Transfers under way on a channel.
    pub fn channel_load(&self, channel: ChannelId) -> u32 {
        self.channel_load[channel as usize]
    }

    /// Notes that so many more transfers are under way on a channel.
    pub fn add_channel_load(&mut self, channel: ChannelId, change: i32) {
        let load = &mut self.channel_load[channel as usize];
        *load = load.saturating_add_signed(change);
        self.share_channel(channel);
    }

    /// What a channel can carry now, bytes per second.
    pub fn channel_capacity(&self, channel: ChannelId) -> f64 {
        self.channel_capacity[channel as usize]
    }

    /// Sets what a channel can carry from now on, bytes per second; 0 is down.
    pub fn set_channel_capacity(&mut self, channel: ChannelId, bytes_per_s: f64) {
        self.channel_capacity[channel as usize] = bytes_per_s;
        self.share_channel(channel);
    }

    fn share_channel(&mut self, channel: ChannelId) {
        // Where the channel is down, as if a hundredth of it were left: it may come back.
        let least = self.topology.channels()[channel as usize].capacity_bytes_per_s * LEAST_SHARE;
        let capacity = self.channel_capacity[channel as usize].max(least);
        self.channel_share[channel as usize] = capacity / f64::from(self.channel_load[channel as usize] + 1);
    }

    /// What one more transfer could expect of a channel: an equal share, bytes per second. Where the
    /// channel is down, a hundredth of what it was made for: it may come back.
    #[inline]
    pub fn channel_share(&self, channel: ChannelId) -> f64 {
        self.channel_share[channel as usize]
    }

    /// Where a node pulls a layer from: a peer in its site if peers serve each other and one has it,
    /// else its registry.
    pub fn layer_source(&self, layer: LayerId, node: NodeId) -> Option<VertexId> {
        let peer = self.peer(node, |peer| self.layer_present.contains(layer, peer));
        peer.or_else(|| self.topology.registry_of(node))
    }

    /// Where a node reads a dataset from: a peer in its site if peers serve each other and one has
    /// it, else the cheapest of the homes that have the current version, preferably one that is up.
    pub fn dataset_source(&self, dataset: DatasetId, node: NodeId) -> Option<NodeId> {
        let peer = self.peer(node, |peer| self.has_dataset(dataset, peer));
        peer.or_else(|| match self.catalogue.datasets[dataset as usize].homes.as_slice() {
            [only] => Some(*only),
            [] => self.cheapest_holder(self.holders(dataset).iter().copied(), node),
            homes => {
                let current = homes.iter().copied().filter(|&home| self.has_dataset(dataset, home));
                self.cheapest_holder(current, node)
            }
        })
    }

    fn cheapest_holder(&self, holders: impl Iterator<Item = NodeId> + Clone, node: NodeId) -> Option<NodeId> {
        let up: Vec<_> = holders.clone().filter(|&holder| self.nodes[holder as usize].up).collect();
        let among = if up.is_empty() { holders.collect() } else { up };
        self.topology.cheapest(&among, node)
    }

    /// Of the node's peers that `hold` something, the one with the least traffic.
    fn peer(&self, node: NodeId, holds: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        if !self.topology.peers {
            return None;
        }
        let serves = |&peer: &NodeId| peer != node && self.nodes[peer as usize].up && holds(peer);
        let traffic = |peer: &NodeId| {
            let [out, _] = self.topology.access(*peer);
            (self.channel_load(out), *peer)
        };
        self.topology.site(node).filter(serves).min_by_key(traffic)
    }

    // Arrivals.

    /// Notes that a task arrived, for the rates.
    pub fn note_arrival(&mut self, task: &Task) {
        let now = self.now;
        self.total_rate.add(now);
        if let Some(image) = task.image {
            self.image_rate[image as usize].add(now);
        }
    }

    /// Sets the recent arrivals per second of tasks that run this image, as an orchestrator reports
    /// them.
    pub fn set_image_rate_per_s(&mut self, image: ImageId, per_s: f64) {
        self.image_rate[image as usize] = Rate::from_per_s(per_s, self.now);
    }

    /// Sets the recent arrivals per second of all tasks.
    pub fn set_total_rate_per_s(&mut self, per_s: f64) {
        self.total_rate = Rate::from_per_s(per_s, self.now);
    }

    /// Recent arrivals per second of tasks that run this image.
    pub fn image_rate_per_s(&self, image: ImageId) -> f64 {
        self.image_rate[image as usize].per_s(self.now)
    }

    /// Recent arrivals per second of all tasks.
    pub fn total_rate_per_s(&self) -> f64 {
        self.total_rate.per_s(self.now)
    }

    // Books.

    /// Checks that every count equals the sum of its parts.
    ///
    /// # Panics
    /// On a book that does not balance: a bug of this crate, never of its input.
    pub fn check(&self) {
        for (index, state) in self.nodes.iter().enumerate() {
            let spec = &self.topology.nodes[index];
            let admitted = || state.commitments.iter().filter(|commitment| commitment.admitted);
            let kind = |commitment: &Commitment| self.catalogue.kind(&commitment.task).clone();
            let sum = |of: &dyn Fn(&Commitment) -> u64| admitted().map(of).sum::<u64>();
            let cpu = sum(&|c| u64::from(kind(c).requests.cpu_millis));
            assert_eq!(
                cpu + u64::from(state.cpu_free_millis),
                u64::from(spec.cpu_millis),
                "cpu of {}",
                spec.name
            );
            let memory = sum(&|c| kind(c).requests.memory_bytes);
            assert_eq!(memory + state.memory_free_bytes, spec.memory_bytes, "memory of {}", spec.name);
            let used = sum(&|c| u64::from(kind(c).cpu_use_millis));
            assert_eq!(used, state.cpu_use_millis, "cpu use of {}", spec.name);
            let held = sum(&|c| c.accelerators.len() as u64 * u64::from(kind(c).requests.accelerator_millis));
            let free: u64 = state.accelerator_free_millis.iter().map(|&free| u64::from(free)).sum();
            let whole = 1000 * state.accelerator_free_millis.len() as u64;
            assert_eq!(held + free, whole, "accelerators of {}", spec.name);
            let queued = state.commitments.len() - admitted().count();
            assert_eq!(queued, state.queued as usize, "queue of {}", spec.name);
            let disk: u64 = state.disk.values().map(|stored| stored.bytes).sum();
            assert_eq!(disk, state.disk_used_bytes, "disk of {}", spec.name);
        }
    }
}

/// How many accelerators have the requested share free.
fn free_accelerators(state: &NodeState, requests: &Requests) -> u32 {
    state.accelerator_free_millis.iter().filter(|&&free| free >= requests.accelerator_millis).count() as u32
}

/// The accelerators that fit most tightly, so that whole ones stay whole.
fn choose_accelerators(state: &NodeState, requests: &Requests) -> Vec<u32> {
    let mut fitting: Vec<u32> = (0..state.accelerator_free_millis.len() as u32)
        .filter(|&i| state.accelerator_free_millis[i as usize] >= requests.accelerator_millis)
        .collect();
    fitting.sort_by_key(|&i| state.accelerator_free_millis[i as usize]);
    fitting.truncate(requests.accelerators as usize);
    fitting
}
