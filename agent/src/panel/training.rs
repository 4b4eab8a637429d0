//! Training runs: how they learn, live, and what came of it.

use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use maud::html;
use remora_proto::v1 as wire;
use remora_proto::v1::training_service_server::TrainingService;
use remora_trainer::plot::Series;

use super::page::{Page, badge, empty, escaped, figures, live, pager, search, time};
use super::saved::{BYTES, saved};
use super::{Asked, Asking, Panel, Part, Shown, Visit, chart};
use crate::commands::seconds;

/// Runs on one page, and rows of a table that stands for a curve.
const PAGE: usize = 50;
const ROWS: usize = 60;

pub fn routes() -> Router<Panel> {
    Router::new().route("/training", get(all)).route("/training/{*path}", get(inner))
}

async fn all(visit: Visit) -> Response {
    visit.page(async |asked: &Asked<'_>| list(asked, &visit.asking).await).await
}

/// A run, or a file of one: names of runs have slashes, and files come after `/files/`.
async fn inner(visit: Visit, Path(path): Path<String>) -> Response {
    match path.rsplit_once("/files/") {
        Some((id, name)) => file(&visit.asked(), id, name).await,
        None => visit.page(async |asked: &Asked<'_>| one(asked, path).await).await,
    }
}

async fn file(asked: &Asked<'_>, id: &str, name: &str) -> Response {
    let request = wire::GetTrainingFileRequest { id: id.to_owned(), name: name.to_owned() };
    saved(asked.panel.training.get_file(asked.request(request)).await, BYTES, name).await
}

async fn list(asked: &Asked<'_>, asking: &Asking) -> Shown {
    asked.demand("TrainingService/ListRuns")?;
    if asked.panel.training.runs.is_none() {
        let next = html! { "Start it with " code { "--runs FOLDER" } ", and train with "
        code { "remora train --scenario urban-sensing --out FOLDER/first --minutes 10" } "." };
        let main = html! {
            h1 { "Training" }
            (empty("The service was told of no folder with training runs.", next))
        };
        return Ok(Page::new("training", "Training", main));
    }
    let (wanted, page) = (asking.wanted(), asking.number());
    let request = wire::ListTrainingRunsRequest {
        matching: wanted.clone(),
        skip: (page * PAGE) as i64,
        limit: Some(PAGE as i64),
    };
    let listed = asked.panel.training.list_runs(asked.request(request)).await?.into_inner();
    let main = html! {
        h1 { "Training" }
        (search("training", "Search (press /)", &wanted))
        (live("runs", html! {
            @if listed.runs.is_empty() && wanted.is_empty() {
                (empty("Nothing was trained here yet.", html! { "Try " code { "remora train --scenario urban-sensing --minutes 10 --out "
                    (listed.folders.first().map_or("FOLDER", String::as_str)) "/first" } "." }))
            } @else if listed.runs.is_empty() { (empty("No run is called so.", html! { a href="training" { "Show all" } })) }
            @else { (table(&listed.runs)) }
        }))
        (pager("training", &wanted, page, listed.total as usize, PAGE))
        (tensorboard(&listed.tensorboard, &listed.folders))
    };
    Ok(Page::new("training", "Training", main))
}

/// Where all curves are: at the address that the service was told, or else with the commands that show them.
fn tensorboard(address: &str, folders: &[String]) -> Part {
    html! {
        @if !address.is_empty() { p.faint { "All curves are in " a href=(address) rel="noreferrer" { "TensorBoard" } "." } }
        @else { @for folder in folders {
            p.faint { "All curves in TensorBoard: " code { "tensorboard --logdir " (folder) } }
        } }
    }
}

fn cost(cost: Option<f64>) -> String {
    cost.map_or_else(|| "—".to_owned(), |cost| format!("{cost:.3}"))
}

/// How far a run is.
fn progress(run: &wire::TrainingRun) -> Part {
    html! {
        @match run.progress {
            Some(share) if run.status == "running" => {
                progress value=(format!("{share:.4}")) max="1" {} " " (format!("{:.0} %", 100.0 * share))
                @if let Some(left) = run.left_s { ", " (duration(left)) " left" }
            }
            Some(share) => { (format!("{:.0} %", 100.0 * share)) }
            None => "—",
        }
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s >= 5400.0 => format!("{:.1} h", s / 3600.0),
        s if s >= 90.0 => format!("{:.0} min", s / 60.0),
        s => format!("{s:.0} s"),
    }
}

fn path(id: &str) -> String {
    format!("training/{}", escaped(id))
}

fn table(runs: &[wire::TrainingRun]) -> Part {
    html! { div.scroll { table.searched {
        thead { tr { th { "Run" } th { "Status" } th { "Learns on" } th { "Progress" } th.number { "Iterations" } th.number { "Decisions" }
            th.number { "Per second" } th.number title="cost over that of greedy-marginal on validation worlds" { "Best of greedy" } th { "Wrote" } } }
        tbody { @for run in runs { tr {
            td { a href=(path(&run.id)) { (run.id) } }
            td { (badge(&run.status)) @if !run.reason.is_empty() { " " (run.reason) } }
            td { (run.scenarios.join(", ")) }
            td { (progress(run)) }
            td.number { (run.iteration) } td.number { (run.decisions) }
            td.number { @match run.decisions_per_s { Some(speed) => (format!("{speed:.0}")), None => "—" } }
            td.number { (cost(run.best_cost)) } td { (time(run.wrote_ms)) }
        } } }
    } } }
}

async fn one(asked: &Asked<'_>, id: String) -> Shown {
    asked.demand("TrainingService/GetRun")?;
    let request = wire::GetTrainingRunRequest { id: id.clone(), points: None };
    let got = asked.panel.training.get_run(asked.request(request)).await?.into_inner();
    let run = got.run.clone().unwrap_or_default();
    let main = html! {
        h1 { "Training run " (id) }
        (live("run", html! {
            (figures([
                ("Status", run.status.clone()),
                ("Iterations", run.iteration.to_string()),
                ("Decisions", run.decisions.to_string()),
                ("Decisions per second", run.decisions_per_s.map_or_else(|| "—".to_owned(), |speed| format!("{speed:.0}"))),
                ("Best, of greedy-marginal", cost(run.best_cost)),
                ("Last", cost(run.last_cost)),
                ("Seed", run.seed.to_string()),
            ]))
            @if !run.reason.is_empty() { p.trouble { (run.reason) } }
            @if run.status == "stopped" { p.told { "Nobody trains here, and it does not say that it ended. It goes on with "
                code { "remora train --resume --out " (run.folder) } "." } }
            @if run.progress.is_some() { p { (progress(&run)) } }
            @if run.damaged_lines > 0 { p.told { (run.damaged_lines) " lines of metrics.jsonl are damaged and left out." } }
            @if !run.by_alpha.is_empty() { p { "Cost over that of greedy-marginal on worlds that training does not see, at each position of the dial: "
                @for at in &run.by_alpha { "α = " (at.alpha) ": " strong { (format!("{:.3}", at.cost)) } " " } } }
        }))
        (live("curves", curves(&got)))
        @if !got.results.is_empty() { h2 { "Compared with others" } (live("results", results(&got.results))) }
        h2 { "More" }
        p { "Learns on " (run.scenarios.join(", ")) ", in " code { (run.folder) } ", last written " (time(run.wrote_ms)) "." }
        (tensorboard(&got.tensorboard, std::slice::from_ref(&run.folder)))
        @if !run.files.is_empty() { ul { @for name in &run.files {
            li { a href={ (path(&id)) "/files/" (name) } { (name) } }
        } } }
    };
    Ok(Page::new("training", format!("Training run {id}"), main))
}

fn curves(got: &wire::GetTrainingRunResponse) -> Part {
    let points = &got.curve;
    if points.is_empty() {
        return empty(
            "It has not ended an iteration yet.",
            "Its curves appear here, and go on by themselves.",
        );
    }
    let series = |name: String, figure: &dyn Fn(&wire::TrainingPoint) -> Option<f64>| Series {
        name,
        points: points
            .iter()
            .filter_map(|point| Some((point.iteration as f64, figure(point)?)))
            .filter(|(_, value)| value.is_finite())
            .collect(),
        joined: true,
    };
    let mut costs = vec![series("all α".to_owned(), &|point| point.cost)];
    let alphas: Vec<f64> = points
        .iter()
        .find(|point| !point.by_alpha.is_empty())
        .map_or_else(Vec::new, |point| point.by_alpha.iter().map(|at| at.alpha).collect());
    for alpha in alphas {
        let at = |point: &wire::TrainingPoint| {
            point.by_alpha.iter().find(|at| at.alpha == alpha).map(|at| at.cost)
        };
        costs.push(series(format!("α = {alpha}"), &at));
    }
    let single =
        |name: &str, figure: fn(&wire::TrainingPoint) -> Option<f64>| vec![series(name.to_owned(), &figure)];
    let charts = [
        ("Validation", "cost over greedy-marginal", costs),
        ("Exploring", "cost over greedy-completion", single("exploring", |point| Some(point.exploring_cost))),
        ("Loss of the policy", "loss", single("policy", |point| Some(point.policy_loss))),
        ("Loss of the critic", "loss", single("critic", |point| point.value_loss)),
        ("Entropy", "nats", single("entropy", |point| Some(point.entropy))),
    ];
    html! {
        @if got.iterations_per_point > 1 { p.faint { "Each point is the mean of " (got.iterations_per_point) " iterations." } }
        div.charts { @for (title, y, series) in &charts {
            @if series.iter().any(|series| series.points.len() > 1) { (chart::curves(title, y, series)) }
        } }
        @if points.len() == 1 { p.faint { "One iteration is no curve yet: its figures are below." } }
        (numbers(points))
    }
}

/// The same as a table, for those who cannot see it.
fn numbers(points: &[wire::TrainingPoint]) -> Part {
    let every = points.len().div_ceil(ROWS).max(1);
    // The last is always among them.
    let shown = points.iter().rev().step_by(every);
    html! { details #numbers { summary { "The curves as numbers" } div.scroll { table {
        thead { tr { th.number { "Iteration" } th { "Learns from" } th.number { "Decisions" } th.number { "Cost over greedy-marginal" }
            th.number { "Exploring" } th.number { "Policy loss" } th.number { "Critic loss" } th.number { "Entropy" } } }
        tbody { @for point in shown { tr {
            td.number { (point.iteration) } td { (phase(&point.phase)) } td.number { (point.decisions) } td.number { (cost(point.cost)) }
            td.number { (cost(Some(point.exploring_cost))) } td.number { (cost(Some(point.policy_loss))) }
            td.number { (cost(point.value_loss)) } td.number { (cost(Some(point.entropy))) }
        } } }
    } } } }
}

fn phase(name: &str) -> &str {
    match name {
        "evolve" => "prices",
        "label" => "look-ahead",
        "improve" => "its own choices",
        other => other,
    }
}

/// At the α in the middle, cheapest first.
fn results(all: &[wire::TrainingResult]) -> Part {
    let mut alphas: Vec<f64> = all.iter().map(|result| result.alpha).collect();
    alphas.sort_by(f64::total_cmp);
    alphas.dedup();
    let middle = alphas.get(alphas.len() / 2).copied().unwrap_or_default();
    let mut shown: Vec<_> = all.iter().filter(|result| result.alpha == middle).collect();
    shown.sort_by(|a, b| a.scenario.cmp(&b.scenario).then(a.cost.total_cmp(&b.cost)));
    html! {
        p.faint { "At α = " (middle) "; the report has the rest. Cost is that of kube-default = 1." }
        div.scroll { table {
            thead { tr { th { "Scenario" } th { "Policy" } th.number { "Cost" } th.number { "Data moved" } th.number { "Mean response" } } }
            tbody { @for result in shown { tr {
                td { (result.scenario) } td { (result.policy) } td.number { (format!("{:.3}", result.cost)) }
                td.number { (format!("{:.2} GB", result.data_moved_gb)) } td.number { (seconds(result.response_mean_s)) }
            } } }
        } }
    }
}
