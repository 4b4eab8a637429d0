//! One Kubernetes cluster as the core is told of it: built once, then kept by changes.

mod contents;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use remora_proto::v1 as wire;
use sha2::{Digest, Sha256};
use wire::change::Change;

use super::facts::annotation::{self, Named};
use super::facts::node::is_accelerator;
use super::facts::settings::{self, Link};
use super::facts::{NodeFacts, PodFacts, Settings};
use contents::holds;

const BACKBONE: &str = "network/backbone";
const REGISTRY: &str = "network/registry";
/// CPU that a pod uses if it requests none, as Kubernetes' own scheduler assumes.
const LEAST_CPU_MILLIS: i64 = 100;
/// Most nodes that the core takes.
pub const MAX_NODES: usize = 20_000;
/// Kinds, images or datasets after which those that no pod needs are forgotten.
const MANY: usize = 9000;

/// Nodes, and what the pods seen so far are made of.
#[derive(Debug)]
pub struct Book {
    id: String,
    pub settings: Settings,
    nodes: BTreeMap<String, Arc<NodeFacts>>,
    switches: BTreeSet<String>,
    image_sizes: BTreeMap<String, i64>,
    images: BTreeMap<String, wire::Image>,
    /// Images that pods run, one by one.
    parts: BTreeSet<String>,
    /// Layers of these, with bytes.
    layers: BTreeMap<String, i64>,
    /// Images of the settings by full name.
    declared: BTreeMap<String, settings::Image>,
    datasets: BTreeMap<String, wire::Dataset>,
    kinds: BTreeMap<String, wire::TaskKind>,
}

impl Book {
    /// A cluster without nodes under this id.
    pub fn new(id: &str, settings: Settings) -> Book {
        let mut book = Book {
            id: id.to_owned(),
            settings,
            nodes: BTreeMap::new(),
            switches: BTreeSet::new(),
            image_sizes: BTreeMap::new(),
            images: BTreeMap::new(),
            parts: BTreeSet::new(),
            layers: BTreeMap::new(),
            declared: BTreeMap::new(),
            datasets: BTreeMap::new(),
            kinds: BTreeMap::new(),
        };
        book.declare();
        book
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn nodes(&self) -> &BTreeMap<String, Arc<NodeFacts>> {
        &self.nodes
    }

    /// Whether the core knows this node.
    pub fn knows(&self, name: &str) -> bool {
        self.nodes.get(name).is_some_and(|node| node.arch.is_some())
    }

    /// No cluster is without a node that the core knows.
    pub fn is_empty(&self) -> bool {
        self.nodes.values().all(|node| node.arch.is_none())
    }

    /// There are so many sorts of things that it is time to begin anew with those in use.
    pub fn is_crowded(&self) -> bool {
        self.kinds.len().max(self.images.len()).max(self.datasets.len()) > MANY
    }

    /// Forgets everything but nodes and settings.
    pub fn forget(&mut self) {
        self.images.clear();
        self.parts.clear();
        self.layers.clear();
        self.datasets.clear();
        self.kinds.clear();
        self.declare();
    }

    /// Other settings: the cluster has to be registered anew.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
        self.forget();
    }

    // Nodes.

    /// A node that came or changed.
    pub fn apply(&mut self, node: Arc<NodeFacts>) -> Vec<Change> {
        let before = self.nodes.insert(node.name.clone(), Arc::clone(&node));
        for (name, bytes) in &node.image_sizes {
            self.image_sizes.insert(name.clone(), *bytes);
        }
        let Some(told) = node.wire(self.startup_s(&node)) else {
            return before.map(|before| self.left(&before)).unwrap_or_default();
        };
        let layers = self.layers_on(&node);
        let mut changes = self.switches_to(&node);
        let links = vec![self.link_of(&node)];
        let same = before.as_ref().is_some_and(|before| {
            before.wire(self.startup_s(before)).as_ref() == Some(&told)
                && (&before.zone, &before.region) == (&node.zone, &node.region)
        });
        let before = before.filter(|_| same);
        match &before {
            None => {
                changes.push(Change::NodeEntered(wire::NodeEntered { node: Some(told), links, layers }));
            }
            Some(before) if before.images != node.images && !layers.is_empty() => {
                changes.push(holds(&node, layers));
            }
            Some(_) => {}
        }
        if before.is_none_or(|before| before.datasets != node.datasets) {
            changes.extend(self.rehomed(&node));
        }
        changes
    }

    /// A node that left.
    pub fn remove(&mut self, name: &str) -> Vec<Change> {
        self.nodes.remove(name).map(|node| self.left(&node)).unwrap_or_default()
    }

    /// A node that the core does not know any more, if it did.
    fn left(&mut self, node: &NodeFacts) -> Vec<Change> {
        if node.arch.is_none() {
            return Vec::new();
        }
        // Without being told, the core knows that nothing is at home there.
        for dataset in self.datasets.values_mut() {
            dataset.homes.retain(|home| *home != node.name);
        }
        let mut changes = vec![Change::NodeLeft(node.name.clone())];
        changes.extend(self.rehomed(node));
        changes
    }

    /// Forgets nodes that are not listed.
    pub fn keep_only(&mut self, names: &BTreeSet<&str>) {
        self.nodes.retain(|name, _| names.contains(name.as_str()));
    }

    fn startup_s(&self, node: &NodeFacts) -> f64 {
        let device = self.settings.devices.get(&node.device_kind);
        device.and_then(|device| device.startup_s).unwrap_or(self.settings.startup_s)
    }

    fn link_of(&self, node: &NodeFacts) -> wire::Link {
        let link = self.settings.nodes.get(&node.name).unwrap_or(&self.settings.node_link);
        link.between(&node.name, &zone(node))
    }

    /// The switches on the way to this node that are new.
    fn switches_to(&mut self, node: &NodeFacts) -> Vec<Change> {
        let settings = &self.settings;
        let of = |own: &BTreeMap<String, Link>, name: &str, otherwise: &Link| {
            own.get(name).unwrap_or(otherwise).clone()
        };
        let mut way = Vec::new();
        let inner = if node.region.is_empty() {
            BACKBONE.to_owned()
        } else {
            let region = short(format!("region/{}", node.region));
            way.push((
                region.clone(),
                of(&settings.regions, &node.region, &settings.region_link),
                BACKBONE.to_owned(),
            ));
            region
        };
        way.push((zone(node), of(&settings.zones, &node.zone, &settings.zone_link), inner));
        way.retain(|(name, ..)| self.switches.insert(name.clone()));
        let switch = |(name, link, inner): (String, Link, String)| {
            let link = Some(link.between(&name, &inner));
            Change::SwitchEntered(wire::SwitchEntered { name, link })
        };
        way.into_iter().map(switch).collect()
    }

    // Pods.

    /// A pod as a task, and what the core has to learn before.
    pub fn task(&mut self, pod: &PodFacts) -> (wire::Task, Vec<Change>) {
        let (image, mut changes) = self.image(&pod.work.images);
        for named in pod.work.inputs.iter().chain(&pod.work.outputs) {
            changes.extend(self.dataset(named));
        }
        let kind = self.kind(pod);
        let task = wire::Task {
            kind: kind.name.clone(),
            image,
            inputs: pod.work.inputs.iter().map(|named| named.name.clone()).collect(),
            outputs: pod.work.outputs.iter().map(|named| named.name.clone()).collect(),
        };
        if !self.kinds.contains_key(&kind.name) {
            self.kinds.insert(kind.name.clone(), kind.clone());
            changes.push(Change::TaskKind(kind));
        }
        (task, changes)
    }

    /// Names of datasets of a pod that nobody has said anything of.
    pub fn unknown_data<'a>(&self, pod: &'a PodFacts) -> Vec<&'a str> {
        let read = pod.work.inputs.iter();
        let unknown = read.filter(|named| {
            let described = self.described(named);
            described.homes.is_empty() && !self.settings.datasets.contains_key(&named.name)
        });
        unknown.map(|named| named.name.as_str()).collect()
    }

    /// Pods of one name that request different things are of different kinds.
    fn kind(&self, pod: &PodFacts) -> wire::TaskKind {
        let declared = self.settings.kinds.get(&pod.work.kind);
        let (on, elsewhere) = match (&pod.work.execution, declared) {
            (Some(execution), _) => (execution.on.clone(), execution.elsewhere),
            (None, Some(declared)) => (declared.execution_s.clone(), declared.elsewhere_s),
            (None, None) if pod.work.service => (BTreeMap::new(), Some(self.settings.service_execution_s)),
            (None, None) => (BTreeMap::new(), Some(self.settings.execution_s)),
        };
        let cpu_millis = pod.requests.cpu_millis.min(1_000_000);
        let extended = pod.requests.extended.iter().filter(|(name, _)| is_accelerator(name));
        let accelerators = extended.map(|(_, &count)| count).max().unwrap_or(0).min(1000);
        let execution =
            on.into_iter().map(|(device_kind, s)| wire::ExecutionTime { device_kind, mean_s: Some(s) });
        let mut kind = wire::TaskKind {
            cpu_millis: Some(cpu_millis),
            cpu_use_millis: Some(cpu_millis.max(LEAST_CPU_MILLIS)),
            memory_bytes: Some(pod.requests.memory_bytes.min(1_000_000_000_000_000)),
            accelerators,
            accelerator_millis: if accelerators > 0 { 1000 } else { 0 },
            execution: execution.collect(),
            execution_elsewhere_s: elsewhere,
            prefers: pod.work.prefers.clone(),
            deadline_s: pod.work.deadline_s,
            priority: pod.priority,
            ..wire::TaskKind::default()
        };
        kind.name = short(format!("{}#{}", pod.work.kind, digest(&format!("{kind:?}"))));
        kind
    }

    // All at once.

    /// The whole cluster, with nothing placed on it; None while it has no node that the core could have.
    pub fn registration(&mut self) -> Option<wire::RegisterClusterRequest> {
        if self.is_empty() {
            return None;
        }
        self.switches.clear();
        let mut cluster = wire::Cluster {
            id: self.id.clone(),
            reference_response_s: self.settings.reference_response_s,
            reference_moved_bytes: self.settings.reference_moved_bytes,
            registries: vec![REGISTRY.to_owned()],
            switches: vec![BACKBONE.to_owned()],
            links: vec![self.settings.registry_link.between(REGISTRY, BACKBONE)],
            images: self.images.values().cloned().collect(),
            task_kinds: self.kinds.values().cloned().collect(),
            peers: self.settings.peers,
            ..wire::Cluster::default()
        };
        let mut facts = wire::Facts::default();
        for node in self.nodes.values().cloned().collect::<Vec<_>>() {
            let Some(told) = node.wire(self.startup_s(&node)) else { continue };
            for change in self.switches_to(&node) {
                if let Change::SwitchEntered(wire::SwitchEntered { name, link }) = change {
                    cluster.switches.push(name);
                    cluster.links.extend(link);
                }
            }
            cluster.links.push(self.link_of(&node));
            cluster.nodes.push(told);
            let layers = self.layers_on(&node);
            let node = node.name.clone();
            facts.nodes.push(wire::NodeFacts { node, layers, ..wire::NodeFacts::default() });
        }
        let names: Vec<_> =
            self.datasets.values().map(|d| Named { name: d.name.clone(), bytes: d.bytes }).collect();
        for named in names {
            let dataset = self.described(&named);
            self.datasets.insert(dataset.name.clone(), dataset.clone());
            cluster.datasets.push(dataset);
        }
        Some(wire::RegisterClusterRequest { cluster: Some(cluster), facts: Some(facts) })
    }
}

/// The switch of its zone; zones of different regions may have one name.
fn zone(node: &NodeFacts) -> String {
    short(format!("zone/{}/{}", node.region, node.zone))
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}

/// A name of at most 500 bytes: the end of a longer one is told by its digest.
fn short(name: String) -> String {
    if name.len() <= annotation::MAX_NAME {
        return name;
    }
    let end = (0..=annotation::MAX_NAME - 12).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    format!("{}~{}", &name[..end], digest(&name))
}
