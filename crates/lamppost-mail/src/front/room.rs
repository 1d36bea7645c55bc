//! Whether the spool has room for a message: asked of the queue, unless it lately said that there is plenty.

use std::time::Duration;

use lamppost_roles::{IntakeAnswer, IntakeRequest};
use lamppost_smtp::Refusal;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::content::{self, Inflow};

/// What the queue said last. It answers for each message again when that is handed in; this question only
/// spares clients the sending of what could not be kept.
#[derive(Debug, Default)]
pub(super) struct Room {
    plenty_until: Mutex<Option<Instant>>,
}

impl Room {
    /// May a message of about this size come?
    pub(super) async fn ask(&self, inflow: &Inflow<'_>, size: u64) -> Result<(), Refusal> {
        if size <= inflow.inline_max as u64 && self.is_plenty() {
            return Ok(());
        }
        let answer = content::ask(inflow.intake, IntakeRequest::Room { size }).await?;
        if let IntakeAnswer::Plenty { lasts_ms } = answer {
            let lasts = Duration::from_millis(lasts_ms.into());
            *self.plenty_until.lock() = Some(Instant::now() + lasts);
        }
        Ok(())
    }

    fn is_plenty(&self) -> bool {
        self.plenty_until.lock().is_some_and(|until| Instant::now() < until)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use lamppost_net::link::link;
    use tokio::sync::Semaphore;

    use super::*;

    const INLINE_MAX: usize = 1000;

    /// Asks for messages of these sizes, some time apart; tells how often the queue was asked, and the refusals.
    async fn asked(answer: IntakeAnswer, sizes: &[u64], apart: Duration) -> (u32, usize) {
        let (intake, mut inbox) = link();
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        tokio::spawn(async move {
            while let Some((_, reply)) = inbox.next().await {
                counted.fetch_add(1, Ordering::Relaxed);
                reply.send(answer.clone());
            }
        });
        let pages = Arc::new(Semaphore::new(1));
        let inflow = Inflow { intake: &intake, pages: &pages, inline_max: INLINE_MAX, hops_max: 1 };
        let (room, mut refused) = (Room::default(), 0);
        for &size in sizes {
            refused += usize::from(room.ask(&inflow, size).await.is_err());
            tokio::time::advance(apart).await;
        }
        (count.load(Ordering::Relaxed), refused)
    }

    #[tokio::test(start_paused = true)]
    async fn while_there_is_plenty_small_messages_do_not_ask() {
        let plenty = IntakeAnswer::Plenty { lasts_ms: 50 };
        let apart = Duration::from_millis(10);
        assert_eq!(asked(plenty.clone(), &[0; 5], apart).await, (1, 0));
        assert_eq!(asked(plenty.clone(), &[0; 6], apart).await, (2, 0));
        assert_eq!(asked(plenty, &[1001; 5], apart).await, (5, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn without_plenty_each_message_asks() {
        let apart = Duration::ZERO;
        assert_eq!(asked(IntakeAnswer::Proceed, &[0; 5], apart).await, (5, 0));
        assert_eq!(asked(IntakeAnswer::Refused(Refusal::SpoolFull), &[0; 5], apart).await, (5, 5));
    }
}
