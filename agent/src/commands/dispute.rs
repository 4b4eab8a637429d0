//! `remora dispute`: say that a decision was wrong, or that it was not.

use remora_proto::v1 as wire;
use remora_proto::v1::placement_service_client::PlacementServiceClient;
use serde_json::json;

use super::print;
use crate::client::ServerArgs;

/// Say that a decision was wrong: what came of it is left out of what is learnt from.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  remora dispute --cluster urban-sensing --decision 18a3f-7 --reason \"that board stands in the sun\"")]
pub struct Args {
    /// The cluster that it was about.
    #[arg(long)]
    cluster: String,
    /// The decision, from the answer of `remora place`.
    #[arg(long)]
    decision: String,
    /// Why; kept with it.
    #[arg(long)]
    reason: String,
    /// It was not wrong after all.
    #[arg(long)]
    withdraw: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Disputes a decision, or withdraws that.
///
/// # Errors
/// When the service cannot be reached or refuses.
pub async fn run(args: Args, json: bool) -> anyhow::Result<()> {
    let Args { cluster, decision, reason, withdraw, server } = args;
    let request = wire::DisputeRequest { cluster_id: cluster, decision_id: decision, reason, withdraw };
    let ask = |wire| {
        let request = request.clone();
        async move { PlacementServiceClient::new(wire).dispute(request).await }
    };
    let told = server.connect().await?.ask(ask).await?;
    if json {
        return print(json!({ "rows": [told] }));
    }
    let now = if told.withdrawn { "not disputed any more" } else { "disputed" };
    print(format_args!("decision {} is {now}", told.decision_id))
}
