//! Manual rows, as the old recipe's INSERTs write them.

use std::time::Duration;

use super::Mariadb;
use super::layout::{KEY, literal};
use super::row::list;
use super::schema::{TRIPLETS, text};
use super::time::Moment;
use crate::{NEVER, StoreError, Whom, Wildcard};

/// Wildcards that are read at most.
const WILDCARDS_MAX: usize = 100_000;

impl Mariadb {
    pub(crate) async fn wildcards(&self, now: Duration) -> Result<Vec<Wildcard>, StoreError> {
        let select = format!(
            "SELECT NOW(6), relay_ip, rcpt_to, block_expires, record_expires FROM {TRIPLETS} \
             WHERE {KEY} IS NULL AND mail_from IS NULL AND record_expires > NOW() \
             ORDER BY id LIMIT {WILDCARDS_MAX}"
        );
        let select = &select;
        let rows = self
            .sessions
            .run(|mut session| async move { session.rows("read the manual rows", select).await });
        let rows = rows.await?;
        let Some(moment) = rows.first().and_then(|row| Moment::new(&text(row, 0), now)) else {
            return Ok(Vec::new());
        };
        let wildcard = |row| {
            let whom = match (text(row, 1), text(row, 2)) {
                (relay, recipient) if recipient.is_empty() => Whom::Relay(relay),
                (relay, recipient) if relay.is_empty() => Whom::Recipient(recipient),
                _ => return None,
            };
            let (block_expires, record_expires) =
                (moment.here(&text(row, 3)), moment.here(&text(row, 4)));
            Some(Wildcard { whom, block_expires, record_expires })
        };
        Ok(rows.iter().filter_map(wildcard).collect())
    }

    pub(crate) async fn write_wildcards(
        &self,
        wildcards: &[Wildcard],
        now: Duration,
    ) -> Result<(), StoreError> {
        if wildcards.is_empty() {
            return Ok(());
        }
        let what = "write manual rows";
        self.sessions
            .run(|mut session| async move {
                session.begin(what).await?;
                let rows = session.rows(what, "SELECT NOW(6)").await?;
                let told = rows.first().and_then(|row| Moment::new(&text(row, 0), now));
                let moment = told.ok_or_else(|| session.nonsense(what))?;
                for wildcard in wildcards {
                    let whom = std::slice::from_ref(&wildcard.whom);
                    session.change(what, &deletion(whom)).await?;
                }
                let rows = wildcards.iter().map(|wildcard| row(wildcard, &moment));
                let insert = format!(
                    "INSERT INTO {TRIPLETS} (relay_ip, mail_from, rcpt_to, block_expires, \
                         record_expires, blocked_count, passed_count, aborted_count, origin_type, \
                         create_time, last_update) VALUES {}",
                    list(rows)
                );
                session.change(what, &insert).await?;
                session.commit(what).await
            })
            .await
    }

    pub(crate) async fn forget_wildcards(&self, whom: &[Whom]) -> Result<usize, StoreError> {
        if whom.is_empty() {
            return Ok(0);
        }
        let delete = deletion(whom);
        let delete = &delete;
        let deleted = self
            .sessions
            .run(|mut session| async move { session.change("forget manual rows", delete).await });
        Ok(usize::try_from(deleted.await?).unwrap_or(usize::MAX))
    }
}

fn row(wildcard: &Wildcard, moment: &Moment) -> String {
    let (relay, recipient) = match &wildcard.whom {
        Whom::Relay(relay) => (literal(relay), "NULL".into()),
        Whom::Recipient(recipient) => ("NULL".into(), literal(recipient)),
    };
    let date = |time: Duration| match time {
        NEVER => "9999-12-31 23:59:59".to_owned(),
        Duration::ZERO => "0000-00-00 00:00:00".to_owned(),
        time => moment.date(time),
    };
    let (block, record) = (date(wildcard.block_expires), date(wildcard.record_expires));
    format!("({relay}, NULL, {recipient}, '{block}', '{record}', 0, 0, 0, 'MANUAL', NOW(), NOW())")
}

fn deletion(whom: &[Whom]) -> String {
    let conditions = whom.iter().map(|whom| match whom {
        Whom::Relay(relay) => {
            format!("(rcpt_to IS NULL AND CONVERT(relay_ip USING utf8mb4) = {})", literal(relay))
        }
        Whom::Recipient(recipient) => format!(
            "(relay_ip IS NULL AND CONVERT(rcpt_to USING utf8mb4) = {})",
            literal(recipient)
        ),
    });
    let any: Vec<_> = conditions.collect();
    format!(
        "DELETE FROM {TRIPLETS} WHERE {KEY} IS NULL AND mail_from IS NULL AND ({})",
        any.join(" OR ")
    )
}
