//! Policies: who decides, how far they are trusted, what a shadow would do otherwise.

use maud::html;
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_server::ClusterService;
use remora_proto::v1::policy_service_server::PolicyService;

use super::page::{Form, Page, badge, figures, live, time};
use super::{Asked, Part, Shown};
use crate::storage::Role;

pub async fn page(asked: &Asked<'_>) -> Shown {
    let door = &asked.panel.door;
    let mut policies =
        PolicyService::list(door, asked.request(wire::ListPoliciesRequest {})).await?.into_inner().policies;
    // Those that serve come first.
    policies.sort_by_key(|policy| policy.aliases.is_empty());
    let history = wire::AliasHistoryRequest { limit: Some(20), ..wire::AliasHistoryRequest::default() };
    let history = door.history(asked.request(history)).await?.into_inner().changes;
    let listed = ClusterService::list(door, asked.request(wire::ListClustersRequest {})).await?.into_inner();
    let clusters = listed.clusters.into_iter().map(|told| told.id);
    let mut served = Vec::new();
    for id in std::iter::once(String::new()).chain(clusters) {
        let serving = door
            .get_serving(asked.request(wire::GetServingRequest { cluster_id: id.clone() }))
            .await?
            .into_inner();
        let compared = match id.is_empty() {
            true => None,
            false => Some(
                door.compare(asked.request(wire::CompareRequest { cluster_id: id.clone() }))
                    .await?
                    .into_inner(),
            ),
        };
        served.push((id, serving, compared));
    }
    let main = html! {
        h1 { "Policies" }
        h2 { "How they serve" }
        (live("serving", html! { @for (id, serving, compared) in &served { (serving_part(asked, id, serving, compared.as_ref())) } }))
        h2 { "All policies" }
        (live("policies", table(asked, &policies)))
        h2 { "Who had which role" }
        (live("history", html! { div.scroll { table {
            thead { tr { th { "Since" } th { "Alias" } th { "Policy" } th { "Before" } th { "Who" } th { "Why" } } }
            tbody { @for change in &history { tr {
                td { (time(change.at_ms)) } td { (badge(&change.alias)) } td { (short(&change.policy)) } td { (short(&change.before)) } td { (change.actor) } td { (change.reason) }
            } } }
        } } }))
    };
    Ok(Page::new("policies", "Policies", main))
}

fn short(policy: &str) -> &str {
    if policy.len() == 64 { &policy[..12] } else { policy }
}

fn table(asked: &Asked<'_>, policies: &[wire::Policy]) -> Part {
    let operator = asked.may(Role::Operator);
    let give = |policy: &wire::Policy| Form {
        asked,
        method: "PolicyService/SetAlias",
        fields: vec![("policy", policy.id.clone())],
        back: "policies".to_owned(),
        label: "Give a role",
        inside: html! { label { "Role" select name="alias" {
            option value="shadow" { "shadow: decides silently, differences are counted" }
            option value="candidate" { "candidate: decides a share" }
            option value="champion" { "champion: decides" }
        } } },
    };
    let back = |alias: &str| Form {
        asked,
        method: "PolicyService/RollBack",
        fields: vec![("alias", alias.to_owned())],
        back: "policies".to_owned(),
        label: "Roll back the champion",
        inside: html! {},
    };
    html! {
        div.scroll { table {
            thead { tr { th { "Policy" } th { "Roles" } th { "Kind" } th { "Uploaded" } th { "Note" } th {} } }
            tbody { @for policy in policies { tr {
                td { (policy.name) @if policy.id.len() == 64 { " " code.faint { (short(&policy.id)) } } }
                td { @for alias in &policy.aliases { (badge(alias)) " " } }
                td { @if policy.learned { "learned" } @else { "heuristic" } }
                td { (time(policy.uploaded_at_ms)) @if !policy.uploaded_by.is_empty() { " by " (policy.uploaded_by) } }
                td.faint { (policy.note) }
                td { @if operator { (give(policy).confirmed("With the next request it has this role. No request is dropped.", true)) } }
            } } }
        } }
        @if operator { div.actions { (back("champion").confirmed("Whoever was champion before decides again, with the next request.", true)) } }
    }
}

fn serving_part(
    asked: &Asked<'_>,
    id: &str,
    serving: &wire::Serving,
    compared: Option<&wire::CompareResponse>,
) -> Part {
    let told = match serving.autonomy() {
        wire::Autonomy::Off => "off",
        wire::Autonomy::Advise => "advise",
        wire::Autonomy::Share => "share",
        _ => "act",
    };
    let percent = |share: Option<f64>| format!("{:.0} %", 100.0 * share.unwrap_or_default());
    let option = |value: i32, name: &str| html! { option value=(value) selected[serving.autonomy == value] { (name) } };
    let form = Form {
        asked,
        method: "PolicyService/SetServing",
        fields: vec![("cluster_id", id.to_owned())],
        back: "policies".to_owned(),
        label: "Change",
        inside: html! {
            label { "Autonomy" select name="autonomy" {
                (option(1, "off: the fallback decides")) (option(2, "advise: the fallback decides, answers say what the champion advises"))
                (option(3, "share: the champion decides a share")) (option(4, "act: the champion decides"))
            } }
            label { "Share of the champion, 0 to 1" input name="share" inputmode="decimal" value=[serving.share]; }
            label { "Share of the candidate, 0 to 1" input name="candidate_share" inputmode="decimal" value=[serving.candidate_share]; }
            label { "Share that the shadow decides too, 0 to 1" input name="shadow_share" inputmode="decimal" value=[serving.shadow_share]; }
            label { "Regret budget (0.1 allows a tenth; 0 never steps down)" input name="regret_budget" inputmode="decimal" value=[serving.regret_budget]; }
            label { "Dial α, 0 (only response time) to 1 (only data moved)" input name="alpha" inputmode="decimal" value=[serving.alpha]; }
        },
    };
    html! {
        h3 { @if id.is_empty() { "Clusters without a setting of their own" } @else { (id) } }
        (figures([
            ("Autonomy", told.to_owned()),
            ("Share", percent(serving.share)),
            ("Candidate", percent(serving.candidate_share)),
            ("Shadow", percent(serving.shadow_share)),
            ("Fallback", serving.fallback.clone()),
            ("Regret", format!("{:.3} of {}", serving.regret, serving.regret_of)),
            ("Budget", format!("{:.3}", serving.regret_budget.unwrap_or_default())),
            ("Dial α", format!("{:.2}", serving.alpha.unwrap_or_default())),
        ]))
        @if let Some(compared) = compared.filter(|compared| compared.decisions > 0) {
            p { "The shadow " (short(&compared.shadow)) " decided " (compared.decisions) " times beside " (short(&compared.decided)) " and otherwise "
                (compared.differ) " times; its choices were expected to cost " (format!("{:.3}", compared.expected_cost_ratio)) " times as much." }
        }
        @if asked.may(Role::Operator) { div.actions { (form.confirmed("It holds from the next request on.", true)) } }
    }
}
