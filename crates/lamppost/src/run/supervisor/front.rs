//! A new front in the place of another: it takes what comes from now on, and the sessions of the old one
//! go on until they end.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lamppost_net::link::Port;
use tokio::time::timeout;
use tracing::warn;

use super::group::{ANSWERS_WITHIN, Gifts, Group, asking, done, memory, silent, spawn};
use crate::exit::{Code, Failure};
use crate::run::listeners::Bound;
use crate::run::local::Local;
use crate::run::orders::{Order, Report};
use crate::run::role::{Role, handed};
use crate::run::setup::Setup;

/// How long sessions may go on after a new front took the place of theirs: as long as a client may take
/// for one command and more (RFC 5321 §4.5.3.2).
const SESSIONS_GO_ON: Duration = Duration::from_secs(10 * 60);

/// A front that is not in its place yet.
struct Candidate {
    child: std::process::Child,
    orders: Port<Order, Report>,
    handed: UnixStream,
}

impl Group {
    /// Starts a front that works as `setup` says and listens on these sockets, and has the present one
    /// retire. When it cannot begin, all stays as it was.
    pub(super) async fn replace_front(
        &mut self,
        setup: &Setup,
        (mail, locals): (&[Bound], &[Local]),
        (grace, is_paused): (Duration, bool),
    ) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::at(Code::System, "cannot start a front", &error);
        let mut candidate = self.candidate(setup).map_err(failed)?;
        let asked = candidate.orders.ask(Order::Begin { is_paused });
        let began = match timeout(ANSWERS_WITHIN, asked).await {
            Ok(answer) => done(Role::Front, answer),
            Err(_) => Err(silent(Role::Front)),
        };
        if let Err(failure) = began {
            drop(candidate.child.kill());
            drop(candidate.child.wait());
            return Err(failure);
        }
        let Candidate { child, orders, handed } = candidate;
        self.retire(Role::Front, SESSIONS_GO_ON, grace).await;
        self.bound_fronts(grace);
        self.handed.insert(Role::Front, handed);
        for (place, bound) in (0..).zip(mail) {
            if let Some(socket) = &bound.socket
                && let Err(reason) = self.listen(place, socket)
            {
                warn!(%reason, address = %bound.address, "a front could not be given a socket");
            }
        }
        for Local { purpose, path, socket } in locals {
            if let Err(reason) = self.listen(purpose.place(), socket) {
                warn!(%reason, socket = %path.display(), "a front could not be given a socket");
            }
        }
        self.orders.insert(Role::Front, orders);
        self.children.push((Role::Front, child));
        Ok(())
    }

    fn candidate(&self, setup: &Setup) -> io::Result<Candidate> {
        let mut gifts = Gifts::default();
        let ends = [
            (Role::Policy, handed::QUESTIONS, "policy"),
            (Role::Queue, handed::QUESTIONS, "intake"),
            (Role::Control, handed::INSPECT, "inspect"),
            (Role::Control, handed::OUTCOMES, "outcomes"),
        ];
        for (role, what, name) in ends {
            let (one, other) = UnixStream::pair()?;
            gifts.add(Role::Front, name, one);
            self.hand(role, what, other.as_fd())?;
        }
        let (ours, theirs) = UnixStream::pair()?;
        gifts.add(Role::Front, "orders", theirs);
        let orders = asking(ours)?;
        let (handed, theirs) = UnixStream::pair()?;
        gifts.add(Role::Front, "handed", theirs);
        gifts.add(Role::Front, "setup", memory(&Role::Front.part(setup))?);
        let gifts = gifts.0.remove(&Role::Front).unwrap_or_default();
        Ok(Candidate { child: spawn(Role::Front, gifts)?, orders, handed })
    }
}
