//! A program that somebody made setuid, setgid or gave capabilities does nothing.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// The exit code for it (sysexits.h, `EX_NOPERM`).
const NO_PERMISSION: u8 = 77;

/// The program runs with more rights than the user who called it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecureExecution;

impl fmt::Display for SecureExecution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "this program was started with rights that its caller does not have (setuid, setgid or \
             file capabilities), and refuses to run that way\n  \
             help: take them away with `chmod u-s,g-s FILE` and `setcap -r FILE`; Lamppost needs \
             none of them",
        )
    }
}

impl std::error::Error for SecureExecution {}

impl SecureExecution {
    /// Tells it and gives the exit code.
    pub fn report(self) -> ExitCode {
        // With standard error closed there is nobody to tell.
        drop(writeln!(io::stderr(), "error: {self}"));
        ExitCode::from(NO_PERMISSION)
    }
}

/// Refuses to go on in secure execution (`AT_SECURE`, getauxval(3)): a program that anybody may call
/// and that runs with another's rights must be written for nothing else, and none of ours is.
///
/// # Errors
/// [`SecureExecution`] when that is so.
pub fn refuse_secure_execution() -> Result<(), SecureExecution> {
    #[expect(unsafe_code, reason = "no safe and stable interface tells AT_SECURE")]
    // SAFETY: getauxval(3) takes a number and reads what the kernel gave this process.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) };
    if secure == 0 { Ok(()) } else { Err(SecureExecution) }
}
