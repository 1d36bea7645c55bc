//! Processes that others have taken the place of: they finish what they have, and not for ever.

use std::process::Child;
use std::time::Duration;

use futures_util::future::join_all;
use lamppost_net::link::Port;
use tokio::time::{Instant, timeout};
use tracing::{error, warn};

use super::group::{ANSWERS_WITHIN, Group, LAST_WORDS, told};
use crate::run::orders::{Order, Report};
use crate::run::role::Role;

/// A process that finishes what it has while another takes what is new.
pub(super) struct Retired {
    pub(super) role: Role,
    pub(super) child: Child,
    pub(super) orders: Port<Order, Report>,
    /// When it has ended at the latest.
    ends_by: Instant,
    is_killed: bool,
}

impl Retired {
    /// Whether it has ended, which is what it was to come to, if it was no other end.
    pub(super) fn has_ended(&mut self) -> bool {
        let Ok(Some(status)) = self.child.try_wait() else { return false };
        if !status.success() && !self.is_killed {
            let (role, reason) = (self.role.name(), told(status));
            error!(role, reason, "a role that finished what it had ended before");
        }
        true
    }

    /// It has to end within this time, if it had longer.
    fn hurry(&mut self, within: Duration) {
        self.ends_by = self.ends_by.min(Instant::now() + within);
    }

    fn kill(&mut self) {
        let (role, pid) = (self.role.name(), self.child.id());
        warn!(role, pid, "a role that was replaced does not end by itself and is killed");
        self.is_killed = true;
        drop(self.child.kill());
    }
}

impl Group {
    /// Has the processes of a role take nothing new.
    pub(super) async fn retire(&mut self, role: Role, patience: Duration, grace: Duration) {
        let place = self.children.iter().position(|(known, _)| *known == role);
        let (Some(place), Some(orders)) = (place, self.orders.remove(&role)) else { return };
        let (_, child) = self.children.swap_remove(place);
        let ends_by = Instant::now() + patience + grace * 2 + LAST_WORDS;
        let mut retired = Retired { role, child, orders, ends_by, is_killed: false };
        // One that had nothing to finish may end before its answer is here.
        let retire = retired.orders.ask(Order::Retire { patience, grace });
        if timeout(ANSWERS_WITHIN, retire).await.is_err() {
            // It would take what another is to have.
            retired.kill();
        }
        self.retired.push(retired);
    }

    /// Has the oldest of many fronts that have retired finish: each costs memory as long as somebody stays.
    pub(super) fn bound_fronts(&mut self, grace: Duration) {
        /// Fronts that may have sessions beside the present one.
        const FRONTS_MAX: usize = 32;
        let fronts = self.retired.iter_mut().filter(|one| one.role == Role::Front);
        let mut fronts: Vec<_> = fronts.collect();
        let many = fronts.len().saturating_sub(FRONTS_MAX);
        for one in fronts.iter_mut().take(many) {
            one.hurry(grace + LAST_WORDS);
            let orders = one.orders.clone();
            tokio::spawn(async move { drop(orders.ask(Order::Finish(grace)).await) });
        }
    }

    /// Has those that have retired from a role before be no slower than one that retires now.
    pub(super) async fn hurry(&mut self, role: Role, patience: Duration, grace: Duration) {
        let those = self.retired.iter_mut().filter(|one| one.role == role);
        join_all(those.map(|one| async move {
            one.hurry(patience + grace + LAST_WORDS);
            let retire = one.orders.ask(Order::Retire { patience, grace });
            if timeout(ANSWERS_WITHIN, retire).await.is_err() {
                one.kill();
            }
        }))
        .await;
    }

    /// When the next of those that have retired has ended at the latest.
    pub(super) fn next_overdue(&self) -> Option<Instant> {
        self.retired.iter().filter(|one| !one.is_killed).map(|one| one.ends_by).min()
    }

    /// Kills those that should have ended by now.
    pub(super) fn kill_overdue(&mut self, now: Instant) {
        for one in self.retired.iter_mut().filter(|one| !one.is_killed && one.ends_by <= now) {
            one.kill();
        }
    }

    /// Waits until all processes that have retired from a role have ended, at most so long: then they are
    /// killed.
    pub(super) async fn await_retired(&mut self, role: Role, patience: Duration) {
        /// How often the service manager hears of a wait that may be longer than its patience.
        const TOLD_EVERY: Duration = Duration::from_secs(10);
        /// What counts of a pause: what the machine slept through was nobody's time to end in.
        const STEP: Duration = Duration::from_millis(100);
        let (mut left, mut looked, mut told) = (patience, Instant::now(), Instant::now());
        let is_alive =
            |one: &mut Retired| one.role == role && matches!(one.child.try_wait(), Ok(None));
        while self.retired.iter_mut().any(is_alive) {
            if left.is_zero() {
                for one in &mut self.retired {
                    if is_alive(one) {
                        one.kill();
                    }
                }
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            left = left.saturating_sub(looked.elapsed().min(STEP));
            looked = Instant::now();
            if told.elapsed() > TOLD_EVERY {
                told = Instant::now();
                drop(sd_notify::notify(&[sd_notify::NotifyState::Watchdog]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use lamppost_net::link::link;

    use super::*;

    fn retired(within: Duration) -> Retired {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let (orders, _nobody) = link();
        let ends_by = Instant::now() + within;
        Retired { role: Role::Front, child, orders, ends_by, is_killed: false }
    }

    /// As a front does that hangs, whatever it was told.
    #[tokio::test]
    async fn one_that_does_not_end_in_its_time_is_killed_and_no_other_is() {
        let minute = Duration::from_secs(60);
        let mut group = Group::default();
        assert_eq!(group.next_overdue(), None);
        group.retired = vec![retired(minute), retired(2 * minute)];
        let first = group.next_overdue().unwrap();
        assert!(first <= Instant::now() + minute);
        group.kill_overdue(first.checked_sub(Duration::from_millis(1)).unwrap());
        assert!(group.retired.iter_mut().all(|one| !one.has_ended()));
        group.kill_overdue(first);
        let status = group.retired[0].child.wait().unwrap();
        assert_eq!(status.signal(), Some(9));
        assert!(group.next_overdue().unwrap() > first, "what is killed is not waited for");
        // It is as slow as all others where it may not be slower.
        let other = &mut group.retired[1];
        other.hurry(Duration::ZERO);
        group.kill_overdue(Instant::now());
        assert_eq!(group.retired[1].child.wait().unwrap().signal(), Some(9));
    }
}
