//! TLS with certificates on both sides: what uvsd shows, and whose clients it lets in. TLS 1.3 alone.

use crate::config::TlsSettings;
use parking_lot::RwLock;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM of what it should be.
    #[error("access.tls.{key}: {}: {error}; accepted: {accepted}", path.display())]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: pem::Error,
        /// What it should be.
        accepted: &'static str,
    },
    /// There is no certificate in a file.
    #[error("access.tls.{key}: {}: has no certificate; accepted: one or more in PEM", path.display())]
    Empty {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not do.
    #[error(
        "access.tls.certificate and access.tls.key: {0}; accepted: a certificate and its own key"
    )]
    Pair(rustls::Error),
    /// The certificate of who signs those of clients does not do.
    #[error("access.tls.client_ca: {0}; accepted: certificates of authorities")]
    Authority(rustls::Error),
    /// As before, as a whole.
    #[error("access.tls.client_ca: {0}; accepted: certificates of authorities")]
    Verifier(#[from] VerifierBuilderError),
}

/// See the module's text.
pub struct Tls {
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files. Tells what is doubtful about them, too.
    ///
    /// # Errors
    /// When they do not do.
    pub fn load(settings: &TlsSettings) -> Result<(Tls, Vec<String>), TlsError> {
        let config = read(settings)?;
        let others_read = settings.key.metadata().ok();
        let others_read = others_read.map(|metadata| metadata.permissions().mode() & 0o007);
        let warnings = others_read.filter(|mode| *mode != 0).map(|_| {
            format!(
                "access.tls.key: {}: every user of this machine can read it; better: chmod 600",
                settings.key.display()
            )
        });
        let tls = Tls {
            config: RwLock::new(Arc::new(config)),
        };
        Ok((tls, warnings.into_iter().collect()))
    }

    /// Takes over what another has read: for connections from now on.
    pub fn adopt(&self, other: &Tls) {
        let config = Arc::clone(&other.config.read());
        *self.config.write() = config;
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config.read()))
    }
}

fn read(settings: &TlsSettings) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca", &settings.client_ca)? {
        roots.add(certificate).map_err(TlsError::Authority)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let verifier = verifier.build()?;
    let chain = certificates("certificate", &settings.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&settings.key).map_err(|error| TlsError::File {
        key: "key",
        path: settings.key.clone(),
        error,
        accepted: "a private key in PEM that uvsd can read",
    })?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Pair)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(TlsError::Pair)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |error| TlsError::File {
        key,
        path: path.to_owned(),
        error,
        accepted: "certificates in PEM that uvsd can read",
    };
    let all = CertificateDer::pem_file_iter(path).map_err(wrong)?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(wrong)?;
    if all.is_empty() {
        return Err(TlsError::Empty {
            key,
            path: path.to_owned(),
        });
    }
    Ok(all)
}
