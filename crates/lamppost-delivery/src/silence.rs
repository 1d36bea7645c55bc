//! Maildirs that do not answer, as on a network file system whose server is gone: a call into one may
//! never come back, and must hold up nobody else's mail.
//!
//! Whoever waits for a share of a batch gives up when one entry of it takes longer than the patience
//! that is set. The entry's mailbox is silent from then on and gets nothing until every call into it
//! has come back, so that no late call meets a later try. The other entries are put off, and no late
//! thread touches them.

use std::collections::BTreeMap;
use std::sync::Arc;

use lamppost_roles::Outcome;
use lamppost_smtp::Address;
use lamppost_telemetry::{Health, State};
use parking_lot::Mutex;
use tracing::{error, info};

/// The name of this in the program's health.
const COMPONENT: &str = "mailboxes";

/// The mailboxes that do not answer.
#[derive(Clone, Debug)]
pub(crate) struct Silence {
    /// Each with its calls that have not come back.
    boxes: Arc<Mutex<BTreeMap<String, usize>>>,
    /// Mailboxes that may be silent, each with a thread that waits. Where there are more, the whole
    /// file system is likely gone: then batches wait for it.
    most: usize,
    health: Health,
}

impl Silence {
    pub(crate) fn new(most: usize, health: Health) -> Self {
        Self { boxes: Arc::default(), most, health }
    }

    fn is_silent(&self, mailbox: &Address) -> bool {
        self.boxes.lock().contains_key(mailbox.as_str())
    }

    /// Notes that a mailbox does not answer; false when there are too many already.
    fn begins(&self, mailbox: &Address) -> bool {
        let mut boxes = self.boxes.lock();
        if let Some(calls) = boxes.get_mut(mailbox.as_str()) {
            *calls += 1;
            return true;
        }
        if boxes.len() >= self.most {
            return false;
        }
        error!(account = %mailbox, "a Maildir does not answer; its mail waits");
        boxes.insert(mailbox.to_string(), 1);
        self.tell(&boxes);
        true
    }

    /// A call has come back; with the last one the mailbox answers again. Before, one that is still
    /// out could meet a later try, and take away what that had written.
    fn ends(&self, mailbox: &Address) {
        let mut boxes = self.boxes.lock();
        let Some(calls) = boxes.get_mut(mailbox.as_str()) else { return };
        *calls -= 1;
        if *calls == 0 {
            boxes.remove(mailbox.as_str());
            info!(account = %mailbox, "a Maildir answers again");
            self.tell(&boxes);
        }
    }

    fn tell(&self, boxes: &BTreeMap<String, usize>) {
        let Some((first, _)) = boxes.first_key_value() else {
            self.health.set(COMPONENT, State::Ok, "all Maildirs answer");
            return;
        };
        let others = match boxes.len() {
            1 => String::new(),
            count => format!(" and {} others", count - 1),
        };
        let text = format!("the Maildir of {first}{others} does not answer: is its disk there?");
        self.health.set(COMPONENT, State::Fail, text);
    }
}

/// Entries of a batch that one thread works on, one after the other.
pub(crate) struct Share {
    boxes: Vec<Address>,
    silence: Silence,
    course: Mutex<Course>,
}

#[derive(Debug)]
struct Course {
    outcomes: Vec<Option<Outcome>>,
    /// The entry that is worked on.
    current: Option<usize>,
    /// Nobody waits any more.
    is_given_up: bool,
}

impl Share {
    /// A share whose entries are for these mailboxes.
    pub(crate) fn new(boxes: Vec<Address>, silence: Silence) -> Self {
        let outcomes = vec![None; boxes.len()];
        let course = Mutex::new(Course { outcomes, current: None, is_given_up: false });
        Self { boxes, silence, course }
    }

    /// Works on all entries, until nobody waits any more.
    pub(crate) fn work(&self, mut unit: impl FnMut(usize) -> Outcome) {
        for (at, mailbox) in self.boxes.iter().enumerate() {
            if self.silence.is_silent(mailbox) {
                self.course.lock().outcomes[at] = Some(silent());
                continue;
            }
            {
                let mut course = self.course.lock();
                if course.is_given_up {
                    return;
                }
                course.current = Some(at);
            }
            let outcome = unit(at);
            let mut course = self.course.lock();
            course.current = None;
            if course.is_given_up {
                self.silence.ends(mailbox);
                return;
            }
            course.outcomes[at] = Some(outcome);
        }
    }

    /// How far the work is.
    pub(crate) fn progress(&self) -> (Option<usize>, usize) {
        let course = self.course.lock();
        (course.current, course.outcomes.iter().flatten().count())
    }

    /// Gives up: the entry that is worked on is of a mailbox that does not answer. False when it has
    /// just answered, or too many do not.
    pub(crate) fn give_up(&self) -> bool {
        let mut course = self.course.lock();
        let Some(current) = course.current else { return false };
        if !self.silence.begins(&self.boxes[current]) {
            return false;
        }
        course.is_given_up = true;
        course.outcomes[current] = Some(silent());
        true
    }

    /// What became of the entries; of those that nobody worked on, `left`.
    pub(crate) fn outcomes(&self, left: &Outcome) -> Vec<Outcome> {
        let outcomes = self.course.lock().outcomes.clone();
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| left.clone())).collect()
    }
}

fn silent() -> Outcome {
    super::mailboxes::deferred("the Maildir does not answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_silent_until_its_last_call_has_come_back() {
        let silence = Silence::new(1, Health::default());
        let mailbox: Address = "deaf@lamppost.test".parse().unwrap();
        let share = || Share::new(vec![mailbox.clone()], silence.clone());
        let (first, second) = (share(), share());
        second.work(|_| {
            first.work(|_| {
                assert!(first.give_up() && second.give_up());
                Outcome::Done
            });
            assert!(silence.is_silent(&mailbox), "the second call is still out");
            let late = share();
            late.work(|_| Outcome::Done);
            assert_eq!(late.outcomes(&Outcome::Done), [silent()]);
            Outcome::Done
        });
        assert!(!silence.is_silent(&mailbox));
    }
}
