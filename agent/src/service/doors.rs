//! The gRPC services: check, ask the owner, answer.

mod admin;
pub(crate) mod champion;
mod clusters;
mod placements;
mod policies;
pub(crate) mod training;

use remora_proto::v1 as wire;
use std::sync::Arc;
use tokio::sync::Mutex;
use tonic::Status;

use super::Clock;
use super::convert;
use super::limits::Limiter;
use super::metrics::Metrics;
use super::owner::{Command, Handle};
use super::refusal::Refusal;
use super::settings::Setting;
use crate::storage::{Health, Storage};

/// The way from the wire to the owner.
#[derive(Clone, Debug)]
pub struct Door {
    pub(super) owner: Handle,
    pub(super) clock: Clock,
    /// Where changes of policies are kept, and the one who makes one at a time.
    pub(super) storage: Option<Arc<Storage>>,
    pub(super) changing: Arc<Mutex<()>>,
    /// The one whose preview is being made.
    pub(super) previewing: Arc<Mutex<()>>,
    pub(super) metrics: Arc<Metrics>,
    /// What it was started with.
    pub(super) fixed: Arc<Vec<Setting>>,
}

/// Says in the request's span which cluster it is about.
fn about(cluster: &str) {
    tracing::Span::current().record("cluster", cluster);
}

impl Door {
    /// All metrics as text.
    pub(crate) async fn metrics(&self, limiter: &Limiter) -> String {
        self.metrics.tell(limiter, &self.owner, self.storage.as_deref()).await
    }

    /// How the journal fares; without one, well.
    pub(crate) fn journal(&self) -> Health {
        self.storage.as_ref().map(|storage| storage.recorder().health()).unwrap_or_default()
    }

    /// Enters a cluster. It is checked and built beside the requests that are being answered: a large one
    /// takes a while.
    ///
    /// # Errors
    /// As [`ClusterService.Register`](wire::cluster_service_server::ClusterService::register).
    pub async fn register(
        &self,
        request: wire::RegisterClusterRequest,
    ) -> Result<wire::RegisterClusterResponse, Status> {
        let now = self.clock.now();
        let build = move || {
            let registration = convert::registration(&request, now);
            (registration, request)
        };
        let built = tokio::task::spawn_blocking(build).await;
        let (registration, request) =
            built.map_err(|_| Status::internal("the cluster could not be built"))?;
        let registration = Box::new(registration.map_err(Refusal::from)?);
        let register = |reply| Command::Register(registration, Arc::new(request), reply);
        let (summary, replaced) = self.owner.ask_durably(register).await?;
        Ok(wire::RegisterClusterResponse { summary: Some(convert::summary(&summary)), replaced })
    }

    /// Enters what changed.
    ///
    /// # Errors
    /// As [`ClusterService.Update`](wire::cluster_service_server::ClusterService::update).
    pub async fn update(
        &self,
        request: wire::UpdateClusterRequest,
    ) -> Result<wire::UpdateClusterResponse, Status> {
        about(&request.cluster_id);
        let update = convert::update(&request).map_err(Refusal::from)?;
        let command = |reply| Command::Update(update, Arc::new(request), reply);
        let (version, already_entered) = self.owner.ask_durably(command).await?;
        Ok(wire::UpdateClusterResponse { version: version as i64, already_entered })
    }

    /// Chooses a node for a task.
    ///
    /// # Errors
    /// As [`PlacementService.Place`](wire::placement_service_server::PlacementService::place).
    pub async fn place(&self, request: wire::PlaceRequest) -> Result<wire::PlaceResponse, Status> {
        placements::answered(self, placements::ask(self, request, None)).await
    }

    /// Ends a task.
    ///
    /// # Errors
    /// As [`PlacementService.ReportOutcome`](wire::placement_service_server::PlacementService::report_outcome).
    pub async fn report(
        &self,
        request: wire::ReportOutcomeRequest,
    ) -> Result<wire::ReportOutcomeResponse, Status> {
        about(&request.cluster_id);
        let report = Box::new(convert::report(&request).map_err(Refusal::from)?);
        let command = |reply| Command::Report(report, Arc::new(request), reply);
        let already_reported = self.owner.ask_durably(command).await?;
        Ok(wire::ReportOutcomeResponse { already_reported })
    }
}
