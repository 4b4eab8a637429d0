//! What links carry, and from where things come over them.

use super::{Arriving, Cluster, Item};
use crate::catalogue::{DatasetId, LayerId};
use crate::topology::{ChannelId, NodeId, VertexId};

/// What a link that is down counts as being left of it.
const LEAST_SHARE: f64 = 1e-2;

impl Cluster {
    /// Transfers under way on a channel.
    pub fn channel_load(&self, channel: ChannelId) -> u32 {
        self.channel_load[channel as usize]
    }

    /// Notes that so many more transfers are under way on a channel.
    pub fn add_channel_load(&mut self, channel: ChannelId, change: i32) {
        let load = &mut self.channel_load[channel as usize];
        *load = load.saturating_add_signed(change);
        self.share_channel(channel);
    }

    /// What a channel can carry now, bytes per second.
    pub fn channel_capacity(&self, channel: ChannelId) -> f64 {
        self.channel_capacity[channel as usize]
    }

    /// Sets what a channel can carry from now on, bytes per second; 0 is down.
    pub fn set_channel_capacity(&mut self, channel: ChannelId, bytes_per_s: f64) {
        self.channel_capacity[channel as usize] = bytes_per_s;
        self.share_channel(channel);
    }

    fn share_channel(&mut self, channel: ChannelId) {
        // Where the channel is down, as if a hundredth of it were left: it may come back.
        let least = self.topology.channels()[channel as usize].capacity_bytes_per_s * LEAST_SHARE;
        let capacity = self.channel_capacity[channel as usize].max(least);
        self.channel_share[channel as usize] = capacity / f64::from(self.channel_load[channel as usize] + 1);
    }

    /// What one more transfer could expect of a channel: an equal share, bytes per second. Where the
    /// channel is down, a hundredth of what it was made for: it may come back.
    #[inline]
    pub fn channel_share(&self, channel: ChannelId) -> f64 {
        self.channel_share[channel as usize]
    }

    /// Takes all transfers off the links, which carry at least a hundredth of what they were made for. Returns what is on
    /// its way, and which share of it is still to come if all goes as expected.
    pub(crate) fn take_loads(&mut self) -> Vec<(NodeId, Item, f64)> {
        for channel in 0..self.channel_load.len() as ChannelId {
            let least = self.topology.channels()[channel as usize].capacity_bytes_per_s * LEAST_SHARE;
            self.channel_load[channel as usize] = 0;
            self.set_channel_capacity(channel, self.channel_capacity[channel as usize].max(least));
        }
        let share = |(&(item, node), arriving): (&(Item, NodeId), &Arriving)| {
            let span = arriving.expected - arriving.begun;
            let left_s = arriving.expected.expected_from(self.now, span).since_s(self.now);
            (node, item, (left_s / span.as_s()).clamp(0.0, 1.0))
        };
        self.arriving.iter().map(share).collect()
    }

    /// Where a node pulls a layer from: a peer in its site if peers serve each other and one has it,
    /// else its registry.
    pub fn layer_source(&self, layer: LayerId, node: NodeId) -> Option<VertexId> {
        let peer = self.peer(node, |peer| self.layer_present.contains(layer, peer));
        peer.or_else(|| self.topology.registry_of(node))
    }

    /// Where a node reads a dataset from: a peer in its site if peers serve each other and one has
    /// it, else the cheapest of the homes that have the current version, preferably one that is up.
    pub fn dataset_source(&self, dataset: DatasetId, node: NodeId) -> Option<NodeId> {
        let peer = self.peer(node, |peer| self.has_dataset(dataset, peer));
        peer.or_else(|| match self.catalogue.datasets[dataset as usize].homes.as_slice() {
            [only] => Some(*only),
            [] => self.cheapest_holder(self.holders(dataset).iter().copied(), node),
            homes => {
                let current = homes.iter().copied().filter(|&home| self.has_dataset(dataset, home));
                self.cheapest_holder(current, node)
            }
        })
    }

    fn cheapest_holder(&self, holders: impl Iterator<Item = NodeId> + Clone, node: NodeId) -> Option<NodeId> {
        let up: Vec<_> = holders.clone().filter(|&holder| self.nodes[holder as usize].up).collect();
        let among = if up.is_empty() { holders.collect() } else { up };
        self.topology.cheapest(&among, node)
    }

    /// Of the node's peers that `hold` something, the one with the least traffic.
    fn peer(&self, node: NodeId, holds: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        if !self.topology.peers {
            return None;
        }
        let serves = |&peer: &NodeId| peer != node && self.nodes[peer as usize].up && holds(peer);
        let traffic = |peer: &NodeId| {
            let [out, _] = self.topology.access(*peer);
            (self.channel_load(out), *peer)
        };
        self.topology.site(node).filter(serves).min_by_key(traffic)
    }
}
