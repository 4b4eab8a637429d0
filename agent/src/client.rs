//! Connections to a running service.

use std::time::Duration;

use anyhow::{Context, anyhow};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Where `remora serve` listens unless told otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:50051";

/// Connects to the service at an address such as `http://127.0.0.1:50051`.
pub async fn connect(server: &str) -> anyhow::Result<Channel> {
    let address = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    let endpoint = Endpoint::from_shared(address)
        .with_context(|| format!("{server:?} is no address; write it like {DEFAULT_SERVER}"))?
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(60));
    endpoint.connect().await.with_context(|| {
        format!("cannot reach the service at {server}; start it with `remora serve` or give --server")
    })
}

/// What a person should read of a refusal.
pub fn refused(status: Status) -> anyhow::Error {
    anyhow!("{} ({:?})", status.message(), status.code())
}
