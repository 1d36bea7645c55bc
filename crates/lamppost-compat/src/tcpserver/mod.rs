//! `tcpserver`: has a program serve each connection to one address, as ucspi-tcp's does (`tcpserver.c`).
//!
//! What differs: a connection has a thread until it is allowed, and a process only then; names come from
//! the system's resolver, within a deadline; one address can be kept to some connections at once.

mod connection;
mod environment;
mod ident;
mod lines;
mod listen;
mod names;
mod options;
mod places;
mod ruling;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::thread::{Gid, Uid, set_thread_gid, set_thread_groups, set_thread_uid};

use self::connection::Server;
use self::options::{Options, Verbosity};
use crate::{ending, words};

/// Bytes of the stack of a connection's thread: as many as there may be fit into the 16 MiB that init scripts of
/// old allow (`ulimit -v 16384`).
const STACK_BYTES: usize = 96 * 1024;
/// How long nothing is accepted after an accept(2) that failed, as without descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// `tcpserver [OPTION …] HOST PORT PROGRAM [ARGUMENT …]`
pub fn tcpserver(arguments: &[OsString]) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(text) => return words::wrong(text),
    };
    share_memory();
    match begin(&options) {
        Ok(listener) => serve(options, &listener),
        Err(text) => words::temporary(text),
    }
}

/// All threads take memory from one place. Where init scripts of old allow too little for a place of each thread's
/// own, the system's library would take a page for each word instead, and soon there would be none.
fn share_memory() {
    #[cfg(target_env = "gnu")]
    #[expect(
        unsafe_code,
        reason = "no safe interface tells the system's library how to allot memory"
    )]
    // SAFETY: mallopt(3) takes two numbers, and there is one thread yet.
    let _is_so = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Listens and becomes whom it should; what fails is what is to be told.
fn begin(options: &Options) -> Result<TcpListener, String> {
    let port = listen::port(&options.port)?;
    let listener = listen::bound(listen::address(options)?, port, options)?;
    let unset = |what: &str| {
        let begin = format!("tcpserver: fatal: unable to set {what}: ");
        move |error: rustix::io::Errno| begin + &words::of(&error.into())
    };
    // There is one thread yet; those that come are as it is.
    if options.group != 0 {
        let group = Gid::from_raw(options.group);
        let set = set_thread_groups(&[group]).and_then(|()| set_thread_gid(group));
        set.map_err(unset("gid"))?;
    }
    if options.user != 0 {
        set_thread_uid(Uid::from_raw(options.user)).map_err(unset("uid"))?;
    }
    // Programs that serve go on.
    ending::well_by_sigterm();
    if options.prints_port {
        let port = listener.local_addr().map_or(port, |address| address.port());
        // Whoever asked for it and went away needs it no more.
        drop(io::stdout().write_all(format!("{port}\n").as_bytes()));
        drop(io::stdout().flush());
    }
    // Whoever waits for the end of what is written here has it.
    if let Ok(nothing) = File::options().read(true).write(true).open("/dev/null") {
        let _set = rustix::stdio::dup2_stdin(&nothing);
        let _set = rustix::stdio::dup2_stdout(&nothing);
    }
    Ok(listener)
}

/// Takes connections as long as it lives.
fn serve(options: Options, listener: &TcpListener) -> ExitCode {
    let verbosity = options.verbosity;
    let server = Arc::new(Server::new(options));
    server.places.tell();
    loop {
        let place = server.places.wait();
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => {
                thread::park_timeout(ACCEPT_AGAIN);
                continue;
            }
        };
        let taken = place.take();
        let serving = server.clone();
        let work = move || serving.serve(stream, peer, taken);
        let thread = thread::Builder::new().name("connection".into()).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(work)
            && verbosity >= Verbosity::Warnings
        {
            let words = words::of(&error);
            lines::dropped(format!("unable to fork: {words}").as_bytes());
        }
    }
}
