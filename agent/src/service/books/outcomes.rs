//! What becomes of decisions.

use std::sync::Arc;

use remora_env::catalogue::{DatasetId, Task};
use remora_env::cluster::Item;
use remora_env::topology::NodeId;
use remora_proto::v1 as wire;

use super::{Books, Decision};
use crate::service::convert::Field;
use crate::service::messages::Report;
use crate::service::refusal::Refusal;
use crate::service::serving::Serving;

/// How many ended decisions are remembered.
const MAX_ENDED: usize = 10_000;

impl Books {
    /// Ends a decision; true if it had ended before.
    pub fn report(
        &mut self,
        report: &Report,
        told: &Arc<wire::ReportOutcomeRequest>,
        serving: &Serving,
    ) -> Result<bool, Refusal> {
        let Some(decision) = self.decisions.get(&report.decision_id) else {
            let problem =
                format_args!("no decision {:?} is known of cluster {:?}", report.decision_id, self.id);
            return Err(Refusal::UnknownDecision(Field::root("decision_id").refuse(problem)));
        };
        if decision.ended {
            return Ok(true);
        }
        self.learn(&report.transfers)?;
        self.end(&report.decision_id, report.failed);
        let now = self.cluster.now;
        if let Some(decision) = self.decisions.get_mut(&report.decision_id) {
            decision.outcome = Some((Arc::clone(told), now));
        }
        self.judge(report, serving);
        Ok(false)
    }

    /// What a decision came to cost, where its response was measured and it did not fail; what was moved
    /// counts as expected where no bytes were reported.
    pub fn actual_cost(&self, decision: &Decision) -> Option<f64> {
        let answer = &decision.made.as_ref()?.answer;
        let (told, _) = decision.outcome.as_ref()?;
        let response_s = told.response_s.filter(|_| !told.failed)?;
        let (moved_bytes, expected) = (answer.chosen.candidate.moved_bytes, answer.chosen.bytes() as f64);
        // Reported bytes have no price: they cost as much a byte as expected.
        let price = if expected > 0.0 { moved_bytes / expected } else { 1.0 };
        let moved = told.transfer_bytes.map_or(moved_bytes, |bytes| bytes as f64 * price);
        Some(self.reference.cost(answer.alpha, moved, response_s))
    }

    /// Notes that somebody says that a decision was wrong, or takes it back.
    pub fn dispute(&mut self, disputed: &Arc<wire::Disputed>) -> Result<(), Refusal> {
        let id = &disputed.decision_id;
        let decision = self.decisions.get_mut(id).filter(|decision| decision.made.is_some());
        let Some(decision) = decision else {
            let problem =
                format_args!("cluster {:?} made no decision {id:?}, or it is no longer kept", self.id);
            return Err(Refusal::UnknownDecision(Field::root("decision_id").refuse(problem)));
        };
        if disputed.withdrawn && decision.disputed.is_none() {
            let problem = format_args!("nobody disputes decision {id:?}");
            return Err(Refusal::Conflict(Field::root("withdraw").refuse(problem)));
        }
        decision.disputed = (!disputed.withdrawn).then(|| Arc::clone(disputed));
        Ok(())
    }

    /// Compares an outcome with what the heuristic had expected.
    fn judge(&mut self, report: &Report, serving: &Serving) {
        if serving.regret_budget <= 0.0 {
            return;
        }
        let Some(decision) = self.decisions.get(&report.decision_id) else { return };
        let heuristic = decision.made.as_ref().and_then(|made| made.answer.heuristic.as_ref());
        if let (Some(heuristic), Some(actual)) = (heuristic, self.actual_cost(decision)) {
            self.regret.add(actual, heuristic.cost);
        }
    }

    /// Decisions whose outcome nobody reported in time end; returns their ids.
    pub fn expire(&mut self) -> Vec<String> {
        let mut expired = Vec::new();
        while let Some((_, id)) = self.expiring.first().filter(|(at, _)| *at <= self.cluster.now).cloned() {
            self.end(&id, true);
            expired.push(id);
        }
        expired
    }

    /// Ends an open decision: what it held is free.
    pub(super) fn end(&mut self, id: &str, failed: bool) {
        let decision = self.decisions.get_mut(id).expect("only a decision that is known is ended");
        decision.ended = true;
        let (node, commitment, task) = (decision.node, decision.commitment, decision.task.clone());
        let versions = decision.versions.clone();
        if let Some(expires) = decision.expires {
            self.expiring.remove(&(expires, id.to_owned()));
        }
        self.flows.end_of(&mut self.cluster, commitment);
        let commitments = &self.cluster.nodes[node as usize].commitments;
        if commitments.iter().any(|other| other.id == commitment && other.admitted) {
            self.pin(node, &task, false);
        }
        let admitted =
            self.cluster.release(commitment, node).expect("a decision that has not ended is committed");
        if failed {
            self.forget_arriving(node, &task);
        } else {
            self.completed(node, &task, &versions);
        }
        // Those that waited for its place.
        self.begin_all(node, admitted);
        self.remember_ended(id.to_owned());
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

    pub(super) fn remember_ended(&mut self, decision_id: String) {
        self.ended.push_back(decision_id);
        if self.ended.len() > MAX_ENDED {
            let oldest = self.ended.pop_front().and_then(|id| self.decisions.remove(&id));
            if let Some(made) = oldest.and_then(|decision| decision.made) {
                self.requests.remove(&made.request.request_id);
            }
        }
    }
}
