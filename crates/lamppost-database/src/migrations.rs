//! Tables that move forward, step by step, and never back.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

/// The steps that bring a component's tables from nothing to the present.
///
/// Steps that were released are never changed; new ones are added at the end.
#[derive(Clone, Copy, Debug)]
pub struct Migrations {
    /// Whose tables these are.
    pub component: &'static str,
    /// SQL, one or more statements each.
    pub steps: &'static [&'static str],
}

impl Migrations {
    /// Applies the steps that are missing; returns the step that the file is at then, which is
    /// larger than the number of steps when a newer program wrote it.
    pub(crate) fn apply(self, connection: &mut Connection) -> rusqlite::Result<usize> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(
            "CREATE TABLE IF NOT EXISTS migration (component TEXT PRIMARY KEY, step INTEGER NOT NULL)",
        )?;
        let at: usize = transaction
            .query_row("SELECT step FROM migration WHERE component = ?1", [self.component], |row| {
                row.get(0)
            })
            .optional()?
            .unwrap_or(0);
        for step in self.steps.iter().skip(at) {
            transaction.execute_batch(step)?;
        }
        let at = at.max(self.steps.len());
        transaction.execute(
            "INSERT INTO migration (component, step) VALUES (?1, ?2)
             ON CONFLICT (component) DO UPDATE SET step = excluded.step",
            params![self.component, at],
        )?;
        transaction.commit()?;
        Ok(at)
    }
}
