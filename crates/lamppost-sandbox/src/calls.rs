//! System calls, by a seccomp(2) filter: those that no process of ours ever needs are refused with
//! `EPERM`, and those that make sockets where none are to be made.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::{SandboxError, Sockets};

/// What no process of ours needs: other programs, other processes, the machine itself, and parts of
/// the kernel in which many holes were found.
const NEVER: &[libc::c_long] = &[
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    // Other users and more power.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capset,
    libc::SYS_personality,
    // Other views of the machine.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    // The machine itself.
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_quotactl,
    libc::SYS_vhangup,
    // Parts of the kernel that are often attacked.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
];

/// What makes a socket or gives it an address. A pair without a name reaches nobody else and is what
/// a runtime hears of signals by.
const SOCKETS: &[libc::c_long] =
    &[libc::SYS_socket, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen];

/// What makes a socket that others connect to.
const LISTENING: &[libc::c_long] = &[libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4];

/// What sockets to other hosts are, and what finding those by name takes (netlink(7): which addresses this
/// machine has). Programs of this machine, such as our own control socket, are no other hosts.
const ELSEWHERE: [libc::c_int; 3] = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// What sockets to other hosts are whose addresses are known.
const INTERNET: [libc::c_int; 2] = [libc::AF_INET, libc::AF_INET6];

/// As [`INTERNET`], and those to programs of this machine.
const INTERNET_AND_HERE: [libc::c_int; 3] = [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX];

/// Restricts this thread and all that it will start; tells whether that holds. Another filter may refuse
/// it, such as that of a unit which does not know that programs can filter themselves.
pub(crate) fn restrict(sockets: &Sockets, missing: &mut Vec<String>) -> Result<bool, SandboxError> {
    let more = match sockets {
        Sockets::None => SOCKETS,
        Sockets::Ask { .. } | Sockets::Connect => LISTENING,
        Sockets::All => &[],
    };
    let refused = NEVER.iter().chain(more).flat_map(|&call| names(call));
    let mut refused: BTreeMap<_, _> = refused.map(|call| (call, Vec::new())).collect();
    let failed =
        |error: BackendError| SandboxError::refused("make a filter of system calls")(error.into());
    let families: &[_] = match sockets {
        Sockets::None | Sockets::All => &[],
        Sockets::Ask { here: true, .. } => &INTERNET_AND_HERE,
        Sockets::Ask { here: false, .. } => &INTERNET,
        Sockets::Connect => &ELSEWHERE,
    };
    if !families.is_empty() {
        for call in names(libc::SYS_socket) {
            refused.insert(call, vec![other_than(families).map_err(failed)?]);
        }
    }
    let program = compile(refused).map_err(failed)?;
    match seccompiler::apply_filter(&program) {
        Ok(()) => Ok(true),
        Err(seccompiler::Error::Seccomp(error))
            if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) =>
        {
            missing.push("seccomp(2) is refused: system calls are not filtered".into());
            Ok(false)
        }
        Err(error) => Err(SandboxError::refused("filter system calls by seccomp")(error.into())),
    }
}

/// Every number that a system call goes by: on x86-64 a kernel may also take those of the x32 ABI, which
/// have a bit of their own, and for some calls another number.
fn names(call: libc::c_long) -> Vec<libc::c_long> {
    #[cfg(target_arch = "x86_64")]
    {
        const X32: libc::c_long = 0x4000_0000;
        // As arch/x86/entry/syscalls/syscall_64.tbl of the kernel lists them.
        const OTHERS: [(libc::c_long, libc::c_long); 6] = [
            (libc::SYS_execve, 520),
            (libc::SYS_ptrace, 521),
            (libc::SYS_kexec_load, 528),
            (libc::SYS_process_vm_readv, 539),
            (libc::SYS_process_vm_writev, 540),
            (libc::SYS_execveat, 545),
        ];
        let others = OTHERS.into_iter().filter(|(usual, _)| *usual == call);
        [call, call | X32].into_iter().chain(others.map(|(_, other)| other | X32)).collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    vec![call]
}

/// A socket of any family but those.
fn other_than(families: &[libc::c_int]) -> Result<SeccompRule, BackendError> {
    let is_other = |family: libc::c_int| {
        let family = u64::from(family.unsigned_abs());
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
    };
    SeccompRule::new(families.iter().copied().map(is_other).collect::<Result<_, _>>()?)
}

fn compile(refused: BTreeMap<i64, Vec<SeccompRule>>) -> Result<BpfProgram, BackendError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(refused, SeccompAction::Allow, refuse, architecture)?.try_into()
}
