//! What policy is told.

use lamppost_smtp::Address;

/// Settings of the policy; a reload replaces them whole.
#[derive(Clone, Debug)]
pub struct PolicySettings {
    /// This host's name: mail to its postmaster is local.
    pub hostname: String,
    /// The domains whose mailboxes are here.
    pub domains: Vec<String>,
    /// The domains whose mailboxes are those of this machine's users.
    pub user_domains: Vec<String>,
    /// The account that gets the mail of every postmaster without an account of its own.
    pub postmaster: Option<Address>,
    /// What happens to mail while the greylist cannot be asked.
    pub when_store_fails: StoreFailure,
    /// Whether the greylist only watches: it decides and defers nobody.
    pub observes: bool,
    /// Whether what passes is written into the log of the greylist's store.
    pub logs_to_store: bool,
    /// Where mail for other domains goes.
    pub elsewhere: Elsewhere,
    /// Users of this machine, who hand in mail without a password.
    pub local: LocalSettings,
}

/// What users of this machine may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalSettings {
    /// The domain of their addresses.
    pub domain: String,
    /// Those who may send under any address, without a quota.
    pub trusted_users: Vec<String>,
}

/// Where mail for other domains goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// Nowhere: it is refused.
    Nowhere,
    /// To the host that takes all of it.
    Relay,
}

/// What happens to mail while the greylist cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFailure {
    /// It comes in as if it were not greylisted.
    Accept,
    /// It is deferred.
    Defer,
}

impl PolicySettings {
    /// The address to look up when the recipient is here; nothing when it is elsewhere.
    pub(super) fn target(&self, recipient: &Address) -> Option<Address> {
        let domain = recipient.domain();
        let mut domains = self.domains.iter().chain(&self.user_domains);
        let served = domains.any(|ours| ours.eq_ignore_ascii_case(domain));
        let host = self.hostname.eq_ignore_ascii_case(domain)
            && recipient.local().eq_ignore_ascii_case("postmaster");
        (served || host).then(|| recipient.clone())
    }

    /// Whether the mailbox of an address that is here lies in a home.
    pub(super) fn is_of_user(&self, address: &Address) -> bool {
        let domain = address.domain();
        self.user_domains.iter().any(|ours| ours.eq_ignore_ascii_case(domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> PolicySettings {
        PolicySettings {
            hostname: "mail.lamppost.test".into(),
            domains: vec!["lamppost.test".into()],
            user_domains: vec!["users.test".into()],
            postmaster: None,
            when_store_fails: StoreFailure::Defer,
            observes: false,
            logs_to_store: false,
            elsewhere: Elsewhere::Nowhere,
            local: LocalSettings::default(),
        }
    }

    #[track_caller]
    fn check(recipient: &str, here: bool) {
        let recipient = recipient.parse().unwrap();
        assert_eq!(settings().target(&recipient).is_some(), here, "{recipient}");
    }

    #[test]
    fn only_served_domains_are_here() {
        check("demo@lamppost.test", true);
        check("demo@LAMPPOST.TEST", true);
        check("alice@Users.test", true);
        check("demo@sub.lamppost.test", false);
        check("demo@elsewhere.test", false);
    }

    #[test]
    fn the_hosts_own_name_has_a_postmaster_only() {
        check("Postmaster@mail.lamppost.test", true);
        check("demo@mail.lamppost.test", false);
    }
}
