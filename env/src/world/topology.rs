//! From the nodes and sites of a scenario file to a topology.

use std::collections::BTreeMap;

use crate::power::Power;
use crate::scenario::{BandwidthFile, LinkFile, MobileFile, NodesFile, Scenario, SiteFile};
use crate::topology::{Delay, Link, Node, NodeId, Topology, VertexId};

/// Collects nodes, switches and links while walking the sites.
#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    switches: Vec<String>,
    /// `(outer end, inner end, link)`; switches are numbered apart until the nodes are known.
    links: Vec<(End, End, LinkFile)>,
    varying: Varying,
}

#[derive(Clone, Copy)]
enum End {
    Node(usize),
    Registry(usize),
    Switch(usize),
}

const BACKBONE: usize = 0;

/// What of a topology changes in the course of time.
#[derive(Default)]
pub(super) struct Varying {
    pub mobile: Vec<(NodeId, MobileFile)>,
    /// Links that follow a recording.
    pub recorded: Vec<(u32, BandwidthFile)>,
}

pub(crate) fn build_topology(scenario: &Scenario) -> Topology {
    build(scenario).0
}

pub(super) fn build(scenario: &Scenario) -> (Topology, Varying) {
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
        builder.link(End::Registry(index), inner, &registry.link);
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
    let mut topology = Topology::new(builder.nodes, registries, builder.switches, links);
    topology.peers = file.peers;
    topology.queue_limit = file.queue_limit;
    (topology, builder.varying)
}

fn build_link(from: VertexId, to: VertexId, link: &LinkFile) -> Link {
    const BYTES_PER_MBIT: f64 = 1e6 / 8.0;
    Link {
        from,
        to,
        up_bytes_per_s: link.up_mbps * BYTES_PER_MBIT,
        down_bytes_per_s: link.down_mbps.unwrap_or(link.up_mbps) * BYTES_PER_MBIT,
        delay: Delay {
            floor_s: link.latency_ms / 1000.0,
            median_s: link.jitter.map_or(0.0, |jitter| jitter.median_ms / 1000.0),
            sigma: link.jitter.map_or(0.0, |jitter| jitter.sigma),
        },
        price: link.price,
        usd_per_byte: link.usd_per_gb / 1e9,
        wan: link.wan,
        shared: link.shared,
    }
}

impl Builder {
    fn link(&mut self, outer: End, inner: End, link: &LinkFile) {
        let number = self.links.len() as u32;
        self.varying.recorded.extend(link.bandwidth.clone().map(|bandwidth| (number, bandwidth)));
        self.links.push((outer, inner, link.clone()));
    }

    fn site(&mut self, parent: &str, site: &SiteFile, inner: usize) {
        for index in 0..site.count {
            let name = member(parent, &site.name, index, site.count);
            let switch = self.switches.len();
            self.switches.push(name.clone());
            self.link(End::Switch(switch), End::Switch(inner), &site.uplink);
            self.nodes(&name, &site.nodes, switch);
            for nested in &site.sites {
                self.site(&name, nested, switch);
            }
        }
    }

    fn nodes(&mut self, parent: &str, groups: &[NodesFile], switch: usize) {
        for group in groups {
            for index in 0..group.count {
                let node = self.nodes.len();
                self.link(End::Node(node), End::Switch(switch), &group.link);
                self.varying.mobile.extend(group.mobile.map(|mobile| (node as NodeId, mobile)));
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
        power: match group.power {
            Some(power) => Power::between(power.idle_w, power.busy_w),
            None => device.map_or(Power::default(), |device| device.power),
        },
        usd_per_gb_s: group.usd_per_gb_s.or(device.map(|d| d.usd_per_gb_s)).unwrap_or(0.0),
    }
}

pub(super) fn mib(mib: f64) -> u64 {
    (mib * 1024.0 * 1024.0) as u64
}
