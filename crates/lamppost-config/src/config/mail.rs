//! `[mail]`, `[mail.rules]`, `[mail.greylist]` and `[mail.queue]`; the other sections below `[mail]` have their own files.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::dns::{DnsList, DnsLists};
use super::greylist_database::{self, GreylistDatabase};
use super::greylist_rules::GreylistRules;
use super::greylist_service::GreylistService;
use super::limits::{Auth, Limits};
use super::listen::Listen;
use super::relay::{self, HostPort, Relay};
use super::sendmail::Sendmail;
use super::system_users::SystemUsers;
use super::{
    DAY, GIB, KIB, MIB, MINUTE, SECOND, Secret, count_to, non_empty, path, secret, size,
    size_within, time, time_within,
};
use crate::reader::{self, Findings, Section, Wrong};
use crate::unit::ByteSize;

/// `[mail]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct Mail {
    pub domains: Vec<String>,
    pub postmaster: Option<String>,
    pub maildir: String,
    pub relay_to: Option<HostPort>,
    pub relay: Relay,
    pub sendmail: Sendmail,
    pub system_users: SystemUsers,
    pub listen: Vec<Listen>,
    pub limits: Limits,
    pub auth: Auth,
    pub rules: Rules,
    pub dns_lists: DnsLists,
    pub dns_list: Vec<DnsList>,
    pub greylist: Greylist,
    pub queue: Queue,
}

/// `[mail.rules]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct Rules {
    pub file: Option<PathBuf>,
    pub name_timeout: Duration,
}

/// `[mail.greylist]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct Greylist {
    pub enabled: bool,
    pub mode: GreylistMode,
    pub delay: Duration,
    pub retry_window: Duration,
    pub lifetime: Duration,
    pub ipv4_prefix: u8,
    pub ipv6_prefix: u8,
    pub database: GreylistDatabase,
    pub database_password: Option<Secret>,
    pub log_to_database: bool,
    pub when_store_fails: StoreFailure,
    pub rules: GreylistRules,
    pub service: GreylistService,
}

/// Whether what the greylist decides is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each word")]
pub enum GreylistMode {
    Enforce,
    Observe,
}

/// What happens to mail while the greylist cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each word")]
pub enum StoreFailure {
    Accept,
    Defer,
    Local,
}

/// `[mail.queue]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct Queue {
    pub durability: Durability,
    pub segment_size: ByteSize,
    pub body_aside_from: ByteSize,
    pub memory_max: ByteSize,
    pub uploads_max: usize,
    pub upload_pause_max: Duration,
    pub spare_segments_max: usize,
    pub damage_told_max: usize,
    pub free_space_min: ByteSize,
    pub lifetime: Duration,
    pub retry_first: Duration,
    pub retry_max: Duration,
    pub deliveries_at_once_max: usize,
    pub batch_max: usize,
    pub batch_size_max: ByteSize,
    pub writers_max: usize,
    pub maildir_timeout: Duration,
    pub silent_mailboxes_max: usize,
    pub delivery_lag: Duration,
    pub delay_notice_after: Duration,
    pub notice_every: Duration,
    pub accept_volatile: bool,
}

/// What an acknowledged message survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each word")]
pub enum Durability {
    Group,
    Each,
    None,
}

impl Mail {
    pub(super) fn read(
        mut section: Section<'_, '_>,
        [listen, dns_list, greylist_for]: &[DeTable<'_>; 3],
        has_tls: bool,
        findings: &mut Findings<'_>,
    ) -> Self {
        let domains =
            section.read("domains", |value| reader::entries(value, reader::domain), findings).value;
        let account = |value: &_| match reader::text(value)? {
            text if text.is_empty()
                || text.rsplit_once('@').is_some_and(|(l, d)| !l.is_empty() && !d.is_empty()) =>
            {
                Ok(text)
            }
            _ => Err(Wrong::new(
                "is no account",
                "write it as an address, such as \"admin@example.org\"",
            )),
        };
        let postmaster = non_empty(section.read("postmaster", account, findings).value);
        let template = |value: &_| match reader::text(value)? {
            text if text.contains("{domain}")
                && text.contains("{local}")
                && (text.starts_with('/') || text.starts_with("{state}/")) =>
            {
                Ok(text)
            }
            _ => Err(Wrong::new(
                "does not give each account a Maildir of its own",
                "begin it with / or {state}/ and let it hold {domain} and {local}",
            )),
        };
        let maildir = section.read("maildir", template, findings).value;
        let relay_to = section.read("relay-to", relay::host_port, findings).value;
        let relay = Relay::read(section.section("relay", "mail.relay", findings), findings);
        let sendmail =
            Sendmail::read(section.section("sendmail", "mail.sendmail", findings), findings);
        let users = section.section("system-users", "mail.system-users", findings);
        let system_users = SystemUsers::read(users, &domains, findings);
        let limits = Limits::read(section.section("limits", "mail.limits", findings), findings);
        let auth = Auth::read(section.section("auth", "mail.auth", findings), findings);
        let rules = Rules::read(section.section("rules", "mail.rules", findings), findings);
        let dns_list = DnsList::read_all(&mut section, dns_list, findings);
        let lists = section.section("dns-lists", "mail.dns-lists", findings);
        let dns_lists = DnsLists::read(lists, &dns_list, findings);
        let greylist = section.section("greylist", "mail.greylist", findings);
        let greylist = Greylist::read(greylist, greylist_for, findings);
        let queue = Queue::read(section.section("queue", "mail.queue", findings), findings);
        let listen = Listen::read_all(&mut section, listen, has_tls, findings);
        section.finish(findings);
        Self {
            domains,
            postmaster,
            maildir,
            relay_to,
            relay,
            sendmail,
            system_users,
            listen,
            limits,
            auth,
            rules,
            dns_lists,
            dns_list,
            greylist,
            queue,
        }
    }
}

impl Rules {
    fn read(mut section: Section<'_, '_>, findings: &mut Findings<'_>) -> Self {
        let file = path(&mut section, "file", findings);
        let bounds = (SECOND / 10, MINUTE);
        let name_timeout = time_within(&mut section, "name-timeout", bounds, findings).value;
        section.finish(findings);
        Self { file, name_timeout }
    }
}

impl Greylist {
    fn read(
        mut section: Section<'_, '_>,
        greylist_for: &DeTable<'_>,
        findings: &mut Findings<'_>,
    ) -> Self {
        const FAILURES: [(&str, StoreFailure); 3] = [
            ("accept", StoreFailure::Accept),
            ("defer", StoreFailure::Defer),
            ("local", StoreFailure::Local),
        ];
        const MODES: [(&str, GreylistMode); 2] =
            [("enforce", GreylistMode::Enforce), ("observe", GreylistMode::Observe)];
        let service = section.section("service", "mail.greylist.service", findings);
        let prefix = |section: &mut Section<'_, '_>, key, most, findings: &mut Findings<'_>| {
            let bits = section.read(key, |value| reader::number(value, 1, most), findings).value;
            u8::try_from(bits).unwrap_or(u8::MAX)
        };
        let delay = section.read("delay", reader::duration, findings);
        let retry_window = time(&mut section, "retry-window", findings);
        if delay.value >= retry_window {
            let cure = Some("make `retry-window` much longer than `delay`".into());
            findings.push(
                delay.span,
                "nobody could come back in time: `delay` is not shorter than `retry-window`",
                cure,
            );
        }
        let database = section.read("database", greylist_database::database, findings);
        let password = section.read("database-password", secret, findings);
        if password.value.is_some() {
            let (what, cure) = match &database.value {
                GreylistDatabase::Shared(shared) if shared.password.is_none() => ("", ""),
                GreylistDatabase::Shared(_) => {
                    ("the password stands in `database` too", "take it out of `database`")
                }
                _ => (
                    "nobody asks for `database-password`: `database` names no server",
                    "remove it, or name the server by `database`",
                ),
            };
            if !what.is_empty() && !database.is_wrong {
                findings.push(password.span, what, Some(cure.into()));
            }
        }
        let greylist = Self {
            enabled: section.read("enabled", reader::boolean, findings).value,
            mode: section.read("mode", |value| reader::choice(value, &MODES), findings).value,
            delay: delay.value,
            retry_window,
            lifetime: time(&mut section, "lifetime", findings),
            ipv4_prefix: prefix(&mut section, "ipv4-prefix", 32, findings),
            ipv6_prefix: prefix(&mut section, "ipv6-prefix", 128, findings),
            database: database.value,
            database_password: password.value,
            log_to_database: section.read("log-to-database", reader::boolean, findings).value,
            when_store_fails: section
                .read("when-store-fails", |value| reader::choice(value, &FAILURES), findings)
                .value,
            rules: GreylistRules::read(&mut section, greylist_for, retry_window, findings),
            service: GreylistService::read(service, findings),
        };
        section.finish(findings);
        greylist
    }
}

impl Queue {
    fn read(mut section: Section<'_, '_>, findings: &mut Findings<'_>) -> Self {
        const DURABILITIES: [(&str, Durability); 3] =
            [("group", Durability::Group), ("each", Durability::Each), ("none", Durability::None)];
        let from = &mut section;
        let segment_size = size_within(from, "segment-size", (MIB, GIB), findings);
        let body_aside_from = size_within(from, "body-aside-from", (KIB, 8 * MIB), findings);
        // Or a few messages would fill a segment, and each new one costs a pause.
        if body_aside_from.value.0 > segment_size.value.0 / 4 {
            let at = if body_aside_from.is_default { &segment_size } else { &body_aside_from };
            let cure = "make `segment-size` at least four times as large as `body-aside-from`";
            let what = "messages in the log are too large for its segments";
            findings.push(at.span.clone(), what, Some(cure.into()));
        }
        let retry_first = time_within(from, "retry-first", (SECOND, 7 * DAY), findings);
        let retry_max = time_within(from, "retry-max", (SECOND, 30 * DAY), findings);
        if retry_max.value < retry_first.value {
            let at = if retry_max.is_default { &retry_first } else { &retry_max };
            let cure = "make `retry-max` at least as long as `retry-first`";
            let what = "the longest wait between two tries is shorter than the first";
            findings.push(at.span.clone(), what, Some(cure.into()));
        }
        let queue = Self {
            durability: from
                .read("durability", |value| reader::choice(value, &DURABILITIES), findings)
                .value,
            segment_size: segment_size.value,
            body_aside_from: body_aside_from.value,
            memory_max: size_within(from, "memory-max", (MIB, 1024 * GIB), findings).value,
            uploads_max: count_to(from, "uploads-max", 100_000, findings),
            upload_pause_max: time_within(from, "upload-pause-max", (MINUTE, DAY), findings).value,
            spare_segments_max: count_to(from, "spare-segments-max", 100, findings),
            damage_told_max: count_to(from, "damage-told-max", 10_000, findings),
            free_space_min: size(from, "free-space-min", findings),
            lifetime: time_within(from, "lifetime", (MINUTE, 365 * DAY), findings).value,
            retry_first: retry_first.value,
            retry_max: retry_max.value,
            deliveries_at_once_max: count_to(from, "deliveries-at-once-max", 10_000, findings),
            batch_max: count_to(from, "batch-max", 100_000, findings),
            batch_size_max: size_within(from, "batch-size-max", (64 * KIB, GIB), findings).value,
            writers_max: count_to(from, "writers-max", 1000, findings),
            maildir_timeout: time_within(from, "maildir-timeout", (SECOND, DAY), findings).value,
            silent_mailboxes_max: count_to(from, "silent-mailboxes-max", 1000, findings),
            delivery_lag: time_within(from, "delivery-lag", (Duration::ZERO, MINUTE), findings)
                .value,
            delay_notice_after: time(from, "delay-notice-after", findings),
            notice_every: time_within(from, "notice-every", (SECOND, DAY), findings).value,
            accept_volatile: from.read("accept-volatile", reader::boolean, findings).value,
        };
        section.finish(findings);
        queue
    }
}
