//! What the supervisor and the control role say to the roles, and what these say back.

use std::time::Duration;

use lamppost_console::{Blocked, Part, Reading, RelayStatus, Reloaded, RoleStatus};
use lamppost_sandbox::InForce;
use lamppost_telemetry::Fact;
use serde::{Deserialize, Serialize};

use super::setup::Setup;
use crate::exit::Failure;

/// The supervisor's orders.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Begin your work.
    Begin {
        /// Whether nothing new is begun yet.
        is_paused: bool,
    },
    /// Could you work with this?
    Check(Box<Setup>),
    /// Work with this from now on, as far as it can change while you run.
    Apply(Box<Setup>),
    /// Finish what is under way, within this time, and end.
    Finish(Duration),
    /// Answer, if you can.
    Answer,
    /// Begin nothing new until it is said otherwise, or go on.
    Pause(bool),
    /// Another process has your place: take nothing new, let sessions go on for `patience`, then finish
    /// within `grace`.
    Retire {
        /// How long sessions may go on.
        patience: Duration,
        /// How long they may take to finish afterwards.
        grace: Duration,
    },
}

/// What a role answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// It is done.
    Done,
    /// It begins its work, and is still reading.
    Reading(Reading),
    /// It was done; so many of what was under way were cut short.
    Finished {
        /// Sessions, for the front.
        left: u64,
    },
    /// It cannot be done.
    Failed {
        /// The exit code that fits (sysexits.h).
        code: u8,
        /// What is the matter, for people.
        text: String,
        /// What to do about it.
        cure: Option<String>,
    },
}

impl From<Failure> for Report {
    fn from(failure: Failure) -> Self {
        let (code, text, cure) = failure.into_parts();
        Self::Failed { code, text, cure }
    }
}

/// What the control role asks every other.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Inspect {
    /// The role's figures in Prometheus' text format.
    Metrics,
    /// The same, once the role is replaced and counts nothing any more: it ends when it is told that they are
    /// known.
    LastMetrics,
    /// How the role is.
    Condition,
}

/// What a role tells of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Inspected {
    /// Its figures.
    Metrics(String),
    /// How it is.
    Condition(Condition),
}

/// How a role is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Condition {
    /// Its process.
    pub(super) pid: u32,
    /// Sessions that are open now; the front's.
    pub(super) sessions: i64,
    /// What is well with it and what is not.
    pub(super) health: Vec<Fact>,
    /// How it stands with the relay; delivery's.
    pub(super) relay: Option<RelayStatus>,
    /// Who may try no password now; policy's.
    pub(super) blocked: Blocked,
    /// What it gave up.
    pub(super) force: InForce,
    /// Processes that work for it; delivery's, one a user of this machine.
    pub(super) owners: Vec<RoleStatus>,
}

/// What the control role may ask the supervisor for: nothing that has a size of its own.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Wish {
    /// Read the configuration again.
    Reload,
    /// Begin the program's file anew.
    Upgrade,
    /// Have a part of the mail service pause, or go on.
    Pause(Part, bool),
    /// How is the program as a whole?
    Status,
}

/// The supervisor's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Granted {
    /// What the upgrade or the pause does, or all that is wrong.
    Done(Result<String, String>),
    /// What the reload did, or all that is wrong.
    Reloaded(Result<Reloaded, String>),
    /// The program as the supervisor sees it, in JSON's text: `lamppost_console::HostStatus`.
    Status(String),
}
