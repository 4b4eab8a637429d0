//! The policy that decides, for the application that learns it: who it is, how it does, and its replacement.

use anyhow::{Result, anyhow};
use remora_env::import::Imported;
use remora_policies::checkpoint::Checkpoint;

use super::Door;
use crate::service::owner::{By, PolicyCommand};
use crate::service::policies::{About, Alias, Change};
use crate::service::recording::{Span, recording};
use crate::service::refusal::Refusal;
use crate::storage::{Storage, Who};

impl Door {
    /// Id of the champion.
    pub(crate) async fn champion(&self) -> Result<String> {
        let name = Alias::Champion.name().to_owned();
        Ok(told(self.ask_policies(|reply| PolicyCommand::Get(name, reply)).await)?.id)
    }

    /// The last change of the champion: when, by whom and why.
    pub(crate) async fn champion_changed(&self) -> Result<Option<(i64, String, String)>> {
        let history = told(self.ask_policies(PolicyCommand::History).await)?;
        let last = history.into_iter().rfind(|change: &Change| change.alias == Alias::Champion);
        Ok(last.map(|change| (change.at_ms, change.actor, change.reason)))
    }

    /// Takes a checkpoint in under a name and makes it the champion in place of `before`.
    ///
    /// # Errors
    /// When it cannot be used or kept, or the champion is another than `before` by now.
    pub(crate) async fn crown(
        &self,
        (name, bytes): (String, Vec<u8>),
        before: String,
        (actor, reason): (String, String),
    ) -> Result<()> {
        let at_ms = self.clock.now_ms();
        let who = Who { at_ms, actor: actor.clone(), role: None };
        let (note, uploaded_by) = (reason.clone(), actor.clone());
        let about = About { name, note, uploaded_at_ms: at_ms, uploaded_by, ..About::default() };
        let policy = told(self.take_in(bytes, about, None, &who).await)?.id;
        let (alias, expected, by) = (Alias::Champion, Some(before), By { actor, reason });
        let change = |reply| PolicyCommand::SetAlias { alias, policy, expected, by, reply };
        told(self.enact(&who, change).await).map(drop)
    }

    /// What was recorded of a cluster; or why there is nothing.
    pub(crate) async fn recorded(
        &self,
        storage: &Storage,
        cluster: &str,
    ) -> Result<Result<Imported, String>> {
        match recording(storage, cluster, Span::default()).await {
            Err(refusal @ (Refusal::UnknownCluster(_) | Refusal::Nowhere(_))) => Ok(Err(refusal.to_string())),
            recorded => told(recorded).map(Ok),
        }
    }

    /// Names of all clusters.
    pub(crate) async fn clusters(&self) -> Result<Vec<String>> {
        Ok(told(self.owner.list().await)?.into_iter().map(|summary| summary.id).collect())
    }

    /// How much dearer than the heuristic expected the last decisions about a cluster came, and how many those are.
    pub(crate) async fn regret(&self, cluster: &str) -> Result<(f64, usize)> {
        let cluster = cluster.to_owned();
        Ok(told(self.ask_policies(|reply| PolicyCommand::Serving(cluster, reply)).await)?.regret)
    }
}

/// The checkpoint that a policy's id is of, where it is kept or shipped.
pub(crate) async fn checkpoint(storage: &Storage, id: &str) -> Result<Option<Checkpoint>> {
    let shipped = Checkpoint::pretrained()?;
    if id == "pretrained" || id == shipped.id() {
        return Ok(Some(shipped));
    }
    for policy in storage.policies().await? {
        let checkpoint = Checkpoint::from_bytes(&storage.blob(&policy.id).await?);
        if let Some(found) = checkpoint.ok().filter(|checkpoint| checkpoint.id() == id) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn told<T>(answer: Result<T, Refusal>) -> Result<T> {
    answer.map_err(|refusal| anyhow!("{refusal}"))
}
