//! Postfix as it is measured: Debian's package, unpacked into a folder of its own and started on
//! loopback with its durable defaults, delivering by virtual(8) into a Maildir.
//!
//! Its master needs root. Users that every Debian has stand in for its own.

use std::fmt::Write as _;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::load::postfix_libraries;
use super::peer::Peer;
use super::process::{caged, end};
use super::syncs::watched;
use super::{Server, await_port, write};
use crate::machine::output;
use crate::setup;

/// Services of master.cf that local delivery needs: name, type, and the program.
const SERVICES: [(&str, &str, &str); 12] = [
    ("pickup", "unix", "pickup"),
    ("cleanup", "unix", "cleanup"),
    ("qmgr", "unix", "qmgr"),
    ("rewrite", "unix", "trivial-rewrite"),
    ("bounce", "unix", "bounce"),
    ("defer", "unix", "bounce"),
    ("trace", "unix", "bounce"),
    ("proxymap", "unix", "proxymap"),
    ("error", "unix", "error"),
    ("retry", "unix", "error"),
    ("virtual", "unix", "virtual"),
    ("anvil", "unix", "anvil"),
];

pub(super) struct Postfix {
    child: Child,
    mail: PathBuf,
}

impl Postfix {
    pub(super) fn start(folder: &Path, syncs: Option<&Path>) -> Result<Self> {
        Self::start_with(folder, syncs, "")
    }

    /// With more lines of main.cf, of which the last with a name counts.
    pub(super) fn start_with(folder: &Path, syncs: Option<&Path>, more: &str) -> Result<Self> {
        ensure!(
            output(Command::new("id").arg("-u"))?.trim() == "0",
            "Postfix can be started by root only"
        );
        let (config, queue) = (folder.join("config"), folder.join("queue"));
        let (data, mail) = (folder.join("data"), folder.join("mail"));
        for path in [&config, &queue, &data, &mail] {
            std::fs::create_dir_all(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
        }
        let (daemon, operator) = (id("daemon", "-u")?, group("operator")?);
        let nobody = id("nobody", "-u")?;
        for name in [
            "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming",
            "private", "saved", "trace",
        ] {
            make(&queue.join(name), daemon, None, 0o700)?;
        }
        make(&queue.join("maildrop"), daemon, Some(operator), 0o730)?;
        make(&queue.join("public"), daemon, Some(operator), 0o710)?;
        make(&queue.join("pid"), 0, None, 0o755)?;
        chown(&data, Some(daemon), None)?;
        chown(&mail, Some(nobody), None)?;
        write(&config.join("main.cf"), &(main_cf(folder, nobody) + more))?;
        write(&config.join("master.cf"), &master_cf())?;
        let log = std::fs::File::create(folder.join("log"))?;
        let mut words = watched(&setup::postfix().join("usr/lib/postfix/sbin/master"), syncs);
        words.extend(["-c".into(), config.clone().into(), "-d".into()]);
        let child = caged(&words, (&[], ""))
            .env("LD_LIBRARY_PATH", postfix_libraries())
            .env("MAIL_CONFIG", &config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run Postfix")?;
        let server = Self { child, mail };
        await_port(&Peer::Postfix.address())?;
        Ok(server)
    }
}

fn main_cf(folder: &Path, nobody: u32) -> String {
    let root = setup::postfix();
    let root = root.display();
    let folder = folder.display();
    format!(
        "compatibility_level = 3.6\nqueue_directory = {folder}/queue\ndata_directory = {folder}/data\n\
         command_directory = {root}/usr/sbin\ndaemon_directory = {root}/usr/lib/postfix/sbin\n\
         shlib_directory = {root}/usr/lib/postfix\nmeta_directory = {root}/etc/postfix\n\
         mail_owner = daemon\ndefault_privs = nobody\nsetgid_group = operator\n\
         import_environment = MAIL_CONFIG TZ LANG=C LD_LIBRARY_PATH\nmaillog_file = {folder}/mail.log\nmaillog_file_prefixes = /\n\
         myhostname = mail.lamppost.test\nmydestination =\nmynetworks = 127.0.0.0/8\n\
         inet_interfaces = loopback-only\ninet_protocols = ipv4\nalias_maps =\nlocal_recipient_maps =\n\
         virtual_mailbox_domains = lamppost.test\nvirtual_transport = virtual\n\
         virtual_mailbox_base = {folder}/mail\nvirtual_mailbox_maps = inline:{{ demo@lamppost.test=demo/Maildir/ }}\n\
         virtual_uid_maps = static:{nobody}\nvirtual_gid_maps = static:{nobody}\nvirtual_minimum_uid = 1\n\
         smtpd_client_connection_count_limit = 0\nsmtpd_peername_lookup = no\n\
         smtpd_relay_restrictions = permit_mynetworks, reject\n"
    )
}

fn master_cf() -> String {
    let port = Peer::Postfix.port();
    let mut text = format!("127.0.0.1:{port} inet n - n - 120 smtpd\n");
    text.push_str("postlog unix-dgram n - n - 1 postlogd\n");
    for (name, kind, program) in SERVICES {
        let private = if ["pickup", "cleanup", "qmgr"].contains(&name) { "n" } else { "-" };
        let wakeup = match name {
            "pickup" => "60",
            "qmgr" => "300",
            _ => "-",
        };
        let most = match name {
            "qmgr" | "pickup" | "anvil" => "1",
            // They insist on no limit.
            "cleanup" | "bounce" | "defer" | "trace" => "0",
            _ => "-",
        };
        let unprivileged = if name == "virtual" { "n" } else { "-" };
        let _infallible =
            writeln!(text, "{name} {kind} {private} {unprivileged} n {wakeup} {most} {program}");
    }
    text
}

fn id(user: &str, which: &str) -> Result<u32> {
    output(Command::new("id").args([which, user]))?.trim().parse().context("no such user")
}

fn group(name: &str) -> Result<u32> {
    let line = output(Command::new("getent").args(["group", name]))?;
    line.split(':').nth(2).and_then(|id| id.parse().ok()).context("no such group")
}

fn make(path: &Path, owner: u32, group: Option<u32>, mode: u32) -> Result<()> {
    std::fs::create_dir_all(path)?;
    chown(path, Some(owner), group)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(())
}

impl Server for Postfix {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn new_folder(&self) -> PathBuf {
        self.mail.join("demo/Maildir/new")
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
