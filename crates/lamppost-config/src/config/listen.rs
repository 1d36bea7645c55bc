//! `[[mail.listen]]`: where mail comes in.

use std::net::{IpAddr, SocketAddr};

use toml::de::DeTable;

use crate::reader::{self, Findings, Placed, Section, Wrong};

/// One `[[mail.listen]]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "listen.toml holds the one description of each key")]
pub struct Listen {
    pub address: Vec<SocketAddr>,
    pub kind: Kind,
    pub tls: TlsMode,
    pub when_absent: WhenAbsent,
    pub proxy_protocol_from: Vec<Network>,
    pub bare_newline_fix_for: Vec<Network>,
    pub plaintext_auth: bool,
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// An address in it.
    pub address: IpAddr,
    /// Leading bits that all its addresses share.
    pub prefix: u8,
}

/// Whom a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "listen.toml holds the one description of each word")]
pub enum Kind {
    Mx,
    Submission,
}

/// When TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "listen.toml holds the one description of each word")]
pub enum TlsMode {
    Off,
    StartTls,
    Implicit,
}

/// What to do about an address that this machine does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "listen.toml holds the one description of each word")]
pub enum WhenAbsent {
    Fail,
    Skip,
    Wait,
}

pub(super) fn networks(
    value: &toml::Spanned<toml::de::DeValue<'_>>,
) -> Result<Vec<Network>, Wrong> {
    reader::entries(value, reader::network)
}

impl Listen {
    pub(super) fn read_all(
        mail: &mut Section<'_, '_>,
        defaults: &DeTable<'_>,
        has_tls: bool,
        findings: &mut Findings<'_>,
    ) -> Vec<Self> {
        let defaults = defaults.get("listen").and_then(|value| value.get_ref().as_table());
        let Some(defaults) = defaults else {
            return Vec::new();
        };
        let mut seen = Vec::new();
        let mut all = Vec::new();
        for (table, span) in mail.tables("listen", findings) {
            let section = Section::new("[mail.listen]", Some(table), defaults, span);
            all.push(Self::read(section, has_tls, &mut seen, findings));
        }
        all
    }

    fn read(
        mut section: Section<'_, '_>,
        has_tls: bool,
        seen: &mut Vec<SocketAddr>,
        findings: &mut Findings<'_>,
    ) -> Self {
        const KINDS: [(&str, Kind); 2] = [("mx", Kind::Mx), ("submission", Kind::Submission)];
        const MODES: [(&str, TlsMode); 3] = [
            ("off", TlsMode::Off),
            ("starttls", TlsMode::StartTls),
            ("implicit", TlsMode::Implicit),
        ];
        const ABSENT: [(&str, WhenAbsent); 3] =
            [("fail", WhenAbsent::Fail), ("skip", WhenAbsent::Skip), ("wait", WhenAbsent::Wait)];
        let address =
            section.read("address", |value| reader::entries(value, reader::address), findings);
        let kind = section.read("kind", |value| reader::choice(value, &KINDS), findings).value;
        let tls = section.read("tls", |value| reader::choice(value, &MODES), findings);
        let plaintext_auth = section.read("plaintext-auth", reader::boolean, findings).value;
        let plain = kind == Kind::Submission && !plaintext_auth;
        check_addresses(&address, seen, findings);
        check_tls(&tls, (has_tls, plain), findings);
        let listen = Self {
            address: address.value,
            kind,
            tls: tls.value,
            when_absent: section
                .read("when-absent", |value| reader::choice(value, &ABSENT), findings)
                .value,
            proxy_protocol_from: section.read("proxy-protocol-from", networks, findings).value,
            bare_newline_fix_for: section.read("bare-newline-fix-for", networks, findings).value,
            plaintext_auth,
        };
        section.finish(findings);
        listen
    }
}

/// Each address is listened on once, and there is one.
fn check_addresses(
    address: &Placed<Vec<SocketAddr>>,
    seen: &mut Vec<SocketAddr>,
    findings: &mut Findings<'_>,
) {
    if address.value.is_empty() && !address.is_wrong {
        let cure = Some("write `address = [\"192.0.2.1:25\"]`".into());
        findings.push(address.span.clone(), "a listener has no address", cure);
    }
    for one in &address.value {
        if seen.contains(one) {
            let cure = Some("remove one of the two".into());
            findings.push(address.span.clone(), format!("{one} is listened on twice"), cure);
        }
        seen.push(*one);
    }
}

/// TLS has a certificate, and passwords have TLS.
fn check_tls(tls: &Placed<TlsMode>, (has_tls, plain): (bool, bool), findings: &mut Findings<'_>) {
    if tls.value != TlsMode::Off && !has_tls {
        let by_default = if tls.is_default { " (the default)" } else { "" };
        let cure = "name `certificate` and `key` in `[tls]`, or set `tls = \"off\"` here".into();
        findings.push(tls.span.clone(), format!("TLS{by_default} needs a certificate"), Some(cure));
    }
    if plain && tls.value == TlsMode::Off {
        let cure = "set `tls = \"starttls\"` or `\"implicit\"`, or allow passwords to be overheard with `plaintext-auth = true`".into();
        findings.push(
            tls.span.clone(),
            "submission without TLS can authenticate nobody",
            Some(cure),
        );
    }
}
