//! Runs.

use std::time::Duration;

use maud::html;
use remora_proto::v1 as wire;
use remora_proto::v1::app_service_server::AppService;
use tokio_stream::StreamExt;
use tonic::Status;

use super::map::node_path;
use super::page::{Form, Page, badge, empty, escaped, figures, live, search, time, time_or_none};
use super::{Asked, Asking, Part, Shown};
use crate::commands::app::compare::{ran_s, waited_s};
use crate::commands::{bytes, seconds};

/// Runs on one page.
const PAGE: i64 = 100;
/// Of a log, how much of its end is shown.
const SHOWN: usize = 64 << 10;
/// How long a log that goes on is read for one look at it.
const LOOK: Duration = Duration::from_millis(150);

/// Runs as a table, a line each.
pub fn table(runs: &[wire::Run]) -> Part {
    html! {
        div.scroll { table.searched {
            thead { tr { th { "Run" } th { "Kind" } th { "Status" } th.number { "Version" } th { "Node" } th { "Queued" } th.number { "Took" } th { "Cause" } th { "Why" } } }
            tbody { @for run in runs {
                tr {
                    td { a href={ "runs/" (escaped(&run.id)) } { (run.id) } }
                    td { (run.kind) }
                    td { (badge(&run.status)) }
                    td.number { (run.version) }
                    td { (run.node) }
                    td { (time(run.queued_ms)) }
                    td.number { @match ran_s(run) { Some(took) => (seconds(took)), None => "—" } }
                    td { (run.cause) }
                    td { (run.reason) }
                }
            } }
        } }
    }
}

/// The page of the newest runs, or of those that mention something.
pub async fn list(asked: &Asked<'_>, asking: &Asking) -> Shown {
    if asked.panel.apps.0.is_none() {
        return Ok(Page::new("runs", "Runs", html! { h1 { "Runs" } (super::application::none()) }));
    }
    let wanted = asking.wanted();
    let request = wire::ListRunsRequest {
        before_ms: asking.before,
        limit: Some(PAGE),
        matching: wanted.clone(),
        ..wire::ListRunsRequest::default()
    };
    let runs = asked.panel.apps.list_runs(asked.request(request)).await?.into_inner().runs;
    let main = html! {
        h1 { "Runs" }
        (search("runs", "Search all runs: ids, nodes, reasons, files and their hashes (press /)", &wanted))
        (live("runs", html! {
            @if runs.is_empty() && !wanted.is_empty() { (empty("No run mentions that.", html! { a href="runs" { "Show all" } })) }
            @else if runs.is_empty() {
                (empty("Nothing has run yet.", html! { "A request, data or a schedule makes an application run: "
                    code { "remora app run NAME --input FILE" } ", or the page of one of the " a href="apps" { "applications" } "." }))
            }
            @else { (table(&runs)) }
        }))
        @if let Some(last) = runs.last().filter(|_| runs.len() as i64 == PAGE) {
            p { a href={ "runs?q=" (escaped(&wanted)) "&before=" (last.queued_ms) } { "Earlier ones" } }
        }
    };
    Ok(Page::new("runs", "Runs", main))
}

/// The page of one run.
pub async fn one(asked: &Asked<'_>, id: String) -> Shown {
    let door = &asked.panel.apps;
    let run = door.get_run(asked.request(wire::GetRunRequest { id: id.clone() })).await?.into_inner();
    let log = log(asked, &id).await?;
    let over = run.ended_ms.is_some();
    let cluster = door.0.as_ref().map_or_else(String::new, |apps| apps.cluster.clone());
    let form = |method, label| Form {
        asked,
        method,
        fields: vec![("id", id.clone())],
        back: format!("runs/{id}"),
        label,
        inside: html! {},
    };
    let main = html! {
        h1 { "Run " (run.id) }
        (live("run", html! {
            (figures([
                ("Status", run.status.clone()),
                ("Kind", run.kind.clone()),
                ("Version", run.version.to_string()),
                ("Node", run.node.clone()),
                ("Attempt", run.attempt.to_string()),
                ("CPU", seconds(run.cpu_s)),
                ("Memory", bytes(run.memory_bytes as f64)),
            ]))
            @if !run.reason.is_empty() { p.trouble { (run.reason) } }
            p { "Of " a href={ "apps/" (run.app) } { (run.app) } ", because of " (run.cause) " by " (run.actor) "."
                @if !run.repeats.is_empty() { " Repeats " a href={ "runs/" (run.repeats) } { (run.repeats) } "." }
                " Seed " (run.seed) "." }
            (timeline(&run))
            @if !run.decision_id.is_empty() {
                p { a href={ "placements/" (escaped(&cluster)) "/" (escaped(&run.decision_id)) } { "Why it ran on " (run.node) }
                    ", and " a href=(node_path(&cluster, &run.node)) { "what else is there" } }
            }
        }))
        @if asked.can("AppService/RepeatRun") { div.actions {
            @if over { (form("AppService/RepeatRun", "Repeat").button()) }
            @else { (form("AppService/CancelRun", "Cancel").confirmed("It is stopped, and what it has done so far counts as nothing.", false)) }
        } }
        h2 { "Log" }
        (live("log", html! { @if log.is_empty() { p.faint { "It said nothing." } } @else { pre.log tabindex="0" { (log) } } }))
        h2 { "Read and written" }
        (live("files", html! { (artifacts(&run, "read", &run.inputs)) (artifacts(&run, "wrote", &run.outputs)) }))
        p { a href={ "runs/" (escaped(&run.id)) "/export" } { "Save it with everything that is needed to check and repeat it" }
            " (tar), see the " a href={ "archive?app=" (run.app) } { "archive of " (run.app) } ", or "
            a href={ "runs/" (escaped(&run.id)) "/compare" } { "compare it with another run" } "." }
    };
    Ok(Page::new("runs", run.id.clone(), main))
}

fn artifacts(run: &wire::Run, verb: &str, blobs: &[wire::Artifact]) -> Part {
    html! { @if !blobs.is_empty() { ul { @for blob in blobs {
        li { (verb) " " a href={ "runs/" (escaped(&run.id)) "/files/" (escaped(&blob.name)) } { (blob.name) } ", "
            (bytes(blob.bytes as f64)) ", " code { (blob.hash.get(..12).unwrap_or_default()) } }
    } } } }
}

/// The parts of a run's time, with the colours that stand for them.
pub const TIMES: [(&str, &str); 2] = [("waited", "#8a8f98"), ("ran", "#3d9a5b")];

/// How long a run waited and ran, where so many seconds are the whole width; and that in words.
pub fn drawn(run: &wire::Run, whole_s: f64, words: &str) -> Part {
    let [waited, ran] = [waited_s(run), ran_s(run)].map(|took| 1000.0 * took.unwrap_or(0.0) / whole_s);
    let [(_, grey), (_, green)] = TIMES;
    html! {
        svg role="img" aria-label=(words) width="100%" height="18" viewBox="0 0 1000 18" preserveAspectRatio="none" {
            rect x="0" y="0" width=(waited) height="18" fill=(grey) {}
            rect x=(waited) y="0" width=(ran) height="18" fill=(green) {}
        }
    }
}

/// From the request to its end.
fn timeline(run: &wire::Run) -> Part {
    let Some(waited) = waited_s(run) else {
        return html! { p.faint { "Queued at " (time(run.queued_ms)) "." } };
    };
    let ran = ran_s(run);
    html! {
        (drawn(run, (waited + ran.unwrap_or(0.0)).max(1e-3), "time line"))
        p.faint { "Queued " (time(run.queued_ms)) ", ready and placed after " (seconds(waited)) ", "
            @match ran { Some(ran) => { "ran for " (seconds(ran)) ", ended " (time_or_none(run.ended_ms)) } None => "still runs" } "." }
    }
}

/// The end of what a run said so far.
async fn log(asked: &Asked<'_>, id: &str) -> Result<String, Status> {
    let mut pieces = asked
        .panel
        .apps
        .run_log(asked.request(wire::GetRunRequest { id: id.to_owned() }))
        .await?
        .into_inner();
    let mut said = Vec::new();
    while let Ok(Some(piece)) = tokio::time::timeout(LOOK, pieces.next()).await {
        said.extend(piece?.text);
        if said.len() > 2 * SHOWN {
            said.drain(..said.len() - SHOWN);
        }
    }
    let from = said.len().saturating_sub(SHOWN);
    Ok(String::from_utf8_lossy(&said[from..]).into_owned())
}
