//! Two applications at work in the quickstart's service: the example, which gets readings of a pump that wears out and
//! is repaired, and Remora's own policy, which learns from what the simulated cluster does.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use remora_proto::v1 as wire;
use remora_proto::v1::app_service_client::AppServiceClient;
use tokio::time::sleep;
use tokio_stream::StreamExt;
use tonic::transport::Channel;

use crate::appcore::manifest::{Keep, Manifest};
use crate::appcore::own;
use crate::client;

const NAME: &str = "sensor-anomaly";
/// Its commands are Remora's own program here: nothing else has to be built.
const COMMAND: [&str; 3] = ["sh", "-c", "exec \"$REMORA_PROGRAM\" sensor-anomaly run"];
/// Between data and requests, and between those and the next data.
const PAUSE: Duration = Duration::from_secs(30);
/// Seconds without a request after which it sleeps again.
const IDLE_S: f64 = 8.0;
/// Runs that are kept of it.
const KEPT: u32 = 300;
/// Rows of readings to learn from, and of a request with how many anomalies.
const ROWS: usize = 2000;
const ASKED: (usize, usize) = (200, 2);
/// How worn the pump is, time after time. What is learnt takes over where the pump changed, and does not where nothing
/// did; then it is repaired.
const WEAR: [f64; 6] = [0.0, 0.0, 0.2, 0.2, 0.5, 0.5];
/// Minutes that a run of Remora's own policy learns here.
const MINUTES: f64 = 2.0;

/// Registers both, and keeps the example busy until it is dropped.
pub async fn play(server: SocketAddr, seed: u64) -> Result<()> {
    let mut apps = AppServiceClient::new(client::connect(&server.to_string()).await?);
    let cluster = Some(super::SERVED.to_owned());
    for manifest in [example()?, own::manifest(cluster, Some(MINUTES), None)?] {
        begin(&mut apps, &manifest).await?;
    }
    for round in 0.. {
        let (seed, wear) = (seed.wrapping_add(round), WEAR[round as usize % WEAR.len()]);
        let content = sensor_anomaly::readings(seed, ROWS, wear, 0)?.into_bytes();
        let name = format!("pump-{round}.csv");
        let request = wire::NotifyRequest {
            app: NAME.to_owned(),
            key: name.clone(),
            files: vec![wire::DataFile { name, content }],
            ..wire::NotifyRequest::default()
        };
        apps.notify(request).await.map_err(client::refused)?;
        sleep(PAUSE).await;
        // Before the first version is promoted there is nobody to answer.
        let app = apps.get(wire::GetAppRequest { name: NAME.to_owned() }).await.map_err(client::refused)?;
        if app.into_inner().aliases.contains_key("champion") {
            ask(&mut apps, sensor_anomaly::readings(!seed, ASKED.0, wear, ASKED.1)?).await?;
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// The example's app.toml with Remora's program in place of its own.
pub fn example() -> Result<Manifest> {
    let mut manifest = Manifest::read(sensor_anomaly::MANIFEST).context("the example's app.toml")?;
    let command = || COMMAND.map(str::to_owned).to_vec();
    if let Some(execute) = &mut manifest.execute {
        execute.command = command();
        execute.awake.idle_s = IDLE_S;
    }
    for learning in [&mut manifest.learn, &mut manifest.evaluate].into_iter().flatten() {
        learning.command = command();
    }
    manifest.keep = Keep { runs: Some(KEPT), days: None };
    manifest.check()?;
    Ok(manifest)
}

/// Registers an application and takes it into use.
async fn begin(apps: &mut AppServiceClient<Channel>, manifest: &Manifest) -> Result<()> {
    let text = toml::to_string(manifest).context("a manifest becomes TOML")?;
    let first = wire::RegisterAppRequest {
        manifest: text,
        reason: "quickstart".to_owned(),
        ..wire::RegisterAppRequest::default()
    };
    apps.register(tokio_stream::iter([first])).await.map_err(client::refused)?;
    let enable = wire::CommandAppRequest {
        name: manifest.name.clone(),
        command: wire::AppCommand::Enable.into(),
        reason: "quickstart".to_owned(),
    };
    apps.command(enable).await.map_err(client::refused)?;
    Ok(())
}

/// Has readings judged. A request that fails is to be seen in the panel, and ends nothing here.
async fn ask(apps: &mut AppServiceClient<Channel>, readings: String) -> Result<()> {
    let request = wire::ExecuteRequest {
        app: NAME.to_owned(),
        input: readings.into_bytes(),
        ..wire::ExecuteRequest::default()
    };
    let mut steps = apps.execute(request).await.map_err(client::refused)?.into_inner();
    while let Some(step) = steps.next().await {
        if let Err(status) = step {
            tracing::debug!(%status, "a request of the demonstration");
        }
    }
    Ok(())
}
