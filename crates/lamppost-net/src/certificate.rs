//! What a certificate says of itself: until when it is valid, and for which names.

use std::path::Path;
use std::time::Duration;

use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

/// The first certificate of a file.
#[derive(Clone, Debug)]
pub struct Certificate {
    der: CertificateDer<'static>,
}

impl Certificate {
    /// Reads the first certificate of a file in PEM; nothing when there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(path: &Path) -> std::io::Result<Option<Self>> {
        let text = std::fs::read(path)?;
        Ok(CertificateDer::from_pem_slice(&text).ok().map(|der| Self { der }))
    }

    /// When it ends, since 1970; nothing when it does not say so as it must.
    pub fn ends(&self) -> Option<Duration> {
        not_after(&self.der)
    }

    /// Whether a client that looks for this name would take it.
    pub fn is_for(&self, name: &str) -> bool {
        let parsed = ParsedCertificate::try_from(&self.der);
        match (parsed, ServerName::try_from(name)) {
            (Ok(parsed), Ok(name)) => verify_server_name(&parsed, &name).is_ok(),
            _ => false,
        }
    }
}

/// Tags of DER (ITU-T X.690 §8).
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The second time of the validity (RFC 5280 §4.1).
fn not_after(der: &[u8]) -> Option<Duration> {
    let (_, certificate, _) = value(der)?;
    let (_, mut fields, _) = value(certificate)?;
    if fields.first() == Some(&VERSION) {
        fields = value(fields)?.2;
    }
    // The serial number, the algorithm and the issuer come before it.
    for _ in 0..3 {
        fields = value(fields)?.2;
    }
    let (tag, validity, _) = value(fields)?;
    let (_, _, behind_begin) = value(validity)?;
    let (kind, end, _) = value(behind_begin)?;
    if tag != SEQUENCE {
        return None;
    }
    seconds(kind, std::str::from_utf8(end).ok()?).map(Duration::from_secs)
}

/// A value with its tag, and what is behind it.
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let (bytes, behind) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if bytes.len() > 4 {
            return None;
        }
        length = bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        rest = behind;
    }
    let (value, behind) = rest.split_at_checked(length)?;
    Some((tag, value, behind))
}

/// A time in one of the two forms that certificates have (RFC 5280 §4.1.2.5), since 1970.
fn seconds(kind: u8, text: &str) -> Option<u64> {
    let digits = text.strip_suffix('Z').filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    let (year, rest) = match kind {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year: u64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<u64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    let (hour, minute, second) = (part(4)?, part(6)?, part(8)?);
    if !(1..=12).contains(&month) || year < 1970 {
        return None;
    }
    // Days since 1970, with years that begin in March so that a leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    let days = days.checked_sub(719_469)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo_ca;

    #[test]
    fn times_are_read_in_both_forms() {
        for (kind, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "240229123456Z", Some(1_709_210_096)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "20001301000000Z", None),
            (UTC_TIME, "7001", None),
            (UTC_TIME, "ééééééZ", None),
            (0x04, "700101000000Z", None),
        ] {
            assert_eq!(seconds(kind, text), expected, "{text}");
        }
    }

    #[test]
    fn a_certificate_tells_its_end_and_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let now = demo_ca::today();
        let made = demo_ca::ensure(folder.path(), "mail.lamppost.test", now).unwrap();
        let certificate = Certificate::read(&made.files.certificate).unwrap().unwrap();
        let left = certificate.ends().unwrap().checked_sub(now).unwrap();
        assert!(left.as_secs().div_ceil(86_400).abs_diff(365) <= 1, "{left:?}");
        assert!(certificate.is_for("mail.lamppost.test"));
        assert!(!certificate.is_for("other.lamppost.test") && !certificate.is_for("no name"));
        assert!(Certificate::read(&made.files.key).unwrap().is_none());
    }
}
