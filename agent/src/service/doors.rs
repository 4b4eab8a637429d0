//! The gRPC services: check, ask the owner, answer.

mod clusters;
mod placements;
mod policies;

use remora_proto::v1 as wire;
use std::sync::Arc;
use tonic::Status;

use super::Clock;
use super::convert;
use super::owner::{Command, Handle};
use super::refusal::Refusal;

/// The way from the wire to the owner.
#[derive(Clone, Debug)]
pub struct Door {
    pub(super) owner: Handle,
    pub(super) clock: Clock,
}

impl Door {
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
        let (summary, replaced) = self.owner.ask(register).await?;
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
        let update = convert::update(&request).map_err(Refusal::from)?;
        let command = |reply| Command::Update(update, Arc::new(request), reply);
        let (version, already_entered) = self.owner.ask(command).await?;
        Ok(wire::UpdateClusterResponse { version: version as i64, already_entered })
    }

    /// Chooses a node for a task.
    ///
    /// # Errors
    /// As [`PlacementService.Place`](wire::placement_service_server::PlacementService::place).
    pub async fn place(&self, request: wire::PlaceRequest) -> Result<wire::PlaceResponse, Status> {
        placements::answered(placements::ask(self, request, None)).await
    }

    /// Ends a task.
    ///
    /// # Errors
    /// As [`PlacementService.ReportOutcome`](wire::placement_service_server::PlacementService::report_outcome).
    pub async fn report(
        &self,
        request: wire::ReportOutcomeRequest,
    ) -> Result<wire::ReportOutcomeResponse, Status> {
        let report = Box::new(convert::report(&request).map_err(Refusal::from)?);
        let command = |reply| Command::Report(report, Arc::new(request), reply);
        let already_reported = self.owner.ask(command).await?;
        Ok(wire::ReportOutcomeResponse { already_reported })
    }
}
