//! Books that survive a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use remora_env::catalogue::Task;
use remora_proto::v1 as wire;

use super::{Books, Decision, Made, Portrait};
use crate::service::convert::{self, Field};
use crate::service::refusal::Refusal;
use crate::service::serving::Serving;

/// A cluster as it stood, with what is remembered of its decisions.
#[derive(Debug)]
pub struct Kept {
    portrait: Portrait,
    /// Id, how it was made, whether it ended.
    decisions: Vec<(String, Option<Made>, bool)>,
    sources: BTreeMap<String, i64>,
    decided: u64,
}

impl Kept {
    /// It as it is written down.
    pub fn snapshot(&self) -> wire::ClusterSnapshot {
        let registration = self.portrait.registration();
        let cluster = registration.cluster.as_ref().map_or("", |cluster| &cluster.id);
        let decisions = self.decisions.iter().map(|(id, made, ended)| {
            let mut receipt = made.as_ref().map(|made| convert::receipt(cluster, made));
            if let Some(response) = receipt.as_mut().and_then(|receipt| receipt.response.as_mut()) {
                response.candidates.truncate(1);
            }
            wire::KeptDecision { decision_id: id.clone(), receipt, ended: *ended }
        });
        wire::ClusterSnapshot {
            decisions: decisions.collect(),
            sources: self.sources.clone(),
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
            // Of those that ended only what a repeated request asks for.
            let asked = |made: &&Made| !decision.ended || !made.request.request_id.is_empty();
            (id.clone(), decision.made.as_ref().filter(asked).cloned(), decision.ended)
        };
        let decisions = ended.chain(open).map(kept).collect();
        let (sources, decided) = (self.sources.clone(), self.decided);
        Box::new(Kept { portrait: self.portrait(), decisions, sources, decided })
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
            if let Some(made) = &made {
                let expected_s = made.answer.chosen.candidate.completion_s();
                let expires = Books::expiry(made.at, expected_s, serving.expire_after);
                decision.expires = Some(expires);
                self.expiring.insert((expires, id.clone()));
            }
            decision.made = made;
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

    /// Enters a decision again, as it was made.
    pub fn replay(&mut self, receipt: &wire::Receipt, serving: &Serving) -> Result<(), Refusal> {
        let topology = Arc::clone(&self.cluster.topology);
        let made = convert::made(receipt, &topology, &self.names);
        let task = made.as_ref().and_then(|made| self.task_of(&made.request));
        let (Some(made), Some(task)) = (made, task) else {
            return Err(Refusal::Broken("the decision says too little".to_owned()));
        };
        self.cluster.note_arrival(&task);
        let id = self.next_reported;
        self.next_reported += 1;
        self.commit((*task).clone(), id, made.request, made.answer, serving.expire_after);
        Ok(())
    }
}
