//! The Control Panel: the web page from which an operator runs everything. It is a client like any other: what it shows
//! it asks of the services' own methods, and what it does goes through [`act`], which calls one of them.

mod access;
mod act;
mod application;
mod assets;
mod chart;
mod compare;
mod compress;
mod data;
mod evaluation;
mod fields;
mod live;
mod map;
mod overview;
mod page;
mod placements;
mod policies;
mod preview;
mod register;
mod run;
mod saved;
mod session;
mod settings;
mod training;
mod triggers;
mod watched;

use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts, Path, Query, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts as Head;
use axum::http::{StatusCode, Uri};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use maud::Markup;
use remora_proto::v1 as wire;
use remora_proto::v1::app_service_server::AppService;
use serde::Deserialize;
use tonic::{Code, Status};

use crate::appcore::door::AppDoor;
use crate::http::refused;
use crate::service::access::{Caller, Peer};
use crate::service::gate::{Gate, Place};
use crate::service::{Clock, Door, TrainingDoor};
use crate::storage::{Role, Storage};
pub use act::ACTIONS;
use live::Pulse;
use page::Page;
use saved::{BYTES, saved};
use session::{Session, Sessions, Undo};
use watched::Watched;

/// The panel; clones are the same one.
#[derive(Clone, Debug)]
pub struct Panel(Arc<Parts>);

#[derive(Debug)]
pub struct Parts {
    pub gate: Gate,
    pub door: Door,
    pub apps: AppDoor,
    pub storage: Option<Arc<Storage>>,
    pub clock: Clock,
    /// What stands before every path where a proxy passes on only a part of its own: empty, or as `/remora`.
    pub prefix: String,
    pub training: TrainingDoor,
    sessions: Sessions,
    pulse: Pulse,
    watched: Watched,
}

/// The services that it is a client of.
#[derive(Clone, Debug)]
pub struct Doors {
    pub clusters: Door,
    pub apps: AppDoor,
    pub training: TrainingDoor,
}

/// Somebody at a path of ours: who, what stands behind the question mark, and what the browser said.
#[derive(Debug)]
pub struct Visit {
    panel: Panel,
    session: Session,
    asking: Asking,
    headers: HeaderMap,
    peer: Peer,
    /// Among the requests under way, as long as this one is.
    place: Place,
}

impl FromRequestParts<Panel> for Visit {
    type Rejection = Response;

    /// Those who are not in are sent elsewhere, and those who ask for too much are refused as at every other door.
    async fn from_request_parts(head: &mut Head, panel: &Panel) -> Result<Visit, Response> {
        let peer = ConnectInfo::<Peer>::from_request_parts(head, panel).await;
        let ConnectInfo(peer) = peer.map_err(IntoResponse::into_response)?;
        let session = panel.who(&head.headers, &peer).map_err(|elsewhere| *elsewhere)?;
        let asking = Query::from_request_parts(head, panel).await;
        let Query(asking) = asking.map_err(IntoResponse::into_response)?;
        let place = panel.0.gate.enter(&session.caller, &peer).map_err(refused)?;
        Ok(Visit { panel: panel.clone(), session, asking, headers: head.headers.clone(), peer, place })
    }
}

impl Visit {
    fn asked(&self) -> Asked<'_> {
        let Visit { panel, session, asking, .. } = self;
        let undo = asking.undo.as_deref().and_then(|id| panel.0.sessions.offered(&session.csrf, id));
        Asked { panel: &panel.0, session, told: asking.told.clone(), undo }
    }

    /// A page for them.
    async fn page<F: AsyncFnOnce(&Asked<'_>) -> Shown>(&self, make: F) -> Response {
        let asked = self.asked();
        match make(&asked).await {
            Ok(page) => Html(page.render(&asked).into_string()).into_response(),
            Err(status) => asked.refused(&status),
        }
    }
}

/// What a page is made from.
struct Asked<'a> {
    panel: &'a Parts,
    session: &'a Session,
    /// What was just done, for people, and what would undo it.
    told: Option<String>,
    undo: Option<Undo>,
}

impl Asked<'_> {
    /// A request of whoever looks at the page.
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        request(&self.session.caller, message)
    }

    fn may(&self, least: Role) -> bool {
        self.session.caller.role >= least
    }

    /// Whether they may call a method.
    fn can(&self, method: &str) -> bool {
        self.demand(method).is_ok()
    }

    /// A page that says why there is no other.
    fn refused(&self, status: &Status) -> Response {
        let page = Page::trouble(status.message()).render(self);
        (code(status), Html(page.into_string())).into_response()
    }
}

fn request<T>(caller: &Caller, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.extensions_mut().insert(caller.clone());
    request
}

/// What HTTP calls a refusal of a service.
fn code(status: &Status) -> StatusCode {
    match status.code() {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::FailedPrecondition | Code::Aborted | Code::AlreadyExists => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// What comes after a question mark.
#[derive(Debug, Default, Deserialize)]
pub struct Asking {
    #[serde(default)]
    told: Option<String>,
    #[serde(default)]
    undo: Option<String>,
    #[serde(default)]
    pub policy: Option<String>,
    #[serde(default)]
    pub version: Option<i64>,
    #[serde(default)]
    pub cluster: Option<String>,
    #[serde(default)]
    pub last: Option<i64>,
    #[serde(default)]
    q: Option<String>,
    #[serde(default)]
    pub app: Option<String>,
    #[serde(default)]
    pub with: Option<String>,
    #[serde(default)]
    pub before: Option<i64>,
    #[serde(default)]
    pub page: Option<String>,
    #[serde(default)]
    code: Option<String>,
}

impl Asking {
    /// What is searched for; empty for everything.
    pub fn wanted(&self) -> String {
        self.q.as_deref().unwrap_or_default().trim().to_owned()
    }

    /// The page of a list, counted from 0; what is no number is the first.
    pub fn number(&self) -> usize {
        let page = self.page.as_ref().and_then(|page| page.parse().ok()).unwrap_or(0);
        // So many pages of so many rows have no end.
        page.min(1_000_000)
    }
}

impl Panel {
    /// The panel before these services. `first` is a token that a one-time link gives away.
    pub fn new(
        gate: Gate,
        doors: Doors,
        storage: Option<Arc<Storage>>,
        clock: Clock,
        prefix: String,
        first: Option<FirstLink>,
    ) -> Panel {
        let Doors { clusters: door, apps, training } = doors;
        let (sessions, pulse, watched) = (Sessions::new(first), Pulse::new(), Watched::default());
        let parts = Parts { gate, door, apps, storage, clock, prefix, training, sessions, pulse, watched };
        let parts = Arc::new(parts);
        live::start(&parts);
        Panel(parts)
    }

    /// Every page and what belongs to it.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/", get(overview))
            .route("/apps", get(apps))
            .route("/apps/{name}", get(app))
            .route("/runs", get(runs))
            .route("/runs/{id}", get(one_run))
            .route("/runs/{id}/compare", get(compared))
            .route("/runs/{id}/files/{*name}", get(file))
            .route("/placements", get(placements_all))
            .route("/placements/{cluster}", get(placements_of))
            .route("/placements/{cluster}/{decision}", get(receipt))
            .route("/policies", get(policies_page))
            .route("/policies/preview", get(preview_page))
            .route("/policies/evaluation", get(evaluation_page))
            .route("/triggers", get(triggers_page))
            .route("/audit", get(audit))
            .route("/access", get(access_page))
            .route("/sign-in", get(sign_in).post(signed_in))
            .route("/sign-out", post(sign_out))
            .route("/act/{service}/{method}", post(act::act).layer(DefaultBodyLimit::disable()))
            .route("/live", get(live::live))
            .route("/assets/{name}", get(assets::asset))
            .merge(data::routes())
            .merge(map::routes())
            .merge(settings::routes())
            .merge(training::routes())
            .fallback(nowhere)
            .with_state(self)
            .layer(axum::middleware::map_response(guard))
            .layer(axum::middleware::from_fn(compress::compress))
    }

    /// Who asks, or where they are sent instead.
    fn who(&self, headers: &HeaderMap, peer: &Peer) -> Result<Session, Box<Response>> {
        self.0.sessions.find(&self.0, headers, peer).map_err(|why| match why {
            session::Why::Unknown => Box::new(self.go("sign-in")),
            session::Why::Foreign(why) => Box::new(plain(StatusCode::FORBIDDEN, &why)),
        })
    }

    fn go(&self, to: &str) -> Response {
        Redirect::to(&format!("{}/{to}", self.0.prefix)).into_response()
    }
}

/// What a one-time link is worth: its code, and the token it signs in with.
#[derive(Clone)]
pub struct FirstLink {
    pub code: String,
    token: String,
}

impl std::fmt::Debug for FirstLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FirstLink")
    }
}

async fn overview(visit: Visit) -> Response {
    visit.page(overview::page).await
}

async fn apps(visit: Visit) -> Response {
    visit.page(async |asked: &Asked<'_>| application::list(asked, &visit.asking).await).await
}

async fn app(visit: Visit, Path(name): Path<String>) -> Response {
    visit.page(async |asked: &Asked<'_>| application::one(asked, name).await).await
}

async fn runs(visit: Visit) -> Response {
    visit.page(async |asked: &Asked<'_>| run::list(asked, &visit.asking).await).await
}

async fn one_run(visit: Visit, Path(id): Path<String>) -> Response {
    visit.page(async |asked: &Asked<'_>| run::one(asked, id).await).await
}

async fn compared(visit: Visit, Path(id): Path<String>) -> Response {
    visit.page(async |asked: &Asked<'_>| compare::page(asked, &visit.asking, id).await).await
}

/// What a run read or wrote.
async fn file(visit: Visit, Path((id, name)): Path<(String, String)>) -> Response {
    let asked = visit.asked();
    let request = asked.request(wire::GetArtifactRequest { run: id, name: name.clone() });
    saved(asked.panel.apps.get_artifact(request).await, BYTES, &name).await
}

async fn placements_all(visit: Visit) -> Response {
    visit.page(placements::clusters).await
}

async fn placements_of(visit: Visit, Path(cluster): Path<String>) -> Response {
    visit.page(async |asked: &Asked<'_>| placements::of(asked, cluster).await).await
}

async fn receipt(visit: Visit, Path((cluster, decision)): Path<(String, String)>) -> Response {
    visit.page(async |asked: &Asked<'_>| placements::receipt(asked, cluster, decision).await).await
}

async fn policies_page(visit: Visit) -> Response {
    visit.page(policies::page).await
}

async fn preview_page(visit: Visit) -> Response {
    visit.page(async |asked: &Asked<'_>| preview::page(asked, &visit.asking).await).await
}

async fn evaluation_page(visit: Visit) -> Response {
    visit.page(async |asked: &Asked<'_>| evaluation::page(asked, &visit.asking).await).await
}

async fn triggers_page(visit: Visit) -> Response {
    visit.page(async |asked: &Asked<'_>| triggers::page(asked, &visit.asking).await).await
}

async fn audit(visit: Visit) -> Response {
    visit.page(async |asked: &Asked<'_>| access::audit(asked, &visit.asking).await).await
}

async fn access_page(visit: Visit) -> Response {
    visit.page(access::tokens).await
}

async fn sign_in(State(panel): State<Panel>, Query(asking): Query<Asking>) -> Response {
    if let Some(token) = asking.code.as_deref().and_then(|code| panel.0.sessions.redeem(code)) {
        return panel.0.sessions.begin(&panel.0, &token);
    }
    let wrong = asking.code.map(|_| "this link was used already, or is not ours");
    Html(page::sign_in(&panel.0, wrong).into_string()).into_response()
}

#[derive(Deserialize)]
struct SignIn {
    token: String,
}

async fn signed_in(
    State(panel): State<Panel>,
    headers: HeaderMap,
    axum::Form(form): axum::Form<SignIn>,
) -> Response {
    if let Err(why) = session::same_origin(&headers) {
        return plain(StatusCode::FORBIDDEN, &why);
    }
    panel.0.sessions.begin(&panel.0, form.token.trim())
}

async fn sign_out(State(panel): State<Panel>, headers: HeaderMap) -> Response {
    if let Err(why) = session::same_origin(&headers) {
        return plain(StatusCode::FORBIDDEN, &why);
    }
    panel.0.sessions.end(&panel.0, &headers)
}

async fn nowhere(visit: Result<Visit, Response>, uri: Uri) -> Response {
    let Ok(visit) = visit else { return plain(StatusCode::NOT_FOUND, "there is no such page") };
    let missing = async |_: &Asked<'_>| Err(Status::not_found(format!("there is no page {}", uri.path())));
    visit.page(missing).await
}

fn plain(code: StatusCode, text: &str) -> Response {
    (code, format!("{text}\n")).into_response()
}

/// Nothing from elsewhere runs, is shown or is sent anywhere; no other page shows ours.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; base-uri 'self'; frame-ancestors 'none'";

async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let set = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in set {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// Something shown, for those who write pages.
type Shown = Result<Page, Status>;

/// A part of a page.
type Part = Markup;
