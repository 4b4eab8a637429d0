//! Pages, compressed where the browser takes that. What a stranger wrote and the word of a session's forms stand in one
//! page; nobody can guess at the word by its length, because no other site's request brings the cookie along.

use std::io::Write;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::plain;

/// What is shorter is sent as it is, bytes.
const LEAST: usize = 1024;
/// What is compressed: whole texts, and nothing that goes on such as a stream of events.
const KINDS: [&str; 3] = ["text/html", "text/css", "text/javascript"];

pub async fn compress(request: Request, next: Next) -> Response {
    let taken = takes_gzip(request.headers());
    let response = next.run(request).await;
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !KINDS.iter().any(|known| kind.starts_with(known)) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let broken = || plain(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be sent");
    let Ok(whole) = to_bytes(body, usize::MAX).await else { return broken() };
    head.headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if !taken || whole.len() < LEAST {
        return Response::from_parts(head, Body::from(whole));
    }
    let Ok(small) = gzip(&whole) else { return broken() };
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, Body::from(small))
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let told = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|header| header.to_str().ok());
    let mut ways = told.flat_map(|header| header.split(',')).map(|way| way.replace(' ', ""));
    ways.any(|way| way == "gzip" || way.starts_with("gzip;") && !matches!(&way[5..], "q=0" | "q=0.0"))
}

fn gzip(whole: &Bytes) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(whole.len() / 4), Compression::fast());
    encoder.write_all(whole)?;
    encoder.finish()
}
