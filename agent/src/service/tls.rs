//! Certificates: ours, and those of clients.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::watch;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Where certificates are, in PEM.
#[derive(Clone, Debug)]
pub struct Files {
    /// Ours, and those between it and an authority that clients know.
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Authorities of the certificates that clients have to show; nothing where they need none.
    pub client_ca: Option<PathBuf>,
}

/// What a door shakes hands with; it changes with the files.
pub type Current = watch::Receiver<Arc<ServerConfig>>;

/// The files of one door. gRPC demands a client's certificate; over HTTP, where health is told to everybody, it only
/// checks one that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Grpc,
    Http,
}

impl Files {
    /// Reads the files, and reads them again whenever they change. While they are wrong, what they were before goes on.
    pub fn watch(self, door: Door) -> Result<Current> {
        let mut seen = self.stamps();
        let (sender, current) = watch::channel(Arc::new(self.read(door)?));
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(LOOK);
            loop {
                tokio::select! {
                    () = sender.closed() => break,
                    _ = tick.tick() => {}
                }
                let stamps = self.stamps();
                if stamps == seen {
                    continue;
                }
                seen = stamps;
                match self.read(door) {
                    Ok(config) => {
                        tracing::info!(?door, "the certificates have changed and are used from now on");
                        sender.send_replace(Arc::new(config));
                    }
                    Err(error) => {
                        let error = format!("{error:#}");
                        tracing::error!(
                            error,
                            "the changed certificates cannot be used; those before still are"
                        );
                    }
                }
            }
        });
        Ok(current)
    }

    /// # Errors
    /// When the files cannot be used; the flag says which.
    pub fn check(&self) -> Result<()> {
        self.read(Door::Grpc).map(drop)
    }

    fn stamps(&self) -> Vec<Option<(SystemTime, u64)>> {
        let stamp = |about: Metadata| Some((about.modified().ok()?, about.len()));
        let files = [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()];
        files.into_iter().flatten().map(|path| path.metadata().ok().and_then(stamp)).collect()
    }

    fn read(&self, door: Door) -> Result<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates("--tls-client-ca", path)? {
                    roots.add(certificate).with_context(|| told("--tls-client-ca", path))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = if door == Door::Http { verifier.allow_unauthenticated() } else { verifier };
                builder.with_client_cert_verifier(
                    verifier.build().with_context(|| told("--tls-client-ca", path))?,
                )
            }
        };
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| {
            anyhow!("{}: {error}; want a private key in PEM", told("--tls-key", &self.key))
        })?;
        let mut config = builder
            .with_single_cert(certificates("--tls-cert", &self.cert)?, key)
            .with_context(|| format!("{} and --tls-key do not fit", told("--tls-cert", &self.cert)))?;
        let protocol = if door == Door::Grpc { "h2" } else { "http/1.1" };
        config.alpn_protocols = vec![protocol.into()];
        Ok(config)
    }
}

fn told(flag: &str, path: &Path) -> String {
    format!("{flag} {}", path.display())
}

fn certificates(flag: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let wrong =
        |error: &dyn std::fmt::Display| anyhow!("{}: {error}; want certificates in PEM", told(flag, path));
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error))?;
    if found.is_empty() {
        bail!("{} holds no certificate; want PEM", told(flag, path));
    }
    Ok(found)
}

/// Whom a certificate names: its common name, or else its first alternative name that is of DNS or a URI.
pub fn named(certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let common = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
    if let Some(name) = common.filter(|name| !name.is_empty()) {
        return Some(name.into());
    }
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).into()),
        _ => None,
    })
}
