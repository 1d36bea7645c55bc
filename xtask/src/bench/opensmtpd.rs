//! `OpenSMTPD` as it is measured: Debian's package, unpacked into a folder of its own and started on
//! loopback, delivering by mail.maildir. It answers before anything is synced.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::Result;

use super::peer::Peer;
use super::process::{Usage, end};
use super::syncs::watched;
use super::view::{MAILBOX_OWNER, View};
use super::{Server, await_port, write};
use crate::machine::{must, unpacked};

pub(super) struct Opensmtpd {
    child: Child,
    mail: PathBuf,
    view: View,
}

impl Opensmtpd {
    pub(super) fn start(folder: &Path, syncs: Option<&Path>) -> Result<Self> {
        let root = unpacked().join("opensmtpd");
        let view = View::make(folder, "opensmtpd")?;
        let mail = folder.join("mail");
        View::give(&mail, MAILBOX_OWNER)?;
        std::fs::create_dir_all(view.outside("var/lib/opensmtpd/empty"))?;
        let spool = view.outside("var/spool");
        std::fs::set_permissions(&spool, std::fs::Permissions::from_mode(0o711))?;
        let programs = root.join("usr/libexec/opensmtpd");
        must(Command::new("cp").arg("-a").arg(programs).arg(view.outside("usr/libexec")))?;
        let config = folder.join("smtpd.conf");
        write(&config, &configuration(&mail))?;
        let mut words = watched(&root.join("usr/sbin/smtpd"), syncs);
        words.extend(["-d".into(), "-f".into(), config.into_os_string()]);
        let child = view.run(&words, &folder.join("log"))?;
        let server = Self { child, mail, view };
        await_port(&Peer::Opensmtpd.address())?;
        Ok(server)
    }
}

fn configuration(mail: &Path) -> String {
    let port = Peer::Opensmtpd.port();
    format!(
        "listen on 127.0.0.1 port {port} hostname mail.lamppost.test\n\
         smtp limit max-mails 1000000\n\
         table users {{ \"demo@lamppost.test\" = {MAILBOX_OWNER} }}\n\
         action \"in\" maildir \"{}/Maildir\" virtual <users>\n\
         match from any for domain \"lamppost.test\" action \"in\"\n",
        mail.display()
    )
}

impl Server for Opensmtpd {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn new_folder(&self) -> PathBuf {
        self.mail.join("Maildir/new")
    }

    fn cpu_s(&self) -> f64 {
        self.view.cpu_s().unwrap_or_else(|| Usage::of(self.pid()).cpu_s)
    }
}

impl Drop for Opensmtpd {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
