//! One client's connection: carries bytes between the socket and the session, and the session's
//! questions to policy and the queue.

mod recipient;

use std::net::IpAddr;
use std::time::Duration;

use lamppost_net::{ServerTls, close_gracefully};
use lamppost_roles::{
    Admission, Envelope, Origin, Peer, PolicyAnswer, PolicyRequest, Submitter, Timestamp,
};
use lamppost_smtp::{
    Action, Answer, Greeting, Interrupt, Kind, Question, Refusal, Reply, ReversePath, Secret,
    Session,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::Front;
use super::client::{Client, session_id};
use super::completion::Completion;
use super::content::{Inflow, Unstored};
use super::lost::Lost;
use super::stream::Stream;
use super::transaction::Transaction;

/// How long, and for how many bytes, a client that is still sending is listened to after the last
/// reply, so that it reads the reply instead of a reset.
pub(super) const LINGER: (Duration, u64) = (Duration::from_secs(2), 1024 * 1024);

/// Letters of an account's name, as a client sent it, that a line of the log holds.
const ACCOUNT_LOGGED_MAX: usize = 320;

/// A connection with its session.
pub(super) struct Connection<'a, S> {
    front: &'a Front,
    kind: Kind,
    session: Session,
    stream: Stream<S>,
    tls: Option<&'a ServerTls>,
    user: Option<u32>,
    admission: Admission,
    waited: Duration,
    id: String,
    /// This machine's own for its users, whom `shown` tells apart.
    peer: IpAddr,
    shown: String,
    cipher: Option<String>,
    transaction: Transaction,
    pace: Pace,
}

/// How long the connection has been listened to since it last made progress.
struct Pace {
    /// When the current command must be complete.
    deadline: Option<Instant>,
    /// How long content has been waited for.
    waited: Duration,
    /// Bytes of content that came, also of one that is refused.
    bytes: u64,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin + Send> Connection<'a, S> {
    pub(super) fn new(front: &'a Front, client: Client<'a, S>) -> Self {
        Self {
            shown: client.shown(),
            front,
            kind: client.kind,
            session: client.session,
            stream: Stream::Plain(client.stream),
            tls: client.tls,
            user: client.user,
            admission: client.admission,
            waited: client.waited,
            id: session_id(front.clock.now()),
            peer: client.peer,
            cipher: None,
            transaction: Transaction::default(),
            pace: Pace { deadline: None, waited: Duration::ZERO, bytes: 0 },
        }
    }

    /// The session's name in the log.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Who is at the other end, in the log: an address, or a user of this machine.
    fn peer(&self) -> &str {
        &self.shown
    }

    /// Runs the session to its end.
    pub(super) async fn run(&mut self, implicit_tls: bool) {
        if implicit_tls && !self.encrypt().await {
            return;
        }
        let ended = self.converse().await;
        let content = std::mem::take(&mut self.transaction).content;
        content.abort(&self.inflow()).await;
        match ended {
            Ok(()) => close_gracefully(&mut self.stream, LINGER.1, LINGER.0).await,
            Err(Lost::CutOff) => {}
            Err(Lost::Closed) => debug!(session = self.id, "connection closed by the client"),
            Err(Lost::Failed(error)) => {
                debug!(session = self.id, reason = %error, "connection lost");
            }
        }
    }

    async fn converse(&mut self) -> Result<(), Lost> {
        self.greet().await?;
        loop {
            match self.session.next() {
                Action::Read => self.read().await?,
                Action::Ask(question) => {
                    self.pace.deadline = None;
                    let answer = self.ask(question).await?;
                    self.session.answer(answer);
                }
                Action::Content(piece) => self.append(piece).await,
                Action::Discard => self.discard().await,
                Action::StartTls => {
                    self.flush().await?;
                    if !self.encrypt().await {
                        return Err(Lost::Closed);
                    }
                    self.session.tls_started();
                    self.pace.deadline = None;
                }
                Action::Close => return self.flush().await.map(drop),
            }
        }
    }

    /// Greets the client, unless it talks before its turn (RFC 5321 §4.3.1).
    async fn greet(&mut self) -> Result<(), Lost> {
        // Who comes by the system's own socket is no robot from elsewhere.
        let delay = self.user.map_or(self.front.settings.limits.greeting_delay, |_| Duration::ZERO);
        let mut greeting = Greeting::Welcome;
        if self.front.drain.has_begun() {
            greeting = Greeting::ShuttingDown;
        } else if !delay.is_zero() {
            // What it sent while lists were asked about it is there by now.
            let delay = delay.saturating_sub(self.waited);
            let (session, stream) = (&mut self.session, &mut self.stream);
            match timeout(delay, stream.read_into(|bytes| session.receive(bytes))).await {
                Ok(Ok(0)) => return Err(Lost::Closed),
                Ok(Ok(_)) => {
                    info!(
                        session = self.id,
                        peer = self.peer(),
                        reason = "talked before the greeting",
                        "connection refused"
                    );
                    greeting = Greeting::EarlyTalker;
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {}
            }
        }
        self.session.greet(greeting);
        Ok(())
    }

    /// Sends what waits to be said, then reads once.
    async fn read(&mut self) -> Result<(), Lost> {
        if self.flush().await? {
            self.pace.deadline = None;
        }
        let in_content = self.session.in_content();
        let begun = Instant::now();
        let deadline = if in_content {
            begun + self.session.patience().min(self.patience_with_content())
        } else {
            (self.pace.waited, self.pace.bytes) = (Duration::ZERO, 0);
            *self.pace.deadline.get_or_insert(begun + self.session.patience())
        };
        let busy = self.session.in_transaction();
        let (session, stream) = (&mut self.session, &mut self.stream);
        let read = tokio::select! {
            read = timeout_at(deadline, stream.read_into(|bytes| session.receive(bytes))) => Some(read),
            () = self.front.drain.begun(), if !busy => None,
            () = self.front.drain.overdue() => None,
        };
        self.pace.waited += begun.elapsed();
        match read {
            Some(Ok(Ok(0))) => Err(Lost::Closed),
            Some(Ok(Ok(count))) => {
                self.pace.bytes += count as u64;
                Ok(())
            }
            Some(Ok(Err(error))) => Err(error.into()),
            Some(Err(_)) => {
                let why = if in_content { Interrupt::TooSlow } else { Interrupt::Timeout };
                let reason = if in_content { "too-slow" } else { "timeout" };
                info!(session = self.id, peer = self.peer(), reason, "session interrupted");
                self.session.interrupt(why);
                Ok(())
            }
            None => {
                self.session.interrupt(Interrupt::ShuttingDown);
                Ok(())
            }
        }
    }

    /// How much longer content may be waited for at the least rate that is allowed.
    fn patience_with_content(&self) -> Duration {
        let limits = &self.front.settings.limits;
        let Some(earned) = self.pace.bytes.checked_div(limits.data_rate_min) else {
            return Duration::MAX / 4;
        };
        (limits.data_rate_grace + Duration::from_secs(earned)).saturating_sub(self.pace.waited)
    }

    /// Sends what waits to be said; tells whether there was anything.
    async fn flush(&mut self) -> Result<bool, Lost> {
        let output = self.session.take_output();
        if output.is_empty() {
            return Ok(false);
        }
        let patience = self.front.settings.limits.write_timeout;
        let stream = &mut self.stream;
        let writing = async {
            stream.write_all(&output).await?;
            stream.flush().await
        };
        match timeout(patience, writing).await {
            Ok(written) => written.map(|()| true).map_err(Lost::Failed),
            Err(_) => Err(Lost::Closed),
        }
    }

    /// Begins TLS; false when that failed.
    async fn encrypt(&mut self) -> bool {
        let Some(tls) = self.tls else { return false };
        let patience = self.front.settings.limits.tls_handshake_timeout;
        match self.stream.encrypt(tls, patience).await {
            Ok(cipher) => {
                self.cipher = Some(cipher);
                true
            }
            Err(error) => {
                info!(session = self.id, peer = self.peer(), reason = %error, "TLS handshake failed");
                false
            }
        }
    }

    async fn ask(&mut self, question: Question) -> Result<Answer, Lost> {
        Ok(match question {
            Question::Authenticate { user, password } => {
                // What was said before a slow answer must not wait for it.
                self.flush().await?;
                self.authenticate(user, password).await
            }
            Question::Sender { sender, .. } => self.begin(sender).await,
            Question::Recipient { recipient } => self.add_recipient(recipient).await,
            Question::Room { size } => self.room(size).await,
            Question::Finish => self.finish().await?,
            // No session of ours speaks as qmail-smtpd.
            Question::Qmail(_) => Answer::Refused(Refusal::Unavailable),
        })
    }

    async fn authenticate(&mut self, user: String, password: Secret) -> Answer {
        // Whatever the client sends is kept short and in one line.
        let tried: String = user.chars().take(ACCOUNT_LOGGED_MAX).collect();
        let account = tried.escape_debug();
        let question = PolicyRequest::Authenticate { peer: self.peer, user, password };
        match self.policy(question).await {
            PolicyAnswer::Account(account) => {
                info!(session = self.id, peer = self.peer(), %account, "authenticated");
                Answer::Account(account)
            }
            PolicyAnswer::Refused(refusal) => {
                info!(session = self.id, peer = self.peer(), %account, reason = refusal.reason(), "authentication refused");
                self.front.metrics.auth_failures.inc();
                if refusal == Refusal::AuthFailed {
                    tokio::time::sleep(self.front.settings.limits.auth_failure_delay).await;
                }
                Answer::Refused(refusal)
            }
            _ => Answer::Refused(Refusal::Unavailable),
        }
    }

    async fn begin(&mut self, sender: ReversePath) -> Answer {
        let before = std::mem::replace(&mut self.transaction, Transaction::from(sender.clone()));
        before.content.abort(&self.inflow()).await;
        let Some(by) = self.submitter() else {
            return Answer::Yes;
        };
        match self.policy(PolicyRequest::Sender { by, sender: sender.clone() }).await {
            PolicyAnswer::Allowed => Answer::Yes,
            PolicyAnswer::Refused(refusal) => {
                info!(session = self.id, peer = self.peer(), from = %sender, reason = refusal.reason(), "sender refused");
                Answer::Refused(refusal)
            }
            _ => Answer::Refused(Refusal::Unavailable),
        }
    }

    /// Who hands in mail of its own; nobody when mail comes from other servers.
    fn submitter(&self) -> Option<Submitter> {
        let account = || self.session.account().cloned().map(Submitter::Account);
        self.user.map(Submitter::LocalUser).or_else(account)
    }

    /// Whether content may come: the account's quota and the spool's space allow it.
    async fn room(&mut self, size: u64) -> Answer {
        (self.pace.waited, self.pace.bytes) = (Duration::ZERO, 0);
        if let Some(refusal) = self.transaction.hold.take() {
            return self.refuse_message(refusal);
        }
        if let Some(by) = self.submitter() {
            let recipients = u32::try_from(self.transaction.recipients.len()).unwrap_or(u32::MAX);
            match self.policy(PolicyRequest::Charge { by, recipients }).await {
                PolicyAnswer::Allowed => {}
                PolicyAnswer::Refused(refusal) => return self.refuse_message(refusal),
                _ => return self.refuse_message(Refusal::Unavailable),
            }
        }
        match self.front.room.ask(&self.inflow(), size).await {
            Ok(()) => Answer::Yes,
            Err(refusal) => self.refuse_message(refusal),
        }
    }

    async fn append(&mut self, piece: bytes::Bytes) {
        let (inflow, completion) = (self.inflow(), self.completion());
        self.transaction.content.append(&inflow, &piece, completion.as_ref()).await;
    }

    async fn discard(&mut self) {
        let transaction = std::mem::take(&mut self.transaction);
        transaction.content.abort(&self.inflow()).await;
    }

    /// Hands the message in. The client is told nothing of one whose fate is not known: whatever it were
    /// told could be wrong.
    async fn finish(&mut self) -> Result<Answer, Lost> {
        let mut transaction = std::mem::take(&mut self.transaction);
        let content = std::mem::take(&mut transaction.content);
        let (size, recipients) = (content.size(), transaction.recipients.len());
        let sender = transaction.sender.clone().unwrap_or(ReversePath::Null);
        let envelope = Envelope {
            sender: sender.clone(),
            recipients: transaction.recipients.clone(),
            origin: self.origin(),
        };
        let completion = self.completion();
        match content.finish(&self.inflow(), envelope, completion.as_ref()).await {
            Ok(queue_id) => {
                self.tell_outcome(&mut transaction, true);
                info!(session = self.id, %queue_id, peer = self.peer(), from = %sender, recipients, size, "message accepted");
                self.front.metrics.messages_accepted.inc();
                Ok(Answer::Stored(queue_id.to_string()))
            }
            Err(Unstored::Refused(refusal)) => {
                // What this host cannot take now says nothing of the client.
                if !Reply::from(&refusal).is_temporary() {
                    self.tell_outcome(&mut transaction, false);
                }
                Ok(self.refuse_message(refusal))
            }
            Err(Unstored::Unknown) => {
                warn!(session = self.id, peer = self.peer(), from = %sender, "session cut off: the queue ended while it took the message");
                Err(Lost::CutOff)
            }
        }
    }

    fn refuse_message(&self, refusal: Refusal) -> Answer {
        info!(session = self.id, peer = self.peer(), reason = refusal.reason(), "message refused");
        self.front.metrics.message_refused(refusal.reason());
        Answer::Refused(refusal)
    }

    fn origin(&self) -> Origin {
        Origin {
            session: self.id.clone(),
            peer: self.user.map_or(Peer::Address(self.peer), Peer::User),
            helo: self.session.helo().unwrap_or_default().to_owned(),
            host: self.host().to_owned(),
            protocol: self.session.protocol().to_owned(),
            tls: self.cipher.clone(),
            account: self.session.account().cloned(),
            received: self.now(),
        }
    }

    /// What to add to a message that an account hands in; nothing is added to others'.
    fn completion(&self) -> Option<Completion> {
        (self.kind == Kind::Submission).then(|| Completion {
            host: self.host().to_owned(),
            session: self.id.clone(),
            now: self.now(),
        })
    }

    /// What this host calls itself to this client's messages.
    fn host(&self) -> &str {
        self.admission.host.as_deref().unwrap_or(&self.front.settings.hostname)
    }

    fn now(&self) -> Timestamp {
        Timestamp(u64::try_from(self.front.clock.now().as_millis()).unwrap_or(u64::MAX))
    }

    fn inflow(&self) -> Inflow<'a> {
        Inflow {
            intake: &self.front.ends.intake,
            pages: &self.front.pages,
            inline_max: self.front.settings.limits.inline_max,
            hops_max: self.front.settings.limits.hops_max,
        }
    }

    async fn policy(&self, question: PolicyRequest) -> PolicyAnswer {
        let asked = self.front.ends.policy.ask(question).await;
        asked.unwrap_or(PolicyAnswer::Refused(Refusal::Unavailable))
    }
}
