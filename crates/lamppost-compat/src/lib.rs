//! Small programs under names of old, such as `sendmail`, and how they are put into a folder.
//!
//! It is one executable of its own, apart from the main program: it links nothing of the services, so
//! that it starts at once and there is little in it that could go wrong under a web server. What it
//! does follows the name that it is called by.

mod ending;
mod exit;
mod install;
mod letters;
mod qmail_smtpd;
mod rblsmtpd;
mod scanner;
mod secure;
mod sendmail;
mod stamp;
mod tcprules;
mod tcpserver;
mod words;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

pub use install::{InstallError, NAMES, OF_GREYLIST, Standing, USUAL, install, look, remove};
pub use qmail_smtpd::qmail_smtpd;
pub use rblsmtpd::rblsmtpd;
pub use scanner::{GREYLIST_SOCKET, envelope_scanner};
pub use secure::{SecureExecution, refuse_secure_execution};
pub use sendmail::{EXIT_CODES, OPTIONS};
pub use stamp::Stamp;
pub use tcprules::{tcprules, tcprulescheck};
pub use tcpserver::tcpserver;

use exit::{Code, Failure};

/// The socket that takes mail of local users on an installed system.
pub const SYSTEM_SOCKET: &str = "/run/lamppost/submit.sock";
/// The executable's own name, under which it is kept beside the main program.
pub const EXECUTABLE: &str = "lamppost-compat";
/// The environment variable that names another socket, for trying out.
const SOCKET_VARIABLE: &str = "LAMPPOST_SUBMIT_SOCKET";

/// The whole of the executable.
pub fn main() -> ExitCode {
    if let Err(refusal) = refuse_secure_execution() {
        return refusal.report();
    }
    let mut arguments = std::env::args_os();
    let called = arguments.next().unwrap_or_default();
    let mut name =
        Path::new(&called).file_name().unwrap_or_default().to_string_lossy().into_owned();
    // For trying out before it is put anywhere: `lamppost-compat sendmail …`.
    if name == EXECUTABLE
        && let Some(wanted) = arguments.next()
    {
        name = wanted.to_string_lossy().into_owned();
    }
    let arguments: Vec<_> = arguments.collect();
    let done = match name.as_str() {
        "sendmail" => sendmail::sendmail(arguments),
        "mailq" => Err(list_queue()),
        "newaliases" => Ok(()),
        "greylisting-delete-expired" => {
            let command = [vec![OsString::from(name.clone())], arguments].concat();
            Err(become_main(&command))
        }
        "qmail-envelope-scanner" => return envelope_scanner(&arguments),
        "rblsmtpd" => return rblsmtpd(&arguments),
        "tcprules" => return tcprules(&arguments),
        "tcprulescheck" => return tcprulescheck(&arguments),
        "tcpserver" => return tcpserver(&arguments),
        "qmail-smtpd" => return qmail_smtpd(&arguments),
        _ => {
            let names = NAMES.map(|(name, _)| name).join(", ");
            let what = format!("there is no such program; it is called as one of {names}");
            Err(Failure::new(Code::Usage, what))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&name),
    }
}

/// What this copy was told; nothing for one that was not put anywhere.
fn own_stamp() -> Option<Stamp> {
    Stamp::of(Path::new("/proc/self/exe")).ok().flatten()
}

fn socket() -> PathBuf {
    let named = std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from);
    named.or_else(|| own_stamp()?.socket).unwrap_or_else(|| SYSTEM_SOCKET.into())
}

/// Becomes `lamppost queue`; comes back only when that fails.
fn list_queue() -> Failure {
    become_main(&["queue".into()])
}

/// Becomes a command of the main program; comes back only when that fails.
fn become_main(command: &[OsString]) -> Failure {
    let stamp = own_stamp();
    let program = stamp.as_ref().map_or_else(|| "lamppost".into(), |stamp| stamp.program.clone());
    let mut arguments = Vec::<OsString>::new();
    if let Some(Stamp { config, state, .. }) = stamp {
        for (option, path) in [("--config", config), ("--state", state)] {
            arguments.extend(path.into_iter().flat_map(|path| [option.into(), path.into()]));
        }
    }
    let error = Command::new(&program).args(arguments).args(command).exec();
    Failure::new(Code::Unavailable, format!("cannot start {}: {error}", program.display()))
}
