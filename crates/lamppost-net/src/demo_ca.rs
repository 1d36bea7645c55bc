//! A small certificate authority for the demo: it signs one certificate for this machine's names.
//!
//! Nobody should trust it but the person who tries Lamppost out; real servers name their own
//! certificate in the file.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::{Clock, SystemClock};

/// How long a certificate is valid.
const VALID_DAYS: u64 = 365;
/// How long before its end a certificate is made anew.
const RENEW_DAYS: u64 = 30;
const DAY_S: u64 = 24 * 60 * 60;

/// What the authority made.
#[derive(Clone, Debug)]
pub struct DemoCertificate {
    /// The server's certificate and key.
    pub files: crate::KeyPair,
    /// The authority's certificate, for clients to trust.
    pub ca: PathBuf,
}

/// Why there is no demo certificate.
#[derive(Debug, thiserror::Error)]
pub enum DemoCaError {
    /// A file cannot be written.
    #[error("cannot write the demo's certificate files in {folder}")]
    Write {
        /// Their folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A certificate cannot be made, for instance for a host name that is none.
    #[error("cannot make the demo's certificate for {hostname}")]
    Make {
        /// The host's name.
        hostname: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
}

/// The present time, as [`ensure`] takes it.
pub fn today() -> Duration {
    SystemClock.now()
}

/// Makes the authority and the certificate in `folder` unless they are there and valid still.
///
/// # Errors
/// When a certificate cannot be made or a file cannot be written.
pub fn ensure(
    folder: &Path,
    hostname: &str,
    now: Duration,
) -> Result<DemoCertificate, DemoCaError> {
    let files = DemoCertificate {
        files: crate::KeyPair {
            certificate: folder.join("certificate.pem"),
            key: folder.join("key.pem"),
        },
        ca: folder.join("ca.pem"),
    };
    let term = folder.join("valid-for");
    if still_good(&files, &term, hostname, now) {
        return Ok(files);
    }
    let made = make(hostname, now)
        .map_err(|source| DemoCaError::Make { hostname: hostname.to_owned(), source })?;
    let until = now.as_secs() + VALID_DAYS * DAY_S;
    let write = || -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        write_file(&files.ca, &made.ca, 0o644)?;
        write_file(&files.files.certificate, &made.certificate, 0o644)?;
        write_file(&files.files.key, &made.key, 0o600)?;
        write_file(&term, &format!("{until} {hostname}\n"), 0o644)
    };
    write().map_err(|source| DemoCaError::Write { folder: folder.to_owned(), source })?;
    Ok(files)
}

/// Whether the files are there, for this name, and far enough from their end.
fn still_good(files: &DemoCertificate, term: &Path, hostname: &str, now: Duration) -> bool {
    let there = [&files.ca, &files.files.certificate, &files.files.key];
    let Ok(text) = std::fs::read_to_string(term) else {
        return false;
    };
    let Some((until, name)) = text.trim_end().split_once(' ') else {
        return false;
    };
    let until: u64 = until.parse().unwrap_or(0);
    let from = until.saturating_sub(VALID_DAYS * DAY_S);
    name == hostname
        && (from..until.saturating_sub(RENEW_DAYS * DAY_S)).contains(&now.as_secs())
        && there.iter().all(|path| path.exists())
}

fn write_file(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    // A file of an earlier run may have another mode: it is replaced, not written over.
    let new = path.with_extension("new");
    drop(std::fs::remove_file(&new));
    let mut file = std::fs::File::options().create_new(true).write(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

/// PEM texts.
struct Made {
    ca: String,
    certificate: String,
    key: String,
}

fn make(hostname: &str, now: Duration) -> Result<Made, rcgen::Error> {
    let from = std::time::SystemTime::UNIX_EPOCH + now - Duration::from_secs(DAY_S);
    let until = std::time::SystemTime::UNIX_EPOCH + now + Duration::from_secs(VALID_DAYS * DAY_S);

    let mut params = CertificateParams::new([])?;
    params.distinguished_name.push(DnType::CommonName, "Lamppost demo authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (from.into(), until.into());
    let ca_key = KeyPair::generate()?;
    let ca = params.self_signed(&ca_key)?;
    let issuer = Issuer::new(params, ca_key);

    let names = [hostname, "localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, hostname);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (from.into(), until.into());
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Made { ca: ca.pem(), certificate: certificate.pem(), key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn certificate(folder: &Path, hostname: &str, now: Duration) -> String {
        let files = ensure(folder, hostname, now).unwrap().files;
        std::fs::read_to_string(files.certificate).unwrap()
    }

    #[test]
    fn a_certificate_is_kept_until_it_nears_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let first = certificate(folder.path(), "mail.lamppost.test", NOW);
        let later = NOW + Duration::from_secs(300 * DAY_S);
        assert_eq!(certificate(folder.path(), "mail.lamppost.test", later), first);
        let near = NOW + Duration::from_secs(340 * DAY_S);
        assert_ne!(certificate(folder.path(), "mail.lamppost.test", near), first);
    }

    #[test]
    fn another_name_needs_another_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let first = certificate(folder.path(), "mail.lamppost.test", NOW);
        assert_ne!(certificate(folder.path(), "mx.lamppost.test", NOW), first);
    }

    #[test]
    fn the_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let files = ensure(&folder.path().join("tls"), "mail.lamppost.test", NOW).unwrap().files;
        let mode = std::fs::metadata(files.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
