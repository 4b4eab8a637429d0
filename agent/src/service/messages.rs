//! What is asked of the owner and what it answers, free of the wire.

use std::sync::Arc;
use std::time::Instant;

use remora_env::observation::{Candidate, Observation};
use remora_env::topology::{NodeId, Topology};

use super::names::NamedTask;
use super::serving::Why;

/// A request for a place.
#[derive(Clone, Debug)]
pub struct Order {
    pub cluster_id: String,
    pub task: NamedTask,
    pub alpha: Option<f64>,
    pub dry_run: bool,
    pub request_id: Option<String>,
    pub max_candidates: usize,
    /// Names of the nodes to choose among; all where there are none.
    pub among: Vec<String>,
    /// When whoever asks has no more use for the answer.
    pub deadline: Option<Instant>,
}

/// A candidate with what the policy says of it.
#[derive(Clone, Copy, Debug)]
pub struct Ranked {
    pub candidate: Candidate,
    pub score: f64,
}

impl Ranked {
    /// Bytes over the network that the task is expected to cause there.
    pub fn bytes(&self) -> u64 {
        transfer_bytes(&self.candidate)
    }
}

/// Bytes over the network that a task is expected to cause; those on their way already do not count.
pub fn transfer_bytes(candidate: &Candidate) -> u64 {
    let Candidate { missing_image_bytes, arriving_image_bytes, missing_input_bytes, output_bytes, .. } =
        candidate;
    missing_image_bytes - arriving_image_bytes + missing_input_bytes + output_bytes
}

/// What a request for a place is answered with.
#[derive(Clone, Debug)]
pub struct Answer {
    pub topology: Arc<Topology>,
    /// Empty for a dry run.
    pub decision_id: String,
    pub policy: Arc<str>,
    /// Why the fallback heuristic chose; nothing where it did not.
    pub fallback: Option<Why>,
    pub alpha: f64,
    pub feasible: usize,
    pub chosen: Ranked,
    /// Expected cost of what was chosen.
    pub cost: f64,
    /// Best first.
    pub candidates: Vec<Ranked>,
    /// What others would have chosen.
    pub advised: Option<Other>,
    pub shadow: Option<Other>,
    pub heuristic: Option<Other>,
    pub kube_default: Option<Other>,
}

/// Another choice for the same task.
#[derive(Clone, Debug)]
pub struct Other {
    pub policy: Arc<str>,
    pub node: NodeId,
    /// Expected, with the same estimates: cost, bytes over the network, seconds to completion.
    pub cost: f64,
    pub bytes: u64,
    pub response_s: f64,
}

impl Other {
    /// Somebody's choice of a candidate.
    pub fn new(policy: Arc<str>, observation: &Observation<'_>, candidate: &Candidate) -> Other {
        Other {
            policy,
            node: candidate.node,
            cost: observation.cost(candidate),
            bytes: transfer_bytes(candidate),
            response_s: candidate.completion_s(),
        }
    }
}

/// Somebody says that a decision was wrong, or takes it back.
#[derive(Clone, Debug)]
pub struct Dispute {
    pub cluster_id: String,
    pub decision_id: String,
    pub reason: String,
    pub withdraw: bool,
}

/// What became of a decision.
#[derive(Clone, Debug)]
pub struct Report {
    pub cluster_id: String,
    pub decision_id: String,
    pub failed: bool,
    pub response_s: Option<f64>,
    pub transfer_bytes: Option<u64>,
    pub transfers: Vec<Transfer>,
}

/// A transfer as it was measured, between two ends by name.
#[derive(Clone, Debug)]
pub struct Transfer {
    pub from: String,
    pub to: String,
    pub bytes: f64,
    pub seconds: f64,
    /// Other transfers that shared the way.
    pub others: f64,
}

/// Counts that describe a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub id: String,
    pub nodes: usize,
    pub images: usize,
    pub datasets: usize,
    pub task_kinds: usize,
    pub running: usize,
    pub queued: usize,
    pub decisions: u64,
    /// Of the cluster; 0 where that is told otherwise.
    pub version: u64,
}
