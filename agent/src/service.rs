//! The gRPC service: [`run`] serves on a listener until told to stop.
//!
//! ```text
//! wire ─► doors (gRPC) ─► convert (checks) ─► owner (one task) ─► books (one cluster) ─► policy
//!                                                      └─► feed (what happened, for those who watch)
//! ```

mod books;
pub mod convert;
mod doors;
mod feed;
mod local;
mod messages;
mod names;
mod owner;
mod policies;
mod refusal;
mod restart;
mod scribe;
mod serving;
mod why;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use remora_env::Time;
use remora_policies::Policy;
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_server::ClusterServiceServer;
use remora_proto::v1::placement_service_server::PlacementServiceServer;
use remora_proto::v1::policy_service_server::PolicyServiceServer;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Response};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tower::util::MapResponseLayer;

use crate::storage::Storage;
pub use doors::Door;
use policies::Policies;
use restart::Before;
use serving::Serving;

/// Largest request to the placement service, bytes.
pub const MAX_PLACE_BYTES: usize = 4 << 20;
/// Largest request to the cluster service, bytes; whole clusters arrive there.
pub const MAX_CLUSTER_BYTES: usize = 64 << 20;
/// How long requests under way may take once the service is told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// How often a silent client is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Where the service takes the time from: the environment itself reads no clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Time + Send + Sync>);

impl Clock {
    /// A clock of one's own, for tests.
    pub fn new(now: impl Fn() -> Time + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    /// Time since 1970, which passes steadily from this call on and never goes back.
    pub fn real() -> Clock {
        let start = Instant::now();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock::new(move || Time((since_1970 + start.elapsed()).as_nanos() as u64))
    }

    pub fn now(&self) -> Time {
        (self.0)()
    }

    /// A number that no other run of the service has.
    fn run() -> u128 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// What a service is started with.
pub struct Config {
    /// Who decides.
    pub policy: Box<dyn Policy>,
    /// The dial of requests that do not set it, 0 to 1.
    pub alpha: f64,
    /// Seed of policies that draw.
    pub seed: u64,
    pub clock: Clock,
    /// Where what happens is kept; without it, nothing survives the service.
    pub storage: Option<Arc<Storage>>,
    /// Clusters to register before the first request is answered, unless they are known from before.
    pub clusters: Vec<wire::RegisterClusterRequest>,
}

impl Config {
    /// A service with this policy, the dial in the middle, real time and no cluster.
    pub fn new(policy: Box<dyn Policy>) -> Config {
        Config { policy, alpha: 0.5, seed: 0, clock: Clock::real(), storage: None, clusters: Vec::new() }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clusters = self.clusters.len();
        write!(f, "Config {{ policy: {}, alpha: {}, clusters: {clusters} }}", self.policy.name(), self.alpha)
    }
}

/// Serves until `shutdown` resolves, then lets requests under way end, for five seconds at most.
///
/// # Errors
/// When a cluster of the configuration is refused, or the service breaks down.
pub async fn run(
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
    config: Config,
) -> anyhow::Result<()> {
    let mut policies = Policies::new(config.policy, config.seed);
    let serving = Serving::new(config.alpha);
    let before = match &config.storage {
        Some(storage) => restart::restore(storage, &mut policies, serving).await?,
        None => Before::nothing(serving),
    };
    let known: Vec<String> = before.clusters.keys().cloned().collect();
    let storage = config.storage;
    let (owner, owning) = owner::start(policies, before, storage.clone(), config.clock.clone());
    let door = Door { owner, clock: config.clock, storage, changing: Arc::default() };
    // What was known before is known better.
    let new = |request: &wire::RegisterClusterRequest| {
        request.cluster.as_ref().is_none_or(|cluster| !known.contains(&cluster.id))
    };
    for cluster in config.clusters.into_iter().filter(new) {
        door.register(cluster).await.map_err(|status| anyhow!("{}", status.message()))?;
    }
    let (drain, told) = oneshot::channel();
    let stop = async move {
        shutdown.await;
        drop(drain);
    };
    tokio::select! {
        served = serve(listener, stop, door) => served,
        () = drained(told) => {
            tracing::warn!("some requests took longer than {} s after the stop and are cut off", DRAIN.as_secs());
            Ok(())
        }
        broken = owning => match broken {
            Err(error) => Err(anyhow!(error).context("the owner of the clusters broke down; its state is lost")),
            Ok(()) => bail!("the owner of the clusters ended early"),
        },
    }
}

async fn drained(told: oneshot::Receiver<()>) {
    // It is told by being dropped.
    told.await.unwrap_or(());
    tokio::time::sleep(DRAIN).await;
}

async fn serve(
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
    door: Door,
) -> anyhow::Result<()> {
    let clusters = ClusterServiceServer::new(door.clone()).max_decoding_message_size(MAX_CLUSTER_BYTES);
    let placement = PlacementServiceServer::new(door.clone()).max_decoding_message_size(MAX_PLACE_BYTES);
    let policies = PolicyServiceServer::new(door);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ClusterServiceServer<Door>>().await;
    health.set_serving::<PlacementServiceServer<Door>>().await;
    health.set_serving::<PolicyServiceServer<Door>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(remora_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("the service's own descriptors do not decode")?;
    let stop = async move {
        stop.await;
        for service in
            ["", "remora.v1.ClusterService", "remora.v1.PlacementService", "remora.v1.PolicyService"]
        {
            health.set_service_status(service, tonic_health::ServingStatus::NotServing).await;
        }
    };
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .layer(MapResponseLayer::new(exhausted))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(clusters)
        .add_service(placement)
        .add_service(policies)
        // Without it small answers wait for acknowledgements, up to 40 ms.
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stop)
        .await
        .context("the gRPC server ended")
}

/// tonic refuses a message over its limit with `OUT_OF_RANGE`; other gRPC servers, and so the clients
/// written for them, use `RESOURCE_EXHAUSTED`. Nothing here answers `OUT_OF_RANGE` of itself.
fn exhausted(mut response: Response<Body>) -> Response<Body> {
    const STATUS: &str = "grpc-status";
    let code = |code: Code| HeaderValue::from(code as i32);
    if response.headers().get(STATUS) == Some(&code(Code::OutOfRange)) {
        response.headers_mut().insert(STATUS, code(Code::ResourceExhausted));
    }
    response
}
