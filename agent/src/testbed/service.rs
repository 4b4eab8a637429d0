//! The service that decides: the real `remora serve`, which can be killed and started again.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;
use tokio::process::Child;

use super::network::{self, Network};
use super::process::started;
use super::tether::TETHERED;

/// What it is started with.
#[derive(Clone, Debug)]
pub struct Asked {
    pub scenario: PathBuf,
    pub policy: String,
    pub alpha: f64,
    pub seed: u64,
    /// Its data, and its log.
    pub folder: PathBuf,
    /// Whether it controls applications.
    pub apps: bool,
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
        let Asked { scenario, policy, alpha, seed, folder, apps } = &self.asked;
        let data = folder.join("service");
        std::fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
        let mut command = network::beside();
        command.args(["serve", "--json"]).arg(format!("--apps={apps}")).env(TETHERED, "1");
        command.arg(format!("--listen={}", self.address)).arg(format!("--policy={policy}"));
        command.arg(format!("--alpha={alpha}")).arg(format!("--seed={seed}"));
        command.arg("--data").arg(&data).arg("--scenario").arg(scenario);
        if self.insecure {
            command.arg("--insecure");
        }
        let log = folder.join("service.log");
        let (child, told) = started::<Told>("the service", &mut command, &log).await?;
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
