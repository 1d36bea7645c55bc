//! The program as the supervisor sees it, told at any moment, whatever the supervisor is at.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lamppost_console::{Blocked, HostStatus, Phase, Reading, RoleStatus};
use lamppost_net::link::{Inbox, link};
use lamppost_telemetry::{Health, State};
use parking_lot::Mutex;
use sd_notify::NotifyState;

use super::Supervisor;
use super::group::Group;
use crate::command::out;
use crate::run::orders::{Granted, Wish};

/// What those are told who ask how the program is; clones share it.
#[derive(Clone)]
pub(super) struct Board {
    begun: Instant,
    health: Health,
    posted: Arc<Mutex<Posted>>,
    /// Whether it is told on standard output instead, to the program that has this one rehearse.
    is_rehearsal: bool,
}

/// What was told to the board last.
struct Posted {
    status: HostStatus,
    /// When the phase ends at the latest, where that is known.
    until: Option<Instant>,
}

impl Board {
    pub(super) fn new(health: Health) -> Self {
        let posted = Posted { status: unposted(), until: None };
        Self {
            begun: Instant::now(),
            health,
            posted: Arc::new(Mutex::new(posted)),
            is_rehearsal: false,
        }
    }

    pub(super) fn rehearse(&mut self) {
        self.is_rehearsal = true;
    }

    /// What the program is at, and how long it may take at most, where that is known.
    pub(super) fn set_phase(&self, phase: Phase, left: Option<Duration>) {
        let mut posted = self.posted.lock();
        posted.status.phase = phase;
        posted.until = left.map(|left| Instant::now() + left);
        posted.status.reading = None;
        if phase == Phase::AtWork {
            drop(sd_notify::notify(&[NotifyState::Status("at work")]));
        }
    }

    /// How far the queue is with reading. Who looks after the program is told too, so that it is not taken for
    /// one that hangs, however long that takes: it must come forward, and not be done.
    pub(super) fn set_reading(&self, reading: Reading) {
        /// How long it may be without coming forward: as long as the unit lets a program that is at work.
        const STILL_MAX: Duration = Duration::from_secs(4 * 60);
        self.posted.lock().status.reading = Some(reading);
        let Reading { segments, of } = reading;
        let text = format!("the queue is read: {segments} of {of} segments");
        if self.is_rehearsal {
            drop(out::print(&format!("{text}\n")));
            return;
        }
        let still_max = u32::try_from(STILL_MAX.as_micros()).unwrap_or(u32::MAX);
        drop(sd_notify::notify(&[
            NotifyState::Status(&text),
            NotifyState::ExtendTimeoutUsec(still_max),
            NotifyState::Watchdog,
        ]));
    }

    /// Answers those who ask how the program is, and passes on what only the supervisor can do: it may be at
    /// something that takes long.
    pub(super) fn answer(&self, mut asked: Inbox<Wish, Granted>) -> Inbox<Wish, Granted> {
        let (port, inbox) = link();
        let board = self.clone();
        tokio::spawn(async move {
            while let Some((wish, reply)) = asked.next().await {
                if matches!(wish, Wish::Status) {
                    reply.send(Granted::Status(board.text()));
                    continue;
                }
                let port = port.clone();
                tokio::spawn(async move {
                    // Whoever asked learns that nobody answers any more.
                    if let Ok(granted) = port.ask(wish).await {
                        reply.send(granted);
                    }
                });
            }
        });
        inbox
    }

    /// In JSON's text: the control role adds what the others tell.
    fn text(&self) -> String {
        let posted = self.posted.lock();
        let left = posted.until.map(|until| until.saturating_duration_since(Instant::now()));
        let status = HostStatus {
            uptime_s: self.begun.elapsed().as_secs(),
            phase_left_s: left.map(|left| left.as_secs()),
            health: self.health.facts(),
            ..posted.status.clone()
        };
        serde_json::to_string(&status).unwrap_or_default()
    }
}

impl Supervisor {
    /// Tells the board how the program is, with these processes.
    pub(super) fn post(&self, group: &Group) {
        if self.restarts > 0 {
            let times = out::count(self.restarts, "time");
            let text = format!("roles ended by themselves {times}");
            self.health.set("roles", State::Warn, text);
        }
        let file = self.opened.file.as_ref();
        let roles = group.processes().map(|(role, pid)| RoleStatus {
            name: role.name().into(),
            pid,
            answers: false,
            force: None,
        });
        let mut posted = self.board.posted.lock();
        posted.status = HostStatus {
            state: self.opened.state.clone(),
            // Those who ask for it may stand elsewhere.
            file: file.map(|file| std::path::absolute(file).unwrap_or(file.clone())),
            listeners: self.listeners(),
            roles: roles.collect(),
            paused: self.paused.iter().copied().collect(),
            phase: posted.status.phase,
            reading: posted.status.reading,
            ..unposted()
        };
    }
}

/// What is the same for every program.
fn unposted() -> HostStatus {
    HostStatus {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        uptime_s: 0,
        phase: Phase::Beginning,
        phase_left_s: None,
        reading: None,
        state: PathBuf::new(),
        file: None,
        listeners: Vec::new(),
        sessions: 0,
        relay: None,
        blocked: Blocked::default(),
        health: Vec::new(),
        roles: Vec::new(),
        paused: Vec::new(),
    }
}
