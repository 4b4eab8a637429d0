//! The core in the same process.

use std::collections::BTreeSet;

use remora_proto::v1 as wire;
use tonic::Status;

use super::core::{Change, Core, apply};
use crate::service::Local;

#[tonic::async_trait]
impl Core for Local {
    async fn register(&self, request: wire::RegisterClusterRequest) -> Result<(), Status> {
        Local::register(self, request).await.map(drop)
    }

    async fn get(&self, cluster_id: &str) -> Result<wire::RegisterClusterRequest, Status> {
        Local::get(self, cluster_id.to_owned()).await
    }

    async fn update(&self, cluster_id: &str, changes: Vec<Change>) -> Result<(), Status> {
        let mut known = Local::get(self, cluster_id.to_owned()).await?;
        apply(&mut known, changes);
        Local::register(self, known).await.map(drop)
    }

    /// The policy is asked of all nodes. Where it would like another one best, its next best of those
    /// allowed is taken and entered as placed.
    async fn place(
        &self,
        mut request: wire::PlaceRequest,
        among: Vec<String>,
    ) -> Result<wire::PlaceResponse, Status> {
        let listed = request.max_candidates;
        if !among.is_empty() {
            request.max_candidates = Some(20_000);
        }
        let mut answer = Local::place(self, request.clone()).await?;
        if among.is_empty() {
            return Ok(answer);
        }
        let among: BTreeSet<_> = among.iter().map(String::as_str).collect();
        answer.candidates.retain(|candidate| among.contains(candidate.node.as_str()));
        if !among.contains(answer.node.as_str()) {
            if !request.dry_run {
                self.take_back(&request, &answer).await?;
            }
            let best = answer.candidates.first();
            let best =
                best.ok_or_else(|| Status::failed_precondition("none of the nodes can run the task"))?;
            answer.node = best.node.clone();
            answer.admitted = best.fits_now;
            if !request.dry_run {
                self.enter(&request, &answer).await?;
            }
        }
        answer.candidates.truncate(listed.map_or(20, |count| usize::try_from(count).unwrap_or(0)));
        Ok(answer)
    }

    async fn report(&self, request: wire::ReportOutcomeRequest) -> Result<(), Status> {
        Local::report(self, request).await.map(drop)
    }
}

impl Local {
    async fn take_back(
        &self,
        request: &wire::PlaceRequest,
        answer: &wire::PlaceResponse,
    ) -> Result<(), Status> {
        let undone = wire::ReportOutcomeRequest {
            cluster_id: request.cluster_id.clone(),
            decision_id: answer.decision_id.clone(),
            failed: true,
            ..wire::ReportOutcomeRequest::default()
        };
        Local::report(self, undone).await.map(drop)
    }

    async fn enter(&self, request: &wire::PlaceRequest, answer: &wire::PlaceResponse) -> Result<(), Status> {
        let task = wire::PlacedTask {
            task: request.task.clone(),
            expected_remaining_s: Some(answer.predicted_completion_s.clamp(0.0, 1e9)),
            decision_id: answer.decision_id.clone(),
            ..wire::PlacedTask::default()
        };
        let placed = Change::Placed { node: answer.node.clone(), task };
        Core::update(self, &request.cluster_id, vec![placed]).await
    }
}
