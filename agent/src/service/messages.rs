//! What is asked of the owner and what it answers, free of the wire.

use std::sync::Arc;
use std::time::Instant;

use remora_env::observation::Candidate;
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
}

/// Another choice for the same task.
#[derive(Clone, Debug)]
pub struct Other {
    pub policy: Arc<str>,
    pub node: NodeId,
    /// Expected, with the same estimates.
    pub cost: f64,
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
}
