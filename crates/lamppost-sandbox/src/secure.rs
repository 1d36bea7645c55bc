//! A program that was made setuid or setgid by somebody does nothing.

/// The program runs with more rights than the user who called it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this program was started setuid, setgid or with file capabilities, and refuses to run that way"
)]
pub struct SecureExecution;

/// Refuses to go on in secure execution (`AT_SECURE`, getauxval(3)): a program that anybody may call
/// and that runs as another user must be written for nothing else, and this one is not.
///
/// # Errors
/// [`SecureExecution`] when that is so.
pub fn refuse_secure_execution() -> Result<(), SecureExecution> {
    #[expect(unsafe_code, reason = "no crate of ours tells AT_SECURE without it")]
    // SAFETY: getauxval(3) takes a number and reads what the kernel gave this process.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) };
    if secure == 0 { Ok(()) } else { Err(SecureExecution) }
}
