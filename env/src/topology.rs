//! The static part of a cluster: nodes, the links between them, and routes over those links.
//!
//! The network is a graph of vertices: nodes first (vertex `i` is node `i`), then registries, then
//! switches. A link has a channel for each direction (or one that both directions share), and a
//! route is the channels of the path with the fewest hops. Routes are kept per *source* of data
//! (registries and nodes that hold datasets), never for all pairs, so that memory grows with the
//! number of nodes and not with its square.

use std::collections::VecDeque;
use std::sync::OnceLock;

use crate::device::Arch;

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
    /// True for links that leave a site.
    pub wan: bool,
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
    /// One-way delay, seconds.
    pub latency_s: f64,
    pub price: f64,
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
    latency_s: f32,
    hops: u32,
}

const UNREACHABLE: u32 = u32::MAX;

/// What a path offers when nothing else uses it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Path {
    /// Smallest capacity on the path, bytes per second; infinite within one vertex.
    pub bytes_per_s: f64,
    /// One-way delay, seconds.
    pub latency_s: f64,
    /// Highest price of a link on the path: what a byte over it counts as in data moved.
    pub price: f64,
    /// Whether the path leaves a site.
    pub wan: bool,
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
    /// For each vertex that was a source: its route tree, built on first use.
    trees: Vec<OnceLock<Vec<Hop>>>,
    /// For each node the registry it pulls from; `None` where none can be reached.
    nearest_registry: Vec<Option<VertexId>>,
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
            let channel =
                |capacity_bytes_per_s| Channel { capacity_bytes_per_s, price: link.price, wan: link.wan };
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
        let trees = (0..vertices).map(|_| OnceLock::new()).collect();
        let nearest_registry = Vec::new();
        let mut topology = Topology {
            nodes,
            registries,
            switches,
            links,
            channels,
            neighbours,
            link_channels,
            trees,
            nearest_registry,
        };
        let registries: Vec<_> =
            (0..topology.registries.len()).map(|i| topology.registry_vertex(i)).collect();
        topology.nearest_registry =
            (0..topology.nodes.len()).map(|node| topology.cheapest(&registries, node as NodeId)).collect();
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

    fn tree(&self, root: VertexId) -> &[Hop] {
        self.trees[root as usize].get_or_init(|| self.build_tree(root))
    }

    /// Breadth-first search: fewest hops, ties by order of links.
    fn build_tree(&self, root: VertexId) -> Vec<Hop> {
        let unreached = Hop { towards: 0, inbound: 0, outbound: 0, latency_s: 0.0, hops: UNREACHABLE };
        let mut tree = vec![unreached; self.neighbours.len()];
        tree[root as usize] = Hop { towards: root, hops: 0, ..unreached };
        let mut frontier = VecDeque::from([root]);
        while let Some(vertex) = frontier.pop_front() {
            for &(next, link) in &self.neighbours[vertex as usize] {
                if tree[next as usize].hops != UNREACHABLE {
                    continue;
                }
                let [up, down] = self.link_channels[link as usize];
                let (outbound, inbound) =
                    if self.links[link as usize].from == next { (up, down) } else { (down, up) };
                tree[next as usize] = Hop {
                    towards: vertex,
                    inbound,
                    outbound,
                    latency_s: self.links[link as usize].latency_s as f32,
                    hops: tree[vertex as usize].hops + 1,
                };
                frontier.push_back(next);
            }
        }
        tree
    }

    /// Calls `visit` with each channel and delay (s) that a transfer between `root` and `vertex`
    /// uses; false when there is no way between them.
    #[inline]
    pub fn visit_route(
        &self,
        root: VertexId,
        vertex: VertexId,
        direction: Direction,
        mut visit: impl FnMut(ChannelId, f64),
    ) -> bool {
        let tree = self.tree(root);
        let mut at = vertex;
        loop {
            let hop = tree[at as usize];
            match hop.hops {
                0 => return true,
                UNREACHABLE => return false,
                _ => {
                    let channel = if direction == Direction::From { hop.inbound } else { hop.outbound };
                    visit(channel, f64::from(hop.latency_s));
                    at = hop.towards;
                }
            }
        }
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
        let mut path = Path { bytes_per_s: f64::INFINITY, latency_s: 0.0, price: 0.0, wan: false };
        let reached = self.visit_route(root, vertex, direction, |channel, latency_s| {
            let link = &self.channels[channel as usize];
            path.bytes_per_s = path.bytes_per_s.min(share(channel));
            path.latency_s += latency_s;
            path.price = path.price.max(link.price);
            path.wan |= link.wan;
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
