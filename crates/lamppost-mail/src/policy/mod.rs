//! Policy: who may do what, asked by the front; the way to a recipient, asked by the queue too.
//!
//! The order of the questions about a recipient is part of the policy: a mailbox that does not
//! exist is refused for good before greylisting makes anyone wait for it.

mod greylist_control;
mod greylisted;
mod local;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use lamppost_accounts::Accounts;
use lamppost_greylist::Greylist;
use lamppost_net::Clock;
use lamppost_net::link::{Inbox, Port};
use lamppost_roles::{
    PolicyAnswer, PolicyRequest, Route, RouteAnswer, RouteRequest, Submitter, Verdict,
};
use lamppost_smtp::{Address, Refusal, ReversePath};
use lamppost_telemetry::Metrics;
use tracing::{debug, error};

use self::local::User;
pub use self::settings::{Elsewhere, LocalSettings, PolicySettings, StoreFailure};

/// How often records that nobody needs any more are swept out of the greylist.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// The role that knows accounts and the greylist.
#[derive(Clone)]
pub struct Policy {
    settings: Arc<ArcSwap<PolicySettings>>,
    accounts: Accounts,
    greylist: Arc<Greylist>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// Who knows the users of this machine; nobody where policy may read them itself.
    users: Option<Port<u32, Option<String>>>,
}

/// A recipient as the front asks about it.
struct Candidate {
    peer: std::net::IpAddr,
    sender: ReversePath,
    recipient: Address,
    account: Option<Address>,
}

impl Policy {
    /// A policy that answers by these settings.
    pub fn new(
        settings: PolicySettings,
        accounts: Accounts,
        greylist: Arc<Greylist>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let metrics = Metrics::new();
        Self { settings, accounts, greylist, clock, metrics, users: None }
    }

    /// Asks this role for the names of the machine's users instead of reading them.
    #[must_use]
    pub fn asking(self, users: Port<u32, Option<String>>) -> Self {
        Self { users: Some(users), ..self }
    }

    /// Counts what it decides in these figures instead of its own.
    #[must_use]
    pub fn counting(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Answers by other settings from the next question on.
    pub fn set_settings(&self, settings: PolicySettings) {
        self.settings.store(Arc::new(settings));
    }

    /// How many addresses and how many accounts are blocked after wrong passwords.
    pub fn blocked(&self) -> (usize, usize) {
        self.accounts.blocked(self.clock.now())
    }

    /// Answers until every asker is gone.
    pub async fn run(self, mut inbox: Inbox<PolicyRequest, PolicyAnswer>) {
        let mut sweep = tokio::time::interval(EXPIRE_EVERY);
        loop {
            tokio::select! {
                question = inbox.next() => {
                    let Some((question, reply)) = question else { return };
                    let policy = self.clone();
                    let mut answering = Box::pin(async move { policy.answer(question).await });
                    // Most answers are at hand. The others are as many at once as there are
                    // sessions: each asks one question at a time.
                    match (&mut answering).now_or_never() {
                        Some(answer) => reply.send(answer),
                        None => drop(tokio::spawn(async move { reply.send(answering.await) })),
                    }
                }
                _ = sweep.tick() => self.sweep().await,
            }
        }
    }

    /// Tells the queue the way to recipients until it is gone.
    pub async fn run_routes(self, mut inbox: Inbox<RouteRequest, RouteAnswer>) {
        while let Some((question, reply)) = inbox.next().await {
            reply.send(self.route(&question.address).await);
        }
    }

    async fn sweep(&self) {
        match self.greylist.expire(self.clock.now()).await {
            Ok(expired) => debug!(expired, "greylist swept"),
            Err(error) => error!(reason = %chain(&error), "greylist could not be swept"),
        }
    }

    async fn answer(&self, question: PolicyRequest) -> PolicyAnswer {
        let answer = match question {
            PolicyRequest::Authenticate { peer, user, password } => {
                let now = self.clock.now();
                let tried = self.accounts.authenticate(peer, &user, &password, now).await;
                tried.map(PolicyAnswer::Account)
            }
            PolicyRequest::LocalUser { uid } => {
                let settings = self.settings.load_full();
                let address = self.user(uid).await.address(&settings.local);
                address.map(PolicyAnswer::Account)
            }
            PolicyRequest::Sender { by, sender } => {
                self.may_send_as(&by, sender).await.map(|()| PolicyAnswer::Allowed)
            }
            PolicyRequest::Recipient { peer, sender, recipient, account } => {
                let candidate = Candidate { peer, sender, recipient, account };
                self.admit(candidate).await.map(PolicyAnswer::Route)
            }
            PolicyRequest::Greylist { peer, sender, recipient } => {
                let settings = self.settings.load_full();
                let verdict = self.greylisted(peer, (&sender, &recipient), &settings).await;
                Ok(PolicyAnswer::Greylist(verdict))
            }
            PolicyRequest::Charge { by, recipients } => {
                self.charge(&by, recipients).await.map(|()| PolicyAnswer::Allowed)
            }
        };
        answer.unwrap_or_else(PolicyAnswer::Refused)
    }

    async fn route(&self, address: &Address) -> RouteAnswer {
        let settings = self.settings.load_full();
        let Some(target) = settings.target(address) else {
            return match settings.elsewhere {
                Elsewhere::Nowhere => RouteAnswer::Nowhere,
                Elsewhere::Relay => RouteAnswer::Route(Route::Relay),
            };
        };
        match self.mailbox(&target, &settings).await {
            Ok(account) => RouteAnswer::Route(Route::Mailbox(account)),
            Err(Refusal::UnknownMailbox) => RouteAnswer::Unknown,
            Err(_) => RouteAnswer::Unavailable,
        }
    }

    async fn may_send_as(&self, by: &Submitter, sender: ReversePath) -> Result<(), Refusal> {
        let Some(account) = self.limited(by).await? else { return Ok(()) };
        if self.accounts.owns(&account, &sender) {
            return Ok(());
        }
        match sender {
            ReversePath::Mailbox(sender) => Err(Refusal::SenderNotOwned { sender }),
            ReversePath::Null => Ok(()),
        }
    }

    async fn charge(&self, by: &Submitter, recipients: u32) -> Result<(), Refusal> {
        let Some(account) = self.limited(by).await? else { return Ok(()) };
        self.accounts.charge(&account, recipients, self.clock.now())
    }

    /// The address that a client is held to; nothing for a local user who is trusted.
    async fn limited(&self, by: &Submitter) -> Result<Option<Address>, Refusal> {
        match by {
            Submitter::Account(account) => Ok(Some(account.clone())),
            Submitter::LocalUser(uid) => {
                let (settings, user) = (self.settings.load_full(), self.user(*uid).await);
                if user.is_trusted(&settings.local) {
                    return Ok(None);
                }
                user.address(&settings.local).map(Some)
            }
        }
    }

    async fn user(&self, uid: u32) -> User {
        let name = match &self.users {
            None => lamppost_net::user_name(uid),
            Some(users) => users.ask(uid).await.unwrap_or_default(),
        };
        User { uid, name }
    }

    async fn admit(&self, candidate: Candidate) -> Result<Route, Refusal> {
        let settings = self.settings.load_full();
        let recipient = &candidate.recipient;
        let Some(target) = settings.target(recipient) else {
            let domain = recipient.domain().to_owned();
            return match (&candidate.account, settings.elsewhere) {
                (None, _) => Err(Refusal::RelayDenied),
                (Some(_), Elsewhere::Nowhere) => Err(Refusal::NoWayOut { domain }),
                (Some(_), Elsewhere::Relay) => Ok(Route::Relay),
            };
        };
        let mailbox = self.mailbox(&target, &settings).await?;
        if candidate.account.is_none() {
            let addresses = (&candidate.sender.to_string()[..], candidate.recipient.as_str());
            match self.greylisted(candidate.peer, addresses, &settings).await {
                Verdict::Pass { .. } => {}
                Verdict::Wait { retry_in, .. } => return Err(Refusal::Greylisted { retry_in }),
                Verdict::Unavailable => return Err(Refusal::Unavailable),
            }
        }
        Ok(Route::Mailbox(mailbox))
    }

    /// The account that mail to a local address goes to.
    async fn mailbox(
        &self,
        target: &Address,
        settings: &PolicySettings,
    ) -> Result<Address, Refusal> {
        if let Some(account) = self.find(target).await? {
            return Ok(account);
        }
        // Mail to the postmaster must always arrive somewhere (RFC 5321 §4.5.1).
        if target.local().eq_ignore_ascii_case("postmaster")
            && let Some(postmaster) = &settings.postmaster
            && let Some(account) = self.find(postmaster).await?
        {
            return Ok(account);
        }
        Err(Refusal::UnknownMailbox)
    }

    async fn find(&self, address: &Address) -> Result<Option<Address>, Refusal> {
        self.accounts.find(address).await.map_err(|error| {
            error!(to = %address, reason = %chain(&error), "accounts could not be asked");
            Refusal::Unavailable
        })
    }
}

/// An error with its causes, for the one place that logs it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
