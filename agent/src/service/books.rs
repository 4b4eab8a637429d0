//! One registered cluster: its facts, and the decisions made about it.
//!
//! A decision is taken at its word, as schedulers do that assume and then bind: its task holds its
//! requests, and its image and inputs count as under way to the node, until the outcome is known.

mod changes;
mod kept;
pub(super) mod links;
mod outcomes;
mod placing;
mod rebuilding;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use remora_env::catalogue::Task;
use remora_env::cluster::{Item, TaskId};
use remora_env::observation::Reference;
use remora_env::topology::{Direction, NodeId};
use remora_env::{Arrivals, Cluster, Time};
use remora_proto::v1 as wire;

use super::convert::{self, Registration};
use super::messages::{Answer, Summary};
use super::names::Names;
use super::savings::Savings;
use super::serving::Regret;
use links::{Estimates, Flows};

pub(super) use kept::{Kept, Look};
pub(super) use placing::Chooser;

/// A decision and what is needed to end it.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    commitment: TaskId,
    node: NodeId,
    task: Arc<Task>,
    /// Versions of its inputs when it was made.
    versions: Vec<u32>,
    pub made: Option<Made>,
    /// What was reported of it, and when.
    pub outcome: Option<(Arc<wire::ReportOutcomeRequest>, Time)>,
    /// Who says that it was wrong, and why.
    pub disputed: Option<Arc<wire::Disputed>>,
    /// When it is taken as ended if nothing is reported.
    expires: Option<Time>,
    ended: bool,
}

/// How a decision was made here; others were reported with the cluster.
#[derive(Clone, Debug)]
pub struct Made {
    pub at: Time,
    pub request: Arc<wire::PlaceRequest>,
    pub answer: Arc<Answer>,
}

/// A cluster's facts and decisions.
#[derive(Debug)]
pub(super) struct Books {
    id: String,
    pub cluster: Cluster,
    pub reference: Reference,
    names: Names,
    decisions: BTreeMap<String, Decision>,
    /// Decision of each request that has an id.
    requests: BTreeMap<String, String>,
    /// Ended decisions, oldest first.
    ended: VecDeque<String>,
    /// Open decisions by when they expire.
    expiring: BTreeSet<(Time, String)>,
    estimates: Estimates,
    flows: Flows,
    /// Number of the last update of each source.
    sources: BTreeMap<String, i64>,
    /// When each node was heard of; after `stale_after_s` of silence it takes no tasks.
    heard: Vec<Time>,
    stale_after_s: Option<f64>,
    /// Nodes that are said to take no tasks, whatever else is heard.
    unavailable: BTreeSet<NodeId>,
    looked_at: Time,
    /// What arrived lately, for looking ahead; not known any more after a restart.
    arrivals: Arrivals,
    /// Number of the next task that somebody else placed.
    next_reported: TaskId,
    pub regret: Regret,
    /// How often the shadow was asked, how often it differs, and the ratios of expected costs, summed.
    pub shadow: Shadow,
    /// What decisions were expected to save.
    pub saved: Savings,
    decided: u64,
}

/// How a shadow compares with who decided.
#[derive(Clone, Debug, Default)]
pub(super) struct Shadow {
    pub policy: String,
    pub decided: String,
    pub decisions: u64,
    pub differ: u64,
    pub ratios: f64,
    pub examples: VecDeque<String>,
}

/// A cluster as it stood.
#[derive(Debug)]
pub struct Portrait {
    id: String,
    cluster: Cluster,
    reference: Reference,
    estimates: Estimates,
    /// Ids of the decisions that have not ended, by the number of their task.
    decisions: BTreeMap<TaskId, String>,
    stale_after_s: Option<f64>,
}

impl Portrait {
    /// The registration that makes it again.
    pub fn registration(&self) -> wire::RegisterClusterRequest {
        let mut request = convert::export(&self.id, &self.cluster, self.reference, &self.decisions);
        if let Some(cluster) = &mut request.cluster {
            cluster.stale_after_s = self.stale_after_s;
        }
        if let Some(facts) = &mut request.facts {
            facts.link_estimates = convert::link_estimates(&self.cluster.topology, &self.estimates);
        }
        request
    }
}

impl Books {
    pub fn new(registration: Registration) -> Books {
        let Registration { id, cluster, reference, names, placed, estimates, stale_after_s } = registration;
        let accepting = |node: &NodeId| cluster.nodes[*node as usize].accepting;
        let unavailable = (0..cluster.nodes.len() as NodeId).filter(|node| !accepting(node)).collect();
        let mut books = Books {
            id,
            reference,
            names,
            decisions: BTreeMap::new(),
            requests: BTreeMap::new(),
            ended: VecDeque::new(),
            expiring: BTreeSet::new(),
            estimates,
            flows: Flows::default(),
            sources: BTreeMap::new(),
            heard: vec![cluster.now; cluster.nodes.len()],
            stale_after_s,
            unavailable,
            looked_at: cluster.now,
            arrivals: Arrivals::default(),
            next_reported: convert::FIRST_REPORTED + (1 << 40),
            regret: Regret::default(),
            shadow: Shadow::default(),
            saved: Savings::default(),
            decided: 0,
            cluster,
        };
        for (decision_id, commitment, node) in placed {
            let decision = books.reported(commitment, node);
            books.decisions.insert(decision_id, decision);
        }
        books.pin_running();
        books
    }

    /// A decision made elsewhere, whose task is in the books.
    fn reported(&self, commitment: TaskId, node: NodeId) -> Decision {
        let task = self.committed(node, commitment).expect("a reported task is on its node");
        let versions = self.versions(&task);
        Decision {
            commitment,
            node,
            task,
            versions,
            made: None,
            outcome: None,
            disputed: None,
            expires: None,
            ended: false,
        }
    }

    fn pin_running(&mut self) {
        for node in 0..self.cluster.nodes.len() as NodeId {
            let running = self.cluster.nodes[node as usize].admitted();
            for task in running.map(|commitment| commitment.task.clone()).collect::<Vec<_>>() {
                self.pin(node, &task, true);
            }
        }
    }

    /// Everything that follows from the time alone.
    pub fn set_time(&mut self, now: Time) {
        self.cluster.now = self.cluster.now.max(now);
        let now = self.cluster.now;
        self.flows.pass(&mut self.cluster, now);
        self.look_for_silence();
    }

    /// Once a second, nodes of which nothing was heard for too long are taken out of use.
    fn look_for_silence(&mut self) {
        let now = self.cluster.now;
        let Some(stale_after_s) = self.stale_after_s.filter(|_| now.since_s(self.looked_at) >= 1.0) else {
            return;
        };
        self.looked_at = now;
        for node in 0..self.heard.len() {
            let fresh = now.since_s(self.heard[node]) < stale_after_s;
            let accepting = fresh && !self.unavailable.contains(&(node as NodeId));
            if self.cluster.nodes[node].accepting != accepting {
                self.cluster.set_accepting(node as NodeId, accepting);
            }
        }
    }

    /// Checks the cluster's books, in tests: a service in use has no time for it.
    pub fn check(&self) {
        if cfg!(debug_assertions) {
            self.cluster.check();
        }
    }

    pub fn summary(&self) -> Summary {
        let nodes = &self.cluster.nodes;
        let placed: usize = nodes.iter().map(|node| node.commitments.len()).sum();
        let queued = nodes.iter().map(|node| node.queued as usize).sum();
        Summary {
            id: self.id.clone(),
            nodes: nodes.len(),
            images: self.cluster.catalogue.images.len(),
            datasets: self.cluster.catalogue.datasets.len(),
            task_kinds: self.cluster.catalogue.kinds.len(),
            running: placed - queued,
            queued,
            decisions: self.decided,
            version: 0,
        }
    }

    /// The cluster as it stands, with all that follows from our own decisions, to be looked at.
    pub fn seen(&self) -> Portrait {
        self.portrait_of(self.cluster.clone())
    }

    /// The cluster as it stands, to be told elsewhere; transfers of our own decisions are left out.
    pub fn portrait(&self) -> Portrait {
        let mut cluster = self.cluster.clone();
        self.flows.clone().clear(&mut cluster);
        for node in 0..cluster.nodes.len() as NodeId {
            // Silence is not a fact of a registration.
            let accepting = !self.unavailable.contains(&node);
            if cluster.nodes[node as usize].accepting != accepting {
                cluster.set_accepting(node, accepting);
            }
        }
        self.portrait_of(cluster)
    }

    fn portrait_of(&self, cluster: Cluster) -> Portrait {
        Portrait {
            id: self.id.clone(),
            cluster,
            reference: self.reference,
            estimates: self.estimates.clone(),
            decisions: self.open_decisions(),
            stale_after_s: self.stale_after_s,
        }
    }

    /// Ids of the decisions that have not ended, by the number of their task.
    fn open_decisions(&self) -> BTreeMap<TaskId, String> {
        let open = self.decisions.iter().filter(|(_, decision)| !decision.ended);
        open.map(|(id, decision)| (decision.commitment, id.clone())).collect()
    }

    /// A decision that is remembered.
    pub fn decision(&self, id: &str) -> Option<&Decision> {
        self.decisions.get(id)
    }

    // What a task needs on its node.

    fn committed(&self, node: NodeId, commitment: TaskId) -> Option<Arc<Task>> {
        let commitments = &self.cluster.nodes[node as usize].commitments;
        commitments.iter().find(|other| other.id == commitment).map(|found| Arc::clone(&found.task))
    }

    fn versions(&self, task: &Task) -> Vec<u32> {
        task.inputs.iter().map(|&dataset| self.cluster.dataset_version(dataset)).collect()
    }

    fn pin(&mut self, node: NodeId, task: &Task, needed: bool) {
        for item in self.cluster.needs(task, node) {
            self.cluster.pin(node, item, needed);
        }
    }

    /// Tasks that waited were admitted.
    fn begin_all(&mut self, node: NodeId, admitted: Vec<TaskId>) {
        for id in admitted {
            let task = self.committed(node, id).expect("an admitted task is on its node");
            self.begin(node, id, &task);
        }
    }

    /// A task was admitted: what it lacks is under way from now on, its image as one transfer and each of its
    /// inputs as another.
    fn begin(&mut self, node: NodeId, id: TaskId, task: &Task) {
        let lacking = |item: &Item| !self.cluster.has_or_awaits(*item, node);
        let lacking: Vec<Item> = self.cluster.needs(task, node).into_iter().filter(lacking).collect();
        let (layers, datasets): (Vec<_>, Vec<_>) =
            lacking.into_iter().partition(|item| matches!(item, Item::Layer(_)));
        let mut transfers: Vec<Vec<Item>> = datasets.into_iter().map(|item| vec![item]).collect();
        transfers.push(layers);
        for items in transfers.into_iter().filter(|items| !items.is_empty()) {
            let source = match items[0] {
                Item::Layer(layer) => self.cluster.layer_source(layer, node),
                Item::Dataset(dataset) => self.cluster.dataset_source(dataset, node),
            };
            let mut total_s = 0.0;
            for &item in &items {
                self.cluster.store(node, item, false);
                total_s += self.cluster.arriving_s(item, node).unwrap_or(0.0);
            }
            for &item in &items {
                self.cluster.expect(node, item, total_s, total_s);
            }
            let mut way = Vec::new();
            if let Some(source) = source {
                self.cluster
                    .topology
                    .visit_route(source, node, Direction::From, |channel, _| way.push(channel));
            }
            let until = self.cluster.now.after_s(total_s);
            self.flows.begin(&mut self.cluster, until, id, way);
        }
        self.pin(node, task, true);
    }
}
