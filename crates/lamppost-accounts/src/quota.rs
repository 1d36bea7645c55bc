//! How much an account may send within an hour, so that a stolen password is no spam cannon.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use lamppost_smtp::Refusal;

use crate::Settings;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// What each account sent within the last hour.
#[derive(Debug)]
pub(crate) struct Quotas {
    messages_max: usize,
    recipients_max: u32,
    /// When each message came and to how many recipients; never more than `messages_max` each, and
    /// only of accounts that exist.
    sent: HashMap<String, VecDeque<(Duration, u32)>>,
}

impl Quotas {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            messages_max: settings.messages_per_hour_max as usize,
            recipients_max: settings.recipients_per_hour_max,
            sent: HashMap::new(),
        }
    }

    /// Counts a message, unless the hour has no room for it.
    pub(crate) fn charge(
        &mut self,
        account: &str,
        recipients: u32,
        now: Duration,
    ) -> Result<(), Refusal> {
        let sent = self.sent.entry(account.to_owned()).or_default();
        while sent.front().is_some_and(|&(at, _)| now >= at + HOUR) {
            sent.pop_front();
        }
        let named: u32 = sent.iter().map(|&(_, recipients)| recipients).sum();
        if sent.len() >= self.messages_max || named.saturating_add(recipients) > self.recipients_max
        {
            let oldest = sent.front().map_or(now, |&(at, _)| at);
            return Err(Refusal::QuotaExceeded { retry_in: (oldest + HOUR).saturating_sub(now) });
        }
        sent.push_back((now, recipients));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas() -> Quotas {
        let settings = Settings {
            messages_per_hour_max: 3,
            recipients_per_hour_max: 10,
            ..Settings::default()
        };
        Quotas::new(&settings)
    }

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    #[test]
    fn messages_are_counted_by_the_hour() {
        let mut quotas = quotas();
        for at in [0, 10, 20] {
            quotas.charge("demo", 1, minutes(at)).unwrap();
        }
        let refused = quotas.charge("demo", 1, minutes(30)).unwrap_err();
        assert_eq!(refused, Refusal::QuotaExceeded { retry_in: minutes(30) });
        quotas.charge("other", 1, minutes(30)).unwrap();
        quotas.charge("demo", 1, minutes(60)).unwrap();
    }

    #[test]
    fn recipients_are_counted_over_all_messages() {
        let mut quotas = quotas();
        quotas.charge("demo", 9, minutes(0)).unwrap();
        assert!(quotas.charge("demo", 2, minutes(1)).is_err());
        quotas.charge("demo", 1, minutes(1)).unwrap();
    }
}
