//! What others get from a node, and what they bring.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use remora_env::cluster::Item;
use remora_env::topology::VertexId;
use serde::{Deserialize, Serialize};

use super::super::content::Content;
use super::super::ledger::{self, Line, Passed};
use super::super::web::Json;
use super::Node;

/// The header that says which version comes.
pub const VERSION: &str = "x-version";
/// Bytes that are sent at once.
const CHUNK: usize = 1 << 16;

/// What is asked for, or brought, besides the item.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// This version or a later one.
    pub version: u32,
    /// Begin at this byte.
    pub from: u64,
    /// Who asks.
    pub by: VertexId,
    pub transfer: String,
    /// Only say whether it is there.
    pub probe: bool,
}

impl Wanted {
    pub fn path(&self, item: Item) -> String {
        let Wanted { version, from, by, transfer, probe } = self;
        let name = ledger::name(item);
        format!("/items/{name}?version={version}&from={from}&by={by}&transfer={transfer}&probe={probe}")
    }
}

fn item(node: &Node, sort: &str, id: u32) -> Option<Item> {
    let catalogue = &node.world.catalogue;
    match sort {
        "layer" if (id as usize) < catalogue.layers.len() => Some(Item::Layer(id)),
        "dataset" if (id as usize) < catalogue.datasets.len() => Some(Item::Dataset(id)),
        _ => None,
    }
}

/// Where bytes come from: the disk, or their name.
enum Source {
    Disk(File),
    Name(Content),
}

impl Source {
    fn read(&mut self, offset: u64, chunk: &mut [u8]) -> io::Result<()> {
        match self {
            Source::Disk(file) => file.read_exact(chunk),
            Source::Name(content) => {
                content.fill(offset, chunk);
                Ok(())
            }
        }
    }
}

/// Bytes on their way out; noted when they are all gone, or nobody takes them any more.
struct Sending {
    node: Arc<Node>,
    source: Source,
    passed: Passed,
    offset: u64,
    end: u64,
    began: Instant,
}

impl Sending {
    fn next(&mut self) -> Option<io::Result<Bytes>> {
        let length = (self.end - self.offset).min(CHUNK as u64) as usize;
        if length == 0 {
            return None;
        }
        let mut chunk = vec![0; length];
        let read = self.source.read(self.offset, &mut chunk);
        if read.is_ok() {
            self.offset += length as u64;
            self.passed.bytes += length as u64;
        }
        Some(read.map(|()| Bytes::from(chunk)))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.passed.whole = self.offset == self.end;
        self.passed.seconds = self.began.elapsed().as_secs_f64();
        self.node.ledger.note(&Line::Sent(self.passed.clone()));
        self.node.say_over();
    }
}

/// A body of an item's bytes from `offset` on, which notes what it sent to whom.
pub fn body(
    node: &Arc<Node>,
    (item, version): (Item, u32),
    offset: u64,
    with: VertexId,
    transfer: &str,
) -> io::Result<Body> {
    let (content, path) = {
        let shelf = node.shelf();
        (shelf.content(item, version), shelf.path(item, version))
    };
    let source = match File::open(path) {
        Ok(mut file) => {
            file.seek(SeekFrom::Start(offset))?;
            Source::Disk(file)
        }
        // A registry has no disk; elsewhere it was there a moment ago, and a newer version took its place.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Source::Name(content),
        Err(error) => return Err(error),
    };
    node.say_begun();
    let (transfer, item) = (transfer.to_owned(), ledger::name(item));
    let sending = Sending {
        node: node.clone(),
        source,
        passed: Passed { transfer, item, with, bytes: 0, seconds: 0.0, whole: false },
        offset,
        end: content.bytes.max(offset),
        began: Instant::now(),
    };
    let chunks = futures_util::stream::unfold(sending, |mut sending| async move {
        sending.next().map(|chunk| (chunk, sending))
    });
    Ok(Body::from_stream(chunks))
}

pub(super) async fn give(
    State(node): State<Arc<Node>>,
    Path((sort, id)): Path<(String, u32)>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let Some(item) = item(&node, &sort, id) else { return StatusCode::NOT_FOUND.into_response() };
    let version = match item {
        Item::Layer(_) if node.is_registry() => Some(0),
        _ => node.shelf().held(item, wanted.version),
    };
    let Some(version) = version else { return StatusCode::NOT_FOUND.into_response() };
    let told = [(VERSION, version.to_string())];
    if wanted.probe {
        return told.into_response();
    }
    match body(&node, (item, version), wanted.from, wanted.by, &wanted.transfer) {
        Ok(body) => (told, body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Takes an output whose home this node is.
pub(super) async fn take(
    State(node): State<Arc<Node>>,
    Path((sort, id)): Path<(String, u32)>,
    Query(wanted): Query<Wanted>,
    body: Body,
) -> Response {
    let Some(item) = item(&node, &sort, id).filter(|_| !node.is_registry()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    node.say_begun();
    let taken = receive(&node, item, &wanted, body).await;
    node.say_over();
    match taken {
        Ok(()) => Json(()).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

async fn receive(node: &Arc<Node>, item: Item, wanted: &Wanted, body: Body) -> io::Result<()> {
    let (content, path) = {
        let shelf = node.shelf();
        (shelf.content(item, wanted.version), shelf.path(item, wanted.version))
    };
    let part = path.with_extension(format!("{}.part", wanted.transfer));
    let mut file = File::create(&part)?;
    let began = Instant::now();
    let name = ledger::name(item);
    let mut passed = Passed {
        transfer: wanted.transfer.clone(),
        item: name,
        with: wanted.by,
        bytes: 0,
        seconds: 0.0,
        whole: false,
    };
    let mut chunks = body.into_data_stream();
    let mut ended = Ok(());
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) if content.is(passed.bytes, &chunk) => {
                file.write_all(&chunk)?;
                passed.bytes += chunk.len() as u64;
            }
            Ok(_) => {
                let (transfer, item) = (passed.transfer.clone(), passed.item.clone());
                node.ledger.note(&Line::Wrong { transfer, item });
                ended = Err(io::Error::other("these are not the bytes of this item"));
                break;
            }
            Err(error) => {
                ended = Err(io::Error::other(error));
                break;
            }
        }
    }
    passed.seconds = began.elapsed().as_secs_f64();
    passed.whole = passed.bytes == content.bytes;
    let whole = passed.whole;
    node.ledger.note(&Line::Received(passed));
    if !whole {
        // What is left of it is of no use.
        let _ = std::fs::remove_file(&part);
        return ended.and(Err(io::Error::other("it ended before its end")));
    }
    std::fs::rename(part, path)?;
    let gone = node.shelf().put(item, wanted.version);
    node.evicted(gone);
    Ok(())
}

/// How many bytes of nothing in particular.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Noise {
    bytes: u64,
}

/// Bytes to measure a link with; they are in no ledger.
pub(super) async fn noise(Query(noise): Query<Noise>) -> Body {
    let content = Content::of("noise", 0, noise.bytes);
    let chunks = futures_util::stream::unfold(0, move |offset| async move {
        let length = (content.bytes - offset).min(CHUNK as u64);
        let mut chunk = vec![0; length as usize];
        content.fill(offset, &mut chunk);
        (length > 0).then(|| (io::Result::Ok(Bytes::from(chunk)), offset + length))
    });
    Body::from_stream(chunks)
}
