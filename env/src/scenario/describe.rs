//! The other direction: a topology and a catalogue as a scenario file says them.
//!
//! A file nests sites within sites, so what is described is a tree: of links that close a circle, those on no
//! shortest way from the backbone stay out. A node that passes traffic on becomes a site with itself in it. Whatever
//! cannot be said is counted in [`Described::notes`].

mod catalogue;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{AcceleratorFile, CatalogueFile, JitterFile, LinkFile, NodesFile, PowerFile, RegistryFile};
use super::{SiteFile, TopologyFile};
use crate::accept::{LEAST_MBPS, MOST, MOST_MS};
use crate::catalogue::Catalogue;
use crate::device;
use crate::power::Power;
use crate::topology::{Link, Node, Topology, VertexId};
use crate::world::member;

/// A cluster in the words of a scenario file.
#[derive(Clone, Debug)]
pub struct Described {
    pub topology: TopologyFile,
    pub catalogue: CatalogueFile,
    /// For each node its name in the file: those within a site have its path before their own.
    pub names: BTreeMap<String, String>,
    /// What a file cannot say, with how often.
    pub notes: Vec<String>,
}

/// Says what a cluster is made of.
pub fn describe(topology: &Topology, catalogue: &Catalogue) -> Described {
    let mut tree = Tree::of(topology);
    let mut file = TopologyFile { peers: topology.peers, ..TopologyFile::default() };
    file.queue_limit = topology.queue_limit;
    tree.taken.insert(BACKBONE.to_owned());
    let root = tree.root;
    if !is_switch(topology, root) {
        tree.leaf("", root, free(), &mut file.nodes, &mut file.registries);
    }
    (file.nodes, file.sites) = tree.inside("", root, file.nodes, &mut file.registries);
    let mut notes = tree.notes;
    let catalogue = catalogue::describe(topology, catalogue, &tree.names, &mut notes);
    let notes = notes.into_iter().filter(|(_, count)| *count > 0);
    let notes = notes.map(|(what, count)| format!("{what}: {count}")).collect();
    Described { topology: file, catalogue, names: tree.names, notes }
}

/// What is noted, with how often.
type Notes = BTreeMap<&'static str, usize>;

const BACKBONE: &str = "backbone";
const CIRCLES: &str = "links that close a circle, left out";
const SLOW: &str = "links below a kilobit per second, raised to it";
const LATE: &str = "links with a delay above a thousand seconds, lowered to it";
const RENAMED: &str = "nodes and registries whose name a file cannot say, renamed";
const LABELLED: &str = "nodes that get labels of their built-in device kind";

/// A link that costs nothing, between a node and the switch that stands for its passing traffic on.
fn free() -> LinkFile {
    LinkFile { up_mbps: MOST, price: 0.0, ..LinkFile::default() }
}

/// Switches come after nodes and registries.
fn is_switch(topology: &Topology, vertex: VertexId) -> bool {
    !topology.leaves().contains(&vertex)
}

struct Tree<'a> {
    topology: &'a Topology,
    root: VertexId,
    /// For each vertex those behind it, each with the link to it, by number.
    children: Vec<Vec<(VertexId, usize)>>,
    names: BTreeMap<String, String>,
    /// Names in the file.
    taken: BTreeSet<String>,
    notes: Notes,
}

impl Tree<'_> {
    fn of(topology: &Topology) -> Tree<'_> {
        let vertices = topology.vertex_count();
        let mut neighbours = vec![Vec::new(); vertices];
        let mut outer = vec![false; vertices];
        for (index, link) in topology.links.iter().enumerate() {
            neighbours[link.from as usize].push((link.to, index));
            neighbours[link.to as usize].push((link.from, index));
            outer[link.from as usize] = true;
        }
        // What is called so, or what nothing is further inside of, or what most hangs on.
        let inner = |vertex: &VertexId| {
            let v = *vertex as usize;
            let called = topology.vertex_name(*vertex) == BACKBONE;
            (is_switch(topology, *vertex), called, !outer[v], neighbours[v].len(), std::cmp::Reverse(v))
        };
        let root = (0..vertices as VertexId).max_by_key(inner).unwrap_or(0);
        let mut children = vec![Vec::new(); vertices];
        let mut seen = vec![false; vertices];
        seen[root as usize] = true;
        let mut used = 0;
        let mut frontier = VecDeque::from([root]);
        while let Some(vertex) = frontier.pop_front() {
            for &(next, link) in &neighbours[vertex as usize] {
                if !std::mem::replace(&mut seen[next as usize], true) {
                    children[vertex as usize].push((next, link));
                    frontier.push_back(next);
                    used += 1;
                }
            }
            children[vertex as usize].sort_unstable();
        }
        let notes = Notes::from([(CIRCLES, topology.links.len() - used)]);
        Tree { topology, root, children, names: BTreeMap::new(), taken: BTreeSet::new(), notes }
    }

    /// What hangs on a vertex: nodes and registries at its switch, after `nodes`, and sites.
    fn inside(
        &mut self,
        path: &str,
        vertex: VertexId,
        mut nodes: Vec<NodesFile>,
        registries: &mut Vec<RegistryFile>,
    ) -> (Vec<NodesFile>, Vec<SiteFile>) {
        let mut sites = Vec::new();
        for (child, number) in std::mem::take(&mut self.children[vertex as usize]) {
            let link = &self.topology.links[number];
            let link = self.link(link, link.from == child);
            let passes_on = is_switch(self.topology, child);
            if !passes_on && self.children[child as usize].is_empty() {
                self.leaf(path, child, link, &mut nodes, registries);
                continue;
            }
            let name = self.name(path, child);
            let full = member(path, &name, 0, 1);
            let mut own = Vec::new();
            if !passes_on {
                self.leaf(&full, child, free(), &mut own, registries);
            }
            let (nodes, nested) = self.inside(&full, child, own, registries);
            sites.push(SiteFile { name, count: 1, uplink: link, nodes, sites: nested });
        }
        (
            folded(nodes, |node| (&mut node.name, &mut node.count)),
            folded(sites, |site| (&mut site.name, &mut site.count)),
        )
    }

    /// A node or a registry with one link.
    fn leaf(
        &mut self,
        path: &str,
        vertex: VertexId,
        link: LinkFile,
        nodes: &mut Vec<NodesFile>,
        registries: &mut Vec<RegistryFile>,
    ) {
        let original = self.topology.vertex_name(vertex).to_owned();
        match self.topology.nodes.get(vertex as usize) {
            Some(node) => {
                let name = self.name(path, vertex);
                self.names.insert(original, member(path, &name, 0, 1));
                nodes.push(self.node(name, node, link));
            }
            None => {
                // Registries have names of their own wherever they are.
                let name = self.name("", vertex);
                let site = (!path.is_empty()).then(|| path.to_owned());
                registries.push(RegistryFile { name, site, link });
            }
        }
    }

    /// The last part of a vertex's name in the file.
    fn name(&mut self, path: &str, vertex: VertexId) -> String {
        let original = self.topology.vertex_name(vertex);
        let below = original.strip_prefix(path).and_then(|rest| rest.strip_prefix('/'));
        let mut name = below.filter(|_| !path.is_empty()).unwrap_or(original).to_owned();
        let mut taken = !self.taken.insert(member(path, &name, 0, 1));
        while taken {
            name.push('+');
            taken = !self.taken.insert(member(path, &name, 0, 1));
        }
        if member(path, &name, 0, 1) != original && !is_switch(self.topology, vertex) {
            *self.notes.entry(RENAMED).or_default() += 1;
        }
        name
    }

    /// A link, of which `outwards` says whether its `from` is the outer end here too.
    fn link(&mut self, link: &Link, outwards: bool) -> LinkFile {
        let (up, down) = match (outwards, link.shared) {
            (_, true) => (link.up_bytes_per_s, link.up_bytes_per_s),
            (true, false) => (link.up_bytes_per_s, link.down_bytes_per_s),
            (false, false) => (link.down_bytes_per_s, link.up_bytes_per_s),
        };
        let [up_mbps, down_mbps] = [up, down].map(|bytes_per_s| bytes_per_s * 8.0 / 1e6);
        let latency_ms = link.delay.floor_s * 1000.0;
        *self.notes.entry(SLOW).or_default() += usize::from(up_mbps.min(down_mbps) < LEAST_MBPS);
        *self.notes.entry(LATE).or_default() += usize::from(latency_ms > MOST_MS);
        let within = |mbps: f64| mbps.clamp(LEAST_MBPS, MOST);
        let varies = link.delay.median_s > 0.0;
        LinkFile {
            up_mbps: within(up_mbps),
            down_mbps: (down_mbps != up_mbps).then(|| within(down_mbps)),
            latency_ms: latency_ms.min(MOST_MS),
            jitter: varies.then(|| JitterFile {
                median_ms: (link.delay.median_s * 1000.0).min(MOST_MS),
                sigma: link.delay.sigma,
            }),
            bandwidth: None,
            price: link.price,
            usd_per_gb: link.usd_per_byte * 1e9,
            wan: link.wan,
            shared: link.shared,
        }
    }

    /// All is said of a node, so that nothing but labels and draw comes from its built-in device kind.
    fn node(&mut self, name: String, node: &Node, link: LinkFile) -> NodesFile {
        let built_in = device::device(&node.kind);
        let lacks = |device: &device::Device| device.labels.iter().any(|(key, _)| node.label(key).is_none());
        *self.notes.entry(LABELLED).or_default() += usize::from(built_in.is_some_and(lacks));
        let none = || {
            let (model, _) = built_in?.accelerator?;
            Some(AcceleratorFile { model: model.to_owned(), count: 0 })
        };
        let some = |(model, count): &(String, u32)| AcceleratorFile { model: model.clone(), count: *count };
        NodesFile {
            name,
            count: 1,
            kind: catalogue::device_kind(&node.kind),
            link,
            arch: Some(node.arch),
            cpu_millis: Some(node.cpu_millis),
            memory_mib: Some(catalogue::in_units(node.memory_bytes, 1024.0 * 1024.0)),
            disk_gb: Some(catalogue::in_units(node.disk_bytes, 1e9)),
            startup_s: Some(node.startup_s),
            accelerator: node.accelerator.as_ref().map(some).or_else(none),
            labels: node.labels.iter().cloned().collect(),
            power: power(&node.power),
            usd_per_gb_s: (node.usd_per_gb_s > 0.0).then_some(node.usd_per_gb_s),
            mobile: None,
        }
    }
}

/// Idle and busy; that of the device kind where nothing is known.
fn power(power: &Power) -> Option<PowerFile> {
    let known = *power != Power::default();
    known.then(|| PowerFile { idle_w: power.watts(0.0), busy_w: power.watts(1.0) })
}

/// Those that follow each other, are numbered from 0 and otherwise alike, become one group.
fn folded<T: Clone + PartialEq>(items: Vec<T>, parts: impl Fn(&mut T) -> (&mut String, &mut u32)) -> Vec<T> {
    let taken_apart = |item: &T| {
        let mut item = item.clone();
        let name = std::mem::take(parts(&mut item).0);
        (name, item)
    };
    let mut groups = Vec::new();
    let mut items = items.into_iter().peekable();
    while let Some(mut group) = items.next() {
        let (name, pattern) = taken_apart(&group);
        if let Some(base) = name.strip_suffix("-0") {
            let mut members = 1;
            let belongs =
                |next: &T, number: u32| taken_apart(next) == (format!("{base}-{number}"), pattern.clone());
            while items.next_if(|next| belongs(next, members)).is_some() {
                members += 1;
            }
            if members > 1 {
                let (name, count) = parts(&mut group);
                (*name, *count) = (base.to_owned(), members);
            }
        }
        groups.push(group);
    }
    groups
}
