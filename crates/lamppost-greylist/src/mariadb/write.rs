//! Adding changes to what the database holds.

use std::collections::BTreeSet;

use lamppost_net::Clock;

use super::layout::{KEY, Layout, hex, literal};
use super::row::{COLUMNS, Found, counting, list, together};
use super::schema::{TRIPLETS, WRITERS, text};
use super::session::{Lent, Trouble};
use super::time::Moment;
use crate::store::Changes;
use crate::{Change, Life, StoreError, Triplet};

/// Triplets that one statement looks up or writes.
const AT_ONCE: usize = 250;
/// Who stands for the turn of those who write: no node has this number.
const TURN: [u8; 16] = [0; 16];
const WHAT: &str = "write triplets";

/// What is written together, by whom, and as the how manieth: the database takes none twice.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) node: [u8; 16],
    pub(crate) number: u64,
    pub(crate) changes: Changes,
}

/// A row to write.
struct Written {
    /// None for a new one.
    id: Option<u64>,
    network: String,
    sender: String,
    recipient: String,
    block_expires: String,
    record_expires: String,
    counts: [u64; 3],
    is_manual: bool,
    created: String,
}

/// Writes a batch, all or none of it, unless that was done before.
///
/// Writers take turns by a row that each changes first. Otherwise two nodes could both find that a triplet
/// is new, and on a cluster, where locks hold on one node alone, that row is what makes all but one of them
/// begin anew. Old nodes take no part in that: they write rows of their own beside ours.
pub(super) async fn write(
    mut session: Lent<'_>,
    batch: &Batch,
    clock: &dyn Clock,
) -> Result<(), Trouble> {
    let node = hex(&batch.node);
    session.begin(WHAT).await?;
    let turn = format!(
        "INSERT INTO {WRITERS} (node, batch, last_update) VALUES (x'{}', 1, NOW()) \
         ON DUPLICATE KEY UPDATE batch = batch + 1, last_update = NOW()",
        hex(&TURN)
    );
    session.change(WHAT, &turn).await?;
    let last = format!("SELECT batch FROM {WRITERS} WHERE node = x'{node}'");
    let last = session.rows(WHAT, &last).await?;
    let last = last.first().and_then(|row| text(row, 0).parse::<u64>().ok());
    if last.is_none_or(|last| last < batch.number) {
        let changes: Vec<_> = batch.changes.iter().collect();
        for some in changes.chunks(AT_ONCE) {
            write_some(&mut session, some, clock).await?;
        }
        let done = format!(
            "INSERT INTO {WRITERS} (node, batch, last_update) VALUES (x'{node}', {0}, NOW()) \
             ON DUPLICATE KEY UPDATE batch = {0}, last_update = NOW()",
            batch.number
        );
        session.change(WHAT, &done).await?;
    }
    session.commit(WHAT).await
}

async fn write_some(
    session: &mut Lent<'_>,
    changes: &[(&Triplet, &Change)],
    clock: &dyn Clock,
) -> Result<(), Trouble> {
    let layout = session.layout();
    let keys: BTreeSet<_> = changes.iter().flat_map(|(triplet, _)| layout.keys(triplet)).collect();
    let select = format!(
        "SELECT {COLUMNS} FROM (SELECT 1) AS one LEFT JOIN {TRIPLETS} AS r ON r.{KEY} IN ({}) \
         FOR UPDATE",
        list(keys)
    );
    let rows = session.rows(WHAT, &select).await?;
    let told = rows.first().and_then(|row| Moment::new(&text(row, 0), clock.now()));
    let moment = told.ok_or_else(|| session.nonsense(WHAT))?;
    let found: Vec<_> = rows.iter().filter_map(|row| Found::read(row, &moment)).collect();
    let (mut inserted, mut updated) = (Vec::new(), Vec::new());
    for (triplet, change) in changes {
        let stored = layout.stored(triplet);
        let own: Vec<_> = found.iter().filter(|row| row.is_of(&stored)).collect();
        for row in changed(&own, stored, change, &moment) {
            if row.id.is_some() { updated.push(row) } else { inserted.push(row) }
        }
    }
    for rows in [inserted, updated] {
        if !rows.is_empty() {
            session.change(WHAT, &statement(&rows, &layout)).await?;
        }
    }
    Ok(())
}

/// The rows that hold a change, by those that were found of its triplet.
fn changed(found: &[&Found], stored: Triplet, change: &Change, moment: &Moment) -> Vec<Written> {
    let before = together(found, change.at);
    let after = change.on(before.as_ref());
    let Triplet { network, sender, recipient } = stored;
    let live = counting(found, change.at);
    let Some(first) = live.first() else {
        // An expired row becomes a new one, so that there are no more rows than triplets.
        let over = found.iter().filter(|row| !row.is_manual).min_by_key(|row| row.id);
        return vec![Written {
            id: over.map(|row| row.id),
            network,
            sender,
            recipient,
            block_expires: moment.date(after.block_expires),
            record_expires: moment.date(after.record_expires),
            counts: [after.blocked_count, after.passed_count, after.aborted_count],
            is_manual: false,
            created: moment.date(change.at),
        }];
    };
    let ends = matches!(change.life, Some(Life::EndsAt(_)));
    let others = if ends { live.len() } else { 1 };
    let rows = live.iter().take(others).map(|row| {
        let is_first = row.id == first.id;
        let more = |count, more| if is_first { count + more } else { count };
        let date = |time, as_was: &String| {
            if row.is_manual { as_was.clone() } else { moment.date(time) }
        };
        let record = &row.record;
        Written {
            id: Some(row.id),
            // The first who comes fills in a row that is for any network.
            network: row.network.clone().unwrap_or_else(|| network.clone()),
            sender: sender.clone(),
            recipient: recipient.clone(),
            block_expires: date(after.block_expires, &row.block_expires),
            record_expires: date(after.record_expires, &row.record_expires),
            counts: [
                more(record.blocked_count, change.blocked),
                more(record.passed_count, change.passed),
                more(record.aborted_count, change.aborted),
            ],
            is_manual: row.is_manual,
            created: row.created.clone(),
        }
    });
    rows.collect()
}

/// One statement for all: new rows have no number, the others meet themselves by theirs.
fn statement(rows: &[Written], layout: &Layout) -> String {
    let rows = rows.iter().map(|row| {
        let id = row.id.map_or("NULL".into(), |id| id.to_string());
        let [blocked, passed, aborted] = row.counts;
        let (sender, recipient) = (layout.address(&row.sender), layout.address(&row.recipient));
        let texts = [row.network.as_str(), &sender, &recipient].map(literal);
        format!(
            "({id}, {}, '{}', '{}', {blocked}, {passed}, {aborted}, '{}', '{}', NOW())",
            list(texts),
            row.block_expires,
            row.record_expires,
            if row.is_manual { "MANUAL" } else { "AUTO" },
            row.created,
        )
    });
    format!(
        "INSERT INTO {TRIPLETS} (id, relay_ip, mail_from, rcpt_to, block_expires, record_expires, \
         blocked_count, passed_count, aborted_count, origin_type, create_time, last_update) \
         VALUES {} ON DUPLICATE KEY UPDATE relay_ip = VALUES(relay_ip), \
         block_expires = VALUES(block_expires), record_expires = VALUES(record_expires), \
         blocked_count = VALUES(blocked_count), passed_count = VALUES(passed_count), \
         aborted_count = VALUES(aborted_count), create_time = VALUES(create_time), \
         last_update = VALUES(last_update)",
        list(rows)
    )
}

impl Lent<'_> {
    pub(super) fn nonsense(&self, what: &'static str) -> Trouble {
        let source = "it does not tell the time".into();
        Trouble::Refused(StoreError::Statement { server: self.server(), what, source })
    }
}
