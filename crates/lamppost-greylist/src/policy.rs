//! By what attempts are decided.

use std::collections::BTreeMap;
use std::time::Duration;

use lamppost_evidence::Prefixes;

/// By what attempts are decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether anybody is deferred at all, unless `terms` say otherwise for a recipient.
    pub enabled: bool,
    /// By which rules.
    pub algorithm: Algorithm,
    /// When a client is told that it must wait.
    pub stage: Stage,
    /// How long a new triplet must wait of whose client nothing is known.
    pub delay: Duration,
    /// How long after its first attempt a triplet may come back before it counts as new again.
    pub retry_window: Duration,
    /// How long a triplet that passed is known; each pass begins it anew.
    pub lifetime: Duration,
    /// How many leading bits of an IPv4 address make its network, at most 32.
    pub ipv4_prefix: u8,
    /// How many leading bits of an IPv6 address make its network, at most 128.
    pub ipv6_prefix: u8,
    /// What holds for some recipients: by address or `@domain`, in lower case.
    pub terms: BTreeMap<String, Terms>,
}

/// The rules of decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// By what is known of the client, and what was learned of its network.
    Adaptive(Adaptive),
    /// As relaydelay 0.04 does.
    Relaydelay,
}

/// What the adaptive rules go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adaptive {
    /// How long a new triplet must wait whose network is known to be good.
    pub good_delay: Duration,
    /// Domains that are good, in lower case: for whom SPF or a confirmed name speaks.
    pub good_domains: Vec<String>,
    /// How long a new triplet must wait whose client has a changing address, is on lists in the DNS or misbehaved.
    pub suspect_delay: Duration,
    /// How many triplets of a network must pass for it to count as good; 0 for never.
    pub promote_after: u64,
    /// Within which time of the first of them.
    pub promote_within: Duration,
    /// How often a network must misbehave within that time to be suspect; 0 for never.
    pub demote_after: u64,
    /// How long somebody who was written to may answer without waiting; zero for not at all.
    pub answer_window: Duration,
}

/// When a client is told that it must wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// In the reply to DATA, if any of the recipients must wait.
    Data,
    /// In the reply to RCPT; to a null sender, which others ask by whether an address is there, as above.
    Rcpt,
}

/// What holds for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whether mail to it is deferred at all.
    pub enabled: bool,
    /// How long new triplets must wait, if not as long as others.
    pub delay: Option<Duration>,
}

impl Policy {
    /// A policy that goes by addresses alone: what is known of clients changes nothing.
    pub const fn by_address(delay: Duration, retry_window: Duration, lifetime: Duration) -> Self {
        let adaptive = Adaptive {
            good_delay: delay,
            good_domains: Vec::new(),
            suspect_delay: delay,
            promote_after: 0,
            promote_within: delay,
            demote_after: 0,
            answer_window: Duration::ZERO,
        };
        Self {
            enabled: true,
            algorithm: Algorithm::Adaptive(adaptive),
            stage: Stage::Rcpt,
            delay,
            retry_window,
            lifetime,
            ipv4_prefix: 24,
            ipv6_prefix: 64,
            terms: BTreeMap::new(),
        }
    }

    /// What holds for a recipient in lower case, if anything is said of it: of its address before its domain.
    pub fn terms_of(&self, recipient: &str) -> Option<Terms> {
        if self.terms.is_empty() {
            return None;
        }
        let domain = || recipient.rfind('@').and_then(|at| self.terms.get(&recipient[at..]));
        self.terms.get(recipient).or_else(domain).copied()
    }

    /// Whether anybody is deferred who writes to anybody.
    pub fn is_on(&self) -> bool {
        self.enabled || self.terms.values().any(|terms| terms.enabled)
    }

    /// What makes a network of an address.
    pub fn prefixes(&self) -> Prefixes {
        Prefixes { ipv4: self.ipv4_prefix, ipv6: self.ipv6_prefix }
    }

    /// Whether a client learns only after RCPT that it must wait.
    pub fn holds_until_data(&self, sender: &str) -> bool {
        // Others ask by a null sender whether an address is there, and bounces go to one recipient each.
        let is_postmaster =
            || sender.get(..11).is_some_and(|begin| begin.eq_ignore_ascii_case("postmaster@"));
        self.stage == Stage::Data || sender.is_empty() || is_postmaster()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_of_an_address_go_before_those_of_its_domain() {
        let mut policy = Policy::by_address(Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let terms = |enabled| Terms { enabled, delay: None };
        assert_eq!(policy.terms_of("a@one.test"), None);
        policy.terms.insert("@one.test".into(), terms(false));
        policy.terms.insert("a@one.test".into(), terms(true));
        assert_eq!(policy.terms_of("a@one.test"), Some(terms(true)));
        assert_eq!(policy.terms_of("b@one.test"), Some(terms(false)));
        assert_eq!(policy.terms_of("b@sub.one.test"), None);
        assert_eq!(policy.terms_of("postmaster"), None);
    }

    #[test]
    fn callbacks_are_told_that_an_address_is_there() {
        let mut policy = Policy::by_address(Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let holds = |policy: &Policy| {
            ["", "Postmaster@a.test", "postmasters@a.test", "a@b.test", "\u{e4}"]
                .map(|sender| policy.holds_until_data(sender))
        };
        assert_eq!(holds(&policy), [true, true, false, false, false]);
        policy.stage = Stage::Data;
        assert_eq!(holds(&policy), [true; 5]);
    }
}
