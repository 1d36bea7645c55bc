//! A private Postfix: unpacked by `cargo xtask setup`, on loopback ports of its own, with TLS by a
//! certificate of an authority of its own, delivering into a Maildir. It needs root.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lamppost_net::demo_ca;
use tempfile::TempDir;

use super::{files, free_addresses, unpacked, until};

/// Services of master.cf besides smtpd: the name and the program.
const SERVICES: [(&str, &str); 13] = [
    ("pickup", "pickup"),
    ("cleanup", "cleanup"),
    ("qmgr", "qmgr"),
    ("tlsmgr", "tlsmgr"),
    ("rewrite", "trivial-rewrite"),
    ("bounce", "bounce"),
    ("defer", "bounce"),
    ("trace", "bounce"),
    ("proxymap", "proxymap"),
    ("error", "error"),
    ("retry", "error"),
    ("virtual", "virtual"),
    ("anvil", "anvil"),
];

/// A running Postfix, ended with the test.
pub(crate) struct Postfix {
    child: Child,
    folder: TempDir,
    /// Where it takes mail, under STARTTLS alone.
    pub(crate) starttls: SocketAddr,
    /// Where it takes mail with TLS from the first byte.
    pub(crate) implicit: SocketAddr,
    /// The authority of its certificate.
    pub(crate) ca: PathBuf,
}

impl Postfix {
    /// Starts it; `more` are lines of main.cf, which take the place of those that it has otherwise.
    pub(crate) fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path());
        let demo = demo_ca::ensure(&folder.path().join("tls"), "localhost", demo_ca::today());
        let demo = demo.unwrap();
        lay_out(folder.path());
        let [starttls, implicit] = free_addresses();
        let main = main_cf(folder.path(), &demo.files, more);
        std::fs::write(folder.path().join("config/main.cf"), main).unwrap();
        std::fs::write(folder.path().join("config/master.cf"), master_cf(starttls, implicit))
            .unwrap();
        let root = unpacked().join("postfix");
        let triplet = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        let libraries = [root.join("usr/lib/postfix"), root.join(triplet)];
        let said = std::fs::File::create(folder.path().join("said")).unwrap();
        // In a namespace of processes, all of it ends with its first process.
        let child = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child"])
            .arg(root.join("usr/lib/postfix/sbin/master"))
            .arg("-c")
            .arg(folder.path().join("config"))
            .args(["-d"])
            .env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap())
            .env("MAIL_CONFIG", folder.path().join("config"))
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .unwrap();
        let server = Self { child, folder, starttls, implicit, ca: demo.ca };
        for address in [starttls, implicit] {
            assert!(until(|| TcpStream::connect(address).is_ok()), "{}", server.log());
        }
        server
    }

    /// What it wrote.
    pub(crate) fn log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.folder.path().join(name));
        read("said").unwrap_or_default() + &read("mail.log").unwrap_or_default()
    }

    /// The messages that it delivered.
    pub(crate) fn messages(&self) -> Vec<String> {
        let new = self.folder.path().join("mail/someone/Maildir/new");
        files(&new).iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // Postfix' master forgets to end with its parent when it takes the rights of others for a while.
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        for child in children.unwrap_or_default().split_whitespace() {
            super::signal(child.parse().unwrap(), "KILL");
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Users that every system has stand in for Postfix' own.
fn id(user: &str, which: &str) -> u32 {
    let output = Command::new("id").args([which, user]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn operator() -> u32 {
    let output = Command::new("getent").args(["group", "operator"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(':').nth(2).unwrap().parse().unwrap()
}

fn open(folder: &Path) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn lay_out(folder: &Path) {
    let make = |name: &str, owner: u32, group: Option<u32>, mode: u32| {
        let path = folder.join(name);
        std::fs::create_dir_all(&path).unwrap();
        chown(&path, Some(owner), group).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let daemon = id("daemon", "-u");
    make("config", 0, None, 0o755);
    make("queue", 0, None, 0o755);
    for name in [
        "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private",
        "saved", "trace",
    ] {
        make(&format!("queue/{name}"), daemon, None, 0o700);
    }
    make("queue/maildrop", daemon, Some(operator()), 0o730);
    make("queue/public", daemon, Some(operator()), 0o710);
    make("queue/pid", 0, None, 0o755);
    make("data", daemon, None, 0o755);
    make("mail", id("nobody", "-u"), None, 0o755);
}

fn main_cf(folder: &Path, tls: &lamppost_net::KeyPair, more: &str) -> String {
    let root = unpacked().join("postfix");
    let (root, nobody) = (root.display(), id("nobody", "-u"));
    let (certificate, key) = (tls.certificate.display(), tls.key.display());
    let folder = folder.display();
    let usual = format!(
        "compatibility_level = 3.6\nqueue_directory = {folder}/queue\ndata_directory = {folder}/data\n\
         command_directory = {root}/usr/sbin\ndaemon_directory = {root}/usr/lib/postfix/sbin\n\
         shlib_directory = {root}/usr/lib/postfix\nmeta_directory = {root}/etc/postfix\n\
         mail_owner = daemon\ndefault_privs = nobody\nsetgid_group = operator\n\
         import_environment = MAIL_CONFIG TZ LANG=C LD_LIBRARY_PATH\n\
         maillog_file = {folder}/mail.log\nmaillog_file_prefixes = /\n\
         myhostname = relay.there.test\nmydestination =\nmynetworks = 127.0.0.0/8\n\
         inet_interfaces = loopback-only\ninet_protocols = ipv4\nalias_maps =\n\
         local_recipient_maps =\nvirtual_mailbox_domains = there.test\n\
         virtual_transport = virtual\nvirtual_mailbox_base = {folder}/mail\n\
         virtual_mailbox_maps = inline:{{ {{ someone@there.test = someone/Maildir/ }} }}\n\
         virtual_uid_maps = static:{nobody}\nvirtual_gid_maps = static:{nobody}\n\
         virtual_minimum_uid = 1\nsmtpd_peername_lookup = no\n\
         smtpd_relay_restrictions = permit_mynetworks, reject\n\
         smtpd_tls_cert_file = {certificate}\nsmtpd_tls_key_file = {key}\n\
         smtpd_tls_security_level = encrypt\nsmtpd_tls_received_header = yes\n\
         smtpd_tls_loglevel = 1\n"
    );
    // Each process warns of a name that comes twice, and so many lines at once block the one that writes
    // the log, which warns by the same socket.
    let name = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let others: Vec<_> = more.lines().map(name).collect();
    let kept = usual.lines().filter(|line| !others.contains(&name(line)));
    kept.chain(more.lines()).fold(String::new(), |text, line| text + line + "\n")
}

fn master_cf(starttls: SocketAddr, implicit: SocketAddr) -> String {
    let mut text = format!(
        "{starttls} inet n - n - 10 smtpd\n\
         {implicit} inet n - n - 10 smtpd -o smtpd_tls_wrappermode=yes\n\
         postlog unix-dgram n - n - 1 postlogd\n"
    );
    for (name, program) in SERVICES {
        let private = if ["pickup", "cleanup", "qmgr"].contains(&name) { "n" } else { "-" };
        let wakeup = match name {
            "pickup" => "60",
            "qmgr" => "300",
            "tlsmgr" => "1000?",
            _ => "-",
        };
        let most = match name {
            "qmgr" | "pickup" | "anvil" | "tlsmgr" => "1",
            // They insist on no limit.
            "cleanup" | "bounce" | "defer" | "trace" => "0",
            _ => "-",
        };
        let unprivileged = if name == "virtual" { "n" } else { "-" };
        writeln!(text, "{name} unix {private} {unprivileged} n {wakeup} {most} {program}").unwrap();
    }
    text
}
