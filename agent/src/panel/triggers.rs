//! Triggers: what fires when, what fired, and why something did not.

use maud::html;
use remora_proto::v1 as wire;
use remora_proto::v1::app_service_server::AppService;

use super::application::PAGE;
use super::page::{Form, Page, badge, empty, live, pager, search, time, time_or_none};
use super::{Asked, Asking, Part, Shown};

pub async fn page(asked: &Asked<'_>, asking: &Asking) -> Shown {
    if asked.panel.apps.0.is_none() {
        let main = html! { h1 { "Triggers" } (super::application::none()) };
        return Ok(Page::new("triggers", "Triggers", main));
    }
    let (wanted, page) = (asking.wanted(), asking.number());
    let request = wire::ListTriggersRequest {
        matching: wanted.clone(),
        skip: (page * PAGE) as i64,
        most: Some(PAGE as i64),
        ..wire::ListTriggersRequest::default()
    };
    let listed = asked.panel.apps.list_triggers(asked.request(request)).await?.into_inner();
    let main = html! {
        h1 { "Triggers" }
        (search("triggers", "Search (press /)", &wanted))
        h2 { "To come" }
        (live("coming", html! {
            @if listed.triggers.is_empty() && wanted.is_empty() {
                (empty("No application has a trigger.", html! { "They stand in " code { "app.toml" } ", under " code { "[[trigger]]" } "." }))
            } @else if listed.triggers.is_empty() { (empty("No trigger is called so.", html! { a href="triggers" { "Show all" } })) }
            @else { (table(asked, &listed.triggers, "triggers")) }
        }))
        (pager("triggers", &wanted, page, listed.total as usize, PAGE))
        h2 { "What happened" }
        (live("fires", html! {
            @if listed.fires.is_empty() { p.faint { "Nothing fired yet." } } @else { div.scroll { table.searched {
                thead { tr { th { "At" } th { "Application" } th { "Trigger" } th { "Who" } th { "What" } } }
                tbody { @for fire in &listed.fires { tr {
                    td { (time(fire.at_ms)) } td { a href={ "apps/" (fire.app) } { (fire.app) } } td { (fire.trigger) } td { (fire.actor) }
                    td { @if fire.skipped.is_empty() { (badge("fired")) } @else { (fire.skipped) } }
                } } }
            } } }
        }))
    };
    Ok(Page::new("triggers", "Triggers", main))
}

pub fn table(asked: &Asked<'_>, triggers: &[wire::Trigger], back: &str) -> Part {
    let author = asked.can("AppService/CommandTrigger");
    let form = |trigger: &wire::Trigger, command: wire::TriggerCommand, label| Form {
        asked,
        method: "AppService/CommandTrigger",
        fields: vec![
            ("app", trigger.app.clone()),
            ("trigger", trigger.name.clone()),
            ("command", (command as i32).to_string()),
        ],
        back: back.to_owned(),
        label,
        inside: html! {},
    };
    html! {
        @if triggers.is_empty() { p.faint { "It has none: only requests wake it." } } @else {
            div.scroll { table.searched {
                thead { tr { th { "Application" } th { "Trigger" } th { "When" } th { "Next" } th { "Fired" } th { "Waiting" } th { "Skipped" } th {} } }
                tbody { @for trigger in triggers { tr {
                    td { a href={ "apps/" (trigger.app) } { (trigger.app) } }
                    td { (trigger.name) }
                    td { code { (when(&trigger.spec)) } }
                    td { @if trigger.paused { (badge("paused")) } @else { (time_or_none(trigger.next_ms)) } }
                    td { (time_or_none(trigger.fired_ms)) }
                    td { @if trigger.items > 0 { (trigger.items) " items" } }
                    td { @if let Some(at) = trigger.skipped_ms { (time(at)) ": " (trigger.skipped) } }
                    td { @if author { div.actions {
                        (form(trigger, wire::TriggerCommand::Fire, "Fire").button())
                        @if trigger.paused { (form(trigger, wire::TriggerCommand::Resume, "Resume").button()) }
                        @else { (form(trigger, wire::TriggerCommand::Pause, "Pause").confirmed("It does not fire until somebody resumes it.", false)) }
                    } } }
                } } }
            } }
        }
    }
}

/// When a trigger fires, of its JSON.
fn when(spec: &str) -> String {
    let spec: serde_json::Value = serde_json::from_str(spec).unwrap_or_default();
    let (run, on) = (spec["run"].as_str().unwrap_or_default(), &spec["on"]);
    let told = |name: &str, fields: &[&str]| {
        let said: Vec<_> = fields
            .iter()
            .filter(|field| !on[name][**field].is_null())
            .map(|field| format!("{field} {}", on[name][*field].to_string().trim_matches('"')))
            .collect();
        said.join(", ")
    };
    let on = if !on["schedule"].is_null() {
        told("schedule", &["cron", "zone"])
    } else if !on["data"].is_null() {
        format!("data: {}", told("data", &["count", "bytes", "debounce_s", "longest_s", "folder"]))
    } else if !on["drift"].is_null() {
        format!("drift: {}", told("drift", &["metric", "above", "below", "times"]))
    } else {
        "by hand".to_owned()
    };
    format!("{run} on {on}")
}
