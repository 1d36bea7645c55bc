//! status --security: what the kernel holds each process to, as its own files tell it (proc(5)).

use std::fmt::Write as _;

use lamppost_console::HostStatus;
use lamppost_sandbox::InForce;
use rustix::thread::CapabilitySet;
use serde::Serialize;

use super::out;
use crate::state_files;

/// A process of the program.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Process {
    /// `supervisor`, or its role.
    name: String,
    pid: u32,
    /// What the kernel says; nothing where it does not let this user look, or the process is gone.
    kernel: Option<Kernel>,
    /// The version of Landlock that holds, as the role says: the kernel tells nobody else.
    landlock: Option<u32>,
    /// What the role found missing.
    missing: Vec<String>,
}

/// From `/proc/PID/status`.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Kernel {
    user: String,
    uid: u32,
    capabilities: Vec<String>,
    no_new_privs: bool,
    seccomp: bool,
}

/// All processes of the running program, the supervisor first.
pub(super) fn processes(host: &HostStatus) -> Vec<Process> {
    let one = |name: &str, pid: u32, force: Option<&InForce>| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok();
        Process {
            name: name.to_owned(),
            pid,
            kernel: status.as_deref().and_then(Kernel::read),
            landlock: force.and_then(|force| force.landlock),
            missing: force.map(|force| force.missing.clone()).unwrap_or_default(),
        }
    };
    let roles = host.roles.iter().map(|role| one(&role.name, role.pid, role.force.as_ref()));
    std::iter::once(one("supervisor", host.pid, None)).chain(roles).collect()
}

impl Kernel {
    fn read(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.strip_prefix(':')?.trim())
        };
        // Real, effective, saved and file system's.
        let uid = field("Uid")?.split_whitespace().nth(1)?.parse().ok()?;
        let permitted = u64::from_str_radix(field("CapPrm")?, 16).ok()?;
        let names = CapabilitySet::from_bits_truncate(permitted);
        Some(Self {
            user: state_files::name(uid),
            uid,
            capabilities: names.iter_names().map(|(name, _)| name.to_lowercase()).collect(),
            no_new_privs: field("NoNewPrivs")? == "1",
            seccomp: field("Seccomp")? == "2",
        })
    }

    fn capabilities(&self) -> String {
        /// More are not told one by one.
        const NAMED_MAX: usize = 4;
        match self.capabilities.len() {
            0 => "none".into(),
            1..=NAMED_MAX => self.capabilities.join(", "),
            more => format!("{more} of them"),
        }
    }
}

/// The same for people.
pub(super) fn text(processes: &[Process]) -> String {
    let yes = |it: bool| if it { "yes" } else { "no" }.to_owned();
    let rows: Vec<_> = processes
        .iter()
        .map(|one| {
            let kernel = one.kernel.as_ref();
            let told = |told: fn(&Kernel) -> String| kernel.map_or_else(|| "?".into(), told);
            [
                one.name.clone(),
                one.pid.to_string(),
                told(|kernel| kernel.user.clone()),
                told(Kernel::capabilities),
                kernel.map_or_else(|| "?".into(), |kernel| yes(kernel.no_new_privs)),
                kernel.map_or_else(|| "?".into(), |kernel| yes(kernel.seccomp)),
                one.landlock.map_or_else(|| "no".into(), |version| format!("version {version}")),
            ]
        })
        .collect();
    let head =
        ["PROCESS", "PID", "USER", "CAPABILITIES", "NO NEW PRIVILEGES", "SECCOMP", "LANDLOCK"];
    let mut text = out::table(head, &rows);
    let mut told = Vec::new();
    for missing in processes.iter().flat_map(|one| &one.missing) {
        if !told.contains(&missing) {
            let _infallible = writeln!(text, "WARN      {missing}");
            told.push(missing);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tlamppost\nUid:\t0\t0\t0\t0\nCapPrm:\t0000000000000400\n\
                          NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn the_kernels_words_are_read() {
        let kernel = Kernel::read(STATUS).unwrap();
        assert_eq!(kernel.capabilities, ["net_bind_service"]);
        assert!(kernel.no_new_privs && kernel.seccomp && kernel.uid == 0);
        let none = STATUS.replace("0400", "0000").replace("Seccomp:\t2", "Seccomp:\t0");
        let kernel = Kernel::read(&none).unwrap();
        assert_eq!((kernel.capabilities().as_str(), kernel.seccomp), ("none", false));
        assert!(Kernel::read("Name:\tx\n").is_none());
    }

    #[test]
    fn what_is_missing_is_told_once() {
        let one = |name: &str| Process {
            name: name.into(),
            pid: 7,
            kernel: None,
            landlock: None,
            missing: vec!["the kernel has no Landlock".into()],
        };
        insta::assert_snapshot!(text(&[one("front"), one("queue")]), @r"
        PROCESS  PID  USER  CAPABILITIES  NO NEW PRIVILEGES  SECCOMP  LANDLOCK
        front    7    ?     ?             ?                  ?        no
        queue    7    ?     ?             ?                  ?        no
        WARN      the kernel has no Landlock
        ");
    }
}
