//! Books that survive a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use remora_env::catalogue::Task;
use remora_env::observation::Observation;
use remora_proto::v1 as wire;

use super::{Books, Decision, Made, Portrait};
use crate::service::convert::{self, Field};
use crate::service::refusal::Refusal;
use crate::service::savings::Savings;
use crate::service::serving::Serving;

/// A cluster as it stood, with what is remembered of its decisions.
#[derive(Debug)]
pub struct Kept {
    portrait: Portrait,
    decisions: Vec<KeptDecision>,
    sources: BTreeMap<String, i64>,
    saved: Savings,
    decided: u64,
}

/// What is remembered of a decision.
#[derive(Debug)]
struct KeptDecision {
    id: String,
    made: Option<Made>,
    ended: bool,
    confirmed: bool,
    disputed: Option<Arc<wire::Disputed>>,
}

impl Kept {
    /// It as it is written down.
    pub fn snapshot(&self) -> wire::ClusterSnapshot {
        let registration = self.portrait.registration();
        let cluster = registration.cluster.as_ref().map_or("", |cluster| &cluster.id);
        let decisions = self.decisions.iter().map(|KeptDecision { id, made, ended, confirmed, disputed }| {
            let mut receipt = made.as_ref().map(|made| convert::receipt(cluster, made));
            if let Some(response) = receipt.as_mut().and_then(|receipt| receipt.response.as_mut()) {
                response.candidates.truncate(1);
            }
            let (ended, confirmed) = (*ended, *confirmed);
            let disputed = disputed.as_deref().cloned();
            wire::KeptDecision { decision_id: id.clone(), receipt, ended, confirmed, disputed }
        });
        wire::ClusterSnapshot {
            decisions: decisions.collect(),
            sources: self.sources.clone(),
            saved: self.saved.kept(),
            decided: self.decided as i64,
            registration: Some(registration),
        }
    }
}

impl Books {
    /// Everything that a restart needs.
    pub fn kept(&self) -> Box<Kept> {
        let ended = self.ended.iter().filter_map(|id| self.decisions.get_key_value(id));
        let open = self.decisions.iter().filter(|(_, decision)| !decision.ended);
        let kept = |(id, decision): (&String, &Decision)| {
            // Of those that ended only what a repeated request asks for, and what is disputed.
            let asked = |made: &&Made| {
                !decision.ended || !made.request.request_id.is_empty() || decision.disputed.is_some()
            };
            KeptDecision {
                id: id.clone(),
                made: decision.made.as_ref().filter(asked).cloned(),
                ended: decision.ended,
                confirmed: decision.expires.is_none(),
                disputed: decision.disputed.clone(),
            }
        };
        let decisions = ended.chain(open).map(kept).collect();
        let (sources, saved) = (self.sources.clone(), self.saved.clone());
        Box::new(Kept { portrait: self.portrait(), decisions, sources, saved, decided: self.decided })
    }

    /// Books as they were kept at a time.
    pub fn restored(
        snapshot: &wire::ClusterSnapshot,
        at_ms: i64,
        serving: &Serving,
    ) -> Result<Books, Refusal> {
        let registration = Field::root("registration").given(&snapshot.registration)?;
        let mut books = Books::new(convert::registration(registration, convert::time(at_ms))?);
        books.sources.clone_from(&snapshot.sources);
        books.decided = snapshot.decided.max(0) as u64;
        books.saved = Savings::restored(&snapshot.saved);
        for kept in &snapshot.decisions {
            books.remember(kept, serving);
        }
        Ok(books)
    }

    fn remember(&mut self, kept: &wire::KeptDecision, serving: &Serving) {
        let id = &kept.decision_id;
        let topology = Arc::clone(&self.cluster.topology);
        let made = kept.receipt.as_ref().and_then(|receipt| convert::made(receipt, &topology, &self.names));
        if let Some(made) = made.as_ref().filter(|made| !made.request.request_id.is_empty()) {
            self.requests.insert(made.request.request_id.clone(), id.clone());
        }
        if kept.ended {
            self.remember_ended_of_before(id, made);
        } else if let Some(decision) = self.decisions.get_mut(id) {
            // Entered with the registration, as one made elsewhere.
            if let Some(made) = made.as_ref().filter(|_| !kept.confirmed) {
                let expected_s = made.answer.chosen.candidate.completion_s();
                let expires = Books::expiry(made.at, expected_s, serving.expire_after);
                decision.expires = Some(expires);
                self.expiring.insert((expires, id.clone()));
            }
            decision.made = made;
        }
        if let Some(decision) = self.decisions.get_mut(id) {
            decision.disputed = kept.disputed.clone().map(Arc::new);
        }
    }

    /// A decision that ended before the restart: it is known, and holds nothing.
    fn remember_ended_of_before(&mut self, id: &str, made: Option<Made>) {
        let task = made.as_ref().and_then(|made| self.task_of(&made.request));
        // Without a task it is known to have ended, and no more.
        let made = made.filter(|_| task.is_some());
        let nothing = || Arc::new(Task { kind: 0, image: None, inputs: Vec::new(), outputs: Vec::new() });
        let decision = Decision {
            commitment: 0,
            node: 0,
            task: task.unwrap_or_else(nothing),
            versions: Vec::new(),
            made,
            outcome: None,
            disputed: None,
            expires: None,
            ended: true,
        };
        self.decisions.insert(id.to_owned(), decision);
        self.remember_ended(id.to_owned());
    }

    fn task_of(&self, request: &wire::PlaceRequest) -> Option<Arc<Task>> {
        let order = convert::order(request).ok()?;
        self.names.task(Field::root("task"), &order.task).ok().map(Arc::new)
    }

    /// Enters a decision again, as it was made; before that, `look` sees it and what it was made from, where nodes
    /// still take its task.
    pub fn replay(
        &mut self,
        receipt: &wire::Receipt,
        serving: &Serving,
        look: Option<&mut Look<'_>>,
    ) -> Result<(), Refusal> {
        let topology = Arc::clone(&self.cluster.topology);
        let made = convert::made(receipt, &topology, &self.names);
        let task = made.as_ref().and_then(|made| self.task_of(&made.request));
        let (Some(made), Some(task)) = (made, task) else {
            return Err(Refusal::Broken("the decision says too little".to_owned()));
        };
        self.cluster.note_arrival(&task);
        if let Some(look) = look
            && let Ok(order) = convert::order(&made.request)
            && let Ok(Some(observation)) = self.observation(&order, &task, number(&made), made.answer.alpha)
        {
            look(&made, &observation);
        }
        let id = self.next_reported;
        self.next_reported += 1;
        self.commit((*task).clone(), id, made.request, made.answer, serving.expire_after);
        Ok(())
    }
}

/// Who looks at a decision that is entered again.
pub type Look<'a> = dyn FnMut(&Made, &Observation<'_>) + 'a;

/// Number of a decision, by which policies draw: the end of its id.
fn number(made: &Made) -> u64 {
    made.answer.decision_id.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use remora_proto::v1 as wire;

    use super::Books;
    use crate::service::serving::Serving;

    /// One task on one node, decided here at the beginning of time.
    fn snapshot(confirmed: bool) -> wire::ClusterSnapshot {
        let node = wire::Node {
            name: "a".to_owned(),
            kind: "nuc".to_owned(),
            arch: "arm".to_owned(),
            cpu_millis: 1000,
            memory_bytes: 1,
            disk_bytes: Some(0),
            startup_s: Some(0.0),
            ..wire::Node::default()
        };
        let kind = wire::TaskKind {
            name: "work".to_owned(),
            cpu_millis: Some(1000),
            cpu_use_millis: Some(1000),
            memory_bytes: Some(0),
            execution_elsewhere_s: Some(1.0),
            ..wire::TaskKind::default()
        };
        let cluster = wire::Cluster {
            id: "one".to_owned(),
            reference_response_s: 1.0,
            reference_moved_bytes: 1.0,
            nodes: vec![node],
            task_kinds: vec![kind],
            ..wire::Cluster::default()
        };
        let task = Some(wire::Task { kind: "work".to_owned(), ..wire::Task::default() });
        let placed = wire::PlacedTask {
            task: task.clone(),
            expected_remaining_s: Some(1.0),
            decision_id: "d".to_owned(),
            ..wire::PlacedTask::default()
        };
        let here =
            wire::NodeFacts { node: "a".to_owned(), placed: vec![placed], ..wire::NodeFacts::default() };
        let facts = wire::Facts { nodes: vec![here], ..wire::Facts::default() };
        let chosen = wire::Candidate { node: "a".to_owned(), ..wire::Candidate::default() };
        let response = wire::PlaceResponse { candidates: vec![chosen], ..wire::PlaceResponse::default() };
        let request =
            wire::PlaceRequest { cluster_id: "one".to_owned(), task, ..wire::PlaceRequest::default() };
        let receipt =
            wire::Receipt { request: Some(request), response: Some(response), ..wire::Receipt::default() };
        let decision = wire::KeptDecision {
            decision_id: "d".to_owned(),
            receipt: Some(receipt),
            confirmed,
            ..wire::KeptDecision::default()
        };
        wire::ClusterSnapshot {
            registration: Some(wire::RegisterClusterRequest { cluster: Some(cluster), facts: Some(facts) }),
            decisions: vec![decision],
            ..wire::ClusterSnapshot::default()
        }
    }

    #[test]
    fn what_was_confirmed_stays_so() {
        for (confirmed, expired) in [(true, vec![]), (false, vec!["d".to_owned()])] {
            let mut books = Books::restored(&snapshot(confirmed), 0, &Serving::new(0.5)).unwrap();
            assert_eq!(books.kept().snapshot().decisions[0].confirmed, confirmed);
            books.set_time(remora_env::Time::from_s(1e6));
            assert_eq!(books.expire(), expired);
        }
    }
}
