//! `rblsmtpd`: refuses clients that lists in the DNS name, and has a program serve the others, as
//! ucspi-tcp's does (`rblsmtpd.c`).
//!
//! What differs: all lists are asked at once and have one deadline, clients of IPv6 are looked up as
//! RFC 5782 says, and an answer that no list gives counts as a list that fails.

mod decision;
mod dialogue;
mod name_servers;
mod options;
mod questions;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use self::decision::Decision;
use self::options::{List, Options};
use crate::{ending, words};

/// `rblsmtpd [OPTION …] PROGRAM [ARGUMENT …]`
pub fn rblsmtpd(arguments: &[OsString]) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(text) => return words::wrong(text),
    };
    let variable = |name| std::env::var_os(name).map(OsString::into_vec);
    let ip = variable("TCPREMOTEIP").unwrap_or_default();
    let decision = match variable("RBLSMTPD") {
        Some(value) => Decision::of_variable(&value),
        None if options.lists.is_empty() => Decision::Accept,
        None => {
            let failed = |list: &List<'_>, reason: &str| {
                if options.tells_failures {
                    tell(&ip, &[b"warning: ", list.base, b" fails: ", reason.as_bytes()].concat());
                }
            };
            questions::ask(&options, &String::from_utf8_lossy(&ip), failed)
                .unwrap_or(Decision::Accept)
        }
    };
    match decision {
        Decision::Accept => run(options.program),
        Decision::Refuse { text, for_good } => {
            refuse(&ip, &dialogue::refusal(&text, for_good), options.talk)
        }
    }
}

/// Becomes the program; comes back only when that fails.
fn run(program: &[OsString]) -> ExitCode {
    let Some((name, arguments)) = program.split_first() else {
        return words::wrong(options::USAGE);
    };
    let error = Command::new(name).args(arguments).exec();
    let begin = [b"rblsmtpd: fatal: unable to run ", name.as_bytes(), b": "].concat();
    words::temporary([&begin[..], words::of(&error).as_bytes()].concat())
}

/// Tells the log and the client why it is refused, within its time.
fn refuse(ip: &[u8], refusal: &[u8], seconds: u32) -> ExitCode {
    tell(ip, refusal);
    let talked = if seconds == 0 {
        io::stdout().write_all(&[refusal, b"\r\n"].concat())
    } else {
        ending::well_after(seconds);
        dialogue::talk(refusal)
    };
    // A client that went away knows enough.
    drop(talked);
    ExitCode::SUCCESS
}

/// Writes a line to standard error.
fn tell(ip: &[u8], what: &[u8]) {
    let pid = std::process::id().to_string();
    words::tell(&[b"rblsmtpd: ", ip, b" pid ", pid.as_bytes(), b": ", what].concat());
}
