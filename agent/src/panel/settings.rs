//! Settings: what the service runs with, and what changes each.

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use maud::html;
use remora_proto::v1 as wire;
use remora_proto::v1::admin_service_server::AdminService;

use super::page::Page;
use super::{Asked, Panel, Shown, Visit};

pub fn routes() -> Router<Panel> {
    Router::new().route("/settings", get(settings))
}

async fn settings(visit: Visit) -> Response {
    visit.page(page).await
}

async fn page(asked: &Asked<'_>) -> Shown {
    asked.demand("AdminService/Settings")?;
    let answer = asked.panel.door.settings(asked.request(wire::SettingsRequest {})).await?.into_inner();
    let mut subjects: Vec<(&str, Vec<&wire::Setting>)> = Vec::new();
    for setting in &answer.settings {
        match subjects.last_mut() {
            Some((subject, settings)) if *subject == setting.subject => settings.push(setting),
            _ => subjects.push((&setting.subject, vec![setting])),
        }
    }
    let main = html! {
        h1 { "Settings" }
        p { "What the service was started with, without secrets, and how large its data is now. Flags are those of "
            code { "remora serve" } "; without its dashes each is a key of the configuration file, which "
            code { "remora serve --config-example" } " explains. Who serves which cluster is under "
            a href="policies" { "Policies" } "." }
        label { "Search (press /)" input type="search" data-search; }
        @for (subject, settings) in &subjects {
            h2 { (subject) }
            div.scroll { table.searched.settings {
                thead { tr { th { "What" } th { "Is" } th { "Changed by" } } }
                tbody { @for setting in settings { tr {
                    td { (setting.name) } td { (setting.value) }
                    td { @if setting.by.is_empty() { span.faint { "nothing" } } @else { code { (setting.by) } } }
                } } }
            } }
        }
    };
    Ok(Page::new("settings", "Settings", main))
}
