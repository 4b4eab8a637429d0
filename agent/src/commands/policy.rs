//! `remora policy`: who decides, what another would have decided, and what that was expected to save.

use clap::{Args, Subcommand};
use remora_proto::v1 as wire;
use remora_proto::v1::policy_service_client::PolicyServiceClient;
use serde_json::{Value, json};

use super::tables::print_rows;
use super::{bytes, date, print, seconds, table, time};
use crate::client::ServerArgs;

/// List the policies of a running service, preview a promotion, and show what was saved.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLE)]
pub enum Command {
    /// List the policies with the roles that they have.
    #[command(after_help = "Example:\n  remora policy list")]
    List(ServerArgs),
    /// Show what would have changed had another policy made the last decisions. Nothing is changed.
    #[command(after_help = "Example:\n  remora policy preview pretrained --cluster city --last 500")]
    Preview(PreviewArgs),
    /// Show what the decisions of the last hours were expected to save against kube-default.
    #[command(after_help = "Example:\n  remora policy savings --since 2026-03-01T00:00:00Z")]
    Savings(SavingsArgs),
}

const EXAMPLE: &str = "Example:
  remora policy preview pretrained --cluster city
  remora policy savings";

#[derive(Debug, Args)]
pub struct PreviewArgs {
    /// Id, name or alias of the policy.
    #[arg(required_unless_present = "version")]
    policy: Option<String>,
    /// A version of the application remora-policy instead.
    #[arg(long, conflicts_with = "policy", value_parser = clap::value_parser!(i64).range(1..))]
    version: Option<i64>,
    /// The cluster whose decisions are taken up again; may be left out where there is one.
    #[arg(long, default_value = "")]
    cluster: String,
    /// How many decisions, the last ones.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(i64).range(1..=1000))]
    last: i64,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct SavingsArgs {
    /// Only this cluster.
    #[arg(long, default_value = "")]
    cluster: String,
    /// Since when, as 2026-03-01T10:00:00Z; the hour that it is in counts whole. 24 hours ago unless given.
    #[arg(long, value_parser = time)]
    since: Option<i64>,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(command: Command, json: bool) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list(args, json).await,
        Command::Preview(args) => preview(args, json).await,
        Command::Savings(args) => savings(args, json).await,
    }
}

async fn list(args: ServerArgs, json: bool) -> anyhow::Result<()> {
    let ask = |wire| async move { PolicyServiceClient::new(wire).list(wire::ListPoliciesRequest {}).await };
    let policies = args.connect().await?.ask(ask).await?.policies;
    if json {
        return print_rows(&policies);
    }
    let mut table = table(&["policy", "roles", "kind", "uploaded", "id"]);
    for policy in policies {
        let kind = if policy.learned { "learned" } else { "heuristic" };
        let (roles, uploaded) = (policy.aliases.join(", "), date(policy.uploaded_at_ms));
        table.add_row([policy.name, roles, kind.to_owned(), uploaded, policy.id]);
    }
    print(table)
}

async fn preview(args: PreviewArgs, json: bool) -> anyhow::Result<()> {
    let (policy, last) = (args.policy.unwrap_or_default(), Some(args.last));
    let request = wire::PreviewRequest { policy, cluster_id: args.cluster, last, version: args.version };
    let ask = |wire| {
        let request = request.clone();
        async move { PolicyServiceClient::new(wire).preview(request).await }
    };
    let told = args.server.connect().await?.ask(ask).await?;
    if json {
        let rows: Vec<Value> = told.differences.iter().map(row).collect();
        let wire::PreviewResponse { decisions, left_out, exact, differ, from_ms, until_ms, .. } = told;
        return print(json!({
            "policy": told.policy, "cluster": told.cluster_id, "decisions": decisions, "left_out": left_out,
            "exact": exact, "differ": differ, "from_ms": from_ms, "until_ms": until_ms,
            "decided": told.decided, "previewed": told.previewed, "rows": rows,
        }));
    }
    let mut table = table(&["at", "task", "decision", "node then", "cost", "node now", "cost"]);
    for wire::Difference { decision_id, at_ms, task_kind, decided, previewed } in told.differences {
        let (then, now) = (decided.unwrap_or_default(), previewed.unwrap_or_default());
        let (cost_then, cost_now) = (cost(then.predicted_cost), cost(now.predicted_cost));
        table.add_row([date(at_ms), task_kind, decision_id, then.node, cost_then, now.node, cost_now]);
    }
    let (then, now) = (told.decided.unwrap_or_default(), told.previewed.unwrap_or_default());
    let line = |who: &str, expected: wire::Expected| {
        let wire::Expected { transfer_bytes, response_s, cost: mean } = expected;
        let (moved, response, mean) = (bytes(transfer_bytes as f64), seconds(response_s), cost(mean));
        format!("{who:10} {moved} to move, mean response {response}, mean cost {mean}")
    };
    if told.differ > 0 {
        print(table)?;
    }
    let (of, exact) = (told.decisions, told.exact);
    print(format_args!("{} of {of} decisions would have been others; expected then:", told.differ))?;
    print(line("decided", then))?;
    print(line("previewed", now))?;
    let whole = if exact == of { "all".to_owned() } else { format!("{exact}") };
    print(format_args!("{whole} of them were rebuilt exactly as they were; {} left out", told.left_out))
}

fn cost(cost: f64) -> String {
    format!("{cost:.3}")
}

fn row(difference: &wire::Difference) -> Value {
    let wire::Difference { decision_id, at_ms, task_kind, decided, previewed } = difference;
    let (then, now) = (decided.clone().unwrap_or_default(), previewed.clone().unwrap_or_default());
    json!({
        "decision_id": decision_id, "at_ms": at_ms, "task_kind": task_kind, "policy": then.policy,
        "node": then.node, "cost": then.predicted_cost,
        "transfer_bytes": then.predicted_transfer_bytes, "response_s": then.predicted_completion_s,
        "new_node": now.node, "new_cost": now.predicted_cost,
        "new_transfer_bytes": now.predicted_transfer_bytes, "new_response_s": now.predicted_completion_s,
    })
}

async fn savings(args: SavingsArgs, json: bool) -> anyhow::Result<()> {
    let request = wire::SavingsRequest { cluster_id: args.cluster, since_ms: args.since };
    let ask = |wire| {
        let request = request.clone();
        async move { PolicyServiceClient::new(wire).savings(request).await }
    };
    let told = args.server.connect().await?.ask(ask).await?;
    let (since, until) = (told.since_ms, told.until_ms);
    if json {
        return print(
            json!({ "since_ms": since, "until_ms": until, "total": told.total, "rows": told.clusters }),
        );
    }
    let mut table =
        table(&["cluster", "decisions", "differ", "to move", "kube-default", "response", "kube-default"]);
    let total = told.total.map(|total| wire::Saved { cluster_id: "all".to_owned(), ..total });
    for saved in told.clusters.into_iter().chain(total) {
        table.add_row([
            saved.cluster_id,
            saved.decisions.to_string(),
            saved.differ.to_string(),
            bytes(saved.transfer_bytes as f64),
            bytes(saved.kube_default_transfer_bytes as f64),
            seconds(saved.response_s),
            seconds(saved.kube_default_response_s),
        ]);
    }
    print(table)?;
    print(format_args!(
        "as expected at each decision, from {} to {}; nothing of it was measured",
        date(since),
        date(until)
    ))
}
