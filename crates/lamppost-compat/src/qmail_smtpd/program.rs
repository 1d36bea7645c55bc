//! Programs that are asked something and answer by how they end, within their time.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal.
    Crashed(i32),
    /// Not in time: it and those that it began were killed.
    Late,
}

/// Begins a program at the head of a group of its own.
pub(super) fn begin(command: &mut Command) -> io::Result<Child> {
    command.process_group(0).spawn()
}

/// Waits for the end of a program that [`begin`] began.
pub(super) fn end(child: &mut Child, patience: Duration) -> io::Result<Ended> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty());
    let is_over = process
        .map_err(io::Error::from)
        .and_then(|process| ready(&process, PollFlags::IN, Instant::now() + patience));
    if !matches!(is_over, Ok(true)) {
        kill(child)?;
        return is_over.map(|_| Ended::Late);
    }
    let status = child.wait()?;
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Code(code),
        (None, signal) => Ended::Crashed(signal.unwrap_or_default()),
    })
}

/// Kills a program and those that it began.
pub(super) fn kill(child: &mut Child) -> io::Result<()> {
    // It is not waited for yet, so that the number is still its own.
    let _killed = kill_process_group(Pid::from_child(child), Signal::KILL);
    child.kill()?;
    child.wait().map(drop)
}

/// Waits until a descriptor can be read or written; false when it is late.
pub(super) fn ready(
    descriptor: &impl AsFd,
    flags: PollFlags,
    deadline: Instant,
) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(descriptor, flags)], Some(&left)) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(script: &str, patience: Duration, expected: Ended) {
        let mut child = begin(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(end(&mut child, patience).unwrap(), expected, "{script}");
    }

    #[test]
    fn programs_end_in_three_ways() {
        let patience = Duration::from_secs(60);
        check("exit 101", patience, Ended::Code(101));
        check("kill -SEGV $$", patience, Ended::Crashed(11));
        let begun = Instant::now();
        check("sleep 1000; true", Duration::from_millis(100), Ended::Late);
        assert!(begun.elapsed() < patience);
    }
}
