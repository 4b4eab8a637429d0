//! The door: wire types stop here. What comes in is checked field by field, so that nothing behind
//! the door can fail on it; what goes out is copied.

mod catalogue;
mod changes;
mod export;
mod facts;
mod field;
mod kept;
mod recorded;
mod structure;
mod told;
mod topology;

use std::collections::BTreeMap;
use std::sync::Arc;

use remora_env::cluster::TaskId;
use remora_env::observation::Reference;
use remora_env::topology::NodeId;
use remora_env::{Cluster, Time};
use remora_proto::v1 as wire;

use super::books::links::Estimates;
use super::messages::{Answer, Dispute, Order, Other, Ranked, Report, Summary};
use super::names::{NamedTask, Names};
use super::serving::Why;

pub use changes::{Delta, Known, MAX_CHANGES, Update, deltas, update};
pub use export::{link_estimates, registration as export, task};
pub use facts::{Beyond, FIRST_REPORTED, MAX_PLACED, settle};
pub use field::{Field, Invalid};
pub use kept::{made, ms, time};
pub use recorded::{Placed, Reported, warm_share};
pub use structure::{restructure, restructures};
pub use told::{
    alias, amend, change, evaluated, evaluation, event, explained, policy, receipt, result, served,
};

/// A cluster that was checked and built.
#[derive(Clone, Debug)]
pub struct Registration {
    pub id: String,
    pub cluster: Cluster,
    pub reference: Reference,
    pub names: Names,
    /// Reported tasks that have a decision id: it, their number, where they are.
    pub placed: Vec<(String, TaskId, NodeId)>,
    pub estimates: Estimates,
    /// Seconds of silence after which a node takes no tasks.
    pub stale_after_s: Option<f64>,
}

/// Most candidates that an answer lists.
const MAX_CANDIDATES: i64 = 20_000;
/// Candidates that an answer lists unless the request says how many.
pub const DEFAULT_CANDIDATES: usize = 20;
/// Most datasets that a task reads.
const MAX_DATASETS: usize = 1000;
/// Largest time, seconds.
const MAX_S: f64 = 1e9;
/// Largest size of one thing, bytes, and of all together.
const MAX_BYTES: i64 = 1_000_000_000_000_000;
const MAX_TOTAL_BYTES: u64 = 1_000_000_000_000_000_000;

/// A cluster with its facts, as of `now`.
pub fn registration(request: &wire::RegisterClusterRequest, now: Time) -> Result<Registration, Invalid> {
    build(request, now, Beyond::Refused)
}

/// The same of one that changed: tasks that no longer fit beside those before them wait.
pub fn changed(request: &wire::RegisterClusterRequest, now: Time) -> Result<Registration, Invalid> {
    build(request, now, Beyond::Waits)
}

fn build(request: &wire::RegisterClusterRequest, now: Time, beyond: Beyond) -> Result<Registration, Invalid> {
    let at = Field::root("cluster");
    let cluster = at.given(&request.cluster)?;
    let id = at.field("id").name(&cluster.id)?;
    let response_s = at.field("reference_response_s").positive(cluster.reference_response_s, MAX_S)?;
    let moved_bytes =
        at.field("reference_moved_bytes").positive(cluster.reference_moved_bytes, MAX_TOTAL_BYTES as f64)?;
    let (topology, vertices) = topology::build(at, cluster)?;
    let catalogue = catalogue::build(at, cluster, &topology, &vertices)?;
    let names = Names::of(&topology, &catalogue);
    let stale_after_s =
        cluster.stale_after_s.map(|s| at.field("stale_after_s").positive(s, MAX_S)).transpose()?;
    let mut built = Cluster::new(Arc::new(topology), Arc::new(catalogue));
    built.now = now;
    let no_facts = wire::Facts::default();
    let reported = request.facts.as_ref().unwrap_or(&no_facts);
    let facts::Applied { placed, estimates } =
        facts::apply(Field::root("facts"), reported, &mut built, &names, beyond)?;
    let reference = Reference::new(response_s, moved_bytes);
    Ok(Registration { id, cluster: built, reference, names, placed, estimates, stale_after_s })
}

/// What a `PlaceRequest` asks for.
pub fn order(request: &wire::PlaceRequest) -> Result<Order, Invalid> {
    let alpha = request.alpha.map(|alpha| Field::root("alpha").number(alpha, 0.0..=1.0)).transpose()?;
    let at = Field::root("task");
    let max_candidates = request
        .max_candidates
        .map(|count| Field::root("max_candidates").whole(count, 0..=MAX_CANDIDATES))
        .transpose()?;
    Ok(Order {
        cluster_id: Field::root("cluster_id").name(&request.cluster_id)?,
        task: named_task(at, at.given(&request.task)?)?,
        alpha,
        dry_run: request.dry_run,
        request_id: optional_name(Field::root("request_id"), &request.request_id)?,
        max_candidates: max_candidates.map_or(DEFAULT_CANDIDATES, |count| count as usize),
        among: among(&request.among)?,
        deadline: None,
    })
}

/// Names of nodes to choose among; whether they exist is seen later.
fn among(names: &[String]) -> Result<Vec<String>, Invalid> {
    Field::root("among").count(names.len(), 0..=MAX_CANDIDATES as usize)?;
    let names = names.iter().enumerate();
    names.map(|(index, name)| Field::item_of_root("among", index).name(name)).collect()
}

/// What a `ReportOutcomeRequest` says.
pub fn report(request: &wire::ReportOutcomeRequest) -> Result<Report, Invalid> {
    let response_s = request.response_s.map(|s| Field::root("response_s").number(s, 0.0..=MAX_S));
    let transfer_bytes = request
        .transfer_bytes
        .map(|bytes| Field::root("transfer_bytes").whole(bytes, 0..=MAX_TOTAL_BYTES as i64));
    phases(&request.phases)?;
    Field::root("reason").text(&request.reason)?;
    Ok(Report {
        transfers: changes::transfers(&request.transfers)?,
        cluster_id: Field::root("cluster_id").name(&request.cluster_id)?,
        decision_id: Field::root("decision_id").name(&request.decision_id)?,
        failed: request.failed,
        response_s: response_s.transpose()?,
        transfer_bytes: transfer_bytes.transpose()?,
    })
}

/// What a `DisputeRequest` says.
pub fn dispute(request: wire::DisputeRequest) -> Result<Dispute, Invalid> {
    let wire::DisputeRequest { cluster_id, decision_id, reason, withdraw } = request;
    Ok(Dispute {
        cluster_id: Field::root("cluster_id").name(&cluster_id)?,
        decision_id: Field::root("decision_id").name(&decision_id)?,
        reason: reason_given(&reason)?.to_owned(),
        withdraw,
    })
}

/// Why somebody does something, which has to be said.
pub fn reason_given(reason: &str) -> Result<&str, Invalid> {
    let at = Field::root("reason");
    at.text(reason)?;
    if reason.trim().is_empty() { Err(at.refuse("is empty, want why")) } else { Ok(reason) }
}

/// Measured phases are only kept; they have to be numbers all the same.
fn phases(phases: &Option<wire::Phases>) -> Result<(), Invalid> {
    let Some(wire::Phases { wait_s, pull_s, fetch_s, start_s, execution_s, store_s }) = *phases else {
        return Ok(());
    };
    let named = [
        ("wait_s", wait_s),
        ("pull_s", pull_s),
        ("fetch_s", fetch_s),
        ("start_s", start_s),
        ("execution_s", execution_s),
        ("store_s", store_s),
    ];
    for (name, seconds) in named.into_iter().filter(|(_, seconds)| seconds.is_some()) {
        Field::root("phases").field(name).number(seconds, 0.0..=MAX_S)?;
    }
    Ok(())
}

fn named_task(at: Field<'_>, task: &wire::Task) -> Result<NamedTask, Invalid> {
    Ok(NamedTask {
        kind: at.field("kind").name(&task.kind)?,
        image: optional_name(at.field("image"), &task.image)?,
        inputs: distinct_names(at, "inputs", &task.inputs)?,
        outputs: distinct_names(at, "outputs", &task.outputs)?,
    })
}

fn distinct_names(at: Field<'_>, list: &'static str, wire: &[String]) -> Result<Vec<String>, Invalid> {
    at.field(list).count(wire.len(), 0..=MAX_DATASETS)?;
    let mut names = Vec::with_capacity(wire.len());
    for (index, name) in wire.iter().enumerate() {
        let at = at.item(list, index);
        let name = at.name(name)?;
        if names.contains(&name) {
            return Err(at.refuse(format_args!("{name:?} is listed twice")));
        }
        names.push(name);
    }
    Ok(names)
}

fn optional_name(at: Field<'_>, name: &str) -> Result<Option<String>, Invalid> {
    if name.is_empty() { Ok(None) } else { at.name(name).map(Some) }
}

/// Enters a name that must be the first of its sort.
fn unique(
    at: Field<'_>,
    name: &str,
    number: u32,
    known: &mut BTreeMap<String, u32>,
) -> Result<String, Invalid> {
    let name = at.name(name)?;
    match known.insert(name.clone(), number) {
        None => Ok(name),
        Some(_) => Err(at.refuse(format_args!("{name:?} is used twice"))),
    }
}

/// An answer on the wire.
pub fn answer(answer: &Answer) -> wire::PlaceResponse {
    let chosen = candidate(answer, &answer.chosen);
    let name = |other: &Other| answer.topology.nodes[other.node as usize].name.clone();
    wire::PlaceResponse {
        predicted_transfer_bytes: answer.chosen.bytes() as i64,
        predicted_completion_s: answer.chosen.candidate.completion_s(),
        node: chosen.node,
        decision_id: answer.decision_id.clone(),
        policy: answer.policy.to_string(),
        fallback: answer.fallback.map_or("", Why::text).to_owned(),
        alpha: answer.alpha,
        admitted: answer.chosen.candidate.fits_now,
        feasible: answer.feasible as i64,
        candidates: answer.candidates.iter().map(|ranked| candidate(answer, ranked)).collect(),
        advised_node: answer.advised.as_ref().map(name).unwrap_or_default(),
    }
}

/// What somebody else would have chosen, on the wire.
pub fn alternative(answer: &Answer, other: &Other) -> wire::Alternative {
    wire::Alternative {
        policy: other.policy.to_string(),
        node: answer.topology.nodes[other.node as usize].name.clone(),
        predicted_cost: other.cost,
        predicted_transfer_bytes: other.bytes as i64,
        predicted_completion_s: other.response_s,
    }
}

fn candidate(answer: &Answer, ranked: &Ranked) -> wire::Candidate {
    let c = &ranked.candidate;
    wire::Candidate {
        node: answer.topology.nodes[c.node as usize].name.clone(),
        score: ranked.score.is_finite().then_some(ranked.score),
        fits_now: c.fits_now,
        wait_s: c.wait_s,
        pull_s: c.pull_s,
        fetch_s: c.fetch_s,
        start_s: c.start_s,
        execution_s: c.execution_s,
        store_s: c.store_s,
        image_bytes: (c.missing_image_bytes - c.arriving_image_bytes) as i64,
        input_bytes: c.missing_input_bytes as i64,
        output_bytes: c.output_bytes as i64,
        wan_bytes: c.wan_bytes as i64,
        moved_bytes: c.moved_bytes,
    }
}

/// Counts on the wire.
pub fn summary(summary: &Summary) -> wire::ClusterSummary {
    wire::ClusterSummary {
        id: summary.id.clone(),
        nodes: summary.nodes as i64,
        images: summary.images as i64,
        datasets: summary.datasets as i64,
        task_kinds: summary.task_kinds as i64,
        running: summary.running as i64,
        queued: summary.queued as i64,
        decisions: summary.decisions as i64,
        version: summary.version as i64,
    }
}
