//! Debian's rbldnsd with lists of its own, and name servers as they are on bad days.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::{signal, unpacked, until};

/// What RFC 5782 wants in each list.
pub(crate) const TEST_ENTRY: &str = "127.0.0.2 :127.0.0.2:a test entry\n";

/// A name server with lists.
pub(crate) struct Rbldnsd {
    child: Child,
    folder: TempDir,
    /// Where it is asked.
    pub(crate) address: SocketAddr,
}

impl Rbldnsd {
    /// Begins it with lists: the zone, the kind of its entries (rbldnsd(8)), and the entries.
    pub(crate) fn start(lists: &[(&str, &str, &str)]) -> Self {
        Self::start_at(free_udp(), lists)
    }

    /// As [`Self::start`], at this address.
    pub(crate) fn start_at(address: SocketAddr, lists: &[(&str, &str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // It gives up being root.
        let readable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), readable).unwrap();
        let mut command = Command::new(unpacked().join("rbldnsd/usr/sbin/rbldnsd"));
        command.args(["-n", "-b", &format!("{}/{}", address.ip(), address.port()), "-w"]);
        command.arg(folder.path());
        if rustix::process::getuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        for (place, (zone, kind, entries)) in lists.iter().enumerate() {
            std::fs::write(folder.path().join(place.to_string()), entries).unwrap();
            command.arg(format!("{zone}:{kind}:{place}"));
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { child, folder, address };
        let (zone, ..) = lists[0];
        assert!(until(|| asked(address, &format!("2.0.0.127.{zone}")).is_some()));
        server
    }

    /// Gives a list other entries.
    pub(crate) fn change(&self, place: usize, entries: &str) {
        std::fs::write(self.folder.path().join(place.to_string()), entries).unwrap();
        signal(self.child.id(), "HUP");
    }

    /// Whether an A is found under this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        asked(self.address, name).is_some_and(|reply| reply[7] > 0)
    }
}

impl Drop for Rbldnsd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How a name server is on a bad day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// It answers nothing.
    Silent,
    /// It answers every question with this code (RFC 1035 §4.1.1).
    Code(u8),
    /// It answers by TCP alone: every client is listed, and test entries are as they should be.
    TcpOnly,
}

/// A name server on a bad day, which lasts as long as this.
pub(crate) struct BadDay {
    /// Where it is asked.
    pub(crate) address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl BadDay {
    #[expect(clippy::disallowed_methods, reason = "a bare socket is what is asked for here")]
    pub(crate) fn begin(how: Bad) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        std::thread::spawn(move || {
            let mut question = [0; 1500];
            while !over.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut question) else { continue };
                let (flags, code) = match how {
                    Bad::Silent => continue,
                    Bad::Code(code) => (0x80, code),
                    Bad::TcpOnly => (0x82, 0),
                };
                (question[2], question[3]) = (question[2] | flags, code);
                drop(socket.send_to(&question[..length], from));
            }
        });
        if how == Bad::TcpOnly {
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    std::thread::spawn(move || while answer_by_tcp(&stream).is_ok() {});
                }
            });
        }
        Self { address, is_over }
    }
}

/// Answers one question with 127.0.0.2, or that there is no such name for the entry that no list has.
fn answer_by_tcp(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut question = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut question)?;
    // The name ends with an empty label, and four bytes follow; what comes behind is an extension.
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap_or(0) + 5;
    question.truncate(end);
    question[2] |= 0x84;
    question[10..12].fill(0);
    if question[12..].starts_with(b"\x011\x010\x010\x03127") {
        question[3] = 3;
    } else {
        question[3] = 0;
        question[7] = 1;
        question.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 2]);
    }
    stream.write_all(&u16::try_from(question.len()).unwrap_or(0).to_be_bytes())?;
    stream.write_all(&question)
}

impl Drop for BadDay {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// An address of this machine where nobody listens, neither by UDP nor by TCP, and no client will.
pub(crate) fn free_udp() -> SocketAddr {
    let free = || super::free_addresses::<1>()[0];
    std::iter::repeat_with(free).find(|address| UdpSocket::bind(address).is_ok()).unwrap()
}

/// The answer of a name server to a question for an A, if it comes soon.
pub(crate) fn asked(server: SocketAddr, name: &str) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send_to(&question, server).ok()?;
    let mut reply = vec![0; 512];
    let length = socket.recv(&mut reply).ok()?;
    reply.truncate(length);
    Some(reply)
}
