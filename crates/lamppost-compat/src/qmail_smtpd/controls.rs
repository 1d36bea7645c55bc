//! qmail's control files, as qmail-smtpd reads them (qmail-control(5)); the folder is the current one.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use lamppost_rules::Cdb;

use super::visitor::variable;
use crate::words;

/// How long a client may pause where no file says so.
const PATIENCE: Duration = Duration::from_secs(20 * 60);
/// Domains beside those of `rcpthosts`.
const MORE_HOSTS: &str = "control/morercpthosts.cdb";

/// What the files say.
#[derive(Debug)]
pub(super) struct Controls {
    /// What the server calls itself.
    pub(super) greeting: String,
    /// The domain of addresses that have none, once they leave qmail.
    pub(super) domain: Vec<u8>,
    /// The domain that stands for an address of this host.
    local_ip_host: Option<Vec<u8>>,
    /// How long a client may pause.
    pub(super) patience: Duration,
    /// Bytes of a message.
    pub(super) size_max: u64,
    /// Whom mail is taken for; nothing for everybody.
    hosts: Option<HashSet<Vec<u8>>>,
    bad_senders: HashSet<Vec<u8>>,
}

/// A control file that is not to be read, or not there though it must be.
#[derive(Debug)]
pub(super) struct Unread {
    file: &'static str,
    source: io::Error,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = std::env::current_dir().unwrap_or_default();
        write!(f, "unable to read {}: ", folder.join(self.file).display())?;
        f.write_str(&words::of(&self.source))?;
        match self.source.kind() {
            io::ErrorKind::NotFound => f.write_str(
                "\n  help: write the name of this host into it; QMAILHOME names another folder than /var/qmail",
            ),
            _ => Ok(()),
        }
    }
}

impl Controls {
    /// Reads them all, but for [`MORE_HOSTS`].
    pub(super) fn read() -> Result<Self, Unread> {
        let me = line("control/me")?;
        let Some(greeting) = line("control/smtpgreeting")?.or_else(|| me.clone()) else {
            let source = io::Error::from_raw_os_error(libc::ENOENT);
            return Err(Unread { file: "control/me", source });
        };
        let domain = line("control/envnoathost")?.or_else(|| me.clone()).unwrap_or_default();
        let patience = number("control/timeoutsmtpd")?;
        let patience = patience.map_or(PATIENCE, |seconds| Duration::from_secs(seconds.max(1)));
        let bytes = number("control/databytes")?.unwrap_or(0);
        let ruled = variable("DATABYTES").map(|text| leading_number(&text).unwrap_or(0));
        let size_max = match ruled.unwrap_or(bytes) {
            0 => u64::MAX,
            bytes => bytes,
        };
        Ok(Self {
            greeting: String::from_utf8_lossy(&greeting).into_owned(),
            domain,
            local_ip_host: line("control/localiphost")?.or(me),
            patience,
            size_max,
            hosts: list("control/rcpthosts")?,
            bad_senders: list("control/badmailfrom")?.unwrap_or_default(),
        })
    }

    /// An address of this host by number is one by name.
    pub(super) fn localised(&self, mut address: Vec<u8>) -> Vec<u8> {
        if let Some(host) = &self.local_ip_host
            && let Some(at) = address.iter().rposition(|&byte| byte == b'@')
            && let Some(ip) = literal(&address[at + 1..])
            && is_own(ip)
        {
            address.truncate(at + 1);
            address.extend_from_slice(host);
        }
        address
    }

    /// Whether nobody wants mail of a sender, by its address or its domain.
    pub(super) fn is_bad_sender(&self, sender: &[u8]) -> bool {
        let sender = sender.to_ascii_lowercase();
        let at = sender.iter().rposition(|&byte| byte == b'@');
        self.bad_senders.contains(&sender)
            || at.is_some_and(|at| self.bad_senders.contains(&sender[at..]))
    }

    /// Whether mail is taken for a recipient: for its domain, or one above that is written with a dot.
    pub(super) fn takes_for(&self, recipient: &[u8]) -> Result<bool, Unread> {
        let Some(hosts) = &self.hosts else { return Ok(true) };
        let Some(at) = recipient.iter().rposition(|&byte| byte == b'@') else { return Ok(true) };
        let domain = recipient[at + 1..].to_ascii_lowercase();
        let begins = || (0..domain.len()).filter(|&at| at == 0 || domain[at] == b'.');
        if begins().any(|at| hosts.contains(&domain[at..])) {
            return Ok(true);
        }
        let unread = |source| Unread { file: MORE_HOSTS, source };
        let more = match std::fs::read(MORE_HOSTS) {
            Ok(more) => more,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(unread(error)),
        };
        let more = Cdb::new(&more);
        for at in begins() {
            let found = more.find(&domain[at..]);
            let found = found.map_err(|_| unread(io::Error::from_raw_os_error(libc::EPROTO)))?;
            if found.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The text of a file; nothing when it is not there.
fn text(file: &'static str) -> Result<Option<Vec<u8>>, Unread> {
    match std::fs::read(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Unread { file, source }),
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let kept = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\t' | b'\n'));
    &line[..kept.map_or(0, |last| last + 1)]
}

/// The first line.
fn line(file: &'static str) -> Result<Option<Vec<u8>>, Unread> {
    let first = |text: Vec<u8>| {
        text.split(|&byte| byte == b'\n').next().map(without_end).map(<[u8]>::to_vec)
    };
    Ok(text(file)?.and_then(first))
}

/// The number that the first line begins with.
fn number(file: &'static str) -> Result<Option<u64>, Unread> {
    Ok(line(file)?.and_then(|line| leading_number(&line)))
}

fn leading_number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // More than can be counted is as many as can.
    let number = |digits: &str| digits.parse().unwrap_or(u64::MAX);
    str::from_utf8(&text[..digits]).ok().filter(|digits| !digits.is_empty()).map(number)
}

/// The lines that say something, in lower case.
fn list(file: &'static str) -> Result<Option<HashSet<Vec<u8>>>, Unread> {
    let lines = |text: Vec<u8>| {
        let lines = text.split(|&byte| byte == b'\n').map(without_end);
        let said = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#"));
        said.map(<[u8]>::to_ascii_lowercase).collect()
    };
    Ok(text(file)?.map(lines))
}

fn literal(domain: &[u8]) -> Option<Ipv4Addr> {
    let inside = domain.strip_prefix(b"[")?.strip_suffix(b"]")?;
    str::from_utf8(inside).ok()?.parse().ok()
}

/// Only an address of this host can be bound to.
fn is_own(ip: Ipv4Addr) -> bool {
    !ip.is_multicast() && !ip.is_broadcast() && UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controls(hosts: &[&str]) -> Controls {
        Controls {
            greeting: "mail.test".into(),
            domain: b"mail.test".to_vec(),
            local_ip_host: Some(b"mail.test".to_vec()),
            patience: PATIENCE,
            size_max: u64::MAX,
            hosts: Some(hosts.iter().map(|host| host.as_bytes().to_vec()).collect()),
            bad_senders: [b"bad@b.test".to_vec(), b"@worse.test".to_vec()].into(),
        }
    }

    #[test]
    fn recipients_are_taken_by_domain() {
        let controls = controls(&["here.test", ".below.test"]);
        for (recipient, expected) in [
            ("a@here.test", true),
            ("a@HERE.test", true),
            ("a@sub.here.test", false),
            ("a@b.below.test", true),
            ("a@c.b.below.test", true),
            ("a@below.test", false),
            ("root", true),
            ("", true),
            ("a@here.test@elsewhere.test", false),
            ("a%b.test@here.test", true),
            ("a@", false),
        ] {
            let taken = controls.takes_for(recipient.as_bytes()).unwrap();
            assert_eq!(taken, expected, "{recipient}");
        }
    }

    #[test]
    fn senders_are_bad_by_address_or_domain() {
        let controls = controls(&[]);
        for (sender, expected) in [
            ("Bad@b.test", true),
            ("good@b.test", false),
            ("a@worse.test", true),
            ("a@sub.worse.test", false),
            ("", false),
        ] {
            assert_eq!(controls.is_bad_sender(sender.as_bytes()), expected, "{sender}");
        }
    }

    #[test]
    fn own_addresses_by_number_are_by_name() {
        let controls = controls(&[]);
        for (address, expected) in [
            ("a@[127.0.0.1]", "a@mail.test"),
            ("a@[192.0.2.1]", "a@[192.0.2.1]"),
            ("a@[::1]", "a@[::1]"),
            ("a", "a"),
        ] {
            assert_eq!(controls.localised(address.into()), expected.as_bytes(), "{address}");
        }
    }

    #[test]
    fn numbers_are_what_lines_begin_with() {
        for (text, expected) in [
            ("1200", Some(1200)),
            ("5x", Some(5)),
            ("", None),
            ("x", None),
            ("99999999999999999999999", Some(u64::MAX)),
        ] {
            assert_eq!(leading_number(text.as_bytes()), expected, "{text}");
        }
    }
}
