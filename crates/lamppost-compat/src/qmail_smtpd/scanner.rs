//! `qmail-envelope-scanner FROM TO`: asked about each recipient, while there is one.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use lamppost_smtp::Reply;

use super::program::{self, Ended};
use super::visitor::{seconds, variable};
use super::{said, warn};

/// Where the recipe has it, as a link that switches it on.
const PROGRAM: &str = "/usr/sbin/qmail-envelope-scanner";
/// Names another.
const PROGRAM_VARIABLE: &str = "ENVELOPESCANNER";
/// How long it may take, and the variable that says otherwise in seconds.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_VARIABLE: &str = "ENVELOPESCANNERTIMEOUT";
/// The exit codes that refuse; all others accept.
const LATER: i32 = 101;
const NEVER: i32 = 100;

/// What it says of a recipient; what it does not say accepts, and so does one that is not there.
pub(super) fn ask(sender: &[u8], recipient: &[u8]) -> Result<(), Reply> {
    let program = variable(PROGRAM_VARIABLE).unwrap_or_else(|| PROGRAM.into());
    let program = PathBuf::from(OsStr::from_bytes(&program));
    let mut command = Command::new(&program);
    command.args([OsStr::from_bytes(sender), OsStr::from_bytes(recipient)]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let patience = seconds(PATIENCE_VARIABLE, PATIENCE);
    let ended =
        program::begin(&mut command).and_then(|mut child| program::end(&mut child, patience));
    let trouble = match ended {
        Ok(Ended::Code(LATER)) => return Err(said(450, "4.3.0", "temporary envelope failure")),
        Ok(Ended::Code(NEVER)) => {
            return Err(said(550, "5.7.1", "sorry, permanent envelope failure"));
        }
        Ok(Ended::Code(_)) => return Ok(()),
        Ok(Ended::Crashed(signal)) => format!("was killed by signal {signal}"),
        Ok(Ended::Late) => format!("took longer than {} s", patience.as_secs()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => format!("does not start: {error}"),
    };
    warn(&format!("{} {trouble}; the recipient is accepted", program.display()));
    Ok(())
}
