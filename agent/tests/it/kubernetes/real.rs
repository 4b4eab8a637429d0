//! The real control plane, where its binaries are: `KUBE_APISERVER`, `ETCD` and `KUBE_SCHEDULER` name
//! them, or they are on the PATH.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, PostParams};
use remora_agent::kubernetes::configuration::{self, Tls};
use remora_agent::kubernetes::control_plane::{Binaries, ControlPlane};
use remora_agent::kubernetes::core::Core;
use remora_agent::kubernetes::extender::{self, Extender};
use remora_agent::kubernetes::scheduler::{self, Config, lease};
use remora_agent::service::{self, Door};
use remora_policies::by_name;
use serde_json::json;

use super::{node, pod};

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
    let binaries = match Binaries::find() {
        Ok(binaries) => binaries,
        Err(missing) => return eprintln!("skipped: {missing}"),
    };
    let plane = ControlPlane::start(&binaries).await.unwrap();
    let (client, pods) = (plane.client.clone(), Api::<Pod>::namespaced(plane.client.clone(), "default"));
    for n in 0..4 {
        let object = node(&format!("node-{n}"), "4", "8Gi", &format!("zone-{}", n % 2));
        plane.enter(&serde_json::from_value(object).unwrap()).await.unwrap();
    }
    let policy = by_name("greedy-completion", 0).unwrap();
    let core: Arc<dyn Core> = Arc::new(Door::start(service::Config::new(policy)).await.unwrap());
    let lease = Some(lease::Config::new("default", "remora-scheduler", "test"));
    let config = Config { lease, ..Config::default() };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let hearing = scheduler::hearing();
    let keeper = Some(hearing.0.clone());
    let running =
        scheduler::run(client.clone(), core.clone(), config, hearing, async move { drop(stopped.await) });
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
        extender::Config { budget: Duration::from_secs(2), keeper, ..extender::Config::default() },
        None,
    );
    let routes = extender::router(advice.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let ways = [(true, false), (false, false), (true, true), (false, true)];
    for (round, (cached, choose)) in ways.into_iter().enumerate() {
        let document = configuration::document(&configuration::Extender {
            url: url.clone(),
            cached,
            choose,
            http_timeout_s: 5.0,
            weight: 5,
            ignorable: false,
            bind: false,
            preempt: true,
            kubeconfig: None,
            tls: Tls::default(),
        });
        let _scheduler = plane.scheduler(document.unwrap()).unwrap();
        for n in 0..3 {
            let mut theirs = pod(&format!("theirs-{round}-{n}"), "100m", "64Mi");
            theirs["spec"]["schedulerName"] = json!("default-scheduler");
            create(theirs).await;
        }
        until_placed(&pods, 20 + 3 * (round + 1)).await;
    }
    let counters = format!("{:?}", advice.counters());
    assert!(counters.contains("choices: 6, priorities: 6"), "{counters}");
    assert!(counters.contains("late: 0, failed: 0"), "{counters}");
    stop.send(()).unwrap();
    running.await.unwrap();
}
