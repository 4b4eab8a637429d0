//! A server on a free port, and a small cluster for it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use remora_agent::service::{self, Config};
use remora_policies::by_name;
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_client::ClusterServiceClient;
use remora_proto::v1::placement_service_client::PlacementServiceClient;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

pub struct Server {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<anyhow::Result<()>>,
}

impl Server {
    pub async fn start(config: Config) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move { stopped.await.unwrap_or(()) };
        let served = tokio::spawn(service::run(listener, shutdown, config));
        Server { address, stop, served }
    }

    /// A server for which `greedy-completion` decides about the small cluster.
    pub async fn with_small_cluster() -> Server {
        let policy = by_name("greedy-completion", 0).unwrap();
        Server::start(Config { clusters: vec![small_cluster()], ..Config::new(policy) }).await
    }

    pub async fn channel(&self) -> Channel {
        remora_agent::client::connect(&self.address.to_string()).await.unwrap()
    }

    pub async fn clusters(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel().await).max_decoding_message_size(service::MAX_CLUSTER_BYTES)
    }

    pub async fn placements(&self) -> PlacementServiceClient<Channel> {
        PlacementServiceClient::new(self.channel().await)
    }

    /// Demands a correct answer: whatever happened before, the service goes on.
    pub async fn still_answers(&self) {
        let answer = self.placements().await.place(dry_run(small_task())).await.unwrap().into_inner();
        assert_eq!(answer.node, "desk");
    }

    /// Stops it and demands that it ends well and soon.
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(8), self.served).await.unwrap().unwrap().unwrap();
    }
}

const MB: i64 = 1_000_000;

fn node(name: &str, kind: &str, arch: &str, cpu_millis: i64) -> wire::Node {
    wire::Node {
        name: name.to_owned(),
        kind: kind.to_owned(),
        arch: arch.to_owned(),
        cpu_millis,
        memory_bytes: 4000 * MB,
        disk_bytes: Some(32_000 * MB),
        startup_s: Some(1.0),
        accelerator: None,
        labels: BTreeMap::new(),
    }
}

fn link(outer: &str, megabytes_per_s: f64, wan: bool) -> wire::Link {
    wire::Link {
        outer: outer.to_owned(),
        inner: "hall".to_owned(),
        up_bytes_per_s: megabytes_per_s * 1e6,
        down_bytes_per_s: megabytes_per_s * 1e6,
        latency_s: Some(0.01),
        price: Some(if wan { 4.0 } else { 1.0 }),
        wan,
        shared: false,
    }
}

/// `desk` and `board` in one hall, `cloud` and the registry behind thin links. The data is on `desk`.
pub fn small_cluster() -> wire::RegisterClusterRequest {
    let layer = |name: &str, bytes| wire::Layer { name: name.to_owned(), bytes: Some(bytes) };
    let variant = |arch: &str| wire::ImageVariant {
        arch: arch.to_owned(),
        layers: vec![layer(&format!("base:{arch}"), 80 * MB), layer(&format!("app:{arch}"), 20 * MB)],
    };
    let dataset = |name: &str, homes: &[&str]| wire::Dataset {
        name: name.to_owned(),
        bytes: Some(50 * MB),
        homes: homes.iter().map(|&home| home.to_owned()).collect(),
    };
    let time =
        |device: &str, mean_s| wire::ExecutionTime { device_kind: device.to_owned(), mean_s: Some(mean_s) };
    let cluster = wire::Cluster {
        id: "small".to_owned(),
        reference_response_s: 20.0,
        reference_moved_bytes: 1e8,
        peers: false,
        queue_limit: None,
        stale_after_s: None,
        nodes: vec![
            node("desk", "nuc", "amd64", 4000),
            node("board", "rpi4", "arm64", 4000),
            node("cloud", "vm", "amd64", 16_000),
        ],
        registries: vec!["registry".to_owned()],
        switches: vec!["hall".to_owned()],
        links: vec![
            link("desk", 100.0, false),
            link("board", 100.0, false),
            link("cloud", 2.0, true),
            link("registry", 10.0, true),
        ],
        images: vec![wire::Image {
            name: "vision".to_owned(),
            variants: vec![variant("amd64"), variant("arm64")],
        }],
        datasets: vec![dataset("video", &["desk"]), dataset("labels", &["board", "desk"])],
        task_kinds: vec![wire::TaskKind {
            name: "detect".to_owned(),
            cpu_millis: Some(3000),
            cpu_use_millis: Some(3000),
            memory_bytes: Some(500 * MB),
            execution: vec![time("nuc", 4.0), time("rpi4", 20.0), time("vm", 2.0)],
            ..wire::TaskKind::default()
        }],
    };
    wire::RegisterClusterRequest { cluster: Some(cluster), facts: None }
}

/// Runs best on `desk`, where its input is.
pub fn small_task() -> wire::Task {
    wire::Task {
        kind: "detect".to_owned(),
        image: "vision".to_owned(),
        inputs: vec!["video".to_owned()],
        outputs: vec!["labels".to_owned()],
    }
}

pub fn request(task: wire::Task) -> wire::PlaceRequest {
    wire::PlaceRequest { cluster_id: "small".to_owned(), task: Some(task), ..wire::PlaceRequest::default() }
}

pub fn dry_run(task: wire::Task) -> wire::PlaceRequest {
    wire::PlaceRequest { dry_run: true, ..request(task) }
}

pub fn outcome(decision_id: &str) -> wire::ReportOutcomeRequest {
    wire::ReportOutcomeRequest {
        cluster_id: "small".to_owned(),
        decision_id: decision_id.to_owned(),
        ..wire::ReportOutcomeRequest::default()
    }
}
