//! Applications.

use maud::html;
use remora_proto::v1 as wire;
use remora_proto::v1::app_service_server::AppService;

use super::overview::applications;
use super::page::{Form, Page, badge, empty, figures, live, pager, search, time, time_or_none};
use super::{Asked, Asking, Part, Shown, register, run, triggers};
use crate::appcore::door::INPUT_BYTES;
use crate::appcore::own::NAME;
use crate::appcore::states::{State, TABLE};

/// Applications on one page.
pub const PAGE: usize = 100;

pub fn none() -> Part {
    empty(
        "No applications yet.",
        html! { "Register one under Applications, or with " code { "remora app register FOLDER" }
        "; applications need a service with " code { "--data" } "." },
    )
}

pub async fn list(asked: &Asked<'_>, asking: &Asking) -> Shown {
    let all = applications(asked).await?;
    let wanted = asking.wanted().to_lowercase();
    let fits = |app: &wire::App| {
        app.name.contains(&wanted)
            || app.state.contains(&wanted)
            || app.about.to_lowercase().contains(&wanted)
    };
    let found: Vec<_> = all.iter().filter(|app| fits(app)).collect();
    let page = asking.number();
    let shown: Vec<_> = found.iter().skip(page * PAGE).take(PAGE).copied().cloned().collect();
    let main = html! {
        h1 { "Applications" }
        (search("apps", "Search (press /)", &wanted))
        (live("apps", html! {
            @if all.is_empty() { (none()) }
            @else if shown.is_empty() { p { "None of " (all.len()) " is called so." } }
            @else { (table(&shown)) }
        }))
        @if asked.can("AppService/Register") && asked.panel.apps.0.is_some() { div.actions { (register::form(asked)) } }
        (pager("apps", &wanted, page, found.len(), PAGE))
    };
    Ok(Page::new("apps", "Applications", main))
}

pub fn table(apps: &[wire::App]) -> Part {
    html! {
        div.scroll { table.searched {
            thead { tr { th { "Application" } th { "State" } th { "Since" } th { "Champion" } th.number { "Waiting" } th { "Next fire" } th { "About" } } }
            tbody { @for app in apps {
                @let next = app.triggers.iter().filter_map(|trigger| trigger.next_ms).min();
                tr {
                    td { a href={ "apps/" (app.name) } { (app.name) } }
                    td { (badge(&app.state)) }
                    td { (time(app.since_ms)) }
                    td { @match app.aliases.get("champion") { Some(version) => { "version " (version) } None => { "none" } } }
                    td.number { (app.waiting) }
                    td { (time_or_none(next)) }
                    td.faint { (app.about) }
                }
            } }
        } }
    }
}

pub async fn one(asked: &Asked<'_>, name: String) -> Shown {
    let door = &asked.panel.apps;
    let app =
        AppService::get(door, asked.request(wire::GetAppRequest { name: name.clone() })).await?.into_inner();
    let of = || name.clone();
    let versions = wire::ListVersionsRequest { app: of(), limit: Some(20), number: None };
    let versions = door.list_versions(asked.request(versions)).await?.into_inner().versions;
    let runs = wire::ListRunsRequest { app: of(), limit: Some(15), ..wire::ListRunsRequest::default() };
    let runs = door.list_runs(asked.request(runs)).await?.into_inner().runs;
    let moves = wire::ListTransitionsRequest { app: of(), limit: Some(15) };
    let moves = door.list_transitions(asked.request(moves)).await?.into_inner().transitions;
    let author = asked.can("AppService/Command");
    let main = html! {
        h1 { (app.name) " " }
        p { (app.about) }
        (live("state", html! {
            (states(&app.state))
            (figures([
                ("State", app.state.clone()),
                ("Waiting", app.waiting.to_string()),
                ("Executing", app.executing.to_string()),
                ("Failures in a row", app.failures.to_string()),
                ("Champion", app.aliases.get("champion").map_or_else(|| "none".to_owned(), |version| format!("version {version}"))),
            ]))
            p.faint { "Since " (time(app.since_ms)) "."
                @if let Some(retry) = app.retry_ms { " Learning is tried again at " (time(retry)) "." }
                @if !app.learning_run.is_empty() { " Learns in " a href={ "runs/" (app.learning_run) } { (app.learning_run) } "." }
            }
        }))
        @if author { (live("actions", actions(asked, &app))) }
        h2 { "Versions" }
        (live("versions", version_table(asked, &app, &versions)))
        h2 { "Triggers" }
        (live("triggers", triggers::table(asked, &app.triggers, &format!("apps/{name}"))))
        h2 { "Runs" }
        (live("runs", html! { @if runs.is_empty() { p.faint { "It has not run yet." } } @else { (run::table(&runs)) } }))
        h2 { "What moved it" }
        (live("moves", html! {
            div.scroll { table {
                thead { tr { th { "At" } th { "From" } th { "To" } th { "Cause" } th { "Who" } th { "Why" } } }
                tbody { @for told in &moves { tr {
                    td { (time(told.at_ms)) } td { (told.from) } td { (badge(&told.to)) } td { (told.cause) } td { (told.actor) } td { (told.reason) }
                } } }
            } }
        }))
        details { summary { "app.toml" } pre { (app.manifest) } }
    };
    Ok(Page::new("apps", app.name.clone(), main))
}

/// The life cycle with the present state lit, and where it can go from there.
fn states(now: &str) -> Part {
    let leads = State::named(now).map_or_else(String::new, |state| {
        let ways: Vec<_> = TABLE
            .iter()
            .filter(|(from, ..)| *from == state)
            .map(|(_, cause, to)| format!("{to} ({cause})"))
            .collect();
        ways.join(", ")
    });
    html! {
        ol.states aria-label="Life cycle" {
            @for state in State::ALL { li aria-current=[(state.name() == now).then_some("step")] { (state.name()) } }
        }
        @if !leads.is_empty() { p.faint { "From here: " (leads) "." } }
    }
}

fn actions(asked: &Asked<'_>, app: &wire::App) -> Part {
    let form = |command: wire::AppCommand, label| Form {
        asked,
        method: "AppService/Command",
        fields: vec![("name", app.name.clone()), ("command", (command as i32).to_string())],
        back: format!("apps/{}", app.name),
        label,
        inside: html! {},
    };
    let execute = Form {
        asked,
        method: "AppService/Execute",
        fields: vec![("app", app.name.clone())],
        back: format!("apps/{}", app.name),
        label: "Execute",
        inside: html! { label { "Request" textarea name="input" rows="3" {} } },
    };
    let notify = Form {
        asked,
        method: "AppService/Notify",
        fields: vec![("app", app.name.clone())],
        back: format!("apps/{}", app.name),
        label: "Give data",
        inside: html! {
            label { "Files" input type="file" name="files" multiple data-most=(INPUT_BYTES); }
            label { "Or typed: name of the file" input name="file" value="data.csv" required; }
            label { "Contents" textarea name="content" rows="4" {} }
        },
    };
    let state = app.state.as_str();
    html! { div.actions {
        @if state == "registered" { (form(wire::AppCommand::Enable, "Enable").button()) }
        @if matches!(state, "asleep.idle" | "asleep.learning") { (form(wire::AppCommand::Wake, "Wake").button()) }
        @if matches!(state, "awake.executing" | "waking") { (form(wire::AppCommand::Sleep, "Send to sleep").button()) }
        @if state == "quarantined" { (form(wire::AppCommand::Release, "Release").confirmed("It may run again, and its failures are forgotten.", false)) }
        @if !matches!(state, "registered" | "quarantined" | "retired") {
            details.confirm { summary { "Execute…" } (execute.button()) }
            (notify.with_files("What waits for data hears of it; the same data again counts once."))
        }
        @if state != "retired" {
            (form(wire::AppCommand::Retire, "Retire").confirmed(
                "It ends for good: what waits is refused, what runs is stopped, and its name is not given again. What it did stays in the archive.",
                true,
            ))
        }
    } }
}

fn version_table(asked: &Asked<'_>, app: &wire::App, versions: &[wire::Version]) -> Part {
    let operator = asked.can("AppService/SetVersionAlias") && app.state != "retired";
    let promote = |version: &wire::Version| Form {
        asked,
        method: "AppService/SetVersionAlias",
        fields: vec![
            ("app", app.name.clone()),
            ("alias", "champion".to_owned()),
            ("version", version.number.to_string()),
        ],
        back: format!("apps/{}", app.name),
        label: "Promote",
        inside: html! { @if app.name == NAME && !version.model.is_empty() {
            p { a href={ "policies/preview?version=" (version.number) } { "What would have changed?" } }
        } },
    };
    let back = Form {
        asked,
        method: "AppService/RollBackVersion",
        fields: vec![("app", app.name.clone())],
        back: format!("apps/{}", app.name),
        label: "Roll back",
        inside: html! {},
    };
    html! {
        div.scroll { table {
            thead { tr { th { "Version" } th { "From" } th { "At" } th { "Verdict" } th { "Model" } th {} } }
            tbody { @for version in versions { tr {
                td { (version.number) " " @for alias in &version.aliases { (badge(alias)) " " } }
                td { @if version.run.is_empty() { "registered by " (version.actor) } @else { a href={ "runs/" (version.run) } { (version.run) } } }
                td { (time(version.at_ms)) }
                td { @match &version.verdict {
                    Some(verdict) => { (badge(if verdict.passed { "passed" } else { "not passed" })) " " (verdict.reason) }
                    None => { span.faint { "not judged" } }
                } }
                td { code { (version.model.get(..12).unwrap_or("none")) } }
                td { @if operator && !version.aliases.iter().any(|alias| alias == "champion") {
                    (promote(version).confirmed("It answers every request from now on.", true))
                } }
            } } }
        } }
        @if operator && app.aliases.contains_key("champion") {
            div.actions { (back.confirmed("The champion before this one answers every request from now on.", true)) }
        }
    }
}
