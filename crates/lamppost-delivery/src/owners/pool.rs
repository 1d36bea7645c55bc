//! The processes that write into homes: one a user, started when there is mail, ended when there is none.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use lamppost_net::link::Port;
use lamppost_roles::{
    ContentAnswer, ContentRequest, Outcome, OwnerAnswer, OwnerRequest, SystemUser,
};
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::process::{Ends, Process};
use super::{OwnerProcess, OwnersSettings};
use crate::mailboxes::deferred;

/// How long descriptors that were sent may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(5);

/// All processes.
pub(super) struct Pool {
    settings: OwnersSettings,
    supervisor: Port<OwnerRequest, OwnerAnswer>,
    content: Port<ContentRequest, ContentAnswer>,
    /// By the number of the user. Whoever starts a process has its place until it is there.
    places: Mutex<HashMap<u32, Arc<Place>>>,
    room: Arc<Semaphore>,
    /// A process has nothing to do any more.
    freed: Notify,
    /// Descriptors that nobody has taken yet, and since when.
    arrivals: Mutex<HashMap<u32, (Instant, OwnedFd)>>,
    arrived: Notify,
}

type Place = Turn<Option<Arc<Process>>>;

/// A process that has something to do as long as this is there.
pub(super) struct Busy {
    pub(super) process: Arc<Process>,
    pool: Arc<Pool>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.process.ends() {
            self.pool.freed.notify_one();
        }
    }
}

impl Pool {
    pub(super) fn new(
        settings: OwnersSettings,
        supervisor: Port<OwnerRequest, OwnerAnswer>,
        content: Port<ContentRequest, ContentAnswer>,
    ) -> Arc<Self> {
        let pool = Arc::new(Self {
            room: Arc::new(Semaphore::new(settings.processes_max)),
            settings,
            supervisor,
            content,
            places: Mutex::default(),
            freed: Notify::new(),
            arrivals: Mutex::default(),
            arrived: Notify::new(),
        });
        tokio::spawn(end_idle(Arc::downgrade(&pool), pool.settings.idle));
        pool
    }

    pub(super) fn settings(&self) -> &OwnersSettings {
        &self.settings
    }

    pub(super) fn supervisor(&self) -> &Port<OwnerRequest, OwnerAnswer> {
        &self.supervisor
    }

    /// A descriptor that the supervisor sent.
    pub(super) fn arrived(&self, number: u32, descriptor: OwnedFd) {
        let mut arrivals = self.arrivals.lock();
        // What nobody came for in time belongs to a process that was given up, or was never told of.
        arrivals.retain(|_, (since, _)| since.elapsed() < ARRIVES_WITHIN * 2);
        arrivals.insert(number, (Instant::now(), descriptor));
        drop(arrivals);
        self.arrived.notify_waiters();
    }

    /// The process of a user, which is started when there is none.
    pub(super) async fn process(
        self: &Arc<Self>,
        owner: SystemUser,
        name: &str,
    ) -> Result<Busy, Outcome> {
        let place = self.places.lock().entry(owner.uid).or_default().clone();
        let mut place = place.lock().await;
        let process = match &*place {
            Some(process) if process.owner == owner && !process.is_gone() => process.clone(),
            _ => {
                // One whose user has another home by now, or that ended, gives its room away.
                *place = None;
                place.insert(Arc::new(self.start(owner, name).await?)).clone()
            }
        };
        process.begins();
        Ok(Busy { process, pool: self.clone() })
    }

    /// Does without a process: the next request has another one started.
    pub(super) async fn forget(&self, process: &Arc<Process>) {
        let place = self.places.lock().get(&process.owner.uid).cloned();
        let Some(place) = place else { return };
        let mut place = place.lock().await;
        if place.as_ref().is_some_and(|known| Arc::ptr_eq(known, process)) {
            *place = None;
        }
    }

    /// The processes that are at work or wait for it.
    pub(super) fn processes(&self) -> Vec<OwnerProcess> {
        let places: Vec<_> = self.places.lock().values().cloned().collect();
        let known = places.iter().filter_map(|place| place.try_lock().ok()?.clone());
        let mut processes: Vec<_> = known
            .filter_map(|process| {
                let restricted = process.restricted()?;
                Some(OwnerProcess { user: process.name.clone(), pid: process.pid, restricted })
            })
            .collect();
        processes.sort_by(|one, other| one.user.cmp(&other.user));
        processes
    }

    async fn start(&self, owner: SystemUser, name: &str) -> Result<Process, Outcome> {
        let room = self.room().await?;
        let started = match self.supervisor.ask(OwnerRequest::Process(owner.uid)).await {
            Ok(OwnerAnswer::Started { pid, work, questions }) => (pid, work, questions),
            Ok(OwnerAnswer::Refused(reason)) => return Err(deferred(reason)),
            Ok(_) => return Err(deferred("no process was started")),
            Err(gone) => return Err(deferred(gone.to_string())),
        };
        let (pid, work, questions) = started;
        let known = (owner, name.to_owned(), pid);
        let ends = match self.ends(work, questions).await {
            Ok(ends) => ends,
            Err(outcome) => {
                self.arrivals.lock().retain(|number, _| ![work, questions].contains(number));
                let dropped = OwnerRequest::Dropped { uid: owner.uid, pid };
                drop(self.supervisor.ask(dropped).await);
                return Err(outcome);
            }
        };
        let supervised = (self.supervisor.clone(), room);
        Process::new(known, ends, self.content.clone(), supervised)
            .map_err(|error| deferred(format!("the link to a process cannot be used: {error}")))
    }

    async fn ends(&self, work: u32, questions: u32) -> Result<Ends, Outcome> {
        Ok(Ends { work: self.end(work).await?, questions: self.end(questions).await? })
    }

    /// A descriptor that comes, or came, by this number.
    async fn end(&self, number: u32) -> Result<OwnedFd, Outcome> {
        let arriving = async {
            loop {
                let mut arrived = std::pin::pin!(self.arrived.notified());
                arrived.as_mut().enable();
                if let Some((_, end)) = self.arrivals.lock().remove(&number) {
                    return end;
                }
                arrived.await;
            }
        };
        timeout(ARRIVES_WITHIN, arriving)
            .await
            .map_err(|_| deferred("the link to a process did not arrive"))
    }

    /// Waits until there may be one process more: another that has nothing to do ends for it.
    async fn room(&self) -> Result<OwnedSemaphorePermit, Outcome> {
        let finding = async {
            loop {
                let mut freed = std::pin::pin!(self.freed.notified());
                freed.as_mut().enable();
                if let Ok(room) = self.room.clone().try_acquire_owned() {
                    return room;
                }
                if self.end_idlest() {
                    continue;
                }
                tokio::select! {
                    Ok(room) = self.room.clone().acquire_owned() => return room,
                    () = freed => {}
                }
            }
        };
        timeout(self.settings.patience, finding).await.map_err(|_| {
            deferred("processes-max in [mail.system-users] processes are at work for other users")
        })
    }

    /// Ends the process that has had nothing to do for the longest time.
    fn end_idlest(&self) -> bool {
        let places: Vec<_> = self.places.lock().values().cloned().collect();
        let idle = places.into_iter().filter_map(|place| {
            let place = place.try_lock_owned().ok()?;
            let since = place.as_ref()?.idle_since()?;
            Some((since, place))
        });
        match idle.min_by_key(|(since, _)| *since) {
            Some((_, mut place)) => {
                *place = None;
                true
            }
            None => false,
        }
    }

    fn end_all_idle(&self) {
        let Some(before) = Instant::now().checked_sub(self.settings.idle) else { return };
        self.places.lock().retain(|_, place| {
            let Ok(mut held) = place.try_lock() else { return true };
            if let Some(process) = &*held {
                if !process.is_gone() && process.idle_since().is_none_or(|since| since > before) {
                    return true;
                }
                *held = None;
            }
            // Somebody may be on the way to this very place.
            drop(held);
            Arc::strong_count(place) > 1
        });
    }
}

/// Ends processes that have had nothing to do for so long, until nobody asks for any.
async fn end_idle(pool: Weak<Pool>, idle: Duration) {
    let mut looks = tokio::time::interval((idle / 4).max(Duration::from_millis(100)));
    loop {
        looks.tick().await;
        match pool.upgrade() {
            Some(pool) => pool.end_all_idle(),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use lamppost_net::link::link;
    use lamppost_telemetry::Health;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn links_of_which_one_does_not_arrive_leave_nothing() {
        let settings = OwnersSettings {
            domains: Vec::new(),
            processes_max: 1,
            idle: Duration::from_secs(30),
            patience: Duration::from_secs(20),
            health: Health::default(),
        };
        let (supervisor, mut asked) = link();
        let pool = Pool::new(settings, supervisor, link().0);
        let ends = || OwnedFd::from(UnixStream::pair().unwrap().0);
        for missing in [0, 1] {
            let starts = pool.clone();
            let owner = SystemUser { uid: 7, listed: 1 };
            let starting = tokio::spawn(async move { starts.process(owner, "u7").await.err() });
            let (request, reply) = asked.next().await.unwrap();
            assert_eq!(request, OwnerRequest::Process(7));
            pool.arrived(1 - missing, ends());
            reply.send(OwnerAnswer::Started { pid: 9, work: 0, questions: 1 });
            let (request, reply) = asked.next().await.unwrap();
            assert_eq!(request, OwnerRequest::Dropped { uid: 7, pid: 9 });
            assert!(pool.arrivals.lock().is_empty());
            reply.send(OwnerAnswer::Dropped);
            assert!(matches!(starting.await.unwrap(), Some(Outcome::Deferred(_))));
            assert_eq!(pool.room.available_permits(), 1);
        }
        // One that comes after all is kept no longer than somebody might want it.
        pool.arrived(0, ends());
        tokio::time::advance(ARRIVES_WITHIN * 2).await;
        pool.arrived(2, ends());
        assert_eq!(pool.arrivals.lock().keys().collect::<Vec<_>>(), [&2]);
    }
}
