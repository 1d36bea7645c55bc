//! A private view of the machine for peers whose users and paths are fixed when they are built: own
//! users, own resolver, own /var/spool, in namespaces that end with the peer.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::account::Account;
use super::process::caged;
use super::{resolver, write};
use crate::machine::{must, output, unpacked};

/// Who owns the mailbox in a view.
pub(crate) const MAILBOX_OWNER: &str = "demo";
const USERS: [(&str, u32); 4] =
    [("Debian-exim", 64101), ("opensmtpd", 64102), ("opensmtpq", 64103), (MAILBOX_OWNER, 64104)];

/// Folders and files that a view has of its own.
const OWN: [&str; 8] = [
    "etc/passwd",
    "etc/group",
    "etc/resolv.conf",
    "etc/ld.so.cache",
    "var/spool",
    "var/lib",
    "usr/libexec",
    "run",
];

pub(crate) struct View {
    folder: PathBuf,
    script: String,
    account: Option<Account>,
}

impl View {
    /// Makes a view in a folder, for the peer that is unpacked below `target/peers`.
    pub(crate) fn make(folder: &Path, peer: &str) -> Result<Self> {
        ensure!(
            output(Command::new("id").arg("-u"))?.trim() == "0",
            "this peer can be started by root only"
        );
        for hidden in ["/run/", "/var/lib/", "/var/spool/", "/usr/libexec/"] {
            ensure!(
                !folder.starts_with(hidden),
                "{} is hidden from the peers: take a folder that is not below {hidden}",
                folder.display()
            );
        }
        let own = folder.join("view");
        for sub in ["etc", "var/spool", "var/lib", "usr/libexec", "run"] {
            std::fs::create_dir_all(own.join(sub))?;
        }
        let (mut users, mut groups) =
            (std::fs::read_to_string("/etc/passwd")?, std::fs::read_to_string("/etc/group")?);
        for (name, id) in USERS {
            let _infallible = writeln!(users, "{name}:x:{id}:{id}::/nonexistent:/bin/false");
            let _infallible = writeln!(groups, "{name}:x:{id}:");
        }
        write(&own.join("etc/passwd"), &users)?;
        write(&own.join("etc/group"), &groups)?;
        write(&own.join("etc/resolv.conf"), &format!("nameserver {}\n", resolver::ADDRESS))?;
        // Programs that run by set-user-id take libraries from the cache only.
        let libraries =
            unpacked().join(peer).join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
        let list = own.join("etc/ld.so.conf");
        write(&list, &format!("{}\ninclude /etc/ld.so.conf\n", libraries.display()))?;
        must(
            Command::new("ldconfig")
                .args(["-X", "-f"])
                .arg(&list)
                .arg("-C")
                .arg(own.join("etc/ld.so.cache")),
        )?;
        let account = Account::open(peer);
        let mut script = String::new();
        if let Some(account) = &account {
            let _infallible = writeln!(script, "echo $$ > '{}'", account.members().display());
        }
        for path in OWN {
            let _infallible =
                writeln!(script, "mount --bind '{}' /{path}", own.join(path).display());
        }
        Ok(Self { folder: own, script, account })
    }

    /// Where a path of the view lies outside of it.
    pub(crate) fn outside(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// Seconds of CPU time of everything that ran in the view, where the kernel keeps an account.
    pub(crate) fn cpu_s(&self) -> Option<f64> {
        self.account.as_ref()?.cpu_s()
    }

    /// Makes a folder outside of the view for one of its users.
    pub(crate) fn give(path: &Path, user: &str) -> Result<()> {
        std::fs::create_dir_all(path)?;
        let id = USERS.iter().find(|(name, _)| *name == user).map(|(_, id)| *id);
        chown(path, id, id).with_context(|| format!("cannot give away {}", path.display()))
    }

    /// Runs a command in the view; everything in it ends when the child is killed.
    pub(crate) fn run(&self, command: &[OsString], log: &Path) -> Result<Child> {
        let log = std::fs::File::create(log)?;
        let own_mounts = ["--mount", "--propagation", "private"];
        caged(command, (&own_mounts, &self.script))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run unshare")
    }
}
