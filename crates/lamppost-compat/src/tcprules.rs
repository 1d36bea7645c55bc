//! `tcprules` and `tcprulescheck`: connection rules become a cdb, and what they say of a client.
//!
//! Arguments, environment, output, exit codes and what becomes of the files are those of ucspi-tcp 0.88
//! (`tcprules.c`, `tcprulescheck.c`), and IPv6 is that of its variant. With `-e` networks are known too.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use lamppost_rules::{Cdb, Client, Effect, Grammar, Keys, Rules, Unusable, Why, compile, look_up};

use crate::words;

/// Tells what both understand beyond the originals.
const EXTENDED: &str = "-e";
/// The address that is looked up when the environment names none.
const NO_ADDRESS: &str = "0.0.0.0";

/// Takes `-e` away, if it is there.
fn options(words: &[OsString]) -> (Grammar, &[OsString]) {
    match words {
        [first, rest @ ..] if first == EXTENDED => (Grammar::Extended, rest),
        words => (Grammar::Exact, words),
    }
}

/// `tcprules [-e] RULES.CDB RULES.TMP < RULES`
pub fn tcprules(words: &[OsString]) -> ExitCode {
    let (grammar, [cdb, temporary, ..]) = options(words) else {
        return words::wrong("tcprules: usage: tcprules rules.cdb rules.tmp");
    };
    match make(grammar, Path::new(cdb), Path::new(temporary)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Unmade::Wrong(text)) => words::wrong([b"tcprules: fatal: ", &text[..]].concat()),
        Err(Unmade::Temporary(text, error)) => {
            let begin = [b"tcprules: fatal: ", &text[..], b": "].concat();
            words::temporary([&begin[..], words::of(&error).as_bytes()].concat())
        }
    }
}

/// Why no cdb was made.
enum Unmade {
    Wrong(Vec<u8>),
    Temporary(Vec<u8>, io::Error),
}

/// Makes the cdb under the temporary name and, once it is durable, gives it its own.
fn make(grammar: Grammar, cdb: &Path, temporary: &Path) -> Result<(), Unmade> {
    let at = |step: &[&[u8]]| {
        let step = step.concat();
        move |error| Unmade::Temporary(step, error)
    };
    let (name, temporary_name) = (cdb.as_os_str().as_bytes(), temporary.as_os_str().as_bytes());
    let mut options = OpenOptions::new();
    // A pipe that nobody reads is no reason to wait.
    options.write(true).create(true).truncate(true).mode(0o644).custom_flags(libc::O_NONBLOCK);
    let file = options.open(temporary).map_err(at(&[b"unable to create ", temporary_name]))?;
    let mut text = Vec::new();
    io::stdin().lock().read_to_end(&mut text).map_err(at(&[b"unable to read input"]))?;
    let unwritten = at(&[b"unable to write to ", temporary_name]);
    let compiled = match compile(&text, grammar, u32::MAX) {
        Ok(compiled) => compiled,
        Err(Unusable { why: Why::TooLarge(_), .. }) => {
            return Err(unwritten(io::Error::from_raw_os_error(libc::ENOMEM)));
        }
        Err(unusable) => return Err(Unmade::Wrong(refused(&unusable, grammar))),
    };
    let written = (&file).write_all(&compiled.cdb).and_then(|()| file.sync_all());
    written.map_err(unwritten)?;
    drop(file);
    let unmoved = at(&[b"unable to move ", temporary_name, b" to ", name]);
    std::fs::rename(temporary, cdb).map_err(unmoved)?;
    sync_folder(cdb);
    if grammar == Grammar::Extended {
        for remark in &compiled.remarks {
            drop(writeln!(io::stderr(), "tcprules: warning: {remark}"));
        }
    }
    Ok(())
}

/// What is told of a line: its text alone, as others look for it, or where it is wrong and what to do.
fn refused(unusable: &Unusable, grammar: Grammar) -> Vec<u8> {
    let line = unusable.text.split(|&byte| byte == 0).next().unwrap_or_default();
    let told = [b"unable to parse this line: ", line].concat();
    match grammar {
        Grammar::Exact => told,
        Grammar::Extended => {
            let why = format!("{unusable}\n  help: {}\n  ", unusable.why.cure());
            [why.as_bytes(), line].concat()
        }
    }
}

/// Makes the new name last too; where a folder cannot be synced, it is as it was with the original.
fn sync_folder(file: &Path) {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let synced = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
    drop(synced);
}

/// `tcprulescheck [-e] RULES.CDB`
pub fn tcprulescheck(words: &[OsString]) -> ExitCode {
    let (grammar, [file, ..]) = options(words) else {
        return words::wrong("tcprulescheck: usage: tcprulescheck rules.cdb");
    };
    match check(grammar, file) {
        Ok(told) => {
            // A reader that went away has read enough.
            drop(io::stdout().write_all(&told));
            ExitCode::SUCCESS
        }
        Err(why) => {
            let begin = [b"tcprulescheck: fatal: unable to read ", file.as_bytes(), b": "].concat();
            words::temporary([&begin[..], why.as_bytes()].concat())
        }
    }
}

/// What the rules of a file say of the client in the environment.
fn check(grammar: Grammar, file: &OsStr) -> Result<Vec<u8>, String> {
    let variable = |name| std::env::var_os(name).map(OsString::into_vec);
    let (ip, host, info) =
        (variable("TCPREMOTEIP"), variable("TCPREMOTEHOST"), variable("TCPREMOTEINFO"));
    let client = Client {
        ip: ip.as_deref().unwrap_or(NO_ADDRESS.as_bytes()),
        host: host.as_deref(),
        info: info.as_deref(),
    };
    let bytes = std::fs::read(file).map_err(|error| words::of(&error))?;
    if grammar == Grammar::Extended {
        let rules =
            Rules::read(bytes).map_err(|error| format!("{error}\n  help: {}", error.cure()))?;
        return told(&rules.cdb(), &client, Keys::Networks);
    }
    if bytes.is_empty() {
        // So the original says of it, which maps the file.
        return Err(words::of(&io::Error::from_raw_os_error(libc::EINVAL)));
    }
    told(&Cdb::new(&bytes), &client, Keys::Exact)
}

fn told(cdb: &Cdb<'_>, client: &Client<'_>, keys: Keys) -> Result<Vec<u8>, String> {
    let found = look_up(cdb, client, keys).map_err(|_| words::PROTOCOL.to_owned())?;
    let Some(found) = found else { return Ok(b"default:\nallow connection\n".to_vec()) };
    let mut told = [b"rule ", &found.key[..], b":\n"].concat();
    for effect in found.effects() {
        match effect {
            Effect::Deny => {
                told.extend_from_slice(b"deny connection\n");
                return Ok(told);
            }
            Effect::Set(variable) => {
                told.extend_from_slice(&[b"set environment variable ", variable, b"\n"].concat());
            }
        }
    }
    told.extend_from_slice(b"allow connection\n");
    Ok(told)
}
