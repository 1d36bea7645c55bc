//! How many messages and recipients there are of what.

use crate::record::Progress;

/// How many there are, kept up to date so that nobody has to count a long queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages that are held.
    pub(crate) held: u64,
    /// Recipients that wait for a try.
    pub(crate) waiting: u64,
    /// Of these, those on their way to the host that takes mail for elsewhere.
    pub(crate) for_relay: u64,
    /// Recipients that failed for good and of whom nobody was told yet.
    pub(crate) failed: u64,
}

impl Counts {
    /// One message more or less is held.
    pub(super) fn hold(&mut self, more: bool) {
        step(&mut self.held, more);
    }

    /// One recipient more or less is so far; `is_relayed` tells whether its way is to the relay.
    pub(super) fn note(&mut self, progress: Progress, is_relayed: bool, more: bool) {
        match progress {
            Progress::Waiting { .. } | Progress::Intended { .. } => {
                step(&mut self.waiting, more);
                if is_relayed {
                    step(&mut self.for_relay, more);
                }
            }
            Progress::Failed => step(&mut self.failed, more),
            Progress::Delivered | Progress::Bounced => {}
        }
    }
}

fn step(count: &mut u64, more: bool) {
    *count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
}
