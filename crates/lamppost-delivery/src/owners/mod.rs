//! Mail for users of this machine: each gets it by a process of its own, which runs as that user.
//!
//! This role may not become anybody. It asks the supervisor for a process by the number of a user, hands it
//! what is for that user, and passes on what came of it. A process that ends in between is started again: both
//! steps of a delivery may be repeated.

mod pool;
mod process;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lamppost_net::link::Port;
use lamppost_roles::{
    ContentAnswer, ContentRequest, DeliveryRequest, Outcome, OwnerAnswer, OwnerRequest, Reason,
    SystemUser, UserMailbox, UserName,
};
use lamppost_smtp::{Address, Status};
use lamppost_telemetry::{Health, State};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{error, info, warn};

use self::pool::Pool;
use self::process::Fault;
use crate::mailboxes::deferred;

/// The name of this in the program's health.
const COMPONENT: &str = "system-users";
/// How often a request is made when the process that has it ends: one that made the Maildir ends once, and
/// one may be killed besides.
const TRIES: usize = 3;
/// How many times the patience with one a user is left alone whose process did not answer: whoever has it hang
/// on purpose must not hold up each batch.
const LEFT_ALONE: u32 = 3;
/// How long it is told of a user for whom no other mail comes.
const TOLD_FOR: Duration = Duration::from_secs(2 * 60 * 60);
/// Letters of a reason that a process gives, which its user may have had a hand in.
const REASON_MAX: usize = 500;

/// What delivery is told of users of this machine.
#[derive(Clone, Debug)]
pub struct OwnersSettings {
    /// The domains whose mailboxes lie in homes.
    pub domains: Vec<String>,
    /// Processes at once.
    pub processes_max: usize,
    /// How long one waits for more mail.
    pub idle: Duration,
    /// How long one may take to answer.
    pub patience: Duration,
    /// Where it is told which do not.
    pub health: Health,
}

/// A process of a user, for administrators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerProcess {
    /// The user's name.
    pub user: String,
    /// The process.
    pub pid: u32,
    /// What it gave up, in JSON's text.
    pub restricted: String,
}

/// Those whose homes hold mailboxes; clones are the same.
#[derive(Clone)]
pub struct Owners {
    pool: Arc<Pool>,
    /// Users whose processes did not answer, and when that was last.
    silent: Arc<Mutex<BTreeMap<String, Instant>>>,
}

impl std::fmt::Debug for Owners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Owners").field(self.pool.settings()).finish()
    }
}

impl Owners {
    /// Begins without any process.
    pub fn new(
        settings: OwnersSettings,
        supervisor: Port<OwnerRequest, OwnerAnswer>,
        content: Port<ContentRequest, ContentAnswer>,
    ) -> Self {
        Self { pool: Pool::new(settings, supervisor, content), silent: Arc::default() }
    }

    /// Takes a descriptor that the supervisor sent, by its number.
    pub fn arrived(&self, number: u32, descriptor: OwnedFd) {
        self.pool.arrived(number, descriptor);
    }

    /// The processes that there are.
    pub fn processes(&self) -> Vec<OwnerProcess> {
        let mut silent = self.silent.lock();
        let before = silent.len();
        silent.retain(|_, since| since.elapsed() < TOLD_FOR);
        if silent.len() < before {
            self.tell(&silent);
        }
        drop(silent);
        self.pool.processes()
    }

    /// Whether a mailbox lies in a home.
    pub(crate) fn is_theirs(&self, mailbox: &Address) -> bool {
        let domain = mailbox.domain();
        self.pool.settings().domains.iter().any(|ours| ours.eq_ignore_ascii_case(domain))
    }

    /// Has requests carried out, each for one mailbox and so many entries; all at once.
    pub(crate) async fn deliver(
        &self,
        requests: Vec<(Address, usize, DeliveryRequest)>,
    ) -> Vec<Vec<Outcome>> {
        join_all(requests.into_iter().map(|(mailbox, entries, request)| async move {
            let outcomes = self.deliver_to(&mailbox, &request).await;
            match outcomes {
                Ok(outcomes) if outcomes.len() == entries => outcomes,
                Ok(_) => vec![deferred("the process of the user answers something else"); entries],
                Err(outcome) => vec![outcome; entries],
            }
        }))
        .await
    }

    async fn deliver_to(
        &self,
        mailbox: &Address,
        request: &DeliveryRequest,
    ) -> Result<Vec<Outcome>, Outcome> {
        let (owner, name) = self.owner(mailbox).await?;
        self.is_left_alone(name.as_str())?;
        for _ in 0..TRIES {
            let busy = self.pool.process(owner, name.as_str()).await?;
            let delivered = busy.process.deliver(request, self.pool.settings().patience).await;
            match delivered {
                Ok(outcomes) => {
                    // What troubles it, such as a Maildir that was moved, may be no trouble for another.
                    if outcomes.iter().any(|outcome| *outcome != Outcome::Done) {
                        self.pool.forget(&busy.process).await;
                    }
                    self.answers(name.as_str());
                    return Ok(outcomes.into_iter().map(plain).collect());
                }
                Err(fault) => {
                    self.pool.forget(&busy.process).await;
                    if matches!(fault, Fault::Silent) {
                        return Err(self.is_silent(name.as_str()));
                    }
                    warn!(user = name.as_str(), pid = busy.process.pid, "a user's process ended");
                }
            }
        }
        Err(deferred("the process of the user ended before it had delivered"))
    }

    /// The user whose mailbox it is.
    async fn owner(&self, mailbox: &Address) -> Result<(SystemUser, UserName), Outcome> {
        let unknown = || {
            let text = format!("there is no user {} any more who gets mail", mailbox.local());
            Outcome::Failed(Reason::own(Status::NO_MAILBOX, text))
        };
        let name = UserName::of(mailbox.local()).ok_or_else(unknown)?;
        match self.pool.supervisor().ask(OwnerRequest::Mailbox(name)).await {
            Ok(OwnerAnswer::Mailbox(UserMailbox::Here(owner))) => Ok((owner, name)),
            Ok(OwnerAnswer::Mailbox(UserMailbox::Unknown)) => Err(unknown()),
            Ok(OwnerAnswer::Mailbox(UserMailbox::Away(reason))) => Err(deferred(reason)),
            Ok(_) => Err(deferred("the supervisor does not tell who that is")),
            Err(gone) => Err(deferred(gone.to_string())),
        }
    }

    fn is_left_alone(&self, user: &str) -> Result<(), Outcome> {
        let patience = self.pool.settings().patience * LEFT_ALONE;
        match self.silent.lock().get(user) {
            Some(since) if since.elapsed() < patience => {
                Err(deferred("the process of the user did not answer a moment ago"))
            }
            _ => Ok(()),
        }
    }

    fn is_silent(&self, user: &str) -> Outcome {
        let mut silent = self.silent.lock();
        if silent.insert(user.to_owned(), Instant::now()).is_none() {
            error!(user, "the process of a user does not answer; its mail waits");
            self.tell(&silent);
        }
        deferred("the process of the user does not answer: is the disk of the home there?")
    }

    fn answers(&self, user: &str) {
        let mut silent = self.silent.lock();
        if silent.remove(user).is_some() {
            info!(user, "the process of a user answers again");
            self.tell(&silent);
        }
    }

    fn tell(&self, silent: &BTreeMap<String, Instant>) {
        let health = &self.pool.settings().health;
        let Some((first, _)) = silent.first_key_value() else {
            health.set(COMPONENT, State::Ok, "the processes of all users answer");
            return;
        };
        let others = match silent.len() {
            1 => String::new(),
            count => format!(" and {} others", count - 1),
        };
        let text = format!("the process of {first}{others} does not answer: is its disk there?");
        health.set(COMPONENT, State::Fail, text);
    }
}

/// An outcome without what could deceive people: its words come from a process of the user.
fn plain(outcome: Outcome) -> Outcome {
    let own = |reason: Reason| {
        let text = reason.text.chars().filter(|letter| !letter.is_control()).take(REASON_MAX);
        Reason::own(reason.status, text.collect::<String>())
    };
    match outcome {
        Outcome::Done => Outcome::Done,
        Outcome::Deferred(reason) => Outcome::Deferred(own(reason)),
        Outcome::Failed(reason) => Outcome::Failed(own(reason)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use lamppost_net::link::{Inbox, carry_answers, carry_questions, link};
    use lamppost_roles::{Content, DeliveryAnswer, DeliveryJob, OwnerQuestion, OwnerWork, QueueId};

    use super::*;
    use crate::trace::tests::job;

    /// The ends of a process that a test plays.
    type Played = (Inbox<OwnerWork, DeliveryAnswer>, Port<OwnerQuestion, ContentAnswer>);

    /// Users whose processes are what `play` does.
    fn owners(processes_max: usize, play: impl Fn(u32, Played) + Send + 'static) -> Owners {
        let (supervisor, mut asked) = link();
        let (content, mut contents) = link::<ContentRequest, ContentAnswer>();
        tokio::spawn(async move {
            while let Some((ContentRequest { id, .. }, reply)) = contents.next().await {
                reply.send(ContentAnswer::Piece(id.to_string().into()));
            }
        });
        let settings = OwnersSettings {
            domains: vec!["users.test".into()],
            processes_max,
            idle: Duration::from_secs(30),
            patience: Duration::from_secs(1),
            health: Health::default(),
        };
        let owners = Owners::new(settings, supervisor, content);
        let arrives = owners.clone();
        tokio::spawn(async move {
            let mut number = 0;
            while let Some((question, reply)) = asked.next().await {
                reply.send(match question {
                    OwnerRequest::Mailbox(name) => {
                        let uid = name.as_str().trim_start_matches('u').parse().unwrap();
                        OwnerAnswer::Mailbox(UserMailbox::Here(SystemUser { uid, listed: 1 }))
                    }
                    OwnerRequest::Process(uid) => {
                        let (work, far_work) = UnixStream::pair().unwrap();
                        let (questions, far_questions) = UnixStream::pair().unwrap();
                        number += 2;
                        arrives.arrived(number, work.into());
                        arrives.arrived(number + 1, questions.into());
                        let (port, inbox) = link();
                        let (asking, asks) = link();
                        let stream = |one: UnixStream| {
                            one.set_nonblocking(true).unwrap();
                            tokio::net::UnixStream::from_std(one).unwrap()
                        };
                        tokio::spawn(carry_answers(port, stream(far_work)));
                        tokio::spawn(carry_questions(asks, stream(far_questions)));
                        play(uid, (inbox, asking));
                        OwnerAnswer::Started { pid: uid, work: number, questions: number + 1 }
                    }
                });
            }
        });
        owners
    }

    fn large(id: u64) -> DeliveryJob {
        let mut large = DeliveryJob { content: Content::Aside { length: 9 }, ..job(id, b"") };
        large.placement.mailbox = "u7@users.test".parse().unwrap();
        large
    }

    fn prepare(jobs: Vec<DeliveryJob>) -> Vec<(Address, usize, DeliveryRequest)> {
        let mailbox = jobs[0].placement.mailbox.clone();
        vec![(mailbox, jobs.len(), DeliveryRequest::Prepare(jobs))]
    }

    #[tokio::test]
    async fn a_process_reads_its_users_mail_and_nobody_elses() {
        let owners = owners(1, |_, (mut inbox, asking)| {
            tokio::spawn(async move {
                let mut last = None;
                while let Some((request, reply)) = inbox.next().await {
                    let OwnerWork::Deliver(DeliveryRequest::Prepare(jobs)) = request else {
                        continue;
                    };
                    let own = jobs[0].placement.id;
                    let mut texts = Vec::new();
                    for id in [Some(own), Some(QueueId(own.0 + 1)), last].into_iter().flatten() {
                        let request = ContentRequest { id, offset: 0, length_max: 9 };
                        let answer = asking.ask(OwnerQuestion::Content(request)).await.unwrap();
                        texts.push(format!("{answer:?}"));
                    }
                    last = Some(own);
                    let told = Reason::own(Status::SYSTEM, texts.join("\n\x1b[2J"));
                    reply.send(DeliveryAnswer(vec![Outcome::Deferred(told)]));
                }
            });
        });
        for id in [1, 5] {
            let outcomes = owners.deliver(prepare(vec![large(id)])).await;
            let [Outcome::Deferred(reason)] = &outcomes[0][..] else { panic!("{outcomes:?}") };
            let own = format!("Piece(b\"{}\")", QueueId(id));
            assert!(reason.text.starts_with(&own), "{reason}");
            let refused = reason.text.matches("the message is not for this user").count();
            // It is another process by then, which knows of no other message.
            assert_eq!(refused, 1, "{reason}");
            assert!(!reason.text.contains(char::is_control), "{reason}");
        }
    }

    #[tokio::test]
    async fn a_process_that_ends_is_started_again_a_few_times() {
        let started = Arc::new(Mutex::new(Vec::new()));
        let count = started.clone();
        let owners = owners(1, move |uid, (mut inbox, _)| {
            let mut started = count.lock();
            started.push(uid);
            let ends = uid == 8 || started.len() < 3;
            tokio::spawn(async move {
                while let Some((_, reply)) = inbox.next().await {
                    if ends {
                        return;
                    }
                    reply.send(DeliveryAnswer(vec![Outcome::Done]));
                }
            });
        });
        assert_eq!(owners.deliver(prepare(vec![large(1)])).await, [[Outcome::Done]]);
        assert_eq!(*started.lock(), [7, 7, 7]);
        // There is room for one process, which another user has: it has nothing to do and ends.
        let mut other = large(2);
        other.placement.mailbox = "u8@users.test".parse().unwrap();
        let outcomes = owners.deliver(prepare(vec![other])).await;
        assert!(
            matches!(&outcomes[0][0], Outcome::Deferred(reason) if reason.text.contains("ended"))
        );
        assert_eq!(*started.lock(), [7, 7, 7, 8, 8, 8]);
    }

    #[tokio::test]
    async fn what_a_process_answers_too_much_or_not_at_all_is_no_delivery() {
        let owners = owners(4, |uid, (mut inbox, _)| {
            tokio::spawn(async move {
                let mut held = Vec::new();
                while let Some((_, reply)) = inbox.next().await {
                    match uid {
                        7 => reply.send(DeliveryAnswer(vec![Outcome::Done; 2])),
                        _ => held.push(reply),
                    }
                }
            });
        });
        let mut silent = large(2);
        silent.placement.mailbox = "u8@users.test".parse().unwrap();
        let requests = [prepare(vec![large(1)]), prepare(vec![silent.clone()])].concat();
        let outcomes = owners.deliver(requests).await;
        let is = |outcome: &Outcome, words: &str| {
            assert!(matches!(outcome, Outcome::Deferred(reason) if reason.text.contains(words)));
        };
        is(&outcomes[0][0], "answers something else");
        is(&outcomes[1][0], "does not answer");
        // Nobody waits for it again so soon.
        let outcomes = owners.deliver(prepare(vec![silent])).await;
        is(&outcomes[0][0], "did not answer a moment ago");
        let facts = owners.pool.settings().health.facts();
        assert!(facts[0].text.contains("the process of u8 does not answer"), "{facts:?}");
    }
}
