//! What every request passes: who calls, what they may, whether there is room; and what is noted of it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tonic::codegen::{Body as HttpBody, BoxFuture, Bytes, Service};
use tonic::{Code, Status};
use tower::Layer;
use tracing::Instrument;
use tracing::field::Empty;

use super::access::{Access, Caller, METHODS, Method, Peer, Subject};
pub use super::limits::Place;
use super::limits::{Limiter, Who};
use super::metrics::Metrics;
use super::refusal::Refusal;
use crate::storage::Role;

/// Names a request in logs and traces; one is made up for those that come without.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest name taken from outside, bytes.
const REQUEST_ID_BYTES: usize = 128;

/// The gate before all services; clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(pub Arc<Guards>);

#[derive(Debug)]
pub struct Guards {
    pub access: Access,
    pub limiter: Limiter,
    pub metrics: Arc<Metrics>,
    /// Requests so far that had no name.
    pub nameless: AtomicU64,
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

#[derive(Clone, Debug)]
pub struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that is ready is used up by this call.
        let fresh = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, fresh);
        let gate = self.gate.clone();
        Box::pin(async move { Ok(gate.pass(request, inner).await) })
    }
}

impl Gate {
    async fn pass<S>(self, mut request: Request<Body>, mut inner: S) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
        S::Future: Send,
    {
        let method = METHODS.iter().find(|method| method.path == request.uri().path());
        let name = method.map(Method::name);
        let mut note =
            Note { metrics: self.0.metrics.clone(), name, started: Instant::now(), code: None, place: None };
        let id = self.request_id(&mut request);
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        let admitted = match method {
            Some(Method { least: Some(least), .. }) => {
                let action = name.unwrap_or_default();
                self.admit(*least, action, request.headers(), &peer).await.map_err(Status::from)
            }
            // Who asks for health takes no place: it is asked for just when everything is full.
            Some(_) => Ok((Caller::local(), None)),
            None => Err(Status::unimplemented(format!("no method is called {:?}", request.uri().path()))),
        };
        let (caller, place) = match admitted {
            Ok(admitted) => admitted,
            Err(status) => return note.answer(status.into_http(), id),
        };
        note.place = place;
        let span = tracing::debug_span!(
            "request",
            method = name,
            caller = &*caller.name,
            id = id.to_str().unwrap_or(""),
            cluster = Empty
        );
        request.extensions_mut().insert(caller.clone());
        let response = async {
            let Ok(response) = inner.call(request).await;
            if let (Some(method), None | Some(Code::Ok)) = (method, status_of(response.headers())) {
                let subject = response.extensions().get::<Subject>();
                self.0.access.note_success(method, &caller, subject).await;
            }
            response
        };
        note.answer(exhausted(response.instrument(span).await), id)
    }

    /// Who calls, and their place among the requests under way.
    pub async fn admit(
        &self,
        least: Role,
        action: &str,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<(Caller, Option<Place>), Refusal> {
        let access = &self.0.access;
        let caller = match access.admit(least, headers, peer) {
            Ok(caller) => caller,
            Err(denial) => {
                access.note_denial(action, &denial, peer).await;
                return Err(denial.refusal);
            }
        };
        let place = self.enter(&caller, peer)?;
        Ok((caller, Some(place)))
    }

    /// A place among the requests under way for a caller who is known, if there is one.
    pub fn enter(&self, caller: &Caller, peer: &Peer) -> Result<Place, Refusal> {
        let who = match self.0.access.authenticates() {
            true => Who::Caller(caller.name.clone()),
            false => Who::Address(peer.address.map(|address| address.ip())),
        };
        self.0.limiter.enter(who)
    }

    fn request_id(&self, request: &mut Request<Body>) -> HeaderValue {
        match request.headers().get(REQUEST_ID) {
            Some(id) if id.len() <= REQUEST_ID_BYTES && id.to_str().is_ok() => id.clone(),
            _ => HeaderValue::from(self.0.nameless.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// The status of an answer that is nothing but a status.
fn status_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}

/// tonic refuses a message over its limit with `OUT_OF_RANGE`; other gRPC servers, and so the clients written for them,
/// use `RESOURCE_EXHAUSTED`.
fn exhausted(mut response: Response<Body>) -> Response<Body> {
    let status = response.extensions().get::<Status>();
    let ours = |status: &Status| !status.message().contains("message length too large");
    if status.is_some_and(|status| status.code() == Code::OutOfRange && !ours(status)) {
        let code = HeaderValue::from(Code::ResourceExhausted as i32);
        response.headers_mut().insert(Status::GRPC_STATUS, code);
    }
    response
}

/// What is noted of a request once the last of its answer has gone, or nobody waits for it any more.
struct Note {
    metrics: Arc<Metrics>,
    name: Option<&'static str>,
    started: Instant,
    code: Option<Code>,
    place: Option<Place>,
}

impl Note {
    /// Follows an answer to its end.
    fn answer(mut self, mut response: Response<Body>, mut id: HeaderValue) -> Response<Body> {
        self.code = status_of(response.headers());
        // It does not come again: neither side is to remember it for the next answer.
        id.set_sensitive(true);
        response.headers_mut().insert(REQUEST_ID, id);
        response.map(|body| Body::new(Noted { body, note: self }))
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled);
        drop(self.place.take());
        self.metrics.answered(self.name, code, self.started.elapsed());
    }
}

/// A body whose end is noted.
struct Noted {
    body: Body,
    note: Note,
}

impl HttpBody for Noted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.note.code = status_of(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
