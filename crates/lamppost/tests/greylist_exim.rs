//! A real Exim asks the greylist with the ACL that the guide shows (feature `peers`, set up by
//! `cargo xtask setup`; root starts it).
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use support::greylist::Alone;
use support::{unpacked, until};

const GUIDE: &str = include_str!("../../../docs/guides/greylist-for-postfix.md");

/// The ACL of the guide, asking there.
fn guided(place: &str) -> String {
    let (_, section) = GUIDE.split_once("## Exim").unwrap();
    let acl = section.split("```").nth(1).unwrap();
    assert!(acl.contains("127.0.0.1:10023"), "{acl}");
    acl.replace("127.0.0.1:10023", place)
}

/// What Exim replies to each of two recipients, by a dialogue that delivers nothing (`exim -bh`).
fn replies(folder: &Path, acl: &str, sender: &str) -> Vec<String> {
    let config = format!(
        "primary_hostname = there.test\ndomainlist local_domains = there.test\n\
         hostlist relay_from_hosts = 127.0.0.1\nacl_smtp_rcpt = check\nlog_file_path = syslog\n\
         begin acl\ncheck:\n{acl}\n accept domains = +local_domains\nbegin routers\nbegin transports\n"
    );
    std::fs::write(folder.join("exim.conf"), config).unwrap();
    // Exim insists on its own user, which this machine need not have.
    for (name, line) in [
        ("passwd", "Debian-exim:x:64999:64999::/nonexistent:/bin/false\n"),
        ("group", "Debian-exim:x:64999:\n"),
    ] {
        let known = std::fs::read_to_string(Path::new("/etc").join(name)).unwrap();
        std::fs::write(folder.join(name), known + line).unwrap();
    }
    let root = unpacked().join("exim");
    let triplet = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let mut exim = Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .arg(
            "mount --bind passwd /etc/passwd && mount --bind group /etc/group && \
             exec \"$0\" -C \"$PWD/exim.conf\" -bh 192.0.2.1",
        )
        .arg(root.join("usr/sbin/exim4"))
        .env("LD_LIBRARY_PATH", root.join(triplet))
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = format!(
        "HELO client.test\r\nMAIL FROM:<{sender}>\r\nRCPT TO:<one@there.test>\r\n\
         RCPT TO:<other@there.test>\r\nQUIT\r\n"
    );
    exim.stdin.take().unwrap().write_all(said.as_bytes()).unwrap();
    let output = exim.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let is_reply = |line: &&str| line.as_bytes().first().is_some_and(u8::is_ascii_digit);
    let all: Vec<_> = told.lines().filter(is_reply).map(str::to_owned).collect();
    assert_eq!(all.len(), 6, "{told}{}", String::from_utf8_lossy(&output.stderr));
    all[3..5].to_vec()
}

#[test]
fn exim_asks_with_the_acl_of_the_guide() {
    let mut alone = Alone::start("delay = \"1s\"", "");
    let folder = tempfile::tempdir().unwrap();
    let acl = guided(&alone.address.to_string());
    let deferred = "451 greylisted (new): try again in 1 second";
    for sender in ["someone@elsewhere.test", ""] {
        assert_eq!(replies(folder.path(), &acl, sender), [deferred, deferred]);
        let mut last = Vec::new();
        assert!(until(|| {
            last = replies(folder.path(), &acl, sender);
            last.iter().all(|reply| reply == "250 Accepted")
        }));
    }
    alone.server.stop();
    assert_eq!(replies(folder.path(), &acl, "other@elsewhere.test"), ["250 Accepted"; 2]);
}
