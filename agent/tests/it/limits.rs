//! More than is granted is refused, says when to come back, and is granted then.

use std::num::NonZeroU32;
use std::time::Duration;

use remora_agent::service::{Config, Limits};
use remora_policies::by_name;
use remora_proto::v1 as wire;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::access::{Guarded, bearer, with};
use crate::server::{Server, dry_run, small_cluster, small_task};
use remora_agent::storage::Role;

fn retry_after(status: &Status) -> Duration {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let told = status.metadata().get("retry-after-ms").unwrap().to_str().unwrap();
    Duration::from_millis(told.parse().unwrap())
}

#[tokio::test]
async fn streams_hold_their_place_until_they_end() {
    let limits = Limits { caller_in_flight: 2, ..Limits::default() };
    let policy = by_name("greedy-completion", 0).unwrap();
    let server =
        Server::start(Config { clusters: vec![small_cluster()], limits, ..Config::new(policy) }).await;
    let watch = wire::WatchClusterRequest { cluster_id: "small".to_owned(), after: None };
    let mut clusters = server.clusters().await;
    let first = clusters.watch(watch.clone()).await.unwrap();
    let second = clusters.watch(watch).await.unwrap();
    let status = server.placements().await.place(dry_run(small_task())).await.unwrap_err();
    assert!(retry_after(&status) > Duration::ZERO);
    assert_eq!(status.message(), "one caller may have 2 requests under way; ask again in 50 ms");
    // Whether it lives can be asked however much is under way.
    let mut health = HealthClient::new(server.channel().await);
    health.check(HealthCheckRequest::default()).await.unwrap();
    drop(first);
    let mut asked = 0;
    while let Err(status) = server.placements().await.place(dry_run(small_task())).await {
        tokio::time::sleep(retry_after(&status)).await;
        asked += 1;
        assert!(asked < 100, "the place does not come back");
    }
    drop(second);
    server.stop().await;
}

#[tokio::test]
async fn a_rate_is_each_callers_own() {
    let caller_per_second = NonZeroU32::new(5).unwrap();
    let guarded =
        Guarded::with(|config| config.limits = Limits { caller_per_second, ..Limits::default() }).await;
    let (viewer, admin) = (guarded.token(Role::Viewer).await, guarded.token(Role::Admin).await);
    let mut clusters = guarded.server.clusters().await;
    let mut refused = None;
    for _ in 0..100 {
        let answer = clusters.list(with(wire::ListClustersRequest {}, &bearer(&viewer))).await;
        if let Err(status) = answer {
            refused = Some(status);
            break;
        }
    }
    let after = retry_after(&refused.unwrap());
    assert!(after <= Duration::from_millis(201), "{after:?}");
    clusters.list(with(wire::ListClustersRequest {}, &bearer(&admin))).await.unwrap();
    tokio::time::sleep(after).await;
    clusters.list(with(wire::ListClustersRequest {}, &bearer(&viewer))).await.unwrap();
    guarded.stop().await;
}
