//! One seeded instance of a scenario: everything that is decided before the first task arrives.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1};

use crate::catalogue::{
    Catalogue, Dataset, DatasetId, ExecutionTime, Image, ImageId, Kind, KindId, Layer, Requests, Task,
    numbered,
};
use crate::cluster::{Cluster, Item};
use crate::device::Arch;
use crate::random::{Purpose, stream};
use crate::scenario::{
    ExecutionFile, HomeFile, KindFile, LinkFile, NodesFile, Scenario, SiteFile, StreamFile,
};
use crate::time::Time;
use crate::topology::{Link, Node, NodeId, Topology, VertexId};
use crate::trace::Arrival;

/// When a planned task arrives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    At(Time),
    /// When the task that lists it as a follower completes.
    Later,
}

/// A task that will arrive.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub name: String,
    pub task: Task,
    pub when: When,
    /// Dataset of which new data appears at its home with this arrival.
    pub renews: Option<DatasetId>,
    /// Tasks that arrive when this one completes.
    pub followers: Vec<u32>,
    /// Quantile of the execution time, in (0, 1): the same on whatever node it runs, so that
    /// policies are compared on equal luck.
    pub luck: f64,
}

/// One seeded instance of a scenario.
#[derive(Debug)]
pub struct World {
    pub name: String,
    pub seed: u64,
    pub topology: Arc<Topology>,
    pub catalogue: Arc<Catalogue>,
    /// In order of arrival; followers come after the task they follow.
    pub tasks: Vec<Planned>,
    /// What is on disks at the start besides the datasets' homes.
    warm: Vec<(NodeId, Item)>,
}

impl World {
    pub(crate) fn new(scenario: &Scenario, seed: u64) -> World {
        let topology = Arc::new(build_topology(scenario));
        let mut catalogue = build_catalogue(scenario, &topology, seed);
        let tasks = match &scenario.trace {
            Some(trace) => {
                let limit = scenario.file.workload.tasks.map_or(usize::MAX, |tasks| tasks as usize);
                let arrivals = &trace.arrivals[..limit.min(trace.arrivals.len())];
                replay(arrivals, &mut catalogue, seed)
            }
            None => Arriving::new(scenario, seed).draw(),
        };
        let warm = draw_warm(scenario, &topology, &catalogue, seed);
        let name = scenario.file.name.clone();
        World { name, seed, topology, catalogue: Arc::new(catalogue), tasks, warm }
    }

    /// The cluster before the first arrival.
    pub fn initial_cluster(&self) -> Cluster {
        let mut cluster = Cluster::new(Arc::clone(&self.topology), Arc::clone(&self.catalogue));
        for &(node, item) in &self.warm {
            cluster.store(node, item, true);
        }
        cluster
    }
}

// Topology.

/// Collects nodes, switches and links while walking the sites.
#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    switches: Vec<String>,
    /// `(outer end, inner end, link)`; switches are numbered apart until the nodes are known.
    links: Vec<(End, End, LinkFile)>,
}

#[derive(Clone, Copy)]
enum End {
    Node(usize),
    Registry(usize),
    Switch(usize),
}

const BACKBONE: usize = 0;

pub(crate) fn build_topology(scenario: &Scenario) -> Topology {
    let file = &scenario.file.topology;
    let mut builder = Builder { switches: vec!["backbone".to_owned()], ..Builder::default() };
    builder.nodes("", &file.nodes, BACKBONE);
    for site in &file.sites {
        builder.site("", site, BACKBONE);
    }
    for (index, registry) in file.registries.iter().enumerate() {
        let site =
            registry.site.as_ref().and_then(|site| builder.switches.iter().position(|name| name == site));
        let inner = End::Switch(site.unwrap_or(BACKBONE));
        builder.links.push((End::Registry(index), inner, registry.link.clone()));
    }
    let (nodes, registries) = (builder.nodes.len(), file.registries.len());
    let vertex = |end: End| match end {
        End::Node(index) => index as VertexId,
        End::Registry(index) => (nodes + index) as VertexId,
        End::Switch(index) => (nodes + registries + index) as VertexId,
    };
    let links =
        builder.links.iter().map(|(outer, inner, link)| build_link(vertex(*outer), vertex(*inner), link));
    let links = links.collect();
    let registries = file.registries.iter().map(|registry| registry.name.clone()).collect();
    Topology::new(builder.nodes, registries, builder.switches, links)
}

fn build_link(from: VertexId, to: VertexId, link: &LinkFile) -> Link {
    const BYTES_PER_MBIT: f64 = 1e6 / 8.0;
    Link {
        from,
        to,
        up_bytes_per_s: link.up_mbps * BYTES_PER_MBIT,
        down_bytes_per_s: link.down_mbps.unwrap_or(link.up_mbps) * BYTES_PER_MBIT,
        latency_s: link.latency_ms / 1000.0,
        price: link.price,
        wan: link.wan,
        shared: link.shared,
    }
}

impl Builder {
    fn site(&mut self, parent: &str, site: &SiteFile, inner: usize) {
        for index in 0..site.count {
            let name = member(parent, &site.name, index, site.count);
            let switch = self.switches.len();
            self.switches.push(name.clone());
            self.links.push((End::Switch(switch), End::Switch(inner), site.uplink.clone()));
            self.nodes(&name, &site.nodes, switch);
            for nested in &site.sites {
                self.site(&name, nested, switch);
            }
        }
    }

    fn nodes(&mut self, parent: &str, groups: &[NodesFile], switch: usize) {
        for group in groups {
            for index in 0..group.count {
                self.links.push((End::Node(self.nodes.len()), End::Switch(switch), group.link.clone()));
                self.nodes.push(build_node(member(parent, &group.name, index, group.count), group));
            }
        }
    }
}

/// `parent/name`, with a number where there are several.
pub(crate) fn member(parent: &str, name: &str, index: u32, count: u32) -> String {
    let own = if count > 1 { format!("{name}-{index}") } else { name.to_owned() };
    if parent.is_empty() { own } else { format!("{parent}/{own}") }
}

fn build_node(name: String, group: &NodesFile) -> Node {
    let device = group.device();
    let mut labels: BTreeMap<String, String> = device
        .map_or(&[][..], |device| device.labels)
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    labels.extend(group.labels.clone());
    let accelerator = match &group.accelerator {
        Some(accelerator) => Some((accelerator.model.clone(), accelerator.count)),
        None => device.and_then(|device| device.accelerator).map(|(model, count)| (model.to_owned(), count)),
    };
    let given = "an accepted scenario gives what the device kind does not";
    Node {
        name,
        kind: group.kind.clone(),
        arch: group.arch.or(device.map(|d| d.arch)).expect(given),
        cpu_millis: group.cpu_millis.or(device.map(|d| d.cpu_millis)).expect(given),
        memory_bytes: group.memory_mib.map(mib).or(device.map(|d| d.memory_bytes)).expect(given),
        disk_bytes: group.disk_gb.map(|gb| (gb * 1e9) as u64).or(device.map(|d| d.disk_bytes)).expect(given),
        accelerator: accelerator.filter(|(_, count)| *count > 0),
        startup_s: group.startup_s.or(device.map(|d| d.startup_s)).expect(given),
        labels: labels.into_iter().collect(),
    }
}

fn mib(mib: f64) -> u64 {
    (mib * 1024.0 * 1024.0) as u64
}

// Catalogue.

fn build_catalogue(scenario: &Scenario, topology: &Topology, seed: u64) -> Catalogue {
    let mut catalogue = Catalogue::default();
    build_images(scenario, &mut catalogue);
    build_datasets(scenario, topology, &mut catalogue, seed);
    catalogue.kinds = scenario.file.catalogue.tasks.iter().map(build_kind).collect();
    catalogue
}

fn build_images(scenario: &Scenario, catalogue: &mut Catalogue) {
    let mut bases: BTreeMap<(String, Arch), u32> = BTreeMap::new();
    for family in &scenario.file.catalogue.images {
        for index in 0..family.count {
            let name = member("", &family.name, index, family.count);
            let mut image = Image { name: name.clone(), ..Image::default() };
            for (&arch, &size_mb) in &family.size_mb {
                let layers = &mut catalogue.layers;
                let mut layer = |name: String, share: f64| {
                    layers.push(Layer { name, bytes: (size_mb * share * 1e6) as u64 });
                    layers.len() as u32 - 1
                };
                if family.base_share > 0.0 {
                    let base = (family.base.clone(), arch);
                    let id = *bases.entry(base).or_insert_with(|| {
                        layer(format!("{}:{}", family.base, arch.name()), family.base_share)
                    });
                    image.layers[arch as usize].push(id);
                }
                let own = layer(format!("{name}:{}", arch.name()), 1.0 - family.base_share);
                image.layers[arch as usize].push(own);
            }
            catalogue.images.push(image);
        }
    }
}

fn build_datasets(scenario: &Scenario, topology: &Topology, catalogue: &mut Catalogue, seed: u64) {
    let mut rng = stream(seed, Purpose::Placement, 0);
    let mut buckets: BTreeMap<(String, u32), Vec<NodeId>> = BTreeMap::new();
    for family in &scenario.file.catalogue.datasets {
        for index in 0..family.count {
            let homes = match buckets.get(&(family.bucket.clone(), index)) {
                Some(homes) if !family.bucket.is_empty() => homes.clone(),
                _ => draw_homes(&family.home, topology, &mut rng),
            };
            buckets.insert((family.bucket.clone(), index), homes.clone());
            let name = member("", &family.name, index, family.count);
            catalogue.datasets.push(Dataset { name, bytes: (family.size_mb * 1e6) as u64, homes });
        }
    }
}

pub(crate) fn homes_among(home: &HomeFile, topology: &Topology) -> Vec<NodeId> {
    let nodes = 0..topology.nodes.len() as NodeId;
    let node = |&id: &NodeId| &topology.nodes[id as usize];
    match home {
        HomeFile::Nodes(names) => names.iter().filter_map(|name| topology.node_named(name)).collect(),
        HomeFile::Label(label) => nodes.filter(|id| node(id).label(label).is_some()).collect(),
        HomeFile::Kind(kind) => nodes.filter(|id| node(id).kind == *kind).collect(),
        HomeFile::Anywhere => nodes.collect(),
    }
}

fn draw_homes(home: &HomeFile, topology: &Topology, rng: &mut impl Rng) -> Vec<NodeId> {
    let candidates = homes_among(home, topology);
    match home {
        HomeFile::Nodes(_) => candidates,
        _ => vec![candidates[rng.random_range(0..candidates.len())]],
    }
}

fn build_kind(file: &KindFile) -> Kind {
    let time = |time: &ExecutionFile| match *time {
        ExecutionFile::Constant { seconds } => ExecutionTime::constant(seconds),
        ExecutionFile::LogNormal { shape, loc_s, scale_s, min_s, max_s } => {
            ExecutionTime::log_normal(shape, loc_s, scale_s, min_s, max_s)
        }
    };
    let named = file.execution.iter().filter(|(device, _)| *device != "any");
    Kind {
        name: file.name.clone(),
        requests: Requests {
            cpu_millis: file.cpu_millis,
            memory_bytes: mib(file.memory_mib),
            accelerators: file.accelerators,
            accelerator_millis: file.accelerator_millis,
            accelerator_models: file.accelerator_models.clone(),
        },
        cpu_use_millis: file.cpu_use_millis.unwrap_or(file.cpu_millis),
        execution: named.map(|(device, file)| (device.clone(), time(file))).collect(),
        execution_elsewhere: file.execution.get("any").map(time),
        prefers: file.prefers.clone().into_iter().collect(),
        deadline_s: file.deadline_s,
    }
}

fn draw_warm(
    scenario: &Scenario,
    topology: &Topology,
    catalogue: &Catalogue,
    seed: u64,
) -> Vec<(NodeId, Item)> {
    let mut rng = stream(seed, Purpose::Warmth, 0);
    let mut warm = Vec::new();
    for (node, spec) in topology.nodes.iter().enumerate() {
        for image in &catalogue.images {
            // One draw per pair, whatever the share, so that shares can be compared.
            if rng.random::<f64>() < scenario.file.workload.warm_share {
                let layers = image.layers(spec.arch);
                warm.extend(layers.iter().map(|&layer| (node as NodeId, Item::Layer(layer))));
            }
        }
    }
    warm
}

// Arrivals.

/// Draws the arrivals of all stream instances in time order.
struct Arriving<'a> {
    scenario: &'a Scenario,
    /// `(next arrival, stream, instance)`
    due: BinaryHeap<Reverse<(Time, u32, u32)>>,
    generators: BTreeMap<(u32, u32), ChaCha8Rng>,
    /// Drawn per instance and image family.
    variants: BTreeMap<(u32, String), ImageId>,
    variant_rng: ChaCha8Rng,
    luck: ChaCha8Rng,
    tasks: Vec<Planned>,
}

impl<'a> Arriving<'a> {
    fn new(scenario: &'a Scenario, seed: u64) -> Arriving<'a> {
        let mut arriving = Arriving {
            scenario,
            due: BinaryHeap::new(),
            generators: BTreeMap::new(),
            variants: BTreeMap::new(),
            variant_rng: stream(seed, Purpose::Placement, 1),
            luck: stream(seed, Purpose::Execution, 0),
            tasks: Vec::new(),
        };
        for (index, file) in scenario.file.workload.streams.iter().enumerate() {
            if file.after.is_some() {
                continue;
            }
            for instance in 0..file.instances {
                let mut rng = stream(seed, Purpose::Arrivals, (index as u64) << 32 | u64::from(instance));
                // A stream that has always been running: its phase is anywhere within a mean gap.
                let phase = rng.random::<f64>() * (file.fixed_s + file.exponential_s);
                arriving.due.push(Reverse((Time::from_s(phase), index as u32, instance)));
                arriving.generators.insert((index as u32, instance), rng);
            }
        }
        arriving
    }

    fn draw(mut self) -> Vec<Planned> {
        let wanted = self.scenario.file.workload.tasks.unwrap_or(0) as usize;
        while self.tasks.len() < wanted {
            let Reverse((at, stream, instance)) = self.due.pop().expect("an accepted workload has a stream");
            let file = &self.scenario.file.workload.streams[stream as usize];
            self.plan(file, instance, When::At(at));
            let rng = self.generators.get_mut(&(stream, instance)).expect("a due stream has a generator");
            let random: f64 = Exp1.sample(rng);
            let next = at.after_s(file.fixed_s + file.exponential_s * random);
            self.due.push(Reverse((next, stream, instance)));
        }
        self.tasks
    }

    /// Plans a task and those that follow it; returns its index.
    fn plan(&mut self, file: &StreamFile, instance: u32, when: When) -> u32 {
        let kind = self.scenario.file.catalogue.tasks.iter().position(|kind| kind.name == file.task);
        let kind_id = kind.expect("an accepted stream names a task") as KindId;
        let kind = &self.scenario.file.catalogue.tasks[kind_id as usize];
        let image = kind.image.as_ref().map(|family| self.variant(family, instance));
        let inputs: Vec<_> = kind.inputs.iter().map(|family| self.dataset(family, instance)).collect();
        let output = kind.output.as_ref().map(|family| self.dataset(family, instance));
        let renews = inputs.first().copied().filter(|_| file.renews_input);
        let index = self.tasks.len() as u32;
        self.tasks.push(Planned {
            name: format!("{}-{index}", file.task),
            task: Task { kind: kind_id, image, inputs, output },
            when,
            renews,
            followers: Vec::new(),
            luck: self.luck.random_range(1e-6..1.0 - 1e-6),
        });
        for next in &self.scenario.file.workload.streams {
            if next.after.as_ref() == Some(&file.task) && instance < next.instances {
                let follower = self.plan(next, instance, When::Later);
                self.tasks[index as usize].followers.push(follower);
            }
        }
        index
    }

    fn dataset(&self, family: &str, instance: u32) -> DatasetId {
        let mut first = 0;
        for file in &self.scenario.file.catalogue.datasets {
            if file.name == family {
                return first + instance % file.count;
            }
            first += file.count;
        }
        unreachable!("an accepted task names datasets of the catalogue")
    }

    /// The image variant that an instance runs: Pareto, so that most instances share a few.
    fn variant(&mut self, family: &str, instance: u32) -> ImageId {
        let mut first = 0;
        for file in &self.scenario.file.catalogue.images {
            if file.name == family {
                let rng = &mut self.variant_rng;
                let id = self.variants.entry((instance, family.to_owned()));
                return *id.or_insert_with(|| first + pareto_index(file.count, rng));
            }
            first += file.count;
        }
        unreachable!("an accepted task names an image of the catalogue")
    }
}

/// Shape of the Pareto distribution in which a fifth of the values holds four fifths of the weight.
const PARETO_80_20: f64 = 1.161;

/// An index below `count`, small ones more often.
fn pareto_index(count: u32, rng: &mut impl Rng) -> u32 {
    let u: f64 = rng.random();
    let x = (1.0 - u).powf(-1.0 / PARETO_80_20) - 1.0;
    (x as u32).min(count - 1)
}

/// Arrivals as recorded; each gets a task kind of its own, unless it equals the one before.
fn replay(arrivals: &[Arrival], catalogue: &mut Catalogue, seed: u64) -> Vec<Planned> {
    let mut luck = stream(seed, Purpose::Execution, 0);
    let images = numbered(catalogue.images.iter().map(|image| &image.name));
    let datasets = numbered(catalogue.datasets.iter().map(|dataset| &dataset.name));
    let mut kinds: BTreeMap<String, KindId> = BTreeMap::new();
    let mut tasks = Vec::with_capacity(arrivals.len());
    for arrival in arrivals {
        let kind = recorded_kind(arrival);
        let signature = format!("{:?} {}", kind.requests, arrival.duration_s);
        let kind_id = *kinds.entry(signature).or_insert_with(|| {
            catalogue.kinds.push(kind);
            catalogue.kinds.len() as KindId - 1
        });
        let image = arrival.image.as_ref().map(|name| images[name]);
        let inputs = arrival.inputs.iter().map(|name| datasets[name]).collect();
        tasks.push(Planned {
            name: arrival.name.clone(),
            task: Task { kind: kind_id, image, inputs, output: None },
            when: When::At(Time::from_s(arrival.at_s)),
            renews: None,
            followers: Vec::new(),
            luck: luck.random_range(1e-6..1.0 - 1e-6),
        });
    }
    tasks
}

fn recorded_kind(arrival: &Arrival) -> Kind {
    Kind {
        name: arrival.name.clone(),
        requests: Requests {
            cpu_millis: arrival.cpu_millis,
            memory_bytes: arrival.memory_bytes,
            accelerators: arrival.accelerators,
            accelerator_millis: arrival.accelerator_millis,
            accelerator_models: arrival.accelerator_models.clone(),
        },
        cpu_use_millis: arrival.cpu_millis,
        execution: Vec::new(),
        execution_elsewhere: Some(ExecutionTime::constant(arrival.duration_s)),
        prefers: Vec::new(),
        deadline_s: None,
    }
}
