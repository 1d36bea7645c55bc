//! A process that writes into the home of one user, as that user.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lamppost_net::link::{Gone, Inbox, Port, carry_answers, carry_questions, link};
use lamppost_roles::{
    Content, ContentAnswer, ContentRequest, DeliveryAnswer, DeliveryRequest, Outcome, OwnerAnswer,
    OwnerQuestion, OwnerRequest, OwnerWork, QueueId, SystemUser,
};
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How long a request may take until it is asked whether the process is there at all.
const ASKED_AFTER: Duration = Duration::from_millis(250);
/// How often that is asked from then on.
const ASKED_EVERY: Duration = Duration::from_secs(2);
/// How long a process that is at work may take to answer that; one that begins may find a home slow.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// How often the patience with one mailbox may pass until a process that answers and brings nothing about is
/// given up.
const PATIENCES_MAX: u32 = 30;
/// Bytes of what a process tells that it gave up.
const RESTRICTED_MAX: usize = 16 * 1024;

/// A process at work.
pub(super) struct Process {
    pub(super) owner: SystemUser,
    pub(super) name: String,
    pub(super) pid: u32,
    port: Port<OwnerWork, DeliveryAnswer>,
    told: Arc<Told>,
    course: Mutex<Course>,
    has_answered: AtomicBool,
    /// What carries its links, which end with this.
    _carrying: JoinSet<()>,
    supervisor: Port<OwnerRequest, OwnerAnswer>,
    room: Option<OwnedSemaphorePermit>,
}

impl Drop for Process {
    /// A process that was stopped does not see that its links are closed: the supervisor ends it. Its room is free
    /// when that is done.
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else { return };
        let dropped = OwnerRequest::Dropped { uid: self.owner.uid, pid: self.pid };
        let (supervisor, room) = (self.supervisor.clone(), self.room.take());
        runtime.spawn(async move {
            drop(supervisor.ask(dropped).await);
            drop(room);
        });
    }
}

/// What is known between the two links of a process.
#[derive(Default)]
struct Told {
    /// Messages that it is delivering, which it may read, and how often each.
    messages: Mutex<HashMap<QueueId, usize>>,
    restricted: Mutex<Option<String>>,
}

/// How busy a process is.
struct Course {
    requests: usize,
    idle_since: Instant,
}

/// The ends of the links to a process.
pub(super) struct Ends {
    pub(super) work: OwnedFd,
    pub(super) questions: OwnedFd,
}

/// Why a process did not answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// It ended, whatever ended it.
    Gone,
    /// It is there and does not answer.
    Silent,
}

impl Process {
    /// Takes the links to a process that was started.
    pub(super) fn new(
        (owner, name, pid): (SystemUser, String, u32),
        ends: Ends,
        content: Port<ContentRequest, ContentAnswer>,
        (supervisor, room): (Port<OwnerRequest, OwnerAnswer>, OwnedSemaphorePermit),
    ) -> io::Result<Self> {
        let (work, questions) = (stream(ends.work)?, stream(ends.questions)?);
        let told = Arc::new(Told::default());
        let mut carrying = JoinSet::new();
        let (port, asked) = link();
        carrying.spawn(async move { drop(carry_questions(asked, work).await) });
        let (far, inbox) = link();
        carrying.spawn(async move { drop(carry_answers(far, questions).await) });
        carrying.spawn(answer(inbox, told.clone(), content));
        let course = Mutex::new(Course { requests: 0, idle_since: Instant::now() });
        Ok(Self {
            owner,
            name,
            pid,
            port,
            told,
            course,
            has_answered: AtomicBool::new(false),
            _carrying: carrying,
            supervisor,
            room: Some(room),
        })
    }

    pub(super) fn is_gone(&self) -> bool {
        self.port.is_gone()
    }

    /// What it told that it gave up; nothing before it did.
    pub(super) fn restricted(&self) -> Option<String> {
        self.told.restricted.lock().clone()
    }

    pub(super) fn begins(&self) {
        self.course.lock().requests += 1;
    }

    /// A request is over; tells whether there is no other.
    pub(super) fn ends(&self) -> bool {
        let mut course = self.course.lock();
        course.requests -= 1;
        course.idle_since = Instant::now();
        course.requests == 0
    }

    /// Since when it has had nothing to do.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let course = self.course.lock();
        (course.requests == 0).then_some(course.idle_since)
    }

    /// Has it deliver. Whoever delivers watches over each file; here it is watched that somebody does.
    pub(super) async fn deliver(
        &self,
        request: &DeliveryRequest,
        patience: Duration,
    ) -> Result<Vec<Outcome>, Fault> {
        let _shown = self.told.show(request);
        let (begun, mut pause) = (Instant::now(), ASKED_AFTER);
        let mut asking = std::pin::pin!(self.port.ask(OwnerWork::Deliver(request.clone())));
        while begun.elapsed() < patience * PATIENCES_MAX {
            let at_work = async {
                sleep(pause).await;
                timeout(self.answers_within(patience), self.port.ask(OwnerWork::Answer)).await
            };
            tokio::select! {
                biased;
                answer = &mut asking => {
                    self.has_answered.store(true, Ordering::Relaxed);
                    return answer.map(|answer| answer.0).map_err(|Gone| Fault::Gone);
                }
                answer = at_work => match answer {
                    Ok(Ok(_)) => self.has_answered.store(true, Ordering::Relaxed),
                    Ok(Err(Gone)) => return Err(Fault::Gone),
                    Err(_) => return Err(Fault::Silent),
                }
            }
            pause = ASKED_EVERY;
        }
        Err(Fault::Silent)
    }

    fn answers_within(&self, patience: Duration) -> Duration {
        let begins = !self.has_answered.load(Ordering::Relaxed);
        if begins { patience } else { ANSWERS_WITHIN.min(patience) }
    }
}

/// Messages that a process may read until this is dropped.
struct Shown<'a> {
    told: &'a Told,
    messages: Vec<QueueId>,
}

impl Told {
    /// Has the process read the large contents of what it is to deliver.
    fn show(&self, request: &DeliveryRequest) -> Shown<'_> {
        let jobs = match request {
            DeliveryRequest::Prepare(jobs) => &jobs[..],
            _ => &[],
        };
        let large = jobs.iter().filter(|job| matches!(job.content, Content::Aside { .. }));
        let messages: Vec<_> = large.map(|job| job.placement.id).collect();
        let mut shown = self.messages.lock();
        for &id in &messages {
            *shown.entry(id).or_default() += 1;
        }
        Shown { told: self, messages }
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let mut shown = self.told.messages.lock();
        for id in &self.messages {
            if let Some(times) = shown.get_mut(id) {
                *times -= 1;
                if *times == 0 {
                    shown.remove(id);
                }
            }
        }
    }
}

/// Answers what a process asks: the mail of others is none of its business.
async fn answer(
    mut inbox: Inbox<OwnerQuestion, ContentAnswer>,
    told: Arc<Told>,
    content: Port<ContentRequest, ContentAnswer>,
) {
    while let Some((question, reply)) = inbox.next().await {
        reply.send(match question {
            OwnerQuestion::Restricted(text) => {
                *told.restricted.lock() = (text.len() <= RESTRICTED_MAX).then_some(text);
                ContentAnswer::Piece(bytes::Bytes::new())
            }
            OwnerQuestion::Content(request) if told.messages.lock().contains_key(&request.id) => {
                match content.ask(request).await {
                    Ok(answer) => answer,
                    Err(gone) => ContentAnswer::Failed(gone.to_string()),
                }
            }
            OwnerQuestion::Content(_) => {
                ContentAnswer::Failed("the message is not for this user".into())
            }
        });
    }
}

fn stream(end: OwnedFd) -> io::Result<UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(end);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}
