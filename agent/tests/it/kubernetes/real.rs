//! The real control plane, where its binaries are: `KUBE_APISERVER`, `ETCD` and `KUBE_SCHEDULER` name
//! them, or they are on the PATH.

use std::net::TcpListener as StdListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use remora_agent::kubernetes::configuration::{self, Tls};
use remora_agent::kubernetes::core::Core;
use remora_agent::kubernetes::extender::{self, Extender};
use remora_agent::kubernetes::scheduler::{self, Config, lease};
use remora_agent::service::{self, Door};
use remora_policies::by_name;
use serde_json::json;

use super::{node, pod};

fn binary(variable: &str, name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    named.or_else(|| std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.exists()))
}

/// Ends with the test, whatever comes.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).map(drop).unwrap_or(());
    }
}

fn spawn(binary: &Path, folder: &Path, arguments: &[String]) -> Process {
    let log = std::fs::File::create(folder.join(binary.file_name().unwrap()).with_extension("log")).unwrap();
    let mut command = Command::new(binary);
    command.args(arguments).current_dir(folder).stdout(Stdio::null()).stderr(log);
    Process(command.spawn().unwrap())
}

fn free_port() -> u16 {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

const TOKEN: &str = "loopback-only";

async fn control_plane(folder: &Path, etcd: &Path, apiserver: &Path) -> (Vec<Process>, Client, u16) {
    let (store, peer, port) = (free_port(), free_port(), free_port());
    let etcd = spawn(
        etcd,
        folder,
        &[
            format!("--data-dir={}", folder.join("etcd").display()),
            format!("--listen-client-urls=http://127.0.0.1:{store}"),
            format!("--advertise-client-urls=http://127.0.0.1:{store}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            "--unsafe-no-fsync".to_owned(),
        ],
    );
    std::fs::write(folder.join("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n")).unwrap();
    let key = Command::new("openssl")
        .args(["genrsa", "-out", "accounts.key", "2048"])
        .current_dir(folder)
        .stderr(Stdio::null())
        .status();
    assert!(key.unwrap().success(), "openssl makes the key of service accounts");
    let apiserver = spawn(
        apiserver,
        folder,
        &[
            format!("--etcd-servers=http://127.0.0.1:{store}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", folder.join("certificates").display()),
            "--token-auth-file=tokens.csv".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://127.0.0.1".to_owned(),
            "--service-account-key-file=accounts.key".to_owned(),
            "--service-account-signing-key-file=accounts.key".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ],
    );
    let mut config = kube::Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
    config.accept_invalid_certs = true;
    config.auth_info.token = Some(TOKEN.to_owned().into());
    let client = Client::try_from(config).unwrap();
    for _ in 0..600 {
        if Api::<ServiceAccount>::namespaced(client.clone(), "default")
            .list(&ListParams::default())
            .await
            .is_ok()
        {
            return (vec![etcd, apiserver], client, port);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let log = std::fs::read_to_string(folder.join("kube-apiserver.log")).unwrap_or_default();
    panic!("the API server does not answer: {}", log.lines().rev().take(20).collect::<Vec<_>>().join("\n"));
}

async fn until_placed(pods: &Api<Pod>, count: usize) -> Vec<String> {
    for _ in 0..600 {
        let list = pods.list(&ListParams::default()).await.unwrap();
        let placed: Vec<_> = list.into_iter().filter_map(|pod| pod.spec?.node_name).collect();
        if placed.len() == count {
            return placed;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{count} pods were not placed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_control_plane_takes_our_placements_and_our_advice() {
    let binaries =
        [("KUBE_APISERVER", "kube-apiserver"), ("ETCD", "etcd"), ("KUBE_SCHEDULER", "kube-scheduler")];
    let found: Vec<_> = binaries.iter().filter_map(|(variable, name)| binary(variable, name)).collect();
    let [apiserver, etcd, kube_scheduler] = found.as_slice() else {
        return eprintln!(
            "skipped: kube-apiserver, etcd and kube-scheduler are not all there; name them in KUBE_APISERVER, ETCD and KUBE_SCHEDULER"
        );
    };
    let folder = tempfile::tempdir().unwrap();
    let (_processes, client, port) = control_plane(folder.path(), etcd, apiserver).await;
    let (nodes, pods) = (Api::<Node>::all(client.clone()), Api::<Pod>::namespaced(client.clone(), "default"));
    for n in 0..4 {
        let object: Node =
            serde_json::from_value(node(&format!("node-{n}"), "4", "8Gi", &format!("zone-{}", n % 2)))
                .unwrap();
        let status = json!({ "status": object.status });
        nodes.create(&PostParams::default(), &object).await.unwrap();
        nodes
            .patch_status(&format!("node-{n}"), &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
        // Nobody here removes the taint that new nodes get.
        let clean = json!({ "spec": { "taints": null } });
        nodes.patch(&format!("node-{n}"), &PatchParams::default(), &Patch::Merge(&clean)).await.unwrap();
    }
    let policy = by_name("greedy-completion", 0).unwrap();
    let core: Arc<dyn Core> = Arc::new(Door::start(service::Config::new(policy)).await.unwrap());
    let lease = Some(lease::Config::new("default", "remora-scheduler", "test"));
    let config = Config { lease, ..Config::default() };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = scheduler::run(client.clone(), core.clone(), config, async move { drop(stopped.await) });
    let running = tokio::spawn(running);
    let create = async |object: serde_json::Value| {
        let object: Pod = serde_json::from_value(object).unwrap();
        pods.create(&PostParams::default(), &object).await.unwrap();
    };
    for n in 0..20 {
        create(pod(&format!("ours-{n}"), "500m", "64Mi")).await;
    }
    let placed = until_placed(&pods, 20).await;
    for node in &placed {
        assert!(placed.iter().filter(|other| *other == node).count() <= 8, "{placed:?}");
    }

    // Kubernetes' own scheduler, with our advice in both kinds.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let advice = Extender::start(
        core,
        extender::Config { budget: Duration::from_secs(2), ..extender::Config::default() },
        None,
    );
    let routes = extender::router(advice.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let kubeconfig = folder.path().join("kubeconfig");
    let access = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": format!("https://127.0.0.1:{port}"), "insecure-skip-tls-verify": true } }],
        "users": [{ "name": "c", "user": { "token": TOKEN } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "c" } }],
    });
    std::fs::write(&kubeconfig, access.to_string()).unwrap();
    for (round, cached) in [true, false].into_iter().enumerate() {
        let document = configuration::document(&configuration::Extender {
            url: url.clone(),
            cached,
            http_timeout_s: 5.0,
            weight: 5,
            ignorable: false,
            bind: false,
            preempt: true,
            kubeconfig: Some(kubeconfig.display().to_string()),
            tls: Tls::default(),
        });
        let file = folder.path().join("scheduler.yaml");
        std::fs::write(&file, configuration::yaml(&document.unwrap())).unwrap();
        let arguments = [
            format!("--config={}", file.display()),
            format!("--secure-port={}", free_port()),
            "--leader-elect=false".to_owned(),
            format!("--cert-dir={}", folder.path().join("scheduler").display()),
        ];
        let _scheduler = spawn(kube_scheduler, folder.path(), &arguments);
        for n in 0..3 {
            let mut theirs = pod(&format!("theirs-{round}-{n}"), "100m", "64Mi");
            theirs["spec"]["schedulerName"] = json!("default-scheduler");
            create(theirs).await;
        }
        until_placed(&pods, 20 + 3 * (round + 1)).await;
    }
    let counters = format!("{:?}", advice.counters());
    assert!(counters.contains("failed: 0") && !counters.contains("priorities: 0"), "{counters}");
    stop.send(()).unwrap();
    running.await.unwrap();
}
