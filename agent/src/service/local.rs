//! The service without a network, for those in the same process.

use std::sync::Arc;

use anyhow::anyhow;
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_server::ClusterService;
use tokio::task::JoinHandle;
use tonic::{Request, Status};

use super::metrics::Metrics;
use super::policies::Policies;
use super::restart::{self, Before};
use super::serving::Serving;
use super::{Clock, Config, Door, owner};
use crate::storage::Storage;

/// What decides, without the ways to it.
pub(super) struct Core {
    pub policies: Policies,
    pub alpha: f64,
    pub clock: Clock,
    pub storage: Option<Arc<Storage>>,
    pub metrics: Arc<Metrics>,
}

impl Core {
    /// Goes on from what was kept, and registers those of these clusters that are not known from before.
    pub async fn start(
        mut self,
        clusters: Vec<wire::RegisterClusterRequest>,
    ) -> anyhow::Result<(Door, JoinHandle<()>)> {
        let serving = Serving::new(self.alpha);
        let before = match &self.storage {
            Some(storage) => {
                restart::restore(storage, &mut self.policies, serving, self.clock.now_ms()).await?
            }
            None => Before::nothing(serving),
        };
        let known: Vec<String> = before.clusters.keys().cloned().collect();
        let Core { policies, clock, storage, metrics, .. } = self;
        let (owner, owning) = owner::start(policies, before, storage.clone(), clock.clone());
        let (changing, previewing, fixed) = Default::default();
        let door = Door { owner, clock, storage, changing, previewing, metrics, fixed };
        let id = |request: &wire::RegisterClusterRequest| {
            request.cluster.as_ref().map_or_else(String::new, |cluster| cluster.id.clone())
        };
        for cluster in clusters.into_iter().filter(|request| !known.contains(&id(request))) {
            door.register(cluster).await.map_err(|status| anyhow!("{}", status.message()))?;
        }
        Ok((door, owning))
    }
}

impl Door {
    /// Starts a service that ends when the last door to it is gone.
    ///
    /// # Errors
    /// When a cluster of the configuration is refused, or what was kept cannot be read.
    pub async fn start(config: Config) -> anyhow::Result<Door> {
        let Config { policy, called, alpha, seed, clock, clusters, storage, .. } = config;
        let policies = Policies::new(policy, called, seed);
        let core = Core { policies, alpha, clock, storage, metrics: Arc::default() };
        core.start(clusters).await.map(|(door, _)| door)
    }

    /// A cluster as it could be registered again.
    ///
    /// # Errors
    /// As [`ClusterService.Get`](ClusterService::get).
    pub async fn get(&self, id: String) -> Result<wire::RegisterClusterRequest, Status> {
        let got = ClusterService::get(self, Request::new(wire::GetClusterRequest { id, live: false }))
            .await?
            .into_inner();
        Ok(wire::RegisterClusterRequest { cluster: got.cluster, facts: got.facts })
    }
}
