//! What it has cost that an image or a dataset is not in more places: what earns another copy.

use std::sync::Arc;

use super::{Cluster, Expected};
use crate::catalogue::{DatasetId, ImageId, Task};
use crate::topology::NodeId;

/// What it has cost since an image was last pulled, while nobody was pulling it, that it is nowhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lack {
    /// Seconds that tasks were to wait where they found it.
    pub waited_s: f64,
    /// Bytes that had to leave disks for what those tasks brought there.
    pub displaced_bytes: f64,
}

impl Cluster {
    /// Notes that a task is to wait on a node, and what it displaces there, for what it finds there; what it does not find is
    /// copied now. A dataset that somebody before it in the queue brings is found.
    pub(super) fn note_lack(&mut self, task: &Task, node: NodeId, expected: Expected) {
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
}
