//! What would have changed had another policy decided: asked before it does.

use maud::html;
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_server::ClusterService;
use remora_proto::v1::policy_service_server::PolicyService;
use tonic::Code;

use super::page::{Page, escaped, figures, time};
use super::policies::{Names, all, give};
use super::{Asked, Asking, Part, Shown};
use crate::appcore::own::NAME;
use crate::commands::{bytes, seconds};

/// Decisions that are taken up unless told otherwise, and those that differ that are listed.
const LAST: i64 = 200;
const LISTED: usize = 200;

pub async fn page(asked: &Asked<'_>, asking: &Asking) -> Shown {
    let door = &asked.panel.door;
    let names = Names::new(&all(asked).await?);
    let (policy, version) = (asking.policy.clone().unwrap_or_default(), asking.version);
    let last = asking.last.unwrap_or(LAST);
    let listed = ClusterService::list(door, asked.request(wire::ListClustersRequest {})).await?.into_inner();
    // The one where most was decided, unless somebody says which.
    let busiest = listed.clusters.iter().max_by_key(|told| told.decisions).map(|told| told.id.clone());
    let cluster = asking.cluster.clone().filter(|id| !id.is_empty()).or(busiest).unwrap_or_default();
    let request = wire::PreviewRequest {
        policy: policy.clone(),
        cluster_id: cluster.clone(),
        last: Some(last),
        version,
    };
    let told = match door.preview(asked.request(request)).await {
        Ok(told) => Ok(told.into_inner()),
        Err(status) if status.code() == Code::FailedPrecondition => Err(status.message().to_owned()),
        Err(status) => return Err(status),
    };
    let id = told.as_ref().map_or(policy, |told| told.policy.clone());
    let main = html! {
        h1 { "Had it decided: "
            @match version { Some(number) => { "version " (number) " of " (NAME) } None => (names.show(&id)) } }
        form method="get" action="policies/preview" {
            @match version {
                Some(number) => { input type="hidden" name="version" value=(number); }
                None => { input type="hidden" name="policy" value=(id); }
            }
            div.actions {
                label { "Cluster" select name="cluster" {
                    @for told in &listed.clusters { option value=(told.id) selected[told.id == cluster] { (told.id) } }
                } }
                label { "Last decisions" input name="last" inputmode="numeric" value=(last); }
                button { "Look" }
            }
        }
        @match &told {
            Ok(told) => (differences(told, &names)),
            Err(why) => { p.told { (why) } }
        }
        @if let Some(number) = version {
            p { a href={ "apps/" (NAME) } { "Promote version " (number) " among the versions of " (NAME) } }
        } @else if asked.can("PolicyService/SetAlias") {
            div.actions { (give(asked, &id, true).confirmed("With the next request it has this role. No request is dropped.", true)) }
        }
        p { a href="policies" { "All policies" } }
    };
    Ok(Page::new("policies", "Preview", main))
}

fn differences(told: &wire::PreviewResponse, names: &Names) -> Part {
    let (then, now) = (told.decided.unwrap_or_default(), told.previewed.unwrap_or_default());
    let beside = |then: String, now: String| format!("{now} (was {then})");
    let share = 100.0 * told.differ as f64 / told.decisions.max(1) as f64;
    html! {
        (figures([
            ("Placed elsewhere", format!("{} of {} ({share:.0} %)", told.differ, told.decisions)),
            ("Data to move", beside(bytes(then.transfer_bytes as f64), bytes(now.transfer_bytes as f64))),
            ("Mean response", beside(seconds(then.response_s), seconds(now.response_s))),
            ("Mean cost", beside(format!("{:.3}", then.cost), format!("{:.3}", now.cost))),
        ]))
        p.faint {
            "The decisions from " (time(told.from_ms)) " to " (time(told.until_ms)) ", each taken up again on the cluster as it was then, and each by itself: "
            "what other choices would have led to is not played on. Figures are what was expected, not what was measured. "
            @if told.exact == told.decisions { "All of them were rebuilt exactly." }
            @else { (told.exact) " of them were rebuilt exactly, the others nearly." }
            @if told.left_out > 0 { " " (told.left_out) " more were left out, as their node or something of their task is gone." }
        }
        @if !told.differences.is_empty() {
            div.scroll { table.searched {
                thead { tr { th { "At" } th { "Task" } th { "Decided by" } th { "Node then" } th { "Node now" }
                    th.number { "Cost then" } th.number { "Cost now" } th.number { "To move then" } th.number { "To move now" } } }
                tbody { @for difference in told.differences.iter().take(LISTED) { (row(&told.cluster_id, difference, names)) } }
            } }
            @if told.differences.len() > LISTED { p.faint { "The last " (LISTED) " of them." } }
        }
    }
}

fn row(cluster: &str, difference: &wire::Difference, names: &Names) -> Part {
    let wire::Difference { decision_id, at_ms, task_kind, decided, previewed } = difference.clone();
    let (then, now) = (decided.unwrap_or_default(), previewed.unwrap_or_default());
    html! { tr {
        td { a href={ "placements/" (escaped(cluster)) "/" (escaped(&decision_id)) } { (time(at_ms)) } }
        td { (task_kind) } td { (names.show(&then.policy)) } td { (then.node) } td { (now.node) }
        td.number { (format!("{:.3}", then.predicted_cost)) } td.number { (format!("{:.3}", now.predicted_cost)) }
        td.number { (bytes(then.predicted_transfer_bytes as f64)) } td.number { (bytes(now.predicted_transfer_bytes as f64)) }
    } }
}
