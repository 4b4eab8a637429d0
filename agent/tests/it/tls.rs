//! Encryption, and certificates that say who calls. All certificates are made here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use remora_agent::service::{Config, Rules, TlsFiles};
use remora_agent::storage::Role;
use remora_policies::by_name;
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_client::ClusterServiceClient;
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::server::{Server, small_cluster};

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate and its key, in PEM.
    pub fn certify(&self, common_name: Option<&str>, names: Vec<SanType>) -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn server(&self) -> (String, String) {
        self.certify(None, vec![SanType::DnsName("localhost".try_into().unwrap())])
    }
}

/// Files of a server.
pub struct Files {
    folder: TempDir,
}

impl Files {
    pub fn new(authority: &Authority) -> Files {
        let files = Files { folder: tempfile::tempdir().unwrap() };
        files.renew(authority);
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn renew(&self, authority: &Authority) {
        let (cert, key) = authority.server();
        self.write("tls.crt", &cert);
        self.write("tls.key", &key);
    }

    pub fn tls(&self, client_ca: Option<&Path>) -> TlsFiles {
        let client_ca = client_ca.map(Path::to_owned);
        TlsFiles { cert: self.path("tls.crt"), key: self.path("tls.key"), client_ca }
    }
}

async fn start(tls: TlsFiles, rules: Rules) -> Server {
    let policy = by_name("greedy-completion", 0).unwrap();
    let config = Config { clusters: vec![small_cluster()], tls: Some(tls), rules, ..Config::new(policy) };
    Server::start(config).await
}

/// Asks for the clusters over a connection of its own.
async fn ask(server: &Server, ca: &str, identity: Option<(String, String)>) -> Result<usize, tonic::Status> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    if let Some((cert, key)) = identity {
        tls = tls.identity(Identity::from_pem(cert, key));
    }
    let address = format!("https://localhost:{}", server.address.port());
    let endpoint = Endpoint::from_shared(address).unwrap().tls_config(tls).unwrap();
    let endpoint = endpoint.connect_timeout(Duration::from_secs(10));
    let channel: Channel =
        endpoint.connect().await.map_err(|error| tonic::Status::unavailable(format!("{error:?}")))?;
    let answer = ClusterServiceClient::new(channel).list(wire::ListClustersRequest {}).await?;
    Ok(answer.into_inner().clusters.len())
}

#[tokio::test]
async fn only_who_knows_the_authority_gets_through() {
    let ours = Authority::new("ours");
    let files = Files::new(&ours);
    let server = start(files.tls(None), Rules::default()).await;
    assert_eq!(ask(&server, &ours.pem, None).await.unwrap(), 1);
    let wrong = ask(&server, &Authority::new("theirs").pem, None).await.unwrap_err();
    assert!(wrong.message().contains("UnknownIssuer") || wrong.message().contains("BadSignature"), "{wrong}");
    let open = remora_agent::client::connect(&server.address.to_string()).await;
    let open = match open {
        Ok(channel) => ClusterServiceClient::new(channel).list(wire::ListClustersRequest {}).await.is_err(),
        Err(_) => true,
    };
    assert!(open, "it answered in the open");
    server.stop().await;
}

#[tokio::test]
async fn changed_certificates_are_used() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let files = Files::new(&before);
    let server = start(files.tls(None), Rules::default()).await;
    assert_eq!(ask(&server, &before.pem, None).await.unwrap(), 1);
    // What cannot be used changes nothing.
    files.write("tls.key", "nothing");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(ask(&server, &before.pem, None).await.unwrap(), 1);
    files.renew(&after);
    let mut waited = 0;
    while ask(&server, &after.pem, None).await.is_err() {
        waited += 1;
        assert!(waited < 30, "the new certificate is not used");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn certificates_say_who_calls() {
    let (ours, clients) = (Authority::new("ours"), Authority::new("clients"));
    let files = Files::new(&ours);
    let ca = files.write("clients.crt", &clients.pem);
    let roles = [
        ("edge", Role::Orchestrator),
        ("spiffe://example/agent", Role::Viewer),
        ("host.example", Role::Viewer),
    ];
    let rules = Rules {
        authenticate: true,
        clients: roles.map(|(name, role)| (name.to_owned(), role)).into_iter().collect(),
    };
    let server = start(files.tls(Some(&ca)), rules).await;
    let dns = SanType::DnsName("host.example".try_into().unwrap());
    let uri = SanType::URI("spiffe://example/agent".try_into().unwrap());
    for (name, names) in
        [(Some("edge"), vec![dns.clone()]), (None, vec![dns.clone()]), (None, vec![uri, dns.clone()])]
    {
        let identity = clients.certify(name, names);
        assert_eq!(ask(&server, &ours.pem, Some(identity)).await.unwrap(), 1);
    }
    let stranger =
        ask(&server, &ours.pem, Some(clients.certify(Some("stranger"), vec![dns]))).await.unwrap_err();
    assert_eq!(
        (stranger.code(), stranger.message()),
        (
            Code::PermissionDenied,
            "the certificate is \"stranger\"'s, who is not among [[clients]] of the service's configuration"
        )
    );
    let without = ask(&server, &ours.pem, None).await.unwrap_err();
    assert_ne!(without.code(), Code::PermissionDenied, "{without}");
    let forged = Authority::new("clients").certify(Some("edge"), Vec::new());
    let forged = ask(&server, &ours.pem, Some(forged)).await.unwrap_err();
    assert_ne!(forged.code(), Code::PermissionDenied, "{forged}");
    server.stop().await;
}

#[tokio::test]
async fn files_that_hold_no_certificate_are_named() {
    let files = Files::new(&Authority::new("ours"));
    let listener = || async { tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap() };
    let cases = [("tls.crt", "--tls-cert"), ("tls.key", "--tls-key"), ("clients.crt", "--tls-client-ca")];
    for (file, flag) in cases {
        let tls = files.tls(Some(&files.write("clients.crt", &Authority::new("clients").pem)));
        let before = std::fs::read_to_string(files.path(file)).unwrap();
        files.write(file, "nothing");
        let config = Config { tls: Some(tls), ..Config::new(by_name("random", 0).unwrap()) };
        let error =
            remora_agent::service::run(listener().await, std::future::pending(), config).await.unwrap_err();
        assert!(format!("{error:#}").contains(flag), "{file}: {error:#}");
        files.write(file, &before);
    }
}
