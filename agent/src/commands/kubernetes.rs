//! `remora kubernetes`: beside a Kubernetes cluster, as its scheduler or its scheduler's adviser.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::error::ErrorKind;
use kube::Client;
use serde_json::json;
use tokio::net::TcpListener;

use super::print;
use super::serve::{bind, stop_signal};
use crate::http;
use crate::kubernetes::configuration::{self, Tls};
use crate::kubernetes::extender::{self, Extender};
use crate::kubernetes::facts::Settings;
use crate::kubernetes::scheduler::{self, lease};
use crate::service::{self, Door, TlsFiles, tls};

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
    settings: Option<PathBuf>,
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
    #[command(flatten)]
    guard: Guard,
}

/// Who may ask the extender.
#[derive(Debug, clap::Args)]
pub struct Guard {
    /// Certificate of the extender with those between it and an authority, PEM. It is read again when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Authority of those who may ask, PEM; metrics are for everybody.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Listen where other machines can reach it, without encryption or without asking who calls.
    #[arg(long)]
    insecure: bool,
}

impl Guard {
    /// Listens, unless everybody could come in.
    async fn listening(&self, listen: SocketAddr) -> anyhow::Result<Listening> {
        let guarded = self.tls_cert.is_some() && self.tls_client_ca.is_some();
        if !listen.ip().is_loopback() && !guarded && !self.insecure {
            let problem = format!(
                "--listen {listen} can be reached by other machines: say who may ask with --tls-cert, --tls-key and \
                 --tls-client-ca, listen on 127.0.0.1, or add --insecure in a network you trust\n"
            );
            return Err(clap::Error::raw(ErrorKind::ValueValidation, problem).into());
        }
        let files = self.tls_cert.clone().zip(self.tls_key.clone());
        let client_ca = self.tls_client_ca.clone();
        let tls =
            files.map(|(cert, key)| TlsFiles { cert, key, client_ca }.watch(tls::Door::Http)).transpose()?;
        let listener = bind("listen", listen).await?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr()?);
        Ok(Listening { listener, tls, certified: self.tls_client_ca.is_some(), url })
    }
}

/// Where an extender can be asked.
struct Listening {
    listener: TcpListener,
    tls: Option<tls::Current>,
    certified: bool,
    url: String,
}

impl Listening {
    async fn serve(
        self,
        extender: Extender,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let routes = if self.certified { extender::guarded(extender) } else { extender::router(extender) };
        http::serve(self.listener, self.tls, stop, routes).await
    }
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
    #[command(flatten)]
    guard: Guard,
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
    /// The extender chooses among the nodes that Kubernetes allows, which its scheduler then need not score; otherwise it
    /// scores them beside the scheduler's plugins.
    #[arg(long, conflicts_with = "weight")]
    choose: bool,
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
    let hearing = scheduler::hearing();
    let mut advises = None;
    if let Some(listen) = args.listen {
        let config = extender::Config {
            cluster: args.deciding.cluster.clone(),
            settings: settings.clone(),
            keeper: Some(hearing.0.clone()),
            ..extender::Config::default()
        };
        let listening = args.guard.listening(listen).await?;
        advises = Some(listening.url.clone());
        tokio::spawn(listening.serve(Extender::start(core.clone(), config, None), pending()));
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
        print(
            json!({ "scheduler_name": args.name, "policy": args.deciding.policy, "identity": identity, "listen": advises }),
        )?;
    } else {
        let advises =
            advises.map(|url| format!(", advises Kubernetes' own scheduler at {url}")).unwrap_or_default();
        print(format!(
            "{} places pods with schedulerName {}{advises} (Ctrl-C stops)",
            args.deciding.policy, args.name
        ))?;
    }
    scheduler::run(client, core, config, hearing, stop_signal()?).await;
    Ok(())
}

async fn extend(args: ExtenderArgs, json: bool) -> anyhow::Result<()> {
    let core = Arc::new(start(&args.deciding).await?);
    let config = extender::Config {
        settings: settings(&args.deciding)?,
        cluster: args.deciding.cluster,
        budget: Duration::from_millis(args.budget_ms),
        keeper: None,
    };
    let client = if args.bind { Some(client().await?) } else { None };
    let listening = args.guard.listening(args.listen).await?;
    let url = &listening.url;
    if json {
        let listen = listening.listener.local_addr()?.to_string();
        print(json!({ "listen": listen, "url": url, "policy": args.deciding.policy }))?;
    } else {
        let try_next = format!("remora kubernetes config --full --url {url}");
        print(format!("{} advises at {url} (Ctrl-C stops)\ntry: {try_next}", args.deciding.policy))?;
    }
    listening.serve(Extender::start(core, config, client), stop_signal()?).await
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
        choose: args.choose,
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
