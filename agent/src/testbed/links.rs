//! Whether links carry what they were made for: bytes across each sort of link, alone, against its shaped rate. A shared
//! link is measured both ways at once.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Result};
use remora_env::topology::{ChannelId, Direction, Topology, VertexId};
use serde::Serialize;

use super::driver::Controls;
use super::web;

/// How long a link is measured.
const SECONDS: f64 = 1.0;
const MOST_BYTES: f64 = 32e6;
/// A machine that has something else to do makes a link look slower than it is, never faster: the best of so many.
const TRIES: usize = 3;
/// How far what is measured may be from what the link was made for.
pub const TOLERANCE: f64 = 0.1;

/// One direction of a link, measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    pub from: String,
    pub to: String,
    /// The end by which the link is called.
    pub link: String,
    pub shaped_mbps: f64,
    pub measured_mbps: f64,
}

impl Measured {
    /// What arrived, over what the link was made for.
    pub fn ratio(&self) -> f64 {
        self.measured_mbps / self.shaped_mbps
    }

    pub fn holds(&self) -> bool {
        (self.ratio() - 1.0).abs() <= TOLERANCE
    }
}

/// Measures every uplink both ways, and of the links of nodes one of each sort.
pub async fn measure(topology: &Topology, controls: &Controls) -> Result<Vec<Measured>> {
    let mut measured = Vec::new();
    for (index, channel, [from, to]) in ways(topology) {
        let rate = topology.channels()[channel as usize].capacity_bytes_per_s;
        let bytes = (rate * SECONDS).min(MOST_BYTES) as u64;
        let name = |vertex| topology.vertex_name(vertex).to_owned();
        let mut best: f64 = 0.0;
        for _ in 0..TRIES {
            let got = if topology.links[index].shared {
                both_ways(topology, controls, [from, to], bytes).await?
            } else {
                carry(topology, controls, from, to, bytes).await?
            };
            best = best.max(got);
            if best > rate * (1.0 - TOLERANCE / 2.0) {
                break;
            }
        }
        measured.push(Measured {
            from: name(from),
            to: name(to),
            link: name(topology.links[index].from),
            shaped_mbps: rate * 8e-6,
            measured_mbps: best * 8e-6,
        });
    }
    Ok(measured)
}

/// Half of so many bytes there, and half back; how many arrive in a second.
async fn both_ways(
    topology: &Topology,
    controls: &Controls,
    [from, to]: [VertexId; 2],
    bytes: u64,
) -> Result<f64> {
    let (half, begun) = (bytes / 2, Instant::now());
    let there = carry(topology, controls, from, to, half);
    tokio::try_join!(there, carry(topology, controls, to, from, half))?;
    // They may not have begun together: what counts is when both are through.
    Ok((2 * half) as f64 / begun.elapsed().as_secs_f64())
}

/// So many bytes from one end to another; how many arrive in a second.
async fn carry(
    topology: &Topology,
    controls: &Controls,
    from: VertexId,
    to: VertexId,
    bytes: u64,
) -> Result<f64> {
    let control = controls.of(to).with_context(|| format!("{} is not there", topology.vertex_name(to)))?;
    let bytes_per_s: Option<f64> = web::ask(&control, "/measure", &(from, bytes)).await?;
    bytes_per_s.context("it does not measure")
}

/// Links and channels to measure, each with two ends between which it is the narrowest.
fn ways(topology: &Topology) -> Vec<(usize, ChannelId, [VertexId; 2])> {
    let leaves = topology.leaves();
    let mut ways = Vec::new();
    let mut sorts = BTreeSet::new();
    for (index, link) in topology.links.iter().enumerate() {
        for channel in topology.link_channels(index) {
            let rate = topology.channels()[channel as usize].capacity_bytes_per_s;
            let up = channel == topology.link_channels(index)[0];
            // Links alike at one switch are measured once.
            let sort =
                if leaves.contains(&link.from) { (link.to, rate.to_bits(), up) } else { (link.from, 0, up) };
            if sorts.contains(&sort) {
                continue;
            }
            let ends = leaves.clone().flat_map(|from| topology.leaves().map(move |to| [from, to]));
            let way = ends.into_iter().find(|&[from, to]| narrowest(topology, channel, from, to));
            if let Some(way) = way {
                sorts.insert(sort);
                ways.push((index, channel, way));
            }
        }
    }
    ways
}

/// Whether a channel is on the way, and none of it is narrower.
fn narrowest(topology: &Topology, channel: ChannelId, from: VertexId, to: VertexId) -> bool {
    let rate = |channel: ChannelId| topology.channels()[channel as usize].capacity_bytes_per_s;
    let (mut crossed, mut narrower) = (false, false);
    let reached = from != to
        && topology.visit_route(from, to, Direction::From, |other, _| {
            crossed |= other == channel;
            narrower |= rate(other) < rate(channel);
        });
    reached && crossed && !narrower
}
