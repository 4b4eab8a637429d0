//! Who may come in, and who did what.

use maud::html;
use remora_proto::v1 as wire;
use remora_proto::v1::admin_service_server::AdminService;

use super::page::{Form, Page, badge, empty, live, time};
use super::{Asked, Asking, Part, Shown};

fn nothing_kept() -> Part {
    empty(
        "The service keeps no tokens and no audit log.",
        html! { "Start it with " code { "--data FOLDER" } ", and with " code { "--auth" } " where everybody is to say who they are." },
    )
}

pub async fn audit(asked: &Asked<'_>, asking: &Asking) -> Shown {
    asked.demand("AdminService/Audit")?;
    if asked.panel.storage.is_none() {
        return Ok(Page::new("audit", "Audit log", html! { h1 { "Audit log" } (nothing_kept()) }));
    }
    let request = wire::AuditRequest { page: asking.page.clone().unwrap_or_default(), limit: Some(100) };
    let answer = asked.panel.door.audit(asked.request(request)).await?.into_inner();
    let main = html! {
        h1 { "Audit log" }
        label { "Search (press /)" input type="search" data-search; }
        (live("entries", html! { div.scroll { table.searched {
            thead { tr { th { "At" } th { "Who" } th { "Did" } th { "To" } th {} th { "Details" } } }
            tbody { @for entry in &answer.entries { tr {
                td { (time(entry.at_ms)) } td { (entry.actor) } td { (entry.action) } td { (entry.subject) }
                td { @if !entry.allowed { (badge("refused")) } } td.faint { code { (entry.details) } }
            } } }
        } } }))
        @if !answer.next_page.is_empty() { p { a href={ "audit?page=" (super::page::escaped(&answer.next_page)) } { "Earlier entries" } } }
    };
    Ok(Page::new("audit", "Audit log", main))
}

pub async fn tokens(asked: &Asked<'_>) -> Shown {
    asked.demand("AdminService/ListTokens")?;
    if asked.panel.storage.is_none() {
        return Ok(Page::new("access", "Access", html! { h1 { "Access" } (nothing_kept()) }));
    }
    let tokens =
        asked.panel.door.list_tokens(asked.request(wire::ListTokensRequest {})).await?.into_inner().tokens;
    let form = |method, fields, label, inside| Form {
        asked,
        method,
        fields,
        back: "access".to_owned(),
        label,
        inside,
    };
    let create = form(
        "AdminService/CreateToken",
        Vec::new(),
        "Make a token",
        html! {
            label { "Who uses it" input name="name" required maxlength="200"; }
            label { "Role" select name="role" {
                option value="1" { "viewer: reads" } option value="2" { "orchestrator: also places tasks and reports" }
                option value="5" { "author: also registers and runs applications" } option value="3" { "operator: also says who decides" }
                option value="4" { "admin: also tokens and the audit log" }
            } }
            label { "Valid for days (empty: until it is revoked)" input name="days" inputmode="numeric"; }
        },
    );
    let main = html! {
        h1 { "Access" }
        @if !asked.panel.gate.0.access.authenticates() {
            p.told { "Everybody on this machine may do everything: the service was started without --auth." }
        }
        (live("tokens", html! { div.scroll { table {
            thead { tr { th { "Name" } th { "Role" } th { "Made" } th { "Expires" } th { "Revoked" } th {} } }
            tbody { @for token in &tokens {
                @let role = token.role().as_str_name().trim_start_matches("ROLE_").to_lowercase();
                tr {
                    td { (token.name) } td { (badge(&role)) } td { (time(token.created_at_ms)) " by " (token.created_by) }
                    td { (time(token.expires_at_ms)) } td { (time(token.revoked_at_ms)) }
                    td { @if token.revoked_at_ms == 0 {
                        (form("AdminService/RevokeToken", vec![("id", token.id.clone())], "Revoke", html! {}).confirmed("It opens nothing any more, and whoever is signed in with it is out.", false))
                    } }
                }
            } }
        } } }))
        div.actions { details.confirm { summary { "Make a token…" } (create.button()) } }
    };
    Ok(Page::new("access", "Access", main))
}
