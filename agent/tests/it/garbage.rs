//! Bytes that are no request, in frames and without.

use std::time::Duration;

use proptest::prelude::{Strategy, any};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use prost::bytes::{Buf, BufMut};
use remora_proto::v1 as wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};

use crate::server::{Server, dry_run, small_task};

/// Sends bytes as they are.
#[derive(Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

const PLACE: &str = "/remora.v1.PlacementService/Place";

async fn send(server: &Server, path: &'static str, bytes: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut client = Grpc::new(server.channel().await);
    client.ready().await.unwrap();
    let answer = client.unary(Request::new(bytes), PathAndQuery::from_static(path), Raw).await?;
    Ok(answer.into_inner())
}

#[tokio::test]
async fn bytes_that_are_no_message() {
    let server = Server::with_small_cluster().await;
    // A text with bytes that are no UTF-8 in the first field, then a task that is a number.
    let status = send(&server, PLACE, vec![0x0a, 2, 0xff, 0xfe]).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("PlaceRequest.cluster_id"), "{}", status.message());
    let status = send(&server, PLACE, vec![0x10, 1]).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("PlaceRequest.task"), "{}", status.message());
    assert_eq!(
        send(&server, "/remora.v1.PlacementService/Fly", vec![]).await.unwrap_err().code(),
        Code::Unimplemented
    );

    let mut runner = TestRunner::deterministic();
    let noise = proptest::collection::vec(any::<u8>(), 1..200);
    for path in [PLACE, "/remora.v1.PlacementService/ReportOutcome", "/remora.v1.ClusterService/Register"] {
        for _ in 0..50 {
            let bytes = noise.new_tree(&mut runner).unwrap().current();
            let status = send(&server, path, bytes).await.unwrap_err();
            assert!(matches!(status.code(), Code::Internal | Code::InvalidArgument), "{status:?}");
        }
    }
    server.still_answers().await;
    server.stop().await;
}

#[tokio::test]
async fn a_request_that_is_too_large() {
    let server = Server::with_small_cluster().await;
    let mut request = dry_run(small_task());
    request.task.as_mut().unwrap().inputs = vec!["x".repeat(1000); 10_000];
    let status = server.placements().await.place(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("the limit is: 4194304 bytes"), "{}", status.message());
    // Whole clusters may be larger.
    let cluster = wire::Cluster { id: "x".repeat(10_000_000), ..wire::Cluster::default() };
    let request = wire::RegisterClusterRequest { cluster: Some(cluster), facts: None };
    let status = server.clusters().await.register(request).await.unwrap_err();
    assert_eq!(status.message(), "cluster.id: has 10000000 bytes, want a name of at most 500");
    server.still_answers().await;
    server.stop().await;
}

#[tokio::test]
async fn a_connection_that_speaks_something_else() {
    let server = Server::with_small_cluster().await;
    let noise: Vec<u8> = (0..5000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let http = b"POST / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a settings frame, for sure".to_vec();
    for bytes in [noise, http, preface] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        // It may say something, and closes.
        let closed = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(2), closed).await.expect("the connection is closed");
        server.still_answers().await;
    }
    // One that stays silent, and one that stops in the middle, do not keep the others from stopping.
    let _silent = TcpStream::connect(server.address).await.unwrap();
    server.still_answers().await;
    server.stop().await;
}
