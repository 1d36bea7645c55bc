//! The accounts' table.

use lamppost_database::{Database, DatabaseError, Migrations};
use lamppost_smtp::Address;
use rusqlite::{OptionalExtension, Row, params};

const MIGRATIONS: Migrations = Migrations {
    component: "accounts",
    steps: &["CREATE TABLE account (
         key TEXT PRIMARY KEY, -- the address in lower case
         address TEXT NOT NULL,
         hash TEXT NOT NULL -- a PHC string
     )"],
};

/// A mailbox with its password's hash.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its address as it was added.
    pub address: Address,
    pub(crate) hash: String,
}

/// By what an account is found: its address, whatever the case.
pub(crate) fn key(address: &Address) -> String {
    address.as_str().to_lowercase()
}

pub(crate) async fn migrate(database: &Database) -> Result<(), DatabaseError> {
    database.migrate(MIGRATIONS).await
}

pub(crate) async fn find(
    database: &Database,
    address: &Address,
) -> Result<Option<Account>, DatabaseError> {
    let key = key(address);
    database
        .run("look an account up", move |connection| {
            connection
                .prepare_cached("SELECT address, hash FROM account WHERE key = ?1")?
                .query_row([key], |row| Ok(Account { address: parse(row)?, hash: row.get(1)? }))
                .optional()
        })
        .await
}

pub(crate) async fn list(database: &Database) -> Result<Vec<Address>, DatabaseError> {
    database
        .run("list the accounts", |connection| {
            connection
                .prepare("SELECT address FROM account ORDER BY key")?
                .query_map([], parse)?
                .collect()
        })
        .await
}

/// False when there is one already.
pub(crate) async fn add(
    database: &Database,
    address: Address,
    hash: String,
) -> Result<bool, DatabaseError> {
    database
        .run("add an account", move |connection| {
            let added = connection.execute(
                "INSERT INTO account (key, address, hash) VALUES (?1, ?2, ?3)
                 ON CONFLICT (key) DO NOTHING",
                params![key(&address), address.as_str(), hash],
            )?;
            Ok(added == 1)
        })
        .await
}

/// False when there is no such account.
pub(crate) async fn set_hash(
    database: &Database,
    address: &Address,
    hash: String,
) -> Result<bool, DatabaseError> {
    let key = key(address);
    database
        .run("change a password", move |connection| {
            let update = "UPDATE account SET hash = ?2 WHERE key = ?1";
            Ok(connection.execute(update, params![key, hash])? == 1)
        })
        .await
}

/// False when there is no such account.
pub(crate) async fn delete(database: &Database, address: &Address) -> Result<bool, DatabaseError> {
    let key = key(address);
    database
        .run("delete an account", move |connection| {
            Ok(connection.execute("DELETE FROM account WHERE key = ?1", [key])? == 1)
        })
        .await
}

fn parse(row: &Row<'_>) -> rusqlite::Result<Address> {
    let text: String = row.get(0)?;
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}
