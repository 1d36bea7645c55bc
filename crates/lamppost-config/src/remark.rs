//! What is odd about a configuration that can be read: each with its key, and what to do about it.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::Durability;
use crate::problem::{Problem, Problems, Severity};
use crate::{Config, format_duration};

/// Something about the value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// How bad it is.
    pub severity: Severity,
    /// The key with its section, such as `mail.domains`.
    pub key: String,
    /// What it is.
    pub what: String,
    /// What to do about it.
    pub cure: String,
}

impl Remark {
    /// Something that the program runs with, and probably not as it was meant.
    pub fn warning(key: &str, what: impl Into<String>, cure: impl Into<String>) -> Self {
        let (what, cure) = (what.into(), cure.into());
        Self { severity: Severity::Warning, key: key.to_owned(), what, cure }
    }

    /// Something that the program does not run with.
    pub fn error(key: &str, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { severity: Severity::Error, ..Self::warning(key, what, cure) }
    }
}

/// Remarks at the places of their keys in a file's text; a key that is not there is shown at its
/// section's head, or at the begin of the file.
pub fn placed(file: &Path, text: &str, remarks: Vec<Remark>) -> Problems {
    let (root, _) = DeTable::parse_recoverable(text);
    let problems = remarks.into_iter().map(|remark| {
        let span = place(root.get_ref(), &remark.key);
        let mut problem = Problem::new(text, span, remark.what, Some(remark.cure));
        problem.severity = remark.severity;
        problem
    });
    Problems::new(file.display().to_string(), text.to_owned(), problems.collect())
}

/// The line of a key in a file's text, from 1; nothing when the key is not there. What is in a list
/// is named by its number, as in `mail.listen.0.address.1`.
pub fn line_of(text: &str, key: &str) -> Option<usize> {
    let (root, _) = DeTable::parse_recoverable(text);
    let (span, is_whole) = find(root.get_ref(), key);
    let before = text.get(..span.start).filter(|_| is_whole)?;
    Some(before.matches('\n').count() + 1)
}

/// The text that stands at a key in a file's text, as far as that can be read; the file may be wrong.
pub fn text_of(text: &str, key: &str) -> Option<String> {
    let (root, _) = DeTable::parse_recoverable(text);
    let mut table = root.get_ref();
    let (sections, name) = key.rsplit_once('.').unwrap_or(("", key));
    for section in sections.split('.').filter(|section| !section.is_empty()) {
        table = table.get(section)?.get_ref().as_table()?;
    }
    table.get(name)?.get_ref().as_str().map(str::to_owned)
}

/// Where a key, or the nearest section that would hold it, stands.
fn place(root: &DeTable<'_>, key: &str) -> Range<usize> {
    find(root, key).0
}

/// The place of the longest part of a key that is there, and whether that is all of it.
fn find(root: &DeTable<'_>, key: &str) -> (Range<usize>, bool) {
    let mut parts = key.split('.');
    let mut span = 0..0;
    let mut found = parts.next().and_then(|part| root.get(part));
    while let Some(value) = found {
        span = Spanned::span(value);
        let Some(part) = parts.next() else { return (span, true) };
        found = match value.get_ref() {
            DeValue::Table(table) => table.get(part),
            DeValue::Array(list) => part.parse().ok().and_then(|number: usize| list.get(number)),
            _ => None,
        };
    }
    (span, false)
}

impl Config {
    /// What is odd about it, as far as the file alone tells.
    pub fn remarks(&self) -> Vec<Remark> {
        let mut remarks = Vec::new();
        let is_asked = self.mail.greylist.service.is_on();
        if self.mail.listen.is_empty() && !is_asked {
            let what = "there is no [[mail.listen]]: nothing would run";
            remarks.push(Remark::error("mail.listen", what, "`lamppost init -` shows one"));
        }
        let users = &self.mail.system_users;
        let is_greylist_alone = self.mail.listen.is_empty() && is_asked;
        if self.mail.domains.is_empty() && users.domains.is_empty() && !is_greylist_alone {
            let what = "no domain is served: mail from outside is refused, whoever it is for";
            let cure = "name the domains whose mailboxes are here: `domains = [\"example.org\"]` in `[mail]`";
            remarks.push(Remark::warning("mail.domains", what, cure));
        }
        for (number, domain) in self.mail.domains.iter().enumerate() {
            if self.mail.domains[..number].contains(domain) {
                let key = format!("mail.domains.{number}");
                let what = format!("`{domain}` is named twice; upper and lower case are the same");
                remarks.push(Remark::warning(&key, what, "remove one of the two"));
            }
        }
        if let Some(postmaster) = &self.mail.postmaster
            && let Some((_, domain)) = postmaster.rsplit_once('@')
            && !self.mail.domains.contains(&domain.to_lowercase())
            && !users.domains.contains(&domain.to_lowercase())
        {
            let what = format!("`{domain}` is not in `domains`: this account can have no mailbox");
            let cure = "name an account whose domain is served here";
            remarks.push(Remark::warning("mail.postmaster", what, cure));
        }
        let is_for_some = self.mail.greylist.rules.exceptions.iter().any(|one| one.enabled);
        if is_asked && !self.mail.greylist.enabled && !is_for_some {
            let key = "mail.greylist.enabled";
            let what = "the greylist is asked in [mail.greylist.service], and defers nobody";
            remarks.push(Remark::warning(key, what, "set `enabled = true` in `[mail.greylist]`"));
        }
        self.odd_limits(&mut remarks);
        self.odd_queue(&mut remarks);
        remarks
    }

    fn odd_limits(&self, remarks: &mut Vec<Remark>) {
        let limits = &self.mail.limits;
        let mut warn = |key: &str, what: String, cure: &str| {
            remarks.push(Remark::warning(&format!("mail.{key}"), what, cure));
        };
        if limits.sessions_per_address_max > limits.sessions_max {
            warn(
                "limits.sessions-per-address-max",
                "one address may have all sessions: it is more than `sessions-max`".into(),
                "make it a small part of `sessions-max`",
            );
        }
        if limits.recipients_max < 100 {
            let what = "clients may count on 100 recipients of a message (RFC 5321 4.5.3.1.8)";
            warn("limits.recipients-max", what.into(), "make it at least 100");
        }
        if limits.message_size_max.0 < 64 * 1024 {
            let what = "clients may count on messages of 64 KiB (RFC 5321 4.5.3.1.7)";
            warn("limits.message-size-max", what.into(), "make it at least \"64KiB\"");
        }
        let minute = Duration::from_secs(60);
        for (key, timeout) in [
            ("limits.command-timeout", limits.command_timeout),
            ("limits.data-start-timeout", limits.data_start_timeout),
            ("limits.data-block-timeout", limits.data_block_timeout),
        ] {
            if timeout < minute {
                let what =
                    format!("{} cuts off clients that are only slow", format_duration(timeout));
                warn(key, what, "make it at least \"1m\" (RFC 5321 4.5.3.2 asks for more)");
            }
        }
        if self.mail.auth.hashes_at_once_max > 64 {
            let memory = self.mail.auth.hashes_at_once_max * 19;
            let what = format!("passwords that are checked at once may take {memory} MiB");
            warn("auth.hashes-at-once-max", what, "some two for each processor are enough");
        }
        let greylist = &self.mail.greylist;
        if greylist.enabled && greylist.lifetime < greylist.retry_window {
            let what = "senders that came back are forgotten sooner than those that did not";
            warn("greylist.lifetime", what.into(), "make it longer than `retry-window`");
        }
    }

    fn odd_queue(&self, remarks: &mut Vec<Remark>) {
        let queue = &self.mail.queue;
        let mut warn = |key: &str, what: &str, cure: &str| {
            remarks.push(Remark::warning(&format!("mail.queue.{key}"), what, cure));
        };
        if queue.durability == Durability::None {
            let what = "a power cut loses mail that was acknowledged";
            warn("durability", what, "\"group\" costs a part of a sync for each message");
        }
        if queue.lifetime < queue.retry_max {
            let what = "messages are given up before the longest wait between two tries is over";
            warn("lifetime", what, "make it longer than `retry-max`");
        }
        if queue.delay_notice_after >= queue.lifetime {
            let what = "messages are given up before their senders are told that it takes longer";
            warn(
                "delay-notice-after",
                what,
                "make it shorter than `lifetime`, or \"0s\" for never",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_on_their_lines() {
        let text =
            "[mail]\ndomains = []\n[[mail.listen]]\naddress = [\"127.0.0.1:25\",\n \"[::1]:25\"]\n";
        for (key, line) in [
            ("mail.domains", Some(2)),
            ("mail.listen.0.address", Some(4)),
            ("mail.listen.0.address.1", Some(5)),
            ("mail.listen.1.address", None),
            ("mail.postmaster", None),
            ("server.state", None),
        ] {
            assert_eq!(line_of(text, key), line, "{key}");
        }
    }

    #[test]
    fn texts_of_a_wrong_file_are_read_as_far_as_they_can_be() {
        let text = "top = \"x\"\n[server]\nstate = \"/s\"\nhostname =\n[mail]\ndomains = 5\n";
        for (key, expected) in [
            ("top", Some("x")),
            ("server.state", Some("/s")),
            ("server.control-socket", None),
            ("mail.domains", None),
            ("log.level", None),
        ] {
            assert_eq!(text_of(text, key).as_deref(), expected, "{key}");
        }
    }

    #[test]
    fn a_domain_is_named_once() {
        let text = "[mail]\ndomains = [\"example.org\", \"other.test\",\n\"Example.ORG\"]\n";
        let config = Config::parse(text, Path::new("lamppost.toml")).unwrap();
        let problems = placed(Path::new("lamppost.toml"), text, config.remarks());
        let twice =
            problems.problems.iter().find(|problem| problem.what.contains("twice")).unwrap();
        assert_eq!((twice.line, twice.severity), (3, Severity::Warning));
    }
}
