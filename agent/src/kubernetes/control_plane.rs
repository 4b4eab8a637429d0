//! A real control plane on loopback, for measurements and tests: etcd and the API server, and Kubernetes' scheduler on
//! demand. Nodes are objects that nobody stands behind.

use std::env;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::configuration::yaml;

const TOKEN: &str = "loopback-only";
/// How often, a fifth of a second apart, the API server is asked whether it is there.
const PATIENCE: u32 = 600;
/// Requests per second that Kubernetes' scheduler may make: with its default of 50 it waits for itself.
const QPS: u32 = 5000;

/// The programs: named by a variable, or on the PATH.
#[derive(Clone, Debug)]
pub struct Binaries {
    pub etcd: PathBuf,
    pub apiserver: PathBuf,
    pub scheduler: PathBuf,
}

impl Binaries {
    /// # Errors
    /// Which is missing, and how it can be named.
    pub fn find() -> Result<Binaries> {
        Ok(Binaries {
            etcd: find("ETCD", "etcd")?,
            apiserver: find("KUBE_APISERVER", "kube-apiserver")?,
            scheduler: find("KUBE_SCHEDULER", "kube-scheduler")?,
        })
    }
}

fn find(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(named) = env::var_os(variable) {
        return Ok(named.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.exists());
    found.with_context(|| format!("{name} is not on the PATH; name it in {variable}"))
}

/// etcd and an API server that end when this is dropped.
pub struct ControlPlane {
    /// With all rights.
    pub client: Client,
    /// The same for other programs.
    pub kubeconfig: PathBuf,
    /// The API server's process.
    pub apiserver: Child,
    _etcd: Child,
    scheduler: PathBuf,
    folder: TempDir,
}

impl std::fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ControlPlane {{ folder: {:?} }}", self.folder.path())
    }
}

impl ControlPlane {
    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// What cannot be started, or the end of the API server's log.
    pub async fn start(binaries: &Binaries) -> Result<ControlPlane> {
        let folder = tempfile::tempdir()?;
        let (store, peer, port) = (free_port()?, free_port()?, free_port()?);
        let etcd = [
            format!("--data-dir={}", folder.path().join("etcd").display()),
            format!("--listen-client-urls=http://127.0.0.1:{store}"),
            format!("--advertise-client-urls=http://127.0.0.1:{store}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            "--unsafe-no-fsync".to_owned(),
        ];
        let etcd = spawn(&binaries.etcd, folder.path(), &etcd)?;
        std::fs::write(folder.path().join("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n"))?;
        account_key(folder.path()).await?;
        let apiserver = [
            format!("--etcd-servers=http://127.0.0.1:{store}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            "--cert-dir=certificates".to_owned(),
            "--token-auth-file=tokens.csv".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://127.0.0.1".to_owned(),
            "--service-account-key-file=accounts.key".to_owned(),
            "--service-account-signing-key-file=accounts.key".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            // Nobody here makes service accounts, or takes the taint of new nodes away.
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition".to_owned(),
        ];
        let apiserver = spawn(&binaries.apiserver, folder.path(), &apiserver)?;
        let kubeconfig = folder.path().join("kubeconfig");
        let authority = folder.path().join("certificates/apiserver.crt");
        std::fs::write(&kubeconfig, access(port, &authority).to_string())?;
        written(&authority).await.with_context(|| end_of_log(folder.path()))?;
        let config = Kubeconfig::read_from(&kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let scheduler = binaries.scheduler.clone();
        let plane = ControlPlane { client, kubeconfig, apiserver, _etcd: etcd, scheduler, folder };
        plane.answers().await?;
        Ok(plane)
    }

    async fn answers(&self) -> Result<()> {
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), "default");
        for _ in 0..PATIENCE {
            if accounts.list(&ListParams::default()).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("the API server does not answer: {}", end_of_log(self.folder.path()))
    }

    /// Enters a node with its status, which the API server does not take at once.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn enter(&self, node: &Node) -> Result<()> {
        let nodes = Api::<Node>::all(self.client.clone());
        let name = node.metadata.name.as_deref().context("a node has a name")?;
        nodes.create(&PostParams::default(), node).await?;
        let status = json!({ "status": node.status });
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    }

    /// Kubernetes' own scheduler with this configuration, until the process is dropped.
    ///
    /// # Errors
    /// That it cannot be started.
    pub fn scheduler(&self, mut configuration: Value) -> Result<Child> {
        configuration["clientConnection"] =
            json!({ "kubeconfig": self.kubeconfig, "qps": QPS, "burst": QPS });
        let file = self.folder.path().join("scheduler.yaml");
        std::fs::write(&file, yaml(&configuration))?;
        let arguments = [
            format!("--config={}", file.display()),
            format!("--secure-port={}", free_port()?),
            "--leader-elect=false".to_owned(),
            "--cert-dir=scheduler".to_owned(),
        ];
        spawn(&self.scheduler, self.folder.path(), &arguments)
    }
}

/// What service accounts would be signed with.
async fn account_key(folder: &Path) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.args(["genrsa", "-out", "accounts.key", "2048"]).current_dir(folder).stderr(Stdio::null());
    let made = openssl.status().await.context("openssl makes the key of service accounts")?;
    ensure!(made.success(), "openssl did not make the key of service accounts");
    Ok(())
}

/// The API server makes its certificate when it starts.
async fn written(file: &Path) -> Result<()> {
    for _ in 0..PATIENCE {
        if std::fs::read_to_string(file).is_ok_and(|text| text.ends_with("-----END CERTIFICATE-----\n")) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bail!("the API server has no certificate")
}

fn end_of_log(folder: &Path) -> String {
    let log = std::fs::read_to_string(folder.join("kube-apiserver.log")).unwrap_or_default();
    let mut end: Vec<_> = log.lines().rev().take(20).collect();
    end.reverse();
    end.join("\n")
}

fn access(port: u16, authority: &Path) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": authority,
        } }],
        "users": [{ "name": "c", "user": { "token": TOKEN } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "c" } }],
    })
}

fn spawn(binary: &Path, folder: &Path, arguments: &[String]) -> Result<Child> {
    let name = binary.file_name().with_context(|| format!("{} is no program", binary.display()))?;
    let log = std::fs::File::create(folder.join(name).with_extension("log"))?;
    let mut command = Command::new(binary);
    command.args(arguments).current_dir(folder).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start {}", binary.display()))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
