//! What is asked of the owner and what it answers, free of the wire.

use std::sync::Arc;

use remora_env::observation::Candidate;
use remora_env::topology::Topology;

use super::names::NamedTask;

/// A request for a place.
#[derive(Clone, Debug)]
pub struct Order {
    pub cluster_id: String,
    pub task: NamedTask,
    pub alpha: Option<f64>,
    pub dry_run: bool,
    pub request_id: Option<String>,
    pub max_candidates: usize,
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
    pub policy: String,
    pub alpha: f64,
    pub feasible: usize,
    pub chosen: Ranked,
    /// Best first.
    pub candidates: Vec<Ranked>,
}

/// What became of a decision.
#[derive(Clone, Debug)]
pub struct Report {
    pub cluster_id: String,
    pub decision_id: String,
    pub failed: bool,
    pub response_s: Option<f64>,
    pub transfer_bytes: Option<u64>,
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
