//! Delivery: Maildirs, and the relay.

use std::sync::Arc;

use lamppost_config::Config;
use lamppost_console::RoleStatus;
use lamppost_delivery::{OwnerProcess, Owners, Relay};
use lamppost_disk::RealDisk;
use lamppost_net::link::Port;
use lamppost_sandbox::InForce;
use lamppost_telemetry::Health;

use super::{Start, handed};
use crate::exit::{Code, Failure};
use crate::run::setup::Setup;
use crate::run::{relay, settings};

/// Delivery at work.
pub(super) struct Running {
    relay: Relay,
}

pub(super) fn begin(mut start: Start) -> Result<Running, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::of(Code::Software, error);
    let (relay, health) = (Relay::default(), Health::default());
    let links = &mut start.links;
    let inbox = links.inbox("delivery").map_err(|error| failed(&error))?;
    let content = links.port("content").map_err(|error| failed(&error))?;
    let supervisor = links.port("owners").map_err(|error| failed(&error))?;
    let handed = links.one("handed").map_err(|error| failed(&error))?;
    let owners = settings::owners(&start.config, &health)
        .map(|settings| Owners::new(settings, supervisor, Port::clone(&content)));
    if let Some(owners) = owners.clone() {
        let take = move |number, descriptor| owners.arrived(number, descriptor);
        handed::receive(handed, take).map_err(|error| failed(&error))?;
    }
    let (told, facts, known) = (relay.clone(), health.clone(), owners.clone());
    start.inspected(move |mut condition| {
        condition.relay = told.standing().map(relay::status);
        condition.health = facts.facts();
        condition.owners =
            known.iter().flat_map(Owners::processes).map(|one| status(&one)).collect();
        condition
    })?;
    let (config, setup) = (&start.config, &start.setup);
    relay.set(relay::settings(config, setup)?);
    let settings = settings::delivery(config, &setup.state, &setup.hostname, (&relay, &health))
        .map_err(|error| Failure::at(Code::Config, "mail.maildir", &error))?;
    let settings = lamppost_delivery::Settings { owners, ..settings };
    let metrics = start.metrics.clone();
    tokio::spawn(lamppost_delivery::run(settings, Arc::new(RealDisk), metrics, inbox, content));
    Ok(Running { relay })
}

/// The process of a user, as it is shown.
fn status(process: &OwnerProcess) -> RoleStatus {
    let force = serde_json::from_str(&process.restricted).unwrap_or_else(|_| InForce {
        no_new_privs: false,
        landlock: None,
        seccomp: false,
        missing: vec![format!("the process of {} does not tell what it gave up", process.user)],
    });
    RoleStatus {
        name: format!("user {}", process.user),
        pid: process.pid,
        answers: true,
        force: Some(force),
    }
}

/// Whether the relay could be reached as the configuration says.
pub(super) fn check(config: &Config, setup: &Setup) -> Result<(), Failure> {
    relay::settings(config, setup).map(drop)
}

impl Running {
    pub(super) fn apply(&self, config: &Config, setup: &Setup) -> Result<(), Failure> {
        self.relay.set(relay::settings(config, setup)?);
        Ok(())
    }
}
