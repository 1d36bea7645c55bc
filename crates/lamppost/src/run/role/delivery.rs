//! Delivery: Maildirs, and the relay.

use std::sync::Arc;

use lamppost_config::Config;
use lamppost_delivery::Relay;
use lamppost_disk::RealDisk;
use lamppost_telemetry::Health;

use super::Start;
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
    let (told, facts) = (relay.clone(), health.clone());
    start.inspected(move |mut condition| {
        condition.relay = told.standing().map(relay::status);
        condition.health = facts.facts();
        condition
    })?;
    let (config, setup) = (&start.config, &start.setup);
    relay.set(relay::settings(config, setup)?);
    let settings = settings::delivery(config, &setup.state, &setup.hostname, (&relay, &health))
        .map_err(|error| Failure::at(Code::Config, "mail.maildir", &error))?;
    let links = &mut start.links;
    let inbox = links.inbox("delivery").map_err(|error| failed(&error))?;
    let content = links.port("content").map_err(|error| failed(&error))?;
    let metrics = start.metrics.clone();
    tokio::spawn(lamppost_delivery::run(settings, Arc::new(RealDisk), metrics, inbox, content));
    Ok(Running { relay })
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
