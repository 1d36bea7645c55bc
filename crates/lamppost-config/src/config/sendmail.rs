//! `[mail.sendmail]`: the socket by which programs of this machine hand in mail.

use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

use super::{non_empty, path};
use crate::reader::{self, Findings, Section, Wrong};

/// `[mail.sendmail]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct Sendmail {
    pub enabled: bool,
    pub socket: Option<PathBuf>,
    pub socket_mode: u32,
    pub socket_group: Option<String>,
    pub domain: Option<String>,
    pub trusted_users: Vec<String>,
}

impl Sendmail {
    pub(super) fn read(mut section: Section<'_, '_>, findings: &mut Findings<'_>) -> Self {
        let domain = |value: &_| match reader::text(value)? {
            text if text.is_empty() => Ok(text),
            _ => reader::domain(value),
        };
        let users = |value: &_| reader::entries(value, user);
        let from = &mut section;
        let sendmail = Self {
            enabled: from.read("enabled", reader::boolean, findings).value,
            socket: path(from, "socket", findings),
            socket_mode: from.read("socket-mode", mode, findings).value,
            socket_group: non_empty(from.read("socket-group", reader::text, findings).value),
            domain: non_empty(from.read("domain", domain, findings).value),
            trusted_users: from.read("trusted-users", users, findings).value,
        };
        section.finish(findings);
        sendmail
    }
}

/// Permissions in octal, which the program's own user always has.
pub(super) fn mode(value: &Spanned<DeValue<'_>>) -> Result<u32, Wrong> {
    let text = reader::text(value)?;
    let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| {
        Wrong::new("is no mode", "write it in octal, such as \"0666\" (everybody) or \"0660\"")
    })
}

pub(super) fn user(value: &Spanned<DeValue<'_>>) -> Result<String, Wrong> {
    match reader::text(value)? {
        text if !text.is_empty() && !text.contains([':', '@', ' ']) => Ok(text),
        _ => Err(Wrong::new("is no name of a user", "write it as in /etc/passwd: \"www-data\"")),
    }
}
