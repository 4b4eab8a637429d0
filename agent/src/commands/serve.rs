//! `remora serve`: the service.

mod settings;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use remora_env::Scenario;
use remora_policies::{Checkpoint, Learned, Policy};
use remora_proto::v1 as wire;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{cluster, print};
use crate::logs::Format;
use crate::panel::FirstLink;
use crate::service::{self, Clock, Config, ITSELF, TlsFiles, is_heuristic};
use crate::storage::{Storage, Who};
use settings::Settings;

const EXAMPLE: &str = include_str!("../../deploy/remora.toml");

/// Serve placements over gRPC until Ctrl-C or SIGTERM.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  remora serve --policy greedy-completion --scenario urban-sensing
  remora serve --listen 0.0.0.0:50051 --data /var/lib/remora --auth --tls-cert tls.crt --tls-key tls.key
  remora serve --config remora.toml")]
pub struct Args {
    /// Read settings from a file; every flag has a key of the same name there, and flags win.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print such a file, with every key explained, and end.
    #[arg(long)]
    config_example: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Args {
    /// How log lines should look. What is wrong with the file is told when it is read for the rest.
    pub fn log_format(&self) -> Format {
        let of_file = || Settings::read(self.config.as_ref()?).ok()?.log_format;
        self.settings.log_format.or_else(of_file).unwrap_or_default()
    }
}

pub async fn run(args: Args, json: bool) -> anyhow::Result<()> {
    if args.config_example {
        return print(EXAMPLE.trim_end());
    }
    let file = args.config.map(|path| Settings::read(&path)).transpose()?.unwrap_or_default();
    let settings = args.settings.or(file);
    settings.check()?;
    let (tls, rules, seed) = (settings.tls()?, settings.rules(), settings.seed.unwrap_or(0));
    let (kept, apps) = (settings.storage()?, settings.apps().await?);
    rules.check(kept.is_some())?;
    tls.as_ref().map_or(Ok(()), TlsFiles::check)?;
    let named = settings.policy.as_deref().unwrap_or("pretrained");
    let (policy, given) = policy_of(named, seed)?;
    let clusters: Vec<_> = match &settings.scenario {
        Some(name) => vec![cluster::of_scenario(&Scenario::load(name)?, None, seed)],
        None => Vec::new(),
    };
    let storage = match kept {
        Some(options) => Some(Arc::new(Storage::open(options).await?)),
        None => None,
    };
    // A heuristic is called by its id, and so is the shipped policy.
    let called = given.as_ref().map(|_| super::called(Path::new(named)));
    if let (Some(storage), Some(checkpoint), Some(called)) = (&storage, &given, &called) {
        keep(storage, called, checkpoint, "given with --policy").await?;
    }
    let usual = Config { called, ..Config::new(policy) };
    let alpha = settings.alpha.unwrap_or(usual.alpha);
    let listener = bind("listen", settings.listen()).await?;
    let http = match settings.http {
        Some(address) => Some(bind("http", address).await?),
        None => None,
    };
    let bound = Bound::new(&listener, http.as_ref(), tls.is_some())?;
    let stop = stop_signal()?;
    let mut first_link = None;
    if let Some(storage) = &storage
        && let Some(first) = service::first_token(&rules, storage, usual.clock.now_ms()).await?
    {
        eprintln!("token of the first administrator, shown this once: {}", first.secret);
        if let Some(http) = bound.http {
            let link = FirstLink::new(first.secret);
            let prefix = settings.http_prefix.as_deref().unwrap_or_default();
            eprintln!(
                "to sign in with it, open once: {}://{http}{prefix}/sign-in?code={}",
                bound.scheme, link.code
            );
            first_link = Some(link);
        }
    }
    if json {
        print(json!({
            "listen": bound.grpc.to_string(),
            "http": bound.http.map(|address| address.to_string()),
            "policy": usual.policy.name(),
            "alpha": alpha,
        }))?;
    } else {
        print(bound.welcome(usual.called(), clusters.first()))?;
    }
    let config = Config {
        alpha,
        seed,
        clusters,
        storage: storage.clone(),
        keep: settings.keep(),
        apps,
        rules,
        limits: settings.limits(),
        tls,
        http,
        http_prefix: settings.http_prefix.clone().unwrap_or_default(),
        first_link,
        runs: settings.runs.clone(),
        tensorboard: settings.tensorboard.clone().unwrap_or_default(),
        ..usual
    };
    let served = service::run(listener, stop, config).await;
    close(storage).await;
    served
}

/// The policy of a name, and its checkpoint where the name is the path of one.
fn policy_of(name: &str, seed: u64) -> anyhow::Result<(Box<dyn Policy>, Option<Checkpoint>)> {
    let means_another = is_heuristic(name) || name == "pretrained";
    let read = (!means_another).then(|| Checkpoint::load(Path::new(name)).ok()).flatten();
    Ok(match read {
        Some(checkpoint) => (Box::new(Learned::new(&checkpoint.id(), &checkpoint)?), Some(checkpoint)),
        // Says, too, what is wrong with a file that is none.
        None => (remora_policies::by_name(name, seed)?, None),
    })
}

/// A checkpoint that is served is kept, as one that is uploaded: it may have to be compared with, or brought back. Returns
/// as whom that was noted.
pub(crate) async fn keep(
    storage: &Storage,
    name: &str,
    checkpoint: &Checkpoint,
    note: &str,
) -> anyhow::Result<Who> {
    let who = Who { at_ms: Clock::real().now_ms(), actor: ITSELF.to_owned(), role: None };
    storage.upload_policy(name, checkpoint.to_bytes(), note, &who).await?;
    Ok(who)
}

pub(crate) async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on {address}; choose another address with --{flag}"))
}

/// How long the end waits for what is to be written.
const WRITING: Duration = Duration::from_secs(30);

/// Writes what waits. Requests that were cut off may still hold the storage: then the end of the program has to do.
async fn close(storage: Option<Arc<Storage>>) {
    let Some(storage) = storage else { return };
    match tokio::time::timeout(WRITING, storage.recorder().flush()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!(%error, "the journal may lack its last entries"),
        Err(_) => {
            tracing::error!(
                "the journal lacks its last entries: it was not written within {} s",
                WRITING.as_secs()
            );
            return;
        }
    }
    if let Some(storage) = Arc::into_inner(storage) {
        storage.close().await;
    }
}

/// Where it listens.
struct Bound {
    grpc: SocketAddr,
    http: Option<SocketAddr>,
    scheme: &'static str,
}

impl Bound {
    fn new(grpc: &TcpListener, http: Option<&TcpListener>, encrypted: bool) -> std::io::Result<Bound> {
        let http = http.map(TcpListener::local_addr).transpose()?;
        Ok(Bound { grpc: grpc.local_addr()?, http, scheme: if encrypted { "https" } else { "http" } })
    }

    /// Where it listens, and what to try next.
    fn welcome(&self, policy: &str, cluster: Option<&wire::RegisterClusterRequest>) -> String {
        let Bound { grpc, http, scheme } = self;
        let server = format!("{scheme}://{grpc}");
        let next = match cluster.and_then(|request| request.cluster.as_ref()) {
            Some(cluster) => {
                let kind = cluster.task_kinds.first().map_or("KIND", |kind| &kind.name);
                format!("remora place --cluster {} --task {kind} --dry-run --server {server}", cluster.id)
            }
            None => format!("remora cluster register urban-sensing --server {server}"),
        };
        let metrics = http.map_or_else(String::new, |http| {
            format!("\nControl Panel: {scheme}://{http}/\nmetrics: {scheme}://{http}/metrics")
        });
        format!("{policy} places tasks at {server} (gRPC; Ctrl-C stops){metrics}\ntry: {next}")
    }
}

/// Resolves at Ctrl-C or SIGTERM.
pub(crate) fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping: requests under way are answered first");
    })
}
