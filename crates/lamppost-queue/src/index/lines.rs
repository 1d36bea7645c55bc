//! Who is next: due recipients line up by destination, and within a destination by sender.
//!
//! Destinations take turns, and so do the senders in front of one: whoever sends ten thousand
//! messages waits behind nobody's single one, and holds nobody up.

use std::collections::{BTreeSet, HashMap, VecDeque};

use lamppost_roles::Timestamp;

use super::table::Handle;
use crate::record::Item;

/// What is done for a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Files into a Maildir.
    Mailbox,
    /// To the host that takes mail for elsewhere.
    Relay,
    /// Policy is asked for the way.
    Routing,
}

/// Kinds of work, in the order in which they take turns.
const WORKS: [Work; 3] = [Work::Mailbox, Work::Relay, Work::Routing];

/// What bounds a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Recipients in a batch.
    pub(crate) items_max: usize,
    /// Batches for the relay at once.
    pub(crate) relays_max: u32,
    /// How long the first recipient waits for others to share the syncs of its delivery.
    pub(crate) lag_ms: u64,
}

/// What waits for one destination.
#[derive(Debug)]
struct Line {
    work: Work,
    /// The senders that have something waiting, in the order of their turns.
    turns: VecDeque<Handle>,
    waiting: HashMap<Handle, VecDeque<Item>>,
    /// Batches that are under way.
    under_way: u32,
    /// Whether it stands in the ring of destinations.
    listed: bool,
    /// Since when something waits.
    since: Timestamp,
    /// Its last delivery was slow or failed: it gets batches of its own.
    alone: bool,
}

/// Recipients that are to be tried now, and those whose time comes.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    of: HashMap<Handle, Line>,
    rings: [VecDeque<Handle>; 3],
    turn: usize,
    later: BTreeSet<(Timestamp, Item)>,
    /// Recipients in all lines, stale entries included.
    waiting: usize,
}

/// Some recipients to work on together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) work: Work,
    pub(crate) destinations: Vec<Handle>,
    pub(crate) items: Vec<Item>,
}

impl Lines {
    /// A recipient is to be tried at a time.
    pub(crate) fn plan(&mut self, due: Timestamp, item: Item) {
        self.later.insert((due, item));
    }

    /// A recipient is not to be tried at that time.
    pub(crate) fn cancel(&mut self, due: Timestamp, item: Item) {
        self.later.remove(&(due, item));
    }

    /// A recipient whose time has come.
    pub(crate) fn next_due(&mut self, now: Timestamp) -> Option<Item> {
        let &(due, item) = self.later.first()?;
        (due <= now).then(|| {
            self.later.pop_first();
            item
        })
    }

    /// Lines a recipient up.
    pub(crate) fn join(
        &mut self,
        destination: Handle,
        work: Work,
        (sender, item): (Handle, Item),
        now: Timestamp,
    ) {
        let line = self.of.entry(destination).or_insert_with(|| Line::new(work));
        if line.turns.is_empty() {
            line.since = now;
        }
        let waiting = line.waiting.entry(sender).or_default();
        if waiting.is_empty() {
            line.turns.push_back(sender);
        }
        waiting.push_back(item);
        self.waiting += 1;
        self.list(destination);
    }

    /// Puts a destination into the ring of its kind, if something waits and nothing stands against it.
    fn list(&mut self, destination: Handle) {
        let Some(line) = self.of.get_mut(&destination) else { return };
        let free = line.under_way == 0 || line.work == Work::Relay;
        if free && !line.listed && !line.turns.is_empty() {
            line.listed = true;
            self.rings[line.work as usize].push_back(destination);
        }
    }

    /// Takes the next batch; `is_wanted` tells whether a recipient still waits for its turn. When
    /// there is none, tells when to look again.
    pub(crate) fn next_batch(
        &mut self,
        now: Timestamp,
        bounds: Bounds,
        mut is_wanted: impl FnMut(Item) -> bool,
    ) -> Result<Batch, Option<Timestamp>> {
        let mut again = self.later.first().map(|&(due, _)| due);
        for _ in WORKS {
            let work = WORKS[self.turn % WORKS.len()];
            self.turn += 1;
            match self.batch_of(work, now, bounds, &mut is_wanted) {
                Ok(batch) => return Ok(batch),
                Err(look) => again = earliest(again, look),
            }
        }
        Err(again)
    }

    fn batch_of(
        &mut self,
        work: Work,
        now: Timestamp,
        bounds: Bounds,
        is_wanted: &mut impl FnMut(Item) -> bool,
    ) -> Result<Batch, Option<Timestamp>> {
        let mut batch = Batch { work, destinations: Vec::new(), items: Vec::new() };
        let mut again = None;
        for _ in 0..self.rings[work as usize].len() {
            let Some(destination) = self.rings[work as usize].pop_front() else { break };
            let Some(line) = self.of.get_mut(&destination) else { continue };
            // Left over from another destination that had this place.
            if line.work != work || !line.listed {
                continue;
            }
            let busy = work == Work::Relay && line.under_way >= bounds.relays_max;
            let ripe = Timestamp(line.since.0.saturating_add(bounds.lag_ms));
            let early = work == Work::Mailbox && ripe > now && self.waiting < bounds.items_max / 2;
            let apart = line.alone && !batch.items.is_empty();
            if busy || early || apart {
                if early {
                    again = earliest(again, Some(ripe));
                }
                self.rings[work as usize].push_back(destination);
                continue;
            }
            line.listed = false;
            let before = batch.items.len();
            let most = bounds.items_max.saturating_sub(before);
            let taken = line.take(most, &mut batch.items, is_wanted);
            self.waiting -= taken;
            if batch.items.len() > before {
                line.under_way += 1;
                batch.destinations.push(destination);
            }
            let alone = line.alone;
            if work == Work::Relay {
                self.list(destination);
            } else if self.of.get(&destination).is_some_and(Line::is_over) {
                self.of.remove(&destination);
            }
            if batch.items.len() >= bounds.items_max
                || (!batch.items.is_empty() && (alone || work == Work::Relay))
            {
                break;
            }
        }
        if batch.items.is_empty() { Err(again) } else { Ok(batch) }
    }

    /// A batch for a destination is over; a troubled one gets batches of its own from now on.
    pub(crate) fn over(&mut self, destination: Handle, is_troubled: bool, now: Timestamp) {
        let Some(line) = self.of.get_mut(&destination) else { return };
        line.under_way = line.under_way.saturating_sub(1);
        line.alone = is_troubled;
        line.since = now;
        if line.is_over() && !line.alone {
            self.of.remove(&destination);
        } else {
            self.list(destination);
        }
    }

    /// A destination that nobody sends to any more.
    pub(crate) fn forget(&mut self, destination: Handle) {
        // Its place may be given to another destination: nothing of it may stay, stale entries
        // included. Its place in a ring is skipped.
        if let Some(line) = self.of.remove(&destination) {
            self.waiting -= line.waiting.values().map(VecDeque::len).sum::<usize>();
        }
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

impl Line {
    fn new(work: Work) -> Self {
        Self {
            work,
            turns: VecDeque::new(),
            waiting: HashMap::new(),
            under_way: 0,
            listed: false,
            since: Timestamp(0),
            alone: false,
        }
    }

    fn is_over(&self) -> bool {
        self.turns.is_empty() && self.under_way == 0 && !self.listed
    }

    /// Takes recipients, one of each sender in turn; returns how many entries are gone, those that
    /// nobody waits for any more included.
    ///
    /// The recipients of a message for elsewhere are taken together, though they be more than `max`:
    /// the relay gets it once for all of them.
    fn take(
        &mut self,
        max: usize,
        items: &mut Vec<Item>,
        is_wanted: &mut impl FnMut(Item) -> bool,
    ) -> usize {
        let (mut gone, most) = (0, items.len() + max);
        while items.len() < most {
            let Some(sender) = self.turns.pop_front() else { break };
            let Some(waiting) = self.waiting.get_mut(&sender) else { continue };
            let mut message = None;
            while let Some(item) =
                waiting.pop_front_if(|item| message.is_none_or(|message| item.0 == message))
            {
                gone += 1;
                if is_wanted(item) {
                    items.push(item);
                    message = Some(item.0);
                    if self.work == Work::Mailbox {
                        break;
                    }
                }
            }
            if waiting.is_empty() {
                self.waiting.remove(&sender);
            } else {
                self.turns.push_back(sender);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use lamppost_roles::QueueId;

    use super::*;

    const BOUNDS: Bounds = Bounds { items_max: 4, relays_max: 2, lag_ms: 50 };
    const NOW: Timestamp = Timestamp(1000);

    fn lines(waiting: &[(u32, u32, u64)]) -> Lines {
        let mut lines = Lines::default();
        for &(destination, sender, id) in waiting {
            let item = (QueueId(id), 0);
            lines.join(Handle(destination), Work::Mailbox, (Handle(sender), item), NOW);
        }
        lines
    }

    fn ids(batch: &Batch) -> Vec<u64> {
        batch.items.iter().map(|(id, _)| id.0).collect()
    }

    fn next(lines: &mut Lines, now: u64) -> Result<Batch, Option<Timestamp>> {
        lines.next_batch(Timestamp(now), BOUNDS, |_| true)
    }

    #[test]
    fn senders_take_turns() {
        let mut lines = lines(&[(1, 1, 10), (1, 1, 11), (1, 1, 12), (1, 1, 13), (1, 2, 20)]);
        assert_eq!(ids(&next(&mut lines, 1050).unwrap()), [10, 20, 11, 12]);
        // The rest waits until this batch is over.
        assert_eq!(next(&mut lines, 1050), Err(None));
        lines.over(Handle(1), false, Timestamp(1050));
        assert_eq!(ids(&next(&mut lines, 1100).unwrap()), [13]);
    }

    #[test]
    fn destinations_share_a_batch_and_take_turns() {
        let flood = [(1, 1, 10), (1, 1, 11), (1, 1, 12), (1, 1, 13), (1, 1, 14), (2, 2, 20)];
        let mut lines = lines(&flood);
        assert_eq!(ids(&next(&mut lines, 1050).unwrap()), [10, 11, 12, 13]);
        assert_eq!(ids(&next(&mut lines, 1050).unwrap()), [20]);
        let mut lines = self::lines(&[(1, 1, 10), (2, 2, 20), (3, 3, 30)]);
        assert_eq!(ids(&next(&mut lines, 1050).unwrap()), [10, 20, 30]);
    }

    #[test]
    fn the_first_waits_for_company_but_not_long() {
        let mut lines = lines(&[(1, 1, 10)]);
        assert_eq!(next(&mut lines, 1000), Err(Some(Timestamp(1050))));
        let item = (QueueId(11), 0);
        lines.join(Handle(1), Work::Mailbox, (Handle(1), item), Timestamp(1001));
        // Half a batch is company enough.
        assert_eq!(ids(&next(&mut lines, 1001).unwrap()), [10, 11]);
    }

    #[test]
    fn a_troubled_destination_holds_nobody_up() {
        let mut lines = lines(&[(1, 1, 10)]);
        next(&mut lines, 1050).unwrap();
        lines.over(Handle(1), true, Timestamp(1050));
        for (destination, id) in [(1, 11), (2, 20), (3, 30)] {
            let one = (Handle(9), (QueueId(id), 0));
            lines.join(Handle(destination), Work::Mailbox, one, Timestamp(1050));
        }
        assert_eq!(ids(&next(&mut lines, 1100).unwrap()), [11]);
        assert_eq!(ids(&next(&mut lines, 1100).unwrap()), [20, 30]);
    }

    #[test]
    fn the_relay_takes_several_batches_at_once() {
        let mut lines = Lines::default();
        for id in 0..20 {
            lines.join(Handle(1), Work::Relay, (Handle(1), (QueueId(id), 0)), NOW);
        }
        assert_eq!(next(&mut lines, 1000).unwrap().items.len(), 4);
        assert_eq!(next(&mut lines, 1000).unwrap().items.len(), 4);
        assert_eq!(next(&mut lines, 1000), Err(None));
        lines.over(Handle(1), false, NOW);
        assert_eq!(next(&mut lines, 1000).unwrap().items.len(), 4);
    }

    #[test]
    fn the_recipients_of_a_message_go_to_the_relay_together() {
        for work in [Work::Relay, Work::Routing] {
            let mut lines = Lines::default();
            for (sender, id, recipients) in [(1, 10, 3), (2, 20, 6), (1, 11, 2)] {
                for index in 0..recipients {
                    lines.join(Handle(1), work, (Handle(sender), (QueueId(id), index)), NOW);
                }
            }
            assert_eq!(ids(&next(&mut lines, 1000).unwrap()), [10, 10, 10, 20, 20, 20, 20, 20, 20]);
            lines.over(Handle(1), false, NOW);
            assert_eq!(ids(&next(&mut lines, 1000).unwrap()), [11, 11]);
        }
    }

    #[test]
    fn what_nobody_waits_for_is_skipped() {
        let mut lines = lines(&[(1, 1, 10), (1, 1, 11)]);
        let batch = lines.next_batch(Timestamp(1050), BOUNDS, |(id, _)| id.0 == 11).unwrap();
        assert_eq!(ids(&batch), [11]);
        assert_eq!(lines.waiting, 0);
    }

    #[test]
    fn what_is_planned_comes_in_its_time() {
        let mut lines = Lines::default();
        let (first, second) = ((QueueId(1), 0), (QueueId(2), 0));
        lines.plan(Timestamp(20), second);
        lines.plan(Timestamp(10), first);
        assert_eq!(lines.next_due(Timestamp(9)), None);
        assert_eq!(lines.next_due(Timestamp(10)), Some(first));
        lines.cancel(Timestamp(20), second);
        assert_eq!(lines.next_due(Timestamp(99)), None);
    }
}
