//! All at a glance: clusters as they are loaded, applications as they stand, what runs.

use maud::{PreEscaped, html};
use remora_proto::v1 as wire;
use remora_proto::v1::app_service_server::AppService;
use remora_proto::v1::cluster_service_server::ClusterService;
use remora_proto::v1::policy_service_server::PolicyService;
use tonic::Status;

use super::map::count;
use super::page::{Page, badge, empty, escaped, figures, live, time};
use super::{Asked, Part, Shown, map};
use crate::commands::{bytes, seconds};

/// Applications that are told of, those first that are at something.
const APPS: usize = 20;
/// Clusters that are drawn.
const DRAWN: usize = 6;

pub async fn page(asked: &Asked<'_>) -> Shown {
    let listed = ClusterService::list(&asked.panel.door, asked.request(wire::ListClustersRequest {}))
        .await?
        .into_inner();
    let mut apps = applications(asked).await?;
    apps.sort_by_key(|app| {
        (matches!(app.state.as_str(), "asleep.idle" | "registered" | "retired"), -app.since_ms)
    });
    let running = under_way(asked).await?;
    let sum =
        |count: fn(&wire::ClusterSummary) -> i64| listed.clusters.iter().map(count).sum::<i64>().to_string();
    let awake = apps.iter().filter(|app| app.state == "awake.executing").count();
    asked.only(&listed.clusters);
    let mut drawn = Vec::new();
    for summary in listed.clusters.iter().take(DRAWN) {
        drawn.push((summary, asked.cluster(&summary.id, Some(summary.version)).await?));
    }
    let saved = asked.panel.door.savings(asked.request(wire::SavingsRequest::default())).await?.into_inner();
    let main = html! {
        h1 { "Overview" }
        (live("figures", figures([
            ("Nodes", sum(|told| told.nodes)),
            ("Decisions", sum(|told| told.decisions)),
            ("Tasks running", sum(|told| told.running)),
            ("Tasks waiting", sum(|told| told.queued)),
            ("Applications", apps.len().to_string()),
            ("Awake", awake.to_string()),
        ])))
        h2 { "Saved in the last 24 hours" }
        (live("saved", saved_part(&saved)))
        h2 { "Clusters" }
        (live("clusters", html! {
            @if drawn.is_empty() {
                (empty("No cluster is registered.", html! {
                    "Register one with " code { "remora cluster register urban-sensing" } " or start the service with "
                    code { "--scenario urban-sensing" } "."
                }))
            }
            @for (summary, seen) in &drawn {
                h3 { a href={ "clusters/" (escaped(&summary.id)) } { (summary.id) } " "
                    span.faint { (count(summary.nodes as usize, "node")) ", " (count(summary.running as usize, "task")) " under way, " (summary.queued) " wait" } }
                (PreEscaped(&seen.drawn))
            }
            @if !drawn.is_empty() { (map::key()) }
            @if listed.clusters.len() > DRAWN {
                p { a href="placements" { "All " (listed.clusters.len()) " clusters" } }
            }
        }))
        h2 { "Applications" }
        (live("apps", html! {
            @if apps.is_empty() { (super::application::none()) } @else {
                (super::application::table(&apps[..apps.len().min(APPS)]))
                @if apps.len() > APPS { p { a href="apps" { "All " (apps.len()) " applications" } } }
            }
        }))
        h2 { "Under way" }
        (live("runs", html! {
            @if running.is_empty() { p.faint { "Nothing runs now." } } @else {
                ul { @for run in &running {
                    li { a href={ "runs/" (escaped(&run.id)) } { (run.id) } " " (badge(&run.kind)) " " (badge(&run.status))
                        @if !run.node.is_empty() { " on " (run.node) } ", since " (time(run.queued_ms)) }
                } }
            }
        }))
    };
    Ok(Page::new("", "Overview", main))
}

/// All applications; none where the service runs none.
pub async fn applications(asked: &Asked<'_>) -> Result<Vec<wire::App>, Status> {
    if asked.panel.apps.0.is_none() {
        return Ok(Vec::new());
    }
    Ok(AppService::list(&asked.panel.apps, asked.request(wire::ListAppsRequest {})).await?.into_inner().apps)
}

async fn under_way(asked: &Asked<'_>) -> Result<Vec<wire::Run>, Status> {
    let mut runs = Vec::new();
    if asked.panel.apps.0.is_some() {
        for status in ["running", "launching"] {
            let request = wire::ListRunsRequest {
                status: status.to_owned(),
                limit: Some(20),
                ..wire::ListRunsRequest::default()
            };
            let listed = asked.panel.apps.list_runs(asked.request(request)).await?;
            runs.extend(listed.into_inner().runs);
        }
    }
    Ok(runs)
}

/// What was expected to be saved against Kubernetes' default scheduler.
fn saved_part(saved: &wire::SavingsResponse) -> Part {
    let total = saved.total.clone().unwrap_or_default();
    if total.decisions == 0 {
        return html! { p.faint { "Nothing was decided." } };
    }
    let (moved, usual) = (total.transfer_bytes as f64, total.kube_default_transfer_bytes as f64);
    let (took_s, usual_s) = (total.response_s, total.kube_default_response_s);
    html! {
        (figures([
            ("Data to move", less(moved, usual, bytes)),
            ("Response time", less(took_s, usual_s, seconds)),
            ("Decisions", total.decisions.to_string()),
            ("Of them placed elsewhere", total.differ.to_string()),
        ]))
        p.faint {
            "Against what kube-default, Kubernetes' default scheduler, would have chosen: " (bytes(moved)) " to move instead of "
            (bytes(usual)) ", " (seconds(took_s)) " of response time instead of " (seconds(usual_s)) ", all tasks together. "
            "Expected at the moment of each decision, not measured; since " (time(saved.since_ms)) "."
        }
    }
}

/// How much less one figure is than another, for people.
fn less(ours: f64, other: f64, told: fn(f64) -> String) -> String {
    let off = (ours - other).abs();
    let sign = match ours.total_cmp(&other) {
        std::cmp::Ordering::Equal => return "the same".to_owned(),
        std::cmp::Ordering::Less => "−",
        std::cmp::Ordering::Greater => "+",
    };
    let share = if other > 0.0 { format!(" ({sign}{:.0} %)", 100.0 * off / other) } else { String::new() };
    format!("{sign}{}{share}", told(off))
}
