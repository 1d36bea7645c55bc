//! What the store has not been told yet.

use std::collections::HashMap;
use std::sync::Arc;

use crate::store::Changes;
use crate::{Change, Life, Record, Triplet};

/// Changes that wait, and those that are being written.
#[derive(Debug, Default)]
pub(crate) struct Unwritten {
    waiting: HashMap<Triplet, Change>,
    writing: Changes,
}

impl Unwritten {
    /// How many triplets wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether one of these is to start over, and the store has not heard of it: what comes next must not be
    /// added to that.
    pub(crate) fn has_ended(&self, triplets: &[Triplet]) -> bool {
        let ends = |change: &Change| matches!(change.life, Some(Life::EndsAt(_)));
        triplets.iter().any(|triplet| self.waiting.get(triplet).is_some_and(ends))
    }

    /// Adds a change.
    pub(crate) fn add(&mut self, triplet: Triplet, change: Change) {
        self.waiting.entry(triplet).and_modify(|earlier| earlier.add(change)).or_insert(change);
    }

    /// Those that are being written; whoever looks into the store holds on to them meanwhile, since the
    /// look may come before or after them.
    pub(crate) fn writing(&self) -> Changes {
        self.writing.clone()
    }

    /// What is remembered of a triplet beside what the store showed. A change that the store had heard of
    /// already may count twice here, which decides the same.
    pub(crate) fn on(
        &self,
        triplet: &Triplet,
        shown: Option<Record>,
        written: &Changes,
    ) -> Option<Record> {
        let is_same = Arc::ptr_eq(written, &self.writing);
        let since = (!is_same).then(|| self.writing.get(triplet)).flatten();
        let changes = [written.get(triplet), since, self.waiting.get(triplet)];
        changes.into_iter().flatten().fold(shown, |record, change| Some(change.on(record.as_ref())))
    }

    /// Takes what waits, to write it; nothing when nothing waits. One writes at a time: what was begun before
    /// and came to no end, since its writer was given up, waits again.
    pub(crate) fn begin(&mut self) -> Option<Changes> {
        if !self.writing.is_empty() {
            self.failed();
        }
        if self.waiting.is_empty() {
            return None;
        }
        self.writing = Arc::new(std::mem::take(&mut self.waiting));
        Some(self.writing.clone())
    }

    /// What was begun is in the store.
    pub(crate) fn written(&mut self) {
        self.writing = Changes::default();
    }

    /// What was begun is not in the store: it waits again, before what came since.
    pub(crate) fn failed(&mut self) {
        let writing = std::mem::take(&mut self.writing);
        let later = std::mem::replace(&mut self.waiting, Arc::unwrap_or_clone(writing));
        for (triplet, change) in later {
            self.add(triplet, change);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_a_writer_gave_up_waits_again() {
        let change = |blocked| Change {
            at: Duration::from_secs(100),
            block_expires: Duration::from_secs(400),
            record_expires: Duration::from_secs(4000),
            blocked,
            passed: 0,
            aborted: 0,
            life: None,
        };
        let triplet = |recipient: &str| Triplet {
            network: "192.0.2.0".into(),
            sender: "a@one.test".into(),
            recipient: recipient.into(),
        };
        let mut unwritten = Unwritten::default();
        unwritten.add(triplet("b@two.test"), change(1));
        assert_eq!(unwritten.begin().unwrap().len(), 1);
        unwritten.add(triplet("b@two.test"), change(2));
        unwritten.add(triplet("c@two.test"), change(1));
        let both = unwritten.begin().unwrap();
        assert_eq!(both[&triplet("b@two.test")], change(3));
        assert_eq!(both.len(), 2);
        unwritten.written();
        assert_eq!(unwritten.begin(), None);
    }
}
