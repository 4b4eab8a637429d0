//! `remora outcome`: tell a running service what became of a decision.

use remora_proto::v1 as wire;
use remora_proto::v1::placement_service_client::PlacementServiceClient;
use serde_json::json;

use super::cluster::ServerArgs;
use super::print;
use crate::client::{connect, refused};

/// Tell a running service that a task has ended.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  remora outcome --cluster urban-sensing --decision 18a3f-7 --response-s 12.5")]
pub struct Args {
    /// The cluster that it ran on.
    #[arg(long)]
    cluster: String,
    /// The decision, from the answer of `remora place`.
    #[arg(long)]
    decision: String,
    /// It did not run to its end.
    #[arg(long)]
    failed: bool,
    /// Measured seconds from request to completion.
    #[arg(long)]
    response_s: Option<f64>,
    /// Measured bytes that it moved over the network.
    #[arg(long)]
    transfer_bytes: Option<i64>,
    /// Why it failed.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: Args, json: bool) -> anyhow::Result<()> {
    let mut client = PlacementServiceClient::new(connect(&args.server.server).await?);
    let request = wire::ReportOutcomeRequest {
        cluster_id: args.cluster,
        decision_id: args.decision,
        failed: args.failed,
        response_s: args.response_s,
        transfer_bytes: args.transfer_bytes,
        reason: args.reason,
        ..wire::ReportOutcomeRequest::default()
    };
    let answer = client.report_outcome(request).await.map_err(refused)?.into_inner();
    if json {
        print(json!({ "already_reported": answer.already_reported }))
    } else {
        print(if answer.already_reported { "was reported before" } else { "noted" })
    }
}
