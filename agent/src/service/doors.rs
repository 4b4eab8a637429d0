//! The gRPC services: check, ask the owner, answer.

use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_server::ClusterService;
use remora_proto::v1::placement_service_server::PlacementService;
use tonic::{Request, Response, Status};

use super::Clock;
use super::convert;
use super::owner::Handle;
use super::refusal::Refusal;

/// The way from the wire to the owner.
#[derive(Clone)]
pub(super) struct Door {
    pub owner: Handle,
    pub clock: Clock,
}

impl Door {
    /// Checks and builds a cluster beside the requests that are being answered: a large one takes a
    /// while.
    pub async fn register(
        &self,
        request: wire::RegisterClusterRequest,
    ) -> Result<wire::RegisterClusterResponse, Status> {
        let now = self.clock.now();
        let built = tokio::task::spawn_blocking(move || convert::registration(&request, now)).await;
        let registration = built.map_err(|_| Status::internal("the cluster could not be built"))?;
        let (summary, replaced) = self.owner.register(registration.map_err(Refusal::from)?).await?;
        Ok(wire::RegisterClusterResponse { summary: Some(convert::summary(&summary)), replaced })
    }
}

#[tonic::async_trait]
impl ClusterService for Door {
    async fn register(
        &self,
        request: Request<wire::RegisterClusterRequest>,
    ) -> Result<Response<wire::RegisterClusterResponse>, Status> {
        self.register(request.into_inner()).await.map(Response::new)
    }

    async fn list(
        &self,
        _: Request<wire::ListClustersRequest>,
    ) -> Result<Response<wire::ListClustersResponse>, Status> {
        let clusters = self.owner.list().await?.iter().map(convert::summary).collect();
        Ok(Response::new(wire::ListClustersResponse { clusters }))
    }

    async fn get(
        &self,
        request: Request<wire::GetClusterRequest>,
    ) -> Result<Response<wire::GetClusterResponse>, Status> {
        let id = request.into_inner().id;
        let snapshot = self.owner.get(id.clone()).await?;
        let exported = convert::export(&id, &snapshot.cluster, snapshot.reference, &snapshot.decisions);
        Ok(Response::new(wire::GetClusterResponse { cluster: exported.cluster, facts: exported.facts }))
    }

    async fn remove(
        &self,
        request: Request<wire::RemoveClusterRequest>,
    ) -> Result<Response<wire::RemoveClusterResponse>, Status> {
        self.owner.remove(request.into_inner().id).await?;
        Ok(Response::new(wire::RemoveClusterResponse {}))
    }
}

#[tonic::async_trait]
impl PlacementService for Door {
    async fn place(
        &self,
        request: Request<wire::PlaceRequest>,
    ) -> Result<Response<wire::PlaceResponse>, Status> {
        let order = convert::order(&request.into_inner()).map_err(Refusal::from)?;
        let answer = self.owner.place(order).await?;
        Ok(Response::new(convert::answer(&answer)))
    }

    async fn report_outcome(
        &self,
        request: Request<wire::ReportOutcomeRequest>,
    ) -> Result<Response<wire::ReportOutcomeResponse>, Status> {
        let report = convert::report(&request.into_inner()).map_err(Refusal::from)?;
        let already_reported = self.owner.report(report).await?;
        Ok(Response::new(wire::ReportOutcomeResponse { already_reported }))
    }
}
