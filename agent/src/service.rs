//! The gRPC service: [`run`] serves on a listener until told to stop.
//!
//! ```text
//! wire ─► gate (who, how many) ─► doors (gRPC) ─► convert (checks) ─► owner (one task) ─► books (one cluster) ─► policy
//!                                                      └─► feed (what happened, for those who watch)
//! ```

pub(crate) mod access;
mod books;
pub(crate) mod connections;
pub mod convert;
mod doors;
mod feed;
pub(crate) mod gate;
mod limits;
mod local;
mod messages;
mod metrics;
mod names;
mod owner;
mod policies;
mod preview;
pub(crate) mod recording;
pub(crate) mod refusal;
mod restart;
mod savings;
mod scribe;
mod serving;
mod settings;
pub(crate) mod tls;
mod why;

use std::future::{Future, pending};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fmt, io};

use anyhow::{Context, anyhow};
use remora_env::Time;
use remora_policies::Policy;
use remora_proto::v1 as wire;
use remora_proto::v1::admin_service_server::AdminServiceServer;
use remora_proto::v1::app_service_server::AppServiceServer;
use remora_proto::v1::cluster_service_server::ClusterServiceServer;
use remora_proto::v1::placement_service_server::PlacementServiceServer;
use remora_proto::v1::policy_service_server::PolicyServiceServer;
use remora_proto::v1::training_service_server::TrainingServiceServer;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic_health::ServingStatus;

pub use access::{METHODS, Method, Rules, first_token};
pub use doors::Door;
pub(crate) use doors::champion::checkpoint;
pub(crate) use doors::training::TrainingDoor;
pub use limits::Limits;
pub use policies::Alias;
pub(crate) use restart::ITSELF;
pub(crate) use serving::{dearer, is_heuristic};
pub use settings::{Setting, fixed};
pub use tls::Files as TlsFiles;

use crate::appcore::apps::{self, Apps};
use crate::appcore::door::AppDoor;
use crate::http;
use crate::panel::{Doors, FirstLink, Panel};
use crate::storage::{Keep, Storage};
use crate::training::Runs;
use access::Access;
use connections::Connection;
use gate::{Gate, Guards};
use limits::Limiter;
use local::Core;
use metrics::Metrics;
use policies::Policies;

/// Largest request to the placement service, bytes.
pub const MAX_PLACE_BYTES: usize = 4 << 20;
/// Largest request to AppCore, bytes; data may come with a notice.
pub const MAX_APP_BYTES: usize = 20 << 20;
/// Largest request to the cluster service, bytes; whole clusters arrive there.
pub const MAX_CLUSTER_BYTES: usize = 64 << 20;
/// How long requests under way may take once the service is told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// Milliseconds of a day.
pub(crate) const DAY_MS: i64 = 24 * 3_600_000;
/// How often the journal is gone through for what it need not keep.
const HOUR: Duration = Duration::from_secs(3600);
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

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        convert::ms(self.now())
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
    /// What it is called, where that is not its id.
    pub called: Option<String>,
    /// The dial of requests that do not set it, 0 to 1.
    pub alpha: f64,
    /// Seed of policies that draw.
    pub seed: u64,
    pub clock: Clock,
    /// Where what happens is kept; without it, nothing survives the service, and there are no tokens.
    pub storage: Option<Arc<Storage>>,
    /// How long the journal is kept beyond what a restart needs.
    pub keep: Keep,
    /// How applications are run; they need storage.
    pub apps: Option<apps::Options>,
    /// Clusters to register before the first request is answered, unless they are known from before.
    pub clusters: Vec<wire::RegisterClusterRequest>,
    /// Who may call.
    pub rules: Rules,
    pub limits: Limits,
    /// Certificates; connections are in the open without them.
    pub tls: Option<tls::Files>,
    /// Where the Control Panel, metrics and health are over HTTP.
    pub http: Option<TcpListener>,
    /// What a proxy puts before the panel's paths: nothing, or as `/remora`.
    pub http_prefix: String,
    /// A link that signs in to the panel once.
    pub first_link: Option<FirstLink>,
    /// Folders below which training runs are shown.
    pub runs: Vec<PathBuf>,
    /// Address of a TensorBoard over them; empty for none.
    pub tensorboard: String,
}

impl Config {
    /// A service with this policy, the dial in the middle, real time and no cluster, that keeps nothing and lets in
    /// everybody.
    pub fn new(policy: Box<dyn Policy>) -> Config {
        Config {
            policy,
            called: None,
            alpha: 0.5,
            seed: 0,
            clock: Clock::real(),
            clusters: Vec::new(),
            storage: None,
            keep: Keep::Forever,
            apps: None,
            rules: Rules::default(),
            limits: Limits::default(),
            tls: None,
            http: None,
            http_prefix: String::new(),
            first_link: None,
            runs: Vec::new(),
            tensorboard: String::new(),
        }
    }
}

impl Config {
    /// The name of who decides.
    pub fn called(&self) -> &str {
        self.called.as_deref().unwrap_or(self.policy.name())
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
/// When nobody could come in, a cluster of the configuration is refused, certificates cannot be used, or the service
/// breaks down.
pub async fn run(
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
    config: Config,
) -> anyhow::Result<()> {
    let fixed = Arc::new(fixed(&config, listener.local_addr().ok()));
    let runs = Runs::below(&config.runs).map(Arc::new);
    let training = TrainingDoor { runs, tensorboard: config.tensorboard.as_str().into() };
    let Config { policy, called, alpha, seed, clock, storage, apps, clusters, rules, limits, tls, .. } =
        config;
    let keeping = keep_house(storage.clone(), config.keep, clock.clone());
    let (http, http_prefix, first_link) = (config.http, config.http_prefix, config.first_link);
    rules.check(storage.is_some())?;
    let metrics = Arc::new(Metrics::default());
    let gate = Gate(Arc::new(Guards {
        access: Access::new(rules, storage.clone(), clock.clone()),
        limiter: Limiter::new(limits),
        metrics: metrics.clone(),
        nameless: AtomicU64::new(0),
    }));
    let core = Core {
        policies: Policies::new(policy, called, seed),
        alpha,
        clock: clock.clone(),
        storage: storage.clone(),
        metrics,
    };
    let (mut door, owning) = core.start(clusters).await?;
    door.fixed = fixed;
    let (apps, mut owning_apps) = match (apps, storage.clone()) {
        (Some(options), Some(storage)) => {
            let (apps, owning) = Apps::start(options, storage, door.clone(), clock.clone()).await?;
            (AppDoor(Some(Arc::new(apps))), owning)
        }
        // There is nothing to own, which goes on.
        _ => (AppDoor(None), tokio::spawn(pending())),
    };
    let applications = apps.0.as_ref().map(|apps| apps.handle.clone());
    // Told by being dropped.
    let (stopping, stopped) = watch::channel(());
    let stop = async move {
        shutdown.await;
        drop(stopping);
    };
    let web = match http {
        Some(listener) => {
            let tls = tls.clone().map(|files| files.watch(tls::Door::Http)).transpose()?;
            let (gate, door) = (gate.clone(), door.clone());
            let routes = http::routes(&gate, door.clone());
            let doors = Doors { clusters: door, apps: apps.clone(), training: training.clone() };
            let panel = Panel::new(gate, doors, storage, clock, http_prefix, first_link);
            let routes = routes.merge(panel.routes());
            Some(http::serve(listener, tls, dropped(stopped.clone()), routes))
        }
        None => None,
    };
    let web = async {
        match web {
            Some(web) => web.await,
            None => Ok(()),
        }
    };
    let tls = tls.map(|files| files.watch(tls::Door::Grpc)).transpose()?;
    let grpc = serve(connections::accept(listener, tls), stop, (door, apps, training), gate);
    let served = tokio::select! {
        served = async { tokio::try_join!(grpc, web).map(|_| ()) } => served,
        never = keeping => never,
        () = drained(stopped) => {
            tracing::warn!("some requests took longer than {} s after the stop and are cut off", DRAIN.as_secs());
            Ok(())
        }
        broken = owning => match broken {
            Err(error) => Err(anyhow!(error).context("the owner of the clusters broke down; its state is lost")),
            Ok(()) => Err(anyhow!("the owner of the clusters ended early")),
        },
        broken = &mut owning_apps => match broken {
            Err(error) => Err(anyhow!(error).context("the owner of the applications broke down")),
            Ok(()) => Err(anyhow!("the owner of the applications ended early")),
        },
    };
    if let Some(applications) = applications {
        applications.stop().await;
        if !owning_apps.is_finished() {
            owning_apps
                .await
                .unwrap_or_else(|error| tracing::error!(%error, "AppCore broke down at its end"));
        }
    }
    served
}

/// Forgets what the journal need not keep, once an hour, and does not end.
async fn keep_house(storage: Option<Arc<Storage>>, keep: Keep, clock: Clock) -> anyhow::Result<()> {
    let Some(storage) = storage else { return pending().await };
    loop {
        match storage.compact(keep, clock.now_ms()).await {
            Ok(0) => {}
            Ok(entries) => tracing::info!(entries, "forgotten: the journal kept them long enough"),
            Err(error) => tracing::warn!(%error, "old entries of the journal stay for now"),
        }
        tokio::time::sleep(HOUR).await;
    }
}

async fn dropped(mut sender: watch::Receiver<()>) {
    while sender.changed().await.is_ok() {}
}

async fn drained(stopped: watch::Receiver<()>) {
    dropped(stopped).await;
    tokio::time::sleep(DRAIN).await;
}

async fn serve(
    connections: mpsc::Receiver<io::Result<Connection>>,
    stop: impl Future<Output = ()> + Send + 'static,
    (door, apps, training): (Door, AppDoor, TrainingDoor),
    gate: Gate,
) -> anyhow::Result<()> {
    let admin = AdminServiceServer::new(door.clone());
    let apps = AppServiceServer::new(apps).max_decoding_message_size(MAX_APP_BYTES);
    let clusters = ClusterServiceServer::new(door.clone()).max_decoding_message_size(MAX_CLUSTER_BYTES);
    let placement = PlacementServiceServer::new(door.clone()).max_decoding_message_size(MAX_PLACE_BYTES);
    let policies = PolicyServiceServer::new(door);
    let training = TrainingServiceServer::new(training);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<AdminServiceServer<Door>>().await;
    health.set_serving::<AppServiceServer<AppDoor>>().await;
    health.set_serving::<ClusterServiceServer<Door>>().await;
    health.set_serving::<PlacementServiceServer<Door>>().await;
    health.set_serving::<PolicyServiceServer<Door>>().await;
    health.set_serving::<TrainingServiceServer<TrainingDoor>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(remora_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("the service's own descriptors do not decode")?;
    let stop = async move {
        stop.await;
        let services = [
            "AdminService",
            "AppService",
            "ClusterService",
            "PlacementService",
            "PolicyService",
            "TrainingService",
        ];
        health.set_service_status("", ServingStatus::NotServing).await;
        for service in services {
            health.set_service_status(format!("remora.v1.{service}"), ServingStatus::NotServing).await;
        }
    };
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .layer(gate)
        .add_service(health_service)
        .add_service(reflection)
        .add_service(admin)
        .add_service(apps)
        .add_service(clusters)
        .add_service(placement)
        .add_service(policies)
        .add_service(training)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop)
        .await
        .context("the gRPC server ended")
}
