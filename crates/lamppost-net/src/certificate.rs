//! How long a certificate holds, and for which host.

use std::path::Path;
use std::time::Duration;

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::ring;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// What a server's certificate says of itself. Times are since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// When it begins to hold, if that is told.
    pub not_before: Option<Duration>,
    /// When it ends to hold, if that is told.
    pub not_after: Option<Duration>,
    /// The names in it when none of them is the host's.
    pub other_names: Option<Vec<String>>,
}

impl CertificateFacts {
    /// Reads the first certificate of a file; nothing when there is none that can be understood.
    pub fn read(path: &Path, host: &str) -> Option<Self> {
        let certificate = CertificateDer::from_pem_file(path).ok()?;
        let parsed = ParsedCertificate::try_from(&certificate).ok()?;
        // The verifier looks at the dates before it looks for an authority: asked about the first
        // and the last moment there are, it tells the bounds.
        let bound = |moment: Duration| {
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &RootCertStore::empty(),
                &[],
                UnixTime::since_unix_epoch(moment),
                ring::default_provider().signature_verification_algorithms.all,
            )
            .err()
        };
        let not_before = bound(Duration::ZERO).and_then(|error| match error {
            Error::InvalidCertificate(CertificateError::NotValidYetContext {
                not_before, ..
            }) => Some(Duration::from_secs(not_before.as_secs())),
            _ => None,
        });
        let not_after = bound(Duration::from_secs(u64::MAX)).and_then(|error| match error {
            Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
                Some(Duration::from_secs(not_after.as_secs()))
            }
            _ => None,
        });
        let name = ServerName::try_from(host).ok();
        let other_names = name.and_then(|name| match verify_server_name(&parsed, &name).err()? {
            Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                presented,
                ..
            }) => Some(presented),
            _ => Some(Vec::new()),
        });
        Some(Self { not_before, not_after, other_names })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo_ca;

    #[test]
    fn dates_and_names_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let now = Duration::from_secs(1_800_000_000);
        let files = demo_ca::ensure(folder.path(), "mail.lamppost.test", now).unwrap().files;
        let facts = CertificateFacts::read(&files.certificate, "mail.lamppost.test").unwrap();
        assert!(facts.not_before.unwrap() <= now, "{facts:?}");
        assert!(facts.not_after.unwrap() > now, "{facts:?}");
        assert_eq!(facts.other_names, None);
        let other = CertificateFacts::read(&files.certificate, "elsewhere.test").unwrap();
        let names = other.other_names.unwrap();
        assert!(names.iter().any(|name| name.contains("mail.lamppost.test")), "{names:?}");
        assert_eq!(CertificateFacts::read(&files.key, "elsewhere.test"), None);
    }
}
