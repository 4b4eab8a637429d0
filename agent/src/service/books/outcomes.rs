//! What becomes of decisions.

use remora_env::catalogue::{DatasetId, Task};
use remora_env::cluster::Item;
use remora_env::topology::NodeId;

use super::Books;
use crate::service::convert::Field;
use crate::service::messages::Report;
use crate::service::refusal::Refusal;

/// How many ended decisions are remembered.
const MAX_ENDED: usize = 10_000;

impl Books {
    /// Ends a decision; true if it had ended before.
    pub fn report(&mut self, report: &Report) -> Result<bool, Refusal> {
        let Some(decision) = self.decisions.get_mut(&report.decision_id) else {
            let problem =
                format_args!("no decision {:?} is known of cluster {:?}", report.decision_id, self.id);
            return Err(Refusal::UnknownDecision(Field::root("decision_id").refuse(problem)));
        };
        if decision.ended {
            return Ok(true);
        }
        decision.ended = true;
        let (node, commitment, task) = (decision.node, decision.commitment, decision.task.clone());
        let versions = decision.versions.clone();
        let commitments = &self.cluster.nodes[node as usize].commitments;
        if commitments.iter().any(|other| other.id == commitment && other.admitted) {
            self.pin(node, &task, false);
        }
        let admitted =
            self.cluster.release(commitment, node).expect("a decision that has not ended is committed");
        if report.failed {
            self.forget_arriving(node, &task);
        } else {
            self.completed(node, &task, &versions);
        }
        // Those that waited for its place.
        for next in admitted {
            let task = self.committed(node, next).expect("an admitted task is on its node");
            self.begin(node, &task);
        }
        self.remember_ended(report.decision_id.clone());
        Ok(false)
    }

    /// Its image is on the node, its inputs too unless they were renewed since, and so are its
    /// outputs, the only versions of them from now on besides those at their homes.
    fn completed(&mut self, node: NodeId, task: &Task, versions: &[u32]) {
        let current = |dataset: &DatasetId| {
            let read = task.inputs.iter().position(|input| input == dataset).map(|index| versions[index]);
            read == Some(self.cluster.dataset_version(*dataset))
        };
        let (fresh, stale): (Vec<_>, Vec<_>) =
            self.cluster.needs(task, node).into_iter().partition(|item| match item {
                Item::Layer(_) => true,
                Item::Dataset(dataset) => current(dataset),
            });
        for item in fresh {
            self.cluster.store(node, item, true);
        }
        for item in stale {
            self.forget_if_unneeded(node, item);
        }
        for &dataset in &task.outputs {
            self.cluster.publish(dataset, node);
        }
    }

    fn forget_arriving(&mut self, node: NodeId, task: &Task) {
        for item in self.cluster.needs(task, node) {
            self.forget_if_unneeded(node, item);
        }
    }

    /// What no running task of the node waits for is not under way any more.
    fn forget_if_unneeded(&mut self, node: NodeId, item: Item) {
        let running = self.cluster.nodes[node as usize].commitments.iter().filter(|other| other.admitted);
        let needed = running.into_iter().any(|other| self.cluster.needs(&other.task, node).contains(&item));
        if self.cluster.is_arriving(item, node) && !needed {
            self.cluster.remove(node, item);
        }
    }

    fn remember_ended(&mut self, decision_id: String) {
        self.ended.push_back(decision_id);
        if self.ended.len() > MAX_ENDED {
            let oldest = self.ended.pop_front().and_then(|id| self.decisions.remove(&id));
            if let Some(request_id) = oldest.and_then(|decision| decision.request_id) {
                self.requests.remove(&request_id);
            }
        }
    }
}
