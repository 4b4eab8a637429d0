//! The service without a network, for those in the same process.

use anyhow::anyhow;
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_server::ClusterService;
use remora_proto::v1::placement_service_server::PlacementService;
use tonic::{Request, Status};

use super::doors::Door;
use super::{Config, owner};

/// Access to a service that ends when the last of these is gone.
#[derive(Clone)]
pub struct Local(Door);

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Local")
    }
}

impl Local {
    /// Starts a service.
    ///
    /// # Errors
    /// When a cluster of the configuration is refused.
    pub async fn start(config: Config) -> anyhow::Result<Local> {
        let (owner, _) = owner::start(config.policy, config.alpha, config.clock.clone());
        let local = Local(Door { owner, clock: config.clock });
        for cluster in config.clusters {
            local.register(cluster).await.map_err(|status| anyhow!("{}", status.message()))?;
        }
        Ok(local)
    }

    pub async fn register(
        &self,
        request: wire::RegisterClusterRequest,
    ) -> Result<wire::RegisterClusterResponse, Status> {
        self.0.register(request).await
    }

    /// A cluster as it could be registered again.
    pub async fn get(&self, id: String) -> Result<wire::RegisterClusterRequest, Status> {
        let got =
            ClusterService::get(&self.0, Request::new(wire::GetClusterRequest { id })).await?.into_inner();
        Ok(wire::RegisterClusterRequest { cluster: got.cluster, facts: got.facts })
    }

    pub async fn place(&self, request: wire::PlaceRequest) -> Result<wire::PlaceResponse, Status> {
        PlacementService::place(&self.0, Request::new(request)).await.map(tonic::Response::into_inner)
    }

    pub async fn report(
        &self,
        request: wire::ReportOutcomeRequest,
    ) -> Result<wire::ReportOutcomeResponse, Status> {
        PlacementService::report_outcome(&self.0, Request::new(request))
            .await
            .map(tonic::Response::into_inner)
    }
}
