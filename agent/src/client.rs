//! Connections to a running service.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use remora_proto::v1 as wire;
use tokio::time::{sleep, timeout};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Response, Status, Streaming};

/// Where `remora serve` listens unless told otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:50051";
/// How often a service that is not available is asked, and the first pause in between, which doubles.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);
/// For whom nothing else is said.
const PATIENCE: Duration = Duration::from_secs(60);

/// Something that no log shows.
#[derive(Clone)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Secret, Self::Err> {
        Ok(Secret(text.to_owned()))
    }
}

/// Which service to ask, and as whom.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// Address of the service; https where it has a certificate.
    #[arg(long, env = "REMORA_SERVER", default_value = DEFAULT_SERVER)]
    pub server: String,
    /// Authority of the service's certificate, PEM; those that the system trusts unless given.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// File with the access token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Access token. Others on this machine may see it here: better name a file, or set REMORA_TOKEN.
    #[arg(long, env = "REMORA_TOKEN", hide_env_values = true, conflicts_with = "token_file")]
    token: Option<Secret>,
    /// Certificate to show to the service, PEM, where it demands one.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// Seconds after which an answer is waited for no longer. A service that is not available is asked again meanwhile.
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE.as_secs())]
    timeout: u64,
}

/// Adds the token to each request.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer")
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}

/// What clients of single services are made of.
pub type Wire = InterceptedService<Channel, Bearer>;

/// A service that was reached.
#[derive(Clone, Debug)]
pub struct Service {
    wire: Wire,
    patience: Duration,
}

impl ServerArgs {
    /// Connects.
    pub async fn connect(&self) -> Result<Service> {
        let patience = Duration::from_secs(self.timeout.max(1));
        let mut endpoint = endpoint(&self.server, patience)?;
        if endpoint.uri().scheme_str() == Some("https") {
            endpoint = endpoint.tls_config(self.tls()?).context("these certificates cannot be used")?;
        }
        let bearer = Bearer(self.bearer()?);
        let local = ["127.0.0.1", "localhost", "[::1]"];
        let open = endpoint.uri().scheme_str() != Some("https")
            && !endpoint.uri().host().is_some_and(|host| local.contains(&host));
        if bearer.0.is_some() && open {
            eprintln!(
                "warning: the token travels unencrypted; write https://… where the service has a certificate"
            );
        }
        let channel = timeout(patience, reach(&endpoint)).await;
        let channel = channel.map_err(|_| anyhow!("no answer within {} s", patience.as_secs()));
        let channel = channel.and_then(|reached| Ok(reached?)).with_context(|| unreachable(&self.server))?;
        Ok(Service { wire: InterceptedService::new(channel, bearer), patience })
    }

    fn tls(&self) -> Result<ClientTlsConfig> {
        let mut tls = match &self.ca {
            Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("--ca", path)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.client_cert, &self.client_key) {
            tls = tls.identity(Identity::from_pem(read("--client-cert", cert)?, read("--client-key", key)?));
        }
        Ok(tls)
    }

    fn bearer(&self) -> Result<Option<MetadataValue<Ascii>>> {
        let token = match (&self.token_file, &self.token) {
            (Some(path), _) => read("--token-file", path)?.trim().to_owned(),
            (None, Some(Secret(token))) => token.trim().to_owned(),
            (None, None) => return Ok(None),
        };
        let header = format!("Bearer {token}").parse();
        let mut header: MetadataValue<Ascii> =
            header.map_err(|_| anyhow!("the token has characters that no token has; want rmr_…"))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

impl Service {
    /// For requests that do harm when they are done twice: they are sent once.
    pub fn wire(&self) -> Wire {
        self.wire.clone()
    }

    /// Sends a request, again while the service is not available.
    pub async fn ask<T, F>(&self, request: impl Fn(Wire) -> F) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let asking = async {
            let mut pause = PAUSE;
            for _ in 1..ATTEMPTS {
                match request(self.wire()).await {
                    Err(status) if status.code() == Code::Unavailable => {}
                    answer => return answer,
                }
                sleep(pause).await;
                pause *= 2;
            }
            request(self.wire()).await
        };
        let answer = timeout(self.patience, asking).await;
        let answer = answer.map_err(|_| anyhow!("no answer within {} s", self.patience.as_secs()))?;
        answer.map(Response::into_inner).map_err(refused)
    }
}

/// Connects to the service at an address such as `http://127.0.0.1:50051`, as nobody in particular.
pub async fn connect(server: &str) -> Result<Channel> {
    reach(&endpoint(server, PATIENCE)?).await.with_context(|| unreachable(server))
}

/// The same, connected by and by, and again whenever the service was away.
pub fn lazy(server: &str) -> Result<Channel> {
    Ok(endpoint(server, PATIENCE)?.connect_lazy())
}

fn endpoint(server: &str, patience: Duration) -> Result<Endpoint> {
    let address = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    Ok(Endpoint::from_shared(address)
        .with_context(|| format!("{server:?} is no address; write it like {DEFAULT_SERVER}"))?
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(5))
        .timeout(patience))
}

async fn reach(endpoint: &Endpoint) -> Result<Channel, tonic::transport::Error> {
    let mut pause = PAUSE;
    for _ in 1..ATTEMPTS {
        if let Ok(channel) = endpoint.connect().await {
            return Ok(channel);
        }
        sleep(pause).await;
        pause *= 2;
    }
    endpoint.connect().await
}

fn unreachable(server: &str) -> String {
    format!("cannot reach the service at {server}; start it with `remora serve` or give --server")
}

fn read(flag: &str, path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{flag}: cannot read {}", path.display()))
}

/// Bytes of a piece.
const PIECE: usize = 1 << 20;

/// Something long in the pieces in which it is handed over; none where there is nothing.
pub fn in_pieces(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    bytes.chunks(PIECE).map(<[u8]>::to_vec)
}

/// The pieces of an answer put together.
///
/// # Errors
/// When the service refuses or ends before the last.
pub async fn whole(mut pieces: Streaming<wire::ArtifactChunk>) -> Result<Vec<u8>> {
    let mut whole = Vec::new();
    while let Some(piece) = pieces.message().await.map_err(refused)? {
        whole.extend_from_slice(&piece.chunk);
    }
    Ok(whole)
}

/// What a person should read of a refusal.
pub fn refused(status: Status) -> anyhow::Error {
    anyhow!("{} ({:?})", status.message(), status.code())
}
