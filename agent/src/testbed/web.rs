//! HTTP from one process of a testbed to another.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::body::Body;
use axum::extract::FromRequest;
use axum::http::{Method, Request, Response, StatusCode};
use axum::response::IntoResponse;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Most bytes of an answer that is no item.
const MOST: usize = 16 << 20;
/// A process on the same machine that does not take a connection for so long is gone.
pub const CONNECTING: Duration = Duration::from_secs(2);

/// A value as JSON, asked or answered.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = (StatusCode, String);

    async fn from_request(request: Request<Body>, _: &S) -> Result<Json<T>, (StatusCode, String)> {
        let wrong = |error: &dyn std::fmt::Display| (StatusCode::BAD_REQUEST, error.to_string());
        let text = axum::body::to_bytes(request.into_body(), MOST).await.map_err(|error| wrong(&error))?;
        serde_json::from_slice(&text).map(Json).map_err(|error| wrong(&error))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response<Body> {
        match serde_json::to_vec(&self.0) {
            Ok(text) => text.into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

/// Sends one request over a connection of its own.
pub async fn send<S>(stream: S, request: Request<Body>) -> Result<Response<Body>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?.map(Body::new))
}

pub fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("paths are made of numbers and plain names");
    request.headers_mut().insert("host", axum::http::HeaderValue::from_static("testbed"));
    request
}

/// Connects to a process's address.
pub async fn connect(address: &str) -> io::Result<TcpStream> {
    let connecting = timeout(CONNECTING, TcpStream::connect(address));
    let stream = connecting.await.map_err(|_| io::ErrorKind::TimedOut)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a value to a process and reads its answer; `None` where it does not know what is asked for.
pub async fn ask<T: DeserializeOwned>(
    address: &str,
    path: &str,
    value: &impl Serialize,
) -> Result<Option<T>> {
    let body = Body::from(serde_json::to_vec(value)?);
    let answer = send(connect(address).await?, request(Method::POST, path, body)).await?;
    let status = answer.status();
    let text = axum::body::to_bytes(answer.into_body(), MOST).await?;
    match status {
        StatusCode::OK => Ok(Some(serde_json::from_slice(&text).context("an answer is not understood")?)),
        StatusCode::NOT_FOUND => Ok(None),
        _ => bail!("{status}: {}", String::from_utf8_lossy(&text)),
    }
}
