//! How a node gets what it lacks.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use futures_util::StreamExt;
use futures_util::future::join_all;
use remora_env::cluster::Item;
use remora_env::topology::{NodeId, VertexId};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::super::ledger::{self, Cargo, Line, Moved, Passed};
use super::super::web::Json;
use super::super::{network, relay, web};
use super::Node;
use super::give::{self, VERSION, Wanted};
use crate::storage::random;

/// A connection over which nothing comes for so long is given up, and another goes on from there.
const STALL: Duration = Duration::from_secs(5);
/// How long peers are waited for that are asked whether they have something.
const ASKING: Duration = Duration::from_millis(500);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// What a node wants to have.
#[derive(Clone, Debug)]
pub struct Want {
    pub item: Item,
    pub version: u32,
    /// Who keeps it for good; for a layer the registry.
    pub sources: Vec<VertexId>,
    pub cargo: Cargo,
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    version: u32,
    bytes: u64,
}

impl Node {
    pub(super) async fn reach(&self, to: VertexId) -> Result<TcpStream> {
        let stream = match self.args.relay {
            Some(relay) => timeout(web::CONNECTING, relay::connect(relay, self.vertex, to)).await??,
            None => web::connect(&network::data_address(to).to_string()).await?,
        };
        Ok(stream)
    }

    /// Sees to it that an item is here, and stays until it is unpinned. What is moved for it is booked on `moved`.
    pub(super) async fn bring(self: &Arc<Self>, want: &Want, moved: &Mutex<Vec<Moved>>) -> Result<()> {
        loop {
            let before = {
                let mut shelf = self.shelf();
                if shelf.held(want.item, want.version).is_some() {
                    shelf.cluster.pin(self.id(), want.item, true);
                    return Ok(());
                }
                shelf.fetching.get(&want.item).cloned()
            };
            match before {
                // Somebody fetches it: it is there then, or it is our turn.
                Some(mut fetching) => while fetching.changed().await.is_ok() {},
                None => self.fetch_alone(want, moved).await?,
            }
        }
    }

    async fn fetch_alone(self: &Arc<Self>, want: &Want, moved: &Mutex<Vec<Moved>>) -> Result<()> {
        let (_over, fetching) = watch::channel(());
        let gone = {
            let mut shelf = self.shelf();
            shelf.fetching.insert(want.item, fetching);
            shelf.reserve(want.item)
        };
        self.evicted(gone);
        let fetched = self.fetch(want, moved).await;
        let gone = {
            let mut shelf = self.shelf();
            shelf.fetching.remove(&want.item);
            match &fetched {
                Ok(version) => shelf.put(want.item, *version),
                Err(_) => {
                    shelf.forget(want.item);
                    Vec::new()
                }
            }
        };
        self.evicted(gone);
        fetched.map(|_| ())
    }

    /// Fetches an item, from wherever it is, until it is whole; returns its version.
    async fn fetch(self: &Arc<Self>, want: &Want, moved: &Mutex<Vec<Moved>>) -> Result<u32> {
        let (began, patience) = (Instant::now(), Duration::from_secs_f64(self.args.patience_s));
        let mut part = Part::default();
        let mut moving = began;
        loop {
            let source = self.source(want).await?;
            let before = part;
            let others = self.say_begun();
            let pulled = Instant::now();
            let ended = self.pull(want, source, &mut part).await;
            self.say_over();
            if part.bytes > before.bytes {
                moving = Instant::now();
                // Where the version changed it began anew, from nothing.
                let bytes = part.bytes - before.bytes;
                let (seconds, cargo) = (pulled.elapsed().as_secs_f64(), want.cargo);
                let one = Moved { cargo, from: source, to: self.vertex, bytes, seconds, others };
                moved.lock().unwrap_or_else(PoisonError::into_inner).push(one);
            }
            match ended {
                Ok(()) => return Ok(part.version),
                Err(error) if moving.elapsed() > patience => {
                    let name = self.world.topology.vertex_name(source);
                    return Err(error.context(format!("{} from {name}", ledger::name(want.item))));
                }
                Err(error) => tracing::debug!(%error, "tried again"),
            }
            sleep(PAUSE).await;
        }
    }

    /// Who to ask: a peer that has it, if peers serve each other, else the cheapest of those who keep it.
    async fn source(self: &Arc<Self>, want: &Want) -> Result<VertexId> {
        let topology = &self.world.topology;
        if topology.peers {
            let peers = topology.site(self.id()).filter(|&peer| peer != self.id());
            let asked = join_all(peers.map(|peer| async move {
                timeout(ASKING, self.has(peer, want))
                    .await
                    .is_ok_and(|has| has.unwrap_or(false))
                    .then_some(peer)
            }));
            if let Some(peer) = asked.await.into_iter().flatten().next() {
                return Ok(peer);
            }
        }
        let cheapest = topology.cheapest(&want.sources, self.id());
        cheapest.with_context(|| format!("nobody keeps {}", ledger::name(want.item)))
    }

    async fn has(&self, peer: NodeId, want: &Want) -> Result<bool> {
        let wanted = Wanted { probe: true, ..self.wanted(want, Part::default()) };
        let request = web::request(Method::GET, &wanted.path(want.item), Body::empty());
        Ok(web::send(self.reach(peer).await?, request).await?.status() == StatusCode::OK)
    }

    fn wanted(&self, want: &Want, part: Part) -> Wanted {
        let version = want.version.max(part.version);
        Wanted { version, from: part.bytes, by: self.vertex, transfer: transfer_name(), probe: false }
    }

    /// One transfer, from where the last one broke off.
    async fn pull(self: &Arc<Self>, want: &Want, source: VertexId, part: &mut Part) -> Result<()> {
        let wanted = self.wanted(want, *part);
        let request = web::request(Method::GET, &wanted.path(want.item), Body::empty());
        let began = Instant::now();
        let asked =
            timeout(STALL, async { anyhow::Ok(web::send(self.reach(source).await?, request).await?) });
        let answer = asked.await.context("no answer")??;
        if answer.status() != StatusCode::OK {
            bail!("it is not there ({})", answer.status());
        }
        let version = answer.headers().get(VERSION).and_then(|version| version.to_str().ok()?.parse().ok());
        let version = version.context("the answer names no version")?;
        let mut from = part.bytes;
        if version != part.version && from > 0 {
            // Another version than the one begun: this transfer is of no use, the next begins anew.
            *part = Part { version, bytes: 0 };
            from = u64::MAX;
        }
        part.version = version;
        let (content, path) = {
            let shelf = self.shelf();
            (shelf.content(want.item, version), shelf.path(want.item, version))
        };
        let (transfer, item) = (wanted.transfer, ledger::name(want.item));
        let mut passed = Passed { transfer, item, with: source, bytes: 0, seconds: 0.0, whole: false };
        let ended = if from == u64::MAX {
            Err(anyhow::anyhow!("it was renewed meanwhile"))
        } else {
            let part_path = path.with_extension("part");
            let mut file = File::options().create(true).truncate(false).write(true).open(&part_path)?;
            file.seek(SeekFrom::Start(from))?;
            let ended = self.copy(answer.into_body(), &content, file, part, &mut passed).await;
            if part.bytes == content.bytes {
                std::fs::rename(part_path, path)?;
            }
            ended
        };
        passed.seconds = began.elapsed().as_secs_f64();
        passed.whole = part.bytes == content.bytes;
        let whole = passed.whole;
        self.ledger.note(&Line::Received(passed));
        if whole { Ok(()) } else { ended.and_then(|()| bail!("it ended before its end")) }
    }

    async fn copy(
        &self,
        body: Body,
        content: &super::super::content::Content,
        mut file: File,
        part: &mut Part,
        passed: &mut Passed,
    ) -> Result<()> {
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = timeout(STALL, chunks.next()).await.context("nothing comes any more")? {
            let chunk = chunk?;
            if !content.is(part.bytes, &chunk) {
                let (transfer, item) = (passed.transfer.clone(), passed.item.clone());
                self.ledger.note(&Line::Wrong { transfer, item });
                *part = Part { version: part.version, bytes: 0 };
                bail!("these are not the bytes of this item");
            }
            file.write_all(&chunk)?;
            part.bytes += chunk.len() as u64;
            passed.bytes += chunk.len() as u64;
        }
        Ok(())
    }

    /// Sends an output to its home.
    pub(super) async fn deliver(
        self: &Arc<Self>,
        (dataset, version): (u32, u32),
        home: NodeId,
        moved: &Mutex<Vec<Moved>>,
    ) -> Result<()> {
        let (item, began) = (Item::Dataset(dataset), Instant::now());
        loop {
            let transfer = transfer_name();
            let others = self.transfers.load(std::sync::atomic::Ordering::Relaxed);
            let wanted =
                Wanted { version, from: 0, by: self.vertex, transfer: transfer.clone(), probe: false };
            let (sent, patience) = (Instant::now(), Duration::from_secs_f64(self.args.patience_s));
            let delivering = async {
                let body = give::body(self, (item, version), 0, home, &transfer)?;
                let request = web::request(Method::PUT, &wanted.path(item), body);
                let answer = web::send(self.reach(home).await?, request).await?;
                let status = answer.status();
                if status == StatusCode::OK { Ok(()) } else { bail!("it is not taken ({status})") }
            };
            let ended = timeout(patience, delivering).await.unwrap_or_else(|_| bail!("it is not taken"));
            match ended {
                Ok(()) => {
                    let bytes = self.world.catalogue.datasets[dataset as usize].bytes;
                    let (seconds, cargo) = (sent.elapsed().as_secs_f64(), Cargo::Output);
                    let one = Moved { cargo, from: self.vertex, to: home, bytes, seconds, others };
                    moved.lock().unwrap_or_else(PoisonError::into_inner).push(one);
                    return Ok(());
                }
                Err(error) if began.elapsed().as_secs_f64() > self.args.patience_s => {
                    let name = self.world.topology.vertex_name(home);
                    return Err(error.context(format!("{} to {name}", ledger::name(item))));
                }
                Err(error) => tracing::debug!(%error, "tried again"),
            }
            sleep(PAUSE).await;
        }
    }
}

/// Fetches so many bytes of nothing in particular from somebody, to see how fast that is: bytes per second.
pub(super) async fn measure(
    State(node): State<Arc<Node>>,
    Json((from, bytes)): Json<(VertexId, u64)>,
) -> Result<Json<f64>, (StatusCode, String)> {
    let measured = node.measured(from, bytes).await;
    measured.map(Json).map_err(|error| (StatusCode::BAD_GATEWAY, format!("{error:#}")))
}

impl Node {
    async fn measured(self: &Arc<Self>, from: VertexId, bytes: u64) -> Result<f64> {
        let request = web::request(Method::GET, &format!("/noise?bytes={bytes}"), Body::empty());
        let answer = web::send(self.reach(from).await?, request).await?;
        let mut chunks = answer.into_body().into_data_stream();
        // From the first bytes on: neither delays nor what the link lets pass at first count.
        let mut first: Option<(Instant, u64)> = None;
        let mut got = 0;
        while let Some(chunk) = timeout(STALL, chunks.next()).await.context("nothing comes any more")? {
            got += chunk?.len() as u64;
            if first.is_none() && got >= bytes / 10 {
                first = Some((Instant::now(), got));
            }
        }
        let (began, before) = first.context("nothing came")?;
        if got != bytes {
            bail!("{got} of {bytes} bytes came");
        }
        Ok((got - before) as f64 / began.elapsed().as_secs_f64().max(1e-9))
    }
}

/// A name that no other transfer has.
fn transfer_name() -> String {
    random::<8>()
}
