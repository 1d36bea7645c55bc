//! TLS for clients: whose certificates are believed, and the handshake.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::HandshakeError;

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trust {
    /// Anybody's: who only listens learns nothing, who stands between may be anybody.
    Anybody,
    /// Those of these authorities.
    Authorities {
        /// Where they were read, for people.
        file: PathBuf,
        /// What was read there.
        pem: Vec<u8>,
    },
    /// Those of the authorities that the system trusts.
    System,
}

impl Trust {
    /// Trust in the authorities of a file, in PEM.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(file: &Path) -> Result<Self, ClientTlsError> {
        let file = file.to_owned();
        match std::fs::read(&file) {
            Ok(pem) => Ok(Self::Authorities { file, pem }),
            Err(error) => Err(ClientTlsError::Read { path: file, reason: error.to_string() }),
        }
    }
}

/// TLS for connections to other hosts.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
}

/// Why no host could be believed.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// The file cannot be read, or something in it is no certificate.
    #[error("cannot read the certificates of authorities in {path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why, for people.
        reason: String,
    },
    /// There are no certificates.
    #[error("{place} holds no certificate of an authority (-----BEGIN CERTIFICATE-----)")]
    None {
        /// Where they were looked for.
        place: String,
    },
    /// The program's own cryptography lacks something.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Reads the certificates of those to believe.
    ///
    /// # Errors
    /// When there are none.
    pub fn new(trust: &Trust) -> Result<Self, ClientTlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(ClientTlsError::Setup)?;
        let builder = match roots(trust)? {
            Some(roots) => builder.with_root_certificates(roots),
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(BelieveAnybody { provider })),
        };
        Ok(Self { config: Arc::new(builder.with_no_client_auth()) })
    }

    /// Makes a TLS session of a connection to the host of this name or address.
    ///
    /// # Errors
    /// When the handshake fails, as with a host that is not believed, or takes longer than `patience`.
    pub async fn connect<S>(
        &self,
        stream: S,
        host: &str,
        patience: Duration,
    ) -> Result<TlsStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| HandshakeError::Failed(io::Error::other(error)))?;
        let connecting = TlsConnector::from(self.config.clone()).connect(name, stream);
        match tokio::time::timeout(patience, connecting).await {
            Ok(connected) => connected.map_err(|error| HandshakeError::Failed(plain(error))),
            Err(_) => Err(HandshakeError::Timeout),
        }
    }
}

/// Why a certificate is not believed, in words: those of the library are for those who write programs.
fn plain(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(why)) = inner else { return error };
    let text = match why {
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names = match &presented[..] {
                [] => "no name".to_owned(),
                names => names.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", "),
            };
            format!("its certificate is not for {}: it names {names}", expected.to_str())
        }
        CertificateError::NotValidForName => "its certificate is for another name".into(),
        CertificateError::UnknownIssuer => {
            "its certificate is of an authority that is not trusted here (UnknownIssuer)".into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet; or the clock of this machine is wrong".into()
        }
        CertificateError::Revoked => "its certificate was revoked".into(),
        CertificateError::BadEncoding => "its certificate is none that can be read".into(),
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}

/// A name as the library gives it, such as `DnsName("a.test")`, without what is around it.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

/// The authorities to believe; nothing for anybody.
fn roots(trust: &Trust) -> Result<Option<RootCertStore>, ClientTlsError> {
    let mut roots = RootCertStore::empty();
    let place = match trust {
        Trust::Anybody => return Ok(None),
        Trust::Authorities { file, pem } => {
            let read = |reason: String| ClientTlsError::Read { path: file.clone(), reason };
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| read(error.to_string()))?;
                roots.add(certificate).map_err(|error| read(error.to_string()))?;
            }
            file.display().to_string()
        }
        Trust::System => {
            // Single certificates that cannot be used are no reason to do without the others.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            "the system's store (package ca-certificates)".to_owned()
        }
    };
    if roots.is_empty() { Err(ClientTlsError::None { place }) } else { Ok(Some(roots)) }
}

/// Takes any certificate; that the other side has its key is still checked.
#[derive(Debug)]
struct BelieveAnybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for BelieveAnybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::{Pem, ServerTls, demo_ca};

    /// Whether a client that trusts so gets a greeting from a host with the demo's certificate.
    async fn greeted(trust: &Trust, server: &ServerTls, name: &str) -> Result<(), HandshakeError> {
        let (here, there) = duplex(16 * 1024);
        let patience = Duration::from_secs(5);
        let serving = async {
            if let Ok(mut stream) = server.accept(there, patience).await {
                stream.write_all(b"220").await.unwrap();
                stream.shutdown().await.unwrap();
            }
        };
        let asking = async {
            let mut stream = ClientTls::new(trust).unwrap().connect(here, name, patience).await?;
            let mut greeting = Vec::new();
            stream.read_to_end(&mut greeting).await.map_err(HandshakeError::Failed)?;
            assert_eq!(greeting, b"220");
            Ok(())
        };
        tokio::join!(serving, asking).1
    }

    #[tokio::test]
    async fn only_those_who_are_trusted_are_believed() {
        let folder = tempfile::tempdir().unwrap();
        let demo = demo_ca::ensure(folder.path(), "mail.lamppost.test", demo_ca::today()).unwrap();
        let server = ServerTls::new(&Pem::read(demo.files).unwrap()).unwrap();
        let file = Trust::read(&demo.ca).unwrap();
        greeted(&file, &server, "mail.lamppost.test").await.unwrap();
        greeted(&file, &server, "127.0.0.1").await.unwrap();
        let other = greeted(&file, &server, "elsewhere.test").await.unwrap_err();
        let expected = "its certificate is not for elsewhere.test: it names mail.lamppost.test, ";
        assert!(other.to_string().contains(expected), "{other}");
        assert!(!other.to_string().contains(['(', '"']), "{other}");
        greeted(&Trust::Anybody, &server, "elsewhere.test").await.unwrap();
        let system = greeted(&Trust::System, &server, "mail.lamppost.test").await.unwrap_err();
        assert!(system.to_string().contains("UnknownIssuer"), "{system}");
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let error =
            || Trust::read(&path).and_then(|trust| ClientTls::new(&trust)).unwrap_err().to_string();
        assert!(error().contains("cannot read") && error().contains("ca.pem"), "{}", error());
        std::fs::write(&path, "nonsense").unwrap();
        assert!(error().contains("ca.pem holds no certificate"), "{}", error());
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(&path, broken).unwrap();
        assert!(error().contains("cannot read"), "{}", error());
    }
}
