//! One registered cluster: its facts, and the decisions made about it.
//!
//! A decision is taken at its word, as schedulers do that assume and then bind: its task holds its
//! requests, and its image and inputs count as under way to the node, until the outcome is known.

mod outcomes;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use remora_env::catalogue::Task;
use remora_env::cluster::TaskId;
use remora_env::observation::{Candidate, Observation, Reference};
use remora_env::topology::NodeId;
use remora_env::{Cluster, Time};
use remora_policies::{Policy, choose};

use super::convert::{DEFAULT_CANDIDATES, Field, MAX_PLACED, Registration};
use super::messages::{Answer, Order, Ranked, Summary};
use super::names::Names;
use super::refusal::Refusal;
use super::why;

/// Who decides, with which dial unless told otherwise, under which numbers.
pub(super) struct Chooser {
    pub policy: Box<dyn Policy>,
    pub alpha: f64,
    /// Begins the ids of all decisions of this run of the service; no other run has it.
    pub run: String,
    /// Number of the next decision.
    pub next: u64,
}

#[derive(Debug)]
struct Decision {
    commitment: TaskId,
    node: NodeId,
    task: Arc<Task>,
    /// Versions of its inputs when it was made.
    versions: Vec<u32>,
    request_id: Option<String>,
    /// None if it was made elsewhere and reported with the cluster.
    answer: Option<Arc<Answer>>,
    ended: bool,
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
    decided: u64,
}

impl Books {
    pub fn new(registration: Registration) -> Books {
        let Registration { id, cluster, reference, names, placed } = registration;
        let (decisions, requests, ended) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        let mut books = Books { id, cluster, reference, names, decisions, requests, ended, decided: 0 };
        for (decision_id, commitment, node) in placed {
            let task = books.committed(node, commitment).expect("a reported task is on its node");
            let versions = books.versions(&task);
            let decision =
                Decision { commitment, node, task, versions, request_id: None, answer: None, ended: false };
            books.decisions.insert(decision_id, decision);
        }
        for node in 0..books.cluster.nodes.len() as NodeId {
            let running = books.cluster.nodes[node as usize].commitments.iter().filter(|c| c.admitted);
            for task in running.map(|commitment| commitment.task.clone()).collect::<Vec<_>>() {
                books.pin(node, &task, true);
            }
        }
        books
    }

    pub fn set_time(&mut self, now: Time) {
        self.cluster.now = self.cluster.now.max(now);
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
        }
    }

    /// Ids of the decisions that have not ended, by the number of their task.
    pub fn open_decisions(&self) -> BTreeMap<TaskId, String> {
        let open = self.decisions.iter().filter(|(_, decision)| !decision.ended);
        open.map(|(id, decision)| (decision.commitment, id.clone())).collect()
    }

    // Placing.

    pub fn place(&mut self, order: &Order, chooser: &mut Chooser) -> Result<Arc<Answer>, Refusal> {
        let task = self.names.task(Field::root("task"), &order.task)?;
        if order.dry_run {
            return self.decide(order, &task, chooser).map(Arc::new);
        }
        if let Some(answer) = self.repeated(order, &task)? {
            return Ok(answer);
        }
        self.cluster.note_arrival(&task);
        let mut answer = self.decide(order, &task, chooser)?;
        let node = answer.chosen.candidate.node;
        if self.cluster.nodes[node as usize].commitments.len() >= MAX_PLACED {
            let name = &self.cluster.topology.nodes[node as usize].name;
            return Err(Refusal::Full(format!(
                "node {name:?} has {MAX_PLACED} tasks; report the outcomes of those that ended"
            )));
        }
        answer.decision_id = format!("{}-{}", chooser.run, chooser.next);
        let answer = Arc::new(answer);
        self.commit(order, task, chooser.next, &answer);
        chooser.next += 1;
        Ok(answer)
    }

    /// The answer that a request of this id got before.
    fn repeated(&self, order: &Order, task: &Task) -> Result<Option<Arc<Answer>>, Refusal> {
        let Some(request_id) = &order.request_id else { return Ok(None) };
        let Some(decision) = self.requests.get(request_id).and_then(|id| self.decisions.get(id)) else {
            return Ok(None);
        };
        if *decision.task != *task {
            let problem = format_args!("{request_id:?} was the id of a request for another task");
            return Err(Field::root("request_id").refuse(problem).into());
        }
        Ok(decision.answer.clone())
    }

    fn decide(&self, order: &Order, task: &Task, chooser: &mut Chooser) -> Result<Answer, Refusal> {
        let alpha = order.alpha.unwrap_or(chooser.alpha);
        let observation = Observation::new(&self.cluster, task, chooser.next, alpha, self.reference)
            .ok_or_else(|| Refusal::Nowhere(why::nowhere(&self.cluster, task)))?;
        let choice = choose(&mut *chooser.policy, &observation);
        let ranked = |&index: &usize| Ranked {
            candidate: observation.candidates()[index],
            score: choice.scores[index],
        };
        Ok(Answer {
            topology: Arc::clone(&self.cluster.topology),
            decision_id: String::new(),
            policy: chooser.policy.name().to_owned(),
            alpha,
            feasible: observation.count(),
            chosen: ranked(&choice.index),
            candidates: best_first(&choice.scores, order.max_candidates).iter().map(ranked).collect(),
        })
    }

    fn commit(&mut self, order: &Order, task: Task, commitment: TaskId, answer: &Arc<Answer>) {
        let Candidate { node, .. } = answer.chosen.candidate;
        let task = Arc::new(task);
        let expected = answer.chosen.candidate.expected();
        if self.cluster.place(commitment, Arc::clone(&task), node, expected) {
            self.begin(node, &task);
        }
        if let Some(request_id) = &order.request_id {
            self.requests.insert(request_id.clone(), answer.decision_id.clone());
        }
        let mut kept = Arc::clone(answer);
        if kept.candidates.len() > DEFAULT_CANDIDATES {
            Arc::make_mut(&mut kept).candidates.truncate(DEFAULT_CANDIDATES);
        }
        let decision = Decision {
            commitment,
            node,
            versions: self.versions(&task),
            task,
            request_id: order.request_id.clone(),
            answer: Some(kept),
            ended: false,
        };
        self.decisions.insert(answer.decision_id.clone(), decision);
        self.decided += 1;
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

    /// A task was admitted: what it lacks is under way from now on.
    fn begin(&mut self, node: NodeId, task: &Task) {
        for item in self.cluster.needs(task, node) {
            if !self.cluster.has_item(item, node) {
                self.cluster.store(node, item, false);
            }
        }
        self.pin(node, task, true);
    }
}

/// Indices of the `count` highest scores, highest first, the first of equals first.
fn best_first(scores: &[f64], count: usize) -> Vec<usize> {
    // A score that is no number ranks last, as it does for the choice.
    let key = |index: usize| if scores[index].is_nan() { f64::NEG_INFINITY } else { scores[index] };
    let order = |&a: &usize, &b: &usize| key(b).total_cmp(&key(a)).then(a.cmp(&b));
    let mut indices: Vec<_> = (0..scores.len()).collect();
    if count < indices.len() {
        indices.select_nth_unstable_by(count, order);
        indices.truncate(count);
    }
    indices.sort_unstable_by(order);
    indices
}

#[cfg(test)]
mod tests {
    use super::best_first;

    #[test]
    fn best_scores_come_first_and_equals_in_order() {
        let scores = [1.0, 3.0, f64::NAN, 3.0, f64::NEG_INFINITY, 2.0];
        assert_eq!(best_first(&scores, 3), [1, 3, 5]);
        assert_eq!(best_first(&scores, 9), [1, 3, 5, 0, 2, 4]);
        assert!(best_first(&scores, 0).is_empty());
    }
}
