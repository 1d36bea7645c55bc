//! The greylist for other mail servers, which ask in Postfix's policy protocol: questions come in by
//! sockets, and policy decides them as it decides this server's own mail.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lamppost_delegation::{Action, Answer, Decoder, Problem, Question};
use lamppost_net::link::Port;
use lamppost_net::{Clock, Drain, Listener, LocalListener, Network};
use lamppost_roles::{PolicyAnswer, PolicyRequest, Timestamp, Verdict};
use lamppost_telemetry::Metrics;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use super::recipe::{RecipeFact, Told, recipe_differences};

/// Bytes that are read at once.
const READ_BYTES: usize = 2048;

/// What the service is told.
#[derive(Clone, Debug)]
pub struct GreylistServiceSettings {
    /// This host's name, for the field that tells of a delay.
    pub hostname: String,
    /// Who may ask by TCP.
    pub allow_from: Vec<Network>,
    /// Connections at once.
    pub connections_max: usize,
    /// Bytes of a question.
    pub request_size_max: usize,
    /// How long a question may take to arrive, and its answer to be read.
    pub request_timeout: Duration,
    /// How long a connection may be without a question.
    pub idle_timeout: Duration,
    /// What those that ask as the recipe has it may say of the greylist.
    pub recipe: Vec<RecipeFact>,
}

/// The part of the front that mail servers ask.
pub struct GreylistService {
    settings: GreylistServiceSettings,
    policy: Port<PolicyRequest, PolicyAnswer>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
    told: Told,
    drain: Drain,
}

/// Why a connection ended before its client ended it.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Problem(#[from] Problem),
    #[error("the question does not end in time (request-timeout)")]
    Slow,
    #[error("its answer is not read in time (request-timeout)")]
    Unread,
    #[error("policy does not answer")]
    Gone,
    #[error(transparent)]
    Connection(#[from] io::Error),
}

impl GreylistService {
    /// A service that listens nowhere yet.
    pub fn new(
        settings: GreylistServiceSettings,
        policy: Port<PolicyRequest, PolicyAnswer>,
        (clock, metrics): (Arc<dyn Clock>, Arc<Metrics>),
        drain: Drain,
    ) -> Self {
        let places = Arc::new(Semaphore::new(settings.connections_max));
        Self { settings, policy, clock, metrics, places, told: Told::default(), drain }
    }

    /// Answers at an address until the front retires.
    pub async fn listen(self: Arc<Self>, listener: Listener) {
        loop {
            let (stream, peer) = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.drain.retired() => return,
            };
            let address = peer.ip().to_canonical();
            if self.settings.allow_from.iter().any(|network| network.contains(address)) {
                self.begin(stream, address.to_string());
            } else {
                warn!(client = %address, "a client that may not ask the greylist was turned away (allow-from)");
            }
        }
    }

    /// Answers at a UNIX socket until the front retires.
    pub async fn listen_local(self: Arc<Self>, listener: LocalListener) {
        loop {
            let (stream, uid) = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.drain.retired() => return,
            };
            self.begin(stream, format!("uid {uid}"));
        }
    }

    /// Answers on a connection, if there may be one more.
    fn begin<S>(self: &Arc<Self>, stream: S, client: String)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            warn!(client, "too many connections to the greylist (connections-max)");
            return;
        };
        let service = self.clone();
        self.drain.spawn(async move {
            service.serve(stream, &client).await;
            drop(place);
        });
    }

    /// One connection, to its end.
    ///
    /// Public so that tests can bring their own streams.
    pub async fn serve<S>(&self, stream: S, client: &str)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.metrics.greylist_connections_open.inc();
        match self.converse(stream, client).await {
            Ok(()) => {}
            Err(Ended::Connection(reason)) => debug!(client, %reason, "a mail server is gone"),
            Err(reason) => {
                warn!(client, %reason, "a connection to the greylist was closed");
            }
        }
        self.metrics.greylist_connections_open.dec();
    }

    async fn converse<S>(&self, mut stream: S, client: &str) -> Result<(), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut decoder = Decoder::new(self.settings.request_size_max);
        // The message that has its field: each has one, however many recipients passed.
        let mut told = String::new();
        while let Some(question) = self.question(&mut stream, &mut decoder).await? {
            let remark = self.remark(&question, client);
            let action = self.action(question, &mut told).await?;
            let answer = Answer { action, remark }.to_string();
            let writing = stream.write_all(answer.as_bytes());
            timeout(self.settings.request_timeout, writing).await.map_err(|_| Ended::Unread)??;
        }
        Ok(())
    }

    /// The next question; nothing when there will be none.
    async fn question<S>(
        &self,
        stream: &mut S,
        decoder: &mut Decoder,
    ) -> Result<Option<Question>, Ended>
    where
        S: AsyncRead + Unpin,
    {
        let mut bytes = [0; READ_BYTES];
        let mut due = Instant::now() + self.settings.request_timeout;
        loop {
            if let Some(question) = decoder.next_question()? {
                return Ok(Some(question));
            }
            let read = if decoder.is_within() {
                timeout_at(due, stream.read(&mut bytes)).await.map_err(|_| Ended::Slow)??
            } else {
                // A mail server that finds its connection closed makes another.
                let read = tokio::select! {
                    biased;
                    read = timeout(self.settings.idle_timeout, stream.read(&mut bytes)) => read,
                    () = self.drain.retired() => return Ok(None),
                };
                due = Instant::now() + self.settings.request_timeout;
                let Ok(read) = read else { return Ok(None) };
                read?
            };
            if read == 0 {
                return Ok(None);
            }
            decoder.push(&bytes[..read]);
        }
    }

    /// What the environment of who asks says that is not so here, when that is to be told.
    fn remark(&self, question: &Question, client: &str) -> Option<String> {
        let difference = recipe_differences(&self.settings.recipe, &question.recipe);
        let remark = self.told.tell(difference)?;
        warn!(client, reason = remark, "the environment of an envelope scanner says otherwise");
        Some(remark)
    }

    /// What to do about a question; `told` is the message that has its field.
    async fn action(&self, question: Question, told: &mut String) -> Result<Action, Ended> {
        let Question { stage, client, helo, sender, recipient, instance, login, .. } = question;
        // Later in the dialogue the recipients have been decided one by one.
        if stage != "RCPT" || recipient.is_empty() {
            return Ok(Action::Dunno);
        }
        if !login.is_empty() {
            self.metrics.greylist_decision("authenticated");
            return Ok(Action::Dunno);
        }
        let Some(peer) = client else {
            debug!(to = recipient, "a client without an address is not greylisted");
            self.metrics.greylist_decision("no-address");
            return Ok(Action::Dunno);
        };
        let asked = PolicyRequest::Greylist { peer, helo, sender, recipient };
        let Ok(PolicyAnswer::Greylist(verdict)) = self.policy.ask(asked).await else {
            return Err(Ended::Gone);
        };
        Ok(match verdict {
            Verdict::Pass { waited: Some(waited) } if instance.is_empty() || *told != instance => {
                *told = instance;
                let (seconds, host) = (waited.as_secs(), &self.settings.hostname);
                let now = u64::try_from(self.clock.now().as_millis()).unwrap_or(u64::MAX);
                let date = Timestamp(now).to_rfc5322();
                let value = format!("delayed {seconds} seconds by {host} (Lamppost); {date}");
                Action::Prepend("X-Greylist", value)
            }
            Verdict::Pass { .. } => Action::Dunno,
            Verdict::Wait { reason, retry_in } => {
                let wait = match retry_in.as_millis().div_ceil(1000) {
                    1 => "1 second".to_owned(),
                    seconds => format!("{seconds} seconds"),
                };
                let text = format!("4.7.1 greylisted ({reason}): try again in {wait}");
                Action::DeferIfPermit(text)
            }
            Verdict::Unavailable => {
                Action::DeferIfPermit("4.3.0 the greylist cannot be asked: try again later".into())
            }
        })
    }
}
