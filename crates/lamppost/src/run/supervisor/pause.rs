//! Parts of the mail service that pause on an administrator's word.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use lamppost_console::Part;
use lamppost_telemetry::State;
use tracing::{info, warn};

use super::Supervisor;
use super::group::Group;
use crate::run::orders::Order;
use crate::run::role::Role;

/// The file of the state folder that names what is paused, so that neither a restart nor an upgrade ends what
/// an administrator wanted.
const FILE: &str = "paused";
/// What `lamppost status` tells of it.
const PAUSED: &str = "an administrator has paused a part";

impl Supervisor {
    /// Has a part pause, or go on; tells what that means.
    pub(super) async fn pause(
        &mut self,
        group: &Group,
        part: Part,
        is_paused: bool,
    ) -> Result<String, String> {
        let ordered = group.order(role_of(part), Order::Pause(is_paused)).await;
        ordered.map_err(|failure| failure.text().to_owned())?;
        let name = part.name();
        if is_paused {
            self.paused.insert(part);
            self.health.set("pause", State::Warn, PAUSED);
        } else {
            self.paused.remove(&part);
        }
        if self.paused.is_empty() {
            self.health.set("pause", State::Ok, "all parts are at work");
        }
        info!(part = name, is_paused, "a part was told to pause or to go on");
        let done = match (part, is_paused) {
            (Part::Front, true) => {
                "The front is paused: connections wait, and those that are open go on."
            }
            (Part::Delivery, true) => {
                "Deliveries are paused: mail is taken, and waits in the queue."
            }
            (Part::Front, false) => "The front takes connections.",
            (Part::Delivery, false) => "Deliveries go on.",
        };
        let kept = write(&self.opened.state, &self.paused);
        Ok(kept.map_or_else(
            |error| {
                let state = self.opened.state.display();
                format!("{done} A restart forgets that: cannot write into {state}: {error}")
            },
            |()| done.to_owned(),
        ))
    }

    /// Tells at the start what an administrator has paused before it.
    pub(super) fn tell_paused(&self) {
        for part in &self.paused {
            let part = part.name();
            warn!(part, "a part is paused since before the start; `lamppost resume` has it go on");
        }
        if !self.paused.is_empty() {
            self.health.set("pause", State::Warn, PAUSED);
        }
    }
}

/// What was paused when the program ended. A file that holds something else pauses nothing.
pub(super) fn read(state: &Path) -> BTreeSet<Part> {
    let text = std::fs::read_to_string(state.join(FILE)).unwrap_or_default();
    let is_named = |part: &Part| text.lines().any(|line| line == part.name());
    Part::ALL.into_iter().filter(is_named).collect()
}

/// Has this be paused at the next start too.
fn write(state: &Path, paused: &BTreeSet<Part>) -> io::Result<()> {
    let (path, new) = (state.join(FILE), state.join(format!("{FILE}.new")));
    let lines: String = paused.iter().flat_map(|part| [part.name(), "\n"]).collect();
    let mut file = File::create(&new)?;
    file.write_all(lines.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, &path)?;
    File::open(state)?.sync_all()
}

/// Who pauses: deliveries are handed out by the queue.
pub(super) fn role_of(part: Part) -> Role {
    match part {
        Part::Front => Role::Front,
        Part::Delivery => Role::Queue,
    }
}
