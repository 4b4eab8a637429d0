//! What the service goes on from: everything that was written down.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use prost::Message;
use remora_proto::v1 as wire;
use serde::de::DeserializeOwned;

use super::books::Books;
use super::books::Look;
use super::convert;
use super::policies::{About, Alias, Change, Policies};
use super::refusal::Refusal;
use super::serving::Serving;
use crate::storage::{self, Kind, Paging, Recorded, Restored, Storage, Who};

/// Key under which the settings keep how policies serve.
pub const SERVING: &str = "serving";
/// Who acts where nobody did: the service itself.
pub const ITSELF: &str = "remora";
/// Changes of an alias that are remembered.
const CHANGES: u32 = 1000;

/// Clusters, and how they are served.
#[derive(Debug)]
pub struct Before {
    pub clusters: BTreeMap<String, Books>,
    pub serving: Serving,
    pub servings: BTreeMap<String, Serving>,
    /// Of the last event.
    pub version: u64,
}

impl Before {
    /// A service that begins.
    pub fn nothing(serving: Serving) -> Before {
        Before { clusters: BTreeMap::new(), serving, servings: BTreeMap::new(), version: 0 }
    }
}

/// Reads back what was written down; `serving` holds where nothing was.
pub async fn restore(
    storage: &Storage,
    policies: &mut Policies,
    serving: Serving,
    at_ms: i64,
) -> anyhow::Result<Before> {
    restore_policies(storage, policies).await?;
    let mut before = Before::nothing(serving);
    for change in storage.settings().await? {
        let Some(value) = change.value.filter(|_| change.key == SERVING) else { continue };
        match parsed::<Serving>(value) {
            Ok(serving) if change.scope.is_empty() => before.serving = serving,
            Ok(serving) => drop(before.servings.insert(change.scope, serving)),
            Err(error) => {
                tracing::warn!(cluster = change.scope, %error, "a setting is not understood and left out")
            }
        }
    }
    for restored in storage.restore().await? {
        let serving = before.servings.get(&restored.cluster).unwrap_or(&before.serving);
        let cluster = restored.cluster.clone();
        let books =
            books(restored, serving).with_context(|| format!("cluster {cluster:?} cannot be restored"))?;
        before.clusters.insert(cluster, books);
    }
    // A crash may have come between the end of a cluster and this.
    let who = Who { at_ms, actor: ITSELF.to_owned(), role: None };
    let Before { clusters, servings, .. } = &mut before;
    for (cluster, _) in servings.extract_if(.., |cluster, _| !clusters.contains_key(cluster)) {
        forget_serving(storage, &cluster, &who).await?;
    }
    before.version = storage.recorder().health().durable.max(0) as u64;
    Ok(before)
}

/// How policies served a cluster goes with it: one of the same name begins as any other.
pub async fn forget_serving(storage: &Storage, cluster: &str, who: &Who) -> Result<(), storage::Error> {
    if storage.setting(cluster, SERVING).await?.is_some() {
        storage.set_setting((cluster, SERVING), None, "the cluster was removed", who).await?;
    }
    Ok(())
}

fn parsed<T: DeserializeOwned>(value: serde_json::Value) -> serde_json::Result<T> {
    serde_json::from_value(value)
}

async fn restore_policies(storage: &Storage, policies: &mut Policies) -> anyhow::Result<()> {
    for policy in storage.policies().await? {
        let bytes = storage.policy_bytes(&policy.id).await?;
        let about = About {
            name: policy.name,
            uploaded_at_ms: policy.uploaded_at_ms,
            uploaded_by: policy.uploaded_by,
            note: policy.note,
            ..About::default()
        };
        if let Err(refusal) = policies.add(&bytes, about, None) {
            tracing::warn!(policy = policy.id, %refusal, "a policy cannot be used any more");
        }
    }
    for (policy, body) in storage.evaluations().await? {
        match serde_json::from_str(&body) {
            Ok(evaluated) => policies.evaluate(policy, evaluated),
            Err(error) => tracing::warn!(policy, %error, "an evaluation is not understood and left out"),
        }
    }
    for alias in Alias::ALL {
        let paging = Paging { limit: CHANGES, newest_first: true, ..Paging::default() };
        let page = storage.alias_history(alias.name(), &paging).await?;
        let mut holder = policies.role(alias).map(str::to_owned);
        for change in page.items.into_iter().rev() {
            let found = match &change.policy {
                Some(name) => policies.find(convert::Field::root("policy"), name).map(Some),
                None => Ok(None),
            };
            let Ok(policy) = found else {
                tracing::warn!(
                    alias = alias.name(),
                    policy = change.policy,
                    "an alias names what cannot be used"
                );
                continue;
            };
            let before = std::mem::replace(&mut holder, policy.clone());
            let (reason, actor, at_ms) = (change.reason, change.actor, change.at_ms);
            policies.set(Change { alias, policy, before, reason, actor, at_ms });
        }
    }
    Ok(())
}

/// A cluster from its snapshot and what happened since.
fn books(restored: Restored, serving: &Serving) -> anyhow::Result<Books> {
    let (at_ms, body) = restored.snapshot.map_or((0, None), |snapshot| (snapshot.at_ms, Some(snapshot.body)));
    let mut books = begin(body.as_deref(), at_ms, serving)?;
    for Recorded { sequence, entry } in restored.entries {
        if let Err(refusal) = again(&mut books, &entry, serving, None)? {
            tracing::warn!(entry = sequence, %refusal, "an entry of the journal could not be carried out again");
        }
    }
    let books = books.context("nothing says what it is made of")?;
    books.check();
    Ok(books)
}

/// A cluster as it was kept, or nothing yet.
pub fn begin(snapshot: Option<&[u8]>, at_ms: i64, serving: &Serving) -> anyhow::Result<Option<Books>> {
    let Some(body) = snapshot else { return Ok(None) };
    let body = wire::ClusterSnapshot::decode(body)?;
    let books = Books::restored(&body, at_ms, serving).map_err(|refusal| anyhow!("{refusal}"))?;
    Ok(Some(books))
}

/// Carries an entry of the journal out again; `look` sees a decision before it is entered.
///
/// # Errors
/// When the entry is damaged; within, when what it says is refused, which changes nothing.
pub fn again(
    books: &mut Option<Books>,
    entry: &storage::Entry,
    serving: &Serving,
    look: Option<&mut Look<'_>>,
) -> Result<Result<(), Refusal>, prost::DecodeError> {
    let (now, body) = (convert::time(entry.at_ms), entry.body.as_slice());
    if let Some(books) = books {
        books.set_time(now);
    }
    Ok(match (entry.kind, books) {
        (Kind::Registered, books) => {
            let request = wire::RegisterClusterRequest::decode(body)?;
            let registered = convert::registration(&request, now).map_err(Refusal::from);
            registered.map(|registration| {
                let saved = books.take().map(|books| books.saved).unwrap_or_default();
                let mut begun = Books::new(registration);
                begun.saved = saved;
                *books = Some(begun);
            })
        }
        (Kind::Changed, Some(books)) => {
            let request = wire::UpdateClusterRequest::decode(body)?;
            let update = convert::update(&request).map_err(Refusal::from);
            update.and_then(|update| books.update(&update, &request.changes)).map(drop)
        }
        (Kind::Decided, Some(books)) => books.replay(&wire::Receipt::decode(body)?, serving, look),
        (Kind::Ended, Some(books)) => {
            let request = wire::ReportOutcomeRequest::decode(body)?;
            let report = convert::report(&request).map_err(Refusal::from);
            report.and_then(|report| books.report(&report, &Arc::new(request), serving)).map(drop)
        }
        (Kind::Disputed, Some(books)) => books.dispute(&Arc::new(wire::Disputed::decode(body)?)),
        (Kind::Removed, _) | (_, None) => Ok(()),
    })
}
