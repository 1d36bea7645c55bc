//! Which triplets somebody means.

use crate::{Record, Triplet};

/// Triplets for which all that is named holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of this network, as [`Triplet::network`] names it.
    pub network: Option<String>,
    /// Those from this address or `@domain`, in lower case; empty for the null sender.
    pub sender: Option<String>,
    /// Those to this address or `@domain`, in lower case.
    pub recipient: Option<String>,
}

impl Filter {
    /// Whether a triplet is meant.
    pub(crate) fn matches(&self, triplet: &Triplet) -> bool {
        let Triplet { network, sender, recipient } = triplet;
        self.network.as_ref().is_none_or(|wanted| wanted == network)
            && self.sender.as_ref().is_none_or(|wanted| is_of(sender, wanted))
            && self.recipient.as_ref().is_none_or(|wanted| is_of(recipient, wanted))
    }
}

/// Whether an address is this one, or of this `@domain`.
fn is_of(address: &str, wanted: &str) -> bool {
    address == wanted || (wanted.starts_with('@') && address.ends_with(wanted))
}

/// How many triplets are remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Those that never passed.
    pub waiting: u64,
    /// Those that did.
    pub known: u64,
}

impl Census {
    /// Counts one more.
    pub(crate) fn add(&mut self, record: &Record) {
        let count = if record.passed_count > 0 { &mut self.known } else { &mut self.waiting };
        *count += 1;
    }
}
