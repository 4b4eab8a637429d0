//! `report.html`: one self-contained page that shows what a policy saves and how it learned.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::evaluate::Row;
use crate::plot::{self, Labels, Scale, Series, Span, bars, plot, timeline as timeline_plot};
use crate::run::Line;
use crate::statistics::geometric_mean;
use crate::summary::{Distribution, Evaluation, Front, is_learned};
use crate::timeline::Timeline;

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
                h2 { "Cost" }
                p.note {
                    "At α = " (page.evaluation.middle_alpha()) ": α · data moved + (1 − α) · mean response time, each over that of "
                    "kube-default on the same worlds, which is the line at 1. Geometric means."
                }
                div.plots { @for scenario in &scenarios { (PreEscaped(costs(page.evaluation, scenario))) } }
                @if !page.evaluation.distributions.is_empty() {
                    h2 { "Response times" }
                    p.note { "Which share of the tasks is done within which time, at α = " (page.evaluation.middle_alpha()) "." }
                    div.plots { @for scenario in &scenarios { (PreEscaped(distributions(page.evaluation, scenario))) } }
                }
                @if let Some(timeline) = &page.evaluation.timeline {
                    h2 { "The beginning of one episode" }
                    p.note {
                        (timeline.policy) " on the first world of " (timeline.scenario) " at α = " (timeline.alpha)
                        ": a line for each node, a bar for each task."
                    }
                    div.scroll { (PreEscaped(draw_timeline(timeline))) }
                }
                h2 { "To beat" }
                (opponents(page.evaluation))
                h2 { "All figures" }
                (fronts(page.evaluation))
                (table(page.evaluation))
                @if !page.lines.is_empty() {
                    h2 { "Learning" }
                    p.note {
                        "Cost on validation worlds over that of greedy-marginal, which sees the same estimates: "
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
    let points = |policy: &String| alphas.iter().map(|&alpha| point(policy, alpha)).collect();
    plot::trade_off(scenario, policies.iter().map(|policy| (policy.clone(), points(policy))))
}

fn costs(evaluation: &Evaluation, scenario: &str) -> String {
    let (_, policies, _) = evaluation.axes();
    let alpha = evaluation.middle_alpha();
    let cost = |policy: &String| {
        let of = |row: &&Row| row.scenario == scenario && row.policy == *policy && row.alpha == alpha;
        let costs: Vec<f64> = evaluation.rows.iter().filter(of).map(|row| row.cost).collect();
        (policy.clone(), geometric_mean(&costs))
    };
    let all: Vec<_> = policies.iter().map(cost).collect();
    bars(scenario, "cost (kube-default = 1)", &all, 1.0)
}

fn distributions(evaluation: &Evaluation, scenario: &str) -> String {
    let alpha = evaluation.middle_alpha();
    let of = |d: &&Distribution| d.scenario == scenario && d.alpha == alpha;
    let series: Vec<Series> = evaluation
        .distributions
        .iter()
        .filter(of)
        .map(|distribution| {
            let steps = distribution.response_s.len().saturating_sub(1).max(1) as f64;
            let share = |step: usize| 100.0 * step as f64 / steps;
            let points =
                distribution.response_s.iter().enumerate().map(|(step, &s)| (s.max(0.01), share(step)));
            // Nothing is at 0 % on a logarithmic axis.
            let points = points.filter(|(_, share)| *share > 0.0).collect();
            Series { name: distribution.policy.clone(), points, joined: true }
        })
        .collect();
    plot(&Labels { title: scenario, x: "response time (s)", y: "% of tasks" }, Scale::LogarithmicX, &series)
}

const PHASES: [&str; 5] = ["queue", "pull, fetch", "start", "execute", "store"];

fn draw_timeline(timeline: &Timeline) -> String {
    let mut spans = Vec::new();
    for task in &timeline.tasks {
        let lasting = task.times_s.windows(2).enumerate().filter(|(_, window)| window[1] > window[0]);
        for (phase, window) in lasting {
            let (from, to) = (window[0], window[1]);
            let name = (to == task.times_s[5]).then(|| task.name.clone());
            spans.push(Span { line: task.line, place: task.place, from, to, phase, name });
        }
    }
    timeline_plot(&timeline.scenario, &timeline.lines, &PHASES, &spans)
}

/// Hypervolumes, and who is dominated nowhere.
fn fronts(evaluation: &Evaluation) -> Markup {
    let at = |front: &Front| {
        let alphas: Vec<String> = front.undominated_at.iter().map(f64::to_string).collect();
        if alphas.is_empty() { "—".to_owned() } else { alphas.join(", ") }
    };
    html! {
        @if !evaluation.fronts.is_empty() {
            div.scroll { table {
                thead { tr { th { "scenario" } th { "policy" } th { "hypervolume" } th { "undominated at α" } } }
                tbody { @for front in &evaluation.fronts {
                    tr.ours[is_learned(&front.policy)] {
                        td { (front.scenario) } td { (front.policy) }
                        td { (format!("{:.3}", front.hypervolume)) }
                        td { (at(front)) }
                    }
                } }
            } }
            p.note {
                "Hypervolume: the share of the rectangle between nothing and kube-default, response time by data moved, "
                "that a policy's points dominate over all α. Undominated: no other policy is better in both there."
            }
        }
    }
}

fn table(evaluation: &Evaluation) -> Markup {
    let (scenarios, policies, alphas) = evaluation.axes();
    html! {
        div.scroll { table {
            thead { tr {
                th { "scenario" } th { "policy" } th { "α" } th { "data moved GB" } th { "left a site GB" }
                th { "mean response s" } th { "p95 s" } th { "unplaceable" } th { "failed" }
                th { "cost (kube-default = 1)" } th { "cost against greedy-marginal, 95 % interval" } th { "cost over the lower bound" }
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
                        td { (against(evaluation, scenario, policy, "greedy-marginal", alpha)) }
                        td { (over_bound(evaluation, scenario, policy, alpha)) }
                        td { (format!("{:.0}", mean(|r| r.decision_us))) }
                    }
                } } }
            }
        } }
    }
}

/// The best rule for each scenario and α, and what learned policies cost against it.
fn opponents(evaluation: &Evaluation) -> Markup {
    let (scenarios, policies, alphas) = evaluation.axes();
    let learned: Vec<&String> = policies.iter().filter(|policy| is_learned(policy)).collect();
    html! {
        p.note {
            "Of the policies played that neither learn nor simulate, the cheapest: a learned policy is worth what it saves against this one."
        }
        div.scroll { table {
            thead { tr {
                th { "scenario" } th { "cheapest rule" } th { "α" } th { "its cost" }
                @for policy in &learned { th { (policy) " over it, 95 % interval" } }
            } }
            tbody { @for scenario in &scenarios { @for &alpha in &alphas {
                @if let Some(opponent) = evaluation.opponent(scenario, alpha) {
                    tr {
                        td { (scenario) } td { (opponent) } td { (alpha) }
                        td { (format!("{:.3}", evaluation.mean(scenario, &opponent, alpha, |row| row.cost))) }
                        @for policy in &learned { td { (against(evaluation, scenario, policy, &opponent, alpha)) } }
                    }
                }
            } } }
        } }
    }
}

fn against(evaluation: &Evaluation, scenario: &str, policy: &str, opponent: &str, alpha: f64) -> String {
    let ratio = evaluation.comparison(scenario, policy, opponent, alpha);
    ratio.map_or_else(|| "—".to_owned(), |ratio| ratio.to_string())
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

/// Mean ratio of the cost to what no schedule costs less than.
fn over_bound(evaluation: &Evaluation, scenario: &str, policy: &str, alpha: f64) -> String {
    evaluation
        .over_bound(scenario, policy, alpha)
        .map_or_else(|| "—".to_owned(), |ratio| format!("{ratio:.2}"))
}
