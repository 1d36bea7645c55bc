//! Rows of the table, and what several of one triplet are together.

use std::fmt::Write as _;
use std::time::Duration;

use mysql_async::Row;

use super::layout::{bare, is_network};
use super::schema::text;
use super::time::Moment;
use crate::{Record, Triplet};

/// The columns that a [`Found`] is read from, after the database's time.
pub(super) const COLUMNS: &str = "NOW(6), r.id, r.relay_ip, r.mail_from, r.rcpt_to, \
    r.block_expires, r.record_expires, r.blocked_count, r.passed_count, r.aborted_count, \
    r.origin_type, r.create_time";

/// A row of a triplet.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) id: u64,
    /// None where any network is meant.
    pub(super) network: Option<String>,
    sender: String,
    recipient: String,
    /// Dates as they stand there.
    pub(super) block_expires: String,
    pub(super) record_expires: String,
    pub(super) created: String,
    pub(super) record: Record,
    /// Whether an administrator wrote it.
    pub(super) is_manual: bool,
}

impl Found {
    /// A row of these columns; nothing where a join found none.
    pub(super) fn read(row: &Row, moment: &Moment) -> Option<Self> {
        let number = |place| text(row, place).parse().unwrap_or(0);
        let id = text(row, 1).parse().ok()?;
        let (block_expires, record_expires) = (text(row, 5), text(row, 6));
        Some(Self {
            id,
            network: row.get_opt::<String, _>(2).and_then(Result::ok),
            sender: bare(&text(row, 3)),
            recipient: bare(&text(row, 4)),
            record: Record {
                block_expires: moment.here(&block_expires),
                record_expires: moment.here(&record_expires),
                blocked_count: number(7),
                passed_count: number(8),
                aborted_count: number(9),
            },
            block_expires,
            record_expires,
            created: text(row, 11),
            is_manual: text(row, 10) == "MANUAL",
        })
    }

    /// Whether it is of this triplet, as rows name it.
    pub(super) fn is_of(&self, stored: &Triplet) -> bool {
        self.sender == stored.sender
            && self.recipient == stored.recipient
            && is_network(self.network.as_deref(), &stored.network)
    }

    pub(super) fn triplet(&self) -> Triplet {
        Triplet {
            network: self.network.clone().unwrap_or_default(),
            sender: self.sender.clone(),
            recipient: self.recipient.clone(),
        }
    }
}

/// The rows of one triplet that count: those that live, of an administrator before others, of a network
/// before those of any, as relaydelay takes them; the one with the lowest number comes first. Nodes that
/// know nothing of each other write several.
pub(super) fn counting<'a>(rows: &[&'a Found], now: Duration) -> Vec<&'a Found> {
    let live = || rows.iter().copied().filter(|row| row.record.is_live(now));
    let rank = |row: &Found| (!row.is_manual, row.network.is_none());
    let best = live().map(rank).min();
    let mut counting: Vec<_> = live().filter(|row| Some(rank(row)) == best).collect();
    counting.sort_by_key(|row| row.id);
    counting
}

/// What is remembered of a triplet by all its rows; one that has expired where none lives.
pub(super) fn together(rows: &[&Found], now: Duration) -> Option<Record> {
    let counting = counting(rows, now);
    let records = counting.iter().map(|row| row.record);
    records
        .reduce(add)
        .or_else(|| rows.iter().map(|row| row.record).max_by_key(|r| r.record_expires))
}

fn add(one: Record, other: Record) -> Record {
    Record {
        block_expires: one.block_expires.min(other.block_expires),
        record_expires: one.record_expires.max(other.record_expires),
        blocked_count: one.blocked_count + other.blocked_count,
        passed_count: one.passed_count + other.passed_count,
        aborted_count: one.aborted_count + other.aborted_count,
    }
}

/// A list for SQL.
pub(super) fn list(values: impl IntoIterator<Item = String>) -> String {
    values.into_iter().fold(String::new(), |mut list, value| {
        let comma = if list.is_empty() { "" } else { ", " };
        let _infallible = write!(list, "{comma}{value}");
        list
    })
}
