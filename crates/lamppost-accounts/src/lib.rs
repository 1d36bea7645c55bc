//! Mailboxes, their passwords, and how much they may send.

mod hashes;
mod known;
mod password;
mod quota;
mod table;
mod tries;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lamppost_database::Database;
use lamppost_smtp::{Address, Refusal, ReversePath, Secret};
use parking_lot::Mutex;

use hashes::Hashes;
use known::Known;
use quota::Quotas;
use tries::Tries;

pub use lamppost_database::DatabaseError;
pub use password::{HashError, NoRandomness, generate_password};
pub use table::Account;

/// What accounts are told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Wrong passwords from one address (IPv6: one /64) within the window before it is blocked.
    pub failures_per_address_max: u32,
    /// Wrong passwords for one account within the window before strange addresses are blocked.
    pub failures_per_account_max: u32,
    /// How long a wrong password counts.
    pub failure_window: Duration,
    /// Password hashes computed at once; each takes 19 MiB.
    pub hashes_at_once_max: usize,
    /// How long a try waits for its turn to be computed.
    pub hash_wait: Duration,
    /// Messages that an account may hand in within an hour.
    pub messages_per_hour_max: u32,
    /// Recipients that an account may name within an hour, over all messages.
    pub recipients_per_hour_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            failures_per_address_max: 10,
            failures_per_account_max: 20,
            failure_window: Duration::from_secs(15 * 60),
            hashes_at_once_max: 2,
            hash_wait: Duration::from_secs(10),
            messages_per_hour_max: 200,
            recipients_per_hour_max: 500,
        }
    }
}

/// Why an account could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// There is one already.
    #[error("there is an account {0} already")]
    Exists(Address),
    /// There is none.
    #[error("there is no account {0}")]
    Unknown(Address),
    /// A password that nobody needs to guess.
    #[error("the password is empty")]
    EmptyPassword,
    /// The password could not be hashed.
    #[error("cannot hash the password")]
    Hash(#[source] HashError),
    /// The database failed.
    #[error("cannot change the accounts")]
    Database(#[source] DatabaseError),
}

/// The accounts of this host; clones are the same accounts.
#[derive(Clone, Debug)]
pub struct Accounts {
    database: Database,
    known: Arc<Mutex<Known>>,
    hashes: Arc<Hashes>,
    tries: Arc<Mutex<Tries>>,
    quotas: Arc<Mutex<Quotas>>,
}

impl Accounts {
    /// Brings the tables up to date.
    ///
    /// # Errors
    /// When that fails, or a newer program wrote them.
    pub async fn open(database: Database, settings: Settings) -> Result<Self, DatabaseError> {
        table::migrate(&database).await?;
        Ok(Self {
            database,
            known: Arc::default(),
            hashes: Arc::new(Hashes::new(settings.hashes_at_once_max, settings.hash_wait)),
            tries: Arc::new(Mutex::new(Tries::new(&settings))),
            quotas: Arc::new(Mutex::new(Quotas::new(&settings))),
        })
    }

    /// Checks a password; returns the account's own spelling of its name. `now` is since 1970.
    ///
    /// An unknown account and a wrong password cost the same work and get the same answer.
    ///
    /// # Errors
    /// What to tell the client.
    pub async fn authenticate(
        &self,
        peer: IpAddr,
        user: &str,
        password: &Secret,
        now: Duration,
    ) -> Result<Address, Refusal> {
        let name = user.to_lowercase();
        if self.tries.lock().is_blocked(peer, &name, now) {
            return Err(Refusal::AuthBlocked);
        }
        let account = match user.parse::<Address>() {
            Ok(address) => table::find(&self.database, &address).await,
            Err(_) => Ok(None),
        };
        let account = account.map_err(|_| Refusal::Unavailable)?;
        let hash = account.as_ref().map(|account| account.hash.clone());
        let right = self.hashes.verify(hash, password.clone()).await?;
        let mut tries = self.tries.lock();
        match account {
            Some(account) if right => {
                tries.succeeded(peer, &name, now);
                Ok(account.address)
            }
            _ => {
                tries.failed(peer, &name, now);
                Err(Refusal::AuthFailed)
            }
        }
    }

    /// How many addresses and how many accounts are blocked after wrong passwords. `now` is since
    /// 1970.
    pub fn blocked(&self, now: Duration) -> (usize, usize) {
        self.tries.lock().blocked(now)
    }

    /// The account of an address, whatever its case; nothing when there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(&self, address: &Address) -> Result<Option<Address>, DatabaseError> {
        let key = table::key(address);
        let now = self.database.fingerprint();
        if let Some(account) = self.known.lock().find(now, &key) {
            return Ok(Some(account));
        }
        let found = table::find(&self.database, address).await?.map(|account| account.address);
        if let Some(account) = &found {
            self.known.lock().learn(now, key, account.clone());
        }
        Ok(found)
    }

    /// Whether an account may send under an address: its own only. The null sender belongs to
    /// everybody, since programs send notifications under it.
    pub fn owns(&self, account: &Address, sender: &ReversePath) -> bool {
        match sender {
            ReversePath::Null => true,
            ReversePath::Mailbox(sender) => table::key(sender) == table::key(account),
        }
    }

    /// Counts a message to so many recipients against the account's hour. `now` is since 1970.
    ///
    /// The counts are kept in memory: a restart forgets them.
    ///
    /// # Errors
    /// [`Refusal::QuotaExceeded`] when the hour has no room for it.
    pub fn charge(&self, account: &Address, recipients: u32, now: Duration) -> Result<(), Refusal> {
        self.quotas.lock().charge(&table::key(account), recipients, now)
    }

    /// Adds an account.
    ///
    /// # Errors
    /// When there is one, or it cannot be written.
    pub async fn add(&self, address: &Address, password: &Secret) -> Result<(), AccountError> {
        let hash = self.hash(password).await?;
        let added = table::add(&self.database, address.clone(), hash).await;
        let added = added.map_err(AccountError::Database)?;
        added.then_some(()).ok_or_else(|| AccountError::Exists(address.clone()))
    }

    /// Gives an account another password.
    ///
    /// # Errors
    /// When there is no such account, or it cannot be written.
    pub async fn set_password(
        &self,
        address: &Address,
        password: &Secret,
    ) -> Result<(), AccountError> {
        let hash = self.hash(password).await?;
        let changed = table::set_hash(&self.database, address, hash).await;
        let changed = changed.map_err(AccountError::Database)?;
        changed.then_some(()).ok_or_else(|| AccountError::Unknown(address.clone()))
    }

    /// Removes an account; its Maildir stays.
    ///
    /// # Errors
    /// When there is no such account, or it cannot be removed.
    pub async fn delete(&self, address: &Address) -> Result<(), AccountError> {
        let deleted =
            table::delete(&self.database, address).await.map_err(AccountError::Database)?;
        deleted.then_some(()).ok_or_else(|| AccountError::Unknown(address.clone()))
    }

    async fn hash(&self, password: &Secret) -> Result<String, AccountError> {
        if password.expose().is_empty() {
            return Err(AccountError::EmptyPassword);
        }
        let password = password.clone();
        let hashed = tokio::task::spawn_blocking(move || password::hash(&password)).await;
        hashed.unwrap_or(Err(HashError::Interrupted)).map_err(AccountError::Hash)
    }
}

/// The accounts of a database that is only read, by name.
///
/// # Errors
/// When it cannot be read, or no account was ever added.
pub async fn listed(database: &Database) -> Result<Vec<Address>, DatabaseError> {
    table::list(database).await
}

#[cfg(test)]
mod tests {
    use lamppost_database::Survives;
    use tempfile::TempDir;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);
    const PEER: &str = "192.0.2.1";

    async fn accounts(folder: &TempDir, settings: Settings) -> Accounts {
        let path = folder.path().join("state.db");
        let database = Database::open(&path, Survives::PowerCut).unwrap();
        Accounts::open(database, settings).await.unwrap()
    }

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    async fn login(
        accounts: &Accounts,
        peer: &str,
        user: &str,
        password: &str,
    ) -> Result<Address, Refusal> {
        accounts.authenticate(peer.parse().unwrap(), user, &secret(password), NOW).await
    }

    #[tokio::test]
    async fn the_right_password_gets_in_whatever_the_case_of_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let accounts = accounts(&folder, Settings::default()).await;
        accounts.add(&address("Demo@lamppost.test"), &secret("right")).await.unwrap();
        let name = login(&accounts, PEER, "demo@LAMPPOST.test", "right").await.unwrap();
        assert_eq!(name, address("Demo@lamppost.test"));
        assert_eq!(
            login(&accounts, PEER, "demo@lamppost.test", "Right").await,
            Err(Refusal::AuthFailed)
        );
    }

    #[tokio::test]
    async fn an_unknown_account_costs_as_much_as_a_wrong_password() {
        let folder = tempfile::tempdir().unwrap();
        let accounts = accounts(&folder, Settings::default()).await;
        accounts.add(&address("demo@lamppost.test"), &secret("right")).await.unwrap();
        for (tries, user) in
            [(1, "demo@lamppost.test"), (2, "nobody@lamppost.test"), (3, "garbage")]
        {
            assert_eq!(login(&accounts, PEER, user, "wrong").await, Err(Refusal::AuthFailed));
            assert_eq!(accounts.hashes.computed(), tries, "{user}");
        }
    }

    #[tokio::test]
    async fn guessing_is_blocked_by_address_and_by_account() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            failures_per_address_max: 2,
            failures_per_account_max: 3,
            ..Settings::default()
        };
        let accounts = accounts(&folder, settings).await;
        accounts.add(&address("demo@lamppost.test"), &secret("right")).await.unwrap();
        // The owner's address is known before the guessing begins.
        login(&accounts, "203.0.113.5", "demo@lamppost.test", "right").await.unwrap();
        for peer in ["192.0.2.1", "192.0.2.1", "192.0.2.2"] {
            let refused = login(&accounts, peer, "demo@lamppost.test", "wrong").await;
            assert_eq!(refused, Err(Refusal::AuthFailed));
        }
        let right = |peer| login(&accounts, peer, "demo@lamppost.test", "right");
        assert_eq!(right("192.0.2.1").await, Err(Refusal::AuthBlocked));
        assert_eq!(right("192.0.2.3").await, Err(Refusal::AuthBlocked));
        right("203.0.113.5").await.unwrap();
    }

    #[tokio::test]
    async fn accounts_come_and_go_also_by_another_process() {
        let folder = tempfile::tempdir().unwrap();
        let here = accounts(&folder, Settings::default()).await;
        let there = accounts(&folder, Settings::default()).await;
        let demo = address("demo@lamppost.test");
        assert_eq!(here.find(&demo).await.unwrap(), None);
        there.add(&demo, &secret("one")).await.unwrap();
        assert_eq!(here.find(&address("DEMO@lamppost.test")).await.unwrap(), Some(demo.clone()));
        assert!(matches!(here.add(&demo, &secret("x")).await, Err(AccountError::Exists(_))));
        there.set_password(&demo, &secret("two")).await.unwrap();
        login(&here, PEER, "demo@lamppost.test", "two").await.unwrap();
        assert_eq!(listed(&here.database).await.unwrap(), std::slice::from_ref(&demo));
        there.delete(&demo).await.unwrap();
        assert_eq!(here.find(&demo).await.unwrap(), None);
        assert!(matches!(here.delete(&demo).await, Err(AccountError::Unknown(_))));
        let unknown = here.set_password(&demo, &secret("x")).await;
        assert!(matches!(unknown, Err(AccountError::Unknown(_))));
        assert!(matches!(here.add(&demo, &secret("")).await, Err(AccountError::EmptyPassword)));
    }

    #[tokio::test]
    async fn an_account_sends_as_itself_only() {
        let folder = tempfile::tempdir().unwrap();
        let accounts = accounts(&folder, Settings::default()).await;
        let demo = address("demo@lamppost.test");
        let owns = |sender: &str| accounts.owns(&demo, &ReversePath::Mailbox(address(sender)));
        assert!(owns("Demo@LAMPPOST.test"));
        assert!(!owns("other@lamppost.test"));
        assert!(accounts.owns(&demo, &ReversePath::Null));
    }
}
