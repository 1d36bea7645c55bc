//! Users of this machine: known by the system, not by a password.

use lamppost_smtp::{Address, Refusal};

use super::LocalSettings;

/// A user of this machine.
pub(super) struct User {
    pub(super) uid: u32,
    /// Its name, if the machine lists it.
    pub(super) name: Option<String>,
}

impl User {
    /// The address that it sends under, unless it is trusted with others.
    pub(super) fn address(&self, settings: &LocalSettings) -> Result<Address, Refusal> {
        // A user without a name, as in containers, is still one that mail can be traced back to.
        let name = self.name.clone().unwrap_or_else(|| format!("uid-{}", self.uid));
        format!("{name}@{}", settings.domain).parse().map_err(|_| Refusal::RelayDenied)
    }

    /// Whether it may send under any address.
    pub(super) fn is_trusted(&self, settings: &LocalSettings) -> bool {
        self.name.as_ref().is_some_and(|name| settings.trusted_users.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_the_address_of_their_name() {
        let settings = LocalSettings {
            domain: "mail.lamppost.test".into(),
            trusted_users: vec!["root".into(), "uid-4294967294".into()],
        };
        let user = |uid| User { uid, name: lamppost_net::user_name(uid) };
        let check = |uid, expected: &str, trusted| {
            assert_eq!(user(uid).address(&settings).unwrap().as_str(), expected);
            assert_eq!(user(uid).is_trusted(&settings), trusted);
        };
        check(0, "root@mail.lamppost.test", true);
        // Nobody becomes trusted by a name that the machine does not list.
        check(u32::MAX - 1, "uid-4294967294@mail.lamppost.test", false);
        let nowhere = LocalSettings { domain: "no domain".into(), ..settings.clone() };
        assert!(user(0).address(&nowhere).is_err());
    }
}
