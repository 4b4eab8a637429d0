//! `remora bench serve`: the service under load over loopback, beside one that does no work.

mod soak;

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args as ClapArgs;
use remora_env::Scenario;
use remora_env::observation::Reference;
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_client::ClusterServiceClient;
use remora_proto::v1::placement_service_client::PlacementServiceClient;
use remora_proto::v1::placement_service_server::{PlacementService, PlacementServiceServer};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio_stream::Stream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

use super::env::mixed;
use crate::client::connect;
use crate::commands::{print, table, tables};
use crate::memory::status_bytes;
use crate::service::{MAX_CLUSTER_BYTES, convert};

#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Who decides.
    #[arg(long, default_value = "pretrained")]
    policy: String,
    /// Sizes of the registered cluster.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,5000,10000")]
    nodes: Vec<u32>,
    /// Requests under way at a time.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    concurrency: Vec<usize>,
    /// Seconds for each case.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Only ask; otherwise every task is placed and its outcome reported.
    #[arg(long)]
    dry_run: bool,
    /// Place and report for so many minutes instead, on the first size at the first concurrency, with a journal, and
    /// tell what memory the server takes meanwhile.
    #[arg(long, value_name = "MINUTES", conflicts_with = "dry_run")]
    soak: Option<f64>,
    /// Be the server that does no work, and say where.
    #[arg(long, hide = true)]
    empty: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    nodes: u32,
    concurrency: usize,
    decisions_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    /// Of the server that does no work, asked the same in the same way.
    empty_server_per_s: f64,
    /// Of the server, in all its threads; with the outcome, if there is one.
    cpu_us_per_decision: f64,
    empty_cpu_us_per_decision: f64,
}

/// Connections share the requests under way, so many on each.
const PER_CONNECTION: usize = 16;
/// Tasks that are asked for in turn.
const TASKS: usize = 256;
/// Share of a case before its measurement begins.
const WARM_UP: f64 = 0.2;

pub async fn run(args: &Args, json: bool) -> Result<()> {
    if args.empty {
        return serve_nothing().await;
    }
    if !(args.seconds.is_finite() && args.seconds > 0.0) || args.concurrency.contains(&0) {
        bail!("--seconds and --concurrency want numbers above 0");
    }
    if let Some(minutes) = args.soak {
        if !(minutes.is_finite() && minutes > 0.0) {
            bail!("--soak wants minutes above 0");
        }
        let soaked = soak::run(args, minutes).await?;
        return if json { tables::print_json(&soaked) } else { print(soak::show(&soaked)) };
    }
    let mut rows = Vec::new();
    let empty = Process::start(&["bench", "serve", "--empty"]).await?;
    for &nodes in &args.nodes {
        let server =
            Process::start(&["serve", "--policy", &args.policy, "--listen", "127.0.0.1:0", "--json"]).await?;
        let tasks = Arc::new(register(&server, nodes).await?);
        for &concurrency in &args.concurrency {
            let load =
                Load { tasks: Arc::clone(&tasks), concurrency, seconds: args.seconds, dry_run: args.dry_run };
            let nothing = load.measure(&empty).await?;
            let ours = load.measure(&server).await?;
            rows.push(Row {
                nodes,
                concurrency,
                decisions_per_s: ours.per_s,
                p50_ms: ours.quantile_ms(0.5),
                p99_ms: ours.quantile_ms(0.99),
                p999_ms: ours.quantile_ms(0.999),
                empty_server_per_s: nothing.per_s,
                cpu_us_per_decision: ours.cpu_us,
                empty_cpu_us_per_decision: nothing.cpu_us,
            });
        }
    }
    if json { tables::print_rows(&rows) } else { print(show(&rows)) }
}

fn show(rows: &[Row]) -> String {
    let header = [
        "nodes",
        "at a time",
        "decisions/s",
        "of empty",
        "p50 ms",
        "p99 ms",
        "p999 ms",
        "CPU µs",
        "empty CPU µs",
    ];
    let mut table = table(&header);
    for row in rows {
        table.add_row([
            row.nodes.to_string(),
            row.concurrency.to_string(),
            format!("{:.0}", row.decisions_per_s),
            format!("{:.2}", row.decisions_per_s / row.empty_server_per_s),
            format!("{:.3}", row.p50_ms),
            format!("{:.3}", row.p99_ms),
            format!("{:.3}", row.p999_ms),
            format!("{:.0}", row.cpu_us_per_decision),
            format!("{:.0}", row.empty_cpu_us_per_decision),
        ]);
    }
    format!(
        "{table}\nOver loopback, client and server on this machine. `of empty`: throughput over that of a server \
         that does no work,\nasked the same in the same run. CPU: of the server, per decision."
    )
}

/// A server in a process of its own.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pub address: String,
}

impl Process {
    /// Starts it; its first line on stdout is JSON that says where it listens.
    pub async fn start(arguments: &[&str]) -> Result<Process> {
        Process::wait(program(arguments)?).await
    }

    /// Starts this command, and waits for that line.
    pub async fn wait(mut command: Command) -> Result<Process> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start a server")?;
        let mut output = BufReader::new(child.stdout.take().context("the server has no output")?);
        let mut told = String::new();
        let address = loop {
            if output.read_line(&mut told).await? == 0 {
                bail!("the server ended before it listened: {told}");
            }
            if let Ok(value) = serde_json::from_str::<Value>(&told) {
                break value["listen"]
                    .as_str()
                    .context("the server does not say where it listens")?
                    .to_owned();
            }
        };
        Ok(Process { child, address })
    }

    /// CPU seconds that it has used, as Linux counts them.
    pub fn cpu_s(&self) -> Result<f64> {
        cpu_s(&self.child)
    }

    /// Megabytes of memory that it holds, as Linux counts them.
    fn rss_mb(&self) -> Result<f64> {
        let id = self.child.id().context("the server ended")?;
        let bytes =
            status_bytes(&id.to_string(), "VmRSS").context("/proc does not tell the server's memory")?;
        Ok(bytes as f64 / 1e6)
    }
}

/// This program with these arguments; it ends with whoever waits for it.
pub(super) fn program(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).env("RUST_LOG", "error").kill_on_drop(true);
    Ok(command)
}

/// CPU seconds that a process has used, as Linux counts them.
pub(super) fn cpu_s(process: &Child) -> Result<f64> {
    let id = process.id().context("a process ended")?;
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).context("CPU time is read from /proc")?;
    // After the name, which may have spaces in it, user and system time are the 12th and 13th.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / 100.0)
}

/// Registers a cluster; returns tasks for it.
async fn register(server: &Process, nodes: u32) -> Result<Vec<wire::Task>> {
    let world = Scenario::parse(&mixed(nodes), "bench", None)?.world(1);
    let cluster = world.initial_cluster();
    let request = convert::export("bench", &cluster, Reference::new(10.0, 1e8), &Default::default());
    let mut client = ClusterServiceClient::new(connect(&server.address).await?)
        .max_decoding_message_size(MAX_CLUSTER_BYTES);
    client.register(request).await.map_err(|status| anyhow!("{}", status.message()))?;
    let tasks = world.tasks.iter().take(TASKS);
    Ok(tasks.map(|task| convert::task(&task.task, &cluster.catalogue)).collect())
}

/// What is asked of a server.
struct Load {
    tasks: Arc<Vec<wire::Task>>,
    concurrency: usize,
    seconds: f64,
    dry_run: bool,
}

/// How it went.
struct Measured {
    per_s: f64,
    cpu_us: f64,
    /// Of the placements, ascending.
    latencies_s: Vec<f32>,
}

impl Measured {
    fn quantile_ms(&self, share: f64) -> f64 {
        let last = self.latencies_s.len().saturating_sub(1);
        let index = (self.latencies_s.len() as f64 * share) as usize;
        self.latencies_s.get(index.min(last)).map_or(f64::NAN, |s| f64::from(*s) * 1e3)
    }
}

impl Load {
    async fn connections(&self, server: &Process) -> Result<Vec<Channel>> {
        let mut connections = Vec::new();
        for _ in 0..self.concurrency.div_ceil(PER_CONNECTION) {
            connections.push(connect(&server.address).await?);
        }
        Ok(connections)
    }

    async fn measure(&self, server: &Process) -> Result<Measured> {
        let connections = self.connections(server).await?;
        self.round(&connections, self.seconds * WARM_UP).await?;
        let (cpu_s, started) = (server.cpu_s()?, Instant::now());
        let mut latencies_s = self.round(&connections, self.seconds).await?;
        let (elapsed_s, cpu_s) = (started.elapsed().as_secs_f64(), server.cpu_s()? - cpu_s);
        latencies_s.sort_unstable_by(f32::total_cmp);
        let count = latencies_s.len() as f64;
        Ok(Measured { per_s: count / elapsed_s, cpu_us: cpu_s * 1e6 / count, latencies_s })
    }

    /// Everybody asks, waits, and asks again; the latencies of all placements.
    async fn round(&self, connections: &[Channel], seconds: f64) -> Result<Vec<f32>> {
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        let clients = (0..self.concurrency).map(|number| {
            let channel = connections[number / PER_CONNECTION].clone();
            let (tasks, dry_run) = (Arc::clone(&self.tasks), self.dry_run);
            tokio::spawn(async move { ask(channel, &tasks, number, dry_run, until).await })
        });
        let mut latencies_s = Vec::new();
        for client in clients.collect::<Vec<_>>() {
            latencies_s.extend(client.await??);
        }
        Ok(latencies_s)
    }
}

async fn ask(
    channel: Channel,
    tasks: &[wire::Task],
    first: usize,
    dry_run: bool,
    until: Instant,
) -> Result<Vec<f32>> {
    let refused = |status: Status| anyhow!("{}", status.message());
    let mut client = PlacementServiceClient::new(channel);
    let mut latencies_s = Vec::new();
    for task in tasks.iter().cycle().skip(first * 7) {
        let now = Instant::now();
        if now >= until {
            break;
        }
        let request = wire::PlaceRequest {
            cluster_id: "bench".to_owned(),
            task: Some(task.clone()),
            dry_run,
            max_candidates: Some(0),
            ..wire::PlaceRequest::default()
        };
        let answer = client.place(request).await.map_err(refused)?.into_inner();
        latencies_s.push(now.elapsed().as_secs_f32());
        if !dry_run {
            let outcome = wire::ReportOutcomeRequest {
                cluster_id: "bench".to_owned(),
                decision_id: answer.decision_id,
                response_s: Some(answer.predicted_completion_s),
                ..wire::ReportOutcomeRequest::default()
            };
            client.report_outcome(outcome).await.map_err(refused)?;
        }
    }
    Ok(latencies_s)
}

/// A service that answers everything at once with nothing.
struct Nothing;

type NoStream<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl PlacementService for Nothing {
    type PlaceStreamStream = NoStream<wire::PlaceResult>;

    async fn place(&self, _: Request<wire::PlaceRequest>) -> Result<Response<wire::PlaceResponse>, Status> {
        Ok(Response::new(wire::PlaceResponse::default()))
    }

    async fn place_batch(
        &self,
        _: Request<wire::PlaceBatchRequest>,
    ) -> Result<Response<wire::PlaceBatchResponse>, Status> {
        Ok(Response::new(wire::PlaceBatchResponse::default()))
    }

    async fn place_stream(
        &self,
        _: Request<Streaming<wire::PlaceRequest>>,
    ) -> Result<Response<Self::PlaceStreamStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }

    async fn report_outcome(
        &self,
        _: Request<wire::ReportOutcomeRequest>,
    ) -> Result<Response<wire::ReportOutcomeResponse>, Status> {
        Ok(Response::new(wire::ReportOutcomeResponse::default()))
    }

    async fn dispute(&self, _: Request<wire::DisputeRequest>) -> Result<Response<wire::Disputed>, Status> {
        Ok(Response::new(wire::Disputed::default()))
    }

    async fn explain(&self, _: Request<wire::ExplainRequest>) -> Result<Response<wire::Receipt>, Status> {
        Ok(Response::new(wire::Receipt::default()))
    }
}

async fn serve_nothing() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    print(serde_json::json!({ "listen": listener.local_addr()?.to_string() }))?;
    Server::builder()
        .add_service(PlacementServiceServer::new(Nothing))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await
        .context("the empty server ended")
}
