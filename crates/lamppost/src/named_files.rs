//! The files that the configuration names: whether they are there, can be read and are right. Each that
//! is not is told with its key's place in the file and a cure.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use lamppost_config::{self as config, Config, GreylistDatabase, RelayTls, Remark, SharedDatabase};
use lamppost_net::{
    CertificateFacts, ClientTls, ClientTlsError, Clock, KeyPair, Pem, ServerTls, SystemClock,
    TlsError, Trust,
};
use lamppost_roles::FileStamp;
use lamppost_rules::Rules;
use lamppost_smtp::Secret;

use crate::exit::chain;

/// The largest file that can hold a password.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// How long before its end a certificate is warned of.
const EXPIRY_NOTICE: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Those who are neither the owner of a file nor in its group.
const OTHERS: u32 = 0o007;

/// Why a file does not do.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) what: String,
    pub(crate) cure: String,
}

/// What is wrong with the files that a configuration names.
///
/// Credentials are looked at where systemd gives them, which it does to the service alone.
pub(crate) fn remarks(config: &Config) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let mut fault = |key, found: Result<(), Wrong>| {
        if let Err(Wrong { what, cure }) = found {
            remarks.push(Remark::error(key, format!("`{key}`: {what}"), cure));
        }
    };
    if let Some((certificate, key)) = &config.tls.files
        && let (Some(certificate), Some(key)) = (certificate.path(), key.path())
    {
        let (first, second) = (readable(&certificate), readable(&key));
        let both = first.is_ok() && second.is_ok();
        fault("tls.certificate", first);
        fault("tls.key", second);
        if both {
            fault("tls.certificate", key_pair(KeyPair { certificate, key }));
        }
    }
    let relay = &config.mail.relay;
    if let Some((_, secret)) = &relay.login
        && secret.path().is_some()
    {
        fault("mail.relay.password", password(secret).map(drop));
    }
    if let Some(ca) = &relay.ca {
        fault("mail.relay.ca", readable(ca).and_then(|()| authorities(Trust::read(ca))));
    } else if config.mail.relay_to.is_some()
        && matches!(relay.tls, RelayTls::StartTls | RelayTls::Implicit)
    {
        fault("mail.relay.tls", authorities(Ok(Trust::System)));
    }
    let greylist = &config.mail.greylist;
    if let Some(secret) = &greylist.database_password
        && secret.path().is_some()
    {
        fault("mail.greylist.database-password", password(secret).map(drop));
    }
    if let GreylistDatabase::Shared(SharedDatabase { ca: Some(ca), .. }) = &greylist.database {
        fault("mail.greylist.database", readable(ca).and_then(|()| authorities(Trust::read(ca))));
    }
    if let Some(file) = &config.mail.rules.file {
        fault("mail.rules.file", rules(file).map(drop).map_err(|(_, wrong)| wrong));
    }
    let sendmail = &config.mail.sendmail;
    if let Some(group) = sendmail.socket_group.as_ref().filter(|_| sendmail.enabled)
        && lamppost_net::group_id(group).is_none()
    {
        fault("mail.sendmail.socket-group", Err(no_group(group)));
    }
    if let Some(group) = &config.mail.greylist.service.socket_group
        && lamppost_net::group_id(group).is_none()
    {
        fault("mail.greylist.service.socket-group", Err(no_group(group)));
    }
    remarks
}

/// What is odd about the connection rules that a configuration names, though they are in force.
pub(crate) fn odd_rules(config: &Config) -> Vec<Remark> {
    let Some(file) = &config.mail.rules.file else { return Vec::new() };
    let Ok((_, _, rules)) = rules(file) else { return Vec::new() };
    let odd = rules.remarks().iter().map(|remark| {
        let what = format!("{}, {remark}", file.display());
        Remark::warning("mail.rules.file", what, "write the key without blanks")
    });
    odd.collect()
}

/// The connection rules of a file: as they stand there, and read. What does not do is told with the stamp
/// of the file, if there is one.
pub(crate) fn rules(path: &Path) -> Result<(FileStamp, Bytes, Rules), (Option<FileStamp>, Wrong)> {
    let shown = path.display();
    let cannot = |error: std::io::Error| (None, unreadable(path, &error));
    let file = open(path).map_err(cannot)?;
    let found = file.metadata().map_err(cannot)?;
    let stamp = FileStamp::of(&found);
    let wrong = |what: String, cure: String| (Some(stamp), Wrong { what, cure });
    if !found.is_file() {
        return Err(wrong(
            format!("{shown} is no plain file"),
            "name a text of rules, or a cdb".into(),
        ));
    }
    let mut bytes = Vec::new();
    let size_max = u64::from(Rules::SIZE_MAX);
    file.take(size_max + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > size_max {
        let cure = "name networks instead of each address".into();
        return Err(wrong(format!("{shown} is larger than {size_max} bytes"), cure));
    }
    let bytes = Bytes::from(bytes);
    match Rules::read(bytes.to_vec()) {
        Ok(rules) => Ok((stamp, bytes, rules)),
        Err(error) => Err(wrong(format!("{shown}, {error}"), error.cure())),
    }
}

/// A group that the machine does not list.
pub(crate) fn no_group(name: &str) -> Wrong {
    Wrong {
        what: format!("/etc/group lists no group {name}"),
        cure: "correct the name, or make the group with `groupadd`".into(),
    }
}

/// What clients find wrong with the certificate that a configuration names, though the program runs
/// with it.
pub(crate) fn odd_certificate(config: &Config, hostname: &str) -> Vec<Remark> {
    let path = config.tls.files.as_ref().and_then(|(certificate, _)| certificate.path());
    let wrong = path.iter().flat_map(|path| ages(path, hostname));
    wrong.map(|Wrong { what, cure }| Remark::warning("tls.certificate", what, cure)).collect()
}

/// The secrets that a configuration names and that everybody may open.
pub(crate) fn open_secrets(config: &Config) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let key = config.tls.files.as_ref().and_then(|(_, key)| key.path());
    let mut secrets: Vec<_> = key.map(|path| ("tls.key", path)).into_iter().collect();
    let password = config.mail.relay.login.as_ref().and_then(|(_, password)| password.path());
    secrets.extend(password.map(|path| ("mail.relay.password", path)));
    let password = config.mail.greylist.database_password.as_ref().and_then(config::Secret::path);
    secrets.extend(password.map(|path| ("mail.greylist.database-password", path)));
    if let GreylistDatabase::Shared(shared) = &config.mail.greylist.database
        && shared.password.is_some()
    {
        let key = "mail.greylist.database";
        let what = "every process of the program is told the password in `database`";
        let cure = "write it into a file, and the file's name into `database-password`";
        remarks.push(Remark::warning(key, what, cure));
    }
    for (key, path) in secrets {
        let mode = std::fs::metadata(&path).map_or(0, |found| found.permissions().mode());
        if mode & OTHERS != 0 {
            let path = path.display();
            let what = format!("`{key}`: everybody on this machine may open {path}");
            remarks.push(Remark::warning(key, what, format!("`chmod o= {path}`")));
        }
    }
    remarks
}

/// What clients will soon, or do already, find wrong with a certificate.
pub(crate) fn ages(path: &Path, hostname: &str) -> Vec<Wrong> {
    let Some(facts) = CertificateFacts::read(path, hostname) else { return Vec::new() };
    let now = SystemClock.now();
    let day = |at: Duration| {
        let second = i64::try_from(at.as_secs()).ok();
        let at = second.and_then(|second| jiff::Timestamp::from_second(second).ok());
        at.map_or_else(|| "a day".into(), |at| at.to_string())
    };
    let mut wrong = Vec::new();
    let mut tell = |what: String, cure: &str| {
        wrong.push(Wrong { what: format!("{} {what}", path.display()), cure: cure.to_owned() });
    };
    let renew = "renew it; a new one in the same file is noticed by itself";
    match facts.not_after {
        Some(end) if end <= now => tell(format!("expired at {}", day(end)), renew),
        Some(end) if end <= now + EXPIRY_NOTICE => tell(format!("expires at {}", day(end)), renew),
        _ => {}
    }
    if let Some(begin) = facts.not_before.filter(|&begin| begin > now) {
        tell(format!("is not valid before {}", day(begin)), "look at the clock of this machine");
    }
    if let Some(names) = facts.other_names {
        let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
        let cure = "get one with this name, or set `hostname` in `[server]` to one of its names";
        tell(format!("is not for {hostname}: it names {names}"), cure);
    }
    wrong
}

/// The password that a file holds.
pub(crate) fn password(secret: &config::Secret) -> Result<Secret, Wrong> {
    let path = secret.path().ok_or_else(|| Wrong {
        what: "it names a credential, and systemd gave none".into(),
        cure: "start the program by a unit with LoadCredential=, or name a file".into(),
    })?;
    readable(&path)?;
    let wrong = |why: &str| Wrong {
        what: format!("{} {why}", path.display()),
        cure: "write the password alone into it, as one line".into(),
    };
    let cannot = |error: std::io::Error| wrong(&format!("cannot be read: {error}"));
    if std::fs::metadata(&path).map_err(cannot)?.len() > PASSWORD_BYTES_MAX {
        return Err(wrong("is larger than a password can be"));
    }
    let text = std::fs::read_to_string(&path).map_err(cannot)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains(['\n', '\r', '\0']) {
        return Err(wrong("does not hold one line"));
    }
    Ok(Secret::new(line.to_owned()))
}

pub(crate) fn readable(path: &Path) -> Result<(), Wrong> {
    match open(path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_dir() => Err(Wrong {
            what: format!("{} cannot be read: it is a folder", path.display()),
            cure: "name a file in it".into(),
        }),
        Ok(_) => Ok(()),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// Opens a file to read it. A pipe that nobody writes to is no reason to wait.
fn open(path: &Path) -> std::io::Result<std::fs::File> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(nonblocking).open(path)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Wrong {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    let cure = match error.kind() {
        NotFound => "write it, or correct its name",
        PermissionDenied => "let the user read it whom the service runs as",
        _ => "name a file that can be read",
    };
    Wrong { what: format!("{} cannot be read: {error}", path.display()), cure: cure.into() }
}

fn key_pair(files: KeyPair) -> Result<(), Wrong> {
    match Pem::read(files).and_then(|pem| ServerTls::new(&pem)) {
        Ok(_) => Ok(()),
        Err(error) => {
            let cure = match &error {
                TlsError::OtherKey { .. } => {
                    "name the key that the certificate was made with; the server's own certificate \
                     comes first in its file, those of the authorities behind it"
                }
                TlsError::OldVersion { .. } => {
                    "get one of version 3 with the host's name in it, as every authority gives; \
                     `openssl req -x509 -addext subjectAltName=DNS:NAME …` makes one for trying out"
                }
                _ => "name a certificate chain and the key that belongs to it, both in PEM",
            };
            Err(Wrong { what: chain(&error), cure: cure.into() })
        }
    }
}

fn authorities(trust: Result<Trust, ClientTlsError>) -> Result<(), Wrong> {
    let cure = match &trust {
        Ok(Trust::System) => {
            "install the system's authorities (ca-certificates), or name one with `ca`"
        }
        _ => "name a file with the authority's certificate, in PEM",
    };
    match trust.and_then(|trust| ClientTls::new(&trust)) {
        Ok(_) => Ok(()),
        Err(error) => Err(Wrong { what: chain(&error), cure: cure.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_that_nobody_writes_to_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let (_, wrong) = rules(&path).unwrap_err();
        assert!(wrong.what.ends_with("is no plain file"), "{wrong:?}");
        assert!(readable(&path).is_ok());
    }

    #[test]
    fn a_password_is_one_line_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let secret = config::Secret::File(path.clone());
        let check = |content: &str, expected: Result<&str, &str>| {
            std::fs::write(&path, content).unwrap();
            match (password(&secret), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.expose(), expected),
                (Err(found), Err(expected)) => assert!(found.what.contains(expected), "{found:?}"),
                (found, _) => panic!("{content:?}: {found:?}"),
            }
        };
        check("secret word\n", Ok("secret word"));
        check("secret\r\n", Ok("secret"));
        check("secret", Ok("secret"));
        check("", Err("does not hold one line"));
        check("two\nlines\n", Err("does not hold one line"));
        check(&"x".repeat(5000), Err("larger than a password"));
        std::fs::remove_file(&path).unwrap();
        assert!(password(&secret).unwrap_err().what.contains("cannot be read"));
    }
}
