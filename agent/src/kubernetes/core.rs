//! What is needed of the core, and nothing more: whoever implements [`Core`] can decide for Kubernetes.

use remora_proto::v1 as wire;
use tonic::Status;
use wire::change::Change;

/// Who decides, and knows the clusters.
#[tonic::async_trait]
pub trait Core: Send + Sync + 'static {
    async fn register(&self, request: wire::RegisterClusterRequest) -> Result<(), Status>;

    /// The cluster as it could be registered again.
    async fn get(&self, cluster_id: &str) -> Result<wire::RegisterClusterRequest, Status>;

    /// Enters what changed, in this order.
    async fn update(&self, cluster_id: &str, changes: Vec<Change>) -> Result<(), Status>;

    /// Chooses among these nodes only; among all where none is named.
    async fn place(
        &self,
        request: wire::PlaceRequest,
        among: Vec<String>,
    ) -> Result<wire::PlaceResponse, Status>;

    async fn report(&self, request: wire::ReportOutcomeRequest) -> Result<(), Status>;
}
