//! Each test gives up power on a thread of its own: what a thread gives up, the others keep.

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use rustix::net::{AddressFamily, SocketType};

use super::*;

/// Runs something in a thread that may do only so much.
fn inside<T: Send>(power: &Power, work: impl FnOnce(InForce) -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| work(restrict(power).unwrap()));
        thread.join().unwrap()
    })
}

/// A socket that listens at an address.
#[expect(clippy::disallowed_methods, reason = "a bare socket is what is asked for here")]
fn bind(address: &str) -> std::io::Result<TcpListener> {
    TcpListener::bind(address)
}

fn is_denied<T>(result: std::io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// Whether this kernel restricts files; tests of files prove nothing where it does not.
fn has_landlock() -> bool {
    let found = inside(&Power::default(), |force| force.landlock);
    if found.is_none() {
        eprintln!("NOT TESTED: this kernel has no Landlock");
    }
    found.is_some()
}

#[test]
fn no_power_is_no_files_no_programs_and_no_sockets() {
    let landlock = has_landlock();
    inside(&Power::default(), |force| {
        assert!(force.no_new_privs && force.seccomp);
        let status = fs::read_to_string("/proc/thread-self/status");
        // What only the kernel's own files tell is seen from outside where those are out of reach.
        assert_eq!(status.is_err(), landlock);
        assert_eq!(is_denied(fs::read("/etc/passwd")), landlock);
        assert_eq!(is_denied(fs::read_dir("/tmp")), landlock);
        assert!(is_denied(Command::new("/bin/true").status()));
        assert!(is_denied(TcpStream::connect("127.0.0.1:9")));
        assert!(is_denied(std::net::UdpSocket::bind("127.0.0.1:0")));
        assert!(is_denied(std::os::unix::net::UnixStream::connect("/run/nobody")));
        let own = rustix::process::getpid();
        let killed = rustix::process::test_kill_process(own);
        assert_eq!(killed, Err(rustix::io::Errno::PERM));
    });
    // The thread that gave up nothing still may.
    fs::read("/etc/passwd").unwrap();
    assert!(Command::new("/bin/true").status().unwrap().success());
}

#[test]
fn folders_may_be_read_or_written_as_they_are_named() {
    if !has_landlock() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["reads", "writes", "other"] {
        fs::create_dir(path(name)).unwrap();
        fs::write(path(name).join("file"), "text").unwrap();
    }
    std::os::unix::fs::symlink(path("other/file"), path("writes/link")).unwrap();
    let power = Power {
        reads: vec![path("reads"), "/etc/passwd".into()],
        writes: vec![path("writes")],
        ..Power::default()
    };
    inside(&power, |_| {
        assert_eq!(fs::read_to_string(path("reads/file")).unwrap(), "text");
        fs::read("/etc/passwd").unwrap();
        assert!(is_denied(fs::write(path("reads/file"), "other")));
        assert!(is_denied(fs::remove_file(path("reads/file"))));
        fs::write(path("writes/new"), "new").unwrap();
        fs::rename(path("writes/new"), path("writes/newer")).unwrap();
        fs::create_dir_all(path("writes/deep/er")).unwrap();
        fs::remove_file(path("writes/newer")).unwrap();
        for result in [fs::read(path("other/file")), fs::read("/etc/shadow")] {
            assert!(is_denied(result));
        }
        // What is linked from inside stays outside, and nobody makes links.
        assert!(is_denied(fs::read(path("writes/link"))));
        let made = std::os::unix::fs::symlink(path("other/file"), path("writes/another"));
        assert!(is_denied(made));
    });
}

#[test]
fn who_connects_does_not_listen() {
    let listener = bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    inside(&Power { sockets: Sockets::Connect, ..Power::default() }, |_| {
        TcpStream::connect(address).unwrap();
        assert!(is_denied(bind("127.0.0.1:0")));
        // Programs of this machine, and packets that the kernel did not make.
        for denied in [
            is_denied(std::os::unix::net::UnixStream::connect("/run/nobody")),
            is_denied(std::os::unix::net::UnixDatagram::unbound()),
            rustix::net::socket(AddressFamily::PACKET, SocketType::RAW, None)
                .is_err_and(|error| error == rustix::io::Errno::PERM),
        ] {
            assert!(denied);
        }
    });
    inside(&Power { sockets: Sockets::All, ..Power::default() }, |_| {
        let other = bind("127.0.0.1:0").unwrap();
        TcpStream::connect(other.local_addr().unwrap()).unwrap();
    });
}

#[test]
fn who_asks_connects_by_tcp_only_to_the_ports_that_are_named() {
    let listeners = [(); 2].map(|()| bind("127.0.0.1:0").unwrap());
    let [named, other] = listeners.each_ref().map(|one| one.local_addr().unwrap());
    let hears = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let sockets = Sockets::Ask { ports: vec![named.port()], here: false };
    let power = Power { sockets, ..Power::default() };
    inside(&power, |force| {
        let ports = force.landlock.is_some_and(|version| version >= 4);
        assert!(!is_denied(TcpStream::connect(named)));
        assert_eq!(is_denied(TcpStream::connect(other)), ports);
        assert!(is_denied(bind("127.0.0.1:0")));
        let asks = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        asks.send_to(b"?", hears.local_addr().unwrap()).unwrap();
        assert!(is_denied(std::os::unix::net::UnixStream::connect("/run/nobody")));
        let netlink = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None);
        assert!(netlink.is_err_and(|error| error == rustix::io::Errno::PERM));
    });
    assert_eq!(hears.recv(&mut [0; 8]).unwrap(), 1);
}

#[test]
fn who_asks_programs_here_connects_to_their_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let power =
        Power { sockets: Sockets::Ask { ports: Vec::new(), here: true }, ..Power::default() };
    inside(&power, |_| {
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        let netlink = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None);
        assert!(netlink.is_err_and(|error| error == rustix::io::Errno::PERM));
    });
    drop(listener);
}

#[test]
fn what_is_needed_and_not_there_is_told() {
    if !has_landlock() {
        return;
    }
    let power = Power { reads: vec!["/no/such/file".into()], ..Power::default() };
    let error = std::thread::spawn(move || restrict(&power).unwrap_err()).join().unwrap();
    assert!(error.to_string().contains("/no/such/file"), "{error}");
}

#[test]
fn another_user_has_no_capability_and_no_way_back() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED: only root can become another user");
        return;
    }
    let nobody = User { uid: 65534, gid: 65534 };
    std::thread::spawn(move || {
        nobody.become_it().unwrap();
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_once(':').unwrap().1.trim().to_owned()
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(u64::from_str_radix(&line(set), 16).unwrap(), 0, "{set}");
        }
        assert_eq!(line("Uid"), "65534\t65534\t65534\t65534");
        assert_eq!(line("Gid"), "65534\t65534\t65534\t65534");
        assert_eq!(line("Groups"), "65534");
        assert!(is_denied(fs::read("/etc/shadow")));
        assert!(User { uid: 0, gid: 0 }.become_it().is_err());
    })
    .join()
    .unwrap();
}

#[cfg(target_arch = "x86_64")]
#[test]
fn no_other_number_of_a_call_is_a_way_around() {
    const X32: libc::c_long = 0x4000_0000;
    let execve_of_x32 = 0x0208 | X32;
    inside(&Power::default(), |_| {
        for call in [libc::SYS_socket, libc::SYS_socket | X32, execve_of_x32] {
            #[expect(unsafe_code, reason = "no safe interface makes a call by its number")]
            // SAFETY: each call is refused before its arguments are looked at; all of them are zero.
            let done = unsafe { libc::syscall(call, 0, 0, 0) };
            let error = std::io::Error::last_os_error();
            assert_eq!((done, error.raw_os_error()), (-1, Some(libc::EPERM)), "{call:#x}");
        }
    });
}
