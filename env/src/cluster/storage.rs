//! What is on which disk, and what is on its way there.

use std::sync::Arc;

use super::Cluster;
use crate::catalogue::{DatasetId, ImageId, LayerId, Task};
use crate::device::Arch;
use crate::time::Time;
use crate::topology::{Direction, NodeId};

/// Something on a node's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    Layer(LayerId),
    Dataset(DatasetId),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stored {
    pub(super) bytes: u64,
    last_used: Time,
    /// Tasks that need it now; a pinned item is not evicted.
    pins: u32,
    /// False while its transfer is under way.
    present: bool,
    /// Kept for good: the node is one of the dataset's homes, or made it and it has none.
    home: bool,
}

/// A transfer to a node's disk that is under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Arriving {
    pub(super) begun: Time,
    /// When it is to end, as it looked when it began.
    pub(super) expected: Time,
}

/// One bit for each layer and node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LayerNodes {
    /// Words per layer.
    stride: usize,
    words: Vec<u64>,
}

impl LayerNodes {
    pub(super) fn new(layers: usize, nodes: usize) -> LayerNodes {
        let stride = nodes.div_ceil(64);
        LayerNodes { stride, words: vec![0; layers * stride] }
    }

    #[inline]
    pub(super) fn contains(&self, layer: LayerId, node: NodeId) -> bool {
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

    pub(super) fn any(&self, layer: LayerId) -> bool {
        self.of(layer).iter().any(|&word| word != 0)
    }

    fn count(&self, layer: LayerId) -> u32 {
        let first = layer as usize * self.stride;
        self.words[first..first + self.stride].iter().map(|word| word.count_ones()).sum()
    }
}

impl Cluster {
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
}
