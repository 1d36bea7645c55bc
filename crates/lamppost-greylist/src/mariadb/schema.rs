//! The tables as relaydelay and its descendants made them, and what is added to them.

use std::collections::{HashMap, HashSet};

use mysql_async::{Conn, Row};

use super::layout::{KEY, KEY_EXPRESSION, Layout};
use super::session::{Trouble, rows};
use crate::StoreError;

/// The table of triplets and of manual rows.
pub(super) const TRIPLETS: &str = "relaytofrom";
/// A table of ours: the turn of those who write, and what each has written.
pub(super) const WRITERS: &str = "lamppost_writer";
/// What passed.
pub(super) const MAIL_LOG: &str = "mail_log";
/// What clients are called.
pub(super) const NAMES: &str = "dns_name";
/// The index of when rows expire.
const EXPIRY_INDEX: &str = "lamppost_expires";
/// Characters of a network: an IPv6 address, or the domain that stands for one.
const NETWORK_CHARACTERS: usize = 100;
/// Rows by which it is told how a database writes addresses.
const SAMPLE: u32 = 1000;
/// What to do about tables that lack something.
const CURE: &str = "run `lamppost greylist init`";

const COLUMNS: [&str; 12] = [
    "id",
    "relay_ip",
    "mail_from",
    "rcpt_to",
    "block_expires",
    "record_expires",
    "blocked_count",
    "passed_count",
    "aborted_count",
    "origin_type",
    "create_time",
    "last_update",
];

/// A column as the database tells of it.
#[derive(Clone, Debug)]
struct Column {
    kind: String,
    room: usize,
    charset: String,
}

/// Tables as they are.
#[derive(Debug)]
pub(super) struct Found {
    /// What holds each table that is there.
    engines: HashMap<String, String>,
    columns: HashMap<String, Column>,
    has_expiry_index: bool,
    /// The other tables whose `relay_ip` has no room for IPv6.
    narrow: HashSet<String>,
}

/// A text of a row; empty for NULL.
pub(super) fn text(row: &Row, place: usize) -> String {
    row.get_opt(place).and_then(Result::ok).unwrap_or_default()
}

impl Found {
    pub(super) async fn look(connection: &mut Conn, server: &str) -> Result<Self, StoreError> {
        let what = "look at the tables";
        let tables = "SELECT table_name, engine FROM information_schema.tables \
             WHERE table_schema = DATABASE()";
        let tables = rows(connection, server, what, tables).await;
        let tables = tables.map_err(Trouble::error)?;
        let engines = tables.iter().map(|row| (text(row, 0).to_lowercase(), text(row, 1)));
        let engines = engines.collect();
        let columns = format!(
            "SELECT column_name, data_type, character_maximum_length, character_set_name \
             FROM information_schema.columns \
             WHERE table_schema = DATABASE() AND table_name = '{TRIPLETS}'"
        );
        let columns = rows(connection, server, what, &columns).await.map_err(Trouble::error)?;
        let columns = columns.iter().map(|row| {
            let column = Column {
                kind: text(row, 1),
                room: text(row, 2).parse().unwrap_or(0),
                charset: text(row, 3),
            };
            (text(row, 0).to_lowercase(), column)
        });
        let columns = columns.collect();
        let indexes = format!(
            "SELECT 1 FROM information_schema.statistics WHERE table_schema = DATABASE() \
             AND table_name = '{TRIPLETS}' AND index_name = '{EXPIRY_INDEX}'"
        );
        let indexes = rows(connection, server, what, &indexes).await;
        let has_expiry_index = !indexes.map_err(Trouble::error)?.is_empty();
        let narrow = format!(
            "SELECT table_name FROM information_schema.columns WHERE table_schema = DATABASE() \
             AND table_name IN ('{NAMES}', '{MAIL_LOG}') AND column_name = 'relay_ip' \
             AND character_maximum_length < {NETWORK_CHARACTERS}"
        );
        let narrow = rows(connection, server, what, &narrow).await.map_err(Trouble::error)?;
        let narrow = narrow.iter().map(|row| text(row, 0).to_lowercase()).collect();
        Ok(Self { engines, columns, has_expiry_index, narrow })
    }

    /// What is wrong with tables that somebody else made, and that nothing can be added to.
    fn foreign(&self) -> Option<String> {
        if !self.engines.contains_key(TRIPLETS) {
            return None;
        }
        let lacking = COLUMNS.iter().find(|column| !self.columns.contains_key(**column));
        if let Some(column) = lacking {
            return Some(format!(
                "its table `{TRIPLETS}` has no column `{column}`: it is not relaydelay's; name \
                 another database"
            ));
        }
        ["block_expires", "record_expires"].iter().find_map(|name| {
            let column = self.columns.get(*name)?;
            (!matches!(column.kind.as_str(), "datetime" | "timestamp")).then(|| {
                let kind = &column.kind;
                format!("`{TRIPLETS}.{name}` is of the type {kind}, and a datetime is expected")
            })
        })
    }

    /// What is yet to be done before the tables can be used.
    fn lacking(&self) -> Option<String> {
        match self.engines.get(TRIPLETS) {
            None => return Some(format!("it has no table `{TRIPLETS}`; {CURE}")),
            Some(engine) if !engine.eq_ignore_ascii_case("innodb") => {
                return Some(format!(
                    "its table `{TRIPLETS}` is held by {engine}, which knows no transactions; {CURE}"
                ));
            }
            Some(_) => {}
        }
        if !self.columns.contains_key(KEY) {
            return Some(format!("its table `{TRIPLETS}` has no column `{KEY}`; {CURE}"));
        }
        (!self.engines.contains_key(WRITERS))
            .then(|| format!("it has no table `{WRITERS}`; {CURE}"))
    }

    fn room(&self) -> [usize; 3] {
        ["relay_ip", "mail_from", "rcpt_to"]
            .map(|name| self.columns.get(name).map_or(0, |column| column.room))
    }

    /// The statements that bring the tables up to date, and what each does.
    ///
    /// # Errors
    /// What is wrong with tables that nothing can be added to.
    pub(super) fn plan(&self) -> Result<Vec<(String, String)>, String> {
        if let Some(problem) = self.foreign() {
            return Err(problem);
        }
        let mut plan = Vec::new();
        if self.engines.contains_key(TRIPLETS) {
            plan.extend(self.changes());
        } else {
            plan.push((format!("make the table {TRIPLETS}"), new_triplets()));
        }
        for (table, statement) in [(NAMES, NEW_NAMES), (MAIL_LOG, NEW_MAIL_LOG)] {
            if !self.engines.contains_key(table) {
                plan.push((format!("make the table {table}"), statement.to_owned()));
            } else if self.narrow.contains(table) {
                plan.push((
                    format!("give {table}.relay_ip room for IPv6"),
                    format!(
                        "ALTER TABLE {table} MODIFY relay_ip VARCHAR({NETWORK_CHARACTERS}) NOT NULL"
                    ),
                ));
            }
        }
        if !self.engines.contains_key(WRITERS) {
            let statement = format!(
                "CREATE TABLE {WRITERS} (node BINARY(16) NOT NULL PRIMARY KEY, \
                 batch BIGINT UNSIGNED NOT NULL, last_update DATETIME NOT NULL) ENGINE=InnoDB"
            );
            plan.push((format!("make the table {WRITERS}"), statement));
        }
        Ok(plan)
    }

    /// One statement for all that the table of triplets lacks: a large one is copied once.
    fn changes(&self) -> Option<(String, String)> {
        let (mut does, mut parts) = (Vec::new(), Vec::new());
        let mut add = |what: &str, part: String| {
            does.push(what.to_owned());
            parts.push(part);
        };
        let engine = self.engines.get(TRIPLETS).map_or("", String::as_str);
        if !engine.eq_ignore_ascii_case("innodb") {
            add(&format!("move it from {engine} to InnoDB"), "ENGINE=InnoDB".into());
        }
        if self.room()[0] < NETWORK_CHARACTERS {
            let column = format!("MODIFY relay_ip VARCHAR({NETWORK_CHARACTERS}) NULL");
            add("give relay_ip room for IPv6", column);
        }
        if !self.columns.contains_key(KEY) {
            let column = format!("{}, ADD INDEX {KEY} ({KEY})", key_column());
            add("add the invisible column that rows are found by", column);
        }
        if !self.has_expiry_index {
            let index = format!("ADD INDEX {EXPIRY_INDEX} (record_expires)");
            add("index when rows expire", index);
        }
        (!parts.is_empty()).then(|| {
            let statement = format!("ALTER TABLE {TRIPLETS} {}", parts.join(", "));
            (format!("change the table {TRIPLETS}: {}", does.join("; ")), statement)
        })
    }
}

/// Whether the tables can be used, and how they hold triplets.
pub(super) async fn layout(connection: &mut Conn, server: &str) -> Result<Layout, StoreError> {
    let found = Found::look(connection, server).await?;
    if let Some(problem) = found.foreign().or_else(|| found.lacking()) {
        return Err(StoreError::Foreign { server: server.to_owned(), problem });
    }
    let sample = format!(
        "SELECT COUNT(*), COALESCE(SUM(mail_from LIKE '<%'), 0) FROM (SELECT mail_from \
         FROM {TRIPLETS} WHERE mail_from IS NOT NULL AND rcpt_to IS NOT NULL \
         ORDER BY id DESC LIMIT {SAMPLE}) AS sample"
    );
    let sample = rows(connection, server, "look how addresses are written", &sample).await;
    let sample = sample.map_err(Trouble::error)?;
    let count =
        |place| sample.first().and_then(|row| text(row, place).parse::<u64>().ok()).unwrap_or(0);
    let unicode =
        |name: &str| found.columns.get(name).is_some_and(|column| column.charset == "utf8mb4");
    Ok(Layout {
        room: found.room(),
        is_unicode: unicode("mail_from") && unicode("rcpt_to"),
        brackets: count(1) * 2 > count(0),
    })
}

fn key_column() -> String {
    format!("ADD COLUMN {KEY} BINARY(16) GENERATED ALWAYS AS ({KEY_EXPRESSION}) STORED INVISIBLE")
}

fn new_triplets() -> String {
    format!(
        "CREATE TABLE {TRIPLETS} (\
         id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
         relay_ip VARCHAR({NETWORK_CHARACTERS}) NULL, \
         mail_from VARCHAR(255) NULL, rcpt_to VARCHAR(255) NULL, \
         block_expires DATETIME NOT NULL, record_expires DATETIME NOT NULL, \
         blocked_count BIGINT NOT NULL DEFAULT 0, passed_count BIGINT NOT NULL DEFAULT 0, \
         aborted_count BIGINT NOT NULL DEFAULT 0, \
         origin_type ENUM('MANUAL','AUTO') NOT NULL, create_time DATETIME NOT NULL, \
         last_update TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, \
         {KEY} BINARY(16) GENERATED ALWAYS AS ({KEY_EXPRESSION}) STORED INVISIBLE, \
         KEY relay_ip (relay_ip), KEY mail_from (mail_from(20)), KEY rcpt_to (rcpt_to(20)), \
         KEY {KEY} ({KEY}), KEY {EXPIRY_INDEX} (record_expires)\
         ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4"
    )
}

const NEW_NAMES: &str = "CREATE TABLE dns_name (\
    relay_ip VARCHAR(100) NOT NULL PRIMARY KEY, relay_name VARCHAR(255) NOT NULL, \
    last_update TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, \
    KEY relay_name (relay_name(20))) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4";

const NEW_MAIL_LOG: &str = "CREATE TABLE mail_log (\
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, relay_ip VARCHAR(100) NOT NULL, \
    relay_name VARCHAR(255) NULL, dns_mismatch BOOL NOT NULL, mail_from VARCHAR(255) NOT NULL, \
    rcpt_to VARCHAR(255) NOT NULL, rcpt_host VARCHAR(80) NOT NULL, create_time DATETIME NOT NULL, \
    KEY relay_ip (relay_ip), KEY mail_from (mail_from(20)), KEY rcpt_to (rcpt_to(20))\
    ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4";
