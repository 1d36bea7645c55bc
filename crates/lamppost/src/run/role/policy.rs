//! Policy: accounts, the greylist, the rules of connections and lists in the DNS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lamppost_config::{self as config, Config, Dns, DnsList, GreylistDatabase, StoreFailure};
use lamppost_console::Blocked;
use lamppost_database::{Database, Survives};
use lamppost_dns::NameServers;
use lamppost_evidence::{DnsInvestigator, Limits};
use lamppost_greylist::{Condition as GreylistCondition, Greylist, SharedStore, SqliteStore};
use lamppost_mail::policy::{ConnectionRules, DnsLists, Policy};
use lamppost_net::SystemClock;
use lamppost_telemetry::{Fact, Health, State};
use parking_lot::Mutex;
use tracing::error;

use super::{Start, handed};
use crate::exit::{Code, Failure, chain};
use crate::run::setup::Setup;
use crate::run::{open_accounts, settings};
use crate::state_files::{self, ACCOUNTS, GREYLIST, JOURNAL, database_failure};

/// Policy at work.
pub(super) struct Running {
    policy: Policy,
    greylist: Arc<Greylist>,
    /// Its store, where several servers share one.
    shared: Option<Arc<SharedStore>>,
    rules: ConnectionRules,
    asking: Asking,
}

/// Those who ask name servers, and what the configuration said of that when they were set.
struct Asking {
    lists: DnsLists,
    rules: ConnectionRules,
    investigator: Arc<DnsInvestigator>,
    set: Mutex<Option<Box<SetBy>>>,
}

/// All that lists in the DNS depend on, and what is asked about clients.
type SetBy = (Dns, config::DnsLists, Vec<DnsList>, [Option<Duration>; 2], Vec<SocketAddr>);

pub(super) async fn begin(mut start: Start) -> Result<Running, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::of(Code::Software, error);
    let (config, setup) = (&start.config, &start.setup);
    let accounts = open_accounts(config, &state_files::database(&setup.state, ACCOUNTS)).await?;
    let (greylist, shared) = open_greylist(config, setup).await?;
    let greylist = Arc::new(greylist);
    let settings = settings::policy(config, &setup.hostname);
    let users = start.links.port("users").map_err(|error| Failure::of(Code::Software, &error))?;
    let policy = Policy::new(settings, accounts, greylist.clone(), Arc::new(SystemClock));
    let health = Health::default();
    let reader = start.links.port("rules").map_err(|error| failed(&error))?;
    let rules = ConnectionRules::new(reader, health.clone(), Arc::new(SystemClock));
    rules.set_file(config.mail.rules.file.as_deref());
    if !rules.are_known().await {
        // It was looked at a moment ago.
        let text = health.facts().into_iter().next().map(|fact| fact.text).unwrap_or_default();
        return Err(Failure::new(Code::Config, format!("no connection rules: {text}")));
    }
    let lists = DnsLists::new(health.clone(), start.metrics.clone(), Arc::new(SystemClock));
    let policy = policy.asking(users).ruled_by(rules.clone());
    let policy = policy.counting(start.metrics.clone());
    let policy = policy.asking_lists(lists.clone());
    let investigator = Arc::new(DnsInvestigator::default());
    let policy = policy.investigated_by(investigator.clone());
    let asking = Asking { lists, rules: rules.clone(), investigator, set: Mutex::new(None) };
    asking.set(config, setup)?;
    let (told, shown) = (policy.clone(), greylist.clone());
    let is_shared = shared.is_some();
    start.inspected(move |mut condition| {
        condition.health = health.facts();
        condition.health.extend(is_shared.then(|| greylist_fact(&shown)));
        let (addresses, accounts) = told.blocked();
        condition.blocked = Blocked { addresses: addresses as u64, accounts: accounts as u64 };
        condition
    })?;
    let links = &mut start.links;
    let (joint, questions) = links.joint(&["policy"]).map_err(|error| failed(&error))?;
    let later = links.one("handed").map_err(|error| failed(&error))?;
    handed::receive(later, move |_, end| {
        if let Err(reason) = joint.join("policy", end) {
            error!(%reason, "a new front cannot ask");
        }
    })
    .map_err(|error| failed(&error))?;
    let routes = links.inbox("routes").map_err(|error| failed(&error))?;
    let wishes = links.inbox("greylist").map_err(|error| failed(&error))?;
    tokio::spawn(policy.clone().run_control(wishes));
    tokio::spawn(policy.clone().run(questions));
    tokio::spawn(policy.clone().run_routes(routes));
    let running = Running { policy, greylist, shared, rules, asking };
    running.set_alone(&start.config);
    Ok(running)
}

/// The greylist and, where several servers share it, its store.
async fn open_greylist(
    config: &Config,
    setup: &Setup,
) -> Result<(Greylist, Option<Arc<SharedStore>>), Failure> {
    let policy = settings::greylist(config);
    let failed = |error| Failure::of(Code::Io, &error);
    // A file of its own: a power cut may cost the last triplets, which only come back later.
    let open = |path: &Path| {
        let database = Database::open(path, Survives::Kill);
        database.map_err(|error| database_failure(path, &error))
    };
    let path = match (&config.mail.greylist.database, &setup.greylist) {
        (GreylistDatabase::Shared(shared), Some(how)) => {
            let journal = open(&state_files::databases(&setup.state).join(JOURNAL))?;
            let clock = Arc::new(SystemClock);
            let store = SharedStore::open(how.server(shared), journal, clock).await;
            let store = Arc::new(store.map_err(failed)?);
            if let Err(error) = store.ask().await {
                error!(reason = %chain(&error), "the greylist's database is away");
            }
            return Ok((Greylist::new(policy, Box::new(store.clone())), Some(store)));
        }
        (GreylistDatabase::File(path), _) => path.clone(),
        _ => state_files::database(&setup.state, GREYLIST),
    };
    let store = SqliteStore::open(open(&path)?).await.map_err(failed)?;
    Ok((Greylist::new(policy, Box::new(store)), None))
}

/// How the greylist's store does, for `lamppost status` and `doctor`.
fn greylist_fact(greylist: &Greylist) -> Fact {
    let GreylistCondition { away, journalled, lost } = greylist.condition();
    let waiting = match journalled {
        0 => String::new(),
        count => format!("; changes of {count} triplets wait here to be written back"),
    };
    let (state, text) = match away {
        Some(reason) => {
            (State::Fail, format!("{reason}{waiting}; `when-store-fails` decides meanwhile"))
        }
        None if lost > 0 => {
            (State::Warn, format!("{lost} changes found no room in the journal and are lost"))
        }
        None if journalled > 0 => (State::Warn, format!("the database is there again{waiting}")),
        None => (State::Ok, "its database answers".into()),
    };
    Fact { component: "greylist".into(), state, text }
}

impl Running {
    pub(super) fn apply(&self, config: &Config, setup: &Setup) -> Result<(), Failure> {
        self.greylist.set_policy(settings::greylist(config));
        self.set_alone(config);
        self.policy.set_settings(settings::policy(config, &setup.hostname));
        self.rules.set_file(config.mail.rules.file.as_deref());
        self.asking.set(config, setup)
    }

    /// Whether the greylist decides by what it knows here while its database is away.
    fn set_alone(&self, config: &Config) {
        let alone = config.mail.greylist.when_store_fails == StoreFailure::Local;
        if let Some(shared) = &self.shared {
            shared.decide_alone(alone);
        }
    }

    /// Writes what is in memory alone.
    pub(super) async fn finish(self, grace: Duration) {
        // A store that does not answer must not hold up the end.
        drop(tokio::time::timeout(grace, self.policy.write()).await);
    }
}

/// Whether the name servers could be asked as the configuration says.
pub(super) fn check(config: &Config, setup: &Setup) -> Result<(), Failure> {
    name_servers(config, setup).map(drop)
}

fn name_servers(config: &Config, setup: &Setup) -> Result<NameServers, Failure> {
    NameServers::new(&setup.name_servers, settings::name_servers(config))
        .map_err(|error| Failure::at(Code::Config, "dns.servers", &error))
}

impl Asking {
    /// Asks as the configuration says; what is known of lists is kept where that is as before.
    fn set(&self, config: &Config, setup: &Setup) -> Result<(), Failure> {
        let mail = &config.mail;
        let deadline = mail.greylist.rules.lookup_timeout;
        let deadline = settings::investigates(config).then_some(deadline);
        let by = Box::new((
            config.dns.clone(),
            mail.dns_lists.clone(),
            mail.dns_list.clone(),
            [Some(mail.rules.name_timeout), deadline],
            setup.name_servers.clone(),
        ));
        let mut set = self.set.lock();
        if set.as_ref() != Some(&by) && (set.is_some() || settings::asks_name_servers(config)) {
            let resolver = Arc::new(name_servers(config, setup)?);
            self.lists.set(settings::dns_lists(config), resolver.clone());
            self.rules.set_resolver(resolver.clone(), mail.rules.name_timeout);
            match deadline {
                Some(deadline) => {
                    self.investigator.set(resolver, Limits { deadline, ..Limits::default() });
                }
                None => self.investigator.stop(),
            }
            *set = Some(by);
        }
        Ok(())
    }
}
