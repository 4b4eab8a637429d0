//! Network-aware placement from what links carry.

use remora_env::observation::Candidate;
use remora_env::topology::{ChannelId, Direction, NodeId, VertexId};
use remora_env::{Observation, Time};

use crate::Policy;

/// Places where waiting, transfers over the bandwidth *left*, and computing end soonest.
///
/// Firebird (He and Shenoy, *Firebird: Network-aware Task Scheduling for Spark Using SDNs*, ICCCN 2016)
/// reads port counters of switches and schedules tasks adaptively, without Spark's fixed waits. **Its
/// exact rule is not public**; this is the published idea as its close relative BASS (Qin et al., arXiv
/// 1403.2800) states it: `finish = wait + bytes / bandwidth left on the path + compute`, with
///
/// - bandwidth left: capacity less the load, polled every `poll_s` and smoothed (EWMA); a link's load is
///   taken from how many transfers cross it, since that is what is known of it here;
/// - own transfers booked on their links until their estimated end, so that placements between two polls
///   see each other;
/// - the wait for a slot near the data weighed like any other time, in place of Spark's 3 s a level.
///
/// It does not know of contention for CPU, of what a byte costs, or of layers on their way.
#[derive(Debug)]
pub struct FirebirdLike {
    /// Seconds between two polls of the counters.
    poll_s: f64,
    /// Weight of a new poll.
    smoothing: f64,
    polled: Option<Time>,
    /// Smoothed bandwidth left on each channel, bytes per second.
    left: Vec<f64>,
    /// Transfers booked, until when.
    booked: Vec<(ChannelId, Time)>,
    /// How many of them are on each channel.
    bookings: Vec<u32>,
}

impl Default for FirebirdLike {
    fn default() -> FirebirdLike {
        FirebirdLike {
            poll_s: 1.0,
            smoothing: 0.5,
            polled: None,
            left: Vec::new(),
            booked: Vec::new(),
            bookings: Vec::new(),
        }
    }
}

impl FirebirdLike {
    fn poll(&mut self, observation: &Observation<'_>) {
        let cluster = observation.cluster;
        let channels = cluster.topology.channels().len();
        self.bookings.resize(channels, 0);
        self.booked.retain(|(channel, until)| {
            let current = *until > cluster.now;
            self.bookings[*channel as usize] -= u32::from(!current);
            current
        });
        let due = self.polled.is_none_or(|polled| cluster.now.since_s(polled) >= self.poll_s);
        if !due {
            return;
        }
        let shares = (0..channels as ChannelId).map(|channel| cluster.channel_share(channel));
        if self.left.len() == channels {
            for (left, share) in self.left.iter_mut().zip(shares) {
                *left += self.smoothing * (share - *left);
            }
        } else {
            self.left = shares.collect();
        }
        self.polled = Some(cluster.now);
    }

    /// Seconds for `bytes` between `root` and a node.
    fn transfer_s(&self, observation: &Observation<'_>, way: Way) -> f64 {
        let topology = &observation.cluster.topology;
        let share =
            |channel: ChannelId| self.left[channel as usize] / f64::from(1 + self.bookings[channel as usize]);
        let path = topology.path_with(way.root, way.node, way.direction, share);
        path.map_or(0.0, |path| way.bytes / path.bytes_per_s)
    }

    fn finish_s(&self, observation: &Observation<'_>, c: &Candidate) -> f64 {
        let transfers: f64 = ways(observation, c).map(|way| self.transfer_s(observation, way)).sum();
        c.wait_s + transfers + c.start_s + c.alone_s
    }

    fn book(&mut self, observation: &Observation<'_>, c: &Candidate) {
        let now = observation.cluster.now;
        let begun_s = c.wait_s;
        let ways: Vec<Way> = ways(observation, c).filter(|way| way.bytes > 0.0).collect();
        for way in ways {
            let until = now.after_s(begun_s + self.transfer_s(observation, way));
            let topology = &observation.cluster.topology;
            topology.visit_route(way.root, way.node, way.direction, |channel, _| {
                self.booked.push((channel, until));
                self.bookings[channel as usize] += 1;
            });
        }
    }
}

/// Bytes to carry between a node and a place.
#[derive(Clone, Copy, Debug)]
struct Way {
    root: VertexId,
    node: NodeId,
    direction: Direction,
    bytes: f64,
}

/// What a task moves if it runs on a candidate.
fn ways<'a>(observation: &'a Observation<'_>, c: &'a Candidate) -> impl Iterator<Item = Way> + 'a {
    let (cluster, task, node) = (observation.cluster, observation.task, c.node);
    let bytes = |dataset: u32| cluster.catalogue.datasets[dataset as usize].bytes as f64;
    let image = cluster.topology.registry_of(node).filter(|_| c.missing_image_bytes > 0);
    let image = image.map(move |root| (root, Direction::From, c.missing_image_bytes as f64));
    let missing = task.inputs.iter().filter(move |&&input| !cluster.has_dataset(input, node));
    let inputs = missing.filter_map(move |&input| {
        cluster.dataset_source(input, node).map(|root| (root, Direction::From, bytes(input)))
    });
    let outputs = task.outputs.iter().filter_map(move |&output| {
        let home = cluster.catalogue.datasets[output as usize].homes.first();
        home.map(|&root| (root, Direction::To, bytes(output)))
    });
    let all = image.into_iter().chain(inputs).chain(outputs);
    all.map(move |(root, direction, bytes)| Way { root, node, direction, bytes })
}

impl Policy for FirebirdLike {
    fn name(&self) -> &str {
        "firebird-like"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        self.poll(observation);
        let candidates = observation.candidates();
        scores.extend(candidates.iter().map(|candidate| -self.finish_s(observation, candidate)));
        let chosen = crate::argmax(scores);
        self.book(observation, &candidates[chosen]);
    }
}
