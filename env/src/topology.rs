//! The static part of a cluster: nodes, the links between them, and routes over those links.
//!
//! The network is a graph of vertices: nodes first (vertex `i` is node `i`), then registries, then
//! switches. A link has a channel for each direction (or one that both directions share), and a
//! route is the channels of the path with the fewest hops. Where the links form a tree, as sites
//! within sites do, a route climbs from both ends to where they meet and nothing is kept for it; in
//! any other graph a tree of routes is kept per *source* of data, never for all pairs. So memory
//! grows with the number of nodes and not with its square.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::OnceLock;

use crate::device::Arch;
use crate::power::Power;

/// Index of a node in [`Topology::nodes`].
pub type NodeId = u32;
/// Index of a vertex of the network graph; nodes have the first indices.
pub type VertexId = u32;
/// Index of one direction of a link.
pub type ChannelId = u32;

/// A machine that can run tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub name: String,
    /// Device kind; execution times are given per kind.
    pub kind: String,
    pub arch: Arch,
    pub cpu_millis: u32,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    /// Accelerator model and how many of it.
    pub accelerator: Option<(String, u32)>,
    /// Starting a container whose image is present, in seconds.
    pub startup_s: f64,
    /// `(key, value)`, sorted by key.
    pub labels: Vec<(String, String)>,
    /// What it draws.
    pub power: Power,
    /// Dollars for a gigabyte of requested memory, held for a second while executing.
    pub usd_per_gb_s: f64,
}

impl Node {
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

/// One direction of a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Channel {
    pub capacity_bytes_per_s: f64,
    /// What a byte over this link counts as in data moved; 1 is an ordinary local link.
    pub price: f64,
    /// Dollars for a byte.
    pub usd_per_byte: f64,
    /// True for links that leave a site.
    pub wan: bool,
    pub delay: Delay,
}

/// One-way delay of a link: fixed, or with a log-normal part that each transfer draws.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Delay {
    /// Least delay, seconds.
    pub floor_s: f64,
    /// Median of what is added to it, seconds.
    pub median_s: f64,
    /// Shape of the log-normal distribution; zero adds `median_s` always.
    pub sigma: f64,
}

impl Delay {
    /// A delay that does not vary.
    pub fn constant(seconds: f64) -> Delay {
        Delay { floor_s: seconds, ..Delay::default() }
    }

    /// Mean, seconds.
    pub fn mean_s(&self) -> f64 {
        self.floor_s + self.median_s * (self.sigma * self.sigma / 2.0).exp()
    }

    /// The delay of a transfer whose standard normal draw is `z`, seconds.
    pub fn draw_s(&self, z: f64) -> f64 {
        self.floor_s + self.median_s * (self.sigma * z).exp()
    }
}

/// A two-way link between two vertices.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// The outer end: a node, or the switch of a site.
    pub from: VertexId,
    /// The inner end, towards the backbone.
    pub to: VertexId,
    /// Capacity `from → to`, bytes per second.
    pub up_bytes_per_s: f64,
    /// Capacity `to → from`, bytes per second.
    pub down_bytes_per_s: f64,
    pub delay: Delay,
    pub price: f64,
    /// Dollars for a byte.
    pub usd_per_byte: f64,
    pub wan: bool,
    /// Both directions share the capacity `up_bytes_per_s` (a wireless cell).
    pub shared: bool,
}

/// One hop of a route, seen from the vertex farther from the source.
#[derive(Clone, Copy, Debug)]
struct Hop {
    /// Next vertex towards the source; the vertex itself at the source or where unreachable.
    towards: VertexId,
    /// Channel that carries data *from* the source side *to* this vertex.
    inbound: ChannelId,
    /// Channel that carries data back towards the source.
    outbound: ChannelId,
    latency_s: f64,
    hops: u32,
}

const UNREACHABLE: u32 = u32::MAX;

impl Hop {
    const UNREACHED: Hop = Hop { towards: 0, inbound: 0, outbound: 0, latency_s: 0.0, hops: UNREACHABLE };

    #[inline]
    fn channel(&self, direction: Direction) -> ChannelId {
        if direction == Direction::From { self.inbound } else { self.outbound }
    }
}

/// How routes are found.
#[derive(Debug)]
enum Routes {
    /// The links form a forest: for each vertex its hop towards the root of its tree.
    Climbing(Vec<Hop>),
    /// For each vertex that was a source: its route tree, built on first use.
    Trees(Vec<OnceLock<Vec<Hop>>>),
}

/// What a path offers when nothing else uses it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Path {
    /// Smallest capacity on the path, bytes per second; infinite within one vertex.
    pub bytes_per_s: f64,
    /// One-way delay, seconds.
    pub latency_s: f64,
    /// Highest price of a link on the path: what a byte over it counts as in data moved.
    pub price: f64,
    /// Dollars for a byte: of the dearest link on the path.
    pub usd_per_byte: f64,
    /// Whether the path leaves a site.
    pub wan: bool,
}

impl Path {
    /// This path behind one more hop.
    #[inline]
    pub(crate) fn behind(&self, channel: &Channel, bytes_per_s: f64, latency_s: f64) -> Path {
        Path {
            bytes_per_s: self.bytes_per_s.min(bytes_per_s),
            latency_s: self.latency_s + latency_s,
            price: self.price.max(channel.price),
            usd_per_byte: self.usd_per_byte.max(channel.usd_per_byte),
            wan: self.wan | channel.wan,
        }
    }

    /// A path without hops.
    pub const HERE: Path =
        Path { bytes_per_s: f64::INFINITY, latency_s: 0.0, price: 0.0, usd_per_byte: 0.0, wan: false };
}

/// Direction of a transfer relative to the vertex that a route was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Data flows from the route's root to the node.
    From,
    /// Data flows from the node to the route's root.
    To,
}

/// Nodes, links and routes.
#[derive(Debug)]
pub struct Topology {
    pub nodes: Vec<Node>,
    /// Registry names; registry `i` is vertex `nodes.len() + i`.
    pub registries: Vec<String>,
    /// Switch names; they are the remaining vertices.
    pub switches: Vec<String>,
    pub links: Vec<Link>,
    channels: Vec<Channel>,
    /// For each vertex: `(neighbour, link)`.
    neighbours: Vec<Vec<(VertexId, u32)>>,
    /// For each link: its channel from `from` to `to` and the one back.
    link_channels: Vec<[ChannelId; 2]>,
    routes: Routes,
    /// Whether each vertex has one link alone.
    one_link: Vec<bool>,
    /// For each node the site it is in, and for each site its nodes.
    site_of: Vec<u32>,
    sites: Vec<Range<NodeId>>,
    /// For each node the registry it pulls from; `None` where none can be reached.
    nearest_registry: Vec<Option<VertexId>>,
    /// For each node the path from there at nominal capacity: every decision reads it.
    registry_path: Vec<Option<Path>>,
    /// For each node a number that those share whose ways all lead through alike hops to one switch.
    place_of: Vec<Option<NonZeroU32>>,
    /// Nodes of one site fetch from each other what one of them has.
    pub peers: bool,
    /// How many tasks may wait on a node; `None` for any number.
    pub queue_limit: Option<u32>,
}

impl Topology {
    /// Assembles the graph. Vertex numbers in `links` must exist.
    pub fn new(
        nodes: Vec<Node>,
        registries: Vec<String>,
        switches: Vec<String>,
        links: Vec<Link>,
    ) -> Topology {
        let vertices = nodes.len() + registries.len() + switches.len();
        let mut neighbours = vec![Vec::new(); vertices];
        let mut channels = Vec::new();
        let mut link_channels = Vec::new();
        for (index, link) in links.iter().enumerate() {
            neighbours[link.from as usize].push((link.to, index as u32));
            neighbours[link.to as usize].push((link.from, index as u32));
            let channel = |capacity_bytes_per_s| Channel {
                capacity_bytes_per_s,
                price: link.price,
                usd_per_byte: link.usd_per_byte,
                wan: link.wan,
                delay: link.delay,
            };
            let up = channels.len() as ChannelId;
            channels.push(channel(link.up_bytes_per_s));
            let down = if link.shared {
                up
            } else {
                channels.push(channel(link.down_bytes_per_s));
                up + 1
            };
            link_channels.push([up, down]);
        }
        let routes = Routes::Trees((0..vertices).map(|_| OnceLock::new()).collect());
        let one_link = neighbours.iter().map(|links| links.len() == 1).collect();
        let (site_of, sites) = sites(&neighbours, nodes.len());
        let nearest_registry = Vec::new();
        let mut topology = Topology {
            nodes,
            registries,
            switches,
            links,
            channels,
            neighbours,
            link_channels,
            routes,
            one_link,
            site_of,
            sites,
            nearest_registry,
            registry_path: Vec::new(),
            place_of: Vec::new(),
            peers: false,
            queue_limit: None,
        };
        if let Some(hops) = topology.forest() {
            topology.routes = Routes::Climbing(hops);
        }
        topology.place_of = topology.places();
        let registries: Vec<_> =
            (0..topology.registries.len()).map(|i| topology.registry_vertex(i)).collect();
        let nodes = || 0..topology.nodes.len() as NodeId;
        let nearest: Vec<_> = nodes().map(|node| topology.cheapest(&registries, node)).collect();
        let path = |node: NodeId| topology.path(nearest[node as usize]?, node, Direction::From);
        topology.registry_path = nodes().map(path).collect();
        topology.nearest_registry = nearest;
        topology
    }

    /// Of these vertices the one whose data reaches the node at the lowest price, then soonest.
    pub fn cheapest(&self, sources: &[VertexId], node: NodeId) -> Option<VertexId> {
        let key = |path: Path| (path.price, path.latency_s + 1e6 / path.bytes_per_s);
        let reachable = sources
            .iter()
            .filter_map(|&source| self.path(source, node, Direction::From).map(|path| (key(path), source)));
        reachable
            .min_by(|(a, _), (b, _)| a.partial_cmp(b).expect("prices and times are numbers"))
            .map(|(_, s)| s)
    }

    /// The path at nominal capacity from the registry that the node pulls from.
    #[inline]
    pub fn registry_path(&self, node: NodeId) -> Option<Path> {
        self.registry_path[node as usize]
    }

    /// The registry that the node pulls from.
    pub fn registry_of(&self, node: NodeId) -> Option<VertexId> {
        self.nearest_registry[node as usize]
    }

    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// The channels of link `link`: outward end to inner end, and back.
    pub fn link_channels(&self, link: usize) -> [ChannelId; 2] {
        self.link_channels[link]
    }

    /// Vertex of registry `index`.
    pub fn registry_vertex(&self, index: usize) -> VertexId {
        (self.nodes.len() + index) as VertexId
    }

    /// Nodes and registries: the vertices at which something runs. Switches come after them.
    pub fn leaves(&self) -> Range<VertexId> {
        0..self.registry_vertex(self.registries.len())
    }

    /// Name of any vertex.
    pub fn vertex_name(&self, vertex: VertexId) -> &str {
        let (v, nodes, registries) = (vertex as usize, self.nodes.len(), self.registries.len());
        if v < nodes {
            &self.nodes[v].name
        } else if v < nodes + registries {
            &self.registries[v - nodes]
        } else {
            &self.switches[v - nodes - registries]
        }
    }

    pub fn vertex_count(&self) -> usize {
        self.neighbours.len()
    }

    /// The node of that name.
    pub fn node_named(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().position(|node| node.name == name).map(|index| index as NodeId)
    }

    /// Whether no links form a circle: then nothing is kept for a way that is looked up.
    pub fn is_forest(&self) -> bool {
        matches!(self.routes, Routes::Climbing(_))
    }

    /// For each vertex its hop towards the root of its tree; `None` where links form a circle.
    fn forest(&self) -> Option<Vec<Hop>> {
        let mut hops = vec![Hop::UNREACHED; self.neighbours.len()];
        let mut trees = 0;
        // From the last vertex down: switches come last, so that trees are rooted at the backbone.
        for root in (0..self.neighbours.len() as VertexId).rev() {
            if hops[root as usize].hops == UNREACHABLE {
                self.reach(root, &mut hops);
                trees += 1;
            }
        }
        (self.links.len() + trees == self.neighbours.len()).then_some(hops)
    }

    /// Breadth-first search: fewest hops, ties by order of links.
    fn reach(&self, root: VertexId, tree: &mut [Hop]) {
        tree[root as usize] = Hop { towards: root, hops: 0, ..Hop::UNREACHED };
        let mut frontier = VecDeque::from([root]);
        while let Some(vertex) = frontier.pop_front() {
            for &(next, link) in &self.neighbours[vertex as usize] {
                if tree[next as usize].hops != UNREACHABLE {
                    continue;
                }
                let [up, down] = self.link_channels[link as usize];
                let (outbound, inbound) =
                    if self.links[link as usize].from == next { (up, down) } else { (down, up) };
                let hops = tree[vertex as usize].hops + 1;
                let latency_s = self.links[link as usize].delay.mean_s();
                tree[next as usize] = Hop { towards: vertex, inbound, outbound, latency_s, hops };
                frontier.push_back(next);
            }
        }
    }

    fn tree<'a>(&'a self, trees: &'a [OnceLock<Vec<Hop>>], root: VertexId) -> &'a [Hop] {
        trees[root as usize].get_or_init(|| {
            let mut tree = vec![Hop::UNREACHED; self.neighbours.len()];
            self.reach(root, &mut tree);
            tree
        })
    }

    /// Calls `visit` with each channel and mean delay (s) that a transfer between `root` and
    /// `vertex` uses, from `vertex` to `root`; false when there is no way between them.
    #[inline]
    pub fn visit_route(
        &self,
        root: VertexId,
        vertex: VertexId,
        direction: Direction,
        mut visit: impl FnMut(ChannelId, f64),
    ) -> bool {
        match &self.routes {
            Routes::Climbing(hops) => climb(hops, root, vertex, direction, &mut visit),
            Routes::Trees(trees) => {
                let tree = self.tree(trees, root);
                let reached = tree[vertex as usize].hops != UNREACHABLE;
                let mut at = vertex;
                while reached && at != root {
                    let hop = &tree[at as usize];
                    visit(hop.channel(direction), hop.latency_s);
                    at = hop.towards;
                }
                reached
            }
        }
    }

    /// Channels of the node's first link: outwards from the node, and to it.
    ///
    /// # Panics
    /// For a node without links; one that is alone at its switch has no peers to ask this for.
    pub fn access(&self, node: NodeId) -> [ChannelId; 2] {
        let (_, link) = self.neighbours[node as usize][0];
        let [up, down] = self.link_channels[link as usize];
        if self.links[link as usize].from == node { [up, down] } else { [down, up] }
    }

    /// Links of a node.
    pub fn links_of(&self, node: NodeId) -> impl Iterator<Item = u32> {
        self.neighbours[node as usize].iter().map(|(_, link)| *link)
    }

    /// Where the links form a tree and this vertex is a leaf, so that all ways lead through its one
    /// hop: the vertex at the other end, the channel for data in `direction`, and its mean delay,
    /// seconds.
    #[inline]
    pub(crate) fn hop(&self, vertex: VertexId, direction: Direction) -> Option<(VertexId, ChannelId, f64)> {
        let Routes::Climbing(hops) = &self.routes else { return None };
        let hop = &hops[vertex as usize];
        (hop.hops > 0 && self.one_link[vertex as usize])
            .then(|| (hop.towards, hop.channel(direction), hop.latency_s))
    }

    fn places(&self) -> Vec<Option<NonZeroU32>> {
        let mut numbers: BTreeMap<(VertexId, u64, u64), NonZeroU32> = BTreeMap::new();
        let mut place = |node: NodeId| {
            let capacity = |(_, channel, _): (VertexId, ChannelId, f64)| {
                self.channels[channel as usize].capacity_bytes_per_s.to_bits()
            };
            let (to, from) = (self.hop(node, Direction::From)?, self.hop(node, Direction::To)?);
            let next = NonZeroU32::MIN.saturating_add(numbers.len() as u32);
            Some(*numbers.entry((to.0, capacity(to), capacity(from))).or_insert(next))
        };
        (0..self.nodes.len() as NodeId).map(&mut place).collect()
    }

    /// Where the links form a tree: the next vertex towards its root, and the nominal capacity of the hop for
    /// data in `direction`, bytes per second.
    #[inline]
    pub(crate) fn climb_from(&self, vertex: VertexId, direction: Direction) -> Option<(VertexId, f64)> {
        let Routes::Climbing(hops) = &self.routes else { return None };
        let hop = &hops[vertex as usize];
        let channel = hop.channel(direction);
        (hop.hops > 0).then(|| (hop.towards, self.channels[channel as usize].capacity_bytes_per_s))
    }

    /// A number that nodes share which are equally far from everything but each other, at nominal capacity;
    /// `None` where that is not known.
    #[inline]
    pub fn place_of(&self, node: NodeId) -> Option<NonZeroU32> {
        self.place_of[node as usize]
    }

    /// The nodes that share a switch with this one, itself included.
    pub fn site(&self, node: NodeId) -> Range<NodeId> {
        self.sites[self.site_of[node as usize] as usize].clone()
    }

    /// What the path between `root` and `vertex` offers, with `share(channel)` bytes per second
    /// left on each channel; `None` where there is no way.
    #[inline]
    pub fn path_with(
        &self,
        root: VertexId,
        vertex: VertexId,
        direction: Direction,
        mut share: impl FnMut(ChannelId) -> f64,
    ) -> Option<Path> {
        let mut path = Path::HERE;
        let reached = self.visit_route(root, vertex, direction, |channel, latency_s| {
            path = path.behind(&self.channels[channel as usize], share(channel), latency_s);
        });
        reached.then_some(path)
    }

    /// The path at nominal capacity.
    pub fn path(&self, root: VertexId, vertex: VertexId, direction: Direction) -> Option<Path> {
        self.path_with(root, vertex, direction, |channel| {
            self.channels[channel as usize].capacity_bytes_per_s
        })
    }
}

/// Visits the way from `vertex` up to where it meets that of `root`, and from there down to `root`;
/// false when they are in different trees.
#[inline]
fn climb(
    hops: &[Hop],
    root: VertexId,
    vertex: VertexId,
    direction: Direction,
    visit: &mut impl FnMut(ChannelId, f64),
) -> bool {
    let (mut below, mut above) = (vertex, root);
    while hops[above as usize].hops > hops[below as usize].hops {
        above = hops[above as usize].towards;
    }
    let (mut meeting, mut other) = (below, above);
    while hops[meeting as usize].hops > hops[other as usize].hops {
        meeting = hops[meeting as usize].towards;
    }
    while meeting != other {
        if hops[meeting as usize].hops == 0 {
            return false;
        }
        meeting = hops[meeting as usize].towards;
        other = hops[other as usize].towards;
    }
    while below != meeting {
        let hop = &hops[below as usize];
        visit(hop.channel(direction), hop.latency_s);
        below = hop.towards;
    }
    descend(hops, root, meeting, direction, visit);
    true
}

/// Visits the way from `meeting` down to `root`. Data goes against the hops' own sense here.
fn descend(
    hops: &[Hop],
    root: VertexId,
    meeting: VertexId,
    direction: Direction,
    visit: &mut impl FnMut(ChannelId, f64),
) {
    if root == meeting {
        return;
    }
    let hop = &hops[root as usize];
    descend(hops, hop.towards, meeting, direction, visit);
    let opposite = if direction == Direction::From { Direction::To } else { Direction::From };
    visit(hop.channel(opposite), hop.latency_s);
}

/// For each node the number of its site, and the nodes of each: runs of successive nodes whose one
/// link leads to the same vertex.
fn sites(neighbours: &[Vec<(VertexId, u32)>], nodes: usize) -> (Vec<u32>, Vec<Range<NodeId>>) {
    let switch = |node: usize| match neighbours[node].as_slice() {
        [(switch, _)] => Some(*switch),
        _ => None,
    };
    let mut site_of = Vec::with_capacity(nodes);
    let mut sites: Vec<Range<NodeId>> = Vec::new();
    for node in 0..nodes {
        let joins = node > 0 && switch(node).is_some() && switch(node) == switch(node - 1);
        match sites.last_mut() {
            Some(site) if joins => site.end += 1,
            _ => sites.push(node as NodeId..node as NodeId + 1),
        }
        site_of.push(sites.len() as u32 - 1);
    }
    (site_of, sites)
}
