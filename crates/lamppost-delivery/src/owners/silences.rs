//! Users whose processes did not answer, or not in time. Whoever has one hang on purpose must hold up the mail of
//! others ever more seldom, and for an ever shorter time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lamppost_roles::Outcome;
use lamppost_telemetry::{Health, State};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{error, info};

use crate::mailboxes::deferred;

/// The name of this in the program's health.
const COMPONENT: &str = "system-users";
/// How long a batch waits for one user's process while there is mail of others in it. The queue tries what it did
/// not wait for in a batch of its own, which may take longer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);
/// How often that is halved, once for each time that it was not enough.
const HALVED_MAX: u32 = 5;
/// How many times the patience with one a user is left alone whose process did not answer; doubled each time.
const LEFT_ALONE: u32 = 3;
/// How long a user is left alone at most.
const LEFT_ALONE_MAX: Duration = Duration::from_secs(60 * 60);
/// How long it is remembered, and told of a user for whom no other mail comes.
const REMEMBERED: Duration = Duration::from_secs(2 * 60 * 60);

/// What is known of all users; clones are the same.
#[derive(Clone)]
pub(super) struct Silences {
    users: Arc<Mutex<BTreeMap<String, Silence>>>,
    patience: Duration,
    health: Health,
}

/// A user whose process was silent or late.
#[derive(Default)]
struct Silence {
    /// When it was last.
    last: Option<Instant>,
    /// How often.
    times: u32,
    /// It was silent, and has not answered since.
    is_silent: bool,
    /// Requests that its process has and nobody waits for.
    late: usize,
}

/// A request under way that nobody waits for: what comes for its user meanwhile waits until this is dropped. A
/// second try must not meet the first.
pub(super) struct Late {
    silences: Silences,
    user: String,
}

impl Drop for Late {
    fn drop(&mut self) {
        if let Some(silence) = self.silences.users.lock().get_mut(&self.user) {
            silence.late -= 1;
        }
    }
}

impl Silence {
    fn is_remembered(&self) -> bool {
        self.late > 0 || self.last.is_some_and(|last| last.elapsed() < REMEMBERED)
    }

    fn again(&mut self) {
        self.last = Some(Instant::now());
        self.times = self.times.saturating_add(1);
    }
}

impl Silences {
    pub(super) fn new(patience: Duration, health: Health) -> Self {
        Self { users: Arc::default(), patience, health }
    }

    /// Forgets what was long ago.
    pub(super) fn forget(&self) {
        let mut users = self.users.lock();
        let before = users.len();
        users.retain(|_, silence| silence.is_remembered());
        if users.len() < before {
            self.tell(&users);
        }
    }

    /// Whether the process of a user may be asked now.
    pub(super) fn may_be_asked(&self, user: &str) -> Result<(), Outcome> {
        match self.users.lock().get(user) {
            Some(silence) if silence.late > 0 => {
                Err(deferred("the process of the user is not ready with mail that came before"))
            }
            Some(Silence { last: Some(last), times, is_silent: true, .. })
                if last.elapsed() < self.left_alone(*times) =>
            {
                Err(deferred("the process of the user did not answer a moment ago"))
            }
            _ => Ok(()),
        }
    }

    fn left_alone(&self, times: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(times.saturating_sub(1));
        (self.patience * LEFT_ALONE).saturating_mul(doubled).min(LEFT_ALONE_MAX)
    }

    /// How long a batch with mail of others waits for a user.
    pub(super) fn answered_within(&self, user: &str) -> Duration {
        let times = self.users.lock().get(user).map_or(0, |silence| silence.times);
        ANSWERED_WITHIN / 2_u32.pow(times.min(HALVED_MAX))
    }

    /// Nobody waits any more for a request that a process has.
    pub(super) fn is_late(&self, user: &str) -> Late {
        let mut users = self.users.lock();
        let silence = users.entry(user.to_owned()).or_default();
        silence.again();
        silence.late += 1;
        Late { silences: self.clone(), user: user.to_owned() }
    }

    /// A process did not answer.
    pub(super) fn is_silent(&self, user: &str) {
        let mut users = self.users.lock();
        let silence = users.entry(user.to_owned()).or_default();
        if silence.late == 0 {
            silence.again();
        }
        if !silence.is_silent {
            silence.is_silent = true;
            error!(user, "the process of a user does not answer; its mail waits");
            self.tell(&users);
        }
    }

    /// A process answered, whatever it was before. That it was silent stays known for a while.
    pub(super) fn answers(&self, user: &str) {
        let mut users = self.users.lock();
        let silence = users.get_mut(user).filter(|silence| silence.is_silent);
        if let Some(silence) = silence {
            silence.is_silent = false;
            info!(user, "the process of a user answers again");
            self.tell(&users);
        }
    }

    fn tell(&self, users: &BTreeMap<String, Silence>) {
        let mut silent = users.iter().filter(|(_, silence)| silence.is_silent);
        let Some((first, _)) = silent.next() else {
            self.health.set(COMPONENT, State::Ok, "the processes of all users answer");
            return;
        };
        let others = match silent.count() {
            0 => String::new(),
            count => format!(" and {count} others"),
        };
        let text = format!("the process of {first}{others} does not answer: is its disk there?");
        // One user can bring that about, who must not make it look as if the service failed.
        self.health.set(COMPONENT, State::Warn, text);
    }
}

/// The outcome for a user whose process does not answer.
pub(super) fn silent() -> Outcome {
    deferred("the process of the user does not answer: is the disk of the home there?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_again_and_again_is_left_alone_ever_longer() {
        let silences = Silences::new(Duration::from_secs(20), Health::default());
        let mut left_alone = Vec::new();
        for _ in 0..8 {
            silences.is_silent("alice");
            let begun = Instant::now();
            while silences.may_be_asked("alice").is_err() {
                tokio::time::advance(Duration::from_secs(60)).await;
            }
            left_alone.push(begun.elapsed().as_secs() / 60);
            // An answer in between does not make it forgotten.
            silences.answers("alice");
        }
        assert_eq!(left_alone, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(silences.answered_within("bob"), ANSWERED_WITHIN);
        assert!(silences.answered_within("alice") < Duration::from_millis(100));
        tokio::time::advance(REMEMBERED).await;
        silences.forget();
        assert_eq!(silences.answered_within("alice"), ANSWERED_WITHIN);
    }

    #[test]
    fn nobody_asks_while_a_late_request_is_under_way() {
        let health = Health::default();
        let silences = Silences::new(Duration::from_secs(20), health.clone());
        let (one, other) = (silences.is_late("alice"), silences.is_late("alice"));
        drop(one);
        assert!(silences.may_be_asked("alice").is_err());
        assert!(silences.may_be_asked("bob").is_ok());
        drop(other);
        assert!(silences.may_be_asked("alice").is_ok());
        // Slowness is no failure.
        assert_eq!(health.facts(), []);
        silences.is_silent("alice");
        assert_eq!(health.facts()[0].state, State::Warn);
    }
}
