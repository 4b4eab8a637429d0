//! The service without a network, for those in the same process.

use anyhow::anyhow;
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_server::ClusterService;
use tonic::{Request, Status};

use super::policies::Policies;
use super::restart::Before;
use super::serving::Serving;
use super::{Config, Door, owner};

impl Door {
    /// Starts a service that ends when the last door to it is gone.
    ///
    /// # Errors
    /// When a cluster of the configuration is refused.
    pub async fn start(config: Config) -> anyhow::Result<Door> {
        let policies = Policies::new(config.policy, config.seed);
        let before = Before::nothing(Serving::new(config.alpha));
        let (owner, _) = owner::start(policies, before, None, config.clock.clone());
        let (changing, metrics) = Default::default();
        let door = Door { owner, clock: config.clock, storage: None, changing, metrics };
        for cluster in config.clusters {
            door.register(cluster).await.map_err(|status| anyhow!("{}", status.message()))?;
        }
        Ok(door)
    }

    /// A cluster as it could be registered again.
    ///
    /// # Errors
    /// As [`ClusterService.Get`](ClusterService::get).
    pub async fn get(&self, id: String) -> Result<wire::RegisterClusterRequest, Status> {
        let got = ClusterService::get(self, Request::new(wire::GetClusterRequest { id })).await?.into_inner();
        Ok(wire::RegisterClusterRequest { cluster: got.cluster, facts: got.facts })
    }
}
