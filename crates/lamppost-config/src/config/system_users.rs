//! `[mail.system-users]`: domains whose mailboxes lie in the homes of this machine's users.

use std::path::{Component, Path};
use std::time::Duration;

use super::sendmail::user;
use super::{DAY, GIB, MIB, SECOND, count_to, size_within, time_within};
use crate::reader::{self, Findings, Section, Wrong};
use crate::unit::ByteSize;

/// `[mail.system-users]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct SystemUsers {
    pub domains: Vec<String>,
    pub maildir: String,
    pub uid_min: u32,
    pub except: Vec<String>,
    pub processes_max: usize,
    pub process_idle: Duration,
    pub process_memory_max: ByteSize,
    pub process_files_max: usize,
}

impl SystemUsers {
    pub(super) fn read(
        mut section: Section<'_, '_>,
        accounts: &[String],
        findings: &mut Findings<'_>,
    ) -> Self {
        let from = &mut section;
        let domains =
            from.read("domains", |value| reader::entries(value, reader::domain), findings);
        for domain in domains.value.iter().filter(|domain| accounts.contains(domain)) {
            let what =
                format!("`{domain}` is in `domains` of [mail] too: its mailboxes are either");
            let cure = "name it in one of the two";
            findings.push(domains.span.clone(), what, Some(cure.into()));
        }
        // The superuser would be served otherwise, whose home a stranger's mail must never reach.
        let uid = |value: &_| reader::number(value, 1, u64::from(u32::MAX - 1));
        let uid_min = from.read("uid-min", uid, findings).value;
        let users = |value: &_| reader::entries(value, user);
        let memory = (64 * MIB, 1024 * GIB);
        let users = Self {
            domains: domains.value,
            maildir: from.read("maildir", beneath, findings).value,
            uid_min: u32::try_from(uid_min).unwrap_or(u32::MAX),
            except: from.read("except", users, findings).value,
            processes_max: count_to(from, "processes-max", 10_000, findings),
            process_idle: time_within(from, "process-idle", (SECOND, DAY), findings).value,
            process_memory_max: size_within(from, "process-memory-max", memory, findings).value,
            process_files_max: files(from, findings),
        };
        section.finish(findings);
        users
    }
}

/// With fewer a process could not even begin.
fn files(section: &mut Section<'_, '_>, findings: &mut Findings<'_>) -> usize {
    let read = |value: &_| reader::number(value, 64, 100_000);
    let files = section.read("process-files-max", read, findings).value;
    usize::try_from(files).unwrap_or(usize::MAX)
}

/// A folder in a home, which leads nowhere else.
fn beneath(value: &toml::Spanned<toml::de::DeValue<'_>>) -> Result<String, Wrong> {
    let text = reader::text(value)?;
    let is_name = |part| matches!(part, Component::Normal(_));
    if !text.is_empty() && !text.ends_with('/') && Path::new(&text).components().all(is_name) {
        return Ok(text);
    }
    Err(Wrong::new(
        "is no folder in a home",
        "write it as seen from the home, without `..`, such as \"Maildir\" or \"mail/inbox\"",
    ))
}
