//! The core in the same process.

use remora_proto::v1 as wire;
use tonic::Status;
use wire::change::Change;

use super::core::Core;
use crate::service::Door;
use crate::service::convert::MAX_CHANGES;

#[tonic::async_trait]
impl Core for Door {
    async fn register(&self, request: wire::RegisterClusterRequest) -> Result<(), Status> {
        Door::register(self, request).await.map(drop)
    }

    async fn get(&self, cluster_id: &str) -> Result<wire::RegisterClusterRequest, Status> {
        Door::get(self, cluster_id.to_owned()).await
    }

    /// More than an update may have are several, each of them entered whole or not at all.
    async fn update(&self, cluster_id: &str, changes: Vec<Change>) -> Result<(), Status> {
        let mut changes = changes.into_iter().map(|change| wire::Change { change: Some(change) }).peekable();
        while changes.peek().is_some() {
            let request = wire::UpdateClusterRequest {
                cluster_id: cluster_id.to_owned(),
                changes: changes.by_ref().take(MAX_CHANGES).collect(),
                ..wire::UpdateClusterRequest::default()
            };
            Door::update(self, request).await?;
        }
        Ok(())
    }

    async fn place(
        &self,
        mut request: wire::PlaceRequest,
        among: Vec<String>,
    ) -> Result<wire::PlaceResponse, Status> {
        request.among = among;
        Door::place(self, request).await
    }

    async fn report(&self, request: wire::ReportOutcomeRequest) -> Result<(), Status> {
        Door::report(self, request).await.map(drop)
    }
}
