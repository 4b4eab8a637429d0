//! What makes the quickstart's service alive: a simulated cluster, in real time, whose tasks the service places.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use remora_env::outcome::{End, Outcome};
use remora_env::{Episode, Next, Scenario, Time};
use remora_policies::rollout;
use remora_proto::v1 as wire;
use remora_proto::v1::placement_service_client::PlacementServiceClient;
use tokio::time::{Instant, sleep_until};
use tonic::transport::Channel;

use crate::client;
use crate::service::convert;

/// The dial of the demonstration.
const ALPHA: f64 = 0.5;

/// A simulated back end: tasks arrive, run and end at the pace of the clock, as they would on real nodes.
struct BackEnd {
    placements: PlacementServiceClient<Channel>,
    cluster: String,
    began: Instant,
    decisions: BTreeMap<u64, String>,
    reported: usize,
}

/// Plays worlds of a scenario on a registered cluster, one after the other, until it is dropped.
pub async fn play(server: SocketAddr, scenario: Scenario) -> Result<()> {
    let placements = PlacementServiceClient::new(client::connect(&server.to_string()).await?);
    let cluster = scenario.name().to_owned();
    for seed in 0.. {
        let began = Instant::now();
        let (placements, cluster) = (placements.clone(), cluster.clone());
        let back_end = BackEnd { placements, cluster, began, decisions: BTreeMap::new(), reported: 0 };
        back_end.play(&scenario, seed).await?;
    }
    Ok(())
}

impl BackEnd {
    async fn play(mut self, scenario: &Scenario, seed: u64) -> Result<()> {
        let world = Arc::new(scenario.world(seed));
        let mut episode = Episode::new(world.clone(), ALPHA, rollout::reference(scenario));
        while let Next::Decide(observation) = episode.next() {
            let among =
                observation.nodes().map(|node| world.topology.nodes[node as usize].name.clone()).collect();
            let (id, task) = (observation.id, convert::task(observation.task, &world.catalogue));
            drop(observation);
            self.report(&episode).await?;
            self.until(episode.cluster().now).await;
            let request = wire::PlaceRequest {
                cluster_id: self.cluster.clone(),
                task: Some(task),
                alpha: Some(ALPHA),
                among,
                ..wire::PlaceRequest::default()
            };
            let placed = self.placements.place(request).await.map_err(client::refused)?.into_inner();
            let node =
                world.topology.node_named(&placed.node).context("the service chose a node of its own")?;
            self.decisions.insert(id, placed.decision_id);
            episode.step(node);
        }
        self.report(&episode).await
    }

    /// Reports what ended, each when its time has come.
    async fn report(&mut self, episode: &Episode) -> Result<()> {
        let ended: Vec<Outcome> = episode.outcomes()[self.reported..].to_vec();
        self.reported += ended.len();
        for ended in ended {
            let Some(decision_id) = self.decisions.remove(&ended.task) else { continue };
            self.until(ended.completed).await;
            let report = wire::ReportOutcomeRequest {
                cluster_id: self.cluster.clone(),
                decision_id,
                failed: ended.end != End::Completed,
                response_s: Some(ended.response_s()),
                transfer_bytes: Some((ended.image_bytes + ended.input_bytes + ended.output_bytes) as i64),
                ..wire::ReportOutcomeRequest::default()
            };
            self.placements.report_outcome(report).await.map_err(client::refused)?;
        }
        Ok(())
    }

    async fn until(&self, at: Time) {
        sleep_until(self.began + Duration::from_nanos(at.0)).await;
    }
}
