//! What a policy came to beside others, on worlds that training never saw: response time against data moved over the
//! dial, drawn and in figures.

use std::collections::BTreeSet;

use maud::html;
use remora_proto::v1 as wire;
use remora_proto::v1::policy_service_server::PolicyService;
use remora_trainer::plot;

use super::page::{Page, badge, empty, escaped, live, time};
use super::{Asked, Asking, Part, Shown, chart};
use crate::commands::seconds;

/// Where the evaluation of a policy is shown.
pub fn path(policy: &str) -> String {
    format!("policies/evaluation?policy={}", escaped(policy))
}

/// The page of what a policy came to; of the champion unless another is asked for.
pub async fn page(asked: &Asked<'_>, asking: &Asking) -> Shown {
    asked.demand("PolicyService/GetEvaluation")?;
    let door = &asked.panel.door;
    let wanted = asking.policy.clone().filter(|policy| !policy.is_empty());
    let wanted = wanted.unwrap_or_else(|| "champion".to_owned());
    let get = asked.request(wire::GetPolicyRequest { policy: wanted });
    let policy = PolicyService::get(door, get).await?.into_inner();
    let mut told = None;
    if policy.evaluated {
        let get = wire::GetEvaluationRequest { policy: policy.id.clone() };
        told = Some(door.get_evaluation(asked.request(get)).await?.into_inner());
    }
    let main = html! {
        h1 { "How " (policy.name) " was evaluated" }
        (live("evaluation", html! {
            @match &told { Some(told) => (evaluation(told, &policy.name)), None => (none(&policy)) }
        }))
        p { a href="policies" { "All policies" } }
    };
    Ok(Page::new("policies", format!("Evaluation of {}", policy.name), main))
}

/// What makes an evaluation, where there is none.
fn none(policy: &wire::Policy) -> Part {
    if !policy.learned {
        let next = html! { "It stands among the others where a learned policy was evaluated: "
        a href="policies" { "choose one of these" } "." };
        return empty("A heuristic is what learned policies are compared with.", next);
    }
    empty(
        "Nobody handed in an evaluation of it.",
        html! {
            "Play it beside the baselines on worlds that training never saw, and hand the result in with the checkpoint:"
            pre { "remora evaluate --policy kube-default,skippy-tuned,greedy-marginal-tuned,CHECKPOINT \\\n"
                "  --alpha 0,0.25,0.5,0.75,1 --out evaluated\n"
                "remora policy upload CHECKPOINT --evaluation evaluated/evaluation.json" }
            "CHECKPOINT is the file of " code { (policy.id) } "."
        },
    )
}

/// Each once, in order of first appearance.
fn each<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut known = BTreeSet::new();
    names.filter(|name| known.insert(*name)).collect()
}

fn evaluation(told: &wire::PolicyEvaluation, name: &str) -> Part {
    let results = &told.results;
    let scenarios = each(results.iter().map(|result| result.scenario.as_str()));
    let worlds = results.iter().map(|result| result.worlds).min().unwrap_or_default();
    let mut alphas: Vec<f64> = results.iter().map(|result| result.alpha).collect();
    alphas.sort_by(f64::total_cmp);
    alphas.dedup();
    let middle = alphas.get(alphas.len() / 2).copied().unwrap_or_default();
    let (at_middle, all): (Vec<_>, Vec<_>) =
        (results.iter().filter(|result| result.alpha == middle).collect(), results.iter().collect());
    html! {
        p { "Means over " (worlds) " worlds of each scenario, the same for all policies and none of them seen in training. "
            @if told.at_ms == 0 { "This is what the technical report has of the policy that ships." }
            @else { "Handed in by " (told.actor) " at " (time(told.at_ms)) "." } }
        p.faint { "Each point is a policy at one position of the dial; a line goes from α = 0, where only response time counts, to "
            "α = 1, where only data moved does, and those without a line do not know it. Towards the lower left is better; both "
            "axes are logarithmic." }
        div.charts { @for scenario in &scenarios { (trade_off(told, scenario, name)) } }
        h2 { "At α = " (middle) }
        (table(told, name, &at_middle))
        details #figures { summary { "The plots as numbers" } (table(told, name, &all)) }
    }
}

/// Points of a policy on a scenario, by the dial: it, seconds and gigabytes.
fn points(told: &wire::PolicyEvaluation, scenario: &str, policy: &str) -> Vec<(f64, f64, f64)> {
    let of = told.results.iter().filter(|result| result.scenario == scenario && result.policy == policy);
    let mut points: Vec<_> =
        of.map(|result| (result.alpha, result.response_mean_s, result.data_moved_gb)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

/// The policy before the others, so that its colour is the first.
fn trade_off(told: &wire::PolicyEvaluation, scenario: &str, name: &str) -> Part {
    let of = told.results.iter().filter(|result| result.scenario == scenario);
    let mut policies = each(of.map(|result| result.policy.as_str()));
    policies.sort_by_key(|policy| *policy != told.called);
    let ours = points(told, scenario, &told.called);
    let series = policies.iter().map(|policy| {
        let shown = if *policy == told.called { name } else { policy };
        let points = points(told, scenario, policy).into_iter().map(|(_, seconds, moved)| (seconds, moved));
        (shown.to_owned(), points.collect())
    });
    let drawn = plot::trade_off(scenario, series);
    let words = ours.iter().map(|(alpha, took, moved)| format!("α = {alpha}: {took:.2} s and {moved:.1} GB"));
    let label = format!(
        "Mean response time against data moved on {scenario}: {name} at {}; {} others beside it, in the table",
        words.collect::<Vec<_>>().join(", "),
        policies.len().saturating_sub(1)
    );
    chart::figure(&drawn, &label)
}

/// Whether some other policy is better in one and not worse in the other, at any position of the dial.
fn beaten(told: &wire::PolicyEvaluation, result: &wire::TrainingResult) -> bool {
    told.results.iter().any(|other| {
        let (took, moved) = (other.response_mean_s, other.data_moved_gb);
        let no_worse = took <= result.response_mean_s && moved <= result.data_moved_gb;
        let better = took < result.response_mean_s || moved < result.data_moved_gb;
        other.scenario == result.scenario && other.policy != result.policy && no_worse && better
    })
}

/// Cheapest first, scenario by scenario and α by α.
fn table(told: &wire::PolicyEvaluation, name: &str, results: &[&wire::TrainingResult]) -> Part {
    let mut sorted = results.to_vec();
    sorted.sort_by(|a, b| {
        a.scenario.cmp(&b.scenario).then(a.alpha.total_cmp(&b.alpha)).then(a.cost.total_cmp(&b.cost))
    });
    html! { div.scroll { table {
        thead { tr { th { "Scenario" } th.number { "α" } th { "Policy" }
            th.number title="α · data moved + (1 − α) · response time, each over that of kube-default" { "Cost" }
            th.number { "Data moved" } th.number { "Mean response" } th { "Better in both" } } }
        tbody { @for result in sorted { tr {
            td { (result.scenario) } td.number { (result.alpha) }
            td { @if result.policy == told.called { strong { (name) } " " (badge("this one")) } @else { (result.policy) } }
            td.number { (format!("{:.3}", result.cost)) } td.number { (format!("{:.2} GB", result.data_moved_gb)) }
            td.number { (seconds(result.response_mean_s)) }
            td { @if beaten(told, result) { span.faint { "another" } } @else { "nobody" } }
        } } }
    } } }
}
