//! The disk under a folder: its file system, whether that has a journal, and what its device did
//! (Linux, Documentation/admin-guide/iostats.rst).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::machine::{must, output};

/// A file system and the device below it.
#[derive(Clone)]
pub(crate) struct Disk {
    /// Its name, its journal and its options, for people.
    pub(crate) described: String,
    /// The device in /proc/diskstats, where there is one.
    device: Option<String>,
}

/// What a device did since the machine was started.
#[derive(Clone, Copy)]
pub(crate) struct Counters {
    pub(crate) flushes: f64,
    pub(crate) written_bytes: f64,
}

impl Disk {
    /// The disk under a folder.
    pub(crate) fn under(folder: &Path) -> Result<Self> {
        let facts = output(
            Command::new("findmnt")
                .args(["-n", "-r", "-o", "FSTYPE,SOURCE,OPTIONS", "-T"])
                .arg(folder),
        )?;
        let facts = facts.lines().next_back().unwrap_or_default();
        let mut facts = facts.split_whitespace();
        let system = facts.next().unwrap_or_default();
        let source = facts.next().unwrap_or_default();
        let source = source.rsplit('/').next().unwrap_or_default();
        let options: Vec<_> = facts
            .next()
            .unwrap_or_default()
            .split(',')
            // Who may use reserved blocks says nothing about speed.
            .filter(|option| !option.starts_with("res"))
            .collect();
        let journal = journal(system, source);
        let number = fs::metadata(folder).context("no such folder")?.dev();
        Ok(Self {
            described: format!("{system} {journal} ({})", options.join(",")),
            device: device(number),
        })
    }

    /// What the device did so far; nothing where it has no counters.
    pub(crate) fn counters(&self) -> Option<Counters> {
        let device = self.device.as_deref()?;
        let text = fs::read_to_string("/proc/diskstats").ok()?;
        counters(&text, device)
    }
}

/// Says whether a file system has a journal.
fn journal(system: &str, source: &str) -> &'static str {
    match system {
        "ext3" | "ext4" => {
            let journals = fs::read_dir("/proc/fs/jbd2").into_iter().flatten().flatten();
            let prefix = format!("{source}-");
            if journals
                .into_iter()
                .any(|one| one.file_name().to_string_lossy().starts_with(&prefix))
            {
                "with a journal"
            } else {
                "without a journal"
            }
        }
        "xfs" => "with its journal",
        "btrfs" => "with its log tree",
        "tmpfs" => "in memory, not durable",
        _ => "(journal unknown)",
    }
}

/// The whole device that holds a file system: flushes are counted for whole devices only.
fn device(number: u64) -> Option<String> {
    // How glibc packs device numbers (gnu_dev_major(3)).
    let major = ((number >> 8) & 0xfff) | ((number >> 32) & !0xfff);
    let minor = (number & 0xff) | ((number >> 12) & !0xff);
    let path = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let whole = if path.join("partition").exists() { path.parent()? } else { path.as_path() };
    Some(whole.file_name()?.to_string_lossy().into_owned())
}

fn counters(diskstats: &str, device: &str) -> Option<Counters> {
    /// Of all devices, whatever their blocks (iostats.rst).
    const SECTOR_BYTES: f64 = 512.0;
    let line = diskstats.lines().find(|line| line.split_whitespace().nth(2) == Some(device))?;
    let columns: Vec<f64> =
        line.split_whitespace().skip(3).filter_map(|column| column.parse().ok()).collect();
    Some(Counters { written_bytes: columns.get(6)? * SECTOR_BYTES, flushes: *columns.get(15)? })
}

/// Writes everything that waits in memory for this file system.
pub(crate) fn settle(folder: &Path) -> Result<()> {
    must(Command::new("sync").arg("-f").arg(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_diskstats() {
        let text = "   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n \
                    254       0 vda 18992 3919 2439658 12451 9456 33103 6071304 18911 0 5336 32065 5455 61 193232 625 2122 77\n";
        let counted = counters(text, "vda").unwrap();
        assert!((counted.flushes - 2122.0).abs() < 0.1);
        assert!((counted.written_bytes - 6_071_304.0 * 512.0).abs() < 0.1);
        assert!(counters(text, "sda").is_none());
    }
}
