//! What goes wrong in a world: random processes whose course no decision can shift, so that policies
//! are compared on equal trouble.

use std::sync::Arc;

use crate::bandwidth::Recording;
use crate::random::{Purpose, unit};
use crate::time::Time;
use crate::topology::NodeId;

/// What goes wrong, and what is done about it.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub processes: Vec<Process>,
    pub stragglers: Option<Stragglers>,
    /// Transfers over a link that goes down are lost; otherwise they wait.
    pub transfers_fail: bool,
    /// Time between two reports of the cluster's state; `None`: policies see the present.
    pub telemetry: Option<Time>,
    /// How often a task is tried again.
    pub retries: u32,
    /// Time before it is.
    pub backoff: Time,
}

/// A share of executions takes longer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stragglers {
    pub share: f64,
    pub slowdown: f64,
}

/// Something that changes the cluster at times of its own.
#[derive(Clone, Debug)]
pub enum Process {
    /// A node is there and away in turn, for exponentially distributed times with these means.
    Churn { node: NodeId, present_s: f64, away_s: f64 },
    /// A link is whole and degraded to a share of its capacity in turn.
    Degradation { link: u32, whole_s: f64, degraded_s: f64, capacity: f64 },
    /// A link's capacity follows a recording from the point `start` on.
    Playback { link: u32, recording: Arc<Recording>, start: usize },
}

/// What a process does at one of its times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    Goes(NodeId),
    Returns(NodeId),
    /// Of its capacity the link has this share; degradations and recordings multiply.
    Degraded(u32, f64),
    Played(u32, f64),
}

impl Process {
    /// Whether its course is recorded rather than drawn.
    pub fn is_recorded(&self) -> bool {
        matches!(self, Process::Playback { .. })
    }

    /// Seconds until its change number `step`, counted from the one before (from the beginning for
    /// number 0), and the change. `index` tells the processes of a world apart.
    pub fn change(&self, seed: u64, index: usize, step: u32) -> (f64, Change) {
        let exponential =
            |mean_s: f64| -mean_s * unit(seed, Purpose::Faults, index as u64, u64::from(step)).ln();
        let undisturbed = step.is_multiple_of(2);
        match self {
            Process::Churn { node, present_s, .. } if undisturbed => {
                (exponential(*present_s), Change::Goes(*node))
            }
            Process::Churn { node, away_s, .. } => (exponential(*away_s), Change::Returns(*node)),
            Process::Degradation { link, whole_s, capacity, .. } if undisturbed => {
                (exponential(*whole_s), Change::Degraded(*link, *capacity))
            }
            Process::Degradation { link, degraded_s, .. } => {
                (exponential(*degraded_s), Change::Degraded(*link, 1.0))
            }
            Process::Playback { link, recording, start } => {
                let count = recording.points.len();
                let point = (start + step as usize) % count;
                let wait_s = if step == 0 { 0.0 } else { recording.duration_s((point + count - 1) % count) };
                (wait_s, Change::Played(*link, recording.points[point].1))
            }
        }
    }
}

impl Stragglers {
    /// By how much a try of a task takes longer: 1 for most.
    pub fn slowdown(&self, seed: u64, task: u32, attempt: u32) -> f64 {
        let draw = unit(seed, Purpose::Stragglers, u64::from(task), u64::from(attempt));
        if draw < self.share { self.slowdown } else { 1.0 }
    }
}
