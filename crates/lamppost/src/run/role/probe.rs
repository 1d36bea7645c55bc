//! Tries, with the power of a role and no more, what no role or only some may do; for proofs.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use lamppost_sandbox::{InForce, restrict};
use serde::Serialize;

use super::{Role, mail_folders, power};
use crate::command::out;
use crate::exit::{Code, Failure};
use crate::place::{Opened, Place};
use crate::run::settings;
use crate::state_files::{self, ACCOUNTS};

/// What came of it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Probed {
    role: &'static str,
    force: InForce,
    tries: Vec<Try>,
}

/// Something that was tried.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Try {
    what: String,
    /// Whether the system said that this process may not.
    refused: bool,
    /// What the system said, if it was not done.
    error: Option<String>,
}

/// Tries everything as the role, and prints what came of it.
pub(crate) fn probe(role: Role, place: &Place) -> Result<(), Failure> {
    let opened = place.open()?;
    let power = power::of(role, &opened.config, &opened.state);
    let force = restrict(&power).map_err(|error| Failure::of(Code::Software, &error))?;
    let mut tries = files(&opened);
    tries.extend(sockets(&opened));
    tries.extend(processes());
    out::json(&Probed { role: role.name(), force, tries })
}

/// Tells how a try ended.
fn tried<T>(what: impl Into<String>, done: io::Result<T>) -> Try {
    let error = done.err();
    let refused = error.as_ref().is_some_and(|error| error.kind() == ErrorKind::PermissionDenied);
    Try { what: what.into(), refused, error: error.map(|error| error.to_string()) }
}

/// Files of the machine and of every role.
fn files(opened: &Opened) -> Vec<Try> {
    let state = &opened.state;
    let mail = mail_folders::above(&settings::maildir(&opened.config, state));
    let folders = [
        ("policy", state_files::databases(state)),
        ("queue", state.join("spool")),
        ("delivery", mail),
        ("control", opened.outcomes()),
        ("nobody", state.clone()),
        ("nobody, temporary", std::env::temp_dir()),
    ];
    let mut tries = vec![
        tried("read /etc/shadow", fs::read("/etc/shadow")),
        tried("read a key", fs::read(state.join("tls/key.pem"))),
        tried("read accounts", fs::read(state_files::database(state, ACCOUNTS))),
    ];
    if let Some(file) = &opened.file {
        tries.push(tried("read the configuration", fs::read(file)));
    }
    for (whose, folder) in folders {
        tries.push(tried(format!("look into a folder of {whose}"), fs::read_dir(&folder)));
        tries.push(tried(format!("write into a folder of {whose}"), written(&folder)));
        let link = folder.join(".probe-link");
        let linked = std::os::unix::fs::symlink("/", &link);
        drop(fs::remove_file(link));
        tries.push(tried(format!("make a link in a folder of {whose}"), linked));
    }
    tries
}

/// Makes a file and removes it.
fn written(folder: &Path) -> io::Result<()> {
    let path = folder.join(".probe");
    File::create(&path)?;
    fs::remove_file(path)
}

/// Sockets to and from others. Nobody needs to answer: whether it may be tried is what is asked.
#[expect(clippy::disallowed_methods, reason = "bare sockets are what is tried here")]
fn sockets(opened: &Opened) -> Vec<Try> {
    vec![
        tried("connect by TCP", std::net::TcpStream::connect("127.0.0.1:9")),
        tried("send by UDP", std::net::UdpSocket::bind("127.0.0.1:0")),
        tried("listen on TCP", std::net::TcpListener::bind("127.0.0.1:0")),
        tried("connect to the control socket", UnixStream::connect(&opened.control_socket)),
        tried(
            "listen on a socket of its own",
            std::os::unix::net::UnixListener::bind(opened.state.join(".probe-socket")),
        ),
    ]
}

/// Other programs, processes and users.
fn processes() -> Vec<Try> {
    let parent = rustix::process::getppid();
    let signalled = parent.map_or(Ok(()), rustix::process::test_kill_process);
    let root = rustix::process::Uid::ROOT;
    let another = rustix::process::Uid::from_raw(65_534);
    let user = rustix::thread::set_thread_res_uid(another, root, another);
    vec![
        tried("run a program", Command::new("/bin/true").status()),
        tried("signal another process", signalled.map_err(io::Error::from)),
        tried("become another user", user.map_err(io::Error::from)),
        tried("read another process", fs::read("/proc/1/environ")),
    ]
}
