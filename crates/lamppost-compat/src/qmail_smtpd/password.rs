//! Any checkpassword program: name and password go to its descriptor 3, and it answers by its end.

use std::ffi::OsString;
use std::io::{self, PipeReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lamppost_smtp::{Reply, Secret};

use super::program::{self, Ended};
use super::visitor::seconds;
use super::{said, warn};

/// The descriptor that the interface names.
const DESCRIPTOR: libc::c_int = 3;
/// Bytes that such a program reads (checkpassword's interface); a pipe takes them at once.
const BYTES_MAX: usize = 512;
/// How long it may take, and the variable that says otherwise in seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_VARIABLE: &str = "CHECKPASSWORDTIMEOUT";
/// The exit code for trouble that passes, which is no answer.
const TEMPORARY: i32 = 111;

/// What a client says who it is.
pub(super) struct Claim<'a> {
    pub(super) user: &'a str,
    /// A password, or a digest by it.
    pub(super) secret: &'a str,
    /// What the digest is of; nothing for a password.
    pub(super) challenge: &'a str,
}

/// Asks the program, and what it becomes; `words` are its name and arguments.
pub(super) fn check(words: &[OsString], claim: &Claim<'_>) -> Result<(), Reply> {
    let Claim { user, secret, challenge } = claim;
    let told = Secret::new([user, "\0", secret, "\0", challenge, "\0"].concat());
    if told.expose().len() > BYTES_MAX {
        return Err(said(535, "5.7.1", "authentication failed"));
    }
    let Some((name, _)) = words.split_first() else {
        return Err(said(503, "5.3.3", "auth not available"));
    };
    let trouble = |what: String, text: &'static str| {
        warn(&format!("{} {what}; nobody can authenticate", name.display()));
        Err(said(454, "4.3.0", text))
    };
    let mut child = match begin(words, &told) {
        Ok(child) => child,
        Err(error) => {
            let text = "oops, child won't start and I can't auth";
            return trouble(format!("does not start: {error}"), text);
        }
    };
    let patience = seconds(PATIENCE_VARIABLE, PATIENCE);
    let what = match program::end(&mut child, patience) {
        Ok(Ended::Code(0)) => return Ok(()),
        Ok(Ended::Code(TEMPORARY)) => format!("ended with {TEMPORARY}"),
        Ok(Ended::Code(_)) => return Err(said(535, "5.7.1", "authentication failed")),
        Ok(Ended::Crashed(signal)) => format!("was killed by signal {signal}"),
        Ok(Ended::Late) => format!("took longer than {} s", patience.as_secs()),
        Err(error) => format!("cannot be waited for: {error}"),
    };
    trouble(what, "oops, problem with child and I can't auth")
}

/// Begins the program with what it is told on its descriptor 3, and nothing of the client's connection.
fn begin(words: &[OsString], told: &Secret) -> io::Result<Child> {
    // From here on the descriptor is taken by something, so that nothing the system library needs between
    // fork and exec has its number.
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(told.expose().as_bytes())?;
    drop(writer);
    let (name, arguments) = words.split_first().ok_or(io::ErrorKind::NotFound)?;
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    hand_over(&mut command, &reader);
    program::begin(&mut command)
}

fn hand_over(command: &mut Command, reader: &PipeReader) {
    let from = reader.as_raw_fd();
    let hand_over = move || {
        #[expect(unsafe_code, reason = "no safe interface gives a program a descriptor by number")]
        // SAFETY: both are numbers; what the second meant is this process's alone, and it becomes another.
        let is_there = unsafe { libc::dup2(from, DESCRIPTOR) } >= 0;
        #[expect(unsafe_code, reason = "where it is the same number already, it would be closed")]
        // SAFETY: the descriptor is open.
        let stays = is_there && unsafe { libc::fcntl(DESCRIPTOR, libc::F_SETFD, 0) } >= 0;
        if stays { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    #[expect(
        unsafe_code,
        reason = "what a child does before it becomes a program is unsafe to say"
    )]
    // SAFETY: it takes no memory and no lock.
    let _command = unsafe { command.pre_exec(hand_over) };
}
