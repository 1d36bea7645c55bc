//! Policy: who may do what, asked by the front; the way to a recipient, asked by the queue too.
//!
//! The order of the questions about a recipient is part of the policy: a mailbox that does not
//! exist is refused for good before greylisting makes anyone wait for it.

mod admission;
mod greylist_control;
mod greylisted;
mod lists;
mod local;
mod rules;
mod settings;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use lamppost_accounts::Accounts;
use lamppost_evidence::Investigator;
use lamppost_greylist::{Attempt, Greylist};
use lamppost_net::Clock;
use lamppost_net::link::{Inbox, Port};
use lamppost_roles::{
    PolicyAnswer, PolicyRequest, Route, RouteAnswer, RouteRequest, Submitter, UserAnswer,
    UserMailbox, UserName, UserRequest,
};
use lamppost_smtp::{Address, Refusal, ReversePath};
use lamppost_telemetry::Metrics;
use tokio::time::MissedTickBehavior;
use tracing::{debug, error, warn};

pub use self::lists::{DnsLists, ListKind, ListSettings, ListsFailure, ListsSettings};
use self::local::User;
pub use self::rules::ConnectionRules;
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
    /// Who knows the users of this machine; where nobody does, policy may read their names itself.
    users: Option<Port<UserRequest, UserAnswer>>,
    /// The rules of connections; without them everybody may connect.
    rules: Option<ConnectionRules>,
    /// The lists in the DNS that clients are looked up in.
    lists: Option<DnsLists>,
    /// Who finds out about clients that the greylist does not know.
    investigator: Option<Arc<dyn Investigator>>,
}

/// A recipient as the front asks about it.
struct Candidate {
    peer: IpAddr,
    helo: String,
    sender: ReversePath,
    recipient: Address,
    account: Option<Address>,
    relay: bool,
    greylisting: Option<bool>,
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
        Self {
            settings,
            accounts,
            greylist,
            clock,
            metrics,
            users: None,
            rules: None,
            lists: None,
            investigator: None,
        }
    }

    /// Asks the supervisor about the machine's users.
    #[must_use]
    pub fn asking(self, users: Port<UserRequest, UserAnswer>) -> Self {
        Self { users: Some(users), ..self }
    }

    /// Counts what it decides in these figures instead of its own.
    #[must_use]
    pub fn counting(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Decides by these rules who may connect.
    #[must_use]
    pub fn ruled_by(self, rules: ConnectionRules) -> Self {
        Self { rules: Some(rules), ..self }
    }

    /// Looks clients up in these lists.
    #[must_use]
    pub fn asking_lists(self, lists: DnsLists) -> Self {
        Self { lists: Some(lists), ..self }
    }

    /// Has this one find out about clients that the greylist does not know.
    #[must_use]
    pub fn investigated_by(self, investigator: Arc<dyn Investigator>) -> Self {
        Self { investigator: Some(investigator), ..self }
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
    pub async fn run(self, inbox: Inbox<PolicyRequest, PolicyAnswer>) {
        tokio::select! {
            () = self.answer_all(inbox) => {}
            () = self.keep() => {}
        }
        self.write().await;
    }

    async fn answer_all(&self, mut inbox: Inbox<PolicyRequest, PolicyAnswer>) {
        while let Some((question, reply)) = inbox.next().await {
            let policy = self.clone();
            let mut answering = Box::pin(async move { policy.answer(question).await });
            // Most answers are at hand. The others are as many at once as there are sessions: each
            // asks one question at a time.
            match (&mut answering).now_or_never() {
                Some(answer) => reply.send(answer),
                None => drop(tokio::spawn(async move { reply.send(answering.await) })),
            }
        }
    }

    /// Keeps the greylist's store up to date, for ever.
    async fn keep(&self) {
        let mut write = tokio::time::interval(Greylist::WRITE_EVERY);
        // A store that is slow is not asked more often for it.
        write.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweep = tokio::time::interval(EXPIRE_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = write.tick() => self.write().await,
                _ = sweep.tick() => self.sweep().await,
            }
        }
    }

    /// Writes what the greylist decided since the last time.
    pub async fn write(&self) {
        if let Err(error) = self.greylist.write().await {
            error!(reason = %chain(&error), "the greylist could not be written: it is tried again");
        }
        if let Err(error) = self.greylist.write_log().await {
            error!(reason = %chain(&error), "what passed could not be written down");
        }
        if let Err(error) = self.greylist.read_wildcards(self.clock.now()).await {
            error!(reason = %chain(&error), "the greylist's manual rows could not be read");
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
            PolicyRequest::Connection { peer, lists } => self.connection(peer, lists).await,
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
            PolicyRequest::Recipient {
                peer,
                helo,
                sender,
                recipient,
                account,
                relay,
                greylisting,
            } => {
                let candidate =
                    Candidate { peer, helo, sender, recipient, account, relay, greylisting };
                self.admit(candidate).await
            }
            PolicyRequest::Greylist { peer, helo, sender, recipient } => {
                let settings = self.settings.load_full();
                let (helo, sender, recipient) = (&helo[..], &sender[..], &recipient[..]);
                let attempt = Attempt { peer, helo, sender, recipient, although_off: false };
                let verdict = self.greylisted_elsewhere(&attempt, &settings).await;
                Ok(PolicyAnswer::Greylist(verdict))
            }
            PolicyRequest::Outcome { peer, sender, recipients, accepted } => {
                self.learn(peer, &sender, &recipients, accepted);
                Ok(PolicyAnswer::Allowed)
            }
            PolicyRequest::Charge { by, recipients } => {
                self.charge(&by, recipients).await.map(|()| PolicyAnswer::Allowed)
            }
        };
        answer.unwrap_or_else(PolicyAnswer::Refused)
    }

    /// Whether a client may connect, and what is so for it.
    async fn connection(&self, peer: IpAddr, lists: bool) -> Result<PolicyAnswer, Refusal> {
        let verdict = match &self.rules {
            Some(rules) => rules.verdict(peer).await.ok_or(Refusal::Unavailable)?,
            None => lamppost_rules::Verdict::default(),
        };
        if verdict.denied {
            return Ok(PolicyAnswer::Denied { rule: verdict.key.unwrap_or_default() });
        }
        let mut admission = admission::by(&verdict, peer);
        // A rule that says what the lists would say spares them, and so does one by which it may do more.
        let is_decided = verdict.variable("RBLSMTPD").is_some() || admission.relay.is_some();
        if let Some(dns_lists) = &self.lists
            && lists
            && !is_decided
        {
            admission.refusal = dns_lists.refusal(peer).await;
        }
        Ok(PolicyAnswer::Admitted(admission))
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
            Some(users) => match users.ask(UserRequest::Name(uid)).await {
                Ok(UserAnswer::Name(name)) => name,
                _ => None,
            },
        };
        User { uid, name }
    }

    async fn admit(&self, candidate: Candidate) -> Result<PolicyAnswer, Refusal> {
        let settings = self.settings.load_full();
        let recipient = &candidate.recipient;
        let Some(target) = settings.target(recipient) else {
            let domain = recipient.domain().to_owned();
            return match settings.elsewhere {
                _ if !candidate.may_relay() => Err(Refusal::RelayDenied),
                Elsewhere::Nowhere => Err(Refusal::NoWayOut { domain }),
                Elsewhere::Relay => {
                    let (from, now) = (candidate.sender.to_string(), self.clock.now());
                    self.greylist.expect_answer(&from, recipient.as_str(), now);
                    Ok(PolicyAnswer::Route(Route::Relay))
                }
            };
        };
        let is_spared = candidate.may_relay() || candidate.greylisting == Some(false);
        let mailbox = self.mailbox(&target, &settings).await;
        if mailbox == Err(Refusal::UnknownMailbox) && !is_spared {
            self.greylist.guessed(candidate.peer, self.clock.now());
        }
        let route = Route::Mailbox(mailbox?);
        if is_spared {
            return Ok(PolicyAnswer::Route(route));
        }
        let attempt = Attempt {
            peer: candidate.peer,
            helo: &candidate.helo,
            sender: &candidate.sender.to_string(),
            recipient: candidate.recipient.as_str(),
            although_off: candidate.greylisting == Some(true),
        };
        self.greylisted(&attempt, &settings).await.on_the_way(route)
    }

    /// The account or user that mail to a local address goes to.
    async fn mailbox(
        &self,
        target: &Address,
        settings: &PolicySettings,
    ) -> Result<Address, Refusal> {
        if let Some(found) = self.find(target, settings).await? {
            return Ok(found);
        }
        // Mail to the postmaster must always arrive somewhere (RFC 5321 §4.5.1).
        if target.local().eq_ignore_ascii_case("postmaster")
            && let Some(postmaster) = &settings.postmaster
            && let Some(found) = self.find(postmaster, settings).await?
        {
            return Ok(found);
        }
        Err(Refusal::UnknownMailbox)
    }

    async fn find(
        &self,
        address: &Address,
        settings: &PolicySettings,
    ) -> Result<Option<Address>, Refusal> {
        if settings.is_of_user(address) {
            return self.find_user(address).await;
        }
        self.accounts.find(address).await.map_err(|error| {
            error!(to = %address, reason = %chain(&error), "accounts could not be asked");
            Refusal::Unavailable
        })
    }

    /// The mailbox of a user of this machine, in lower case.
    async fn find_user(&self, address: &Address) -> Result<Option<Address>, Refusal> {
        let Some(name) = UserName::of(address.local()) else { return Ok(None) };
        let Some(users) = &self.users else { return Ok(None) };
        match users.ask(UserRequest::Mailbox(name)).await {
            Ok(UserAnswer::Mailbox(UserMailbox::Here(_))) => {
                let mailbox = format!("{}@{}", name.as_str(), address.domain().to_lowercase());
                mailbox.parse().map(Some).map_err(|_| Refusal::UnknownMailbox)
            }
            Ok(UserAnswer::Mailbox(UserMailbox::Unknown)) => Ok(None),
            Ok(UserAnswer::Mailbox(UserMailbox::Away(reason))) => {
                warn!(to = %address, reason, "the home of a user takes no mail now");
                Err(Refusal::MailboxAway)
            }
            Ok(UserAnswer::Name(_)) | Err(_) => Err(Refusal::Unavailable),
        }
    }
}

impl Candidate {
    /// Whether mail for elsewhere may come: of an account, or of a client that the rules trust.
    fn may_relay(&self) -> bool {
        self.account.is_some() || self.relay
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
