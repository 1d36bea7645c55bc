//! What became of a load.

use std::time::Duration;

use crate::Token;

/// What the client knows about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server took it over; these are the words of its reply.
    Acknowledged(String),
    /// The server refused it, with this code; it must not arrive.
    Refused(u16),
    /// The connection ended before the content was whole; it must not arrive.
    Cut,
    /// The content was sent and no answer came; it may arrive.
    Unknown,
}

/// A message that was sent, at least in part.
#[derive(Clone, Debug)]
pub struct Sent {
    /// What it was made from.
    pub token: Token,
    /// Whom it was for.
    pub recipients: Vec<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// From the last piece of the content to the reply to it; zero when there was no reply.
    pub latency: Duration,
}

/// What became of a load.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// All messages, in the order of their numbers.
    pub sent: Vec<Sent>,
    /// From the start to the last reply.
    pub elapsed: Duration,
    /// How often a connection ended although the client wanted more of it.
    pub cuts: u64,
    /// What the sessions that ended early complained of.
    pub complaints: Vec<String>,
}

impl Report {
    /// The messages that the server took over.
    pub fn acknowledged(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(|sent| matches!(sent.outcome, Outcome::Acknowledged(_)))
    }

    /// How many messages were refused, with which code.
    pub fn refused(&self) -> impl Iterator<Item = u16> {
        self.sent.iter().filter_map(|sent| match sent.outcome {
            Outcome::Refused(code) => Some(code),
            _ => None,
        })
    }

    /// The messages whose content was sent and that got no answer.
    pub fn unknown(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(|sent| sent.outcome == Outcome::Unknown)
    }

    /// How long the acknowledgements took, the shortest first.
    pub fn latencies(&self) -> Vec<Duration> {
        let mut latencies: Vec<_> = self.acknowledged().map(|sent| sent.latency).collect();
        latencies.sort_unstable();
        latencies
    }
}

/// The value below which this fraction of the sorted values lies; zero when there are none.
pub fn percentile(sorted: &[Duration], fraction: f64) -> Duration {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among far fewer than 2^52 values"
    )]
    let rank = (sorted.len() as f64 * fraction.clamp(0.0, 1.0)).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 0.5), Duration::from_millis(50));
        assert_eq!(percentile(&values, 0.99), Duration::from_millis(99));
        assert_eq!(percentile(&values, 1.0), Duration::from_millis(100));
        assert_eq!(percentile(&values, 0.0), Duration::from_millis(1));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }
}
