//! Policies: who decides, how far they are trusted, what a shadow would do otherwise.

use std::collections::BTreeMap;

use maud::html;
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_server::ClusterService;
use remora_proto::v1::policy_service_server::PolicyService;

use tonic::Status;

use super::page::{Form, Page, badge, escaped, figures, live, time};
use super::{Asked, Part, Shown, evaluation};

pub async fn page(asked: &Asked<'_>) -> Shown {
    let door = &asked.panel.door;
    let mut policies = all(asked).await?;
    let names = Names::new(&policies);
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
        (live("serving", html! { @for (id, serving, compared) in &served { (serving_part(asked, id, serving, compared.as_ref(), &names)) } }))
        h2 { "All policies" }
        (live("policies", table(asked, &policies, &history)))
        h2 { "Who had which role" }
        (live("history", html! { @if history.is_empty() { p.faint { "No role was given or taken yet." } } @else { div.scroll { table {
            thead { tr { th { "Since" } th { "Alias" } th { "Policy" } th { "Before" } th { "Who" } th { "Why" } } }
            tbody { @for change in &history { tr {
                td { (time(change.at_ms)) } td { (badge(&change.alias)) } td { (names.show(&change.policy)) } td { (names.show(&change.before)) } td { (change.actor) } td { (change.reason) }
            } } }
        } } } }))
    };
    Ok(Page::new("policies", "Policies", main))
}

pub async fn all(asked: &Asked<'_>) -> Result<Vec<wire::Policy>, Status> {
    let list = asked.request(wire::ListPoliciesRequest {});
    Ok(PolicyService::list(&asked.panel.door, list).await?.into_inner().policies)
}

/// An id for people: of a hash the beginning.
pub fn short(policy: &str) -> &str {
    let hash = policy.len() >= 16 && policy.bytes().all(|byte| byte.is_ascii_hexdigit());
    policy.get(..8).filter(|_| hash).unwrap_or(policy)
}

/// What the policy of an id is called, for people: its id where that cannot be found out, and nobody where there is none.
pub async fn called(asked: &Asked<'_>, id: &str) -> String {
    if id.is_empty() {
        return "nobody".to_owned();
    }
    let get = asked.request(wire::GetPolicyRequest { policy: id.to_owned() });
    let found = PolicyService::get(&asked.panel.door, get).await;
    let name = found.map(|found| found.into_inner().name).unwrap_or_default();
    short(if name.is_empty() { id } else { &name }).to_owned()
}

/// What policies are called, and the roles that they have now.
pub struct Names(BTreeMap<String, wire::Policy>);

impl Names {
    pub fn new(policies: &[wire::Policy]) -> Names {
        Names(policies.iter().map(|policy| (policy.id.clone(), policy.clone())).collect())
    }

    pub async fn of(asked: &Asked<'_>) -> Result<Names, Status> {
        Ok(Names::new(&all(asked).await?))
    }

    /// A policy by its id: what it is called, the beginning of its hash, its roles.
    pub fn show(&self, id: &str) -> Part {
        let policy = self.0.get(id);
        let name = policy.map(|policy| policy.name.as_str()).filter(|name| *name != id);
        html! {
            @match name {
                Some(name) => { span title=(id) { (name) } " " code.faint { (short(id)) } }
                None => { span title=(id) { (short(id)) } }
            }
            @for alias in policy.map_or(&[][..], |policy| &policy.aliases) { " " (badge(alias)) }
        }
    }
}

/// A link to what would have changed had a policy decided.
pub fn preview_link(policy: &str) -> Part {
    html! { a href={ "policies/preview?policy=" (escaped(policy)) } { "What would have changed?" } }
}

fn table(asked: &Asked<'_>, policies: &[wire::Policy], history: &[wire::AliasChange]) -> Part {
    let operator = asked.can("PolicyService/SetAlias");
    let before = history.iter().find(|change| change.alias == "champion" && !change.before.is_empty());
    let give = |policy: &wire::Policy| give(asked, &policy.id, false);
    let back = |alias: &str| Form {
        asked,
        method: "PolicyService/RollBack",
        fields: vec![("alias", alias.to_owned())],
        back: "policies".to_owned(),
        label: "Roll back the champion",
        inside: html! { @if let Some(change) = before { p { (preview_link(&change.before)) } } },
    };
    html! {
        div.scroll { table {
            thead { tr { th { "Policy" } th { "Roles" } th { "Kind" } th { "Evaluation" } th { "Uploaded" } th { "Note" } th {} } }
            tbody { @for policy in policies { tr {
                td { (short(&policy.name)) @if policy.id != policy.name { " " code.faint title=(policy.id) { (short(&policy.id)) } } }
                td { @for alias in &policy.aliases { (badge(alias)) " " } }
                td { @if policy.learned { "learned" } @else { "heuristic" } }
                td { @if policy.learned { a href=(evaluation::path(&policy.id)) {
                    @if policy.evaluated { "beside the baselines" } @else { "none yet" }
                } } }
                td { (time(policy.uploaded_at_ms)) @if !policy.uploaded_by.is_empty() { " by " (policy.uploaded_by) } }
                td.faint { (policy.note) }
                td { (preview_link(&policy.id)) @if operator { (give(policy).confirmed("With the next request it has this role. No request is dropped.", true)) } }
            } } }
        } }
        @if operator { div.actions { (back("champion").confirmed("Whoever was champion before decides again, with the next request.", true)) } }
    }
}

/// A form that gives a policy a role.
pub fn give<'a>(asked: &'a Asked<'a>, policy: &str, champion: bool) -> Form<'a> {
    Form {
        asked,
        method: "PolicyService/SetAlias",
        fields: vec![("policy", policy.to_owned())],
        back: "policies".to_owned(),
        label: "Give a role",
        inside: html! {
            label { "Role" select name="alias" {
                option value="shadow" { "shadow: decides silently, differences are counted" }
                option value="candidate" { "candidate: decides a share" }
                option value="champion" selected[champion] { "champion: decides" }
            } }
        },
    }
}

fn serving_part(
    asked: &Asked<'_>,
    id: &str,
    serving: &wire::Serving,
    compared: Option<&wire::CompareResponse>,
    names: &Names,
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
            p { "The shadow " (names.show(&compared.shadow)) " decided " (compared.decisions) " times beside " (names.show(&compared.decided)) " and otherwise "
                (compared.differ) " times; its choices were expected to cost " (format!("{:.3}", compared.expected_cost_ratio)) " times as much." }
        }
        @if asked.can("PolicyService/SetServing") { div.actions { (form.confirmed("It holds from the next request on.", true)) } }
    }
}
