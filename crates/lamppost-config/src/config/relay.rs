//! `relay-to` and `[mail.relay]`: the host that takes mail for elsewhere.

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::{Secret, count, non_empty, path, secret, time};
use crate::reader::{self, Findings, Section, Wrong};

/// A host by its name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The name or address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// `[mail.relay]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct Relay {
    pub tls: RelayTls,
    pub ca: Option<PathBuf>,
    /// `user` and `password`.
    pub login: Option<(String, Secret)>,
    pub plaintext_auth: bool,
    pub connections_max: usize,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
}

/// TLS to the host of `relay-to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each word")]
pub enum RelayTls {
    Off,
    Opportunistic,
    StartTls,
    Implicit,
}

impl Relay {
    pub(super) fn read(mut section: Section<'_, '_>, findings: &mut Findings<'_>) -> Self {
        const MODES: [(&str, RelayTls); 4] = [
            ("off", RelayTls::Off),
            ("opportunistic", RelayTls::Opportunistic),
            ("starttls", RelayTls::StartTls),
            ("implicit", RelayTls::Implicit),
        ];
        let from = &mut section;
        let tls = from.read("tls", |value| reader::choice(value, &MODES), findings);
        let user = from.read("user", reader::text, findings);
        let password = from.read("password", secret, findings);
        let plaintext_auth = from.read("plaintext-auth", reader::boolean, findings).value;
        let login = match (non_empty(user.value), password.value) {
            (Some(user), Some(password)) => Some((user, password)),
            (None, None) => None,
            (Some(_), None) => {
                if !password.is_wrong {
                    let cure =
                        "name the file that holds the password: `password = \"/path/to/file\"`";
                    let what = "`user` is there and `password` is not";
                    findings.push(user.span.clone(), what, Some(cure.into()));
                }
                None
            }
            (None, Some(_)) => {
                if !user.is_wrong {
                    let cure = "name whom it belongs to: `user = \"…\"`";
                    let what = "`password` is there and `user` is not";
                    findings.push(password.span, what, Some(cure.into()));
                }
                None
            }
        };
        let proves_itself = matches!(tls.value, RelayTls::StartTls | RelayTls::Implicit);
        if login.is_some() && !proves_itself && !plaintext_auth {
            let cure = "set `tls = \"starttls\"` or `\"implicit\"`, so that the host proves who it is, or allow the password to be overheard with `plaintext-auth = true`";
            let span = if tls.is_default { user.span } else { tls.span.clone() };
            findings.push(span, "the password could be overheard on its way", Some(cure.into()));
        }
        let ca = path(from, "ca", findings);
        if ca.is_some() && !proves_itself {
            let cure = "set `tls = \"starttls\"` or `\"implicit\"`, or remove `ca`";
            let what = "nobody's certificate is looked at with this `tls`: `ca` would do nothing";
            findings.push(tls.span.clone(), what, Some(cure.into()));
        }
        let relay = Self {
            tls: tls.value,
            ca,
            login,
            plaintext_auth,
            connections_max: count(from, "connections-max", findings),
            connect_timeout: time(from, "connect-timeout", findings),
            idle_timeout: time(from, "idle-timeout", findings),
        };
        section.finish(findings);
        relay
    }
}

/// `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`; nothing when empty.
pub(super) fn host_port(value: &Spanned<DeValue<'_>>) -> Result<Option<HostPort>, Wrong> {
    let text = reader::text(value)?;
    if text.is_empty() {
        return Ok(None);
    }
    let no_port = |host: &str| Wrong::new("names no port", format!("write \"{host}:25\""));
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(no_port(&format!("[{text}]")));
    }
    let Some((host, port)) = text.rsplit_once(':').filter(|_| !text.ends_with(']')) else {
        return Err(no_port(&text));
    };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match inner {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => is_name(host),
    };
    let port = port.parse().ok().filter(|&port: &u16| port > 0);
    match port {
        Some(port) if is_host => {
            Ok(Some(HostPort { host: inner.unwrap_or(host).to_owned(), port }))
        }
        _ => Err(Wrong::new(
            "is no host and port",
            "write a name or an address and a port, such as \"mail.example.org:25\" or \"[2001:db8::1]:25\"",
        )),
    }
}

/// A host name, or an IPv4 address; names of a private network may have an underscore.
fn is_name(host: &str) -> bool {
    let letters = host.chars().all(|letter| letter.is_alphanumeric() || "-._".contains(letter));
    !host.is_empty()
        && host.len() <= 253
        && letters
        && host.split('.').all(|label| !label.is_empty())
}
