//! What is saved as a file, never shown as a page of ours.

use axum::http::header::{self, HeaderValue};
use axum::response::{IntoResponse, Response};
use remora_proto::v1 as wire;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::{code, plain};

/// Of contents that nobody knows.
pub const BYTES: &str = "application/octet-stream";

/// What a service gives in pieces, whole, under the last part of its name; or why there is nothing, or not all of it.
pub async fn saved<S>(pieces: Result<tonic::Response<S>, Status>, kind: &'static str, name: &str) -> Response
where
    S: Stream<Item = Result<wire::ArtifactChunk, Status>> + Unpin,
{
    match whole(pieces).await {
        Ok(whole) => {
            let kind = HeaderValue::from_static(kind);
            ([(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, called(name))], whole)
                .into_response()
        }
        Err(status) => plain(code(&status), status.message()),
    }
}

async fn whole<S>(pieces: Result<tonic::Response<S>, Status>) -> Result<Vec<u8>, Status>
where
    S: Stream<Item = Result<wire::ArtifactChunk, Status>> + Unpin,
{
    let (mut pieces, mut whole) = (pieces?.into_inner(), Vec::new());
    while let Some(piece) = pieces.next().await {
        whole.extend(piece?.chunk);
    }
    Ok(whole)
}

/// A plain name is told; of others browsers take what the path ends with.
fn called(name: &str) -> HeaderValue {
    let name = name.rsplit('/').next().unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let told =
        (!name.is_empty() && name.bytes().all(plain)).then(|| format!("attachment; filename=\"{name}\""));
    let told = told.and_then(|told| HeaderValue::from_str(&told).ok());
    told.unwrap_or_else(|| HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};

    use super::{BYTES, saved, wire};

    #[tokio::test]
    async fn what_breaks_off_is_not_taken_for_the_whole() {
        let piece = |text: &str| Ok(wire::ArtifactChunk { chunk: text.as_bytes().to_vec() });
        let of = |pieces: Vec<Result<wire::ArtifactChunk, Status>>| {
            saved(Ok(tonic::Response::new(tokio_stream::iter(pieces))), BYTES, "a/b.txt")
        };
        let whole = of(vec![piece("one "), piece("two")]).await;
        assert_eq!(whole.status(), 200);
        assert_eq!(whole.headers()["content-disposition"], "attachment; filename=\"b.txt\"");
        let body = axum::body::to_bytes(whole.into_body(), 100).await.unwrap();
        assert_eq!(&body[..], b"one two");
        let broken = of(vec![piece("one "), Err(Status::new(Code::NotFound, "the rest is gone"))]).await;
        assert_eq!(broken.status(), 404);
        let body = axum::body::to_bytes(broken.into_body(), 100).await.unwrap();
        assert_eq!(&body[..], b"the rest is gone\n");
    }

    #[test]
    fn a_name_says_nothing_of_its_own() {
        assert_eq!(super::called("response"), "attachment; filename=\"response\"");
        for strange in ["", "a\"b", "a\r\nset-cookie: x", "<img>'&.txt", "ä"] {
            assert_eq!(super::called(strange), "attachment", "{strange:?}");
        }
    }
}
