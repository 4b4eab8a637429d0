//! Schedulers of task graphs, as policies that see one task at a time.
//!
//! They were made for a graph known in advance, where the order of its tasks is theirs to choose: that
//! is [`crate::graph`]. Here tasks arrive when those before them have ended, so that what is left of
//! each algorithm is its choice of a node.

use remora_env::Observation;
use remora_env::observation::Candidate;
use remora_env::topology::Direction;

use crate::Policy;

/// HEFT's choice: the earliest finish time over idle links, nodes being busy with what they have.
///
/// Source: Topcuoglu, Hariri, Wu, *Performance-effective and low-complexity task scheduling for
/// heterogeneous computing*, IEEE TPDS 13(3), 2002. Its insertion into gaps needs a schedule fixed in
/// advance and is left out; see [`crate::graph::heft`].
#[derive(Debug)]
pub struct Heft;

impl Policy for Heft {
    fn name(&self) -> &str {
        "heft"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        let finish_s = |c: &Candidate| {
            let pull_s = observation.nominal_pull_s(c.node, c.missing_image_bytes);
            let (read_s, store_s) = observation.nominal_data_s(c.node);
            c.wait_s + (pull_s + read_s).max(0.0) + c.start_s + c.alone_s + store_s
        };
        scores.extend(observation.candidates().iter().map(|candidate| -finish_s(candidate)));
    }
}

/// The better of two plans of the data-volume-aware scheduling: the list's, which starts a task where
/// slot and data are there first, or staying on the node where its inputs are, which moves nothing of
/// them. For one task at a time the second is one of the places that the first compares.
///
/// Source: Guo, Li, Yan, Zhang, Wang, *Data Volume-aware Computation Task Scheduling for Smart Grid Data
/// Analytic Applications*, arXiv 2301.11831, with `q = data / bandwidth` as its only measure of the
/// network. Transfers over a link go one after the other there: a new one waits for those under way,
/// taken to be as long as itself.
#[derive(Debug)]
pub struct MinListOneNode;

impl MinListOneNode {
    /// Seconds for what the task reads and writes, each transfer after those on the busiest link of its
    /// way.
    fn transfers_s(observation: &Observation<'_>, c: &Candidate) -> f64 {
        let (read_s, store_s) = observation.nominal_data_s(c.node);
        let pull_s = observation.nominal_pull_s(c.node, c.missing_image_bytes);
        let root = observation.cluster.topology.registry_of(c.node);
        let mut before = 0;
        if let Some(root) = root {
            observation.cluster.topology.visit_route(root, c.node, Direction::From, |channel, _| {
                before = before.max(observation.cluster.channel_load(channel));
            });
        }
        (pull_s + read_s) * f64::from(1 + before) + store_s
    }
}

impl Policy for MinListOneNode {
    fn name(&self) -> &str {
        "min-list-one-node"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        // A task starts when its slot and its data are there.
        let finish_s =
            |c: &Candidate| c.wait_s.max(MinListOneNode::transfers_s(observation, c)) + c.start_s + c.alone_s;
        scores.extend(observation.candidates().iter().map(|candidate| -finish_s(candidate)));
    }
}
