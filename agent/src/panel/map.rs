//! Where everything is and what runs where: clusters by their sites, a site's nodes, a node, and the links with what
//! they carry.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use maud::html;
use remora_proto::v1 as wire;
use remora_proto::v1::app_service_server::AppService;
use remora_proto::v1::cluster_service_server::ClusterService;

use super::page::{Page, badge, empty, escaped, figures, live, pager, search, time};
use super::watched::{Load, Seen, Site, image_bytes};
use super::{Asked, Asking, Panel, Part, Shown, Visit};
use crate::commands::{bytes, seconds};

/// Sites that the overview draws of a cluster, and nodes of a site one by one; of larger ones it tells how many there
/// are of each load.
const SITES: usize = 40;
const SQUARES: usize = 64;
/// Sites, nodes and links on one page.
const PAGE: usize = 100;
/// Of a node's applications, how many runs are looked through.
const RUNS: i64 = 200;

pub fn routes() -> Router<Panel> {
    Router::new()
        .route("/clusters/{cluster}", get(cluster_page))
        .route("/clusters/{cluster}/links", get(links_page))
        .route("/clusters/{cluster}/nodes/{*node}", get(node_page))
}

async fn cluster_page(visit: Visit, Path(id): Path<String>) -> Response {
    visit.page(async |asked: &Asked<'_>| cluster(asked, &visit.asking, id).await).await
}

async fn links_page(visit: Visit, Path(id): Path<String>) -> Response {
    visit.page(async |asked: &Asked<'_>| links(asked, &visit.asking, id).await).await
}

async fn node_page(visit: Visit, Path((id, name)): Path<(String, String)>) -> Response {
    visit.page(async |asked: &Asked<'_>| node(asked, id, name).await).await
}

/// So many of something.
pub fn count(number: usize, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

pub fn node_path(cluster: &str, node: &str) -> String {
    format!("clusters/{}/nodes/{}", escaped(cluster), escaped(node))
}

/// How far a node is taken: a class for its colour, and a word.
fn load(seen: &Seen, place: usize) -> (&'static str, &'static str) {
    let share = seen.share(place);
    match share {
        _ if seen.nodes[place].facts.unavailable => ("away", "takes no tasks"),
        share if share <= 0.0 => ("idle", "idle"),
        share if share < 0.34 => ("some", "below a third"),
        share if share < 0.8 => ("half", "below four fifths"),
        _ => ("full", "full"),
    }
}

/// The same of a link.
fn wire_class(load: &Load) -> &'static str {
    match load.transfers() {
        0 => "idle",
        1..=2 => "some",
        3..=9 => "half",
        _ => "full",
    }
}

/// A node in one line.
fn told(seen: &Seen, place: usize) -> String {
    let (node, now) = (&seen.cluster.nodes[place], &seen.nodes[place]);
    let state = if now.facts.unavailable { "; takes no tasks" } else { "" };
    format!(
        "{} ({}): {} under way on {:.0} % of its CPU, {} wait{state}",
        node.name,
        node.kind,
        count(now.running(), "task"),
        100.0 * seen.share(place),
        now.waiting
    )
}

/// What the colours of nodes mean.
pub fn key() -> Part {
    let words = [
        ("idle", "idle"),
        ("some", "below a third of its CPU set aside"),
        ("half", "below four fifths"),
        ("full", "full"),
        ("away", "takes no tasks"),
    ];
    html! { ul.legend aria-label="Colours of nodes" { @for (class, word) in words { li { span class={ "node " (class) } {} " " (word) } } } }
}

/// A cluster for the overview; the same for everybody.
pub fn overview(seen: &Seen) -> Part {
    let id = &seen.cluster.id;
    html! {
        div.sites {
            @for (name, site) in seen.sites.iter().take(SITES) { (site_card(seen, name, site)) }
        }
        @if seen.sites.len() > SITES {
            p { a href={ "clusters/" (escaped(id)) } { "All " (seen.sites.len()) " sites" } }
        }
    }
}

fn site_card(seen: &Seen, name: &str, site: &Site) -> Part {
    let id = &seen.cluster.id;
    let running: usize = site.nodes.iter().map(|place| seen.nodes[*place].running()).sum();
    let inside: i64 = site
        .nodes
        .iter()
        .filter_map(|place| seen.nodes[*place].link)
        .map(|link| seen.links[link].transfers())
        .sum();
    html! {
        div.site {
            h3 { a href={ "clusters/" (escaped(id)) "?q=" (escaped(name)) } { (name) } }
            @if let Some(link) = site.uplink { (wire_part(seen, link)) }
            (squares(seen, site))
            @if inside > 0 { p.faint { (count(inside as usize, "transfer")) " between its nodes and its switch" } }
            p.faint { (count(site.nodes.len(), "node")) ", " (count(running, "task"))
                " · " (count(site.datasets, "dataset")) ", " (count(site.images, "image")) }
        }
    }
}

/// A site's nodes, one by one or by load.
fn squares(seen: &Seen, site: &Site) -> Part {
    let id = &seen.cluster.id;
    if site.nodes.len() <= SQUARES {
        return html! { ul.nodes { @for &place in &site.nodes {
            @let words = told(seen, place);
            li { a class={ "node " (load(seen, place).0) } href=(node_path(id, &seen.cluster.nodes[place].name)) title=(words) aria-label=(words) {} }
        } } };
    }
    let of = |class: &str| site.nodes.iter().filter(|place| load(seen, **place).0 == class).count();
    let classes =
        [("full", "full"), ("half", "busy"), ("some", "a little"), ("idle", "idle"), ("away", "away")];
    let whole = site.nodes.len() as f64;
    let mut from = 0.0;
    let parts: Vec<_> = classes
        .into_iter()
        .map(|(class, word)| {
            let (number, begins) = (of(class), from);
            from += 1000.0 * number as f64 / whole;
            (class, word, number, begins, 1000.0 * number as f64 / whole)
        })
        .filter(|part| part.2 > 0)
        .collect();
    let words: Vec<_> = parts.iter().map(|(_, word, number, ..)| format!("{number} {word}")).collect();
    html! {
        svg.loads role="img" aria-label=(words.join(", ")) width="100%" height="18" viewBox="0 0 1000 18" preserveAspectRatio="none" {
            @for (class, word, number, begins, width) in &parts {
                rect class=(class) x=(begins) y="0" width=(width) height="18" { title { (number) " " (word) } }
            }
        }
        p { (words.join(", ")) }
    }
}

/// A link with what it carries.
fn wire_part(seen: &Seen, place: usize) -> Part {
    let (link, load) = (&seen.cluster.links[place], &seen.links[place]);
    let rate = |registered: f64, measured: Option<f64>| bytes(measured.unwrap_or(registered));
    let (up, down) = (
        rate(link.up_bytes_per_s, load.measured.map(|it| it.0)),
        rate(link.down_bytes_per_s, load.measured.map(|it| it.1)),
    );
    let how = if load.measured.is_some() { "as measured" } else { "as registered" };
    let title = format!(
        "{} to {}: {up}/s up and {down}/s down, {how}; price {}; {} up, {} down",
        link.outer,
        link.inner,
        link.price.unwrap_or(1.0),
        count(load.up as usize, "transfer"),
        load.down
    );
    html! {
        p class={ "wire " (wire_class(load)) } title=(title) {
            span.skip { (title) }
            span aria-hidden="true" { "↑ " (up) "/s ↓ " (down) "/s"
                @if load.transfers() > 0 { " · " (count(load.transfers() as usize, "transfer")) } }
        }
    }
}

/// The version that a cluster is at, told cheaply.
pub async fn version(asked: &Asked<'_>, id: &str) -> Result<Option<i64>, tonic::Status> {
    let listed = asked.panel.door.list(asked.request(wire::ListClustersRequest {})).await?.into_inner();
    Ok(listed.clusters.iter().find(|told| told.id == id).map(|told| told.version))
}

pub async fn seen(asked: &Asked<'_>, id: &str) -> Result<Arc<Seen>, tonic::Status> {
    let version = version(asked, id).await?;
    asked.cluster(id, version).await
}

async fn cluster(asked: &Asked<'_>, asking: &Asking, id: String) -> Shown {
    let seen = seen(asked, &id).await?;
    let wanted = asking.wanted();
    let lower = wanted.to_lowercase();
    let fits = |site: &str, place: usize| {
        let node = &seen.cluster.nodes[place];
        site.to_lowercase().contains(&lower)
            || node.name.to_lowercase().contains(&lower)
            || node.kind.to_lowercase().contains(&lower)
    };
    let all = seen.sites.iter().flat_map(|(name, site)| site.nodes.iter().map(move |place| (name, *place)));
    let found: Vec<_> = all.filter(|(site, place)| fits(site, *place)).collect();
    let page = asking.number();
    let shown = found.iter().skip(page * PAGE).take(PAGE);
    let here = format!("clusters/{}", escaped(&id));
    let main = html! {
        h1 { "Cluster " (id) }
        p { a href={ "placements/" (escaped(&id)) } { "Decisions" } " · "
            a href={ (here) "/links" } { (count(seen.links.len(), "link")) } " · "
            a href={ "data/" (escaped(&id)) } { (count(seen.cluster.datasets.len(), "dataset")) " and "
                (count(seen.cluster.images.len(), "image")) } }
        (search(&here, "Search nodes, their kinds and sites (press /)", &wanted))
        (live("nodes", html! {
            @if found.is_empty() { (empty("No node is called so.", html! { a href=(here) { "Show all " (count(seen.nodes.len(), "node")) } })) }
            @else { div.scroll { table.searched {
                thead { tr { th { "Node" } th { "Site" } th { "Kind" } th { "Load" } th.number { "CPU set aside" }
                    th.number { "Runs" } th.number { "Waits" } th.number { "Transfers on its link" } } }
                tbody { @for &(site, place) in shown { (row(&seen, site, place)) } }
            } } }
        }))
        (pager(&here, &wanted, page, found.len(), PAGE))
    };
    Ok(Page::new("", format!("Cluster {id}"), main))
}

fn row(seen: &Seen, site: &str, place: usize) -> Part {
    let (node, now) = (&seen.cluster.nodes[place], &seen.nodes[place]);
    let (class, word) = load(seen, place);
    html! { tr {
        td { a href=(node_path(&seen.cluster.id, &node.name)) { (node.name) } }
        td { (site) } td { (node.kind) }
        td { span class={ "node " (class) } {} " " (word) }
        td.number { (format!("{:.0} %", 100.0 * seen.share(place))) }
        td.number { (now.running()) } td.number { (now.waiting) }
        td.number { @if let Some(link) = now.link { (seen.links[link].transfers()) } @else { "—" } }
    } }
}

async fn links(asked: &Asked<'_>, asking: &Asking, id: String) -> Shown {
    let seen = seen(asked, &id).await?;
    let wanted = asking.wanted();
    let lower = wanted.to_lowercase();
    let mut found: Vec<usize> = (0..seen.links.len())
        .filter(|&place| {
            let link = &seen.cluster.links[place];
            link.outer.to_lowercase().contains(&lower) || link.inner.to_lowercase().contains(&lower)
        })
        .collect();
    // The busiest come first.
    found.sort_by_key(|place| -seen.links[*place].transfers());
    let (page, here) = (asking.number(), format!("clusters/{}/links", escaped(&id)));
    let main = html! {
        h1 { "Links of " a href={ "clusters/" (escaped(&id)) } { (id) } }
        (search(&here, "Search (press /)", &wanted))
        (live("links", html! {
            @if found.is_empty() { (empty("No link begins or ends there.", html! { a href=(here) { "Show all" } })) }
            @else { div.scroll { table.searched {
                thead { tr { th { "From" } th { "To" } th.number { "Up" } th.number { "Down" } th { "Known" } th.number { "Latency" }
                    th.number { "Price" } th.number { "Transfers up" } th.number { "Transfers down" } } }
                tbody { @for &place in found.iter().skip(page * PAGE).take(PAGE) { (link_row(&seen, place)) } }
            } } }
        }))
        (pager(&here, &wanted, page, found.len(), PAGE))
    };
    Ok(Page::new("", format!("Links of {id}"), main))
}

fn link_row(seen: &Seen, place: usize) -> Part {
    let (link, load) = (&seen.cluster.links[place], &seen.links[place]);
    let end = |name: &str| {
        html! { @if seen.places.contains_key(name) { a href=(node_path(&seen.cluster.id, name)) { (name) } } @else { (name) } }
    };
    let (up, down) = load.measured.unwrap_or((link.up_bytes_per_s, link.down_bytes_per_s));
    html! { tr {
        td { (end(&link.outer)) } td { (end(&link.inner)) @if link.wan { " " (badge("leaves the site")) } @if link.shared { " " (badge("shared")) } }
        td.number { (bytes(up)) "/s" } td.number { (bytes(down)) "/s" }
        td { @if load.measured.is_some() { "measured" } @else { "registered" } }
        td.number { (format!("{:.1} ms", 1000.0 * link.latency_s.unwrap_or_default())) } td.number { (link.price.unwrap_or(1.0)) }
        td.number { span class={ "wire " (wire_class(load)) } { (load.up) } } td.number { span class={ "wire " (wire_class(load)) } { (load.down) } }
    } }
}

async fn node(asked: &Asked<'_>, id: String, name: String) -> Shown {
    let seen = seen(asked, &id).await?;
    let place = seen.places.get(&name).copied();
    let place = place
        .ok_or_else(|| tonic::Status::not_found(format!("the cluster {id} has no node called {name:?}")))?;
    let (node, now) = (&seen.cluster.nodes[place], &seen.nodes[place]);
    let disk: i64 = node.disk_bytes.unwrap_or_default();
    let main = html! {
        h1 { "Node " (name) }
        p { "Of " a href={ "clusters/" (escaped(&id)) } { (id) }
            @if let Some(link) = now.link { ", behind " (seen.cluster.links[link].inner) } ". " (told(&seen, place)) "." }
        (live("node", html! {
            @if now.facts.unavailable { p.told { "It takes no tasks for now: it was said to, or nothing was heard of it." } }
            (figures([
                ("Kind", node.kind.clone()),
                ("Instruction set", node.arch.clone()),
                ("CPU set aside", format!("{} of {} m", now.taken_millis, node.cpu_millis)),
                ("Memory", bytes(node.memory_bytes as f64)),
                ("Disk", bytes(disk as f64)),
                ("Accelerators", node.accelerator.as_ref().map_or_else(|| "none".to_owned(), |it| format!("{} × {}", it.count, it.model))),
            ]))
            @if let Some(link) = now.link { (wire_part(&seen, link)) }
            h2 { "What runs there" }
            (tasks(&id, now))
            h2 { "What it is fetching" }
            (fetching(now))
            h2 { "What it holds" }
            (held(&seen, place))
            (runs(asked, &id, &name).await?)
        }))
        @if !node.labels.is_empty() {
            h2 { "Labels" }
            ul { @for (label, value) in &node.labels { li { code { (label) "=" (value) } } } }
        }
    };
    Ok(Page::new("", format!("Node {name}"), main))
}

fn tasks(cluster: &str, now: &super::watched::Node) -> Part {
    html! {
        @if now.facts.placed.is_empty() { p.faint { "Nothing. What is placed here shows as soon as it is." } }
        @else { div.scroll { table {
            thead { tr { th { "Task" } th { "Image" } th { "Reads" } th { "State" } th.number { "Expected to end in" } th { "Decision" } } }
            tbody { @for placed in &now.facts.placed {
                @let task = placed.task.clone().unwrap_or_default();
                tr {
                    td { (task.kind) } td { (task.image) } td { (task.inputs.join(", ")) }
                    td { (badge(if placed.queued { "queued" } else { "running" })) }
                    td.number { (seconds(placed.expected_remaining_s.unwrap_or_default())) }
                    td { @if !placed.decision_id.is_empty() {
                        a href={ "placements/" (escaped(cluster)) "/" (escaped(&placed.decision_id)) } { "why here" }
                    } }
                }
            } }
        } } }
    }
}

fn fetching(now: &super::watched::Node) -> Part {
    html! {
        @if now.facts.arriving.is_empty() { p.faint { "Nothing." } }
        @else { ul { @for arriving in &now.facts.arriving { li {
            @if arriving.dataset.is_empty() { "layer " code { (arriving.layer) } } @else { "dataset " (arriving.dataset) }
            ", expected in " (seconds(arriving.expected_remaining_s.unwrap_or_default()))
        } } } }
    }
}

/// Of what a node holds, how much is listed.
const HELD: usize = 100;

fn held(seen: &Seen, place: usize) -> Part {
    let (datasets, images): (Vec<_>, Vec<_>) =
        (seen.datasets_of(place).collect(), seen.images_of(place).collect());
    let name = &seen.cluster.nodes[place].name;
    html! {
        @if datasets.is_empty() && images.is_empty() { p.faint { "No dataset and no whole image." } }
        @else { div.scroll { table {
            thead { tr { th { "What" } th { "Name" } th.number { "Size" } th { "Kept" } } }
            tbody {
                @for &dataset in datasets.iter().take(HELD) {
                    @let it = &seen.cluster.datasets[dataset];
                    tr { td { "dataset" } td { (it.name) } td.number { (bytes(it.bytes.unwrap_or_default() as f64)) }
                        td { @if it.homes.contains(name) { "for good" } @else { "as a copy" } } }
                }
                @for &image in images.iter().take(HELD) {
                    @let it = &seen.cluster.images[image];
                    tr { td { "image" } td { (it.name) } td.number { (bytes(image_bytes(it) as f64)) } td { "in its cache" } }
                }
            }
        } } }
        @if datasets.len() > HELD || images.len() > HELD { p.faint { "And more: " (datasets.len()) " datasets and " (images.len()) " images in all." } }
    }
}

/// Runs of applications there, where applications are placed over this cluster.
async fn runs(asked: &Asked<'_>, cluster: &str, node: &str) -> Result<Part, tonic::Status> {
    if asked.panel.apps.0.as_ref().is_none_or(|apps| apps.cluster != cluster) {
        return Ok(html! {});
    }
    let request = wire::ListRunsRequest { limit: Some(RUNS), ..wire::ListRunsRequest::default() };
    let runs = AppService::list_runs(&asked.panel.apps, asked.request(request)).await?.into_inner().runs;
    let here: Vec<_> = runs.into_iter().filter(|run| run.node == node).take(20).collect();
    Ok(html! {
        h2 { "Runs of applications" }
        @if here.is_empty() { p.faint { "None of the last " (RUNS) " runs was here." } }
        @else { ul { @for run in &here { li { a href={ "runs/" (escaped(&run.id)) } { (run.id) } " " (badge(&run.status)) " " (time(run.queued_ms)) } } } }
    })
}
