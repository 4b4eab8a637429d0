//! What became of a task: facts only.

use serde::{Deserialize, Serialize};

use crate::cluster::TaskId;
use crate::time::Time;
use crate::topology::NodeId;

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Its outputs were stored.
    Completed,
    /// No node of the cluster can run it.
    Unplaceable,
    /// Every queue was full when it arrived.
    TurnedAway,
    /// It was lost, with its node or a transfer, more often than it may be tried again.
    GivenUp,
    /// A task that it follows did not complete.
    Orphaned,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            End::Completed => "completed",
            End::Unplaceable => "unplaceable",
            End::TurnedAway => "turned away",
            End::GivenUp => "given up",
            End::Orphaned => "orphaned",
        })
    }
}

impl End {
    /// All ways to end, in the order of reports.
    pub const ALL: [End; 5] =
        [End::Completed, End::Unplaceable, End::TurnedAway, End::GivenUp, End::Orphaned];
}

/// The life of one task, from arrival to result. Phases that did not happen have no length; those of
/// a task that was tried again are of its last try, and bytes, energy and dollars are of all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub task: TaskId,
    pub end: End,
    /// Where it ran, or waited, last; `None` if it never was on a node.
    pub node: Option<NodeId>,
    pub arrived: Time,
    /// Its requests were set aside.
    pub admitted: Time,
    /// Image and inputs were on the node.
    pub fetched: Time,
    /// Its container ran.
    pub started: Time,
    /// It had computed its result.
    pub executed: Time,
    /// Its outputs were stored and its requests given back; or it ended otherwise.
    pub completed: Time,
    pub image_bytes: u64,
    pub input_bytes: u64,
    pub output_bytes: u64,
    /// Bytes times the price of the dearest link they crossed.
    pub moved_bytes: f64,
    /// Bytes that left a site.
    pub wan_bytes: u64,
    /// What its execution added to the node's idle draw, joules.
    pub energy_j: f64,
    /// Memory held while executing and bytes over links that cost, dollars.
    pub usd: f64,
    /// How often it was lost and tried again.
    pub retries: u32,
    pub deadline_missed: bool,
}

impl Outcome {
    /// An arrival that nothing has happened to yet.
    pub fn arrived(task: TaskId, now: Time) -> Outcome {
        Outcome {
            task,
            end: End::Completed,
            node: None,
            arrived: now,
            admitted: now,
            fetched: now,
            started: now,
            executed: now,
            completed: now,
            image_bytes: 0,
            input_bytes: 0,
            output_bytes: 0,
            moved_bytes: 0.0,
            wan_bytes: 0,
            energy_j: 0.0,
            usd: 0.0,
            retries: 0,
            deadline_missed: false,
        }
    }

    /// Whether it came to its result.
    pub fn is_completed(&self) -> bool {
        self.end == End::Completed
    }

    /// Completion minus arrival, seconds.
    pub fn response_s(&self) -> f64 {
        self.completed.since_s(self.arrived)
    }

    /// Begins another try at `now`: the phases of the last one are forgotten.
    pub(crate) fn try_again(&mut self, now: Time) {
        self.retries += 1;
        for phase in [&mut self.admitted, &mut self.fetched, &mut self.started, &mut self.executed] {
            *phase = now;
        }
    }
}

/// What happened between two decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Elapsed {
    pub seconds: f64,
    /// Integral over time of the number of tasks that have arrived and not ended, in seconds; summed
    /// over an episode it is the sum of all response times.
    pub task_seconds: f64,
    /// Price-weighted bytes of the transfers that began.
    pub moved_bytes: f64,
}
