//! `remora policy`: who decides, what another would have decided, and what that was expected to save.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use remora_policies::Checkpoint;
use remora_proto::v1 as wire;
use remora_proto::v1::policy_service_client::PolicyServiceClient;
use remora_trainer::summary::Evaluation;
use serde_json::{Value, json};

use super::tables::print_rows;
use super::{bytes, date, print, seconds, table, time};
use crate::client::{ServerArgs, in_pieces};
use crate::evaluation::Evaluated;
use crate::service::convert;

/// List and upload the policies of a running service, show what they came to, preview a promotion, and show what was
/// saved.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLE)]
pub enum Command {
    /// List the policies with the roles that they have.
    #[command(after_help = "Example:\n  remora policy list")]
    List(ServerArgs),
    /// Hand over a checkpoint, perhaps with what it came to in an evaluation. It decides nothing before it is given a
    /// role.
    #[command(after_help = "Example:
  remora evaluate --policy kube-default,greedy-marginal-tuned,best.safetensors --alpha 0,0.25,0.5,0.75,1 --out evaluated
  remora policy upload best.safetensors --name mine --evaluation evaluated/evaluation.json")]
    Upload(UploadArgs),
    /// Show what a policy came to beside others, as it was evaluated.
    #[command(after_help = "Example:\n  remora policy evaluation pretrained --alpha 0.5")]
    Evaluation(EvaluationArgs),
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
pub struct UploadArgs {
    /// The checkpoint.
    file: PathBuf,
    /// What to call it [default: as its training run or its file].
    #[arg(long)]
    name: Option<String>,
    /// What to remember of it.
    #[arg(long, default_value = "")]
    note: String,
    /// evaluation.json of an evaluation in which it was played: `remora evaluate --out` writes one.
    #[arg(long, value_name = "FILE")]
    evaluation: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct EvaluationArgs {
    /// Id, name or alias of the policy.
    policy: String,
    /// Only at this position of the dial.
    #[arg(long, value_parser = super::alpha)]
    alpha: Option<f64>,
    #[command(flatten)]
    server: ServerArgs,
}

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

/// Runs one of these commands.
///
/// # Errors
/// When the service cannot be reached or refuses, or a file cannot be read.
pub async fn run(command: Command, json: bool) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list(args, json).await,
        Command::Upload(args) => upload(args, json).await,
        Command::Evaluation(args) => evaluation(args, json).await,
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

async fn upload(args: UploadArgs, json: bool) -> anyhow::Result<()> {
    let UploadArgs { file, name, note, evaluation, server } = args;
    // The service would refuse it too, but this says in which file.
    let checkpoint = Checkpoint::load(&file)?;
    let evaluation = evaluation.map(|path| evaluated(&path, &checkpoint.id())).transpose()?;
    let (name, bytes) = (name.unwrap_or_else(|| super::called(&file)), checkpoint.to_bytes());
    let first = wire::UploadPolicyRequest { name, note, evaluation, chunk: Vec::new() };
    let piece = |chunk| wire::UploadPolicyRequest { chunk, ..Default::default() };
    let pieces: Vec<_> = std::iter::once(first).chain(in_pieces(&bytes).map(piece)).collect();
    let ask = |wire| {
        let pieces = pieces.clone();
        async move { PolicyServiceClient::new(wire).upload(tokio_stream::iter(pieces)).await }
    };
    let policy = server.connect().await?.ask(ask).await?;
    if json {
        return print_rows(&[policy]);
    }
    let known = if policy.evaluated { ", with what it came to" } else { "" };
    print(format_args!("{} is there as {}{known}", policy.name, policy.id))
}

/// What a file says of the checkpoint with this hash.
fn evaluated(path: &Path, hash: &str) -> anyhow::Result<wire::PolicyEvaluation> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let evaluation: Evaluation = serde_json::from_slice(&text).with_context(|| {
        format!("{} is no evaluation; `remora evaluate --out FOLDER` writes one", path.display())
    })?;
    let evaluated = Evaluated::of(&evaluation, hash).with_context(|| path.display().to_string())?;
    Ok(convert::evaluation(hash.to_owned(), &evaluated))
}

async fn evaluation(args: EvaluationArgs, json: bool) -> anyhow::Result<()> {
    let EvaluationArgs { policy, alpha, server } = args;
    let request = wire::GetEvaluationRequest { policy };
    let ask = |wire| {
        let request = request.clone();
        async move { PolicyServiceClient::new(wire).get_evaluation(request).await }
    };
    let mut told = server.connect().await?.ask(ask).await?;
    told.results.retain(|result| alpha.is_none_or(|alpha| result.alpha == alpha));
    if json {
        let wire::PolicyEvaluation { policy, called, results, actor, at_ms } = told;
        return print(
            json!({ "policy": policy, "called": called, "actor": actor, "at_ms": at_ms, "rows": results }),
        );
    }
    let mut table = table(&["scenario", "policy", "alpha", "moved", "mean s", "cost", "worlds"]);
    for wire::TrainingResult { scenario, policy, alpha, cost: of, data_moved_gb, response_mean_s, worlds } in
        told.results
    {
        let policy = if policy == told.called { format!("→ {policy}") } else { policy };
        let (moved, mean) = (format!("{data_moved_gb:.1} GB"), format!("{response_mean_s:.2}"));
        table.add_row([scenario, policy, alpha.to_string(), moved, mean, cost(of), worlds.to_string()]);
    }
    print(table)?;
    print("means over worlds that training never saw; cost is over kube-default's")
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
