//! The core in the same process.

use remora_proto::v1 as wire;
use remora_proto::v1::change::Change as Told;
use tonic::Status;

use super::core::{Change, Core, apply};
use crate::service::Door;

/// Most changes of one update.
const MAX_CHANGES: usize = 10_000;

#[tonic::async_trait]
impl Core for Door {
    async fn register(&self, request: wire::RegisterClusterRequest) -> Result<(), Status> {
        Door::register(self, request).await.map(drop)
    }

    async fn get(&self, cluster_id: &str) -> Result<wire::RegisterClusterRequest, Status> {
        Door::get(self, cluster_id.to_owned()).await
    }

    /// Nodes that came or changed bring switches with them and keep what runs there, which an update
    /// cannot say: then the cluster is registered as changed.
    async fn update(&self, cluster_id: &str, changes: Vec<Change>) -> Result<(), Status> {
        let rebuilt = |change: &Change| matches!(change, Change::Node { .. } | Change::Switch { .. });
        if changes.len() > MAX_CHANGES || changes.iter().any(rebuilt) {
            let mut known = Door::get(self, cluster_id.to_owned()).await?;
            apply(&mut known, changes);
            return Door::register(self, known).await.map(drop);
        }
        let changes = changes.into_iter().filter_map(told).collect();
        let request = wire::UpdateClusterRequest {
            cluster_id: cluster_id.to_owned(),
            changes,
            ..wire::UpdateClusterRequest::default()
        };
        Door::update(self, request).await.map(drop)
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

fn told(change: Change) -> Option<wire::Change> {
    let told = match change {
        Change::NodeGone(name) => Told::NodeLeft(name),
        Change::Image(image) => Told::Image(image),
        Change::Dataset(dataset) => Told::Dataset(dataset),
        Change::TaskKind(kind) => Told::TaskKind(kind),
        Change::Holds { node, layers } => {
            Told::NodeStorage(wire::NodeStorage { node, layers, ..wire::NodeStorage::default() })
        }
        Change::Placed { node, task } => Told::Placed(wire::Placed { node, task: Some(task) }),
        Change::Node { .. } | Change::Switch { .. } => return None,
    };
    Some(wire::Change { change: Some(told) })
}
