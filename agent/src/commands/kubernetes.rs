//! `remora kubernetes`: beside a Kubernetes cluster, as its scheduler or its scheduler's adviser.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::error::ErrorKind;
use kube::Client;
use serde_json::json;
use tokio::net::TcpListener;

use super::print;
use super::serve::stop_signal;
use crate::kubernetes::configuration::{self, Tls};
use crate::kubernetes::extender::{self, Extender};
use crate::kubernetes::facts::Settings;
use crate::kubernetes::scheduler::{self, lease};
use crate::service::{self, Door};

/// Work with Kubernetes: schedule pods, or advise its own scheduler.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Scheduler(SchedulerArgs),
    Extender(ExtenderArgs),
    Config(ConfigArgs),
}

/// Who decides.
#[derive(Debug, clap::Args)]
pub struct Deciding {
    /// A heuristic's name, `pretrained`, or a checkpoint's path.
    #[arg(long, default_value = "pretrained")]
    policy: String,
    /// The dial of pods that do not set it: weight of data moved against response time, 0 to 1.
    #[arg(long, default_value_t = 0.5, value_parser = super::alpha)]
    alpha: f64,
    /// Seed of policies that draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What the core calls the cluster.
    #[arg(long, default_value = "kubernetes")]
    cluster: String,
    /// TOML file with network, data and execution times; a ConfigMap goes before it.
    #[arg(long)]
    settings: Option<std::path::PathBuf>,
}

/// Schedule the pods whose `spec.schedulerName` is this scheduler's, until Ctrl-C or SIGTERM.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  remora kubernetes scheduler --policy pretrained --lease-namespace remora --config-map remora/remora")]
pub struct SchedulerArgs {
    #[command(flatten)]
    deciding: Deciding,
    /// What pods write as `spec.schedulerName`.
    #[arg(long, default_value = "remora")]
    name: String,
    /// Namespace of the lease that lets one of several schedulers work; without it, it works at once.
    #[arg(long)]
    lease_namespace: Option<String>,
    /// Name of that lease.
    #[arg(long, default_value = "remora-scheduler")]
    lease_name: String,
    /// NAMESPACE/NAME of a ConfigMap whose key `remora.toml` has the settings; changes count at once.
    #[arg(long, value_parser = namespaced)]
    config_map: Option<(String, String)>,
    /// Bindings at a time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    bindings: u16,
    /// Serve the extender here too, for the same cluster; port 0 takes a free one.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Listen where other machines can reach it, without encryption or passwords.
    #[arg(long)]
    insecure: bool,
}

/// Advise Kubernetes' own scheduler over HTTP, until Ctrl-C or SIGTERM.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  remora kubernetes extender --policy greedy-marginal --listen 127.0.0.1:8080
  remora kubernetes config --full --url http://127.0.0.1:8080 > scheduler.yaml")]
pub struct ExtenderArgs {
    #[command(flatten)]
    deciding: Deciding,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Listen where other machines can reach it, without encryption or passwords.
    #[arg(long)]
    insecure: bool,
    /// How long advice may take, milliseconds; after that all nodes are scored equally.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    budget_ms: u64,
    /// Bind pods too, with the rights of the surrounding service account or kubeconfig.
    #[arg(long)]
    bind: bool,
}

/// Print the KubeSchedulerConfiguration that makes Kubernetes' scheduler ask the extender.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  remora kubernetes config --cached --url http://remora.remora.svc:8080 > scheduler.yaml
  kube-scheduler --config scheduler.yaml")]
pub struct ConfigArgs {
    /// Where the extender listens.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The extender knows the nodes: requests name them.
    #[arg(long, conflicts_with = "full")]
    cached: bool,
    /// Requests describe the nodes (the default): nothing else is needed, and more is sent.
    #[arg(long)]
    full: bool,
    /// How long the scheduler waits for an answer, seconds.
    #[arg(long, default_value_t = 2.0)]
    http_timeout: f64,
    /// Weight of the scores beside those of the scheduler's plugins, from 1.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    weight: i64,
    /// Pods wait while the extender cannot be reached; otherwise they are placed without it.
    #[arg(long)]
    required: bool,
    /// The extender binds pods too.
    #[arg(long)]
    bind: bool,
    /// The extender is asked about preemption too.
    #[arg(long)]
    preempt: bool,
    /// Kubeconfig of the scheduler.
    #[arg(long)]
    kubeconfig: Option<String>,
    /// Certificate authority of an https URL, a file on the scheduler's machine.
    #[arg(long)]
    ca_file: Option<String>,
    /// Certificate that the scheduler shows, with --key-file.
    #[arg(long, requires = "key_file")]
    cert_file: Option<String>,
    /// Its key.
    #[arg(long, requires = "cert_file")]
    key_file: Option<String>,
}

pub async fn run(command: Command, json: bool) -> anyhow::Result<()> {
    match command {
        Command::Scheduler(args) => schedule(args, json).await,
        Command::Extender(args) => extend(args, json).await,
        Command::Config(args) => config(&args, json),
    }
}

async fn schedule(args: SchedulerArgs, json: bool) -> anyhow::Result<()> {
    let core = Arc::new(start(&args.deciding).await?);
    let settings = settings(&args.deciding)?;
    let client = client().await?;
    let identity = identity();
    let lease = args.lease_namespace.as_ref();
    let lease = lease.map(|namespace| lease::Config::new(namespace, &args.lease_name, &identity));
    if let Some(listen) = args.listen {
        let config = extender::Config {
            cluster: args.deciding.cluster.clone(),
            settings: settings.clone(),
            ..extender::Config::default()
        };
        let (listener, address) = listening(listen, args.insecure).await?;
        let routes = extender::router(Extender::start(core.clone(), config, None));
        tracing::info!(%address, "the extender listens");
        tokio::spawn(async move { axum::serve(listener, routes).await });
    }
    let config = scheduler::Config {
        scheduler_name: args.name.clone(),
        cluster: args.deciding.cluster,
        config_map: args.config_map,
        settings,
        lease,
        bindings: usize::from(args.bindings),
        identity: identity.clone(),
    };
    if json {
        print(json!({ "scheduler_name": args.name, "policy": args.deciding.policy, "identity": identity }))?;
    } else {
        print(format!(
            "{} places pods with schedulerName {} (Ctrl-C stops)",
            args.deciding.policy, args.name
        ))?;
    }
    scheduler::run(client, core, config, stop_signal()?).await;
    Ok(())
}

async fn extend(args: ExtenderArgs, json: bool) -> anyhow::Result<()> {
    let core = Arc::new(start(&args.deciding).await?);
    let config = extender::Config {
        settings: settings(&args.deciding)?,
        cluster: args.deciding.cluster,
        budget: Duration::from_millis(args.budget_ms),
    };
    let client = if args.bind { Some(client().await?) } else { None };
    let (listener, address) = listening(args.listen, args.insecure).await?;
    if json {
        print(json!({ "listen": address.to_string(), "policy": args.deciding.policy }))?;
    } else {
        let try_next = format!("remora kubernetes config --full --url http://{address}");
        print(format!(
            "{} advises at http://{address} (Ctrl-C stops)\ntry: {try_next}",
            args.deciding.policy
        ))?;
    }
    let routes = extender::router(Extender::start(core, config, client));
    axum::serve(listener, routes).with_graceful_shutdown(stop_signal()?).await.context("the extender ended")
}

fn config(args: &ConfigArgs, json: bool) -> anyhow::Result<()> {
    let tls = Tls {
        ca_file: args.ca_file.clone(),
        cert_file: args.cert_file.clone(),
        key_file: args.key_file.clone(),
    };
    let extender = configuration::Extender {
        url: args.url.clone(),
        cached: args.cached,
        http_timeout_s: args.http_timeout,
        weight: args.weight,
        ignorable: !args.required,
        bind: args.bind,
        preempt: args.preempt,
        kubeconfig: args.kubeconfig.clone(),
        tls,
    };
    let document = configuration::document(&extender)
        .map_err(|problem| clap::Error::raw(ErrorKind::ValueValidation, format!("{problem}\n")))?;
    if json { print(document) } else { print(configuration::yaml(&document).trim_end()) }
}

async fn start(deciding: &Deciding) -> anyhow::Result<Door> {
    let policy = remora_policies::by_name(&deciding.policy, deciding.seed)?;
    Door::start(service::Config {
        alpha: deciding.alpha,
        seed: deciding.seed,
        ..service::Config::new(policy)
    })
    .await
}

fn settings(deciding: &Deciding) -> anyhow::Result<Settings> {
    let Some(path) = &deciding.settings else { return Ok(Settings::default()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Settings::parse(&text).map_err(|problem| anyhow::anyhow!("{}: {problem}", path.display()))
}

async fn client() -> anyhow::Result<Client> {
    Client::try_default().await.context(
        "cannot reach a Kubernetes cluster: run inside one, or set KUBECONFIG to a file that kubectl can use",
    )
}

async fn listening(listen: SocketAddr, insecure: bool) -> anyhow::Result<(TcpListener, SocketAddr)> {
    if !listen.ip().is_loopback() && !insecure {
        let problem = format!(
            "--listen {listen} can be reached by other machines, and there is no encryption yet: \
             listen on 127.0.0.1, or add --insecure in a network you trust\n"
        );
        return Err(clap::Error::raw(ErrorKind::ValueValidation, problem).into());
    }
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}; choose another address with --listen"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// The pod's name inside a cluster, and unlike any other process in any case.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "remora".to_owned());
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{host}_{:x}-{}", started.as_nanos(), std::process::id())
}

fn namespaced(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(format!("{text:?} is no NAMESPACE/NAME")),
    }
}
