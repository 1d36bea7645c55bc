//! The checked configuration, and how it is read.

mod dns;
pub(crate) mod greylist_database;
mod greylist_rules;
mod greylist_service;
mod limits;
mod listen;
mod log;
mod mail;
mod relay;
mod sendmail;
mod system_users;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use crate::problem::{Problem, Problems};
use crate::reader::{self, Findings, Placed, Section, Wrong};
use crate::reference::{DEFAULTS, DEMO, DNS_LIST, GREYLIST_FOR, LISTEN};
use crate::unit::ByteSize;

pub use dns::{AnswerRange, Dns, DnsList, DnsListKind, DnsLists, WhenListsFail};
pub use greylist_database::{GreylistDatabase, SharedDatabase};
pub use greylist_rules::{GreylistAlgorithm, GreylistFor, GreylistRules, GreylistStage};
pub use greylist_service::GreylistService;
pub use limits::{Auth, Limits};
pub use listen::{Kind, Listen, Network, TlsMode, WhenAbsent};
pub use log::{Level, Log, LogFormat};
pub use mail::{Durability, Greylist, GreylistMode, Mail, Queue, Rules, StoreFailure};
pub use relay::{HostPort, Relay, RelayTls};
pub use sendmail::Sendmail;
pub use system_users::SystemUsers;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// All of `lamppost.toml`. Keys carry their names; `defaults.toml` says what they mean.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct Config {
    pub server: Server,
    pub log: Log,
    pub metrics: Metrics,
    pub tls: Tls,
    pub dns: Dns,
    pub mail: Mail,
}

/// `[server]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct Server {
    pub hostname: Option<String>,
    pub state: Option<PathBuf>,
    pub control_socket: Option<PathBuf>,
    pub request_size_max: ByteSize,
    pub stop_grace: Duration,
}

/// `[metrics]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct Metrics {
    pub listen: Vec<SocketAddr>,
}

/// `[tls]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct Tls {
    pub files: Option<(Secret, Secret)>,
    pub self_signed: bool,
    pub reload_check: Duration,
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// In a systemd credential of this name (systemd.exec(5), `LoadCredential=`).
    Credential(String),
    /// In a file.
    File(PathBuf),
}

impl Secret {
    /// The file that holds it; nothing for a credential when systemd gave none.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path.clone()),
            Self::Credential(name) => {
                Some(Path::new(&std::env::var_os("CREDENTIALS_DIRECTORY")?).join(name))
            }
        }
    }
}

/// Why a file could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is larger than a configuration can be.
    #[error("{path} is larger than 1 MiB: it is no configuration file")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not UTF-8.
    #[error("{path} line {line} is not UTF-8 text")]
    NotText {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// It has problems.
    #[error("{0}")]
    Problems(Problems),
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or all that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Self::parse(&read_file(path)?, path).map_err(LoadError::Problems)
    }

    /// What the program uses when there is no file.
    ///
    /// # Panics
    /// Never: a test reads the built-in text.
    pub fn demo() -> Self {
        Self::parse(DEMO, Path::new("demo.toml")).expect("the built-in settings are right")
    }

    /// Reads a text; `name` is what messages call it.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(text: &str, name: &Path) -> Result<Self, Problems> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let parse = |text| DeTable::parse(text).map(toml::Spanned::into_inner).unwrap_or_default();
        let defaults = parse(DEFAULTS);
        let repeated = [LISTEN, DNS_LIST, GREYLIST_FOR].map(parse);
        let syntax = errors.iter().map(|error| {
            let span = error.span().unwrap_or(0..0);
            let cure = (error.message() == "duplicate key").then(|| twice(text, &span));
            Problem::new(text, span, error.message().to_owned(), cure)
        });
        let mut findings = Findings { text, problems: syntax.collect() };
        let mut file = Section::new("", Some(root.get_ref()), &defaults, 0..0);
        let config = Self::read(&mut file, &repeated, &mut findings);
        file.finish(&mut findings);
        if findings.problems.is_empty() {
            return Ok(config);
        }
        Err(Problems::new(name.display().to_string(), text.to_owned(), findings.problems))
    }

    fn read(
        file: &mut Section<'_, '_>,
        repeated: &[DeTable<'_>; 3],
        findings: &mut Findings<'_>,
    ) -> Self {
        let server = Server::read(file.section("server", "server", findings), findings);
        let log = Log::read(file.section("log", "log", findings), findings);
        let metrics = Metrics::read(file.section("metrics", "metrics", findings), findings);
        let tls = Tls::read(file.section("tls", "tls", findings), findings);
        let has_tls = tls.files.is_some() || tls.self_signed;
        let dns = Dns::read(file.section("dns", "dns", findings), findings);
        let mail = file.section("mail", "mail", findings);
        let mail = Mail::read(mail, repeated, has_tls, findings);
        Self { server, log, metrics, tls, dns, mail }
    }
}

/// Reads a file's text.
///
/// # Errors
/// When it cannot be read, or is no text.
pub fn read_file(path: &Path) -> Result<String, LoadError> {
    let read = |source| LoadError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(read)?.len() > FILE_BYTES_MAX {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    let bytes = std::fs::read(path).map_err(read)?;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.split(|&byte| byte == b'\n').count();
        LoadError::NotText { path: path.to_owned(), line }
    })
}

/// What to do about a key or a section that stands in the text twice; the place is the second's.
fn twice(text: &str, second: &std::ops::Range<usize>) -> String {
    let Some((key, before)) = text.get(second.clone()).zip(text.get(..second.start)) else {
        return "remove one of the two".into();
    };
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let head = text[start..].lines().next().unwrap_or_default().trim();
    let lines = before[..start].lines().enumerate().collect::<Vec<_>>();
    let name = |line: &str| line.split_once('=').map(|(name, _)| name.trim().to_owned());
    let first = if head.starts_with('[') {
        lines.iter().find(|(_, line)| line.trim() == head)
    } else {
        // A key belongs to the section whose head is the nearest above it.
        let section = lines.iter().rev().take_while(|(_, line)| !line.trim().starts_with('['));
        section.filter(|(_, line)| name(line).as_deref() == Some(key)).last()
    };
    match first {
        Some((number, _)) => {
            format!("it stands on line {} already: remove one of the two", number + 1)
        }
        None => "remove one of the two".into(),
    }
}

fn non_empty(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn count(section: &mut Section<'_, '_>, key: &'static str, findings: &mut Findings<'_>) -> usize {
    count_to(section, key, 1_000_000_000, findings)
}

fn count_to(
    section: &mut Section<'_, '_>,
    key: &'static str,
    most: u64,
    findings: &mut Findings<'_>,
) -> usize {
    let read = |value: &_| reader::number(value, 1, most);
    usize::try_from(section.read(key, read, findings).value).unwrap_or(usize::MAX)
}

fn time(section: &mut Section<'_, '_>, key: &'static str, findings: &mut Findings<'_>) -> Duration {
    section.read(key, reader::duration, findings).value
}

/// A duration from `least` to `most`.
fn time_within(
    section: &mut Section<'_, '_>,
    key: &'static str,
    bounds: (Duration, Duration),
    findings: &mut Findings<'_>,
) -> Placed<Duration> {
    section.read(key, |value| reader::duration_within(value, bounds), findings)
}

fn size(section: &mut Section<'_, '_>, key: &'static str, findings: &mut Findings<'_>) -> ByteSize {
    section.read(key, reader::size, findings).value
}

/// A size from `least` to `most` bytes.
fn size_within(
    section: &mut Section<'_, '_>,
    key: &'static str,
    (least, most): (u64, u64),
    findings: &mut Findings<'_>,
) -> Placed<ByteSize> {
    let bounds = (ByteSize(least), ByteSize(most));
    section.read(key, |value| reader::size_within(value, bounds), findings)
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A path that is absolute, or empty.
fn path(
    section: &mut Section<'_, '_>,
    key: &'static str,
    findings: &mut Findings<'_>,
) -> Option<PathBuf> {
    let read = |value: &_| match reader::text(value)? {
        text if text.is_empty() || text.starts_with('/') => Ok(text),
        _ => Err(Wrong::new("is no absolute path", "begin it with /")),
    };
    non_empty(section.read(key, read, findings).value).map(PathBuf::from)
}

impl Server {
    fn read(mut section: Section<'_, '_>, findings: &mut Findings<'_>) -> Self {
        let name = |value: &_| match reader::text(value)? {
            text if text.is_empty() => Ok(text),
            _ => reader::domain(value),
        };
        let server = Self {
            hostname: non_empty(section.read("hostname", name, findings).value),
            state: path(&mut section, "state", findings),
            control_socket: path(&mut section, "control-socket", findings),
            request_size_max: size_within(
                &mut section,
                "request-size-max",
                (64 * KIB, GIB),
                findings,
            )
            .value,
            stop_grace: time(&mut section, "stop-grace", findings),
        };
        section.finish(findings);
        server
    }
}

/// An address of this machine alone.
fn loopback(value: &toml::Spanned<toml::de::DeValue<'_>>) -> Result<SocketAddr, Wrong> {
    let address = reader::address(value)?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(Wrong::new(
        "is not on loopback",
        "figures are for this machine: use 127.0.0.1 or [::1] and let a proxy with a password pass them on",
    ))
}

impl Metrics {
    fn read(mut section: Section<'_, '_>, findings: &mut Findings<'_>) -> Self {
        let read = |value: &_| reader::entries(value, loopback);
        let listen = section.read("listen", read, findings).value;
        section.finish(findings);
        Self { listen }
    }
}

impl Tls {
    fn read(mut section: Section<'_, '_>, findings: &mut Findings<'_>) -> Self {
        let certificate = section.read("certificate", secret, findings);
        let key = section.read("key", secret, findings);
        let self_signed = section.read("self-signed", reader::boolean, findings).value;
        let reload_check = time_within(&mut section, "reload-check", (SECOND, DAY), findings).value;
        let files = match (certificate.value, key.value) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                let cure = Some("name the key's file too: `key = \"/path/to/key.pem\"`".into());
                findings.push(certificate.span, "`certificate` is there and `key` is not", cure);
                None
            }
            (None, Some(_)) => {
                let cure = Some(
                    "name the certificate's file too: `certificate = \"/path/to/chain.pem\"`"
                        .into(),
                );
                findings.push(key.span, "`key` is there and `certificate` is not", cure);
                None
            }
        };
        section.finish(findings);
        Self { files, self_signed, reload_check }
    }
}

/// An absolute path or `credential:NAME`; nothing when empty.
fn secret(value: &toml::Spanned<toml::de::DeValue<'_>>) -> Result<Option<Secret>, Wrong> {
    let text = reader::text(value)?;
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(name) = text.strip_prefix("credential:") {
        return Ok(Some(Secret::Credential(name.to_owned())));
    }
    if text.starts_with('/') {
        return Ok(Some(Secret::File(PathBuf::from(text))));
    }
    Err(Wrong::new(
        "is neither an absolute path nor a credential",
        "write \"/path/to/file\" or \"credential:NAME\"",
    ))
}
