//! What the owner does about policies.

use remora_proto::v1 as wire;

use super::Owner;
use super::handle::{Amend, By, PolicyCommand, Prepared, Served, Told};
use crate::service::convert::Field;
use crate::service::policies::{Alias, Change};
use crate::service::refusal::Refusal;
use crate::service::restart::{ITSELF, SERVING};
use crate::service::serving::{Autonomy, Serving, is_heuristic};
use crate::storage::Who;

/// Why nothing is known of what a policy came to.
fn unevaluated(id: &str) -> String {
    if is_heuristic(id) {
        return format!("{id} is a heuristic, which learned policies are evaluated beside");
    }
    format!("nobody handed in an evaluation of {id}: `remora policy upload` takes one with --evaluation")
}

impl Owner {
    pub(super) fn policies(&mut self, command: PolicyCommand) {
        let policies = &mut self.chooser.policies;
        match command {
            PolicyCommand::List(reply) => {
                let told = policies.ids().into_iter().map(|id| self.told(id)).collect();
                drop(reply.send(Ok(told)));
            }
            PolicyCommand::Get(name, reply) => {
                let found = policies.find(Field::root("policy"), &name);
                drop(reply.send(found.map(|id| self.told(id))));
            }
            PolicyCommand::Upload(bytes, about, evaluation, reply) => {
                let added = policies.add(&bytes, about, evaluation);
                drop(reply.send(added.map(|id| self.told(id))));
            }
            PolicyCommand::Evaluation(name, reply) => {
                let found = policies.find(Field::root("policy"), &name).and_then(|id| {
                    let none = || Refusal::UnknownPolicy(Field::root("policy").refuse(unevaluated(&id)));
                    policies.evaluation(&id).ok_or_else(none)
                });
                drop(reply.send(found));
            }
            PolicyCommand::SetAlias { alias, policy, expected, by, reply } => {
                drop(reply.send(self.set_alias(alias, &policy, expected, by)));
            }
            PolicyCommand::RollBack { alias, by, reply } => drop(reply.send(self.roll_back(alias, by))),
            PolicyCommand::History(reply) => drop(reply.send(Ok(policies.history.clone()))),
            PolicyCommand::Serving(cluster, reply) => drop(reply.send(self.served(&cluster))),
            PolicyCommand::Enact(change, reply) => drop(reply.send(self.enact(change))),
            PolicyCommand::Serve { cluster, amend, reply } => {
                drop(reply.send(self.amended(&cluster, amend)));
            }
            PolicyCommand::SetServing { cluster, serving, by, reply } => {
                drop(reply.send(self.serve(&cluster, serving, &by)));
            }
            PolicyCommand::Compare(cluster, reply) => drop(reply.send(self.compared(&cluster))),
            PolicyCommand::Prepare { policy, cluster, reply } => {
                drop(reply.send(self.prepared(&policy, cluster)));
            }
        }
    }

    fn told(&self, id: String) -> Told {
        let policies = &self.chooser.policies;
        let evaluated = policies.evaluation(&id).is_some();
        Told { about: policies.about(&id).cloned(), aliases: policies.aliases(&id).collect(), evaluated, id }
    }

    fn set_alias(
        &mut self,
        alias: Alias,
        policy: &str,
        expected: Option<String>,
        by: By,
    ) -> Result<Change, Refusal> {
        let policies = &mut self.chooser.policies;
        if policy.is_empty() && alias == Alias::Champion {
            return Err(Field::root("policy").refuse("is empty, but somebody has to be champion").into());
        }
        let before = policies.role(alias).map(str::to_owned);
        if expected.is_some_and(|expected| expected != before.as_deref().unwrap_or_default()) {
            let who = before.as_deref().unwrap_or("nobody");
            let problem = format_args!("{} is {who}", alias.name());
            return Err(Refusal::Conflict(Field::root("expected").refuse(problem)));
        }
        let policy = match policy {
            "" => None,
            name => Some(policies.find(Field::root("policy"), name)?),
        };
        Ok(self.change(alias, policy, before, by))
    }

    fn enact(&mut self, change: Change) -> Result<(), Refusal> {
        let Change { alias, policy, before, reason, actor, .. } = &change;
        tracing::info!(alias = alias.name(), policy, before, actor, reason, "alias changed");
        self.chooser.policies.set(change);
        Ok(())
    }

    fn roll_back(&mut self, alias: Alias, by: By) -> Result<Change, Refusal> {
        let policies = &mut self.chooser.policies;
        let last =
            policies.before(alias).filter(|change| change.before.is_some() || alias != Alias::Champion);
        let Some(earlier) = last.map(|change| change.before.clone()) else {
            let problem = format_args!("nobody was {} before", alias.name());
            return Err(Refusal::Conflict(Field::root("alias").refuse(problem)));
        };
        let before = policies.role(alias).map(str::to_owned);
        Ok(self.change(alias, earlier, before, by))
    }

    fn change(&self, alias: Alias, policy: Option<String>, before: Option<String>, by: By) -> Change {
        let By { actor, reason } = by;
        Change { alias, policy, before, reason, actor, at_ms: self.clock.now_ms() }
    }

    fn served(&mut self, cluster: &str) -> Result<Served, Refusal> {
        let regret = match cluster {
            "" => (0.0, 0),
            id => self.books("cluster_id", id)?.regret.mean(),
        };
        Ok(Served { serving: self.serving_of(cluster).clone(), regret })
    }

    fn amended(&mut self, cluster: &str, amend: Amend) -> Result<Serving, Refusal> {
        self.served(cluster)?;
        let mut serving = self.serving_of(cluster).clone();
        amend(&mut serving);
        self.chooser.policies.find(Field::root("serving").field("fallback"), &serving.fallback)?;
        Ok(serving)
    }

    fn serve(&mut self, cluster: &str, serving: Serving, by: &By) -> Result<Served, Refusal> {
        let By { actor, reason } = by;
        tracing::info!(cluster, ?serving, actor, reason, "serving changed");
        self.set_serving(cluster, serving);
        self.served(cluster)
    }

    fn set_serving(&mut self, cluster: &str, serving: Serving) {
        match cluster {
            "" => self.serving = serving,
            id => drop(self.servings.insert(id.to_owned(), serving)),
        }
    }

    /// A policy that came too dear is trusted less.
    pub(super) fn step_down(&mut self, cluster: &str, autonomy: Autonomy) {
        let serving = self.serving_of(cluster).clone();
        let (actor, before) = (ITSELF, serving.autonomy);
        tracing::warn!(cluster, ?before, now = ?autonomy, actor, "regret is beyond its budget: autonomy steps down");
        let serving = Serving { autonomy, ..serving };
        if let (Some(storage), Ok(value)) = (self.storage.clone(), serde_json::to_value(&serving)) {
            let who = Who { at_ms: self.clock.now_ms(), actor: actor.to_owned(), role: None };
            let cluster = cluster.to_owned();
            tokio::spawn(async move {
                let reason = "regret was beyond its budget";
                let kept = storage.set_setting((&cluster, SERVING), Some(&value), reason, &who).await;
                kept.map(drop)
                    .unwrap_or_else(|error| tracing::error!(%error, "a step down could not be kept"));
            });
        }
        self.set_serving(cluster, serving);
    }

    fn prepared(&mut self, policy: &str, cluster: String) -> Result<Prepared, Refusal> {
        let policies = &mut self.chooser.policies;
        let (policy, seed) = (policies.find(Field::root("policy"), policy)?, policies.seed());
        let cluster = match (cluster.as_str(), self.clusters.keys().collect::<Vec<_>>().as_slice()) {
            ("", [only]) => (*only).clone(),
            ("", known) => {
                let known = known.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(", ");
                let problem = format!("is empty, want one of the clusters: {known}");
                return Err(Field::root("cluster_id").refuse(problem).into());
            }
            _ => cluster,
        };
        self.books("cluster_id", &cluster)?;
        let serving = self.serving_of(&cluster).clone();
        Ok(Prepared { policy, seed, cluster, serving })
    }

    fn compared(&mut self, cluster: &str) -> Result<wire::CompareResponse, Refusal> {
        let shadow = self.books("cluster_id", cluster)?.shadow.clone();
        Ok(wire::CompareResponse {
            decided: shadow.decided,
            shadow: shadow.policy,
            decisions: shadow.decisions as i64,
            differ: shadow.differ as i64,
            expected_cost_ratio: if shadow.decisions == 0 {
                1.0
            } else {
                shadow.ratios / shadow.decisions as f64
            },
            examples: shadow.examples.into(),
        })
    }
}
