//! Another user, for good.

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use serde::{Deserialize, Serialize};

/// A user to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Its group's number; it is in no other group.
    pub gid: u32,
}

/// Why a process could not become another user. It must not go on.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
pub struct UserError {
    step: &'static str,
    #[source]
    source: Errno,
}

impl User {
    /// Becomes this user, without any capability, for this thread and all that it will start.
    ///
    /// # Errors
    /// When that is not possible, as for whoever is not root.
    pub fn become_it(self) -> Result<(), UserError> {
        let failed = |step| move |source| UserError { step, source };
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        unbind().map_err(failed("give up capabilities for good"))?;
        set_thread_groups(&[gid]).map_err(failed("leave all other groups"))?;
        set_thread_res_gid(gid, gid, gid).map_err(failed("change the group"))?;
        set_thread_res_uid(uid, uid, uid).map_err(failed("change the user"))?;
        clear_ambient_capability_set().map_err(failed("give up ambient capabilities"))?;
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, sets).map_err(failed("give up capabilities"))
    }
}

/// Takes all capabilities from whatever is run from now on.
fn unbind() -> Result<(), Errno> {
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // This kernel has no such capability.
            Err(Errno::INVAL) | Ok(()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives up what capabilities there are, for this thread and all that it will start.
pub(crate) fn give_up_capabilities() -> Result<(), Errno> {
    clear_ambient_capability_set()?;
    // Who may not do this runs no program that could get any: new privileges are given up.
    let _allowed = unbind();
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    match set_capabilities(None, sets) {
        // A filter of system calls may refuse it to those who have none.
        Err(Errno::PERM) if capabilities(None)?.permitted.is_empty() => Ok(()),
        done => done,
    }
}
