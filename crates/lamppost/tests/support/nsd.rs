//! Debian's nsd with a DNS of its own: one zone that begins at the root.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::rbldnsd::{asked, free_udp};
use super::{unpacked, until};

/// What the zone begins with: answers hold for an hour, also that there is no such name.
const BEGINNING: &str = "$TTL 3600\n\
    . SOA ns.test. admin.test. 1 3600 600 86400 3600\n\
    . NS ns.test.\n\
    ns.test. A 127.0.0.1\n";
/// A zone whose file is not there: what is below it is answered with SERVFAIL.
const BROKEN: &str = "fail.test";

/// A name server that knows all names that there are.
pub(crate) struct Nsd {
    child: Child,
    _folder: TempDir,
    /// Where it is asked.
    pub(crate) address: SocketAddr,
}

impl Nsd {
    /// Begins it with these lines of a zone file.
    pub(crate) fn start(records: &str) -> Self {
        let address = free_udp();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        std::fs::write(folder.path().join("zone"), format!("{BEGINNING}{records}\n")).unwrap();
        let configuration = format!(
            "server:\n ip-address: {}@{}\n username: \"\"\n chroot: \"\"\n zonesdir: \"{path}\"\n database: \"\"\n \
             pidfile: \"\"\n xfrdfile: \"{path}/xfrd\"\n zonelistfile: \"{path}/zones\"\n xfrdir: \"{path}\"\n \
             server-count: 1\n rrl-ratelimit: 0\nremote-control:\n control-enable: no\n\
             zone:\n name: \".\"\n zonefile: zone\nzone:\n name: {BROKEN}\n zonefile: missing\n",
            address.ip(),
            address.port(),
        );
        let file = folder.path().join("nsd.conf");
        std::fs::write(&file, configuration).unwrap();
        let root = unpacked().join("nsd");
        let mut command = Command::new(root.join("usr/sbin/nsd"));
        command.arg("-d").arg("-c").arg(file);
        command.env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"));
        let log = folder.path().join("log");
        let told = std::fs::File::create(&log).unwrap();
        let child = command.stdout(Stdio::null()).stderr(told).spawn().unwrap();
        let is_there = until(|| asked(address, "ns.test").is_some_and(|reply| reply[7] > 0));
        assert!(is_there, "{}", std::fs::read_to_string(log).unwrap());
        Self { child, _folder: folder, address }
    }
}

impl Drop for Nsd {
    fn drop(&mut self) {
        // It has children of its own, which a signal that it can catch ends too.
        super::signal(self.child.id(), "TERM");
        drop(self.child.wait());
    }
}

/// A TXT record of any length, in pieces.
pub(crate) fn txt(name: &str, text: &str) -> String {
    let pieces: Vec<_> = text
        .as_bytes()
        .chunks(255)
        .map(|piece| format!("\"{}\"", String::from_utf8_lossy(piece).replace('"', "\\\"")))
        .collect();
    format!("{name}. TXT {}\n", pieces.join(" "))
}

/// The name under which an IPv4 address has its names.
pub(crate) fn reversed(ip: &str) -> String {
    ip.rsplit('.').collect::<Vec<_>>().join(".") + ".in-addr.arpa"
}
