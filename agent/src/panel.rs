//! The Control Panel: the web page from which an operator runs everything. It is a client like any other: what it shows
//! it asks of the services' own methods, and what it does goes through [`act`], which calls one of them.

mod access;
mod act;
mod application;
mod assets;
mod live;
mod overview;
mod page;
mod placements;
mod policies;
mod run;
mod session;
mod triggers;

use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use maud::Markup;
use serde::Deserialize;
use tonic::Status;

use crate::appcore::door::AppDoor;
use crate::service::access::{Caller, Peer};
use crate::service::gate::Gate;
use crate::service::{Clock, Door};
use crate::storage::{Role, Storage};
pub use act::ACTIONS;
use page::Page;
use session::{Session, Sessions};

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
    sessions: Sessions,
}

/// What a page is made from.
struct Asked<'a> {
    panel: &'a Parts,
    session: &'a Session,
    /// What was just done, for people.
    told: Option<String>,
}

impl Asked<'_> {
    /// A request of whoever looks at the page.
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        request(&self.session.caller, message)
    }

    fn may(&self, least: Role) -> bool {
        self.session.caller.role >= least
    }
}

fn request<T>(caller: &Caller, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.extensions_mut().insert(caller.clone());
    request
}

/// What comes after a question mark.
#[derive(Debug, Default, Deserialize)]
pub struct Asking {
    #[serde(default)]
    told: Option<String>,
    #[serde(default)]
    pub q: Option<String>,
    #[serde(default)]
    pub before: Option<i64>,
    #[serde(default)]
    pub page: Option<String>,
    #[serde(default)]
    code: Option<String>,
}

impl Panel {
    /// The panel before these services. `first` is a token that a one-time link gives away.
    pub fn new(
        gate: Gate,
        door: Door,
        apps: AppDoor,
        storage: Option<Arc<Storage>>,
        clock: Clock,
        prefix: String,
        first: Option<FirstLink>,
    ) -> Panel {
        let sessions = Sessions::new(first);
        Panel(Arc::new(Parts { gate, door, apps, storage, clock, prefix, sessions }))
    }

    /// Every page and what belongs to it.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/", get(overview))
            .route("/apps", get(apps))
            .route("/apps/{name}", get(app))
            .route("/runs", get(runs))
            .route("/runs/{id}", get(one_run))
            .route("/runs/{id}/files/{*name}", get(file))
            .route("/placements", get(placements_all))
            .route("/placements/{cluster}", get(placements_of))
            .route("/placements/{cluster}/{decision}", get(receipt))
            .route("/policies", get(policies_page))
            .route("/triggers", get(triggers_page))
            .route("/audit", get(audit))
            .route("/access", get(access_page))
            .route("/sign-in", get(sign_in).post(signed_in))
            .route("/sign-out", post(sign_out))
            .route("/act/{service}/{method}", post(act::act))
            .route("/live", get(live::live))
            .route("/assets/{name}", get(assets::asset))
            .fallback(nowhere)
            .with_state(self)
            .layer(axum::middleware::map_response(guard))
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

    /// A page for whoever asks.
    async fn page<'a, F: AsyncFnOnce(&Asked<'_>) -> Result<Page, Status>>(
        &self,
        (headers, peer): (&HeaderMap, &Peer),
        asking: &Asking,
        make: F,
    ) -> Response {
        let session = match self.who(headers, peer) {
            Ok(session) => session,
            Err(elsewhere) => return *elsewhere,
        };
        let asked = Asked { panel: &self.0, session: &session, told: asking.told.clone() };
        match make(&asked).await {
            Ok(page) => Html(page.render(&asked).into_string()).into_response(),
            Err(status) => {
                let code = match status.code() {
                    tonic::Code::NotFound => StatusCode::NOT_FOUND,
                    tonic::Code::InvalidArgument | tonic::Code::OutOfRange => StatusCode::BAD_REQUEST,
                    tonic::Code::PermissionDenied => StatusCode::FORBIDDEN,
                    tonic::Code::FailedPrecondition => StatusCode::CONFLICT,
                    _ => StatusCode::INTERNAL_SERVER_ERROR,
                };
                (code, Html(Page::trouble(status.message()).render(&asked).into_string())).into_response()
            }
        }
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

type Who = (HeaderMap, ConnectInfo<Peer>);

async fn overview(State(panel): State<Panel>, who: Who, Query(asking): Query<Asking>) -> Response {
    panel.page((&who.0, &who.1.0), &asking, overview::page).await
}

async fn apps(State(panel): State<Panel>, who: Who, Query(asking): Query<Asking>) -> Response {
    panel
        .page((&who.0, &who.1.0), &asking, async |asked: &Asked<'_>| application::list(asked, &asking).await)
        .await
}

async fn app(
    State(panel): State<Panel>,
    Path(name): Path<String>,
    who: Who,
    Query(asking): Query<Asking>,
) -> Response {
    panel
        .page((&who.0, &who.1.0), &asking, async |asked: &Asked<'_>| application::one(asked, name).await)
        .await
}

async fn runs(State(panel): State<Panel>, who: Who, Query(asking): Query<Asking>) -> Response {
    panel.page((&who.0, &who.1.0), &asking, async |asked: &Asked<'_>| run::list(asked, &asking).await).await
}

async fn one_run(
    State(panel): State<Panel>,
    Path(id): Path<String>,
    who: Who,
    Query(asking): Query<Asking>,
) -> Response {
    panel.page((&who.0, &who.1.0), &asking, async |asked: &Asked<'_>| run::one(asked, id).await).await
}

/// What a run read or wrote, to be saved, never shown as a page of ours.
async fn file(State(panel): State<Panel>, Path((id, name)): Path<(String, String)>, who: Who) -> Response {
    let session = match panel.who(&who.0, &who.1.0) {
        Ok(session) => session,
        Err(elsewhere) => return *elsewhere,
    };
    match run::file(&panel.0, &session, id, name).await {
        Ok(bytes) => {
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
                (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment")),
            ];
            (headers, bytes).into_response()
        }
        Err(status) => plain(StatusCode::NOT_FOUND, status.message()),
    }
}

async fn placements_all(State(panel): State<Panel>, who: Who, Query(asking): Query<Asking>) -> Response {
    panel.page((&who.0, &who.1.0), &asking, placements::clusters).await
}

async fn placements_of(
    State(panel): State<Panel>,
    Path(cluster): Path<String>,
    who: Who,
    Query(asking): Query<Asking>,
) -> Response {
    panel
        .page((&who.0, &who.1.0), &asking, async |asked: &Asked<'_>| placements::of(asked, cluster).await)
        .await
}

async fn receipt(
    State(panel): State<Panel>,
    Path((cluster, decision)): Path<(String, String)>,
    who: Who,
    Query(asking): Query<Asking>,
) -> Response {
    let make = async |asked: &Asked<'_>| placements::receipt(asked, cluster, decision).await;
    panel.page((&who.0, &who.1.0), &asking, make).await
}

async fn policies_page(State(panel): State<Panel>, who: Who, Query(asking): Query<Asking>) -> Response {
    panel.page((&who.0, &who.1.0), &asking, policies::page).await
}

async fn triggers_page(State(panel): State<Panel>, who: Who, Query(asking): Query<Asking>) -> Response {
    panel.page((&who.0, &who.1.0), &asking, triggers::page).await
}

async fn audit(State(panel): State<Panel>, who: Who, Query(asking): Query<Asking>) -> Response {
    panel
        .page((&who.0, &who.1.0), &asking, async |asked: &Asked<'_>| access::audit(asked, &asking).await)
        .await
}

async fn access_page(State(panel): State<Panel>, who: Who, Query(asking): Query<Asking>) -> Response {
    panel.page((&who.0, &who.1.0), &asking, access::tokens).await
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

async fn nowhere(State(panel): State<Panel>, who: Who, uri: Uri) -> Response {
    if panel.who(&who.0, &who.1.0).is_err() {
        return plain(StatusCode::NOT_FOUND, "there is no such page");
    }
    let missing = async |_: &Asked<'_>| Err(Status::not_found(format!("there is no page {}", uri.path())));
    panel.page((&who.0, &who.1.0), &Asking::default(), missing).await
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
