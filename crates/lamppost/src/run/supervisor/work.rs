//! The roles at work: their processes are started, and started again when one has ended.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use lamppost_net::link::{Inbox, link};
use tracing::{error, info};

use super::group::{ControlSockets, Group};
use super::signals::Signals;
use super::{PAUSE_LONGEST, Supervisor};
use crate::exit::{Code, Failure};
use crate::run::orders::{Granted, Wish};
use crate::run::setup::Setup;

/// The roles at work, and what they want.
pub(super) struct Work {
    pub(super) group: Group,
    pub(super) wishes: Inbox<Wish, Granted>,
}

impl Default for Work {
    /// No roles, which want nothing.
    fn default() -> Self {
        Self { group: Group::default(), wishes: link().1 }
    }
}

impl Supervisor {
    /// Starts all roles again, as often as it takes; nothing when the program is to stop meanwhile.
    pub(super) async fn again(
        &mut self,
        signals: &mut Signals,
        pause: &mut Duration,
    ) -> Option<Work> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(*pause) => {}
                () = signals.stop() => self.is_to_stop = true,
            }
            if self.is_to_stop {
                return None;
            }
            *pause = (*pause * 2).min(PAUSE_LONGEST);
            match self.start(signals).await {
                Ok(started) => {
                    info!("all roles work again");
                    return Some(started);
                }
                Err(_) if self.is_to_stop => return None,
                Err(failure) => error!(reason = failure.text(), "the roles cannot be started"),
            }
        }
    }

    /// Goes on with other roles; what those before were asked for meanwhile is not forgotten.
    pub(super) fn take_over(&mut self, work: &mut Work, again: Work) {
        let mut before = std::mem::replace(work, again);
        self.waiting.extend(std::iter::from_fn(|| before.wishes.next_waiting()));
    }

    /// Starts a process for each role, which waits for the order to begin.
    pub(super) fn waiting(
        &self,
        setup: &Setup,
        control: &UnixListener,
        metrics: &[TcpListener],
    ) -> Result<Work, Failure> {
        let sockets = || {
            let control = control.try_clone()?.into();
            let metrics = metrics.iter().map(|socket| Ok(socket.try_clone()?.into()));
            Ok(ControlSockets { control, metrics: metrics.collect::<std::io::Result<_>>()? })
        };
        let owners = &self.owners;
        let started =
            sockets().and_then(|sockets| Group::start(setup, owners, sockets, &self.rules));
        let (group, wishes) = started.map_err(|error: std::io::Error| unstarted(&error))?;
        Ok(Work { group, wishes: self.board.answer(wishes) })
    }
}

pub(super) fn unstarted(error: &dyn std::error::Error) -> Failure {
    Failure::at(Code::System, "cannot start the roles", error)
}
