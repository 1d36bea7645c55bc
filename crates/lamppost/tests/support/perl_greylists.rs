//! Debian's postgrey and sqlgrey, unpacked, asked until they know somebody.

use std::fs::{Permissions, set_permissions};
use std::io::BufReader;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::greylist::Asker;
use super::{PATIENCE, free_addresses, unpacked, until};

/// A user whom every Debian has.
const NOBODY: u32 = 65534;

/// One that runs, and has senders wait for a second.
pub(crate) struct PerlGreylist {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
}

impl PerlGreylist {
    pub(crate) fn postgrey() -> Self {
        Self::start("postgrey", &["-T"], |folder, address| {
            let options = ["--user=nobody", "--group=nogroup", "--delay=1"].map(str::to_owned);
            let lists = unpacked().join("postgrey/usr/share/postgrey");
            let lists = ["clients", "recipients"].map(|whose| {
                format!(
                    "--whitelist-{whose}={}",
                    lists.join(format!("whitelist_{whose}")).display()
                )
            });
            let places = [format!("--inet={address}"), format!("--dbdir={}", folder.display())];
            [&options[..], &lists, &places].concat()
        })
    }

    pub(crate) fn sqlgrey() -> Self {
        Self::start("sqlgrey", &[], |folder, address| {
            let lists = unpacked().join("sqlgrey/etc/sqlgrey");
            let text = format!(
                "conf_dir = {}\nuser = nobody\ngroup = nogroup\ninet = {address}\nadmin_mail =\n\
                 reconnect_delay = 0\ndb_type = SQLite\ndb_name = {}/sqlgrey.db\n",
                lists.display(),
                folder.display()
            );
            let config = folder.join("sqlgrey.conf");
            std::fs::write(&config, text).unwrap();
            ["-f".to_owned(), config.display().to_string()].to_vec()
        })
    }

    fn start(
        name: &str,
        switches: &[&str],
        arguments: impl FnOnce(&Path, SocketAddr) -> Vec<String>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        chown(folder.path(), Some(NOBODY), None).unwrap();
        let [address] = free_addresses();
        let root = unpacked().join(name);
        let libraries = root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
        let mut command = Command::new("perl");
        // Where a script is tainted Perl reads no PERL5LIB.
        command.args(switches).arg("-I").arg(root.join("usr/share/perl5"));
        command.arg("-I").arg(libraries.join("perl5/5.36")).arg(root.join("usr/sbin").join(name));
        command.args(arguments(folder.path(), address)).env("LD_LIBRARY_PATH", libraries);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let greylist = Self { child, folder, address };
        assert!(until(|| TcpStream::connect(address).is_ok()), "{name} does not start");
        greylist
    }

    /// Where it keeps what it knows.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Asks once; whether that passed.
    pub(crate) fn ask(&self, client: &str, from: &str, to: &str) -> bool {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut asker = Asker(BufReader::new(stream));
        asker.send(&format!(
            "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address={client}\n\
             client_name=mail.elsewhere.test\nsender={from}\nrecipient={to}\n\n"
        ));
        let answer = asker.answer();
        assert!(answer.starts_with("action="), "{answer}");
        !answer.to_lowercase().starts_with("action=defer_if_permit")
    }

    /// Asks until it passes.
    pub(crate) fn learn(&self, client: &str, from: &str, to: &str) {
        assert!(until(|| self.ask(client, from, to)));
    }
}

impl Drop for PerlGreylist {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
