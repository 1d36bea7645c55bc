//! A database that several servers share: `MariaDB` or `MySQL`, with relaydelay's tables.
//!
//! Old nodes may work on the same tables at the same time: what is added to them does not show in
//! statements that do not know of it.

mod init;
mod layout;
mod log;
mod row;
mod schema;
mod session;
mod time;
mod wildcards;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lamppost_net::Clock;

use self::layout::{KEY, hex, literal};
use self::row::{COLUMNS, Found, list, together};
use self::schema::{TRIPLETS, WRITERS, text};
use self::session::Sessions;
use self::time::Moment;
use crate::store::Page;
use crate::{Census, Filter, Record, Seen, StoreError, Triplet};

pub use self::init::{Dialect, Step, Workshop, admin_statements};
pub use self::session::{Password, Server, ServerPlace};
pub(crate) use self::write::Batch;

/// How long it is remembered what a node has written last: longer than any of its journals waits.
const WRITERS_KEPT: &str = "400 DAY";

/// Triplets in a shared database.
pub(crate) struct Mariadb {
    sessions: Sessions,
    clock: Arc<dyn Clock>,
}

impl Mariadb {
    /// Connects to nobody yet.
    pub(crate) fn new(server: Server, clock: Arc<dyn Clock>) -> Self {
        Self { sessions: Sessions::new(server), clock }
    }

    /// What messages call it.
    pub(crate) fn name(&self) -> String {
        self.sessions.name().to_string()
    }

    /// As [`crate::Store::look`]; all times are by this machine's clock, and as far from now as they are by
    /// the database's.
    pub(crate) async fn look(
        &self,
        triplets: &[Triplet],
        now: Duration,
    ) -> Result<Seen, StoreError> {
        let records = self
            .sessions
            .run(|mut session| async move {
                let layout = session.layout();
                let keys: BTreeSet<_> =
                    triplets.iter().flat_map(|triplet| layout.keys(triplet)).collect();
                let keys = if keys.is_empty() { "NULL".into() } else { list(keys) };
                let select = format!(
                    "SELECT {COLUMNS} FROM (SELECT 1) AS one \
                         LEFT JOIN {TRIPLETS} AS r ON r.{KEY} IN ({keys})"
                );
                let rows = session.rows("look triplets up", &select).await?;
                let told = rows.first().and_then(|row| Moment::new(&text(row, 0), now));
                let Some(moment) = told else { return Ok(vec![None; triplets.len()]) };
                let found: Vec<_> =
                    rows.iter().filter_map(|row| Found::read(row, &moment)).collect();
                let record = |triplet| -> Option<Record> {
                    let stored = layout.stored(triplet);
                    let own: Vec<_> = found.iter().filter(|row| row.is_of(&stored)).collect();
                    together(&own, now)
                };
                Ok(triplets.iter().map(record).collect::<Vec<_>>())
            })
            .await?;
        Ok(Seen { now, records })
    }

    /// Adds changes to what is held, unless that was done before.
    pub(crate) async fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        let clock = &*self.clock;
        self.sessions.run(|session| write::write(session, batch, clock)).await
    }

    /// Forgets triplets whose record has expired by the database's clock.
    pub(crate) async fn expire(&self, limit: usize) -> Result<usize, StoreError> {
        let what = "expire triplets";
        self.sessions
            .run(|mut session| async move {
                let old = format!(
                    "DELETE FROM {WRITERS} WHERE last_update < NOW() - INTERVAL {WRITERS_KEPT}"
                );
                session.change(what, &old).await?;
                let is_over = "origin_type = 'AUTO' AND record_expires <= NOW()";
                let select = format!("SELECT id FROM {TRIPLETS} WHERE {is_over} LIMIT {limit}");
                let ids = session.rows(what, &select).await?;
                if ids.is_empty() {
                    return Ok(0);
                }
                let ids = list(ids.iter().map(|row| text(row, 0)));
                let delete = format!("DELETE FROM {TRIPLETS} WHERE id IN ({ids}) AND {is_over}");
                Ok(usize::try_from(session.change(what, &delete).await?).unwrap_or(limit))
            })
            .await
    }

    /// Rows in the order of their keys.
    pub(crate) async fn list(
        &self,
        filter: &Filter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let now = self.clock.now();
        let after = after.and_then(|after| after.split_once(' '));
        let after = after.filter(|(key, _)| key.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let after = after.and_then(|(key, id)| Some((key, id.parse::<u64>().ok()?)));
        let after = after.map_or(String::new(), |(key, id)| {
            format!("AND (r.{KEY} > x'{key}' OR (r.{KEY} = x'{key}' AND r.id > {id}))")
        });
        let meant = meant(filter);
        let select = format!(
            "SELECT {COLUMNS}, HEX(r.{KEY}) FROM {TRIPLETS} AS r WHERE {meant} {after} \
             ORDER BY r.{KEY}, r.id LIMIT {limit}"
        );
        let select = &select;
        let rows = self
            .sessions
            .run(|mut session| async move { session.rows("list triplets", select).await })
            .await?;
        let moment = rows.first().and_then(|row| Moment::new(&text(row, 0), now));
        let found = rows.iter().filter_map(|row| Found::read(row, moment.as_ref()?));
        let next = rows.last().filter(|_| rows.len() == limit);
        let next = next.map(|row| format!("{} {}", text(row, 12), text(row, 1)));
        Ok(Page { triplets: found.map(|row| (row.triplet(), row.record)).collect(), next })
    }

    /// Forgets the triplets that are meant; what administrators wrote stays.
    pub(crate) async fn forget(&self, filter: &Filter, limit: usize) -> Result<usize, StoreError> {
        let what = "forget triplets";
        let meant = meant(filter);
        let select = format!(
            "SELECT r.id FROM {TRIPLETS} AS r WHERE {meant} AND r.origin_type = 'AUTO' LIMIT {limit}"
        );
        let select = &select;
        self.sessions
            .run(|mut session| async move {
                let ids = session.rows(what, select).await?;
                if ids.is_empty() {
                    return Ok(0);
                }
                let ids = list(ids.iter().map(|row| text(row, 0)));
                let delete = format!("DELETE FROM {TRIPLETS} WHERE id IN ({ids})");
                session.change(what, &delete).await?;
                Ok(ids.split(',').count())
            })
            .await
    }

    pub(crate) async fn census(&self) -> Result<Census, StoreError> {
        let select = format!(
            "SELECT COALESCE(SUM(passed_count = 0), 0), COALESCE(SUM(passed_count > 0), 0) \
             FROM {TRIPLETS} WHERE {KEY} IS NOT NULL"
        );
        let select = &select;
        self.sessions
            .run(|mut session| async move {
                let rows = session.rows("count triplets", select).await?;
                let number =
                    |place| rows.first().and_then(|row| text(row, place).parse().ok()).unwrap_or(0);
                Ok(Census { waiting: number(0), known: number(1) })
            })
            .await
    }
}

/// A filter as SQL; all rows of triplets where it names nothing.
fn meant(filter: &Filter) -> String {
    let Filter { network, sender, recipient } = filter;
    let mut meant = format!("r.{KEY} IS NOT NULL");
    let mut add = |condition: String| {
        meant.push_str(" AND ");
        meant.push_str(&condition);
    };
    if let Some(network) = network {
        add(of_network(network));
    }
    for (column, wanted) in [("mail_from", sender), ("rcpt_to", recipient)] {
        let Some(wanted) = wanted else { continue };
        let bare = format!(
            "LOWER(TRIM(LEADING '<' FROM TRIM(TRAILING '>' FROM CONVERT(r.{column} USING utf8mb4))))"
        );
        let text = literal(wanted);
        add(if wanted.starts_with('@') {
            format!("RIGHT({bare}, CHAR_LENGTH({text})) = {text}")
        } else {
            format!("{bare} = {text}")
        });
    }
    meant
}

/// Rows of a network, or of addresses in it.
fn of_network(network: &str) -> String {
    let same = format!("CONVERT(r.relay_ip USING utf8mb4) = {}", literal(network));
    let inside = match network.parse() {
        Ok(std::net::IpAddr::V4(v4)) if v4.octets()[3] == 0 => {
            let [a, b, c, _] = v4.octets();
            format!("r.relay_ip LIKE '{a}.{b}.{c}.%'")
        }
        Ok(std::net::IpAddr::V6(v6)) if v6.octets()[8..] == [0; 8] => format!(
            "(IS_IPV6(r.relay_ip) AND LEFT(INET6_ATON(r.relay_ip), 8) = x'{}')",
            hex(&v6.octets()[..8])
        ),
        _ => return same,
    };
    format!("({same} OR {inside})")
}
