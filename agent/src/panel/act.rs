//! What the panel does. Every action is a method of a service, called with the rights of whoever asks for it and noted as
//! every other call.

use std::collections::BTreeMap;

use axum::Form;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use remora_proto::v1 as wire;
use remora_proto::v1::admin_service_server::AdminService;
use remora_proto::v1::app_service_server::AppService;
use remora_proto::v1::policy_service_server::PolicyService;
use subtle::ConstantTimeEq;
use tokio_stream::StreamExt;
use tonic::Status;

use super::page::{Page, escaped};
use super::session::same_origin;
use super::{Asked, Panel, plain};
use crate::service::METHODS;
use crate::service::access::{Method, Peer, Subject};

/// Every action, by the method that it calls.
pub const ACTIONS: [&str; 13] = [
    "AdminService/CreateToken",
    "AdminService/RevokeToken",
    "AppService/CancelRun",
    "AppService/Command",
    "AppService/CommandTrigger",
    "AppService/Execute",
    "AppService/Notify",
    "AppService/RepeatRun",
    "AppService/RollBackVersion",
    "AppService/SetVersionAlias",
    "PolicyService/RollBack",
    "PolicyService/SetAlias",
    "PolicyService/SetServing",
];

/// What was filled in.
type Fields = BTreeMap<String, String>;

/// What an action says when it is done: words, what it was about, and what is told only this once.
struct Done {
    told: String,
    subject: Option<Subject>,
    once: Option<String>,
}

impl Done {
    fn new(told: impl Into<String>) -> Done {
        Done { told: told.into(), subject: None, once: None }
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

pub async fn act(
    State(panel): State<Panel>,
    Path((service, name)): Path<(String, String)>,
    headers: HeaderMap,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Form(fields): Form<Fields>,
) -> Response {
    let session = match panel.who(&headers, &peer) {
        Ok(session) => session,
        Err(elsewhere) => return *elsewhere,
    };
    if let Err(why) = same_origin(&headers) {
        return plain(StatusCode::FORBIDDEN, &why);
    }
    let csrf = fields.get("csrf").map_or("", String::as_str);
    if !bool::from(csrf.as_bytes().ct_eq(session.csrf.as_bytes())) {
        return plain(StatusCode::FORBIDDEN, "this form is from another session; load the page again");
    }
    let asked = Asked { panel: &panel.0, session: &session, told: None };
    let done = carry_out(&asked, &format!("{service}/{name}"), &fields).await;
    let back = fields.get("back").map_or("", String::as_str);
    // Only to pages of ours.
    let back = if back.contains("//") || back.contains(':') || back.starts_with('/') { "" } else { back };
    match done {
        Ok(Done { once: Some(secret), told, .. }) => once(&asked, &told, &secret, back),
        Ok(Done { told, .. }) => {
            Redirect::to(&format!("{}/{back}?told={}", panel.0.prefix, escaped(&told))).into_response()
        }
        Err(status) => {
            let code = match status.code() {
                tonic::Code::PermissionDenied => StatusCode::FORBIDDEN,
                tonic::Code::NotFound => StatusCode::NOT_FOUND,
                tonic::Code::Unavailable | tonic::Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::BAD_REQUEST,
            };
            (code, Html(Page::trouble(status.message()).render(&asked).into_string())).into_response()
        }
    }
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

async fn carry_out(asked: &Asked<'_>, name: &str, fields: &Fields) -> Result<Done, Status> {
    if !ACTIONS.contains(&name) {
        return Err(Status::not_found(format!("the panel has no action {name:?}")));
    }
    let method = asked.demand(name)?;
    let done = match name.split_once('/') {
        Some(("AppService", name)) => applications(asked, name, fields).await,
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
    Done { told, subject: response.extensions().get::<Subject>().cloned(), once: None }
}

async fn applications(asked: &Asked<'_>, name: &str, fields: &Fields) -> Result<Done, Status> {
    let (door, get, reason) = (&asked.panel.apps, |name| text(fields, name), text(fields, "reason"));
    match name {
        "Command" => {
            let command = number(fields, "command")?.unwrap_or_default();
            let request = wire::CommandAppRequest { name: get("name"), command, reason };
            let answer = door.command(asked.request(request)).await?;
            let told = format!("{} is {}", answer.get_ref().name, answer.get_ref().state);
            Ok(done(&answer, told))
        }
        "CommandTrigger" => {
            let request = wire::CommandTriggerRequest {
                app: get("app"),
                trigger: get("trigger"),
                command: number(fields, "command")?.unwrap_or_default(),
                from_ms: number(fields, "from_ms")?,
                until_ms: number(fields, "until_ms")?,
                reason,
            };
            let answer = door.command_trigger(asked.request(request)).await?;
            let told = match answer.get_ref().skipped.as_str() {
                "" => "done".to_owned(),
                why => format!("nothing was done: {why}"),
            };
            Ok(done(&answer, told))
        }
        "CancelRun" => {
            let answer =
                door.cancel_run(asked.request(wire::CancelRunRequest { id: get("id"), reason })).await?;
            Ok(done(&answer, "it is told to stop".to_owned()))
        }
        "RepeatRun" => {
            let answer =
                door.repeat_run(asked.request(wire::RepeatRunRequest { id: get("id"), reason })).await?;
            let told = format!("repeated as {}", answer.get_ref().id);
            Ok(done(&answer, told))
        }
        "SetVersionAlias" => {
            let (app, alias) = (get("app"), get("alias"));
            let request =
                wire::SetVersionAliasRequest { app, alias, version: number(fields, "version")?, reason };
            let answer = door.set_version_alias(asked.request(request)).await?;
            Ok(done(&answer, "the alias is given".to_owned()))
        }
        "RollBackVersion" => {
            let answer = door
                .roll_back_version(asked.request(wire::RollBackVersionRequest { app: get("app"), reason }))
                .await?;
            Ok(done(&answer, "rolled back".to_owned()))
        }
        "Execute" => {
            let request = wire::ExecuteRequest {
                app: get("app"),
                request_id: String::new(),
                input: get("input").into_bytes(),
            };
            let mut steps = door.execute(asked.request(request)).await?.into_inner();
            // Its page tells how it goes on.
            let first = steps.next().await.transpose()?;
            let run = first.and_then(|first| first.run).unwrap_or_default();
            Ok(Done::new(format!("run {} was made", run.id)))
        }
        "Notify" => {
            let content = get("content").into_bytes();
            let key = crate::storage::hex(&<sha2::Sha256 as sha2::Digest>::digest(&content));
            let request = wire::NotifyRequest {
                app: get("app"),
                key,
                files: vec![wire::DataFile { name: get("file"), content }],
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

async fn policies(asked: &Asked<'_>, name: &str, fields: &Fields) -> Result<Done, Status> {
    let (door, get, reason) = (&asked.panel.door, |name| text(fields, name), text(fields, "reason"));
    match name {
        "SetAlias" => {
            let request =
                wire::SetAliasRequest { alias: get("alias"), policy: get("policy"), reason, expected: None };
            let change = door.set_alias(asked.request(request)).await?.into_inner();
            Ok(Done::new(format!("{} is {}", change.alias, change.policy)))
        }
        "RollBack" => {
            let request = wire::RollBackRequest { alias: get("alias"), reason };
            let change = PolicyService::roll_back(door, asked.request(request)).await?.into_inner();
            Ok(Done::new(format!("{} is {} again", change.alias, change.policy)))
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
            door.set_serving(asked.request(wire::SetServingRequest { serving: Some(serving), reason }))
                .await?;
            Ok(Done::new("it holds from the next request on"))
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
