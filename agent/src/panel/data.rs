//! Data: which datasets and images lie where, and what runs of applications read and wrote.

use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use maud::html;
use remora_proto::v1 as wire;
use remora_proto::v1::app_service_server::AppService;
use remora_proto::v1::cluster_service_server::ClusterService;

use super::map::{count, node_path, seen};
use super::page::{Page, badge, empty, escaped, figures, live, pager, search, search_among, time};
use super::saved::saved;
use super::watched::{Seen, image_bytes};
use super::{Asked, Asking, Panel, Part, Shown, Visit};
use crate::commands::bytes;

/// Datasets or images on one page, nodes that are named of each, and runs on a page of the archive.
const PAGE: usize = 100;
const NAMED: usize = 6;
const RUNS: i64 = 50;
/// Clusters on one page: each of them is read.
const CLUSTERS: usize = 20;

pub fn routes() -> Router<Panel> {
    Router::new()
        .route("/data", get(all))
        .route("/data/{cluster}", get(of))
        .route("/archive", get(archive_page))
        .route("/runs/{id}/export", get(export))
}

async fn all(visit: Visit) -> Response {
    visit.page(async |asked: &Asked<'_>| clusters(asked, &visit.asking).await).await
}

async fn of(visit: Visit, Path(cluster): Path<String>) -> Response {
    visit.page(async |asked: &Asked<'_>| one(asked, &visit.asking, cluster).await).await
}

async fn archive_page(visit: Visit) -> Response {
    visit.page(async |asked: &Asked<'_>| archive(asked, &visit.asking).await).await
}

/// A run with all that belongs to it, as a tar archive.
async fn export(visit: Visit, Path(id): Path<String>) -> Response {
    let asked = visit.asked();
    let pieces = asked.panel.apps.export_run(asked.request(wire::GetRunRequest { id: id.clone() })).await;
    saved(pieces, "application/x-tar", &format!("{id}.tar")).await
}

async fn clusters(asked: &Asked<'_>, asking: &Asking) -> Shown {
    let listed = asked.panel.door.list(asked.request(wire::ListClustersRequest {})).await?.into_inner();
    let (page, mut all) = (asking.number(), Vec::new());
    for told in listed.clusters.iter().skip(page * CLUSTERS).take(CLUSTERS) {
        all.push((told, asked.cluster(&told.id, Some(told.version)).await?));
    }
    let main = html! {
        h1 { "Data" }
        p { "What tasks read and run, and where it lies. What runs of applications read and wrote is in the "
            a href="archive" { "archive" } "." }
        (live("clusters", html! {
            @if all.is_empty() { (empty("No cluster is registered.", html! { "Register one with " code { "remora cluster register urban-sensing" } "." })) }
            @else { div.scroll { table {
                thead { tr { th { "Cluster" } th.number { "Datasets" } th.number { "Their bytes" } th.number { "With all copies" }
                    th.number { "Images" } th.number { "Whole copies of images" } } }
                tbody { @for (told, seen) in &all {
                    @let (once, copies) = sizes(seen);
                    tr {
                        td { a href={ "data/" (escaped(&told.id)) } { (told.id) } }
                        td.number { (told.datasets) } td.number { (bytes(once)) } td.number { (bytes(copies)) }
                        td.number { (told.images) } td.number { (seen.pulled.iter().map(Vec::len).sum::<usize>()) }
                    }
                } }
            } } }
        }))
        (pager("data", "", page, listed.clusters.len(), CLUSTERS))
    };
    Ok(Page::new("data", "Data", main))
}

/// Bytes of all datasets, once and with every copy.
fn sizes(seen: &Seen) -> (f64, f64) {
    let sum = |times: &dyn Fn(usize) -> f64| -> f64 {
        let datasets = seen.cluster.datasets.iter().enumerate();
        datasets.map(|(place, dataset)| dataset.bytes.unwrap_or_default() as f64 * times(place)).sum()
    };
    (sum(&|_| 1.0), sum(&|place| seen.holders[place].len() as f64))
}

async fn one(asked: &Asked<'_>, asking: &Asking, id: String) -> Shown {
    let seen = seen(asked, &id).await?;
    let wanted = asking.wanted();
    let lower = wanted.to_lowercase();
    let datasets = seen.cluster.datasets.iter().enumerate().map(|(place, it)| (true, place, &it.name));
    let images = seen.cluster.images.iter().enumerate().map(|(place, it)| (false, place, &it.name));
    let found: Vec<_> =
        datasets.chain(images).filter(|(.., name)| name.to_lowercase().contains(&lower)).collect();
    let (page, here) = (asking.number(), format!("data/{}", escaped(&id)));
    let main = html! {
        h1 { "Data of " a href={ "clusters/" (escaped(&id)) } { (id) } }
        (search(&here, "Search datasets and images (press /)", &wanted))
        (live("data", html! {
            @if found.is_empty() && wanted.is_empty() {
                (empty("This cluster has no datasets and no images.", "They are part of its registration: the tables datasets and images of a scenario."))
            } @else if found.is_empty() { (empty("Nothing is called so.", html! { a href=(here) { "Show all" } })) }
            @else { div.scroll { table.searched {
                thead { tr { th { "What" } th { "Name" } th.number { "Size" } th.number { "Copies" } th { "Where" } } }
                tbody { @for &(dataset, place, _) in found.iter().skip(page * PAGE).take(PAGE) { (row(&seen, dataset, place)) } }
            } } }
        }))
        (pager(&here, &wanted, page, found.len(), PAGE))
    };
    Ok(Page::new("data", format!("Data of {id}"), main))
}

fn row(seen: &Seen, dataset: bool, place: usize) -> Part {
    let (what, name, size, nodes) = if dataset {
        let it = &seen.cluster.datasets[place];
        ("dataset", &it.name, it.bytes.unwrap_or_default(), &seen.holders[place])
    } else {
        let it = &seen.cluster.images[place];
        ("image", &it.name, image_bytes(it), &seen.pulled[place])
    };
    let home = |node: &String| dataset && seen.cluster.datasets[place].homes.contains(node);
    html! { tr {
        td { (what) } td { (name) } td.number { (bytes(size as f64)) } td.number { (nodes.len()) }
        td {
            @for &node in nodes.iter().take(NAMED) {
                @let name = &seen.cluster.nodes[node].name;
                a href=(node_path(&seen.cluster.id, name)) { (name) } @if home(name) { " (home)" } " "
            }
            @if nodes.len() > NAMED { "and " (nodes.len() - NAMED) " more" }
            @if nodes.is_empty() { span.faint { @if dataset { "nowhere yet" } @else { "in registries only" } } }
        }
    } }
}

async fn archive(asked: &Asked<'_>, asking: &Asking) -> Shown {
    asked.demand("AppService/Archive")?;
    if asked.panel.apps.0.is_none() {
        let main = html! { h1 { "Archive" } (super::application::none()) };
        return Ok(Page::new("archive", "Archive", main));
    }
    let door = &asked.panel.apps;
    let cluster = door.0.as_ref().map_or_else(String::new, |apps| apps.cluster.clone());
    let whole = door.archive(asked.request(wire::ArchiveRequest {})).await?.into_inner();
    let app = asking.app.as_deref().unwrap_or_default().trim().to_owned();
    let wanted = asking.wanted();
    let request = wire::ListRunsRequest {
        app: app.clone(),
        before_ms: asking.before,
        limit: Some(RUNS),
        matching: wanted.clone(),
        ..wire::ListRunsRequest::default()
    };
    let runs = door.list_runs(asked.request(request)).await?.into_inner().runs;
    let main = html! {
        h1 { "Archive" }
        p { "What runs read and wrote, under the hash of its contents: the same contents are kept once." }
        (figures([
            ("Files", whole.files.to_string()),
            ("Space", bytes(whole.bytes as f64)),
            ("Runs", whole.apps.iter().map(|app| app.runs).sum::<i64>().to_string()),
        ]))
        (by_app(&whole.apps))
        h2 { @if wanted.is_empty() { "Newest runs" } @else { "Runs that mention " (wanted) } @if !app.is_empty() { ", of " (app) " " a href="archive" { "show all" } } }
        (search_among("archive", "Search runs, names and hashes (press /)", &wanted, &[("app", &app)]))
        @if runs.is_empty() && !wanted.is_empty() {
            (empty("No run mentions that.", html! { a href={ "archive?app=" (escaped(&app)) } { "Show all" } }))
        } @else if runs.is_empty() { (empty("Nothing is kept here.", html! { "What an application reads and writes is kept with each of its " a href="runs" { "runs" } "." })) }
        @else { (files(&runs, &cluster, &wanted.to_lowercase())) }
        @if let Some(last) = runs.last().filter(|_| runs.len() as i64 == RUNS) {
            p { a href={ "archive?app=" (escaped(&app)) "&q=" (escaped(&wanted)) "&before=" (last.queued_ms) } { "Earlier ones" } }
        }
    };
    Ok(Page::new("archive", "Archive", main))
}

fn by_app(apps: &[wire::ArchivedApp]) -> Part {
    html! { @if !apps.is_empty() {
        div.scroll { table {
            thead { tr { th { "Application" } th.number { "Runs" } th.number { "Files" } th.number { "Space, unshared" } th { "Kept" } } }
            tbody { @for app in apps { tr {
                td { a href={ "archive?app=" (app.app) } { (app.app) } }
                td.number { (app.runs) } td.number { (app.artifacts) } td.number { (bytes(app.bytes as f64)) }
                td { @match (app.keep_runs, app.keep_days) {
                    (None, None) => { "all of it " span.faint { "(" code { "[keep]" } " in app.toml says otherwise)" } }
                    (runs, days) => {
                        @if let Some(runs) = runs { "the last " (runs) " runs" }
                        @if runs.is_some() && days.is_some() { ", and of these " }
                        @if let Some(days) = days { "those of " (count(days as usize, "day")) }
                    }
                } }
            } } }
        } }
    } }
}

/// What a run read and wrote: those files that a text, in small letters, is in the name or hash of, or else all.
fn wanted_files<'a>(run: &'a wire::Run, wanted: &str) -> Vec<(&'static str, &'a wire::Artifact)> {
    let read = run.inputs.iter().map(|it| ("read", it));
    let all: Vec<_> = read.chain(run.outputs.iter().map(|it| ("wrote", it))).collect();
    let has = |blob: &wire::Artifact| blob.name.to_lowercase().contains(wanted) || blob.hash.contains(wanted);
    let these: Vec<_> = all.iter().copied().filter(|(_, blob)| has(blob)).collect();
    if these.is_empty() { all } else { these }
}

fn files(runs: &[wire::Run], cluster: &str, wanted: &str) -> Part {
    html! { div.scroll { table.searched {
        thead { tr { th { "Run" } th { "Kind" } th { "At" } th { "Node" } th { "What" } th { "Name" } th.number { "Size" } th { "SHA-256" } } }
        tbody { @for run in runs { @for (verb, blob) in wanted_files(run, wanted) { tr {
            td { a href={ "runs/" (escaped(&run.id)) } { (run.id) } " " a href={ "runs/" (escaped(&run.id)) "/export" } { "export" } }
            td { (badge(&run.kind)) } td { (time(run.queued_ms)) }
            td { @if !run.node.is_empty() { a href=(node_path(cluster, &run.node)) { (run.node) } } } td { (verb) }
            td { a href={ "runs/" (escaped(&run.id)) "/files/" (escaped(&blob.name)) } { (blob.name) } }
            td.number { (bytes(blob.bytes as f64)) } td { code title=(blob.hash) { (blob.hash.get(..16).unwrap_or(&blob.hash)) } }
        } } } }
    } } }
}
