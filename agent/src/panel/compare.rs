//! A run beside another: what they were made of, where and how long they ran, what came of them.

use maud::html;
use remora_proto::v1 as wire;
use remora_proto::v1::app_service_server::AppService;
use remora_proto::v1::placement_service_server::PlacementService;
use tonic::Status;

use super::page::{Page, badge, empty, escaped, live};
use super::placements::{self, bar, total};
use super::run::{TIMES, drawn};
use super::{Asked, Asking, Part, Shown, chart};
use crate::commands::app::compare::{About, Line, One, of_version, ran_s, waited_s, whole};
use crate::commands::seconds;

/// Runs that are offered to compare with.
const OFFERED: i64 = 20;

/// The page of a run beside the one that it repeats, the last of its kind before it, or the one that is asked for.
pub async fn page(asked: &Asked<'_>, asking: &Asking, id: String) -> Shown {
    let new = run(asked, id).await?;
    let wanted = asking.with.clone().map(|with| with.trim().to_owned()).filter(|with| !with.is_empty());
    let offered = offered(asked, &new).await?;
    // What it repeats says most, then whatever ran last before it.
    let old = match wanted.or_else(|| offered.first().cloned()) {
        Some(with) => Some(run(asked, with).await?),
        None => None,
    };
    let here = format!("runs/{}/compare", escaped(&new.id));
    let main = html! {
        h1 { "Run " (link(&new.id)) @if let Some(old) = &old { " beside " (link(&old.id)) } }
        form method="get" action=(here) {
            label { "Another run" input name="with" list="offered" value=[old.as_ref().map(|old| &old.id)]; }
            datalist #offered { @for id in &offered { option value=(id) {} } }
            button { "Compare" }
        }
        @match &old {
            Some(old) => (live("compared", beside(asked, old, &new).await?)),
            None => (empty("There is no run of this kind before it.", "Repeat it on its page, or name another run.")),
        }
    };
    Ok(Page::new("runs", format!("{} compared", new.id), main))
}

async fn run(asked: &Asked<'_>, id: String) -> Result<wire::Run, Status> {
    Ok(asked.panel.apps.get_run(asked.request(wire::GetRunRequest { id })).await?.into_inner())
}

fn link(id: &str) -> Part {
    html! { a href={ "runs/" (escaped(id)) } { (id) } }
}

/// The run that it repeats, then those of its kind before it, newest first.
async fn offered(asked: &Asked<'_>, run: &wire::Run) -> Result<Vec<String>, Status> {
    let request = wire::ListRunsRequest {
        app: run.app.clone(),
        kind: run.kind.clone(),
        before_ms: Some(run.queued_ms),
        limit: Some(OFFERED),
        ..wire::ListRunsRequest::default()
    };
    let before = asked.panel.apps.list_runs(asked.request(request)).await?.into_inner().runs;
    let mut ids: Vec<String> = before.into_iter().map(|run| run.id).collect();
    if !run.repeats.is_empty() {
        ids.retain(|id| *id != run.repeats);
        ids.insert(0, run.repeats.clone());
    }
    Ok(ids)
}

/// The version that a run is of, where that is still known.
async fn version(asked: &Asked<'_>, run: &wire::Run) -> Result<Option<wire::Version>, Status> {
    let request = of_version(run);
    let versions = asked.panel.apps.list_versions(asked.request(request)).await?.into_inner().versions;
    Ok(versions.into_iter().next())
}

/// What was expected of the node that a run was placed on, where that is still known.
async fn expected(asked: &Asked<'_>, run: &wire::Run) -> Option<wire::Candidate> {
    let cluster = asked.panel.apps.0.as_ref().map(|apps| apps.cluster.clone())?;
    let request = wire::ExplainRequest { cluster_id: cluster, decision_id: run.decision_id.clone() };
    let explained = asked.panel.door.explain(asked.request(request)).await;
    let response = explained.ok()?.into_inner().response?;
    let node = response.node;
    response.candidates.into_iter().find(|candidate| candidate.node == node)
}

async fn beside(asked: &Asked<'_>, old: &wire::Run, new: &wire::Run) -> Result<Part, Status> {
    let (before, after) = (version(asked, old).await?, version(asked, new).await?);
    let expected = [expected(asked, old).await, expected(asked, new).await];
    let lines = whole(One { run: old, version: before.as_ref() }, One { run: new, version: after.as_ref() });
    let came_of = lines.iter().filter(|line| line.about == About::CameOf);
    let differ = came_of.filter(|line| !line.same()).count();
    Ok(html! {
        @if old.ended_ms.is_none() || new.ended_ms.is_none() { p.told { "One of them is not over yet." } }
        @else if differ == 0 { p.told { "The same came of both." } }
        (times([old, new], &expected))
        @for (about, title) in [
            (About::CameOf, "What came of them"), (About::Ran, "Where and how long they ran"), (About::Made, "What they were made of"),
        ] {
            h2 { (title) }
            (table(about, &lines, old, new))
        }
    })
}

fn table(about: About, lines: &[Line], old: &wire::Run, new: &wire::Run) -> Part {
    html! { div.scroll { table {
        thead { tr { th { "What" } th { (old.id) } th { (new.id) } th { "Differs" } } }
        tbody { @for line in lines.iter().filter(|line| line.about == about) { tr {
            td { (line.what) } td { (line.old) } td { (line.new) }
            td { @if line.same() { span.faint { "no" } } @else { (badge("differs")) } }
        } } }
    } } }
}

/// Both on one scale: how long they waited and ran, and what was expected of their nodes.
fn times(runs: [&wire::Run; 2], expected: &[Option<wire::Candidate>; 2]) -> Part {
    let took = |run: &wire::Run| waited_s(run).unwrap_or(0.0) + ran_s(run).unwrap_or(0.0);
    let whole = runs.into_iter().map(took).fold(1e-3, f64::max);
    let longest = expected.iter().flatten().map(total).fold(1e-9, f64::max);
    html! {
        h2 { "How long" }
        (chart::key(TIMES))
        @for run in runs {
            @let (waited, ran) = (waited_s(run).unwrap_or(0.0), ran_s(run).unwrap_or(0.0));
            @let words = format!("{} on {}: waited {waited:.2} s, ran {ran:.2} s", run.id, node(run));
            p { (words) }
            (drawn(run, whole, &words))
        }
        @if expected.iter().any(Option::is_some) {
            h3 { "As expected when they were placed" }
            (placements::key())
            @for (run, candidate) in runs.into_iter().zip(expected) { @if let Some(candidate) = candidate {
                p { (run.id) " on " (candidate.node) ", " (seconds(total(candidate))) }
                (bar(candidate, longest))
            } }
        }
    }
}

fn node(run: &wire::Run) -> &str {
    if run.node.is_empty() { "no node yet" } else { &run.node }
}
