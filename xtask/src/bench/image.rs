//! A freshly made file system in a file, on a loop device: what a benchmark or test measures there
//! does not depend on how this machine's own disk was formatted.
//!
//! Nothing of it outlives the program, however that ends: the mount is in a namespace of its own, the
//! device lets go with the last mount, and the file has no name any more once it is mounted.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::machine::{must, output, root, unpacked, works};

/// Tells the program that it already has a namespace of its own.
const INSIDE: &str = "LAMPPOST_XTASK_OWN_MOUNTS";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    Ext4,
    Xfs,
}

pub(crate) struct Image {
    mounted: PathBuf,
}

/// Starts the program anew in a mount namespace of its own, unless it is in one.
///
/// # Errors
/// When it cannot; otherwise the program that called is replaced.
pub(crate) fn own_mounts() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    ensure!(
        output(Command::new("id").arg("-u"))?.trim() == "0",
        "a file system can be made and mounted by root only"
    );
    let error = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(error).context("cannot run unshare")
}

impl Image {
    /// Makes and mounts a file system of so many MiB below `target`.
    pub(crate) fn make(system: System, size_mib: u32) -> Result<Self> {
        ensure!(std::env::var_os(INSIDE).is_some(), "the mounts would outlive the program");
        let (file, folder) = (root().join("target/bench.img"), root().join("target/bench-image"));
        std::fs::create_dir_all(&folder)?;
        drop(std::fs::remove_file(&file));
        must(Command::new("truncate").args(["-s", &format!("{size_mib}M")]).arg(&file))?;
        let made = format(system, &file).and_then(|()| mount(&file, &folder));
        // From here on the mount alone keeps the file.
        std::fs::remove_file(&file)?;
        made.map(|()| Self { mounted: folder })
    }

    /// Where it is mounted.
    pub(crate) fn folder(&self) -> &Path {
        &self.mounted
    }
}

fn format(system: System, file: &Path) -> Result<()> {
    match system {
        System::Ext4 => {
            must(Command::new("mkfs.ext4").args(["-q", "-F", "-O", "has_journal"]).arg(file))
        }
        System::Xfs => {
            let own = unpacked().join("xfsprogs");
            let mut command = if works(Command::new("mkfs.xfs").arg("-V")) {
                Command::new("mkfs.xfs")
            } else {
                Command::new(own.join("sbin/mkfs.xfs"))
            };
            let libraries = own.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
            must(command.args(["-q", "-f"]).arg(file).env("LD_LIBRARY_PATH", libraries))
        }
    }
}

fn mount(file: &Path, folder: &Path) -> Result<()> {
    // Past the page cache of the file system below, which would otherwise hold everything twice.
    let attach =
        |direct: &str| output(Command::new("losetup").args([direct, "--find", "--show"]).arg(file));
    let device = attach("--direct-io=on").or_else(|_| attach("--direct-io=off"))?;
    let device = device.trim();
    let mounted = must(Command::new("mount").arg(device).arg(folder));
    // It stays for as long as it is mounted.
    must(Command::new("losetup").args(["-d", device]))?;
    mounted
}

impl Drop for Image {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.mounted).status());
        drop(std::fs::remove_dir(&self.mounted));
    }
}
