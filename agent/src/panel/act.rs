//! What the panel does. Every action is a method of a service, called with the rights of whoever asks for it and noted as
//! every other call.

use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use remora_proto::v1 as wire;
use remora_proto::v1::admin_service_server::AdminService;
use remora_proto::v1::app_service_server::AppService;
use remora_proto::v1::placement_service_server::PlacementService;
use remora_proto::v1::policy_service_server::PolicyService;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio_stream::StreamExt;
use tonic::Status;

use super::fields::{self, Fields, File};
use super::page::{Page, escaped};
use super::policies::called;
use super::session::{Undo, same_origin};
use super::{Asked, Visit, plain, register};
use crate::service::METHODS;
use crate::service::access::{Denial, Method, Peer, Subject};
use crate::service::refusal::Refusal;

/// Every action, by the method that it calls.
pub const ACTIONS: [&str; 15] = [
    "AdminService/CreateToken",
    "AdminService/RevokeToken",
    "AppService/CancelRun",
    "AppService/Command",
    "AppService/CommandTrigger",
    "AppService/Execute",
    "AppService/Notify",
    "AppService/Register",
    "AppService/RepeatRun",
    "AppService/RollBackVersion",
    "AppService/SetVersionAlias",
    "PlacementService/Dispute",
    "PolicyService/RollBack",
    "PolicyService/SetAlias",
    "PolicyService/SetServing",
];

/// What an action says when it is done: words, what it was about, and what is told only this once.
struct Done {
    told: String,
    subject: Option<Subject>,
    once: Option<String>,
    /// What would undo it.
    undo: Option<Inverse>,
    /// The page that shows what was done, where that is not the one that it was done from.
    page: Option<String>,
}

/// An action, with its fields.
type Inverse = (&'static str, Vec<(&'static str, String)>);

impl Done {
    fn new(told: impl Into<String>) -> Done {
        Done { told: told.into(), subject: None, once: None, undo: None, page: None }
    }

    fn undone_by(self, undo: Option<Inverse>) -> Done {
        Done { undo, ..self }
    }
}

fn method(name: &str) -> Result<&'static Method, Status> {
    let path = format!("/remora.v1.{name}");
    let known = METHODS.iter().find(|method| method.path == path);
    known.ok_or_else(|| Status::not_found(format!("no method is called {name:?}")))
}

impl Asked<'_> {
    /// Refuses whoever may not call a method.
    pub fn demand(&self, name: &str) -> Result<&'static Method, Status> {
        let method = method(name)?;
        match method.least {
            Some(least) if !self.may(least) => Err(Status::permission_denied(format!(
                "you have the role {}, and this wants {least}; ask an administrator",
                self.session.caller.role
            ))),
            _ => Ok(method),
        }
    }
}

pub async fn act(visit: Visit, Path((service, name)): Path<(String, String)>, request: Request) -> Response {
    let (asked, peer) = (visit.asked(), &visit.peer);
    let name = format!("{service}/{name}");
    let method = match action(&asked, &name) {
        Ok(method) => method,
        Err(status) => {
            if status.code() == tonic::Code::PermissionDenied {
                note(&asked, &name, status.message(), peer).await;
            }
            return asked.refused(&status);
        }
    };
    if let Err(why) = same_origin(&visit.headers) {
        note(&asked, &name, &why, peer).await;
        return plain(StatusCode::FORBIDDEN, &why);
    }
    let fields = match fields::read(request).await {
        Ok(fields) => fields,
        Err((code, why)) => return trouble(&asked, code, &why),
    };
    let csrf = fields.get("csrf").map_or("", String::as_str);
    if !bool::from(csrf.as_bytes().ct_eq(visit.session.csrf.as_bytes())) {
        let why = "this form is from another session; load the page again";
        note(&asked, &name, why, peer).await;
        return plain(StatusCode::FORBIDDEN, why);
    }
    let back = fields.get("back").map_or("", String::as_str);
    let back = if is_ours(back) { back } else { "" };
    match carry_out(&asked, method, &name, &fields).await {
        Ok(Done { once: Some(secret), told, .. }) => once(&asked, &told, &secret, back),
        Ok(Done { told, undo, page, .. }) => {
            let to = page.as_deref().unwrap_or(back);
            let offer = undo.map_or_else(String::new, |(method, fields)| {
                let undo = Undo { method, fields, back: to.to_owned() };
                format!("undo={}&", asked.panel.sessions.offer(&asked.session.csrf, undo))
            });
            let mark = if to.contains('?') { '&' } else { '?' };
            let to = format!("{}/{to}{mark}{offer}told={}", asked.panel.prefix, escaped(&told));
            Redirect::to(&to).into_response()
        }
        Err(status) => asked.refused(&status),
    }
}

/// Whether somebody is sent to a page of ours: a path from its root, and nothing that browsers take for more.
fn is_ours(back: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
    back.is_empty() || back.split('/').all(|part| !part.is_empty() && part.bytes().all(plain))
}

fn trouble(asked: &Asked<'_>, code: StatusCode, why: &str) -> Response {
    (code, Html(Page::trouble(why).render(asked).into_string())).into_response()
}

/// What was tried and refused is in the audit log too.
async fn note(asked: &Asked<'_>, name: &str, why: &str, peer: &Peer) {
    let action = method(name).map_or("", Method::name);
    let caller = Some(asked.session.caller.clone());
    let denial = Denial { refusal: Refusal::Forbidden(why.to_owned()), caller };
    asked.panel.gate.0.access.note_denial(action, &denial, peer).await;
}

/// A secret is shown once, in the answer itself.
fn once(asked: &Asked<'_>, told: &str, secret: &str, back: &str) -> Response {
    let main = maud::html! {
        h1 { (told) }
        p { "This is shown only now:" }
        pre { (secret) }
        p { a href=(back) { "Back" } }
    };
    Html(Page::new("access", told, main).render(asked).into_string()).into_response()
}

/// The method behind an action that whoever asks may call.
fn action(asked: &Asked<'_>, name: &str) -> Result<&'static Method, Status> {
    if !ACTIONS.contains(&name) {
        return Err(Status::not_found(format!("the panel has no action {name:?}")));
    }
    asked.demand(name)
}

async fn carry_out(asked: &Asked<'_>, method: &Method, name: &str, fields: &Fields) -> Result<Done, Status> {
    let done = match name.split_once('/') {
        Some(("AppService", name)) => applications(asked, name, fields).await,
        Some(("PlacementService", "Dispute")) => dispute(asked, fields).await,
        Some(("PolicyService", name)) => policies(asked, name, fields).await,
        Some(("AdminService", name)) => tokens(asked, name, fields).await,
        _ => Err(Status::unimplemented("no such action")),
    }?;
    let caller = &asked.session.caller;
    asked.panel.gate.0.access.note_success(method, caller, done.subject.as_ref()).await;
    Ok(done)
}

/// A field as text; what is not there is empty.
fn text(fields: &Fields, name: &str) -> String {
    fields.get(name).cloned().unwrap_or_default()
}

/// A field as a number, where it was filled in.
fn number<T: std::str::FromStr>(fields: &Fields, name: &str) -> Result<Option<T>, Status> {
    match fields.get(name).map(|value| value.trim()).unwrap_or_default() {
        "" => Ok(None),
        value => value
            .parse()
            .map(Some)
            .map_err(|_| Status::invalid_argument(format!("{name}: is {value:?}, want a number"))),
    }
}

/// An answer's subject, and what to say.
fn done<T>(response: &tonic::Response<T>, told: String) -> Done {
    Done { subject: response.extensions().get::<Subject>().cloned(), ..Done::new(told) }
}

async fn applications(asked: &Asked<'_>, name: &str, fields: &Fields) -> Result<Done, Status> {
    let (door, get, reason) = (&asked.panel.apps, |name| text(fields, name), text(fields, "reason"));
    match name {
        "Command" => {
            let command = number(fields, "command")?.unwrap_or_default();
            let request = wire::CommandAppRequest { name: get("name"), command, reason };
            let answer = door.command(asked.request(request)).await?;
            let app = answer.get_ref();
            let told = format!("{} is {}", app.name, app.state);
            let inverse = match wire::AppCommand::try_from(command) {
                Ok(wire::AppCommand::Wake) => Some(wire::AppCommand::Sleep),
                Ok(wire::AppCommand::Sleep) => Some(wire::AppCommand::Wake),
                _ => None,
            };
            let undo = inverse.filter(|_| !app.unchanged).map(|command| {
                let fields = vec![("name", get("name")), ("command", (command as i32).to_string())];
                ("AppService/Command", fields)
            });
            Ok(done(&answer, told).undone_by(undo))
        }
        "CommandTrigger" => {
            let command = number(fields, "command")?.unwrap_or_default();
            let request = wire::CommandTriggerRequest {
                app: get("app"),
                trigger: get("trigger"),
                command,
                from_ms: number(fields, "from_ms")?,
                until_ms: number(fields, "until_ms")?,
                reason,
            };
            let answer = door.command_trigger(asked.request(request)).await?;
            let skipped = answer.get_ref().skipped.as_str();
            if !skipped.is_empty() {
                return Ok(done(&answer, format!("nothing was done: {skipped}")));
            }
            let (told, inverse) = match wire::TriggerCommand::try_from(command) {
                Ok(wire::TriggerCommand::Pause) => ("is paused", Some(wire::TriggerCommand::Resume)),
                Ok(wire::TriggerCommand::Resume) => ("goes on", Some(wire::TriggerCommand::Pause)),
                _ => ("was told", None),
            };
            let undo = inverse.map(|command| {
                let command = (command as i32).to_string();
                let fields = vec![("app", get("app")), ("trigger", get("trigger")), ("command", command)];
                ("AppService/CommandTrigger", fields)
            });
            Ok(done(&answer, format!("trigger {} of {} {told}", get("trigger"), get("app"))).undone_by(undo))
        }
        "CancelRun" => {
            let answer =
                door.cancel_run(asked.request(wire::CancelRunRequest { id: get("id"), reason })).await?;
            Ok(done(&answer, "it is told to stop".to_owned()))
        }
        "Register" => {
            // Archives are unpacked and packed beside the requests that are being answered.
            let files = fields.files.clone();
            let handed = tokio::task::spawn_blocking(move || register::handed(&files)).await;
            let handed = handed.map_err(|_| Status::internal("the files could not be read"))??;
            let request = asked.request(());
            let answer = door.take_in(request.extensions(), &handed.manifest, &reason, handed.code).await?;
            let app = answer.get_ref();
            let told = match (app.unchanged, app.state.as_str()) {
                (true, _) => format!("{} was registered so already", app.name),
                (false, "registered") => format!("{} is registered; enable it to let it run", app.name),
                (false, _) => format!("{} has a new version", app.name),
            };
            Ok(Done { page: Some(format!("apps/{}", escaped(&app.name))), ..done(&answer, told) })
        }
        "RepeatRun" => {
            let answer =
                door.repeat_run(asked.request(wire::RepeatRunRequest { id: get("id"), reason })).await?;
            let id = answer.get_ref().id.clone();
            Ok(Done {
                page: Some(format!("runs/{}", escaped(&id))),
                ..done(&answer, format!("repeated as {id}"))
            })
        }
        "SetVersionAlias" => {
            let (app, alias) = (get("app"), get("alias"));
            let undo = version_alias(asked, &app, &alias).await?;
            let version = number(fields, "version")?;
            let told = match version {
                Some(version) => format!("{alias} of {app} is version {version}"),
                None => format!("{app} has no {alias}"),
            };
            let request = wire::SetVersionAliasRequest { app, alias, version, reason };
            let answer = door.set_version_alias(asked.request(request)).await?;
            Ok(done(&answer, told).undone_by(undo))
        }
        "RollBackVersion" => {
            let undo = version_alias(asked, &get("app"), "champion").await?;
            let answer = door
                .roll_back_version(asked.request(wire::RollBackVersionRequest { app: get("app"), reason }))
                .await?;
            Ok(done(&answer, format!("{} is rolled back", get("app"))).undone_by(undo))
        }
        "Execute" => {
            let request = wire::ExecuteRequest {
                app: get("app"),
                request_id: String::new(),
                input: fields.lines("input").into_bytes(),
            };
            let mut steps = door.execute(asked.request(request)).await?.into_inner();
            // Its page tells how it goes on.
            let first = steps.next().await.transpose()?;
            let run = first.and_then(|first| first.run).unwrap_or_default();
            Ok(Done::new(format!("run {} was made", run.id)))
        }
        "Notify" => {
            let files = data(fields)?;
            let request = wire::NotifyRequest {
                app: get("app"),
                key: key(&files),
                files,
                ..wire::NotifyRequest::default()
            };
            let answer = door.notify(asked.request(request)).await?.into_inner();
            Ok(Done::new(if answer.already_known {
                "this data was known already"
            } else {
                "the data is taken"
            }))
        }
        _ => Err(Status::unimplemented("no such action")),
    }
}

/// What gives an alias of an application back to who has it now; nothing where a champion would have to go.
async fn version_alias(asked: &Asked<'_>, app: &str, alias: &str) -> Result<Option<Inverse>, Status> {
    let get = wire::GetAppRequest { name: app.to_owned() };
    let now = AppService::get(&asked.panel.apps, asked.request(get)).await?.into_inner();
    let version = now.aliases.get(alias).map_or_else(String::new, i64::to_string);
    if version.is_empty() && alias == "champion" {
        return Ok(None);
    }
    let fields = vec![("app", app.to_owned()), ("alias", alias.to_owned()), ("version", version)];
    Ok(Some(("AppService/SetVersionAlias", fields)))
}

async fn dispute(asked: &Asked<'_>, fields: &Fields) -> Result<Done, Status> {
    let request = wire::DisputeRequest {
        cluster_id: text(fields, "cluster_id"),
        decision_id: text(fields, "decision_id"),
        reason: text(fields, "reason"),
        withdraw: !text(fields, "withdraw").is_empty(),
    };
    let answer = asked.panel.door.dispute(asked.request(request)).await?;
    let wire::Disputed { cluster_id, decision_id, withdrawn, .. } = answer.get_ref().clone();
    let told =
        format!("decision {decision_id} is {}", if withdrawn { "not disputed any more" } else { "disputed" });
    let mut fields = vec![("cluster_id", cluster_id), ("decision_id", decision_id)];
    if !withdrawn {
        fields.push(("withdraw", "yes".to_owned()));
    }
    Ok(done(&answer, told).undone_by(Some(("PlacementService/Dispute", fields))))
}

/// What gives a role back to who had it before a change.
fn role_back(change: &wire::AliasChange) -> Option<Inverse> {
    let wire::AliasChange { alias, policy, before, .. } = change.clone();
    let possible = policy != before && !(before.is_empty() && alias == "champion");
    let fields = vec![("alias", alias), ("policy", before), ("expected", policy)];
    possible.then_some(("PolicyService/SetAlias", fields))
}

/// What has a cluster served again as it was.
fn serving_back(before: &wire::Serving) -> Inverse {
    let number = |number: Option<f64>| number.map_or_else(String::new, |number| number.to_string());
    let fields = vec![
        ("cluster_id", before.cluster_id.clone()),
        ("autonomy", before.autonomy.to_string()),
        ("share", number(before.share)),
        ("candidate_share", number(before.candidate_share)),
        ("shadow_share", number(before.shadow_share)),
        ("regret_budget", number(before.regret_budget)),
        ("alpha", number(before.alpha)),
    ];
    ("PolicyService/SetServing", fields)
}

/// Data that was chosen as files, or else typed.
fn data(fields: &Fields) -> Result<Vec<wire::DataFile>, Status> {
    let typed = wire::DataFile { name: text(fields, "file"), content: fields.lines("content").into_bytes() };
    let chosen = |file: &File| wire::DataFile { name: file.name.clone(), content: file.content.to_vec() };
    match (fields.files.is_empty(), typed.content.is_empty()) {
        (false, _) => Ok(fields.files.iter().map(chosen).collect()),
        (true, false) => Ok(vec![typed]),
        (true, true) => Err(Status::invalid_argument("content: is empty, want files or something typed")),
    }
}

/// The same data is the same notice.
fn key(files: &[wire::DataFile]) -> String {
    let mut hash = Sha256::new();
    files.iter().for_each(|file| hash.update(&file.content));
    crate::storage::hex(&hash.finalize())
}

async fn policies(asked: &Asked<'_>, name: &str, fields: &Fields) -> Result<Done, Status> {
    let (door, get, reason) = (&asked.panel.door, |name| text(fields, name), text(fields, "reason"));
    match name {
        "SetAlias" => {
            let (alias, policy, expected) = (get("alias"), get("policy"), fields.get("expected").cloned());
            let request = wire::SetAliasRequest { alias, policy, reason, expected };
            let change = door.set_alias(asked.request(request)).await?.into_inner();
            let told = format!("{} is {}", change.alias, called(asked, &change.policy).await);
            Ok(Done::new(told).undone_by(role_back(&change)))
        }
        "RollBack" => {
            let request = wire::RollBackRequest { alias: get("alias"), reason };
            let change = PolicyService::roll_back(door, asked.request(request)).await?.into_inner();
            let told = format!("{} is {} again", change.alias, called(asked, &change.policy).await);
            Ok(Done::new(told).undone_by(role_back(&change)))
        }
        "SetServing" => {
            let serving = wire::Serving {
                cluster_id: get("cluster_id"),
                autonomy: number(fields, "autonomy")?.unwrap_or_default(),
                share: number(fields, "share")?,
                candidate_share: number(fields, "candidate_share")?,
                shadow_share: number(fields, "shadow_share")?,
                regret_budget: number(fields, "regret_budget")?,
                alpha: number(fields, "alpha")?,
                ..wire::Serving::default()
            };
            let of = wire::GetServingRequest { cluster_id: get("cluster_id") };
            let before = door.get_serving(asked.request(of)).await?.into_inner();
            door.set_serving(asked.request(wire::SetServingRequest { serving: Some(serving), reason }))
                .await?;
            Ok(Done::new("it holds from the next request on").undone_by(Some(serving_back(&before))))
        }
        _ => Err(Status::unimplemented("no such action")),
    }
}

async fn tokens(asked: &Asked<'_>, name: &str, fields: &Fields) -> Result<Done, Status> {
    let door = &asked.panel.door;
    match name {
        "CreateToken" => {
            let days: Option<i64> = number(fields, "days")?;
            let request = wire::CreateTokenRequest {
                name: text(fields, "name"),
                role: number(fields, "role")?.unwrap_or_default(),
                valid_s: days.map(|days| days.saturating_mul(86_400)),
            };
            let made = door.create_token(asked.request(request)).await?.into_inner();
            Ok(Done { once: Some(made.secret), ..Done::new("A token was made") })
        }
        "RevokeToken" => {
            let token =
                door.revoke_token(asked.request(wire::RevokeTokenRequest { id: text(fields, "id") })).await?;
            Ok(Done::new(format!("the token of {} is revoked", token.into_inner().name)))
        }
        _ => Err(Status::unimplemented("no such action")),
    }
}
