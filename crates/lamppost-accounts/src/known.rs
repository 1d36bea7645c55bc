//! Accounts that were looked up and that nobody can have changed since: a busy mailbox costs the
//! database one question, not one a message.

use std::collections::HashMap;

use lamppost_database::Fingerprint;
use lamppost_smtp::Address;

/// Accounts that are remembered.
const KNOWN_MAX: usize = 10_000;

/// Accounts as they were when the database's files looked like this.
#[derive(Debug, Default)]
pub(crate) struct Known {
    when: Option<Fingerprint>,
    accounts: HashMap<String, Address>,
}

impl Known {
    /// An account that was looked up while the files looked as they do now.
    pub(crate) fn find(&self, now: Option<Fingerprint>, key: &str) -> Option<Address> {
        (now.is_some() && self.when == now).then(|| self.accounts.get(key).cloned())?
    }

    /// Remembers an account that was looked up after the files looked like this.
    pub(crate) fn learn(&mut self, then: Option<Fingerprint>, key: String, account: Address) {
        if self.when != then || self.accounts.len() >= KNOWN_MAX {
            self.accounts.clear();
        }
        self.when = then;
        self.accounts.insert(key, account);
    }
}

#[cfg(test)]
mod tests {
    use lamppost_database::{Database, Survives};

    use super::*;

    #[tokio::test]
    async fn what_was_known_is_forgotten_when_anybody_changes_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let ours = Database::open(&path, Survives::PowerCut).unwrap();
        let theirs = Database::open(&path, Survives::PowerCut).unwrap();
        let change = |sql: &'static str| {
            theirs.run("change something", move |connection| connection.execute_batch(sql))
        };
        change("CREATE TABLE t (x); INSERT INTO t VALUES (1)").await.unwrap();
        let account: Address = "demo@lamppost.test".parse().unwrap();
        let mut known = Known::default();
        known.learn(ours.fingerprint(), "demo".into(), account.clone());
        assert_eq!(known.find(ours.fingerprint(), "demo"), Some(account));
        assert_eq!(known.find(ours.fingerprint(), "other"), None);
        change("DELETE FROM t").await.unwrap();
        assert_eq!(known.find(ours.fingerprint(), "demo"), None);
        assert_eq!(known.find(None, "demo"), None);
    }
}
