//! How it stands with a list: whether it answers, and as a list does.

use std::time::Duration;

use super::ListsSettings;

/// How it stands with one list.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// Failures one after the other.
    failures: u32,
    /// Until when it is not asked.
    out_until: Option<Duration>,
    /// When its test entries were last looked at.
    checked: Option<Duration>,
    /// What is the matter with it, for people.
    pub(super) fault: Option<String>,
}

impl Standing {
    /// Whether it is not asked now.
    pub(super) fn is_out(&self, now: Duration) -> bool {
        self.out_until.is_some_and(|until| now < until)
    }

    /// Whether its test entries are to be looked at.
    pub(super) fn is_due(&self, settings: &ListsSettings, now: Duration) -> bool {
        self.checked.is_none_or(|at| now.saturating_sub(at) >= settings.check_every)
    }

    /// Its test entries were found as they should be, or only that it lists nobody.
    pub(super) fn checked(&mut self, now: Duration, remark: Option<String>) {
        self.checked = Some(now);
        self.fault = remark;
    }

    /// It answered as a list does.
    pub(super) fn answered(&mut self) {
        // What an earlier question finds does not end a pause that began since.
        if self.out_until.is_none() {
            self.failures = 0;
        }
    }

    /// It gave no answer; tells whether it is taken out for that.
    pub(super) fn failed(&mut self, reason: &str, settings: &ListsSettings, now: Duration) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.failures >= settings.failures_max && self.takes_out(reason, settings, now)
    }

    /// It is not asked for a while; tells whether that is new.
    pub(super) fn takes_out(
        &mut self,
        reason: &str,
        settings: &ListsSettings,
        now: Duration,
    ) -> bool {
        let is_new = self.out_until.is_none();
        if is_new {
            self.out_until = Some(now + settings.pause);
            self.fault = Some(reason.to_owned());
        }
        is_new
    }

    /// Its pause is over; it is asked again, and its test entries with it.
    pub(super) fn comes_back(&mut self, now: Duration) -> bool {
        let is_over = self.out_until.is_some_and(|until| until <= now);
        if is_over {
            *self = Self::default();
        }
        is_over
    }
}
