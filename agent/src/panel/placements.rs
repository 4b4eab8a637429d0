//! Placements: a live feed of decisions, and the receipt of each.

use std::time::Duration;

use maud::html;
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_event::Event;
use remora_proto::v1::cluster_service_server::ClusterService;
use remora_proto::v1::placement_service_server::PlacementService;
use tokio_stream::StreamExt;
use tonic::Status;

use super::map::{node_path, version};
use super::page::{Form, Page, badge, empty, escaped, figures, live, time};
use super::policies::Names;
use super::{Asked, Part, Shown, chart};
use crate::commands::{bytes, seconds};

/// Decisions that are shown.
const SHOWN: usize = 100;
/// How far back to look for them, in versions of the cluster; where that is no longer kept, less far.
const BACK: [i64; 4] = [4000, 1000, 200, 20];
/// How long what is known already may take to come.
const LOOK: Duration = Duration::from_millis(30);

/// The page of all clusters that tasks are placed on.
pub async fn clusters(asked: &Asked<'_>) -> Shown {
    let listed =
        asked.panel.door.list(asked.request(wire::ListClustersRequest {})).await?.into_inner().clusters;
    let main = html! {
        h1 { "Placements" }
        (live("clusters", html! {
            @if listed.is_empty() { (empty("No cluster is registered.", html! { "Register one with " code { "remora cluster register urban-sensing" } "." })) }
            @else { div.scroll { table {
                thead { tr { th { "Cluster" } th.number { "Nodes" } th.number { "Decisions" } th.number { "Running" } th.number { "Waiting" } th.number { "Images" } th.number { "Datasets" } } }
                tbody { @for told in &listed { tr {
                    td { a href={ "placements/" (escaped(&told.id)) } { (told.id) } }
                    td.number { (told.nodes) } td.number { (told.decisions) } td.number { (told.running) } td.number { (told.queued) }
                    td.number { (told.images) } td.number { (told.datasets) }
                } } }
            } } }
        }))
    };
    Ok(Page::new("placements", "Placements", main))
}

/// The page of a cluster's last decisions.
pub async fn of(asked: &Asked<'_>, cluster: String) -> Shown {
    let version = version(asked, &cluster).await?;
    let version = version.ok_or_else(|| Status::not_found(format!("no cluster is called {cluster:?}")))?;
    let recent = recent(asked, &cluster, version).await?;
    let names = Names::of(asked).await?;
    let main = html! {
        h1 { "Placements on " (cluster) }
        label { "Search (press /)" input type="search" data-search; }
        (live("decisions", html! {
            @if recent.is_empty() { (empty("Nothing was placed here lately.", html! { "Try " code { "remora place --cluster " (cluster) " --task KIND" } "." })) }
            @else { div.scroll { table.searched {
                thead { tr { th { "At" } th { "Task" } th { "Node" } th { "Policy" } th.number { "Expected" } th.number { "To move" } th.number { "Candidates" } th { "Outcome" } } }
                tbody { @for (receipt, outcome) in &recent { (row(&cluster, receipt, outcome.as_ref(), &names)) } }
            } } }
        }))
    };
    Ok(Page::new("placements", format!("Placements on {cluster}"), main))
}

fn row(
    cluster: &str,
    receipt: &wire::Receipt,
    outcome: Option<&wire::ReportOutcomeRequest>,
    names: &Names,
) -> Part {
    let (response, request) =
        (receipt.response.clone().unwrap_or_default(), receipt.request.clone().unwrap_or_default());
    let task = request.task.map_or_else(String::new, |task| task.kind);
    html! { tr {
        td { a href={ "placements/" (escaped(cluster)) "/" (escaped(&response.decision_id)) } { (time(receipt.at_ms)) } }
        td { (task) } td { a href=(node_path(cluster, &response.node)) { (response.node) } } td { (names.show(&response.policy))
            @if !response.fallback.is_empty() { " " (badge("fallback")) } }
        td.number { (seconds(response.predicted_completion_s)) } td.number { (bytes(response.predicted_transfer_bytes as f64)) }
        td.number { (response.feasible) }
        td { @match outcome {
            None => { span.faint { "open" } }
            Some(outcome) if outcome.failed => { (badge("failed")) " " (outcome.reason) }
            Some(outcome) => { (badge("succeeded")) @if let Some(took) = outcome.response_s { " " (seconds(took)) } }
        }
            @if let Some(disputed) = &receipt.disputed { " " span title=(disputed.reason) { (badge("disputed")) } }
        }
    } }
}

type Recent = Vec<(wire::Receipt, Option<wire::ReportOutcomeRequest>)>;

/// Whether a receipt is of a decision.
fn is(receipt: &wire::Receipt, decision: &str) -> bool {
    receipt.response.as_ref().is_some_and(|response| response.decision_id == decision)
}

/// The last decisions, newest first, with what became of them.
async fn recent(asked: &Asked<'_>, cluster: &str, version: i64) -> Result<Recent, Status> {
    let mut events = None;
    for back in BACK {
        let request = wire::WatchClusterRequest {
            cluster_id: cluster.to_owned(),
            after: Some((version - back).max(0)),
        };
        match ClusterService::watch(&asked.panel.door, asked.request(request)).await {
            Ok(stream) => {
                events = Some(stream.into_inner());
                break;
            }
            Err(status) if status.code() == tonic::Code::OutOfRange => {}
            Err(status) => return Err(status),
        }
    }
    let Some(mut events) = events else { return Ok(Vec::new()) };
    let mut decided: Recent = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(LOOK, events.next()).await {
        let event = event?;
        match event.event {
            Some(Event::Decided(receipt)) => decided.push((receipt, None)),
            Some(Event::Ended(outcome)) => {
                if let Some(known) = decided.iter_mut().rev().find(|known| is(&known.0, &outcome.decision_id))
                {
                    known.1 = Some(outcome);
                }
            }
            Some(Event::Disputed(disputed)) => {
                if let Some(known) =
                    decided.iter_mut().rev().find(|known| is(&known.0, &disputed.decision_id))
                {
                    known.0.disputed = (!disputed.withdrawn).then_some(disputed);
                }
            }
            _ => {}
        }
        if event.version >= version {
            break;
        }
    }
    decided.reverse();
    decided.truncate(SHOWN);
    Ok(decided)
}

/// The parts of an expected response: name, colour, seconds.
pub fn phases(candidate: &wire::Candidate) -> [(&'static str, &'static str, f64); 6] {
    [
        ("wait", "#8a8f98", candidate.wait_s),
        ("pull", "#2f7fd0", candidate.pull_s),
        ("fetch", "#17a2a2", candidate.fetch_s),
        ("start", "#b07cd8", candidate.start_s),
        ("execute", "#3d9a5b", candidate.execution_s),
        ("store", "#d08a2f", candidate.store_s),
    ]
}

/// What the colours of these parts are.
pub fn key() -> Part {
    chart::key(phases(&wire::Candidate::default()).map(|(name, colour, _)| (name, colour)))
}

/// The page of one decision: what it was chosen from, and what came of it.
pub async fn receipt(asked: &Asked<'_>, cluster: String, decision: String) -> Shown {
    let request = wire::ExplainRequest { cluster_id: cluster.clone(), decision_id: decision.clone() };
    let receipt = asked.panel.door.explain(asked.request(request)).await?.into_inner();
    let response = receipt.response.clone().unwrap_or_default();
    let task = receipt.request.clone().and_then(|request| request.task).unwrap_or_default();
    let names = Names::of(asked).await?;
    let longest = response.candidates.iter().map(total).fold(1e-9, f64::max);
    let main = html! {
        h1 { "Decision " (decision) }
        p { (task.kind) " was placed on " a href=(node_path(&cluster, &response.node)) { (response.node) } " by " (names.show(&response.policy)) " at " (time(receipt.at_ms))
            ", with the dial at " (format!("{:.2}", response.alpha)) "." }
        @if !response.fallback.is_empty() { p.told { "The configured policy did not decide: " (response.fallback) } }
        (figures([
            ("Candidates", response.feasible.to_string()),
            ("Expected", seconds(response.predicted_completion_s)),
            ("To move", bytes(response.predicted_transfer_bytes as f64)),
            ("Expected cost", format!("{:.3}", receipt.predicted_cost)),
            ("Actual cost", receipt.actual_cost.map_or_else(|| "not known yet".to_owned(), |cost| format!("{cost:.3}"))),
        ]))
        (live("disputed", dispute_part(asked, &receipt)))
        @if let Some(outcome) = &receipt.outcome { (live("outcome", outcome_part(&response, outcome))) }
        h2 { "What was chosen from" }
        (key())
        div.scroll { table {
            thead { tr { th { "Node" } th.number { "Score" } th { "Expected response" } th.number { "Seconds" } th.number { "Bytes moved" } th.number { "Of these leaving the site" } } }
            tbody { @for candidate in &response.candidates { tr {
                td { (candidate.node) @if candidate.node == response.node { " " (badge("chosen")) } @if !candidate.fits_now { " " (badge("has to wait")) } }
                td.number { @match candidate.score { Some(score) => (format!("{score:.3}")), None => "—" } }
                td { (bar(candidate, longest)) }
                td.number { (format!("{:.2}", total(candidate))) }
                td.number { (bytes((candidate.image_bytes + candidate.input_bytes + candidate.output_bytes) as f64)) }
                td.number { (bytes(candidate.wan_bytes as f64)) }
            } } }
        } }
        @for (who, other) in [
            ("The shadow", &receipt.shadow), ("The fallback heuristic", &receipt.fallback),
            ("Kubernetes' default scheduler", &receipt.kube_default),
        ] {
            @if let Some(other) = other {
                p { (who) " (" (names.show(&other.policy)) ") would have chosen " strong { (other.node) } ", at an expected cost of "
                    (format!("{:.3}", other.predicted_cost)) "." }
            }
        }
    };
    Ok(Page::new("placements", "Decision", main))
}

/// Whether somebody says that it was wrong, and how to say so.
fn dispute_part(asked: &Asked<'_>, receipt: &wire::Receipt) -> Part {
    let decision = receipt.response.as_ref().map_or("", |response| &response.decision_id);
    let form = |label, withdraw: bool| {
        let mut fields =
            vec![("cluster_id", receipt.cluster_id.clone()), ("decision_id", decision.to_owned())];
        if withdraw {
            fields.push(("withdraw", "yes".to_owned()));
        }
        let back = format!("placements/{}/{}", escaped(&receipt.cluster_id), escaped(decision));
        Form { asked, method: "PlacementService/Dispute", fields, back, label, inside: html! {} }
    };
    let may = asked.can("PlacementService/Dispute");
    html! {
        @match &receipt.disputed {
            Some(disputed) => {
                p.trouble { (badge("disputed")) " by " (disputed.actor) " at " (time(disputed.at_ms)) ": " (disputed.reason) }
                @if may { div.actions { (form("Dispute no more", true).confirmed("What came of it is learnt from again.", true)) } }
            }
            None => { @if may { div.actions {
                (form("Dispute", false).confirmed("It was wrong: what came of it is left out of what is learnt from. The decision itself stays.", true))
            } } }
        }
    }
}

/// Expected response, seconds.
pub fn total(candidate: &wire::Candidate) -> f64 {
    phases(candidate).iter().map(|(_, _, seconds)| seconds.max(0.0)).sum()
}

/// The parts of an expected response side by side, where the longest, in seconds, has the whole width.
pub fn bar(candidate: &wire::Candidate, longest: f64) -> Part {
    let mut from = 0.0;
    let parts = phases(candidate).map(|(name, colour, value)| {
        let (begins, width) = (from, 260.0 * value.max(0.0) / longest);
        from += width;
        (name, colour, value, begins, width)
    });
    html! {
        svg role="img" aria-label={ (format!("{:.2}", total(candidate))) " seconds" } width="260" height="16" viewBox="0 0 260 16" {
            @for (name, colour, value, begins, width) in parts {
                rect x=(begins) y="0" width=(width) height="16" fill=(colour) { title { (name) " " (format!("{value:.2}")) " s" } }
            }
        }
    }
}

fn outcome_part(response: &wire::PlaceResponse, outcome: &wire::ReportOutcomeRequest) -> Part {
    html! {
        h2 { "What came of it" }
        @if outcome.failed { p.trouble { "It failed. " (outcome.reason) } }
        @if let Some(took) = outcome.response_s {
            p { "It took " (seconds(took)) ", and " (seconds(response.predicted_completion_s)) " were expected." }
        }
        @if let Some(moved) = outcome.transfer_bytes {
            p { (bytes(moved as f64)) " were moved, and " (bytes(response.predicted_transfer_bytes as f64)) " were expected." }
        }
    }
}
