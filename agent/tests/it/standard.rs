//! The services that every gRPC tool expects.

use remora_agent::service::Config;
use remora_policies::by_name;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::server::{Server, small_cluster};

#[tokio::test]
async fn health_says_serving() {
    let server = Server::with_small_cluster().await;
    let mut health = HealthClient::new(server.channel().await);
    for service in ["", "remora.v1.ClusterService", "remora.v1.PlacementService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn reflection_lists_and_describes() {
    let server = Server::with_small_cluster().await;
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let ask = |question| ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let questions = tokio_stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("remora.v1.PlacementService".to_owned())),
    ]);
    let mut answers = reflection.server_reflection_info(questions).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("want a list of services");
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["remora.v1.ClusterService", "remora.v1.PlacementService", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let described = answers.message().await.unwrap().unwrap().message_response;
    assert!(matches!(described, Some(MessageResponse::FileDescriptorResponse(_))), "{described:?}");
    drop(answers);
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_cluster_in_the_configuration_is_an_error() {
    let mut cluster = small_cluster();
    cluster.cluster.as_mut().unwrap().nodes.clear();
    let config = Config { clusters: vec![cluster], ..Config::new(by_name("skippy", 0).unwrap()) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = remora_agent::service::run(listener, std::future::pending(), config).await.unwrap_err();
    assert_eq!(error.to_string(), "cluster.nodes: has 0, want at least 1");
}
