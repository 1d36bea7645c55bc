//! Mail for users of this machine: each gets it by a process of its own, which runs as that user.
//!
//! This role may not become anybody. It asks the supervisor for a process by the number of a user, hands it
//! what is for that user, and passes on what came of it. A process that ends in between is started again: both
//! steps of a delivery may be repeated.

mod pool;
mod process;
mod silences;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lamppost_net::link::Port;
use lamppost_roles::{
    ContentAnswer, ContentRequest, DeliveryRequest, Outcome, OwnerAnswer, OwnerRequest, Reason,
    SystemUser, UserMailbox, UserName,
};
use lamppost_smtp::Address;
use lamppost_telemetry::Health;
use tokio::time::{Instant, timeout};
use tracing::warn;

use self::pool::{Busy, Pool};
use self::process::Fault;
use self::silences::{Silences, silent};
use crate::mailboxes::deferred;

/// How often a request is made when the process that has it ends: one that made the Maildir ends once, and
/// one may be killed besides.
const TRIES: usize = 3;
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
    silences: Silences,
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
        let silences = Silences::new(settings.patience, settings.health.clone());
        Self { pool: Pool::new(settings, supervisor, content), silences }
    }

    /// Takes a descriptor that the supervisor sent, by its number.
    pub fn arrived(&self, number: u32, descriptor: OwnedFd) {
        self.pool.arrived(number, descriptor);
    }

    /// The processes that there are.
    pub fn processes(&self) -> Vec<OwnerProcess> {
        self.silences.forget();
        self.pool.processes()
    }

    /// Whether a mailbox lies in a home.
    pub(crate) fn is_theirs(&self, mailbox: &Address) -> bool {
        let domain = mailbox.domain();
        self.pool.settings().domains.iter().any(|ours| ours.eq_ignore_ascii_case(domain))
    }

    /// Has requests carried out, each for one mailbox and so many entries; all at once. Nobody waits long for one
    /// of them unless it `is_alone`, without mail of others in its batch.
    pub(crate) async fn deliver(
        &self,
        requests: Vec<(Address, usize, DeliveryRequest)>,
        is_alone: bool,
    ) -> Vec<Vec<Outcome>> {
        join_all(requests.into_iter().map(|(mailbox, entries, request)| async move {
            let outcomes = self.deliver_to(&mailbox, Arc::new(request), is_alone).await;
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
        request: Arc<DeliveryRequest>,
        is_alone: bool,
    ) -> Result<Vec<Outcome>, Outcome> {
        let (owner, name) = self.owner(mailbox).await?;
        let user = name.as_str();
        self.silences.may_be_asked(user)?;
        let mut within = self.silences.answered_within(user);
        for _ in 0..TRIES {
            // That others have all processes is not this one's fault.
            let busy = self.pool.process(owner, user).await?;
            let (pid, begun) = (busy.process.pid, Instant::now());
            let mut work = tokio::spawn(self.clone().carry_out(busy, request.clone()));
            let ended = if is_alone {
                (&mut work).await
            } else if let Ok(ended) = timeout(within, &mut work).await {
                ended
            } else {
                let late = self.silences.is_late(user);
                tokio::spawn(async move {
                    drop(work.await);
                    drop(late);
                });
                return Err(deferred("the process of the user takes long; the batch went on"));
            };
            within = within.saturating_sub(begun.elapsed());
            match ended {
                Ok(Ok(outcomes)) => return Ok(outcomes),
                Ok(Err(Fault::Silent)) => return Err(silent()),
                Ok(Err(Fault::Gone)) => warn!(user, pid, "a user's process ended"),
                Err(broken) => return Err(deferred(broken.to_string())),
            }
        }
        Err(deferred("the process of the user ended before it had delivered"))
    }

    /// Has a process carry out a request, whoever waits for it.
    async fn carry_out(
        self,
        busy: Busy,
        request: Arc<DeliveryRequest>,
    ) -> Result<Vec<Outcome>, Fault> {
        let process = &busy.process;
        let delivered = process.deliver(&request, self.pool.settings().patience).await;
        match delivered {
            Ok(outcomes) => {
                // What troubles it, such as a Maildir that was moved, may be no trouble for another.
                if outcomes.iter().any(|outcome| *outcome != Outcome::Done) {
                    self.pool.forget(process).await;
                }
                self.silences.answers(&process.name);
                Ok(outcomes.into_iter().map(plain).collect())
            }
            Err(fault) => {
                self.pool.forget(process).await;
                if matches!(fault, Fault::Silent) {
                    self.silences.is_silent(&process.name);
                }
                Err(fault)
            }
        }
    }

    /// The user whose mailbox it is.
    async fn owner(&self, mailbox: &Address) -> Result<(SystemUser, UserName), Outcome> {
        let unknown = || {
            // Its mail was accepted. What the machine tells of its users while an administrator works on them, or
            // a file server is away, must not make it come back; the queue knows when it is too old.
            let text =
                "gets no mail any more: is the list of users whole, and the home the user's?";
            deferred(format!("the user {} {text}", mailbox.local()))
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
    use lamppost_smtp::Status;
    use lamppost_telemetry::State;
    use parking_lot::Mutex;

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
                    OwnerRequest::Dropped { .. } => OwnerAnswer::Dropped,
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
            let outcomes = owners.deliver(prepare(vec![large(id)]), true).await;
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
        assert_eq!(owners.deliver(prepare(vec![large(1)]), true).await, [[Outcome::Done]]);
        assert_eq!(*started.lock(), [7, 7, 7]);
        // There is room for one process, which another user has: it has nothing to do and ends.
        let mut other = large(2);
        other.placement.mailbox = "u8@users.test".parse().unwrap();
        let outcomes = owners.deliver(prepare(vec![other]), true).await;
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
        let outcomes = owners.deliver(requests, false).await;
        let is = |outcome: &Outcome, words: &str| {
            assert!(matches!(outcome, Outcome::Deferred(reason) if reason.text.contains(words)));
        };
        is(&outcomes[0][0], "answers something else");
        is(&outcomes[1][0], "does not answer");
        // Nobody waits for it again so soon.
        let outcomes = owners.deliver(prepare(vec![silent]), true).await;
        is(&outcomes[0][0], "did not answer a moment ago");
        let facts = owners.pool.settings().health.facts();
        assert!(facts[0].text.contains("the process of u8 does not answer"), "{facts:?}");
        assert_eq!(facts[0].state, State::Warn);
    }
    #[tokio::test]
    async fn a_batch_waits_for_nobody_and_nobody_is_tried_twice_at_once() {
        let (ready, is_ready) = tokio::sync::watch::channel(false);
        let asked = Arc::new(Mutex::new(0));
        let count = asked.clone();
        let owners = owners(4, move |uid, (mut inbox, _)| {
            let (is_ready, count) = (is_ready.clone(), count.clone());
            tokio::spawn(async move {
                while let Some((work, reply)) = inbox.next().await {
                    if work == OwnerWork::Answer {
                        reply.send(DeliveryAnswer(Vec::new()));
                        continue;
                    }
                    let mut is_ready = is_ready.clone();
                    *count.lock() += u32::from(uid == 7);
                    tokio::spawn(async move {
                        if uid == 7 {
                            is_ready.wait_for(|ready| *ready).await.unwrap();
                        }
                        reply.send(DeliveryAnswer(vec![Outcome::Done]));
                    });
                }
            });
        });
        let mut other = large(2);
        other.placement.mailbox = "u8@users.test".parse().unwrap();
        let begun = Instant::now();
        let requests = [prepare(vec![large(1)]), prepare(vec![other])].concat();
        let outcomes = owners.deliver(requests, false).await;
        // More often than three seconds it is asked whether it is there at all, and it is.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        let is = |outcome: &Outcome, words: &str| {
            assert!(matches!(outcome, Outcome::Deferred(reason) if reason.text.contains(words)));
        };
        is(&outcomes[0][0], "takes long");
        assert_eq!(outcomes[1], [Outcome::Done]);
        // The first try is under way, and must not meet another.
        is(&owners.deliver(prepare(vec![large(1)]), true).await[0][0], "not ready");
        assert_eq!(*asked.lock(), 1);
        ready.send(true).unwrap();
        while owners.silences.may_be_asked("u7").is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(owners.deliver(prepare(vec![large(1)]), true).await, [[Outcome::Done]]);
        assert_eq!(*asked.lock(), 2);
    }
}
