//! Answers that go on for a while.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use remora_proto::v1 as wire;
use sha2::{Digest, Sha256};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{kept, told};
use crate::appcore::apps::Apps;
use crate::appcore::rows::Row;
use crate::appcore::run::{LOG, RESPONSE, Run};
use crate::storage::hex;

/// Messages that wait for a slow reader.
const AHEAD: usize = 64;
/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// How often a log that is being written is looked at.
const LOOK: Duration = Duration::from_millis(100);

type Sender<T> = mpsc::Sender<Result<T, Status>>;

/// A stream filled by a task of its own, until nobody reads it any more.
fn stream<T: Send + 'static, F: Future<Output = Option<()>> + Send + 'static>(
    fill: impl FnOnce(Sender<T>) -> F,
) -> ReceiverStream<Result<T, Status>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(fill(sender));
    ReceiverStream::new(receiver)
}

/// Sends; nothing where nobody listens any more.
async fn send<T>(sender: &Sender<T>, message: Result<T, Status>) -> Option<()> {
    sender.send(message).await.ok()
}

/// A request that was taken.
pub struct Asked {
    pub app: String,
    pub run: String,
    /// It was made before, and much of what became of it has passed.
    pub known: bool,
    /// The application's state before.
    pub state: String,
}

/// The state of an application; nothing where it is unknown.
pub async fn state(apps: &Apps, app: &str) -> String {
    let app = app.to_owned();
    let state = apps.handle.ask(move |core| core.apps().get(&app).map(|app| app.state)).await;
    state.ok().flatten().map_or_else(String::new, |state| state.name().to_owned())
}

/// How a request is answered, step by step. The feed was taken before the request was made.
pub fn execution(
    apps: Arc<Apps>,
    feed: broadcast::Receiver<Arc<Row>>,
    asked: Asked,
) -> ReceiverStream<Result<wire::ExecuteProgress, Status>> {
    stream(|sender| async move {
        let run = tokio::select! {
            run = apps.handle.over(&asked.run) => run,
            // It ends only when the service does, or nobody listens.
            () = progress(&apps, feed, &asked, &sender) => return None,
        };
        let answer = match run {
            Ok(Some(run)) => last(&apps, &asked.app, run).await,
            Ok(None) => Err(Status::not_found(format!("run {} is not kept any more", asked.run))),
            Err(denied) => Err(denied.into()),
        };
        send(&sender, answer).await
    })
}

async fn progress(
    apps: &Apps,
    mut feed: broadcast::Receiver<Arc<Row>>,
    Asked { app, run: id, known, state }: &Asked,
    sender: &Sender<wire::ExecuteProgress>,
) {
    let mut state = state.clone();
    // Of a new request, the feed tells everything in its order.
    let mut run = None;
    if *known {
        run = apps.handle.run(id).await.ok().flatten().as_ref().map(told::run);
    }
    loop {
        // The end is told with the response.
        let under_way = run.as_ref().is_some_and(|run| run.ended_ms.is_none());
        let message = wire::ExecuteProgress { state: state.clone(), run: run.clone(), response: None };
        if under_way && send(sender, Ok(message)).await.is_none() {
            return;
        }
        loop {
            match feed.recv().await.as_deref() {
                Ok(Row::Transition { app: of, to, .. }) if of == app => {
                    state = to.name().to_owned();
                    break;
                }
                Ok(Row::Run(changed)) if changed.id == *id => {
                    run = Some(told::run(changed));
                    break;
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }
}

async fn last(apps: &Apps, app: &str, run: Run) -> Result<wire::ExecuteProgress, Status> {
    let response = match run.outputs.iter().find(|blob| blob.name == RESPONSE) {
        Some(blob) => Some(apps.handle.storage().blob(&blob.hash).await.map_err(kept)?),
        None => None,
    };
    Ok(wire::ExecuteProgress { state: state(apps, app).await, run: Some(told::run(&run)), response })
}

/// What a run says, as it says it.
pub fn log(apps: Arc<Apps>, run: Run) -> ReceiverStream<Result<wire::RunLogChunk, Status>> {
    stream(|sender| async move {
        let path = apps.launcher.log(&run.id);
        let (mut run, mut from) = (run, 0);
        while !run.status.over() {
            from += said(&sender, &path, from).await?;
            sleep(LOOK).await;
            match apps.handle.run(&run.id).await {
                Ok(Some(now)) => run = now,
                Ok(None) => return None,
                Err(denied) => return send(&sender, Err(denied.into())).await,
            }
        }
        // Then it is archived, whole.
        let blob = run.outputs.iter().find(|blob| blob.name == LOG)?;
        let bytes = match apps.handle.storage().blob(&blob.hash).await {
            Ok(bytes) => bytes,
            Err(error) => return send(&sender, Err(kept(error))).await,
        };
        for piece in bytes[(from as usize).min(bytes.len())..].chunks(PIECE) {
            send(&sender, Ok(wire::RunLogChunk { text: piece.to_vec() })).await?;
        }
        Some(())
    })
}

/// Sends what a file has from there on, and returns how many bytes that were; nothing where nobody listens.
async fn said(sender: &Sender<wire::RunLogChunk>, path: &Path, from: u64) -> Option<u64> {
    if sender.is_closed() {
        return None;
    }
    let (mut sent, mut piece) = (0, vec![0; PIECE]);
    let Ok(mut file) = std::fs::File::open(path) else { return Some(0) };
    if file.seek(SeekFrom::Start(from)).is_err() {
        return Some(0);
    }
    while let Ok(read @ 1..) = file.read(&mut piece) {
        send(sender, Ok(wire::RunLogChunk { text: piece[..read].to_vec() })).await?;
        sent += read as u64;
    }
    Some(sent)
}

/// Bytes in pieces.
pub fn pieces(bytes: Vec<u8>) -> ReceiverStream<Result<wire::ArtifactChunk, Status>> {
    stream(|sender| async move {
        for piece in bytes.chunks(PIECE) {
            send(&sender, Ok(wire::ArtifactChunk { chunk: piece.to_vec() })).await?;
        }
        Some(())
    })
}

/// What happens, for those who watch.
pub fn events(
    mut feed: broadcast::Receiver<Arc<Row>>,
    app: Option<String>,
) -> ReceiverStream<Result<wire::AppEvent, Status>> {
    stream(|sender| async move {
        loop {
            let event = tokio::select! {
                row = feed.recv() => match row {
                    Ok(row) => told::event(&row),
                    Err(RecvError::Lagged(missed)) => Some(wire::AppEvent {
                        app: String::new(),
                        event: Some(wire::app_event::Event::Missed(missed as i64)),
                    }),
                    Err(RecvError::Closed) => return None,
                },
                () = sender.closed() => return None,
            };
            if let Some(event) = event
                && app.as_ref().is_none_or(|app| event.app.is_empty() || *app == event.app)
            {
                send(&sender, Ok(event)).await?;
            }
        }
    })
}

/// A run as an archive that a stranger can check: everything with its hash.
pub async fn bundle(apps: &Apps, run: &Run) -> Result<Vec<u8>, Status> {
    let storage = apps.handle.storage();
    let (name, number) = (run.app.clone(), run.version);
    let used = apps.handle.ask(move |core| {
        let app = core.apps().get(&name)?;
        let version = app.versions.get(&number)?.clone();
        let definition = app.definitions.get(&version.definition)?.clone();
        Some((version, definition))
    });
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let told = serde_json::to_vec_pretty(run).map_err(|error| Status::internal(error.to_string()))?;
    files.push(("run.json".to_owned(), told));
    let mut blobs: Vec<(String, String)> = Vec::new();
    if let Some((version, definition)) = used.await? {
        let manifest = toml::to_string(&definition.manifest).unwrap_or_default();
        files.push(("manifest.toml".to_owned(), manifest.into_bytes()));
        blobs.extend(definition.code.map(|code| ("code.tar".to_owned(), code.hash)));
        blobs.extend(version.model.map(|model| ("model".to_owned(), model.hash)));
    }
    blobs.extend(run.inputs.iter().map(|blob| (format!("input/{}", blob.name), blob.hash.clone())));
    blobs.extend(run.outputs.iter().map(|blob| (format!("output/{}", blob.name), blob.hash.clone())));
    for (name, hash) in blobs {
        files.push((name, storage.blob(&hash).await.map_err(kept)?));
    }
    let line = |(name, bytes): &(String, Vec<u8>)| format!("{}  {name}\n", hex(&Sha256::digest(bytes)));
    let sums: String = files.iter().map(line).collect();
    files.push(("SHA256SUMS".to_owned(), sums.into_bytes()));
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, format!("{}/{name}", run.id), bytes.as_slice())
            .map_err(|error| Status::internal(format!("the archive cannot be made: {error}")))?;
    }
    archive.into_inner().map_err(|error| Status::internal(format!("the archive cannot be made: {error}")))
}
