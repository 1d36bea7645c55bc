//! Lists in the DNS that clients are looked up in before they are greeted.
//!
//! All are asked at once. What counts is what those that answer in time say together; a list that does not
//! answer, or not as a list does, is taken out for a while, so that it holds up nobody and refuses nobody.

mod decision;
mod standing;

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::join_all;
use lamppost_dns::list::{self, ALWAYS_LISTED, Meaning, NEVER_LISTED};
use lamppost_dns::{LookupError, Resolver};
use lamppost_net::Clock;
use lamppost_smtp::Refusal;
use lamppost_telemetry::{Health, Metrics, State};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use self::decision::Found;
use self::standing::Standing;

/// The name of the component in `lamppost status`.
const COMPONENT: &str = "dns lists";

/// The lists and how they count.
#[derive(Clone, Debug)]
pub struct ListsSettings {
    /// The lists.
    pub lists: Vec<ListSettings>,
    /// The sum of weights from which on a client is refused.
    pub threshold: u32,
    /// How long all lists together may take.
    pub deadline: Duration,
    /// Whether refused clients may come again.
    pub temporary: bool,
    /// What happens to a client whose mail lists might refuse that do not answer.
    pub when_lists_fail: ListsFailure,
    /// Failures of a list one after the other before it is not asked for a while.
    pub failures_max: u32,
    /// How long it is not asked then.
    pub pause: Duration,
    /// How often test entries are looked at.
    pub check_every: Duration,
}

/// One list.
#[derive(Clone, Debug)]
pub struct ListSettings {
    /// Its name in the DNS.
    pub zone: String,
    /// What it means to be on it.
    pub kind: ListKind,
    /// What it counts.
    pub weight: u32,
    /// The answers that count.
    pub answers: Vec<RangeInclusive<Ipv4Addr>>,
    /// What a client is told instead of what the list says; `{ip}` and `{zone}` are filled in.
    pub text: Option<String>,
}

/// What it means to be on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Mail is not wanted.
    Block,
    /// Mail is wanted.
    Allow,
}

/// What happens to a client whose mail lists might refuse that do not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListsFailure {
    /// Its mail comes in as if it were on none of them.
    Accept,
    /// It is deferred.
    Defer,
}

/// The lists that clients are looked up in; clones share them.
#[derive(Clone)]
pub struct DnsLists(Arc<Shared>);

struct Shared {
    health: Health,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    in_force: ArcSwapOption<InForce>,
}

/// The lists as they are asked now.
struct InForce {
    settings: ListsSettings,
    resolver: Arc<dyn Resolver>,
    /// One for each list.
    standings: Mutex<Vec<Standing>>,
}

impl DnsLists {
    /// No lists yet.
    pub fn new(health: Health, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared { health, metrics, clock, in_force: ArcSwapOption::empty() }))
    }

    /// Asks these lists by this resolver from the next connection on.
    pub fn set(&self, settings: ListsSettings, resolver: Arc<dyn Resolver>) {
        let standings = Mutex::new(vec![Standing::default(); settings.lists.len()]);
        let in_force = Arc::new(InForce { settings, resolver, standings });
        self.0.in_force.store(Some(in_force.clone()));
        self.tell(&in_force);
    }

    /// Why mail of this client is refused, if it is.
    pub(super) async fn refusal(&self, peer: IpAddr) -> Option<Refusal> {
        let (in_force, found) = self.found(peer).await?;
        let settings = &in_force.settings;
        let told = decision::told(settings, &found);
        let refusal = decision::refusal(settings, &found, peer);
        if !told.is_empty() {
            info!(%peer, lists = told, refused = refusal.is_some(), "lists in the DNS were asked");
        }
        refusal
    }

    /// Whether more speaks against this client than for it, though perhaps too little to refuse its mail.
    pub(super) async fn hold(&self, peer: IpAddr) -> bool {
        let found = self.found(peer).await;
        found.is_some_and(|(in_force, found)| decision::is_against(&in_force.settings, &found))
    }

    /// What each list says of a client; nothing where none is asked about it.
    async fn found(&self, peer: IpAddr) -> Option<(Arc<InForce>, Vec<Found>)> {
        let in_force = self.0.in_force.load_full()?;
        // This machine has the test entries' addresses.
        if peer.is_loopback() || in_force.settings.lists.is_empty() {
            return None;
        }
        let settings = &in_force.settings;
        let deadline = Instant::now() + settings.deadline;
        let asked = (0..settings.lists.len()).map(|place| {
            let look = Look { lists: self, in_force: &in_force, place, peer, deadline };
            async move { look.look().await }
        });
        let found = join_all(asked).await;
        for (list, found) in settings.lists.iter().zip(&found) {
            self.0.metrics.dns_list_answer(&list.zone, found.name());
        }
        Some((in_force, found))
    }

    /// Has `lamppost status` and the figures tell how it stands with the lists.
    fn tell(&self, in_force: &InForce) {
        let standings = in_force.standings.lock();
        let zones = in_force.settings.lists.iter().map(|list| &list.zone);
        let faults = zones.zip(standings.iter()).filter_map(|(zone, standing)| {
            standing.fault.as_ref().map(|fault| format!("{zone}: {fault}"))
        });
        let faults: Vec<_> = faults.collect();
        let out = standings.iter().filter(|standing| standing.is_out(self.0.clock.now())).count();
        self.0.metrics.dns_lists_out.set(i64::try_from(out).unwrap_or(i64::MAX));
        if faults.is_empty() {
            let text = match standings.len() {
                0 => "none is asked".to_owned(),
                count => format!("{count} are asked"),
            };
            self.0.health.set(COMPONENT, State::Ok, text);
        } else {
            self.0.health.set(COMPONENT, State::Warn, faults.join("; "));
        }
    }
}

/// One list asked about one client.
#[derive(Clone, Copy)]
struct Look<'a> {
    lists: &'a DnsLists,
    in_force: &'a InForce,
    place: usize,
    peer: IpAddr,
    deadline: Instant,
}

impl Look<'_> {
    async fn look(self) -> Found {
        let settings = &self.in_force.settings;
        let now = self.lists.0.clock.now();
        let (is_out, is_due, is_back) = {
            let mut standings = self.in_force.standings.lock();
            let standing = &mut standings[self.place];
            let is_back = standing.comes_back(now);
            (standing.is_out(now), standing.is_due(settings, now), is_back)
        };
        if is_out {
            return Found::Out;
        }
        if is_back {
            info!(list = self.zone(), "a list in the DNS is asked again");
            self.lists.tell(self.in_force);
        }
        let test = async { if is_due { Some(self.test().await) } else { None } };
        let (answers, test) = tokio::join!(self.addresses(self.peer), test);
        if test.is_some_and(|test| self.tested(&test)) {
            return Found::Failed;
        }
        let answers = match answers {
            Ok(answers) => answers,
            Err(reason) => {
                let reason = reason.to_string();
                self.change(|standing, now| standing.failed(&reason, settings, now), &reason);
                return Found::Failed;
            }
        };
        match list::meaning(&answers, &self.in_force.settings.lists[self.place].answers) {
            Meaning::Wrong(reason) => {
                self.takes_out(&reason);
                Found::Failed
            }
            Meaning::Absent => {
                self.in_force.standings.lock()[self.place].answered();
                Found::Absent
            }
            Meaning::Listed => {
                self.in_force.standings.lock()[self.place].answered();
                Found::Listed(self.text().await)
            }
        }
    }

    /// What the list says of the client, where it is asked for and comes in time.
    async fn text(self) -> Option<String> {
        let list = &self.in_force.settings.lists[self.place];
        if list.kind == ListKind::Allow || list.text.is_some() {
            return None;
        }
        let name = list::name(self.peer, &list.zone);
        let texts = timeout_at(self.deadline, self.in_force.resolver.texts(&name)).await;
        texts.ok()?.ok()?.into_iter().find(|text| !text.is_empty())
    }

    /// Looks at the test entries (RFC 5782 §5).
    async fn test(self) -> list::Test {
        let never = self.addresses(NEVER_LISTED.into());
        let (never, always) = tokio::join!(never, self.addresses(ALWAYS_LISTED.into()));
        list::Test::of(never, always)
    }

    /// Remembers what a test told; says whether the list is to be believed nothing.
    fn tested(self, test: &list::Test) -> bool {
        const EMPTY: &str =
            "it does not hold its test entry 127.0.0.2: it may list nobody any more";
        let remark = match test {
            list::Test::Unknown(_) => return false,
            list::Test::Passed => None,
            list::Test::Empty => Some(EMPTY.to_owned()),
            list::Test::ListsAll => {
                self.takes_out("it lists everybody, also 127.0.0.1");
                return true;
            }
        };
        let is_new = {
            let mut standings = self.in_force.standings.lock();
            let standing = &mut standings[self.place];
            let is_new = standing.fault != remark;
            standing.checked(self.lists.0.clock.now(), remark);
            is_new
        };
        if is_new {
            if matches!(test, list::Test::Empty) {
                warn!(list = self.zone(), reason = EMPTY, "a list in the DNS is odd");
            }
            self.lists.tell(self.in_force);
        }
        false
    }

    fn takes_out(self, reason: &str) {
        let settings = &self.in_force.settings;
        self.change(|standing, now| standing.takes_out(reason, settings, now), reason);
    }

    /// Changes how it stands with the list, and tells when it is taken out by that.
    fn change(self, change: impl FnOnce(&mut Standing, Duration) -> bool, reason: &str) {
        let now = self.lists.0.clock.now();
        let is_taken_out = change(&mut self.in_force.standings.lock()[self.place], now);
        if is_taken_out {
            let pause = self.in_force.settings.pause;
            warn!(list = self.zone(), reason, ?pause, "a list in the DNS is not asked for a while");
            self.lists.tell(self.in_force);
        }
    }

    async fn addresses(self, of: IpAddr) -> Result<Vec<Ipv4Addr>, LookupError> {
        let name = list::name(of, self.zone());
        let asked = timeout_at(self.deadline, self.in_force.resolver.addresses(&name)).await;
        asked.unwrap_or(Err(LookupError::Silent))
    }

    fn zone(&self) -> &str {
        &self.in_force.settings.lists[self.place].zone
    }
}
