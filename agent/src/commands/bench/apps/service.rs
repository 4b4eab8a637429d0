//! Notices to a real service at a steady rate, whether it keeps up or not.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use remora_proto::v1 as wire;
use remora_proto::v1::app_service_client::AppServiceClient;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::super::serve::Process;
use super::{manifest, name};
use crate::client::connect;

/// How it went.
#[derive(Clone, Debug, Serialize)]
pub struct Offered {
    pub apps: u32,
    pub triggers: u32,
    pub offered_per_s: f64,
    pub accepted_per_s: f64,
    /// Notices that were to be sent again later.
    pub refused: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub cpu_us_per_notice: f64,
    /// Of this machine over a minute, at the end.
    pub load: f64,
}

/// Connections that share the load.
const CONNECTIONS: usize = 8;
/// Registrations under way at a time.
const AT_ONCE: usize = 64;
/// Share of the time before its measurement begins.
const WARM_UP: f64 = 0.2;

pub async fn measure(apps: u32, triggers: u32, rate: u32, seconds: f64) -> Result<Offered> {
    let folder = tempfile::tempdir().context("cannot make a folder for the service's data")?;
    let data = folder.path().to_str().context("the folder for temporary files has a strange name")?;
    let policy = ["--policy", "greedy-completion"];
    let server = ["serve", "--listen", "127.0.0.1:0", "--json", "--data", data];
    let server = Process::start(&[&server[..], &policy].concat()).await?;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(AppServiceClient::new(connect(&server.address).await?));
    }
    register(&clients, apps, triggers).await?;
    offer(&clients, "warm", apps, rate, seconds * WARM_UP).await?;
    let (cpu_s, began) = (server.cpu_s()?, Instant::now());
    let (mut latencies_s, refused) = offer(&clients, "notice", apps, rate, seconds).await?;
    let (elapsed_s, cpu_s) = (began.elapsed().as_secs_f64(), server.cpu_s()? - cpu_s);
    latencies_s.sort_unstable_by(f64::total_cmp);
    let count = latencies_s.len();
    let quantile_ms = |share: f64| {
        let index = ((count as f64 * share) as usize).min(count.saturating_sub(1));
        latencies_s.get(index).map_or(f64::NAN, |s| s * 1e3)
    };
    Ok(Offered {
        apps,
        triggers,
        offered_per_s: f64::from(rate),
        accepted_per_s: count as f64 / elapsed_s,
        refused,
        p50_ms: quantile_ms(0.5),
        p99_ms: quantile_ms(0.99),
        p999_ms: quantile_ms(0.999),
        cpu_us_per_notice: cpu_s * 1e6 / count as f64,
        load: load()?,
    })
}

fn load() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").context("the load is read from /proc")?;
    text.split_whitespace().next().and_then(|first| first.parse().ok()).context("/proc/loadavg is strange")
}

async fn register(clients: &[AppServiceClient<Channel>], apps: u32, triggers: u32) -> Result<()> {
    let mut registering = JoinSet::new();
    for number in 0..apps {
        while registering.len() >= AT_ONCE
            && let Some(done) = registering.join_next().await
        {
            done??;
        }
        let mut client = clients[number as usize % clients.len()].clone();
        registering.spawn(async move {
            let manifest = manifest(&name(number), triggers);
            let first = wire::RegisterAppRequest { manifest, ..wire::RegisterAppRequest::default() };
            client.register(tokio_stream::iter([first])).await.map_err(told)?;
            let enable = wire::CommandAppRequest {
                name: name(number),
                command: wire::AppCommand::Enable.into(),
                reason: String::new(),
            };
            client.command(enable).await.map_err(told).map(drop)
        });
    }
    while let Some(done) = registering.join_next().await {
        done??;
    }
    Ok(())
}

/// Sends at the rate for a while; seconds from when each was due until it was acknowledged, and how many were refused.
async fn offer(
    clients: &[AppServiceClient<Channel>],
    run: &str,
    apps: u32,
    rate: u32,
    seconds: f64,
) -> Result<(Vec<f64>, u64)> {
    let (began, mut sent) = (Instant::now(), JoinSet::new());
    for number in 0..(f64::from(rate) * seconds) as u32 {
        let due = began + Duration::from_secs_f64(f64::from(number) / f64::from(rate));
        sleep_until(due).await;
        let mut client = clients[number as usize % clients.len()].clone();
        let request = wire::NotifyRequest {
            app: name(number % apps),
            key: format!("{run} {number}"),
            ..wire::NotifyRequest::default()
        };
        sent.spawn(async move {
            match client.notify(request).await {
                Ok(_) => Ok(Some(due.elapsed().as_secs_f64())),
                Err(status) if status.code() == Code::ResourceExhausted => Ok(None),
                Err(status) => Err(told(status)),
            }
        });
    }
    let (mut latencies_s, mut refused) = (Vec::new(), 0);
    while let Some(done) = sent.join_next().await {
        match done?? {
            Some(latency_s) => latencies_s.push(latency_s),
            None => refused += 1,
        }
    }
    Ok((latencies_s, refused))
}

fn told(status: Status) -> anyhow::Error {
    anyhow!("{}", status.message())
}
