//! What pages need besides themselves.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::plain;

const STYLE: &str = include_str!("assets/panel.css");
const SCRIPT: &str = include_str!("assets/panel.js");

pub async fn asset(Path(name): Path<String>) -> Response {
    let (kind, content) = match name.as_str() {
        "panel.css" => ("text/css; charset=utf-8", STYLE),
        "panel.js" => ("text/javascript; charset=utf-8", SCRIPT),
        _ => return plain(StatusCode::NOT_FOUND, "there is no such file"),
    };
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "public, max-age=300")], content).into_response()
}
