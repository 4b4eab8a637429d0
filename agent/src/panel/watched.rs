//! Clusters for all who look at them: however many do, a cluster is asked for and read once per change, and once a
//! second at most.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_server::ClusterService;
use tonic::Status;

use super::{Asked, map};

/// A cluster is not asked for again within this time.
const PAUSE: Duration = Duration::from_secs(1);
/// What is expected moves on though nothing happens.
const OLD: Duration = Duration::from_secs(30);

type Slot = Arc<tokio::sync::Mutex<Option<Arc<Seen>>>>;

/// What was asked for last.
#[derive(Debug, Default)]
pub struct Watched(Mutex<BTreeMap<String, Slot>>);

/// A cluster as it stood.
#[derive(Debug)]
pub struct Seen {
    pub version: i64,
    at: Instant,
    pub cluster: wire::Cluster,
    /// Of every node, in the order of the cluster's.
    pub nodes: Vec<Node>,
    /// Places of nodes by their names.
    pub places: BTreeMap<String, usize>,
    /// Sites by name, with the places of their nodes.
    pub sites: BTreeMap<String, Site>,
    /// Of every link, in the order of the cluster's.
    pub links: Vec<Load>,
    /// Places of the nodes that hold a dataset, by its place; and likewise of images.
    pub holders: Vec<Vec<usize>>,
    pub pulled: Vec<Vec<usize>>,
    /// As the overview draws it.
    pub drawn: String,
}

/// What is true of a node.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub facts: wire::NodeFacts,
    /// Thousandths of a core that what runs there has set aside.
    pub taken_millis: i64,
    pub waiting: usize,
    /// Its link, by its place.
    pub link: Option<usize>,
}

impl Node {
    /// Tasks under way.
    pub fn running(&self) -> usize {
        self.facts.placed.len() - self.waiting
    }
}

#[derive(Clone, Debug, Default)]
pub struct Site {
    pub nodes: Vec<usize>,
    /// The link out of it, by its place.
    pub uplink: Option<usize>,
    /// Different datasets and images that lie there.
    pub datasets: usize,
    pub images: usize,
}

/// What a link carries now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    pub up: i64,
    pub down: i64,
    /// Bytes per second that it is taken to carry, where transfers were measured.
    pub measured: Option<(f64, f64)>,
}

impl Load {
    pub fn transfers(&self) -> i64 {
        self.up + self.down
    }
}

impl Asked<'_> {
    /// A cluster as it stands; its version, where whoever asks has just been told.
    pub async fn cluster(&self, id: &str, version: Option<i64>) -> Result<Arc<Seen>, Status> {
        self.demand("ClusterService/Get")?;
        let slot = self.slots().entry(id.to_owned()).or_default().clone();
        // Others who want it wait for the one who asks.
        let mut slot = slot.lock().await;
        if let Some(seen) = slot.as_ref() {
            let (age, same) = (seen.at.elapsed(), version == Some(seen.version));
            if age < PAUSE || (same && age < OLD) {
                return Ok(seen.clone());
            }
        }
        self.panel.gate.0.metrics.panel_reads.inc();
        let request = wire::GetClusterRequest { id: id.to_owned(), live: true };
        let got = ClusterService::get(&self.panel.door, self.request(request)).await;
        let got = match got {
            Ok(got) => got.into_inner(),
            Err(status) => {
                *slot = None;
                // Whoever waits for it asks for themselves.
                self.slots().remove(id);
                return Err(status);
            }
        };
        let read = tokio::task::spawn_blocking(move || {
            let mut seen = Seen::new(got);
            seen.drawn = map::overview(&seen).into_string();
            Arc::new(seen)
        });
        let seen = read.await.map_err(|_| Status::internal("the cluster could not be drawn"))?;
        *slot = Some(seen.clone());
        Ok(seen)
    }

    /// Forgets clusters that are no longer there.
    pub fn only(&self, listed: &[wire::ClusterSummary]) {
        let there: BTreeSet<&str> = listed.iter().map(|told| told.id.as_str()).collect();
        self.slots().retain(|id, _| there.contains(id.as_str()));
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.panel.watched.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn new(got: wire::GetClusterResponse) -> Seen {
        let (cluster, facts) = (got.cluster.unwrap_or_default(), got.facts.unwrap_or_default());
        let places: BTreeMap<String, usize> =
            cluster.nodes.iter().enumerate().map(|(place, node)| (node.name.clone(), place)).collect();
        let mut nodes = vec![Node::default(); cluster.nodes.len()];
        let kinds: BTreeMap<&str, i64> = cluster
            .task_kinds
            .iter()
            .map(|kind| (kind.name.as_str(), kind.cpu_millis.unwrap_or_default()))
            .collect();
        for facts in facts.nodes {
            if let Some(place) = places.get(&facts.node) {
                let node = &mut nodes[*place];
                let cpu = |task: &wire::PlacedTask| {
                    task.task.as_ref().and_then(|task| kinds.get(task.kind.as_str())).copied()
                };
                node.taken_millis = facts.placed.iter().filter(|task| !task.queued).filter_map(cpu).sum();
                node.waiting = facts.placed.iter().filter(|task| task.queued).count();
                node.facts = facts;
            }
        }
        let mut links = vec![Load::default(); cluster.links.len()];
        let at = |link: Option<i64>| link.and_then(|link| usize::try_from(link).ok());
        for told in &facts.links {
            if let Some(load) = at(told.link).and_then(|link| links.get_mut(link)) {
                (load.up, load.down) = (told.up_transfers, told.down_transfers);
            }
        }
        for told in &facts.link_estimates {
            if let Some(load) = at(told.link).and_then(|link| links.get_mut(link)) {
                load.measured = Some((told.up_bytes_per_s, told.down_bytes_per_s));
            }
        }
        let holders = holders(&cluster, &facts.datasets, &places);
        let pulled = pulled(&cluster, &nodes);
        let sites = sites(&cluster, &mut nodes, (&holders, &pulled));
        let (version, at, drawn) = (got.version, Instant::now(), String::new());
        Seen { version, at, cluster, nodes, places, sites, links, holders, pulled, drawn }
    }

    /// How much of a node is set aside, 0 to 1.
    pub fn share(&self, place: usize) -> f64 {
        self.nodes[place].taken_millis as f64 / self.cluster.nodes[place].cpu_millis.max(1) as f64
    }

    /// What datasets a node holds, by their places.
    pub fn datasets_of(&self, place: usize) -> impl Iterator<Item = usize> {
        let has = move |holders: &Vec<usize>| holders.binary_search(&place).is_ok();
        self.holders.iter().enumerate().filter(move |(_, holders)| has(holders)).map(|(dataset, _)| dataset)
    }

    /// What images a node has whole, by their places.
    pub fn images_of(&self, place: usize) -> impl Iterator<Item = usize> {
        let has = move |nodes: &Vec<usize>| nodes.binary_search(&place).is_ok();
        self.pulled.iter().enumerate().filter(move |(_, nodes)| has(nodes)).map(|(image, _)| image)
    }
}

/// Bytes of an image as the largest of its variants.
pub fn image_bytes(image: &wire::Image) -> i64 {
    let bytes = |variant: &wire::ImageVariant| -> i64 {
        variant.layers.iter().map(|layer| layer.bytes.unwrap_or_default()).sum()
    };
    image.variants.iter().map(bytes).max().unwrap_or_default()
}

/// Who has each dataset: its homes, unless something else is known of it.
fn holders(
    cluster: &wire::Cluster,
    known: &[wire::DatasetFacts],
    places: &BTreeMap<String, usize>,
) -> Vec<Vec<usize>> {
    let known: BTreeMap<&str, &Vec<String>> =
        known.iter().map(|facts| (facts.dataset.as_str(), &facts.holders)).collect();
    let of = |dataset: &wire::Dataset| {
        let names = known.get(dataset.name.as_str()).copied().unwrap_or(&dataset.homes);
        let mut nodes: Vec<usize> = names.iter().filter_map(|name| places.get(name)).copied().collect();
        nodes.sort_unstable();
        nodes
    };
    cluster.datasets.iter().map(of).collect()
}

/// Who has each image whole, for its own instruction set.
fn pulled(cluster: &wire::Cluster, nodes: &[Node]) -> Vec<Vec<usize>> {
    // Images that need a layer, and how many layers each needs, by instruction set.
    let mut needs: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    let mut layers: BTreeMap<(&str, usize), usize> = BTreeMap::new();
    for (place, image) in cluster.images.iter().enumerate() {
        for variant in &image.variants {
            let names: BTreeSet<&str> = variant.layers.iter().map(|layer| layer.name.as_str()).collect();
            layers.insert((&variant.arch, place), names.len());
            for name in names {
                needs.entry((&variant.arch, name)).or_default().push(place);
            }
        }
    }
    let mut pulled = vec![Vec::new(); cluster.images.len()];
    for (place, (node, known)) in cluster.nodes.iter().zip(nodes).enumerate() {
        let mut had: BTreeMap<usize, usize> = BTreeMap::new();
        for layer in &known.facts.layers {
            for image in needs.get(&(node.arch.as_str(), layer.as_str())).into_iter().flatten() {
                *had.entry(*image).or_default() += 1;
            }
        }
        for (image, count) in had {
            if layers.get(&(node.arch.as_str(), image)) == Some(&count) {
                pulled[image].push(place);
            }
        }
    }
    pulled
}

/// Nodes by what their first link leads to.
fn sites(
    cluster: &wire::Cluster,
    nodes: &mut [Node],
    (holders, pulled): (&[Vec<usize>], &[Vec<usize>]),
) -> BTreeMap<String, Site> {
    let mut outward: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, link) in cluster.links.iter().enumerate() {
        outward.entry(&link.outer).or_insert(place);
    }
    let mut sites: BTreeMap<String, Site> = BTreeMap::new();
    let mut site_of = Vec::with_capacity(nodes.len());
    for (place, node) in nodes.iter_mut().enumerate() {
        node.link = outward.get(cluster.nodes[place].name.as_str()).copied();
        let name = node.link.map_or("on its own", |link| &cluster.links[link].inner);
        let site = sites
            .entry(name.to_owned())
            .or_insert_with(|| Site { uplink: outward.get(name).copied(), ..Site::default() });
        site.nodes.push(place);
        site_of.push(name.to_owned());
    }
    let mut count = |lists: &[Vec<usize>], add: fn(&mut Site)| {
        for list in lists {
            let there: BTreeSet<&String> = list.iter().map(|place| &site_of[*place]).collect();
            for name in there {
                sites.get_mut(name).into_iter().for_each(add);
            }
        }
    };
    count(holders, |site| site.datasets += 1);
    count(pulled, |site| site.images += 1);
    sites
}
