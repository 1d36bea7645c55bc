//! Users of this machine: known by the system, not by a password.

use lamppost_smtp::{Address, Refusal};

use super::LocalSettings;

/// The address that a user sends under, unless it is trusted with others.
pub(super) fn address(uid: u32, settings: &LocalSettings) -> Result<Address, Refusal> {
    // A user without a name, as in containers, is still one that mail can be traced back to.
    let name = lamppost_net::user_name(uid).unwrap_or_else(|| format!("uid-{uid}"));
    format!("{name}@{}", settings.domain).parse().map_err(|_| Refusal::RelayDenied)
}

/// Whether a user may send under any address.
pub(super) fn is_trusted(uid: u32, settings: &LocalSettings) -> bool {
    lamppost_net::user_name(uid).is_some_and(|name| settings.trusted_users.contains(&name))
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
        let check = |uid, expected: &str, trusted| {
            assert_eq!(address(uid, &settings).unwrap().as_str(), expected);
            assert_eq!(is_trusted(uid, &settings), trusted);
        };
        check(0, "root@mail.lamppost.test", true);
        // Nobody becomes trusted by a name that the machine does not list.
        check(u32::MAX - 1, "uid-4294967294@mail.lamppost.test", false);
        let nowhere = LocalSettings { domain: "no domain".into(), ..settings.clone() };
        assert!(address(0, &nowhere).is_err());
    }
}
