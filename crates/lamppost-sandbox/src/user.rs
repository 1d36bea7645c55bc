//! Another user, for good.

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

/// A user to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    source: rustix::io::Errno,
}

impl User {
    /// Becomes this user, without any capability, for this thread and all that it will start.
    ///
    /// # Errors
    /// When that is not possible, as for whoever is not root.
    pub fn become_it(self) -> Result<(), UserError> {
        let failed = |step| move |source| UserError { step, source };
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        for capability in CapabilitySet::all().iter() {
            match remove_capability_from_bounding_set(capability) {
                // This kernel has no such capability.
                Err(rustix::io::Errno::INVAL) | Ok(()) => {}
                Err(error) => return Err(failed("give up capabilities for good")(error)),
            }
        }
        set_thread_groups(&[gid]).map_err(failed("leave all other groups"))?;
        set_thread_res_gid(gid, gid, gid).map_err(failed("change the group"))?;
        set_thread_res_uid(uid, uid, uid).map_err(failed("change the user"))?;
        clear_ambient_capability_set().map_err(failed("give up ambient capabilities"))?;
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, sets).map_err(failed("give up capabilities"))
    }
}
