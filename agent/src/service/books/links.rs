//! What links really carry, as measured transfers say, and what crosses them because of our own decisions.

use std::collections::BTreeMap;

use remora_env::cluster::TaskId;
use remora_env::topology::{ChannelId, Direction, Topology, VertexId};
use remora_env::{Cluster, Time};

/// What a link was registered with counts as much as so many transfers.
const PRIOR: f64 = 4.0;
/// Of all transfers before it, one more counts as much as a share of so many.
const MEMORY: f64 = 16.0;
/// A shorter transfer says more of delays than of links, bytes.
const LEAST_BYTES: f64 = 100_000.0;

/// What is known of one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Mean logarithm of the bytes per second that it was seen to carry, newer ones counting more.
    mean: f64,
    /// How many transfers that is worth, at most [`MEMORY`].
    count: f64,
}

impl Estimate {
    fn add(&mut self, bytes_per_s: f64) {
        self.count = self.count * (1.0 - 1.0 / MEMORY) + 1.0;
        self.mean += (bytes_per_s.ln() - self.mean) / self.count;
    }

    /// What it is taken to carry, registered with so much: a weighted geometric mean.
    pub fn bytes_per_s(&self, registered: f64) -> f64 {
        ((PRIOR * registered.ln() + self.count * self.mean) / (PRIOR + self.count)).exp()
    }

    /// 0 where nothing was measured, towards 1.
    pub fn confidence(&self) -> f64 {
        self.count / (PRIOR + self.count)
    }

    /// The reverse of the two above.
    pub fn known(bytes_per_s: f64, confidence: f64, registered: f64) -> Estimate {
        let count = PRIOR * confidence / (1.0 - confidence);
        if count <= 0.0 {
            return Estimate::default();
        }
        let mean = (bytes_per_s.ln() * (PRIOR + count) - PRIOR * registered.ln()) / count;
        Estimate { mean, count }
    }
}

/// What measured transfers say of every channel that some crossed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estimates(pub BTreeMap<ChannelId, Estimate>);

impl Estimates {
    /// Learns from a transfer. What was achieved, times the transfers that shared the way, is what its
    /// narrowest channel carried; wider ones are known to carry as much at least.
    pub fn learn(&mut self, cluster: &mut Cluster, from: VertexId, to: VertexId, measured: Measured) {
        let Measured { bytes, seconds, others } = measured;
        let mut way = Vec::new();
        let mut delay_s = 0.0;
        cluster.topology.visit_route(from, to, Direction::From, |channel, latency_s| {
            way.push(channel);
            delay_s += latency_s;
        });
        let narrowest = way
            .iter()
            .copied()
            .min_by(|&a, &b| cluster.channel_capacity(a).total_cmp(&cluster.channel_capacity(b)));
        let Some(narrowest) = narrowest.filter(|_| bytes >= LEAST_BYTES) else { return };
        // A transfer that took no longer than the delay says little: it is believed to half.
        let carrying_s = (seconds - delay_s).max(seconds / 2.0);
        let carried = (bytes / carrying_s * (others + 1.0)).clamp(1.0, 1e13);
        for channel in way {
            if channel == narrowest || cluster.channel_capacity(channel) < carried {
                self.0.entry(channel).or_default().add(carried);
                self.apply(cluster, channel);
            }
        }
    }

    /// Enters what is known of a channel.
    pub fn set(&mut self, cluster: &mut Cluster, channel: ChannelId, estimate: Estimate) {
        self.0.insert(channel, estimate);
        self.apply(cluster, channel);
    }

    /// What is known of those channels that a rebuilt cluster has too, by their numbers there.
    pub fn renumbered(self, cluster: &mut Cluster, channels: &BTreeMap<ChannelId, ChannelId>) -> Estimates {
        let mut estimates = Estimates::default();
        for (channel, estimate) in self.0 {
            if let Some(&channel) = channels.get(&channel) {
                estimates.set(cluster, channel, estimate);
            }
        }
        estimates
    }

    fn apply(&self, cluster: &mut Cluster, channel: ChannelId) {
        let registered = cluster.topology.channels()[channel as usize].capacity_bytes_per_s;
        cluster.set_channel_capacity(channel, self.0[&channel].bytes_per_s(registered));
    }
}

/// How a transfer went.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub bytes: f64,
    pub seconds: f64,
    /// Other transfers that shared its way.
    pub others: f64,
}

/// Transfers of placed tasks that are thought to be under way.
#[derive(Clone, Debug, Default)]
pub struct Flows(BTreeMap<(Time, TaskId), Vec<ChannelId>>);

impl Flows {
    /// A transfer begins, and is expected to end at `until`.
    pub fn begin(&mut self, cluster: &mut Cluster, until: Time, task: TaskId, way: Vec<ChannelId>) {
        for &channel in &way {
            cluster.add_channel_load(channel, 1);
        }
        self.0.entry((until, task)).or_default().extend(way);
    }

    /// Those that were to end by now have.
    pub fn pass(&mut self, cluster: &mut Cluster, now: Time) {
        while let Some(first) = self.0.first_entry().filter(|first| first.key().0 <= now) {
            Flows::end(cluster, first.remove());
        }
    }

    /// A task ended, whatever was expected.
    pub fn end_of(&mut self, cluster: &mut Cluster, task: TaskId) {
        let keys: Vec<_> = self.0.keys().filter(|(_, other)| *other == task).copied().collect();
        for way in keys.iter().filter_map(|key| self.0.remove(key)) {
            Flows::end(cluster, way);
        }
    }

    /// Those of tasks and channels that a rebuilt cluster has too, by their numbers there; the others end in the
    /// books of the one before.
    pub fn renumbered(
        self,
        before: &mut Cluster,
        tasks: &BTreeMap<TaskId, TaskId>,
        channels: &BTreeMap<ChannelId, ChannelId>,
    ) -> Flows {
        let mut flows = Flows::default();
        for ((until, task), way) in self.0 {
            match tasks.get(&task) {
                Some(&task) => {
                    let way = way.iter().filter_map(|channel| channels.get(channel).copied());
                    flows.0.entry((until, task)).or_default().extend(way);
                }
                None => Flows::end(before, way),
            }
        }
        flows
    }

    /// What crosses these channels is told from elsewhere now.
    pub fn forget(&mut self, channels: &[(ChannelId, u32)]) {
        for way in self.0.values_mut() {
            way.retain(|channel| !channels.iter().any(|(told, _)| told == channel));
        }
    }

    /// All of them are taken out of the cluster's books.
    pub fn clear(&mut self, cluster: &mut Cluster) {
        for way in std::mem::take(&mut self.0).into_values() {
            Flows::end(cluster, way);
        }
    }

    fn end(cluster: &mut Cluster, way: Vec<ChannelId>) {
        for channel in way {
            cluster.add_channel_load(channel, -1);
        }
    }
}

/// Channels of links that are in both: those between the same ends, shared or not, the first with the first.
pub fn same_channels(before: &Topology, after: &Topology) -> BTreeMap<ChannelId, ChannelId> {
    let known = links_by_ends(before);
    let mut channels = BTreeMap::new();
    for (ends, link) in links_by_ends(after) {
        if let Some(&same) = known.get(&ends) {
            channels.extend(before.link_channels(same).into_iter().zip(after.link_channels(link)));
        }
    }
    channels
}

/// Links by the names of their ends, whether both directions share them, and how many before them have the same.
fn links_by_ends(topology: &Topology) -> BTreeMap<(&str, &str, bool, usize), usize> {
    let mut known = BTreeMap::new();
    let mut alike = BTreeMap::new();
    for (index, link) in topology.links.iter().enumerate() {
        let (from, to) = (topology.vertex_name(link.from), topology.vertex_name(link.to));
        let before = alike.entry((from, to, link.shared)).or_insert(0);
        known.insert((from, to, link.shared, *before), index);
        *before += 1;
    }
    known
}

#[cfg(test)]
mod tests {
    use super::Estimate;

    #[test]
    fn measurements_outweigh_what_was_registered_in_time() {
        let mut estimate = Estimate::default();
        assert!((estimate.bytes_per_s(1e6) - 1e6).abs() < 1.0 && estimate.confidence() == 0.0);
        for _ in 0..4 {
            estimate.add(1e5);
        }
        // As many measurements as the prior is worth, nearly: half-way, as a logarithm.
        assert!((estimate.bytes_per_s(1e6).log10() - 5.5).abs() < 0.03, "{estimate:?}");
        for _ in 0..100 {
            estimate.add(1e5);
        }
        assert!((estimate.bytes_per_s(1e6).log10() - 5.2).abs() < 0.01, "{estimate:?}");
        assert!((estimate.confidence() - 0.8).abs() < 0.01);
    }

    #[test]
    fn what_is_exported_comes_back() {
        let mut estimate = Estimate::default();
        [1e5, 3e5, 2e5].into_iter().for_each(|seen| estimate.add(seen));
        let again = Estimate::known(estimate.bytes_per_s(1e6), estimate.confidence(), 1e6);
        assert!((again.mean - estimate.mean).abs() < 1e-9 && (again.count - estimate.count).abs() < 1e-9);
    }
}
