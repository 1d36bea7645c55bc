//! Where recipients stand in the schedule: planned, in line, under way.

use lamppost_roles::{QueueId, Route, Timestamp};

use super::Index;
use super::lines::{Batch, Bounds, Work};
use super::message::{Recipient, Standing};
use crate::record::{Item, Progress};

/// Recipients that are lined up under one lock.
const LINE_UP_MAX: usize = 1000;

impl Index {
    /// The next batch; its recipients are under way from now on. When there is none, tells when to
    /// look again.
    pub(crate) fn next_batch(
        &mut self,
        now: Timestamp,
        bounds: Bounds,
    ) -> Result<Batch, Option<Timestamp>> {
        // When a long queue comes due at once, nobody else waits for the lock meanwhile.
        for _ in 0..LINE_UP_MAX {
            let Some(item) = self.lines.next_due(now) else { break };
            self.line_up(item, now);
        }
        let messages = &mut self.messages;
        let batch = self.lines.next_batch(now, bounds, |(id, index)| {
            let recipient =
                messages.get_mut(&id).and_then(|m| m.recipients.get_mut(index as usize));
            let Some(recipient) = recipient else { return false };
            recipient.is_lined_up = false;
            let wanted = recipient.standing == Standing::InLine;
            if wanted {
                recipient.standing = Standing::UnderWay;
            }
            wanted
        })?;
        for &destination in &batch.destinations {
            // The place must not be given to another destination while the batch is under way.
            self.destinations.keep_again(destination);
        }
        Ok(batch)
    }

    fn line_up(&mut self, item: Item, now: Timestamp) {
        let (id, index) = item;
        let Some(message) = self.messages.get_mut(&id) else { return };
        let sender = message.sender;
        let Some(recipient) = message.recipients.get_mut(index as usize) else { return };
        if !matches!(recipient.standing, Standing::Planned(_)) {
            return;
        }
        recipient.standing = Standing::InLine;
        if std::mem::replace(&mut recipient.is_lined_up, true) {
            return;
        }
        let work = match self.destinations.get(recipient.destination).map(|route| &**route) {
            Some(Route::Mailbox(_)) => Work::Mailbox,
            Some(Route::Relay) => Work::Relay,
            Some(Route::Undecided) | None => Work::Routing,
        };
        self.lines.join(recipient.destination, work, (sender, item), now);
    }

    /// A batch is over; recipients that it left without an outcome are due again. Troubled
    /// destinations get batches of their own from now on.
    pub(crate) fn batch_over(&mut self, batch: &Batch, is_troubled: bool, now: Timestamp) {
        for &(id, index) in &batch.items {
            let recipient =
                self.messages.get_mut(&id).and_then(|m| m.recipients.get_mut(index as usize));
            // One that was sent another way is under way in another batch.
            let left = |one: &&mut Recipient| {
                one.standing == Standing::UnderWay && batch.destinations.contains(&one.destination)
            };
            if let Some(recipient) = recipient.filter(left) {
                recipient.standing = Standing::Aside;
                self.place_one(id, index);
            }
        }
        for &destination in &batch.destinations {
            self.lines.over(destination, is_troubled, now);
            self.let_destination_go(destination);
        }
    }

    /// The deliveries of these recipients have outcomes that are about to be noted: the end of their
    /// batch does not make them due again.
    pub(crate) fn concluded(&mut self, items: &[Item]) {
        for &(id, index) in items {
            let recipients = self.messages.get_mut(&id).map(|message| &mut message.recipients);
            if let Some(recipient) = recipients.and_then(|all| all.get_mut(index as usize))
                && recipient.standing == Standing::UnderWay
            {
                recipient.standing = Standing::Concluded;
            }
        }
    }

    /// Takes a recipient out of the schedule until a change of it is committed or given up
    /// ([`Index::give_up_claim`]).
    pub(crate) fn claim(&mut self, (id, index): Item) {
        self.unplace(id, index);
        if let Some(recipient) =
            self.messages.get_mut(&id).and_then(|one| one.recipients.get_mut(index as usize))
        {
            recipient.standing = Standing::Concluded;
        }
    }

    /// The change was not committed: the recipient is where it was.
    pub(crate) fn give_up_claim(&mut self, (id, index): Item) {
        if let Some(recipient) =
            self.messages.get_mut(&id).and_then(|one| one.recipients.get_mut(index as usize))
        {
            recipient.standing = Standing::Aside;
        }
        self.place_one(id, index);
    }

    /// Places all recipients of a message in the schedule, or takes them out while it is held.
    pub(super) fn place_all(&mut self, id: QueueId) {
        let recipients = self.messages.get(&id).map_or(0, |message| message.recipients.len());
        for index in 0..u32::try_from(recipients).unwrap_or(u32::MAX) {
            self.place_one(id, index);
        }
    }

    /// Places a recipient in the schedule, where its state and its message want it.
    pub(super) fn place_one(&mut self, id: QueueId, index: u32) {
        self.unplace(id, index);
        let Some(message) = self.messages.get_mut(&id).filter(|message| !message.held) else {
            return;
        };
        let Some(recipient) = message.recipients.get_mut(index as usize) else { return };
        if recipient.is_under_way() {
            return;
        }
        if let Progress::Waiting { due } | Progress::Intended { due } = recipient.progress {
            recipient.standing = Standing::Planned(due);
            self.lines.plan(due, (id, index));
        }
    }

    /// Takes a recipient out of the schedule, unless its delivery is under way.
    pub(super) fn unplace(&mut self, id: QueueId, index: u32) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        let Some(recipient) = message.recipients.get_mut(index as usize) else { return };
        match recipient.standing {
            Standing::Planned(due) => {
                self.lines.cancel(due, (id, index));
                recipient.standing = Standing::Aside;
            }
            // Its entry in the line is stale from now on, and is skipped.
            Standing::InLine => recipient.standing = Standing::Aside,
            Standing::Aside | Standing::UnderWay | Standing::Concluded => {}
        }
    }
}
