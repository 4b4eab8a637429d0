//! Delay scheduling, as Spark does it.

use remora_env::Observation;
use remora_env::observation::Candidate;

use crate::Policy;

/// Waits for a slot where the data is before it takes one farther away.
///
/// Spark offers a job's tasks to nodes that hold their data, after `wait_s` without a launch there to
/// those of the same rack (here: the same site), after as long again to any. Every launch at a level
/// restarts its clock, so that tasks shorter than the wait queue behind a single hot node for ever
/// (SPARK-18886). Here a task is placed once: it joins the queue of a node at the first level where the
/// next slot is expected to be free within the wait, and of equals goes where that is soonest.
///
/// Source: Zaharia et al., *Delay scheduling*, EuroSys 2010; Spark's `spark.locality.wait`, 3 s for each
/// level.
#[derive(Debug)]
pub struct DelayScheduling {
    /// Per level, seconds.
    pub wait_s: f64,
}

impl Default for DelayScheduling {
    fn default() -> DelayScheduling {
        DelayScheduling { wait_s: 3.0 }
    }
}

/// How far data is from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Node,
    Site,
    Any,
}

impl DelayScheduling {
    fn level(observation: &Observation<'_>, candidate: &Candidate) -> Level {
        let cluster = observation.cluster;
        let site = cluster.topology.site(candidate.node);
        let in_site = |&input: &u32| cluster.holders(input).iter().any(|holder| site.contains(holder));
        if candidate.missing_input_bytes == 0 {
            Level::Node
        } else if observation.task.inputs.iter().all(in_site) {
            Level::Site
        } else {
            Level::Any
        }
    }

    /// Seconds until the next task ends on the node: when its next slot is free, whoever gets it.
    fn next_slot_s(observation: &Observation<'_>, candidate: &Candidate) -> f64 {
        if candidate.fits_now {
            return 0.0;
        }
        let state = &observation.cluster.nodes[candidate.node as usize];
        let now = observation.cluster.now;
        let next = state.admitted().map(|running| running.expected_end_from(now)).min();
        next.map_or(0.0, |end| end.since_s(now))
    }
}

impl Policy for DelayScheduling {
    fn name(&self) -> &str {
        "delay-scheduling"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        let candidates = observation.candidates();
        let levels: Vec<Level> = candidates.iter().map(|c| DelayScheduling::level(observation, c)).collect();
        let of = |level: Level| candidates.iter().zip(&levels).filter(move |(_, of)| **of <= level);
        let soonest =
            |level| of(level).map(|(c, _)| DelayScheduling::next_slot_s(observation, c)).reduce(f64::min);
        let allowed = [(Level::Node, self.wait_s), (Level::Site, 2.0 * self.wait_s)]
            .into_iter()
            .find(|(level, wait_s)| soonest(*level).is_some_and(|slot_s| slot_s <= *wait_s))
            .map_or(Level::Any, |(level, _)| level);
        scores.extend(
            candidates.iter().zip(&levels).map(|(candidate, level)| {
                if *level <= allowed { -candidate.wait_s } else { f64::NEG_INFINITY }
            }),
        );
    }
}
