//! Parts of the mail service that pause on an administrator's word.

use lamppost_console::Part;
use lamppost_telemetry::State;
use tracing::info;

use super::Supervisor;
use super::group::Group;
use crate::exit::Failure;
use crate::run::orders::Order;
use crate::run::role::Role;

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
            self.health.set("pause", State::Warn, "an administrator has paused a part");
        } else {
            self.paused.remove(&part);
        }
        if self.paused.is_empty() {
            self.health.set("pause", State::Ok, "all parts are at work");
        }
        info!(part = name, is_paused, "a part was told to pause or to go on");
        Ok(match (part, is_paused) {
            (Part::Front, true) => {
                "The front is paused: connections wait, and those that are open go on."
            }
            (Part::Delivery, true) => {
                "Deliveries are paused: mail is taken, and waits in the queue."
            }
            (Part::Front, false) => "The front takes connections.",
            (Part::Delivery, false) => "Deliveries go on.",
        }
        .to_owned())
    }

    /// Has roles that just began pause as the ones before did.
    pub(super) async fn pause_again(&self, group: &Group) -> Result<(), Failure> {
        for &part in &self.paused {
            group.order(role_of(part), Order::Pause(true)).await?;
        }
        Ok(())
    }
}

/// Who pauses: deliveries are handed out by the queue.
fn role_of(part: Part) -> Role {
    match part {
        Part::Front => Role::Front,
        Part::Delivery => Role::Queue,
    }
}
