//! `remora place`: ask a running service for a node.

use remora_proto::v1 as wire;
use remora_proto::v1::placement_service_client::PlacementServiceClient;
use remora_proto::v1::policy_service_client::PolicyServiceClient;
use serde_json::Value;

use super::{bytes, print, seconds, table};
use crate::client::{ServerArgs, Service};

/// Ask a running service where a task should run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  remora place --cluster urban-sensing --task train \\
      --image train-0 --input training-set-0 --output model-0 --alpha 0.5 --dry-run")]
pub struct Args {
    /// A registered cluster.
    #[arg(long)]
    cluster: String,
    /// Kind of the task.
    #[arg(long)]
    task: String,
    /// Image that it runs.
    #[arg(long)]
    image: Option<String>,
    /// Dataset that it reads; may be repeated or take commas.
    #[arg(long = "input", value_delimiter = ',')]
    inputs: Vec<String>,
    /// Dataset that it writes a new version of; may be repeated or take commas.
    #[arg(long = "output", value_delimiter = ',')]
    outputs: Vec<String>,
    /// The dial: weight of data moved against response time, 0 to 1; the service's own unless given.
    #[arg(long, value_parser = super::alpha)]
    alpha: Option<f64>,
    /// Only ask: commit nothing.
    #[arg(long)]
    dry_run: bool,
    /// Name of this request: asking again with it gives the same decision.
    #[arg(long)]
    request_id: Option<String>,
    /// How many candidates to list.
    #[arg(long, default_value_t = 5)]
    candidates: u16,
    /// Choose among these nodes only.
    #[arg(long, value_delimiter = ',')]
    among: Vec<String>,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: Args, json: bool) -> anyhow::Result<()> {
    let service = args.server.connect().await?;
    let kind = args.task.clone();
    let task = wire::Task {
        kind: args.task,
        image: args.image.unwrap_or_default(),
        inputs: args.inputs,
        outputs: args.outputs,
    };
    let request = wire::PlaceRequest {
        cluster_id: args.cluster,
        task: Some(task),
        alpha: args.alpha,
        dry_run: args.dry_run,
        // With a name it is decided once, however often it has to be sent.
        request_id: args.request_id.unwrap_or_else(name),
        max_candidates: Some(args.candidates.into()),
        among: args.among,
    };
    let ask = |wire| {
        let request = request.clone();
        async move { PlacementServiceClient::new(wire).place(request).await }
    };
    let answer = service.ask(ask).await?;
    if json {
        return print(as_json(&answer)?);
    }
    let policy = name_of(&service, answer.policy.clone()).await;
    print(as_text(&kind, &policy, &answer))
}

/// A name that no other request has.
fn name() -> String {
    getrandom::u64().map_or_else(|_| String::new(), |number| format!("{number:016x}"))
}

fn as_json(answer: &wire::PlaceResponse) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(answer)?;
    // Candidates are the rows, as in every table.
    value["rows"] = value["candidates"].take();
    value.as_object_mut().map(|object| object.remove("candidates"));
    Ok(value)
}

/// What a policy is called; its id, where nobody says.
async fn name_of(service: &Service, policy: String) -> String {
    let ask = |wire| {
        let request = wire::GetPolicyRequest { policy: policy.clone() };
        async move { PolicyServiceClient::new(wire).get(request).await }
    };
    service.ask(ask).await.map_or(policy.clone(), |known| known.name)
}

fn as_text(kind: &str, policy: &str, answer: &wire::PlaceResponse) -> String {
    let decision = match answer.decision_id.as_str() {
        "" => "dry run".to_owned(),
        id => format!("decision {id}"),
    };
    let wait = if answer.admitted { "" } else { ", where it waits in the queue" };
    let mut text = format!(
        "place {kind} on {}{wait}\n{} at alpha {}, {decision}; {} nodes could run it\n\
         expected: done in {}, {} over the network\n",
        answer.node,
        policy,
        answer.alpha,
        answer.feasible,
        seconds(answer.predicted_completion_s),
        bytes(answer.predicted_transfer_bytes as f64),
    );
    if !answer.candidates.is_empty() {
        text += &format!("\n{}", candidates(&answer.candidates));
    }
    text.trim_end().to_owned()
}

fn candidates(candidates: &[wire::Candidate]) -> comfy_table::Table {
    let header = [
        "candidate",
        "score",
        "wait",
        "pull",
        "fetch",
        "start",
        "execute",
        "store",
        "done in",
        "network",
        "priced",
    ];
    let mut table = table(&header);
    for c in candidates {
        let phases = [c.wait_s, c.pull_s, c.fetch_s, c.start_s, c.execution_s, c.store_s];
        let score = c.score.map_or("not considered".to_owned(), |score| format!("{score:.3}"));
        let network = (c.image_bytes + c.input_bytes + c.output_bytes) as f64;
        let mut row = vec![c.node.clone(), score];
        row.extend(phases.map(seconds));
        row.extend([seconds(phases.iter().sum()), bytes(network), bytes(c.moved_bytes)]);
        table.add_row(row);
    }
    table
}
