//! Debian's tinydns with names of its own.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::mounted::skipped;
use super::{lamppost, succeeded, unpacked, until};

/// A name server on port 53 of an address of this machine.
pub(crate) struct Tinydns {
    child: Child,
    _folder: TempDir,
}

impl Tinydns {
    /// Begins it with the lines of its `data` (tinydns-data(8)); only root can.
    pub(crate) fn start(address: Ipv4Addr, data: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skipped("names of clients: only root can have a name server on port 53");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // It gives up being root.
        let readable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), readable).unwrap();
        let data = format!(".ready.test:{address}:a\n{data}");
        std::fs::write(folder.path().join("data"), data).unwrap();
        let program = |name: &str| Command::new(unpacked().join("tinydns/usr/sbin").join(name));
        succeeded(&program("tinydns-data").current_dir(&folder).output().unwrap());
        let mut command = program("tinydns");
        command.env("ROOT", folder.path()).env("IP", address.to_string());
        command.env("UID", "65534").env("GID", "65534");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { child: command.spawn().unwrap(), _folder: folder };
        assert!(until(|| answers(address)));
        Some(server)
    }
}

impl Drop for Tinydns {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether it answers a question for `ready.test`, which it has beside its lines.
fn answers(server: Ipv4Addr) -> bool {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let begin = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let question = [&begin[..], b"\x05ready\x04test\0", &[0, 2, 0, 1]].concat();
    socket.send_to(&question, (server, 53)).is_ok() && socket.recv(&mut [0; 512]).is_ok()
}

/// `lamppost`, whose system asks this name server alone for names; only root can have that.
pub(crate) fn lamppost_asking(server: IpAddr, folder: &std::path::Path) -> Command {
    let (servers, order) = (folder.join("resolv.conf"), folder.join("nsswitch.conf"));
    std::fs::write(&servers, format!("nameserver {server}\noptions timeout:30\n")).unwrap();
    std::fs::write(&order, "hosts: dns\n").unwrap();
    let script = "mount --bind \"$1\" /etc/resolv.conf && mount --bind \"$2\" /etc/nsswitch.conf && \
                  shift 2 && exec \"$@\"";
    let mut alone = Command::new("unshare");
    alone.args(["--mount", "--", "sh", "-c", script, "sh"]).arg(servers).arg(order);
    alone.arg(lamppost().get_program());
    alone
}
