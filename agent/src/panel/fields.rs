//! What was filled in, as a form sends it: fields alone, or with files.

use std::collections::BTreeMap;

use axum::Form;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use tokio_stream::StreamExt;

use crate::appcore::door::CODE_BYTES;
use crate::service::MAX_APP_BYTES;

/// Files and fields of one form.
const MOST_PARTS: usize = 1000;
/// For what stands around files and between them.
const AROUND: usize = 1 << 20;
/// Of a form that is too large, how many times what it may be is read to its end, since browsers hear an answer only
/// when they have sent everything.
const HEARD_OUT: usize = 4;

/// A file that was chosen.
#[derive(Clone, Debug)]
pub struct File {
    /// As its owner calls it: text of a stranger.
    pub name: String,
    pub content: Bytes,
}

/// What was filled in.
#[derive(Debug, Default)]
pub struct Fields {
    text: BTreeMap<String, String>,
    pub files: Vec<File>,
}

impl Fields {
    pub fn get(&self, name: &str) -> Option<&String> {
        self.text.get(name)
    }

    /// What was typed into a text area, with its lines as programs expect them: browsers end them with two characters.
    pub fn lines(&self, name: &str) -> String {
        self.get(name).map(|text| text.replace("\r\n", "\n")).unwrap_or_default()
    }
}

/// Most bytes that a form may send.
fn most(path: &str) -> usize {
    AROUND + if path.ends_with("AppService/Register") { CODE_BYTES } else { MAX_APP_BYTES }
}

/// Why something is not taken, for people and for programs.
pub type Wrong = (StatusCode, String);

/// Reads a form that was sent.
///
/// # Errors
/// It is too large, broken off, or no form.
pub async fn read(request: Request) -> Result<Fields, Wrong> {
    let (head, body) = request.into_parts();
    let with_files = head
        .headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.starts_with("multipart/form-data"));
    let body = whole(body, most(head.uri.path())).await?;
    let request = Request::from_parts(head, Body::from(body));
    if with_files {
        return parts(Multipart::from_request(request, &()).await.map_err(no_form)?).await;
    }
    let Form(text) = Form::from_request(request, &()).await.map_err(no_form)?;
    Ok(Fields { text, files: Vec::new() })
}

fn no_form(why: impl std::fmt::Display) -> Wrong {
    (StatusCode::BAD_REQUEST, format!("what was sent is no form of ours: {why}"))
}

async fn whole(body: Body, most: usize) -> Result<Vec<u8>, Wrong> {
    let mut pieces = body.into_data_stream();
    let (mut kept, mut sent) = (Vec::new(), 0usize);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(no_form)?;
        sent = sent.saturating_add(piece.len());
        match sent {
            sent if sent <= most => kept.extend_from_slice(&piece),
            sent if sent > HEARD_OUT.saturating_mul(most) => break,
            _ => kept = Vec::new(),
        }
    }
    if sent > most {
        let told = format!("more was sent than the {} MiB that fit here", (most - AROUND) >> 20);
        return Err((StatusCode::PAYLOAD_TOO_LARGE, told));
    }
    Ok(kept)
}

async fn parts(mut form: Multipart) -> Result<Fields, Wrong> {
    let mut fields = Fields::default();
    while let Some(part) = form.next_field().await.map_err(no_form)? {
        let (field, file) = (part.name().unwrap_or_default().to_owned(), part.file_name().map(str::to_owned));
        match file {
            // Nothing was chosen.
            Some(name) if name.is_empty() => {}
            Some(name) => {
                fields.files.push(File { name, content: part.bytes().await.map_err(no_form)? });
            }
            None => {
                fields.text.insert(field, part.text().await.map_err(no_form)?);
            }
        }
        if fields.files.len() + fields.text.len() > MOST_PARTS {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, format!("more than {MOST_PARTS} files were sent")));
        }
    }
    Ok(fields)
}
