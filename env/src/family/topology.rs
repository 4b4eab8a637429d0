//! The sites, nodes and links of a member.

use std::collections::BTreeMap;

use super::Stretch;
use super::draw::Draw;
use crate::device::{LOCALITY, STORAGE};
use crate::scenario::{JitterFile, LinkFile, MobileFile, NodesFile, RegistryFile, SiteFile, TopologyFile};

/// Boards and boxes that stand in cells, of the usual kinds and of those kept for the test.
const BOARDS: [&str; 9] = ["rpi3", "rpi4", "rockpi", "coral", "nano", "tx2", "nx", "nuc", "agx-xavier"];
const BOARDS_UNSEEN: [&str; 7] = ["rpi3", "rpi4", "rockpi", "coral", "nuc", "orin-nx", "orin"];
/// Machines of cloudlets.
const SERVERS: [&str; 5] = ["nuc", "xeon-cpu", "xeon-gpu", "t4-server", "l4-server"];
const SERVERS_UNSEEN: [&str; 4] = ["nuc", "xeon-cpu", "xeon-gpu", "a2-server"];
/// AWS Lambda's price of a GB-second.
const CLOUD_USD_PER_GB_S: f64 = 0.000_016_666_7;

/// Nodes alike, all copies of their site counted.
#[derive(Clone, Copy)]
pub(super) struct Group<'a> {
    pub(super) kind: &'a str,
    pub(super) nodes: u32,
    /// They hold data and run nothing.
    pub(super) storage: bool,
}

pub(super) fn draw(draw: &mut Draw, stretch: Option<Stretch>) -> TopologyFile {
    let (least, most) = if stretch == Some(Stretch::Large) { (200.0, 400.0) } else { (8.0, 200.0) };
    let nodes = draw.log_uniform(least, most).round() as u32;
    let cloud = (f64::from(nodes) * draw.uniform(0.05, 0.25)).ceil() as u32;
    let cloudlets = (f64::from(nodes) * draw.uniform(0.0, 0.33)) as u32;
    let mut sites = vec![cloud_site(draw, cloud)];
    if cloudlets > 0 {
        sites.push(cloudlet(draw, cloudlets, stretch));
    }
    let mut left = nodes.saturating_sub(cloud + cloudlets).max(2);
    let sorts = draw.count(1, 4);
    for sort in 0..sorts {
        let share = if sort + 1 == sorts { left } else { left / 2 };
        if share < 2 {
            continue;
        }
        left -= share;
        sites.push(cell(draw, sort, share, stretch));
    }
    let mirror = cloudlets > 0 && draw.chance(0.2);
    let site = if mirror { Some(first_of(&sites[1])) } else { None };
    let registry =
        RegistryFile { name: "registry".to_owned(), site, link: local(draw.one(&[1000.0, 10_000.0])) };
    TopologyFile {
        registries: vec![registry],
        nodes: Vec::new(),
        sites,
        peers: draw.chance(0.3),
        queue_limit: None,
    }
}

/// Name of the first of a site's copies.
fn first_of(site: &SiteFile) -> String {
    if site.count > 1 { format!("{}-0", site.name) } else { site.name.clone() }
}

fn local(up_mbps: f64) -> LinkFile {
    LinkFile { up_mbps, latency_ms: 0.3, ..LinkFile::default() }
}

fn group(kind: &str, count: u32, up_mbps: f64) -> NodesFile {
    NodesFile {
        name: kind.to_owned(),
        count,
        kind: kind.to_owned(),
        link: local(up_mbps),
        ..NodesFile::default()
    }
}

fn storage(count: u32) -> NodesFile {
    let labels = BTreeMap::from([(STORAGE.to_owned(), String::new())]);
    NodesFile { name: "storage".to_owned(), labels, ..group("nuc", count, 1000.0) }
}

fn cloud_site(draw: &mut Draw, nodes: u32) -> SiteFile {
    let with_gpu = if nodes > 1 && draw.chance(0.5) { nodes.div_ceil(4) } else { 0 };
    let kinds = [("xeon-cpu", nodes - with_gpu), ("xeon-gpu", with_gpu)];
    let mut groups: Vec<NodesFile> = kinds
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| NodesFile {
            labels: BTreeMap::from([(LOCALITY.to_owned(), "cloud".to_owned())]),
            usd_per_gb_s: Some(CLOUD_USD_PER_GB_S),
            ..group(kind, count, 10_000.0)
        })
        .collect();
    if draw.chance(0.5) {
        groups.push(storage(1));
    }
    let uplink = LinkFile {
        up_mbps: draw.log_uniform(1000.0, 10_000.0),
        latency_ms: draw.log_uniform(2.0, 20.0),
        wan: true,
        ..LinkFile::default()
    };
    SiteFile { name: "cloud".to_owned(), count: 1, uplink, nodes: groups, sites: Vec::new() }
}

fn cloudlet(draw: &mut Draw, nodes: u32, stretch: Option<Stretch>) -> SiteFile {
    let count = draw.count(1, nodes.clamp(1, 8));
    let each = (nodes / count).max(1);
    let palette = if stretch == Some(Stretch::Unseen) { &SERVERS_UNSEEN[..] } else { &SERVERS[..] };
    let mut groups = mix(draw, palette, each, 2, 10_000.0);
    if draw.chance(0.5) {
        groups.push(storage(1));
    }
    let uplink = LinkFile {
        up_mbps: thinned(draw.log_uniform(100.0, 1000.0), stretch),
        latency_ms: draw.log_uniform(2.0, 15.0),
        price: draw.log_uniform(1.0, 4.0),
        wan: true,
        ..LinkFile::default()
    };
    SiteFile { name: "cloudlet".to_owned(), count, uplink, nodes: groups, sites: Vec::new() }
}

fn cell(draw: &mut Draw, sort: u32, nodes: u32, stretch: Option<Stretch>) -> SiteFile {
    let each = (draw.log_uniform(2.0, 16.0).round() as u32).min(nodes);
    let count = (nodes / each).max(1);
    let palette = if stretch == Some(Stretch::Unseen) { &BOARDS_UNSEEN[..] } else { &BOARDS[..] };
    let access = draw.one(&[100.0, 1000.0]);
    // One of them holds the data, in most cells.
    let stores = draw.chance(0.7);
    let mut groups = mix(draw, palette, if stores { each - 1 } else { each }, 3, access);
    if stores {
        groups.push(storage(1));
    }
    let uplink = LinkFile {
        up_mbps: thinned(draw.log_uniform(8.0, 100.0), stretch),
        down_mbps: Some(thinned(draw.log_uniform(20.0, 250.0), stretch)),
        latency_ms: draw.log_uniform(8.0, 60.0),
        jitter: draw
            .chance(0.3)
            .then(|| JitterFile { median_ms: draw.log_uniform(1.0, 20.0), sigma: draw.uniform(0.2, 1.0) }),
        price: draw.log_uniform(1.0, 8.0),
        wan: true,
        ..LinkFile::default()
    };
    let name = format!("cell{sort}");
    if !draw.chance(0.25) {
        return SiteFile { name, count, uplink, nodes: groups, sites: Vec::new() };
    }
    // Boards that share the air.
    let medium = LinkFile {
        up_mbps: thinned(draw.log_uniform(50.0, 300.0), stretch),
        latency_ms: draw.log_uniform(1.0, 5.0),
        shared: true,
        ..LinkFile::default()
    };
    let air = SiteFile { name: "air".to_owned(), count: 1, uplink: medium, nodes: groups, sites: Vec::new() };
    SiteFile { name, count, uplink, nodes: Vec::new(), sites: vec![air] }
}

/// That many nodes of some of these kinds.
fn mix(draw: &mut Draw, palette: &[&'static str], nodes: u32, most: usize, up_mbps: f64) -> Vec<NodesFile> {
    let kinds = draw.count(1, most as u32) as usize;
    let kinds = draw.some(palette, kinds.min(nodes as usize));
    let mut left = nodes;
    let mut groups = Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        let others = (kinds.len() - 1 - index) as u32;
        let count = if others == 0 { left } else { draw.count(1, left - others) };
        left -= count;
        groups.push(group(kind, count, up_mbps));
    }
    groups
}

fn thinned(mbps: f64, stretch: Option<Stretch>) -> f64 {
    if stretch == Some(Stretch::Thin) { super::draw::neat(mbps / 4.0) } else { mbps }
}

/// Sets the boards of one sort of cells in motion.
pub(super) fn set_moving(draw: &mut Draw, topology: &mut TopologyFile, duration_s: f64) {
    let mobile = MobileFile {
        mean_present_s: draw.log_uniform(0.2 * duration_s, duration_s),
        mean_away_s: draw.log_uniform(0.02 * duration_s, 0.1 * duration_s),
    };
    let cells = topology.sites.iter_mut().filter(|site| site.name.starts_with("cell"));
    let Some(cell) = cells.last() else { return };
    let inside = cell.sites.iter_mut().flat_map(|site| &mut site.nodes);
    for group in cell.nodes.iter_mut().chain(inside).filter(|group| group.name != "storage") {
        group.mobile = Some(mobile);
    }
}

/// All groups of nodes.
pub(super) fn census(topology: &TopologyFile) -> Vec<Group<'_>> {
    let mut groups = Vec::new();
    let mut sites: Vec<(&SiteFile, u32)> = topology.sites.iter().map(|site| (site, site.count)).collect();
    while let Some((site, copies)) = sites.pop() {
        groups.extend(site.nodes.iter().map(|group| Group {
            kind: &group.kind,
            nodes: group.count * copies,
            storage: group.labels.contains_key(STORAGE),
        }));
        sites.extend(site.sites.iter().map(|inner| (inner, inner.count * copies)));
    }
    groups
}

/// Capacity of all uplinks that leave a cell or cloudlet, bytes per second.
pub(super) fn uplinks_bytes_per_s(topology: &TopologyFile) -> f64 {
    let outer = topology.sites.iter().filter(|site| site.name != "cloud");
    outer.map(|site| f64::from(site.count) * site.uplink.up_mbps * 125_000.0).sum()
}

#[cfg(test)]
mod tests {
    use super::{BOARDS, BOARDS_UNSEEN, SERVERS, SERVERS_UNSEEN};
    use crate::device::device;
    use crate::family::USUAL;

    #[test]
    fn kinds_exist_and_only_the_stretched_test_has_others_than_the_usual() {
        let usual = BOARDS.iter().chain(&SERVERS);
        assert!(usual.clone().all(|kind| USUAL.contains(kind)));
        assert!(USUAL.iter().all(|kind| BOARDS.contains(kind) || SERVERS.contains(kind)));
        let unseen: Vec<_> =
            BOARDS_UNSEEN.iter().chain(&SERVERS_UNSEEN).filter(|kind| !USUAL.contains(kind)).collect();
        assert_eq!(unseen, [&"orin-nx", &"orin", &"a2-server"]);
        assert!(USUAL.iter().chain(unseen).all(|kind| device(kind).is_some()));
    }
}
