//! What a recorded cluster is made of.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use remora_env::catalogue::Catalogue;
use remora_env::topology::NodeId;
use remora_proto::v1 as wire;
use wire::change::Change;

use crate::service::convert::{Placed, restructure, restructures};
use crate::service::refusal::Refusal;
use crate::storage::Snapshot;

/// What a cluster is made of in the course of the journal.
#[derive(Debug, Default)]
pub(super) struct Structure {
    /// What was kept of it, after which entry: what was written before may be forgotten.
    kept: Option<(i64, wire::RegisterClusterRequest)>,
    made: Option<wire::RegisterClusterRequest>,
}

impl Structure {
    pub fn new(snapshot: Option<Snapshot>) -> Result<Structure, Refusal> {
        let Some(snapshot) = snapshot else { return Ok(Structure::default()) };
        let body = wire::ClusterSnapshot::decode(snapshot.body.as_slice());
        let body = body.map_err(|error| Refusal::Broken(format!("a snapshot is damaged: {error}")))?;
        let kept = body.registration.map(|registration| (snapshot.sequence, registration));
        Ok(Structure { kept, made: None })
    }

    /// An entry is next.
    pub fn reach(&mut self, sequence: i64) {
        if self.kept.as_ref().is_some_and(|(last, _)| *last < sequence) {
            self.made = self.kept.take().map(|(_, registration)| registration);
        }
    }

    pub fn register(&mut self, request: wire::RegisterClusterRequest) {
        self.made = Some(request);
    }

    /// Enters changes; counts those of what it is made of, of tasks that others placed, of measured transfers and of
    /// other facts.
    pub fn change(&mut self, changes: &[wire::Change]) -> [usize; 4] {
        let mut counts = [0; 4];
        for change in changes {
            match &change.change {
                _ if restructures(std::slice::from_ref(change)) => counts[0] += 1,
                Some(Change::Placed(_)) => counts[1] += 1,
                Some(Change::Transfer(_)) => counts[2] += 1,
                Some(Change::Heartbeat(_) | Change::EndedDecisionId(_)) | None => {}
                Some(_) => counts[3] += 1,
            }
        }
        if let Some(made) = self.made.as_mut().filter(|_| counts[0] > 0)
            && let Err(problem) = restructure(made, changes)
            && self.kept.is_none()
        {
            tracing::warn!(%problem, "a change of the journal could not be carried out again");
        }
        counts
    }

    /// As it was at the end.
    pub fn end(self) -> Option<wire::RegisterClusterRequest> {
        self.kept.map(|(_, registration)| registration).or(self.made)
    }
}

/// Data that stays where it is written has to be written before it is read. Where the recording has nothing of
/// that, it gets a home: where it is, or where its first reader ran. Returns how much data that is.
pub(super) fn settle(
    catalogue: &mut Catalogue,
    tasks: &[Placed],
    facts: &wire::Facts,
    nodes: &BTreeMap<String, NodeId>,
) -> usize {
    let homeless = catalogue.datasets.iter().filter(|dataset| dataset.homes.is_empty());
    let homeless: BTreeSet<String> = homeless.map(|dataset| dataset.name.clone()).collect();
    let mut written = BTreeSet::new();
    // With the node of the first reader.
    let mut found: BTreeMap<&String, &String> = BTreeMap::new();
    for Placed { task, node, .. } in tasks {
        for input in task.inputs.iter().filter(|input| homeless.contains(*input) && !written.contains(*input))
        {
            found.entry(input).or_insert(node);
        }
        written.extend(&task.outputs);
    }
    for dataset in &mut catalogue.datasets {
        let Some(reader) = found.get(&dataset.name) else { continue };
        let told = facts.datasets.iter().filter(|told| told.dataset == dataset.name);
        let places = told.flat_map(|told| &told.holders).chain([*reader]);
        let home = places.filter_map(|name| nodes.get(name)).next();
        dataset.homes = vec![home.copied().unwrap_or(0)];
    }
    found.len()
}
