//! What the journal tells of a cluster, as a scenario and a trace: what simulation, evaluation and learning read.

mod cluster;
mod pieces;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;
use remora_env::Time;
use remora_env::catalogue::Catalogue;
use remora_env::import::Imported;
use remora_env::scenario::{ScenarioFile, WorkloadFile, describe};
use remora_env::trace::{Header, Record, Trace, VERSION};
use remora_proto::v1 as wire;

use super::convert::{self, Field, Placed, Reported};
use super::names::Names;
use super::refusal::Refusal;
use super::scribe::EXPIRED;
use crate::storage::{Entry, Kind, Storage};
use cluster::Structure;
pub(crate) use pieces::{Pieces, pieces};

/// Which tasks: those that were placed not before the one time and before the other, milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    pub from_ms: Option<i64>,
    pub until_ms: Option<i64>,
}

impl Span {
    fn has(self, at_ms: i64) -> bool {
        self.from_ms.is_none_or(|from_ms| from_ms <= at_ms)
            && self.until_ms.is_none_or(|until_ms| at_ms < until_ms)
    }
}

/// Reads what was recorded of a cluster: its tasks within a span, on the cluster as it was last registered and
/// changed.
pub(crate) async fn recording(storage: &Storage, cluster: &str, span: Span) -> Result<Imported, Refusal> {
    let unreadable = |error| Refusal::Unavailable(format!("the journal cannot be read: {error}"));
    let snapshot = storage.snapshot(cluster).await.map_err(unreadable)?;
    let mut walk = Walk { structure: Structure::new(snapshot)?, span, ..Walk::default() };
    let mut entries = storage.export(cluster);
    while let Some(recorded) = entries.next().await.map_err(unreadable)? {
        walk.structure.reach(recorded.sequence);
        walk.enter(&recorded.entry).map_err(|error| {
            Refusal::Broken(format!("entry {} of the journal is damaged: {error}", recorded.sequence))
        })?;
    }
    let Some(made) = walk.structure.end() else {
        let known = storage.recorded_clusters().await.map_err(unreadable)?;
        let at = Field::root("cluster_id");
        return Err(Refusal::UnknownCluster(at.unknown(
            "cluster",
            cluster,
            known.iter().map(String::as_str),
        )));
    };
    if walk.tasks.is_empty() {
        let problem = format!("no decision about cluster {cluster:?} is recorded in that time");
        return Err(Refusal::Nowhere(problem));
    }
    let tasks = walk.tasks;
    let written = tokio::task::spawn_blocking(move || written(made, tasks, walk.counts)).await;
    written.map_err(|_| Refusal::Broken("the recording could not be put together".to_owned()))?
}

/// What is told of the recording, in this order, where there is any of it.
const TOLD: [&str; 13] = [
    UNKNOWN, DAMAGED, GONE, EXPIRY, DISPUTED, OPEN, ELSEWHERE, UNMEASURED, UNTIMED, OTHERS, TRANSFERS, FACTS,
    MADE,
];
const UNKNOWN: &str = "tasks left out, as the cluster no longer has their kind, image or data";
const DAMAGED: &str = "decisions left out, as they say too little";
const GONE: &str = "decisions left out with their outcomes, as their node has left the cluster";
const EXPIRY: &str = "outcomes left out, as nobody reported them in time";
const DISPUTED: &str = "outcomes left out, as somebody disputes the decision";
const OPEN: &str = "decisions of which no outcome was reported";
const ELSEWHERE: &str = "outcomes left out, as their decision is not among those exported";
const UNMEASURED: &str = "outcomes without a measured response, which counts until the report came";
const UNTIMED: &str = "completed tasks without a measured execution time, by which calibration goes";
const OTHERS: &str = "tasks placed by others, left out: in a replay they take no room";
const TRANSFERS: &str = "measured transfers, left out: links are as registered until they are calibrated";
const FACTS: &str =
    "changes of facts (availability, disks, links), left out: in a replay they follow from the tasks";
const MADE: &str = "changes of nodes, images, data and kinds, of which the last state is kept";

type Counts = BTreeMap<&'static str, usize>;

/// Goes through the journal.
#[derive(Default)]
struct Walk {
    structure: Structure,
    span: Span,
    tasks: Vec<Placed>,
    /// Of each decision its place among the tasks.
    known: BTreeMap<String, usize>,
    counts: Counts,
}

impl Walk {
    fn count(&mut self, what: &'static str, more: usize) {
        *self.counts.entry(what).or_default() += more;
    }

    fn enter(&mut self, entry: &Entry) -> Result<(), prost::DecodeError> {
        let body = entry.body.as_slice();
        match entry.kind {
            Kind::Registered => self.structure.register(wire::RegisterClusterRequest::decode(body)?),
            Kind::Changed => {
                let [made, placed, measured, facts] =
                    self.structure.change(&wire::UpdateClusterRequest::decode(body)?.changes);
                self.count(MADE, made);
                self.count(OTHERS, placed);
                self.count(TRANSFERS, measured);
                self.count(FACTS, facts);
            }
            Kind::Decided if self.span.has(entry.at_ms) => match Placed::of(wire::Receipt::decode(body)?) {
                Some(task) => {
                    self.known.insert(task.decision_id.clone(), self.tasks.len());
                    self.tasks.push(task);
                }
                None => self.count(DAMAGED, 1),
            },
            Kind::Ended => self.end(entry.at_ms, wire::ReportOutcomeRequest::decode(body)?),
            Kind::Disputed => {
                let wire::Disputed { decision_id, withdrawn, .. } = wire::Disputed::decode(body)?;
                if let Some(&task) = self.known.get(&decision_id) {
                    self.tasks[task].disputed = !withdrawn;
                }
            }
            Kind::Decided | Kind::Removed => {}
        }
        Ok(())
    }

    fn end(&mut self, at_ms: i64, outcome: wire::ReportOutcomeRequest) {
        self.count(TRANSFERS, outcome.transfers.len());
        match self.known.get(&outcome.decision_id) {
            None => self.count(ELSEWHERE, 1),
            Some(_) if outcome.failed && outcome.reason == EXPIRED => self.count(EXPIRY, 1),
            Some(&task) => self.tasks[task].reported = Some(Reported { at_ms, outcome }),
        }
    }
}

/// Puts scenario and trace together.
fn written(
    mut made: wire::RegisterClusterRequest,
    mut tasks: Vec<Placed>,
    mut counts: Counts,
) -> Result<Imported, Refusal> {
    let warm_share = convert::warm_share(&made);
    let facts = made.facts.take().unwrap_or_default();
    let registration = convert::registration(&made, Time::ZERO)?;
    let topology = Arc::clone(&registration.cluster.topology);
    let mut catalogue = Catalogue::clone(&registration.cluster.catalogue);
    let all = tasks.len();
    tasks.retain(|task| has(&registration.names, &task.task));
    counts.insert(UNKNOWN, all - tasks.len());
    tasks.sort_by_key(|task| task.at_ms);
    let nodes = &registration.names.nodes;
    let settled = cluster::settle(&mut catalogue, &tasks, &facts, nodes);
    let mut described = describe(&topology, &catalogue);
    let records = records(&tasks, &catalogue, &described.names, &mut counts);
    let mut notes = vec![
        "the cluster is as it was last registered and changed, also for tasks that were placed before that"
            .to_owned(),
    ];
    let told = TOLD.iter().filter_map(|what| Some((what, counts.get(what).filter(|count| **count > 0)?)));
    notes.extend(told.map(|(what, count)| format!("{what}: {count}")));
    if settled > 0 {
        notes.push(format!("data without a home that is read before it is written, given one: {settled}"));
    }
    notes.append(&mut described.notes);
    let id = registration.id;
    Ok(Imported {
        scenario: ScenarioFile {
            name: id.clone(),
            summary: "A cluster as the service knew it, and the tasks that it placed there.".to_owned(),
            topology: described.topology,
            catalogue: described.catalogue,
            workload: WorkloadFile { warm_share, ..WorkloadFile::default() },
            ..ScenarioFile::default()
        },
        trace: Trace { header: header(&id, &tasks), records },
        notes,
    })
}

fn header(cluster: &str, tasks: &[Placed]) -> Header {
    let date = |task: Option<&Placed>| {
        let at = task.and_then(|task| jiff::Timestamp::from_millisecond(task.at_ms).ok());
        at.map_or_else(String::new, |at| at.to_string())
    };
    let source = format!(
        "cluster {cluster:?}, tasks placed by the service from {} to {}",
        date(tasks.first()),
        date(tasks.last())
    );
    Header { remora_trace: VERSION, source }
}

/// Arrivals, decisions and outcomes in order of time, seconds since the first arrival. `names` has the scenario's
/// name of each node.
fn records(
    tasks: &[Placed],
    catalogue: &Catalogue,
    names: &BTreeMap<String, String>,
    counts: &mut Counts,
) -> Vec<Record> {
    let mut count = |what| *counts.entry(what).or_default() += 1;
    let first_ms = tasks.first().map_or(0, |task| task.at_ms);
    let homeless = catalogue.datasets.iter().filter(|dataset| dataset.homes.is_empty());
    let homeless: BTreeSet<&String> = homeless.map(|dataset| &dataset.name).collect();
    let mut writers: BTreeMap<&String, &str> = BTreeMap::new();
    let called = called(tasks);
    let mut records = Vec::with_capacity(3 * tasks.len());
    for (task, name) in tasks.iter().zip(&called) {
        let at_s = (task.at_ms - first_ms) as f64 / 1000.0;
        // What stays where it was written, is there when the task that wrote it has ended.
        let before: BTreeSet<&str> =
            task.task.inputs.iter().filter_map(|input| writers.get(input).copied()).collect();
        let after = before.into_iter().map(str::to_owned).collect();
        records.push((at_s, Record::Arrival(task.arrival(at_s, name, after))));
        for output in task.task.outputs.iter().filter(|output| homeless.contains(output)) {
            writers.insert(output, name);
        }
        let Some(node) = names.get(&task.node) else {
            count(GONE);
            continue;
        };
        records.push((at_s, Record::Decision(task.decision(at_s, name, node))));
        let Some(reported) = &task.reported else {
            count(OPEN);
            continue;
        };
        if task.disputed {
            count(DISPUTED);
            continue;
        }
        if !reported.is_measured() {
            count(UNMEASURED);
        }
        if !reported.is_timed() {
            count(UNTIMED);
        }
        let kind = catalogue.kinds.iter().find(|kind| kind.name == task.task.kind);
        let ended = task.ended(reported, at_s, name, node, kind.and_then(|kind| kind.deadline_s));
        records.push((ended.at_s, Record::Outcome(ended)));
    }
    // At the same moment the order stays: a task arrives, is placed, and ends.
    records.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    records.into_iter().map(|(_, record)| record).collect()
}

/// Whether a cluster has everything that a task names.
fn has(names: &Names, task: &wire::Task) -> bool {
    let data = |list: &[String]| list.iter().all(|name| names.datasets.contains_key(name));
    let image = task.image.is_empty() || names.images.contains_key(&task.image);
    image && names.kinds.contains_key(&task.kind) && data(&task.inputs) && data(&task.outputs)
}

/// A name for each task, each another: that of its request, or else its decision's id.
fn called(tasks: &[Placed]) -> Vec<&str> {
    let mut taken: BTreeSet<&str> = tasks.iter().map(|task| task.decision_id.as_str()).collect();
    let mut called = Vec::with_capacity(tasks.len());
    for Placed { request_id, decision_id, .. } in tasks {
        let fresh = !request_id.is_empty() && taken.insert(request_id);
        called.push(if fresh { request_id.as_str() } else { decision_id.as_str() });
    }
    called
}
