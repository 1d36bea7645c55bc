//! The program as the supervisor sees it.

use lamppost_console::{Blocked, HostStatus};
use lamppost_telemetry::State;

use super::Supervisor;

impl Supervisor {
    /// In JSON's text: the control role adds what the others tell.
    pub(super) fn status(&self) -> String {
        if self.restarts > 0 {
            let text = format!("roles ended by themselves {} times", self.restarts);
            self.health.set("roles", State::Warn, text);
        }
        let file = self.opened.file.as_ref();
        let status = HostStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_s: self.begun.elapsed().as_secs(),
            state: self.opened.state.clone(),
            // Those who ask for it may stand elsewhere.
            file: file.map(|file| std::path::absolute(file).unwrap_or(file.clone())),
            listeners: self.listeners(),
            sessions: 0,
            relay: None,
            blocked: Blocked::default(),
            health: self.health.facts(),
            roles: Vec::new(),
            paused: self.paused.iter().copied().collect(),
        };
        serde_json::to_string(&status).unwrap_or_default()
    }
}
