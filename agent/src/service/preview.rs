//! What would have changed had another policy decided: the journal is carried out again, as at a restart, and its last
//! decisions are put to that policy on the way.

use remora_env::Observation;
use remora_policies::{Checkpoint, Learned, Policy, by_name, choose};
use remora_proto::v1 as wire;

use super::books::{Books, Look, Made};
use super::convert::{self, Field};
use super::doors::champion::checkpoint;
use super::messages::{Other, transfer_bytes};
use super::owner::Prepared;
use super::refusal::Refusal;
use super::restart;
use super::serving::{Serving, is_heuristic};
use crate::appcore::own::NAME;
use crate::storage::{JournalFilter, Kind, Paging, Recorded, Storage};

/// Entries that are carried out in one go.
const STEP: usize = 1000;
/// How far an expected response may be off to count as the same: a share of it, or seconds.
const CLOSE: (f64, f64) = (0.01, 0.01);

/// A policy as it would decide now, apart from the one that may be deciding.
pub async fn fresh(storage: &Storage, id: &str, seed: u64) -> Result<Box<dyn Policy>, Refusal> {
    let unusable = |error: &dyn std::fmt::Display| {
        Refusal::Conflict(Field::root("policy").refuse(format_args!("{id} cannot be asked: {error}")))
    };
    if is_heuristic(id) {
        return by_name(id, seed).map_err(|error| unusable(&error));
    }
    if let Some(checkpoint) = checkpoint(storage, id).await.map_err(|error| unusable(&error))? {
        return Ok(Box::new(Learned::new(id, &checkpoint).map_err(|error| unusable(&error))?));
    }
    by_name(id, seed).map_err(|error| unusable(&error))
}

/// A version of Remora's own policy, which may never have been served; with the id that it would have.
pub async fn version(storage: &Storage, number: u64) -> Result<(String, Box<dyn Policy>), Refusal> {
    let at = Field::root("version");
    let unusable = |error: &dyn std::fmt::Display| {
        Refusal::Conflict(at.refuse(format_args!("version {number} of {NAME} cannot be asked: {error}")))
    };
    let unreadable = |error| Refusal::Unavailable(format!("the version cannot be read: {error}"));
    let found = storage.versions(NAME, Some(number as i64), None).await.map_err(unreadable)?.pop();
    let unknown = || Refusal::UnknownPolicy(at.refuse(format_args!("{NAME} has no version {number}")));
    let model = found.ok_or_else(unknown)?.model.ok_or_else(|| unusable(&"it has no model"))?;
    let checkpoint = Checkpoint::from_bytes(&storage.blob(&model.hash).await.map_err(unreadable)?);
    let checkpoint = checkpoint.map_err(|error| unusable(&error))?;
    let id = checkpoint.id();
    let policy = Learned::new(&id, &checkpoint).map_err(|error| unusable(&error))?;
    Ok((id, Box::new(policy)))
}

/// Takes the last decisions about a cluster up again.
pub async fn preview(
    storage: &Storage,
    prepared: Prepared,
    policy: Box<dyn Policy>,
    last: u32,
) -> Result<wire::PreviewResponse, Refusal> {
    let Prepared { policy: id, cluster, serving, .. } = prepared;
    let unreadable = |error| Refusal::Unavailable(format!("the journal cannot be read: {error}"));
    let decided = JournalFilter {
        cluster: Some(cluster.clone()),
        kind: Some(Kind::Decided),
        ..JournalFilter::default()
    };
    let paging = Paging { limit: last, newest_first: true, ..Paging::default() };
    let decided = storage.journal(decided, &paging).await.map_err(unreadable)?.items;
    let nothing = || Refusal::Nowhere(format!("no decision about cluster {cluster:?} is recorded"));
    let first = decided.last().ok_or_else(nothing)?.sequence;
    let base = storage.base(&cluster, first).await.map_err(unreadable)?.ok_or_else(nothing)?;
    let books = restart::begin(base.body.as_deref(), base.at_ms, &serving);
    let books = books.map_err(|error| Refusal::Broken(format!("{error:#}")))?;
    let told = wire::PreviewResponse { policy: id, cluster_id: cluster.clone(), ..Default::default() };
    let mut replay = Replay { books, serving, policy, first, told };
    let mut entries = storage.export_after(&cluster, Some(base.sequence));
    loop {
        let mut step = Vec::with_capacity(STEP);
        while step.len() < STEP
            && let Some(entry) = entries.next().await.map_err(unreadable)?
        {
            step.push(entry);
        }
        if step.is_empty() {
            return replay.told().ok_or_else(nothing);
        }
        let carried_out = tokio::task::spawn_blocking(move || replay.carry_out(step)).await;
        replay = carried_out.map_err(|_| Refusal::Broken("the preview broke down".to_owned()))??;
    }
}

/// The journal as it is carried out again.
struct Replay {
    books: Option<Books>,
    serving: Serving,
    policy: Box<dyn Policy>,
    /// Number of the first decision that is looked at.
    first: i64,
    /// What was found so far; expectations are sums yet.
    told: wire::PreviewResponse,
}

impl Replay {
    fn carry_out(mut self, entries: Vec<Recorded>) -> Result<Replay, Refusal> {
        for Recorded { sequence, entry } in entries {
            let wanted = entry.kind == Kind::Decided && sequence >= self.first;
            let (policy, told) = (&mut self.policy, &mut self.told);
            let before = told.decisions;
            let mut look = |made: &Made, observation: &Observation<'_>| {
                look(policy.as_mut(), made, observation, told);
            };
            let look: Option<&mut Look<'_>> = if wanted { Some(&mut look) } else { None };
            // What is not carried out now was not at a restart either, or its decision does not count.
            drop(restart::again(&mut self.books, &entry, &self.serving, look).map_err(|error| {
                Refusal::Broken(format!("entry {sequence} of the journal is damaged: {error}"))
            })?);
            if wanted && self.told.decisions == before {
                self.told.left_out += 1;
            }
        }
        Ok(self)
    }

    /// What was found, of what there was.
    fn told(mut self) -> Option<wire::PreviewResponse> {
        let count = self.told.decisions as f64;
        for sums in [&mut self.told.decided, &mut self.told.previewed] {
            let sums = sums.as_mut()?;
            sums.response_s /= count;
            sums.cost /= count;
        }
        self.told.differences.reverse();
        Some(self.told)
    }
}

/// Puts a decision to a policy.
fn look(
    policy: &mut dyn Policy,
    made: &Made,
    observation: &Observation<'_>,
    told: &mut wire::PreviewResponse,
) {
    let then = &made.answer.chosen;
    let Some(decided) = observation.candidates().iter().find(|now| now.node == then.candidate.node) else {
        return;
    };
    let choice = choose(policy, observation);
    let previewed = &observation.candidates()[choice.index];
    let (seconds, now_s) = (then.candidate.completion_s(), decided.completion_s());
    let near = (now_s - seconds).abs() <= (CLOSE.0 * seconds).max(CLOSE.1);
    told.exact += i64::from(near && transfer_bytes(decided) == then.bytes());
    told.decisions += 1;
    let at_ms = convert::ms(made.at);
    if told.decisions == 1 {
        told.from_ms = at_ms;
    }
    told.until_ms = at_ms;
    let name = told.policy.as_str();
    let decided = Other::new(made.answer.policy.clone(), observation, decided);
    let previewed = Other::new(name.into(), observation, previewed);
    if decided.node != previewed.node {
        told.differ += 1;
        let alternative = |other| Some(convert::alternative(&made.answer, other));
        let task = made.request.task.as_ref();
        told.differences.push(wire::Difference {
            decision_id: made.answer.decision_id.clone(),
            at_ms,
            task_kind: task.map_or_else(String::new, |task| task.kind.clone()),
            decided: alternative(&decided),
            previewed: alternative(&previewed),
        });
    }
    add(told.decided.get_or_insert_default(), &decided);
    add(told.previewed.get_or_insert_default(), &previewed);
}

fn add(sums: &mut wire::Expected, other: &Other) {
    sums.transfer_bytes = sums.transfer_bytes.saturating_add(other.bytes as i64);
    sums.response_s += other.response_s;
    sums.cost += other.cost;
}
