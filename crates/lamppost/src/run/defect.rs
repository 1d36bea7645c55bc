//! A defect of the program: told by its place, never by what it worked on, which may be a secret or mail.

use std::io::Write as _;
use std::panic::PanicHookInfo;

/// Tells of defects; where `ends` says so the process ends at once, and the supervisor begins it anew,
/// since half a role would be worse than none.
pub(super) fn watch(name: &'static str, ends: bool) {
    std::panic::set_hook(Box::new(move |defect| {
        tell(name, defect);
        if ends {
            std::process::abort();
        }
    }));
}

/// Writes at once: the log's own thread might not come to it any more.
fn tell(name: &str, defect: &PanicHookInfo<'_>) {
    let place = defect.location().map_or("an unknown place".into(), ToString::to_string);
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name");
    drop(writeln!(
        std::io::stderr(),
        "error: a defect of Lamppost {} at {place}, role `{name}`, thread `{thread}`; please report this line",
        env!("CARGO_PKG_VERSION")
    ));
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_defect_ends_the_process_and_tells_no_secret() {
        const ROLE: &str = "LAMPPOST_TEST_DEFECT";
        if std::env::var_os(ROLE).is_some() {
            watch("queue", true);
            panic!("the password is hunter2");
        }
        let mut again = Command::new(std::env::current_exe().unwrap());
        again
            .args(["--exact", "run::defect::tests::a_defect_ends_the_process_and_tells_no_secret"]);
        let output = again.arg("--nocapture").env(ROLE, "1").output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.signal(), Some(6), "{told}");
        assert!(told.contains("defect.rs:") && told.contains("role `queue`"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}
