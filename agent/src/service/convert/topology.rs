//! Nodes and links from the wire.

use std::collections::{BTreeMap, VecDeque};

use remora_env::device::Arch;
use remora_env::power::Power;
use remora_env::topology::{Delay, Link, Node, Topology, VertexId};
use remora_proto::v1 as wire;

use super::{Field, Invalid, MAX_BYTES, unique};
use crate::service::names::look_up;

const MAX_NODES: usize = 20_000;
const MAX_REGISTRIES: usize = 100;
const MAX_SWITCHES: usize = 20_000;
const MAX_LINKS: usize = 100_000;
const MAX_CPU_MILLIS: i64 = 1_000_000_000;
const MAX_ACCELERATORS: i64 = 1000;
const MAX_QUEUED: i64 = 1_000_000_000;
const MAX_STARTUP_S: f64 = 1e6;
pub(super) const BYTES_PER_S: std::ops::RangeInclusive<f64> = 1.0..=1e13;
const MAX_LATENCY_S: f64 = 3600.0;
const MAX_PRICE: f64 = 1e6;
/// Longest way from the first node: a decision walks the way to every node.
const MAX_HOPS: u32 = 32;

/// The graph, and the vertex behind each name.
pub(super) fn build(
    at: Field<'_>,
    cluster: &wire::Cluster,
) -> Result<(Topology, BTreeMap<String, VertexId>), Invalid> {
    at.field("nodes").count(cluster.nodes.len(), 1..=MAX_NODES)?;
    at.field("registries").count(cluster.registries.len(), 0..=MAX_REGISTRIES)?;
    at.field("switches").count(cluster.switches.len(), 0..=MAX_SWITCHES)?;
    at.field("links").count(cluster.links.len(), 0..=MAX_LINKS)?;
    let mut vertices = BTreeMap::new();
    let mut vertex = |at: Field<'_>, name: &str| {
        let number = vertices.len() as VertexId;
        unique(at, name, number, &mut vertices)
    };
    let mut nodes = Vec::with_capacity(cluster.nodes.len());
    for (index, wire) in cluster.nodes.iter().enumerate() {
        let at = at.item("nodes", index);
        let name = vertex(at.field("name"), &wire.name)?;
        nodes.push(node(at, name, wire)?);
    }
    let registries = cluster.registries.iter().enumerate();
    let registries = registries
        .map(|(index, name)| vertex(at.item("registries", index), name))
        .collect::<Result<_, _>>()?;
    let switches = cluster.switches.iter().enumerate();
    let switches =
        switches.map(|(index, name)| vertex(at.item("switches", index), name)).collect::<Result<_, _>>()?;
    let links = cluster.links.iter().enumerate();
    let links = links
        .map(|(index, wire)| link(at.item("links", index), wire, &vertices))
        .collect::<Result<Vec<_>, _>>()?;
    connected(at.field("links"), &links, &vertices)?;
    let limit = cluster.queue_limit.map(|limit| at.field("queue_limit").whole32(limit, 0..=MAX_QUEUED));
    let mut topology = Topology::new(nodes, registries, switches, links);
    topology.peers = cluster.peers;
    topology.queue_limit = limit.transpose()?;
    Ok((topology, vertices))
}

fn node(at: Field<'_>, name: String, node: &wire::Node) -> Result<Node, Invalid> {
    let accelerator = node.accelerator.as_ref().map(|accelerator| {
        let at = at.field("accelerator");
        let model = at.field("model").name(&accelerator.model)?;
        Ok((model, at.field("count").whole32(accelerator.count, 1..=MAX_ACCELERATORS)?))
    });
    Ok(Node {
        name,
        kind: at.field("kind").name(&node.kind)?,
        arch: arch(at.field("arch"), &node.arch)?,
        cpu_millis: at.field("cpu_millis").whole32(node.cpu_millis, 1..=MAX_CPU_MILLIS)?,
        memory_bytes: at.field("memory_bytes").whole(node.memory_bytes, 1..=MAX_BYTES)?,
        disk_bytes: at.field("disk_bytes").whole(node.disk_bytes, 0..=MAX_BYTES)?,
        accelerator: accelerator.transpose()?,
        startup_s: at.field("startup_s").number(node.startup_s, 0.0..=MAX_STARTUP_S)?,
        labels: node.labels.clone().into_iter().collect(),
        power: Power::default(),
        usd_per_gb_s: 0.0,
    })
}

/// The instruction set of that name.
pub(super) fn arch(at: Field<'_>, name: &str) -> Result<Arch, Invalid> {
    let known = Arch::ALL.into_iter().find(|arch| arch.name() == name);
    known.ok_or_else(|| {
        let names = Arch::ALL.map(Arch::name).join(", ");
        let shown: String = name.chars().take(60).collect();
        at.refuse(format_args!("is {shown:?}, want one of {names}"))
    })
}

fn link(at: Field<'_>, link: &wire::Link, vertices: &BTreeMap<String, VertexId>) -> Result<Link, Invalid> {
    let end = |at: Field<'_>, name: &str| look_up(at, "node, registry or switch", name, vertices);
    let (from, to) = (end(at.field("outer"), &link.outer)?, end(at.field("inner"), &link.inner)?);
    if from == to {
        return Err(at.field("inner").refuse(format_args!("{:?} is linked with itself", link.inner)));
    }
    Ok(Link {
        from,
        to,
        up_bytes_per_s: at.field("up_bytes_per_s").number(link.up_bytes_per_s, BYTES_PER_S)?,
        down_bytes_per_s: at.field("down_bytes_per_s").number(link.down_bytes_per_s, BYTES_PER_S)?,
        delay: Delay::constant(at.field("latency_s").number(link.latency_s, 0.0..=MAX_LATENCY_S)?),
        price: at.field("price").number(link.price, 0.0..=MAX_PRICE)?,
        usd_per_byte: 0.0,
        wan: link.wan,
        shared: link.shared,
    })
}

/// Demands a way of few links from the first node to everything.
fn connected(at: Field<'_>, links: &[Link], vertices: &BTreeMap<String, VertexId>) -> Result<(), Invalid> {
    let mut neighbours = vec![Vec::new(); vertices.len()];
    for link in links {
        neighbours[link.from as usize].push(link.to);
        neighbours[link.to as usize].push(link.from);
    }
    let mut hops = vec![u32::MAX; vertices.len()];
    hops[0] = 0;
    let mut frontier = VecDeque::from([0_usize]);
    while let Some(vertex) = frontier.pop_front() {
        for &next in &neighbours[vertex] {
            if hops[next as usize] == u32::MAX {
                hops[next as usize] = hops[vertex] + 1;
                frontier.push_back(next as usize);
            }
        }
    }
    for (name, &vertex) in vertices {
        match hops[vertex as usize] {
            u32::MAX => return Err(at.refuse(format_args!("{name:?} is not connected with the first node"))),
            far if far > MAX_HOPS => {
                return Err(at.refuse(format_args!(
                    "{name:?} is {far} links from the first node, want at most {MAX_HOPS}"
                )));
            }
            _ => {}
        }
    }
    Ok(())
}
