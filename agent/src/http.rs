//! The HTTP door: metrics and health, and whatever else is mounted beside them. It stands on the same certificates,
//! tokens, limits and audit log as gRPC.

use std::future::Future;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tonic::Code;

use crate::service::Door;
use crate::service::access::Peer;
use crate::service::connections::{Listener, accept};
use crate::service::gate::Gate;
use crate::service::refusal::Refusal;
use crate::service::tls::Current;
use crate::storage::Role;

/// What Prometheus has to hear to read OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves routes until `shutdown` resolves, then lets requests under way end.
///
/// # Errors
/// When the listener has no address, or the server breaks down.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Current>,
    shutdown: impl Future<Output = ()> + Send + 'static,
    routes: Router,
) -> Result<()> {
    let address: SocketAddr = listener.local_addr().context("the HTTP listener has no address")?;
    let listener = Listener { address, connections: accept(listener, tls) };
    let routes = routes.into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, routes).with_graceful_shutdown(shutdown).await.context("the HTTP server ended")
}

/// What the service tells of itself.
#[derive(Clone)]
struct Told {
    gate: Gate,
    door: Door,
}

/// `/healthz` and `/readyz` for everybody, `/metrics` for viewers.
pub fn routes(gate: &Gate, door: Door) -> Router {
    let told = Told { gate: gate.clone(), door };
    let open = Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready));
    let metrics = restricted(Router::new().route("/metrics", get(metrics)), Role::Viewer, gate);
    open.merge(metrics.with_state(told.clone())).with_state(told)
}

/// These routes for callers with at least this role, whom handlers find as
/// [`Caller`](crate::service::access::Caller) among the extensions.
pub fn restricted<S: Clone + Send + Sync + 'static>(
    routes: Router<S>,
    least: Role,
    gate: &Gate,
) -> Router<S> {
    routes.route_layer(from_fn_with_state((gate.clone(), least), pass))
}

async fn pass(
    State((gate, least)): State<(Gate, Role)>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let action = format!("{} {}", request.method(), request.uri().path());
    match gate.admit(least, &action, request.headers(), &peer).await {
        Ok((caller, place)) => {
            request.extensions_mut().insert(caller);
            let response = next.run(request).await;
            drop(place);
            response
        }
        Err(refusal) => refused(refusal),
    }
}

/// A refusal as HTTP tells it.
pub fn refused(refusal: Refusal) -> Response {
    let told = format!("{refusal}\n");
    match refusal {
        Refusal::Unauthenticated(_) => {
            (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))], told)
                .into_response()
        }
        Refusal::Limited(_, after) => {
            let seconds = HeaderValue::from(after.as_secs().max(1));
            (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds)], told).into_response()
        }
        refusal => {
            let code = match tonic::Status::from(refusal).code() {
                Code::PermissionDenied => StatusCode::FORBIDDEN,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (code, told).into_response()
        }
    }
}

async fn metrics(State(told): State<Told>) -> impl IntoResponse {
    ([(CONTENT_TYPE, OPEN_METRICS)], told.door.metrics(&told.gate.0.limiter).await)
}

/// Whether requests can be answered: what is decided has to be written down.
async fn ready(State(told): State<Told>) -> Response {
    let health = told.door.journal();
    let problem = health.closed.or_else(|| health.trouble.map(|trouble| trouble.reason));
    match problem {
        None => "ready\n".into_response(),
        // Why is told to those who may read the logs.
        Some(problem) => {
            tracing::warn!(problem, "not ready: the journal is not written");
            (StatusCode::SERVICE_UNAVAILABLE, "the journal is not written\n").into_response()
        }
    }
}
