//! What the queue tells of itself: its figures, its faults and its damage.

use std::sync::atomic::Ordering;
use std::time::Duration;

use lamppost_roles::QueueStatus;

use crate::log::Log;
use crate::spool::Spool;

impl Spool {
    pub(crate) fn count_messages(&self) {
        let (messages, oldest, counts) = {
            let index = self.index.lock();
            let oldest = index.after(None).next().map_or(0, |(id, _)| id.received().0 / 1000);
            (index.messages() as u64, oldest, index.counts())
        };
        let figures = &self.metrics;
        for (figure, value) in [
            (&figures.queue_messages, messages),
            (&figures.queue_messages_held, counts.held),
            (&figures.queue_recipients_waiting, counts.waiting),
            (&figures.queue_recipients_failed, counts.failed),
            (&figures.queue_oldest_timestamp_seconds, oldest),
            (&figures.relay_recipients_waiting, counts.for_relay),
        ] {
            figure.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// The log works.
    pub(crate) fn well(&self, log: &Log) {
        let fault = (!log.has_reserve()).then(|| {
            "the disk is full: no space is reserved for changes of state; free some".to_owned()
        });
        *self.fault.lock() = fault;
        self.tell_fault();
    }

    /// The log does not work.
    pub(crate) fn ill(&self, fault: String) {
        *self.fault.lock() = Some(fault);
        self.tell_fault();
    }

    /// Sees whether there is room again, where mail was refused for lack of it and none came since.
    pub(crate) fn look_for_room(&self) {
        let needed = self.lacking.load(Ordering::Relaxed);
        if needed > 0 && self.is_free(needed) {
            self.lacking.store(0, Ordering::Relaxed);
            self.tell_fault();
        }
    }

    pub(crate) fn tell_fault(&self) {
        let is_ill = self.fault.lock().is_some() || self.lacking.load(Ordering::Relaxed) > 0;
        self.metrics.spool_fault.set(i64::from(is_ill));
    }

    /// Something is damaged for good.
    pub(crate) fn damaged(&self, text: String) {
        let mut damage = self.damage.lock();
        if damage.len() < self.settings.damage_told_max && !damage.contains(&text) {
            damage.push(text);
            self.metrics.spool_damage.inc();
        }
    }

    /// A sync took so long.
    pub(crate) fn synced(&self, took: Duration) {
        self.metrics.spool_syncs.inc();
        self.metrics.spool_sync_seconds.observe(took.as_secs_f64());
    }

    /// The log has so many bytes.
    pub(crate) fn measured(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.metrics.spool_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Figures of the whole queue.
    pub(crate) fn status(&self) -> QueueStatus {
        let (messages, counts) = {
            let index = self.index.lock();
            (index.messages() as u64, index.counts())
        };
        QueueStatus {
            messages,
            held: counts.held,
            waiting: counts.waiting,
            waiting_for_relay: counts.for_relay,
            failed: counts.failed,
            spool_bytes: self.bytes.load(Ordering::Relaxed),
            accepted: self.accepted.load(Ordering::Relaxed),
            delivered: self.delivered.load(Ordering::Relaxed),
            syncs: self.metrics.spool_syncs.get(),
            fault: self.fault.lock().clone().or_else(|| self.shortage()),
            damage: self.damage.lock().clone(),
        }
    }
}
