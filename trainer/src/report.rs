//! `report.html`: one self-contained page that shows what a policy saves and how it learned.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::evaluate::{Evaluation, Row};
use crate::plot::{Labels, Scale, Series, plot};
use crate::run::Line;

/// What goes on the page.
#[derive(Debug)]
pub struct Page<'a> {
    pub title: &'a str,
    /// A paragraph for people: what was done, how to do it again.
    pub summary: &'a str,
    pub evaluation: &'a Evaluation,
    /// The learning curve, if a run belongs to it.
    pub lines: &'a [Line],
}

const STYLE: &str = "
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 1280px; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: .2rem }
.plots { display: flex; flex-wrap: wrap; gap: 1rem }
.plots svg { max-width: 100%; height: auto; border-radius: 6px }
.scroll { overflow-x: auto }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap }
th { white-space: normal }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left }
tr.ours { font-weight: 600 }
tr.first td { border-top: 2px solid #8888 }
.note { opacity: .8 }
";

/// Whether a name is of a checkpoint rather than of a heuristic.
pub fn is_learned(policy: &str) -> bool {
    !remora_policies::HEURISTICS.iter().any(|heuristic| heuristic.name == policy)
}

/// Renders the page.
pub fn render(page: &Page<'_>) -> String {
    let (scenarios, _, _) = page.evaluation.axes();
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (page.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (page.title) }
                p { (page.summary) }
                h2 { "Data moved against response time" }
                p.note {
                    "Each point is a policy, averaged over the held-out worlds; towards the lower left is better, and both axes "
                    "are logarithmic. "
                    "The learned policy and greedy-marginal follow the dial α from 0 (only response time counts) "
                    "to 1 (only data moved counts); the others do not know it."
                }
                div.plots { @for scenario in &scenarios { (PreEscaped(trade_off(page.evaluation, scenario))) } }
                h2 { "All figures" }
                (table(page.evaluation))
                @if !page.lines.is_empty() {
                    h2 { "Learning" }
                    p.note {
                        "Cost on validation worlds over that of greedy-marginal, the strongest heuristic here: "
                        "below 1 the learned policy is better. The training curve is measured while exploring, "
                        "over greedy-completion."
                    }
                    div.plots { (PreEscaped(learning_curve(page.lines))) (PreEscaped(training_curve(page.lines))) }
                }
            }
        }
    };
    markup.into_string()
}

fn trade_off(evaluation: &Evaluation, scenario: &str) -> String {
    let (_, policies, alphas) = evaluation.axes();
    let point = |policy: &str, alpha: f64| {
        let mean = |figure: fn(&Row) -> f64| evaluation.mean(scenario, policy, alpha, figure);
        (mean(|row| row.response_mean_s), mean(|row| row.data_moved_gb))
    };
    let series: Vec<Series> = policies
        .iter()
        .map(|policy| {
            let mut points: Vec<_> = alphas.iter().map(|&alpha| point(policy, alpha)).collect();
            points.dedup();
            let joined = points.len() > 1;
            Series { name: policy.clone(), points, joined }
        })
        .collect();
    let labels =
        Labels { title: scenario, x: "mean response time (s)", y: "data moved (GB, price-weighted)" };
    plot(&labels, Scale::Logarithmic, &series)
}

fn table(evaluation: &Evaluation) -> Markup {
    let (scenarios, policies, alphas) = evaluation.axes();
    html! {
        div.scroll { table {
            thead { tr {
                th { "scenario" } th { "policy" } th { "α" } th { "data moved GB" } th { "left a site GB" }
                th { "mean response s" } th { "p95 s" } th { "unplaceable" } th { "failed" }
                th { "cost (kube-default = 1)" } th { "cost against greedy-marginal, 95 % interval" }
                th { "µs per decision" }
            } }
            tbody {
                @for scenario in &scenarios { @for (rank, policy) in policies.iter().enumerate() { @for &alpha in &alphas {
                    @let mean = |figure: fn(&Row) -> f64| evaluation.mean(scenario, policy, alpha, figure);
                    tr.ours[is_learned(policy)].first[rank == 0 && alpha == alphas[0]] {
                        td { (scenario) } td { (policy) } td { (alpha) }
                        td { (format!("{:.2}", mean(|r| r.data_moved_gb))) }
                        td { (format!("{:.2}", mean(|r| r.wan_gb))) }
                        td { (format!("{:.2}", mean(|r| r.response_mean_s))) }
                        td { (format!("{:.2}", mean(|r| r.response_p95_s))) }
                        td { (format!("{:.0}", mean(|r| r.unplaceable as f64))) }
                        td { (format!("{:.1}", mean(|r| r.failed as f64))) }
                        td { (format!("{:.3}", mean(|r| r.cost))) }
                        td { (against_greedy(evaluation, scenario, policy, alpha)) }
                        td { (format!("{:.0}", mean(|r| r.decision_us))) }
                    }
                } } }
            }
        } }
    }
}

fn against_greedy(evaluation: &Evaluation, scenario: &str, policy: &str, alpha: f64) -> String {
    match evaluation.comparison(scenario, policy, "greedy-marginal", alpha) {
        Some(ratio) => ratio.to_string(),
        None => "—".to_owned(),
    }
}

fn learning_curve(lines: &[Line]) -> String {
    let measured =
        || lines.iter().filter_map(|line| line.validation.as_ref().map(|v| (line.iteration as f64, v)));
    let mut series = vec![Series {
        name: "all α".to_owned(),
        points: measured().map(|(i, v)| (i, v.cost)).collect(),
        joined: true,
    }];
    for (index, alpha) in crate::run::ALPHAS.iter().enumerate() {
        let at = |(i, v): (f64, &crate::run::Validation)| v.by_alpha.get(index).map(|&cost| (i, cost));
        series.push(Series {
            name: format!("α = {alpha}"),
            points: measured().filter_map(at).collect(),
            joined: true,
        });
    }
    plot(
        &Labels { title: "validation", x: "iteration", y: "cost over greedy-marginal" },
        Scale::Linear,
        &series,
    )
}

fn training_curve(lines: &[Line]) -> String {
    let points = lines.iter().map(|line| (line.iteration as f64, line.exploring_cost)).collect();
    let series = [Series { name: "exploring".to_owned(), points, joined: true }];
    plot(
        &Labels { title: "training", x: "iteration", y: "cost over greedy-completion" },
        Scale::Linear,
        &series,
    )
}
