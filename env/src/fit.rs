//! Which nodes could ever run a kind of task, and how fast.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::catalogue::{Catalogue, ExecutionTime, Kind, KindId};
use crate::device::{Arch, LOCALITY, STORAGE};
use crate::topology::{Node, NodeId, Topology};

/// Execution time of every task kind on every class of nodes alike; a class without one cannot run
/// the kind. Clusters have few classes, so looking up costs two indices and no comparison of names,
/// and what a decision reads of ten thousand nodes stays in the cache.
#[derive(Debug)]
pub struct Fits {
    class_of: Vec<u32>,
    classes: Vec<Class>,
    /// For each kind, a row over the classes, made on first use.
    rows: Vec<OnceLock<Box<[Option<ExecutionTime>]>>>,
}

/// What nodes of one class have in common, as far as every decision reads it.
#[derive(Clone, Copy, Debug)]
pub struct Class {
    /// One of them.
    pub node: NodeId,
    pub arch: Arch,
    pub cpu_millis: u32,
    pub disk_bytes: u64,
    pub startup_s: f64,
    /// Labelled so; else it is in the cloud.
    pub at_edge: bool,
}

impl Fits {
    pub fn new(topology: &Topology, catalogue: &Catalogue) -> Fits {
        let mut numbers: BTreeMap<String, u32> = BTreeMap::new();
        let mut fits = Fits {
            class_of: Vec::with_capacity(topology.nodes.len()),
            classes: Vec::new(),
            rows: catalogue.kinds.iter().map(|_| OnceLock::new()).collect(),
        };
        for (id, node) in topology.nodes.iter().enumerate() {
            let class = *numbers.entry(looks(node)).or_insert_with(|| {
                fits.classes.push(Class {
                    node: id as NodeId,
                    arch: node.arch,
                    cpu_millis: node.cpu_millis,
                    disk_bytes: node.disk_bytes,
                    startup_s: node.startup_s,
                    at_edge: node.label(LOCALITY) == Some("edge"),
                });
                fits.classes.len() as u32 - 1
            });
            fits.class_of.push(class);
        }
        fits
    }

    #[inline]
    pub fn class(&self, node: NodeId) -> &Class {
        &self.classes[self.class_of[node as usize] as usize]
    }

    #[inline]
    pub fn class_of(&self, node: NodeId) -> u32 {
        self.class_of[node as usize]
    }

    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Execution time of a kind on a node, if it can run there.
    #[inline]
    pub fn execution(
        &self,
        kind: KindId,
        node: NodeId,
        topology: &Topology,
        catalogue: &Catalogue,
    ) -> Option<&ExecutionTime> {
        self.row(kind, topology, catalogue)[self.class_of[node as usize] as usize].as_ref()
    }

    /// Execution times of a kind, class by class.
    #[inline]
    pub fn row(&self, kind: KindId, topology: &Topology, catalogue: &Catalogue) -> &[Option<ExecutionTime>] {
        self.rows[kind as usize].get_or_init(|| {
            let kind = &catalogue.kinds[kind as usize];
            self.classes.iter().map(|class| execution(kind, &topology.nodes[class.node as usize])).collect()
        })
    }
}

/// What nodes of one class have in common.
fn looks(node: &Node) -> String {
    let Node { kind, arch, cpu_millis, memory_bytes, disk_bytes, startup_s, accelerator, labels, .. } = node;
    format!(
        "{kind:?} {arch:?} {cpu_millis} {memory_bytes} {disk_bytes} {startup_s} {accelerator:?} {labels:?}"
    )
}

/// An accelerator, in thousandths of it.
const WHOLE: u32 = 1000;

fn execution(kind: &Kind, node: &Node) -> Option<ExecutionTime> {
    let requests = &kind.requests;
    let accelerators_fit = requests.accelerators == 0
        || node.accelerator.as_ref().is_some_and(|(model, count)| {
            *count >= requests.accelerators
                && requests.accelerator_millis <= WHOLE
                && (requests.accelerator_models.is_empty() || requests.accelerator_models.contains(model))
        });
    let fits = accelerators_fit
        && requests.cpu_millis <= node.cpu_millis
        && requests.memory_bytes <= node.memory_bytes
        && node.label(STORAGE).is_none()
        && kind.demands.iter().all(|(key, value)| node.label(key) == Some(value));
    if fits { kind.execution_on(&node.kind).copied() } else { None }
}
