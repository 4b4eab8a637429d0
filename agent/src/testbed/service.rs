//! The service that decides: the real `remora serve`, which can be killed and started again.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use super::network::{self, Network};
use super::tether::TETHERED;

/// How long it may take to be ready.
const STARTING: Duration = Duration::from_secs(60);

/// What it is started with.
#[derive(Clone, Debug)]
pub struct Asked {
    pub scenario: PathBuf,
    pub policy: String,
    pub alpha: f64,
    pub seed: u64,
    /// Its data, and its log.
    pub folder: PathBuf,
}

#[derive(Debug)]
pub struct Service {
    asked: Asked,
    insecure: bool,
    pub address: SocketAddr,
    child: Option<Child>,
}

#[derive(Deserialize)]
struct Told {
    listen: SocketAddr,
}

impl Service {
    pub async fn start(asked: Asked, network: &Network) -> Result<Service> {
        let (address, insecure) = network.of_service();
        let mut service = Service { asked, insecure, address, child: None };
        service.begin().await?;
        Ok(service)
    }

    /// Starts it, again at the address that it had.
    pub async fn begin(&mut self) -> Result<()> {
        let Asked { scenario, policy, alpha, seed, folder } = &self.asked;
        let data = folder.join("service");
        std::fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
        let log = File::options().create(true).append(true).open(folder.join("service.log"))?;
        let mut command = network::beside();
        command.args(["serve", "--json", "--apps=false"]);
        command.arg(format!("--listen={}", self.address)).arg(format!("--policy={policy}"));
        command.arg(format!("--alpha={alpha}")).arg(format!("--seed={seed}"));
        command.arg("--data").arg(&data).arg("--scenario").arg(scenario);
        if self.insecure {
            command.arg("--insecure");
        }
        let mut child = command
            .env(TETHERED, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("the service cannot be started")?;
        let said = child.stdout.take().context("the service has no output")?;
        let line = timeout(STARTING, BufReader::new(said).lines().next_line()).await;
        let line = line.ok().transpose()?.flatten();
        let Some(told) = line.and_then(|line| serde_json::from_str::<Told>(&line).ok()) else {
            bail!("the service did not start:\n{}", end_of(&folder.join("service.log")));
        };
        self.address = told.listen;
        self.child = Some(child);
        Ok(())
    }

    /// As a crash would end it.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }
}

/// The last lines of a log.
pub fn end_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
