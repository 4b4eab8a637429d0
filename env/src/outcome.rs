//! What became of a task: facts only.

use serde::{Deserialize, Serialize};

use crate::cluster::TaskId;
use crate::time::Time;
use crate::topology::NodeId;

/// The life of one task, from arrival to result. Phases that did not happen have no length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub task: TaskId,
    /// `None`: no node of the cluster can run it.
    pub node: Option<NodeId>,
    pub arrived: Time,
    /// Its requests were set aside.
    pub admitted: Time,
    /// Image and inputs were on the node.
    pub fetched: Time,
    /// Its container ran.
    pub started: Time,
    pub executed: Time,
    /// Its output was stored; its requests were given back.
    pub completed: Time,
    pub image_bytes: u64,
    pub input_bytes: u64,
    pub output_bytes: u64,
    /// Bytes times the price of the dearest link they crossed.
    pub moved_bytes: f64,
    /// Bytes that left a site.
    pub wan_bytes: u64,
    pub deadline_missed: bool,
}

impl Outcome {
    /// An arrival that nothing has happened to yet.
    pub fn arrived(task: TaskId, now: Time) -> Outcome {
        Outcome {
            task,
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
            deadline_missed: false,
        }
    }

    pub fn is_placed(&self) -> bool {
        self.node.is_some()
    }

    /// Completion minus arrival, seconds.
    pub fn response_s(&self) -> f64 {
        self.completed.since_s(self.arrived)
    }
}

/// What happened between two decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Elapsed {
    pub seconds: f64,
    /// Integral over time of the number of placed tasks that are not finished, in seconds; summed
    /// over an episode it is the sum of all response times.
    pub task_seconds: f64,
    /// Price-weighted bytes of the transfers that began.
    pub moved_bytes: f64,
}
