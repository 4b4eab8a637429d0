//! One node of a testbed, or a registry: it fetches what tasks need, runs them, stores their outputs, gives others what
//! it has, and reports what became of each task.

mod fetch;
mod give;
mod work;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::serve::Listener;
use remora_env::cluster::{Item, TaskId};
use remora_env::topology::{NodeId, VertexId};
use remora_env::{Scenario, Time, World};
use remora_proto::v1::placement_service_client::PlacementServiceClient;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tonic::transport::Channel;

use super::ledger::{self, Job, Ledger, Line, Report};
use super::shelf::Shelf;
use super::web::Json;
use super::{network, relay, tether};
use crate::client;

/// How a node is started.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Scenario file.
    pub scenario: PathBuf,
    /// Seed of the world.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Which node, or registry, this is.
    #[arg(long)]
    pub name: String,
    /// Its disk and its ledger.
    #[arg(long)]
    pub folder: PathBuf,
    /// The service to report to.
    #[arg(long)]
    pub server: String,
    /// Where other nodes find it.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Where it is given tasks.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub control: SocketAddr,
    /// The relay through which it reaches others; at their own addresses without one.
    #[arg(long)]
    pub relay: Option<SocketAddr>,
    /// Share of a core of this machine that a core of the node is.
    #[arg(long, default_value_t = 1.0)]
    pub cpu_share: f64,
    /// Control group of its tasks.
    #[arg(long)]
    pub group: Option<PathBuf>,
    /// Seconds after which what cannot be fetched fails its task.
    #[arg(long, default_value_t = 30.0)]
    pub patience_s: f64,
}

/// Tasks by their decision; `None` while it is worked on.
type Jobs = BTreeMap<String, watch::Receiver<Option<Report>>>;

/// An outcome of which the service does not know.
#[derive(Clone, Debug)]
struct Untold {
    decision: String,
    /// Seconds from the task's arrival until it came here.
    age_s: f64,
    report: Report,
}

#[derive(Debug)]
struct Node {
    args: Options,
    world: Arc<World>,
    /// Where it is in the network; a registry's is no node.
    vertex: VertexId,
    began: Instant,
    /// None is locked across a wait.
    shelf: Mutex<Shelf>,
    queue: Mutex<BTreeMap<TaskId, oneshot::Sender<()>>>,
    jobs: Mutex<Jobs>,
    ledger: Ledger,
    placements: PlacementServiceClient<Channel>,
    /// Outcomes of which the service does not know yet.
    untold: AtomicU32,
    /// Transfers under way.
    transfers: AtomicU32,
}

/// Where a node can be reached, as it says when it is ready.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Ready {
    pub listen: SocketAddr,
    pub control: SocketAddr,
}

/// Runs a node until its input ends: whoever started it holds the other end.
pub async fn run(args: Options) -> Result<()> {
    let scenario = Scenario::load(&args.scenario.to_string_lossy())?;
    let world = Arc::new(scenario.world(args.seed));
    let topology = &world.topology;
    let Some(vertex) = topology.leaves().find(|&vertex| topology.vertex_name(vertex) == args.name) else {
        bail!("--name {:?}: {} has no such node or registry", args.name, scenario.name());
    };
    std::fs::create_dir_all(&args.folder)
        .with_context(|| format!("cannot make {}", args.folder.display()))?;
    // A registry has no disk in the model: what it gives follows from the names.
    let node = (vertex < topology.nodes.len() as NodeId).then_some(vertex);
    let shelf = Shelf::open(&world, node, &args.folder)?;
    let (jobs, untold) = ended(&args.folder)?;
    let node = Node {
        vertex,
        began: Instant::now(),
        shelf: Mutex::new(shelf),
        queue: Mutex::default(),
        jobs: Mutex::new(jobs),
        ledger: Ledger::open(&args.folder)?,
        placements: PlacementServiceClient::new(client::lazy(&args.server)?),
        untold: AtomicU32::new(untold.len() as u32),
        transfers: AtomicU32::new(0),
        world,
        args,
    };
    let node = Arc::new(node);
    for outcome in untold {
        tokio::spawn(work::tell(node.clone(), outcome));
    }
    serve(node).await
}

/// What was worked on before this process was started, so that nothing is done twice; and of that, what the service
/// was not told.
fn ended(folder: &std::path::Path) -> Result<(Jobs, Vec<Untold>)> {
    let (mut jobs, mut untold) = (Jobs::new(), BTreeMap::new());
    for line in ledger::read(folder)? {
        match line {
            Line::Ended { decision, age_s, report } => {
                jobs.insert(decision.clone(), watch::channel(Some(report.clone())).1);
                untold.insert(decision.clone(), Untold { decision, age_s, report });
            }
            Line::Told { decision, .. } => drop(untold.remove(&decision)),
            _ => {}
        }
    }
    Ok((jobs, untold.into_values().collect()))
}

async fn serve(node: Arc<Node>) -> Result<()> {
    let data = TcpListener::bind(node.args.listen).await.context("--listen")?;
    let control = TcpListener::bind(node.args.control).await.context("--control")?;
    let ready = Ready { listen: data.local_addr()?, control: control.local_addr()? };
    let items = Router::new()
        .route("/items/{sort}/{id}", get(give::give).put(give::take))
        .route("/noise", get(give::noise))
        .layer(DefaultBodyLimit::disable())
        .with_state(node.clone());
    let tasks = Router::new()
        .route("/tasks", post(work::task))
        .route("/renew", post(renew))
        .route("/pending", post(pending))
        .route("/measure", post(fetch::measure))
        .with_state(node.clone());
    crate::commands::print(serde_json::to_string(&ready)?)?;
    let asked = axum::serve(control, tasks).into_future();
    let served = async {
        if node.args.relay.is_some() {
            axum::serve(data, items).await
        } else {
            axum::serve(Far { listener: data, node: node.clone() }, items).await
        }
    };
    tokio::select! {
        ended = asked => ended?,
        ended = served => ended?,
        () = tether::orphaned() => {}
    }
    Ok(())
}

/// Connections that take as long as the way from where they come.
struct Far {
    listener: TcpListener,
    node: Arc<Node>,
}

impl Listener for Far {
    type Io = DuplexStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (DuplexStream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // What cannot be set delays small answers a little.
        let _ = stream.set_nodelay(true);
        let topology = &self.node.world.topology;
        let from = network::vertex(address.ip()).filter(|&from| (from as usize) < topology.vertex_count());
        let delay = from.map_or(Duration::ZERO, |from| relay::delay(topology, from, self.node.vertex));
        (relay::delayed(stream, delay), address)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Node {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.cluster.now = Time::from_s(self.began.elapsed().as_secs_f64());
        shelf
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, BTreeMap<TaskId, oneshot::Sender<()>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its number among the nodes of the cluster.
    fn id(&self) -> NodeId {
        self.vertex
    }

    fn is_registry(&self) -> bool {
        self.vertex as usize >= self.world.topology.nodes.len()
    }

    /// Notes what had to go.
    fn evicted(&self, items: Vec<(Item, u64)>) {
        for (item, bytes) in items {
            self.ledger.note(&Line::Evicted { item: ledger::name(item), bytes });
        }
    }

    fn say_begun(&self) -> u32 {
        self.transfers.fetch_add(1, Ordering::Relaxed)
    }

    fn say_over(&self) {
        self.transfers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// New data appears at this node, its home.
async fn renew(
    State(node): State<Arc<Node>>,
    Json((dataset, version)): Json<(u32, u32)>,
) -> Result<Json<()>, (StatusCode, String)> {
    let made = node.shelf().make(Item::Dataset(dataset), version);
    let failed = |error: std::io::Error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    node.evicted(made.map_err(failed)?);
    Ok(Json(()))
}

/// How many tasks are worked on, or are not known to the service yet.
async fn pending(State(node): State<Arc<Node>>, Json(()): Json<()>) -> Json<u32> {
    let working = node.jobs().values().filter(|job| job.borrow().is_none()).count() as u32;
    Json(working + node.untold.load(Ordering::SeqCst))
}

/// A task of this world as a job says it.
fn task_of(world: &World, job: &Job) -> Option<Arc<remora_env::catalogue::Task>> {
    world.tasks.get(job.task as usize).map(|planned| Arc::clone(&planned.task))
}
