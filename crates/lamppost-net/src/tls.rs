//! TLS for servers: a certificate from files, which may change while the server runs.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::{InconsistentKeys, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

/// Where a certificate chain and its key are, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    /// The server's certificate first, then those of the authorities between it and the root.
    pub certificate: PathBuf,
    /// The key of the server's certificate.
    pub key: PathBuf,
}

/// What the files hold. Whoever has it needs no files.
#[derive(Clone, Serialize, Deserialize)]
pub struct Pem {
    /// Where it was read, for people.
    pub files: KeyPair,
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Pem {
    /// Reads the files.
    ///
    /// # Errors
    /// Which file cannot be read and why.
    pub fn read(files: KeyPair) -> Result<Self, TlsError> {
        let certificate = read(&files.certificate)?;
        let key = Zeroizing::new(read(&files.key)?);
        Ok(Self { files, certificate, key })
    }
}

/// Tells whether the files changed.
#[derive(Clone, Debug)]
pub struct PemWatch {
    files: KeyPair,
    seen: Fingerprint,
}

/// Tells one state of the two files from another.
type Fingerprint = [Option<(u64, SystemTime)>; 2];

impl PemWatch {
    /// Begins with the files as they are now.
    pub fn new(files: KeyPair) -> Self {
        let seen = fingerprint(&files);
        Self { files, seen }
    }

    /// What the files hold if they changed since this was asked last; nothing otherwise.
    ///
    /// # Errors
    /// Which file cannot be read and why; once for each change.
    pub fn changed(&mut self) -> Result<Option<Pem>, TlsError> {
        let now = fingerprint(&self.files);
        if self.seen == now {
            return Ok(None);
        }
        self.seen = now;
        Pem::read(self.files.clone()).map(Some)
    }
}

/// TLS for a server; the certificate may change while it runs.
#[derive(Debug)]
pub struct ServerTls {
    config: ArcSwap<ServerConfig>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path} (must be readable by the user that lamppost runs as)")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate file is not one.
    #[error("{path} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The key file is not one.
    #[error("{path} holds no private key in PEM (-----BEGIN PRIVATE KEY-----)")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The two do not go together.
    #[error("the key {key} is not that of the first certificate in {certificate}")]
    OtherKey {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate can name no host.
    #[error("{path} holds a certificate of X.509 version 1 or 2, which no client accepts")]
    OldVersion {
        /// The certificate's file.
        path: PathBuf,
    },
    /// The two are of a kind that is not supported.
    #[error("the certificate {certificate} and the key {key} cannot be used together")]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It took too long.
    #[error("the other side did not finish the handshake in time")]
    Timeout,
    /// The two sides do not agree, or the connection broke.
    #[error("{0}")]
    Failed(io::Error),
}

impl ServerTls {
    /// TLS with this certificate and key.
    ///
    /// # Errors
    /// Which file cannot be used and why.
    pub fn new(pem: &Pem) -> Result<Self, TlsError> {
        Ok(Self { config: ArcSwap::from_pointee(server_config(pem)?) })
    }

    /// Takes another certificate. Sessions that run keep theirs, and all keep the old one when the
    /// new one cannot be used.
    ///
    /// # Errors
    /// Which file cannot be used and why.
    pub fn replace(&self, pem: &Pem) -> Result<(), TlsError> {
        self.config.store(Arc::new(server_config(pem)?));
        Ok(())
    }

    /// Makes a TLS session of a connection.
    ///
    /// # Errors
    /// When the handshake fails or takes longer than `patience`.
    pub async fn accept<S>(
        &self,
        stream: S,
        patience: Duration,
    ) -> Result<TlsStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.config.load_full());
        match tokio::time::timeout(patience, acceptor.accept(stream)).await {
            Ok(accepted) => accepted.map_err(HandshakeError::Failed),
            Err(_) => Err(HandshakeError::Timeout),
        }
    }
}

fn fingerprint(files: &KeyPair) -> Fingerprint {
    [&files.certificate, &files.key].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// TLS 1.2 and 1.3 with rustls' own choice of suites; no client certificates.
fn server_config(pem: &Pem) -> Result<ServerConfig, TlsError> {
    let Pem { files: KeyPair { certificate, key }, .. } = pem;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem.certificate)
        .collect::<Result<_, _>>()
        .ok()
        .filter(|chain: &Vec<_>| !chain.is_empty())
        .ok_or_else(|| TlsError::NoCertificate { path: certificate.clone() })?;
    let private = PrivateKeyDer::from_pem_slice(&pem.key)
        .map_err(|_| TlsError::NoKey { path: key.clone() })?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|source| unusable(&pem.files, source))
}

fn unusable(files: &KeyPair, source: rustls::Error) -> TlsError {
    let KeyPair { certificate, key } = files.clone();
    match source {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::OtherKey { certificate, key }
        }
        // The cause has no type of its own that could be asked for.
        source if format!("{source:?}").contains("UnsupportedCertVersion") => {
            TlsError::OldVersion { path: certificate }
        }
        source => TlsError::Mismatch { certificate, key, source },
    }
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::demo_ca;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn connector(ca: &Path) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let config =
            rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    async fn greet(tls: &ServerTls, connector: &TlsConnector, name: &str) -> io::Result<Vec<u8>> {
        let (here, there): (DuplexStream, DuplexStream) = duplex(16 * 1024);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let serving = async {
            if let Ok(mut stream) = tls.accept(there, Duration::from_secs(5)).await {
                stream.write_all(b"220").await.unwrap();
                stream.shutdown().await.unwrap();
            }
        };
        let asking = async {
            let mut stream = connector.connect(name, here).await?;
            let mut greeting = Vec::new();
            stream.read_to_end(&mut greeting).await.map(|_| greeting)
        };
        tokio::join!(serving, asking).1
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_demo_ca_gets_through() {
        let folder = tempfile::tempdir().unwrap();
        let demo = demo_ca::ensure(folder.path(), "mail.lamppost.test", demo_ca::today()).unwrap();
        let tls = ServerTls::new(&Pem::read(demo.files.clone()).unwrap()).unwrap();
        let connector = connector(&demo.ca);
        for name in ["mail.lamppost.test", "localhost", "127.0.0.1"] {
            assert_eq!(greet(&tls, &connector, name).await.unwrap(), b"220", "{name}");
        }
        assert!(greet(&tls, &connector, "elsewhere.test").await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_handshake_runs_out_of_time() {
        let folder = tempfile::tempdir().unwrap();
        let demo = demo_ca::ensure(folder.path(), "mail.lamppost.test", NOW).unwrap();
        let tls = ServerTls::new(&Pem::read(demo.files).unwrap()).unwrap();
        let (mut here, there) = duplex(1024);
        here.write_all(&[0x16, 3, 1]).await.unwrap();
        let refused = tls.accept(there, Duration::from_secs(30)).await;
        assert!(matches!(refused, Err(HandshakeError::Timeout)));
    }

    #[test]
    fn changed_files_are_read_again_and_bad_ones_are_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let files = demo_ca::ensure(folder.path(), "mail.lamppost.test", NOW).unwrap().files;
        let tls = ServerTls::new(&Pem::read(files.clone()).unwrap()).unwrap();
        let mut watch = PemWatch::new(files.clone());
        assert!(watch.changed().unwrap().is_none());
        let new = demo_ca::ensure(other.path(), "other.lamppost.test", NOW).unwrap().files;
        std::fs::copy(&new.certificate, &files.certificate).unwrap();
        let before = tls.config.load_full();
        let half = watch.changed().unwrap().unwrap();
        assert!(matches!(tls.replace(&half), Err(TlsError::OtherKey { .. })));
        assert!(Arc::ptr_eq(&before, &tls.config.load_full()));
        assert!(watch.changed().unwrap().is_none());
        std::fs::copy(&new.key, &files.key).unwrap();
        std::fs::File::open(&files.key).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        tls.replace(&watch.changed().unwrap().unwrap()).unwrap();
        assert!(!Arc::ptr_eq(&before, &tls.config.load_full()));
        std::fs::remove_file(&files.key).unwrap();
        assert!(matches!(watch.changed(), Err(TlsError::Read { .. })));
    }

    #[test]
    fn a_key_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let files = demo_ca::ensure(folder.path(), "mail.lamppost.test", NOW).unwrap().files;
        let shown = format!("{:?}", Pem::read(files).unwrap());
        assert!(!shown.contains("45, 45") && !shown.contains("BEGIN"), "{shown}");
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = demo_ca::ensure(folder.path(), "mail.lamppost.test", NOW).unwrap().files;
        let broken = folder.path().join("broken.pem");
        std::fs::write(&broken, "nonsense").unwrap();
        let load = |certificate: &Path, key: &Path| {
            let files = KeyPair { certificate: certificate.to_owned(), key: key.to_owned() };
            Pem::read(files).and_then(|pem| ServerTls::new(&pem)).unwrap_err().to_string()
        };
        assert!(load(&broken, &files.key).contains("broken.pem holds no certificate"));
        assert!(load(&files.certificate, &broken).contains("broken.pem holds no private key"));
        assert!(load(&folder.path().join("absent"), &files.key).contains("cannot read"));
    }
}
