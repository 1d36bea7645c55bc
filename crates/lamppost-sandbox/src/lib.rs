//! What a process may touch: its user, its files, its system calls.
//!
//! A process gives up power once, while it has a single thread, and can never take it back: the user
//! (setresuid(2)), all capabilities, new privileges by exec (`PR_SET_NO_NEW_PRIVS`), files and TCP
//! ports (Landlock, landlock(7)) and system calls (seccomp(2)). What the kernel does not know is left
//! out and told: an old kernel runs with less, and says what is missing.

mod calls;
mod files;
mod user;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use user::{User, UserError};

/// What a process may touch from now on.
#[derive(Clone, Debug, Default)]
pub struct Power {
    /// Files and folders that it may read, with all that is in them.
    pub reads: Vec<PathBuf>,
    /// Folders in which it may read, write, make, rename and remove.
    pub writes: Vec<PathBuf>,
    /// Folders in which it may make folders and sync them, and no more.
    pub makes: Vec<PathBuf>,
    /// Whether it may make sockets. Those that it was given it may use in any case.
    pub sockets: Sockets,
}

/// Which sockets a process may make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sockets {
    /// None: it has all that it needs.
    #[default]
    None,
    /// It asks hosts by UDP, and by TCP those at these ports; it listens nowhere.
    Ask {
        /// The ports.
        ports: Vec<u16>,
        /// Whether it may ask programs of this host by UNIX sockets too.
        here: bool,
    },
    /// It connects to other hosts, not to programs of this one, and listens nowhere.
    Connect,
    /// Any.
    All,
}

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InForce {
    /// No program that this process runs gains privileges.
    pub no_new_privs: bool,
    /// The version of the kernel's Landlock that holds, from 1 on; none where there is none.
    pub landlock: Option<u32>,
    /// System calls are filtered.
    pub seccomp: bool,
    /// What this kernel lacks, or the system refuses, for people.
    pub missing: Vec<String>,
}

/// Why power could not be given up. The process must not go on.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel refuses something that every supported kernel can do.
    #[error("cannot {step}")]
    Refused {
        /// What was to be done.
        step: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file or folder that the process needs is not there.
    #[error("cannot open {path}, which this process needs")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl SandboxError {
    fn refused(
        step: &'static str,
    ) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Self {
        move |source| Self::Refused { step, source }
    }
}

/// Gives up, for this thread and all that it will start, everything but the power that is named.
///
/// # Errors
/// When that is not possible; nothing may be done with what power is left then.
pub fn restrict(power: &Power) -> Result<InForce, SandboxError> {
    // Secrets in memory are for nobody who may not read them anyway.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|error| SandboxError::refused("forbid core dumps")(error.into()))?;
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| SandboxError::refused("give up new privileges")(error.into()))?;
    user::give_up_capabilities()
        .map_err(|error| SandboxError::refused("give up capabilities")(error.into()))?;
    let mut missing = Vec::new();
    let landlock = files::restrict(power, &mut missing)?;
    let seccomp = calls::restrict(&power.sockets, &mut missing)?;
    Ok(InForce { no_new_privs: true, landlock, seccomp, missing })
}

#[cfg(test)]
mod tests;
