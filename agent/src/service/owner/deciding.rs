//! What the owner does about tasks.

use std::sync::Arc;

use remora_proto::v1 as wire;

use super::handle::Explained;
use super::{Held, Owner};
use crate::service::convert::{Field, Update};
use crate::service::feed::Event;
use crate::service::messages::{Answer, Dispute, Order, Report};
use crate::service::refusal::Refusal;
use crate::service::scribe::{Durable, Scribe};
use crate::service::serving::Serving;

impl Owner {
    pub(super) fn place(
        &mut self,
        order: &Order,
        request: Arc<wire::PlaceRequest>,
    ) -> Result<Arc<Answer>, Refusal> {
        let id = &order.cluster_id;
        if !order.dry_run {
            self.ready()?;
        }
        self.books("cluster_id", id)?;
        let serving: &Serving = self.servings.get(id).unwrap_or(&self.serving);
        let Held { books, .. } = self.clusters.get_mut(id).expect("it was there");
        let (answer, new) = books.place(order, &request, serving, &mut self.chooser)?;
        books.check();
        if new {
            let made = books.decision(&answer.decision_id).and_then(|decision| decision.made.clone());
            let node = &answer.topology.nodes[answer.chosen.candidate.node as usize].name;
            tracing::debug!(
                cluster = id,
                kind = order.task.kind,
                node,
                decision = answer.decision_id,
                "placed"
            );
            if let Some(made) = made {
                self.noted(id, Event::Decided(Arc::new(made)));
            }
        }
        Ok(answer)
    }

    pub(super) fn report(
        &mut self,
        report: &Report,
        request: Arc<wire::ReportOutcomeRequest>,
    ) -> Result<(bool, Option<Durable>), Refusal> {
        let id = &report.cluster_id;
        self.ready()?;
        self.books("cluster_id", id)?;
        let serving = self.serving_of(id).clone();
        let books = &mut self.held(id).books;
        let already = books.report(report, &request, &serving)?;
        books.check();
        let down = books.regret.step_down(&serving);
        tracing::debug!(?report, already, "outcome");
        // One that was told before may not be durable yet.
        let durable = if already { self.flushed() } else { self.committed(id, Event::Ended(request)) };
        if let Some(autonomy) = down {
            self.step_down(id, autonomy);
        }
        Ok((already, durable))
    }

    pub(super) fn update(
        &mut self,
        update: &Update,
        request: Arc<wire::UpdateClusterRequest>,
    ) -> Result<((u64, bool), Option<Durable>), Refusal> {
        let id = &update.cluster_id;
        self.ready()?;
        let books = self.books("cluster_id", id)?;
        let new = books.update(update, &request.changes)?;
        books.check();
        let durable = if new { self.committed(id, Event::Updated(request)) } else { self.flushed() };
        Ok(((self.held(id).feed.version(), !new), durable))
    }

    /// When all that happened so far is durable.
    pub(super) fn flushed(&self) -> Option<Durable> {
        self.scribe.as_ref().map(Scribe::flush)
    }

    pub(super) fn explain(&mut self, cluster: &str, id: &str) -> Result<Explained, Refusal> {
        let books = self.books("cluster_id", cluster)?;
        let known = books.decision(id).and_then(|decision| Some((decision.made.clone()?, decision)));
        let Some((made, decision)) = known else {
            let problem =
                format_args!("cluster {cluster:?} made no decision {id:?}, or it is no longer kept");
            return Err(Refusal::UnknownDecision(Field::root("decision_id").refuse(problem)));
        };
        let actual_cost = books.actual_cost(decision);
        let (outcome, disputed) = (decision.outcome.clone(), decision.disputed.clone());
        Ok(Explained { made, outcome, actual_cost, disputed })
    }

    pub(super) fn dispute(
        &mut self,
        dispute: Dispute,
        actor: String,
    ) -> Result<(Arc<wire::Disputed>, Option<Durable>), Refusal> {
        let Dispute { cluster_id, decision_id, reason, withdraw } = dispute;
        self.ready()?;
        let at_ms = self.clock.now_ms();
        let disputed = Arc::new(wire::Disputed {
            cluster_id: cluster_id.clone(),
            decision_id,
            reason,
            actor,
            at_ms,
            withdrawn: withdraw,
        });
        self.books("cluster_id", &cluster_id)?.dispute(&disputed)?;
        let durable = self.committed(&cluster_id, Event::Disputed(Arc::clone(&disputed)));
        Ok((disputed, durable))
    }

    pub(super) fn savings(&mut self, cluster: &str, begin_ms: i64) -> Result<Vec<wire::Saved>, Refusal> {
        let told = |id: &str, saved: wire::Saved| wire::Saved { cluster_id: id.to_owned(), ..saved };
        if !cluster.is_empty() {
            let saved = self.books("cluster_id", cluster)?.saved.since(begin_ms);
            return Ok(vec![told(cluster, saved)]);
        }
        let saved = |(id, held): (&String, &Held)| told(id, held.books.saved.since(begin_ms));
        Ok(self.clusters.iter().map(saved).collect())
    }
}
