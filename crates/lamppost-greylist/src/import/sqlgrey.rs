//! What sqlgrey keeps in its database (sqlgrey 1.8.0, schema 3): `connect` has those that must come
//! back, `from_awl` senders that did, and `domain_awl` domains of which several did.
//!
//! A network is the first three numbers of an IPv4 address or the first four groups of an IPv6
//! address, or it is a whole address. `-undef-` stands for what is missing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use lamppost_database::{Database, DatabaseError};
use rusqlite::types::Type;
use rusqlite::{Connection, Row};

use super::Remembered;

/// What stands for a missing part of an address.
const UNDEFINED: &str = "-undef-";
/// All rows in one form; a domain that passes by itself has had two senders that did.
const ALL: &str = "
    SELECT src, sender_name, sender_domain, rcpt, first_seen, first_seen, 0 FROM connect
    UNION ALL
    SELECT src, sender_name, sender_domain, NULL, first_seen, last_seen, 1 FROM from_awl
    UNION ALL
    SELECT src, NULL, sender_domain, NULL, first_seen, last_seen, 2 FROM domain_awl";

/// All that a `SQLite` file of it remembers, and how many rows tell nothing.
///
/// # Errors
/// The file cannot be read, or is none of sqlgrey's.
pub async fn read(path: &Path) -> Result<(Vec<Remembered>, u64), DatabaseError> {
    let database = Database::open_to_read(path)?;
    let read = |connection: &mut Connection| {
        let mut select = connection.prepare(ALL)?;
        let rows = select.query_map([], row)?;
        let (mut all, mut unknown) = (Vec::new(), 0);
        for found in rows {
            match found? {
                Some(found) => all.push(found),
                None => unknown += 1,
            }
        }
        Ok((all, unknown))
    };
    database.run("read the tables of sqlgrey", read).await
}

fn row(row: &Row<'_>) -> rusqlite::Result<Option<Remembered>> {
    let client: String = row.get(0)?;
    let name: Option<String> = row.get(1)?;
    let domain: String = row.get(2)?;
    let recipient: Option<String> = row.get(3)?;
    let (first, last) = (time(row, 4)?, time(row, 5)?);
    let passed = row.get(6)?;
    let Some(client) = address(&client) else { return Ok(None) };
    let sender = Some(sender(name.as_deref(), &domain));
    let recipient = recipient.map(|recipient| recipient.to_lowercase());
    Ok(Some(Remembered { client, sender, recipient, first, last, passed }))
}

/// Seconds since 1970; anything else is an error that names the column.
fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Duration> {
    let seconds: i64 = row.get(column)?;
    u64::try_from(seconds).map(Duration::from_secs).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, error.into())
    })
}

/// Whom a sender means. sqlgrey writes `#` for what changes from message to message, so that all of
/// the domain are meant by it here.
fn sender(name: Option<&str>, domain: &str) -> String {
    match (name, domain) {
        (_, UNDEFINED) if name.is_none_or(|name| name == UNDEFINED) => String::new(),
        (Some(name), UNDEFINED) => name.to_lowercase(),
        (Some(name), domain) if name != UNDEFINED && !name.contains('#') => {
            format!("{name}@{domain}").to_lowercase()
        }
        _ => format!("@{domain}").to_lowercase(),
    }
}

/// The first address of a network.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(whole) = text.parse() {
        return Some(whole);
    }
    if text.contains(':') {
        let is_half = text.split(':').count() == 4;
        let whole = is_half.then(|| format!("{text}::").parse::<Ipv6Addr>());
        return whole?.ok().map(Into::into);
    }
    let is_three = text.split('.').count() == 3;
    let whole = is_three.then(|| format!("{text}.0").parse::<Ipv4Addr>());
    whole?.ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_have_a_first_address() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(address(text), expected.map(|text| text.parse().unwrap()), "{text}");
        };
        check("192.0.2", Some("192.0.2.0"));
        check("192.0.2.7", Some("192.0.2.7"));
        check("2001:0db8:0001:0002", Some("2001:db8:1:2::"));
        check("2001:0db8:0001:0002:0003:0004:0005:0006", Some("2001:db8:1:2:3:4:5:6"));
        check("unknown", None);
        check("", None);
        check("1.2.3.4.5", None);
    }

    #[test]
    fn senders_are_whole_or_a_domain() {
        assert_eq!(sender(Some("A"), "X.test"), "a@x.test");
        assert_eq!(sender(Some("bounce-#"), "x.test"), "@x.test");
        assert_eq!(sender(None, "x.test"), "@x.test");
        assert_eq!(sender(Some(UNDEFINED), UNDEFINED), "");
        assert_eq!(sender(Some("local"), UNDEFINED), "local");
    }

    proptest! {
        #[test]
        fn any_text_is_a_network_or_none(text in "[0-9a-f.:]{0,45}", other: String) {
            address(&text);
            address(&other);
        }
    }

    #[tokio::test]
    async fn what_is_no_database_of_sqlgrey_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        let error = read(&path).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("no such table"), "{source}");
        assert!(read(&folder.path().join("absent.db")).await.is_err());
    }
}
